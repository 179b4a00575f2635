//! AWS's Service Authorization Reference: which actions there are, for what each is authorised, and which condition
//! keys IAM knows there. See `policies/reference/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

/// The excerpt in `policies/reference/`.
static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let text = include_str!("../../../policies/reference/service-authorization.json");
    // A test reads it; one that is broken knows no action, which the lint says of each.
    serde_json::from_str(text).unwrap_or_default()
});

/// What AWS says of the services that we call.
#[derive(Debug, Default, Deserialize)]
pub struct Reference {
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    actions: BTreeSet<String>,
    details: BTreeMap<String, Action>,
    arns: BTreeMap<String, String>,
}

/// What an action is authorised for, by the type of the resource; `""` is for what depends on no resource.
pub type Action = BTreeMap<String, Row>;

/// One type of resource that an action is authorised for.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Whether each call is authorised for a resource of this type.
    pub required: bool,
    condition_keys: Vec<String>,
}

impl Reference {
    /// The pinned one.
    pub fn pinned() -> &'static Self {
        &REFERENCE
    }

    /// Whether AWS has an action.
    pub fn has(&self, action: &str) -> bool {
        self.of(action).is_some_and(|(service, name)| service.actions.contains(name))
    }

    /// What an action is authorised for, where the excerpt says so.
    pub fn action(&self, action: &str) -> Option<&Action> {
        self.of(action).and_then(|(service, name)| service.details.get(name))
    }

    /// The form of the ARNs of a type, such as `arn:${Partition}:ec2:${Region}::snapshot/${SnapshotId}`.
    pub fn arn_form(&self, action: &str, of_type: &str) -> Option<&str> {
        self.of(action).and_then(|(service, _)| service.arns.get(of_type)).map(String::as_str)
    }

    fn of<'a>(&self, action: &'a str) -> Option<(&Service, &'a str)> {
        let (service, name) = action.split_once(':')?;
        Some((self.services.get(service)?, name))
    }
}

impl Row {
    /// Whether IAM knows a condition key here.
    pub fn knows(&self, key: &str) -> bool {
        let is_start = |start: &str| key.get(..start.len()).is_some_and(|of| of.eq_ignore_ascii_case(start));
        self.condition_keys.iter().any(|known| match known.split_once("${") {
            // `aws:RequestTag/${TagKey}` stands for the keys of all tags.
            Some((start, _)) => is_start(start),
            None => known.eq_ignore_ascii_case(key),
        })
    }
}

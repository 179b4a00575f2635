//! Everything of an environment at one moment: what is wanted, or what is found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::property::compare;

/// A resource's kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceId {
    /// The kind's name, such as `log group`.
    pub kind: String,
    /// The resource's name in AWS.
    pub name: String,
}

impl ResourceId {
    /// A resource of a kind.
    pub fn new(kind: &str, name: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), name: name.into() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What an environment should hold.
pub type Desired = BTreeMap<ResourceId, Value>;

/// What was found, with what AWS needs to name it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found<P = Value, H = Value> {
    /// The properties, in the same form as the wanted ones.
    pub properties: P,
    /// What is not wanted or unwanted but needed for the next call: a URL, a version, a time. It may change without
    /// anything having changed that somebody approved, as when a subscriber confirms, so it is not fingerprinted.
    pub handle: H,
    /// The resource's tags; `None` for what cannot carry any and belongs to its parent's owner.
    pub tags: Option<BTreeMap<String, String>>,
    /// AWS's own name for this very state, with which it refuses a change that was meant for another. It also changes
    /// without anything having changed, so it is no part of what is compared, fingerprinted or saved.
    #[serde(skip)]
    pub revision: Option<String>,
}

impl Found {
    /// Whether both are the same thing in the same state, as far as anybody wants to know.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.properties, &self.tags) == (&other.properties, &other.tags)
    }
}

/// What an environment holds.
pub type Observed = BTreeMap<ResourceId, Found>;

/// A digest of everything observed: equal digests mean that nothing has changed in between that anybody wants to know.
pub fn fingerprint(observed: &Observed) -> String {
    let entries: Vec<_> = observed.iter().map(|(id, found)| (id, &found.properties, &found.tags)).collect();
    hex::encode(Sha256::digest(serde_json::json!(entries).to_string()))
}

/// The resources in which two observations differ, each with how.
pub fn differences(before: &Observed, now: &Observed) -> Vec<String> {
    let mut names: Vec<&ResourceId> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter_map(|id| match (before.get(id), now.get(id)) {
            (None, Some(_)) => Some(format!("{id} appeared")),
            (Some(_), None) => Some(format!("{id} is gone")),
            (Some(before), Some(now)) if !before.is_like(now) => {
                let changes = compare(&now.properties, &before.properties);
                let properties: Vec<_> = changes.iter().map(|change| change.property.as_str()).collect();
                Some(match properties.as_slice() {
                    [] => format!("{id} changed"),
                    properties => format!("{id} changed in {}", properties.join(", ")),
                })
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An approval that a pipeline waits for must not be void because somebody clicked "Confirm subscription".
    #[test]
    fn what_only_names_a_resource_makes_no_approval_stale() {
        let observed = |filter: Value, handle: Value| {
            let found = Found { properties: json!({ "filter": filter }), handle, tags: None, revision: None };
            Observed::from([(ResourceId::new("subscription", "email:ops@example.org"), found)])
        };
        let pending = observed(Value::Null, json!({ "arn": null, "pending": true }));
        let confirmed = observed(Value::Null, json!({ "arn": "arn:s", "pending": false }));
        assert_eq!(fingerprint(&pending), fingerprint(&confirmed));
        assert_eq!(differences(&pending, &confirmed), Vec::<String>::new());
        let filtered = observed(json!({ "a": [1] }), json!({ "arn": "arn:s", "pending": false }));
        assert_ne!(fingerprint(&filtered), fingerprint(&confirmed));
    }
}

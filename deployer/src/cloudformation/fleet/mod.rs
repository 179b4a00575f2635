//! One StackSet that brings an environment to many accounts and Regions: CloudFormation's own distributed engine.
//!
//! Nothing is remembered between two commands: what there is, CloudFormation lists, and what is missing or failed is what
//! the next deploy does.

mod operations;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::environment::Fleet;
use crate::error::{AwsError, Call};
use crate::kinds::Context;

pub use operations::{deploy, destroy};
pub use plan::plan;

/// The kinds of what a fleet is made of, as plans name them.
pub const STACK_SET: &str = "stack set";
/// One stack of a fleet: an account, or an organizational unit's accounts, in a Region.
pub const STACK_INSTANCE: &str = "stack instance";

/// A target in a Region: an account's number or an organizational unit's id, and the Region.
pub type Place = (String, String);

/// What a fleet should be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Who gets it.
    pub fleet: Fleet,
    /// The template's text.
    pub body: String,
    /// What the template's parameters are.
    pub parameters: BTreeMap<String, String>,
    /// The tags of the StackSet, which its stacks get as well.
    pub tags: BTreeMap<String, String>,
}

/// What a fleet is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The StackSet's properties, in the form of the wanted ones.
    pub properties: Value,
    /// Its stacks.
    pub instances: Vec<Instance>,
}

/// One stack of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Instance {
    /// The account that it is in.
    pub account: String,
    /// The Region that it is in.
    pub region: String,
    /// The organizational unit that it is there for.
    pub unit: Option<String>,
    /// `CURRENT`, `OUTDATED` or `INOPERABLE`.
    pub status: String,
    /// Why it is not current.
    pub reason: Option<String>,
}

/// Where an operation failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The account.
    pub account: String,
    /// The Region.
    pub region: String,
    /// CloudFormation's own words.
    pub reason: String,
}

impl Wanted {
    /// What of it the StackSet itself holds.
    pub(super) fn properties(&self) -> Value {
        json!({
            "template": digest(&self.body),
            "parameters": self.parameters,
            "tags": self.tags,
            "auto_deploy": self.by_organization().then_some(self.fleet.auto_deploy),
        })
    }

    fn by_organization(&self) -> bool {
        !self.fleet.organizational_units.is_empty()
    }

    /// Everywhere it should be.
    fn places(&self) -> BTreeSet<Place> {
        let units = self.fleet.organizational_units.iter().map(ToString::to_string);
        let targets: Vec<String> = units.chain(self.fleet.accounts.iter().map(ToString::to_string)).collect();
        let regions = self.fleet.regions.iter().map(ToString::to_string);
        regions
            .flat_map(|region| targets.iter().map(move |target| (target.clone(), region.clone())))
            .collect()
    }
}

/// Equal digests mean equal templates; CloudFormation may lay a text out anew.
fn digest(body: &str) -> String {
    let text =
        serde_json::from_str::<Value>(body).map_or_else(|_| body.to_owned(), |value| value.to_string());
    hex::encode(&Sha256::digest(text)[..8])
}

/// The fleet that there is.
pub async fn find(cx: &Context) -> Result<Option<Found>, AwsError> {
    let name = cx.scope.stack();
    let answer = cx.aws.cloudformation.describe_stack_set().stack_set_name(&name).send().await;
    let set = match answer.call("cloudformation:DescribeStackSet") {
        Err(error) if error.code.starts_with("StackSetNotFound") => return Ok(None),
        answer => answer?.stack_set,
    };
    // A deleted one is still known for a while.
    let Some(set) = set.filter(|set| set.status.as_ref().is_none_or(|status| status.as_str() != "DELETED"))
    else {
        return Ok(None);
    };
    let parameters = set.parameters.unwrap_or_default().into_iter();
    let parameters: BTreeMap<String, String> = parameters
        .filter_map(|parameter| Some((parameter.parameter_key?, parameter.parameter_value?)))
        .collect();
    let tags: BTreeMap<String, String> =
        set.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?))).collect();
    let properties = json!({
        "template": digest(&set.template_body.unwrap_or_default()),
        "parameters": parameters,
        "tags": tags,
        "auto_deploy": set.auto_deployment.and_then(|deployment| deployment.enabled),
    });
    Ok(Some(Found { properties, instances: instances(cx, &name).await? }))
}

async fn instances(cx: &Context, name: &str) -> Result<Vec<Instance>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call = cx.aws.cloudformation.list_stack_instances().stack_set_name(name).set_next_token(next);
        let page = call.send().await.call("cloudformation:ListStackInstances")?;
        all.extend(page.summaries.unwrap_or_default().into_iter().map(|summary| Instance {
            account: summary.account.unwrap_or_default(),
            region: summary.region.unwrap_or_default(),
            unit: summary.organizational_unit_id.filter(|unit| !unit.is_empty()),
            status: summary.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            reason: summary.status_reason.filter(|reason| !reason.is_empty()),
        }));
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            all.sort();
            return Ok(all);
        }
    }
}

/// By what each is there for.
fn by_place(found: &Found) -> BTreeMap<Place, Vec<Instance>> {
    let mut all: BTreeMap<Place, Vec<Instance>> = BTreeMap::new();
    for instance in &found.instances {
        let target = instance.unit.clone().unwrap_or_else(|| instance.account.clone());
        all.entry((target, instance.region.clone())).or_default().push(instance.clone());
    }
    all
}

//! What has to happen so that what is found becomes what is wanted. Pure: no clock, no client, no randomness.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::property::{Change, compare};
use crate::scope::Scope;
use crate::world::{Desired, Found, Observed, ResourceId};

/// What a step does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It does not exist and is made.
    Create,
    /// It differs and is changed in place.
    Update,
    /// It is ours, but no longer wanted.
    Delete,
    /// Nothing happens to it.
    Keep,
}

impl Verb {
    /// The sign that plans are read by.
    pub fn symbol(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Keep => ' ',
        }
    }
}

/// One resource and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The resource.
    pub resource: ResourceId,
    /// What happens.
    pub verb: Verb,
    /// The properties that differ; for a new resource all of them.
    pub changes: Vec<Change>,
    /// What the resource should be; absent when it goes away.
    pub wanted: Option<Value>,
    /// What it is now; absent when it is new.
    pub found: Option<Found>,
}

/// The steps, in the order of the kinds' tiers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Every resource, including those that are kept.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps that do something.
    pub fn pending(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.verb != Verb::Keep)
    }

    /// Whether nothing has to happen.
    pub fn is_empty(&self) -> bool {
        self.pending().next().is_none()
    }

    /// How many steps have the verb.
    pub fn count(&self, verb: Verb) -> usize {
        self.steps.iter().filter(|step| step.verb == verb).count()
    }
}

/// What a plan may do beyond the ordinary.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Take over resources that have our names but not our tag.
    pub adopt: bool,
    /// Kinds that stay even when nothing wants them any more.
    pub retain: BTreeSet<&'static str>,
}

/// A resource has the name that we would give it, but does not carry this environment's tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} already exist{} and {} not belong to this environment: {}",
    if self.0.len() == 1 { "a resource" } else { "resources" },
    if self.0.len() == 1 { "s" } else { "" },
    if self.0.len() == 1 { "does" } else { "do" },
    self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub struct Unowned(pub Vec<ResourceId>);

/// Where a kind stands, as far as planning needs to know.
pub trait Order {
    /// The kinds' names, parents before children.
    fn kinds(&self) -> Vec<&'static str>;
    /// The resource that an untaggable one belongs to.
    fn parent(&self, resource: &ResourceId, scope: &Scope) -> Option<ResourceId>;
}

/// Plans the way from `observed` to `desired`.
///
/// What is wanted but belongs to somebody else is an error, unless it is adopted. What is found, not wanted and not
/// ours is left out altogether.
pub fn plan(
    order: &dyn Order,
    scope: &Scope,
    desired: &Desired,
    observed: &Observed,
    options: &Options,
) -> Result<Plan, Unowned> {
    let owned = |resource: &ResourceId| is_ours(order, scope, observed, resource);
    let strangers: Vec<ResourceId> =
        desired.keys().filter(|id| observed.contains_key(*id) && !owned(id)).cloned().collect();
    if !options.adopt && !strangers.is_empty() {
        return Err(Unowned(strangers));
    }

    let all: BTreeMap<&ResourceId, (Option<&Value>, Option<&Found>)> = desired
        .keys()
        .chain(observed.keys())
        .map(|id| (id, (desired.get(id), observed.get(id))))
        .filter(|(id, (wanted, _))| wanted.is_some() || owned(id))
        .collect();
    let mut steps = Vec::with_capacity(all.len());
    for kind in order.kinds() {
        for (id, (wanted, found)) in all.iter().filter(|(id, _)| id.kind == kind) {
            steps.push(step(id, *wanted, *found, options));
        }
    }
    Ok(Plan { steps })
}

fn step(id: &ResourceId, wanted: Option<&Value>, found: Option<&Found>, options: &Options) -> Step {
    let (verb, changes) = match (wanted, found) {
        (Some(wanted), None) => (Verb::Create, compare(wanted, &Value::Null)),
        (Some(wanted), Some(found)) => {
            let changes = compare(wanted, &found.properties);
            (if changes.is_empty() { Verb::Keep } else { Verb::Update }, changes)
        }
        (None, _) if options.retain.contains(id.kind.as_str()) => (Verb::Keep, Vec::new()),
        (None, _) => (Verb::Delete, Vec::new()),
    };
    Step { resource: id.clone(), verb, changes, wanted: wanted.cloned(), found: found.cloned() }
}

/// Ours by its tag, or, where it cannot carry one, by its parent's.
fn is_ours(order: &dyn Order, scope: &Scope, observed: &Observed, resource: &ResourceId) -> bool {
    match observed.get(resource).map(|found| &found.tags) {
        Some(Some(tags)) => scope.owns(tags),
        Some(None) => {
            order.parent(resource, scope).is_some_and(|parent| is_ours(order, scope, observed, &parent))
        }
        None => false,
    }
}

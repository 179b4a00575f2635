//! What has to happen so that what is found becomes what is wanted. Pure: no clock, no client, no randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use snapwarden_domain::tags;

use crate::property::{Change, compare};
use crate::scope::{PROTECTED_TAG, Scope};
use crate::world::{Desired, Found, Observed, ResourceId};

/// What a step does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It does not exist and is made.
    Create,
    /// It differs and is changed in place.
    Update,
    /// It differs in what AWS cannot change: it is deleted and made again, in one step.
    Replace,
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
            Self::Replace => '±',
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
    /// What it is in between: until the new release is live, the one before must be able to go on, and the new one to
    /// be tried. Absent where one change is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim: Option<Value>,
    /// What it is now; absent when it is new.
    pub found: Option<Found>,
}

impl Step {
    /// Whether what is observed now is what the step leads to.
    pub fn is_done(&self, observed: &Observed) -> bool {
        let found = observed.get(&self.resource);
        match &self.wanted {
            Some(wanted) => found.is_some_and(|found| compare(wanted, &found.properties).is_empty()),
            None => self.verb == Verb::Keep || found.is_none(),
        }
    }
}

/// The steps, in the order of the kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Every resource, including those that are kept.
    pub steps: Vec<Step>,
    /// What has one of our names, is not ours and not wanted.
    pub left_alone: Vec<ResourceId>,
}

impl Plan {
    /// The steps that do something.
    pub fn pending(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.verb != Verb::Keep)
    }

    /// Whether something that is protected would not be any more.
    pub fn lifts_protection(&self) -> bool {
        let property = format!("tags.{PROTECTED_TAG}");
        let mut changes = self.pending().flat_map(|step| &step.changes);
        changes.any(|change| {
            change.property == property && change.from.as_deref() == Some("true") && change.to != change.from
        })
    }

    /// Whether nothing has to happen.
    pub fn is_empty(&self) -> bool {
        self.pending().next().is_none()
    }

    /// The same steps with the revisions and handles of what is there now, which is like what the plan was made for.
    #[must_use]
    pub fn with_revisions_of(mut self, observed: &Observed) -> Self {
        for step in &mut self.steps {
            if let (Some(found), Some(now)) = (&mut step.found, observed.get(&step.resource)) {
                found.revision.clone_from(&now.revision);
                found.handle.clone_from(&now.handle);
            }
        }
        self
    }

    /// A digest of what happens: plans that do the same have the same.
    pub fn fingerprint(&self) -> String {
        let steps: Vec<&Step> = self.pending().collect();
        hex::encode(Sha256::digest(serde_json::json!(steps).to_string()))
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

/// Resources have the names that we would give them, but do not carry this environment's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unowned {
    /// Those that belong to no environment; `--adopt` takes them.
    pub unclaimed: Vec<ResourceId>,
    /// Those of another environment, with its name; nothing takes them.
    pub foreign: Vec<(ResourceId, String)>,
}

impl fmt::Display for Unowned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names that this environment needs are taken:")?;
        for resource in &self.unclaimed {
            write!(f, "\n  {resource}, which belongs to no environment")?;
        }
        for (resource, owner) in &self.foreign {
            write!(f, "\n  {resource}, which belongs to environment {owner}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unowned {}

/// Where a kind stands, as far as planning needs to know.
pub trait Order {
    /// The kinds' names, parents before children.
    fn kinds(&self) -> Vec<&'static str>;
    /// The resource that an untaggable one belongs to.
    fn parent(&self, resource: &ResourceId, scope: &Scope) -> Option<ResourceId>;
    /// Whether AWS cannot change the property of an existing resource.
    fn is_fixed(&self, resource: &ResourceId, property: &str) -> bool;
    /// Whether AWS lets nobody delete what was found, and lets it go by itself.
    fn goes_by_itself(&self, resource: &ResourceId, found: &Found) -> bool;
    /// The resource whose change makes the release live that the resource belongs to, see
    /// [`Kind::released_with`](crate::kinds::Kind::released_with).
    fn released_with(&self, resource: &ResourceId, scope: &Scope) -> Option<ResourceId>;
    /// What the resource has to be before that, see [`Kind::interim`](crate::kinds::Kind::interim).
    fn interim(&self, resource: &ResourceId, found: &Found, wanted: &Value) -> Option<Value>;
    /// Where a property's wanted value comes from, or what another one would do.
    fn why(&self, resource: &ResourceId, property: &str) -> Option<String>;
}

/// Plans the way from `observed` to `desired`.
///
/// What is wanted but belongs to nobody is an error unless it is adopted, and what belongs to another environment is
/// one always. What is found, not wanted and not ours is left alone.
pub fn plan(
    order: &dyn Order,
    scope: &Scope,
    desired: &Desired,
    observed: &Observed,
    options: &Options,
) -> Result<Plan, Unowned> {
    let owner_of = |resource: &ResourceId| owner(order, scope, observed, resource);
    // What belongs to something that is adopted is adopted with it, and goes where nothing wants it.
    let is_adopted = |resource: &ResourceId| {
        let parent = order.parent(resource, scope).filter(|parent| desired.contains_key(parent));
        options.adopt
            && parent.is_some_and(|parent| observed.contains_key(&parent) && owner_of(&parent).is_none())
    };
    let is_ours = |resource: &ResourceId| {
        owner_of(resource) == Some(scope.environment.as_str()) || is_adopted(resource)
    };
    let (mut unclaimed, mut foreign) = (Vec::new(), Vec::new());
    for id in desired.keys().filter(|id| observed.contains_key(*id) && !is_ours(id)) {
        match owner_of(id) {
            Some(other) => foreign.push((id.clone(), other.to_owned())),
            None => unclaimed.push(id.clone()),
        }
    }
    if !foreign.is_empty() || (!options.adopt && !unclaimed.is_empty()) {
        return Err(Unowned { unclaimed, foreign });
    }

    let all: BTreeMap<&ResourceId, (Option<&Value>, Option<&Found>)> = desired
        .keys()
        .chain(observed.keys())
        .map(|id| (id, (desired.get(id), observed.get(id))))
        .filter(|(id, (wanted, found))| {
            let goes = found.is_some_and(|found| order.goes_by_itself(id, found));
            wanted.is_some() || is_ours(id) && !goes
        })
        .collect();
    let mut steps: Vec<Step> = Vec::with_capacity(all.len());
    // What is replaced takes its children with it, and theirs.
    let mut made_anew: BTreeSet<ResourceId> = BTreeSet::new();
    for kind in order.kinds() {
        for (id, (wanted, found)) in all.iter().filter(|(id, _)| id.kind == kind) {
            let goes_with_parent = order.parent(id, scope).is_some_and(|parent| made_anew.contains(&parent));
            let found = found.filter(|_| !goes_with_parent);
            if wanted.is_some() || found.is_some() {
                let step = step(order, id, *wanted, found, options);
                if goes_with_parent || step.verb == Verb::Replace {
                    made_anew.insert((*id).clone());
                }
                steps.push(step);
            }
        }
    }
    widen(order, scope, &mut steps);
    let left_alone = observed.keys().filter(|id| !all.contains_key(id) && !is_ours(id)).cloned().collect();
    Ok(Plan { steps, left_alone })
}

/// Gives the steps of what a release needs an interim state, where the plan also makes another release live.
fn widen(order: &dyn Order, scope: &Scope, steps: &mut [Step]) {
    let changes = steps.iter().filter(|step| step.verb == Verb::Update);
    let changing: BTreeSet<ResourceId> = changes.map(|step| step.resource.clone()).collect();
    for step in steps.iter_mut().filter(|step| step.verb == Verb::Update) {
        let released =
            order.released_with(&step.resource, scope).is_some_and(|with| changing.contains(&with));
        if let (true, Some(found), Some(wanted)) = (released, &step.found, &step.wanted) {
            step.interim = order.interim(&step.resource, found, wanted);
        }
    }
}

fn step(
    order: &dyn Order,
    id: &ResourceId,
    wanted: Option<&Value>,
    found: Option<&Found>,
    options: &Options,
) -> Step {
    let (verb, mut changes) = match (wanted, found) {
        (Some(wanted), None) => (Verb::Create, compare(wanted, &Value::Null)),
        (Some(wanted), Some(found)) => {
            let changes = compare(wanted, &found.properties);
            let verb = match changes.as_slice() {
                [] => Verb::Keep,
                changes if changes.iter().any(|change| order.is_fixed(id, &change.property)) => Verb::Replace,
                _ => Verb::Update,
            };
            (verb, changes)
        }
        (None, _) if options.retain.contains(id.kind.as_str()) => (Verb::Keep, Vec::new()),
        (None, _) => (Verb::Delete, Vec::new()),
    };
    // All properties of a new resource are new, for the one reason that it is.
    if verb != Verb::Create {
        for change in &mut changes {
            change.why = order.why(id, &change.property);
        }
    }
    Step {
        resource: id.clone(),
        verb,
        changes,
        wanted: wanted.cloned(),
        interim: None,
        found: found.cloned(),
    }
}

/// What of all that was found belongs to the environment.
pub fn owned(order: &dyn Order, scope: &Scope, observed: &Observed) -> Observed {
    let is_ours = |id: &ResourceId| owner(order, scope, observed, id) == Some(scope.environment.as_str());
    observed.iter().filter(|(id, _)| is_ours(id)).map(|(id, found)| (id.clone(), found.clone())).collect()
}

/// The environment that a resource's tag names or, where it cannot carry one, its parent's.
fn owner<'a>(
    order: &dyn Order,
    scope: &Scope,
    observed: &'a Observed,
    resource: &ResourceId,
) -> Option<&'a str> {
    match &observed.get(resource)?.tags {
        Some(own) => own.get(tags::ENVIRONMENT).map(String::as_str),
        None => owner(order, scope, observed, &order.parent(resource, scope)?),
    }
}

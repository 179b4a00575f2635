//! What a changed policy would delete that the deployed one would not: a floor lowered, a time zone moved, orphans
//! given fewer days.
//!
//! The live inventory is judged twice, by the verdicts of this version of the code, as of the next cleanup. What a
//! deploy changes in the code of the verdicts is therefore not seen, nor is what becomes due on later days. How many
//! snapshots one run deletes (`max_deletes`) changes only when they go, so it does not count.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use snapwarden_domain::event::day;
use snapwarden_domain::inventory::Inventory;
use snapwarden_domain::report::DueSnapshot;
use snapwarden_domain::settings::{self, CleanupSettings};
use snapwarden_domain::verdict::{Decision, MassDeletion, Verdict, judge};

use crate::environment::{CopyPlace, Region, RoleArn};
use crate::kinds::{Alias, Kind, alias_name};
use crate::plan::Plan;
use crate::scope::{Function, Scope};
use crate::world::{Desired, Observed, ResourceId};

/// A change of what cleanup goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    before: Before,
    after: CleanupSettings,
}

/// What the deployed function goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing is deployed: nobody deletes anything, however long it has been due.
    Nobody,
    /// Settings that this version cannot read. Whatever they say is not counted on.
    Unreadable,
    /// These settings.
    Settings(CleanupSettings),
}

/// A snapshot that only the new policy would delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewDeletion {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: DueSnapshot,
    /// Where it is, of a copy elsewhere: its Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// And its account, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Why it has stayed so far.
    pub kept_so_far: String,
}

impl PolicyChange {
    /// The change that a plan makes; nothing where it leaves alone what cleanup deletes.
    pub fn of(plan: &Plan, scope: &Scope) -> Option<Self> {
        let alias = cleanup_alias(scope);
        let step = plan.steps.iter().find(|step| step.resource == alias)?;
        Self::between(step.found.as_ref().map(|found| &found.properties), step.wanted.as_ref()?)
    }

    /// The change from what is deployed to what is wanted; nothing where both delete the same.
    pub fn pending(observed: &Observed, desired: &Desired, scope: &Scope) -> Option<Self> {
        let alias = cleanup_alias(scope);
        Self::between(observed.get(&alias).map(|found| &found.properties), desired.get(&alias)?)
    }

    fn between(found: Option<&Value>, wanted: &Value) -> Option<Self> {
        let wanted = settings_of(wanted)?;
        let after: CleanupSettings = serde_json::from_value(wanted.clone()).ok()?;
        let before = match found {
            None => Before::Nobody,
            Some(found) => settings_of(found)
                .and_then(|found| serde_json::from_value(overlaid(wanted, &found)).ok())
                .map_or(Before::Unreadable, Before::Settings),
        };
        let change = Self { before, after };
        (!change.deletes_the_same()).then_some(change)
    }

    fn deletes_the_same(&self) -> bool {
        let relevant = |settings: &CleanupSettings| {
            let policy = settings.policy;
            (
                settings.environment.clone(),
                settings.timezone.name().to_owned(),
                (policy.floor, policy.orphan_floor_days, policy.mass_deletion_percent),
            )
        };
        matches!(&self.before, Before::Settings(before) if relevant(before) == relevant(&self.after))
    }

    /// Whether there may be anything at all that the new policy deletes and the deployed one does not, whatever snapshots there
    /// are; what the deployed one only leaves because it stops before a mass deletion not counted. Where nothing is deployed,
    /// the new one is nobody's surprise.
    pub fn may_delete_more(&self) -> bool {
        let looser = |before: &CleanupSettings| {
            let (old, new) = (before.policy, self.after.policy);
            new.floor < old.floor
                || new.orphan_floor_days < old.orphan_floor_days
                || new.mass_deletion_percent > old.mass_deletion_percent
                || self.after.timezone != before.timezone
        };
        match &self.before {
            Before::Nobody => false,
            Before::Unreadable => true,
            Before::Settings(before) => looser(before),
        }
    }

    /// The new policy.
    pub fn after(&self) -> &CleanupSettings {
        &self.after
    }

    /// What is known of the deployed policy, for people.
    pub fn deployed(&self) -> &'static str {
        match self.before {
            Before::Nobody => "nothing is deployed, so nobody deletes anything now",
            Before::Unreadable => {
                "the deployed function's settings cannot be read, so nothing is assumed of them"
            }
            Before::Settings(_) => "compared with the deployed function's settings",
        }
    }

    /// What the new policy would delete in a run at that time, and the deployed one would not; grouped by volume.
    pub fn new_deletions(&self, inventory: &Inventory, at: Timestamp) -> Vec<NewDeletion> {
        let judged = |settings: &CleanupSettings| judge(inventory, day(at, &settings.timezone), settings);
        let after = judged(&self.after);
        let kept: BTreeMap<&str, String> = match &self.before {
            Before::Nobody => all(inventory, "no cleanup is deployed"),
            Before::Unreadable => all(inventory, "unknown: the deployed settings cannot be read"),
            Before::Settings(settings) => {
                let before = judged(settings);
                match MassDeletion::of(&before, &settings.policy) {
                    Some(stop) => all(inventory, &format!("cleanup stops: {stop}")),
                    None => before.iter().filter_map(kept_by).collect(),
                }
            }
        };
        // That the new policy may stop as well is no comfort: a person is about to let it through.
        let mut new: Vec<_> = after
            .iter()
            .filter(|verdict| verdict.decision == Decision::Delete)
            .filter_map(|verdict| {
                let kept_so_far = kept.get(verdict.snapshot.id.as_str())?.clone();
                Some(NewDeletion {
                    snapshot: verdict.snapshot.into(),
                    region: None,
                    account: None,
                    kept_so_far,
                })
            })
            .collect();
        new.sort_by(|a, b| {
            let place = |new: &NewDeletion| {
                let DueSnapshot { instance, volume, started_at, snapshot, .. } = new.snapshot.clone();
                (instance, volume, started_at, snapshot)
            };
            place(a).cmp(&place(b))
        });
        new
    }
}

/// What the deployed cleanup goes by; `None` where none is deployed. What an earlier version did not know, or cannot be
/// read, is as in `file`.
pub fn deployed_settings(
    observed: &Observed,
    scope: &Scope,
    file: &CleanupSettings,
) -> Option<CleanupSettings> {
    let found = observed.get(&cleanup_alias(scope))?;
    let known = serde_json::to_value(file).ok();
    let deployed = settings_of(&found.properties).zip(known).map(|(found, known)| overlaid(known, &found));
    Some(deployed.and_then(|settings| serde_json::from_value(settings).ok()).unwrap_or_else(|| file.clone()))
}

/// The places that may hold copies: those of the file, and those that the deployed cleanup still copies to. Somebody may
/// have taken one out of the file, or given its role another name.
pub fn copy_places(
    observed: &Observed,
    scope: &Scope,
    file: impl IntoIterator<Item = CopyPlace>,
) -> BTreeSet<CopyPlace> {
    let is_at_home = |place: &CopyPlace| place.role.is_none() && place.region == scope.region;
    let mut places = BTreeSet::new();
    for place in file.into_iter().chain(deployed_targets(observed, scope).map(|(place, _)| place)) {
        if !is_at_home(&place) && !places.iter().any(|known: &CopyPlace| known.is_same(&place)) {
            places.insert(place);
        }
    }
    places
}

/// Whether the deployed cleanup begins no copies in a place.
pub fn is_paused(observed: &Observed, scope: &Scope, place: &CopyPlace) -> bool {
    deployed_targets(observed, scope).any(|(deployed, paused)| paused && deployed.is_same(place))
}

/// The places that cleanup copies to when a plan is applied; nothing where the plan leaves the function as it is.
pub fn copy_places_after(plan: &Plan, scope: &Scope) -> Option<BTreeSet<CopyPlace>> {
    let step = plan.steps.iter().find(|step| step.resource == cleanup_alias(scope))?;
    Some(targets_of(&settings_of(step.wanted.as_ref()?)?).into_iter().map(|(place, _)| place).collect())
}

fn deployed_targets(observed: &Observed, scope: &Scope) -> impl Iterator<Item = (CopyPlace, bool)> {
    let deployed = observed.get(&cleanup_alias(scope)).and_then(|found| settings_of(&found.properties));
    deployed.map(|settings| targets_of(&settings)).unwrap_or_default().into_iter()
}

/// Where the settings say that copies are, and whether each is paused.
fn targets_of(settings: &Value) -> Vec<(CopyPlace, bool)> {
    let target = |target: &Value| {
        let region = Region::try_from(target["region"].as_str()?.to_owned()).ok()?;
        let role = target["role"].as_str().and_then(|role| RoleArn::try_from(role.to_owned()).ok());
        Some((CopyPlace { region, role }, target["paused"] == true))
    };
    settings["copy_to"].as_array().into_iter().flatten().filter_map(target).collect()
}

fn all<'a>(inventory: &'a Inventory, reason: &str) -> BTreeMap<&'a str, String> {
    inventory.snapshots.iter().map(|snapshot| (snapshot.id.as_str(), reason.to_owned())).collect()
}

fn kept_by<'a>(verdict: &Verdict<'a>) -> Option<(&'a str, String)> {
    match verdict.decision {
        Decision::Delete => None,
        Decision::Keep(fence) => Some((verdict.snapshot.id.as_str(), fence.reason(verdict.snapshot))),
    }
}

fn cleanup_alias(scope: &Scope) -> ResourceId {
    ResourceId::new(Alias::NAME, alias_name(scope, Function::Cleanup))
}

/// The function's settings, in the properties of its alias: those that the schedule's runs go by.
fn settings_of(alias: &Value) -> Option<Value> {
    serde_json::from_str(alias.pointer("/serves/environment")?.get(settings::VARIABLE)?.as_str()?).ok()
}

/// The new settings with the old values of all that the old ones have too. A key that did not exist yet changes
/// nothing by coming into being with its default.
fn overlaid(new: Value, old: &Value) -> Value {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => Value::Object(
            new.into_iter()
                .map(|(key, value)| match old.get(&key) {
                    Some(old) => {
                        let value = overlaid(value, old);
                        (key, value)
                    }
                    None => (key, value),
                })
                .collect(),
        ),
        (_, old) => old.clone(),
    }
}

#[cfg(test)]
mod tests;

//! Ending an environment without losing what its snapshots are for: backups stop, and cleanup goes on until the last
//! `DeleteOn` has come.
//!
//! That an environment drains is a tag of its schedule group, not a key of its file: the next deploy of a pipeline
//! that knows nothing of it must not start the backups again.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde_json::Value;
use snapwarden_domain::settings::VARIABLE;

use crate::kinds::{
    Alarm, Alias, Dashboard, Kind, LambdaFunction, Schedule, ScheduleGroup, alias_name, function,
};
use crate::scope::{Function, Scope};
use crate::world::{Desired, Observed, ResourceId};
use crate::{alarms, dashboard};

/// The tag that remembers on AWS that an environment drains, as [`Draining`] writes it.
pub const TAG: &str = "snapwarden:draining";

/// Since when an environment drains, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// The day on which backups stopped.
    pub since: Date,
    /// Whether cleanup may also delete the newest copies, which its floor holds otherwise.
    pub without_floor: bool,
}

impl Draining {
    /// Whether the environment drains, as its tag on AWS says.
    pub fn of(observed: &Observed, scope: &Scope) -> Option<Self> {
        let group = observed.get(&ResourceId::new(ScheduleGroup::NAME, scope.schedule_group()))?;
        let tags = group.tags.as_ref().filter(|tags| scope.owns(tags))?;
        // Somebody may have written the tag by hand: then it drains in the careful way.
        let careful = Self { since: Date::MIN, without_floor: false };
        tags.get(TAG).map(|value| value.parse().unwrap_or(careful))
    }
}

/// Somebody has changed the function since its release, or a deploy has died before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cleanup function is not the one that is released, so its settings cannot be changed alone")]
pub struct Unreleased;

impl Draining {
    /// What is there, without backups: no schedule for them and no alarms about them, the tag, and a cleanup that may
    /// delete what is left. It is what the next deploy of an unchanged file wants, so that this finds nothing to do.
    pub fn of_what_is_there(self, ours: &Observed, scope: &Scope) -> Result<Desired, Unreleased> {
        let function = ResourceId::new(LambdaFunction::NAME, scope.function(Function::Cleanup));
        let alias = ResourceId::new(Alias::NAME, alias_name(scope, Function::Cleanup));
        let backup = ResourceId::new(Schedule::NAME, Scope::schedule(Function::Backup));
        let group = ResourceId::new(ScheduleGroup::NAME, scope.schedule_group());
        let mut desired: Desired =
            ours.iter().map(|(id, found)| (id.clone(), found.properties.clone())).collect();
        desired.remove(&backup);
        let alarms: Vec<_> = alarms::all().filter(|what| alarms::is_about_backups(what)).collect();
        for what in &alarms {
            desired.remove(&ResourceId::new(Alarm::NAME, scope.alarm(what)));
        }
        let arns: Vec<_> = alarms.iter().map(|what| scope.alarm_arn(&scope.alarm(what))).collect();
        if let Some(dashboard) = desired.get_mut(&ResourceId::new(Dashboard::NAME, scope.dashboard())) {
            dashboard::forget_alarms(&mut dashboard["body"], |arn| arns.iter().any(|gone| gone == arn));
        }
        if let Some(group) = desired.get_mut(&group) {
            group["tags"][TAG] = self.to_string().into();
        }
        for (id, version) in [(&function, "version"), (&alias, "serves")] {
            let Some(wanted) = desired.get_mut(id) else { continue };
            let Some(variables) = wanted[version]["environment"].as_object_mut() else { continue };
            // Of a variable that is not ours only a checksum was read: to keep it would write that over its value.
            variables.retain(|name, _| function::is_ours(name));
            let Some(variable) = variables.get_mut(VARIABLE) else { continue };
            let settings = variable.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let Some(mut settings) = settings else { continue };
            let before = settings.clone();
            settings["policy"]["mass_deletion_percent"] = 100.into();
            if self.without_floor {
                settings["policy"]["floor"] = 0.into();
            }
            if settings != before {
                *variable = settings.to_string().into();
            }
        }
        let version =
            |all: &Desired, id: &ResourceId, version: &str| all.get(id).map(|wanted| wanted[version].clone());
        let served = version(&desired, &alias, "serves");
        let is_released =
            ours.get(&alias).is_some_and(|found| Some(&found.properties["serves"]) == served.as_ref());
        // What is released is published from the function, so both have to become the same.
        if served.is_some() && !is_released && version(&desired, &function, "version") != served {
            return Err(Unreleased);
        }
        Ok(desired)
    }
}

const WITHOUT_FLOOR: &str = " without floor";

impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "since {}{}", self.since, if self.without_floor { WITHOUT_FLOOR } else { "" })
    }
}

impl FromStr for Draining {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (date, without_floor) = match text.strip_suffix(WITHOUT_FLOOR) {
            Some(date) => (date, true),
            None => (text, false),
        };
        Ok(Self { since: date.strip_prefix("since ").unwrap_or(date).parse()?, without_floor })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use jiff::civil::date;
    use serde_json::json;

    use super::*;
    use crate::environment::parse;
    use crate::kinds::{Blueprint, registry};
    use crate::policy::role_policies;
    use crate::world::Found;

    /// A drain after which the pipeline's next deploy still changes something leaves alarms that ring every night.
    #[test]
    fn a_drain_leaves_nothing_for_the_next_deploy() {
        let environment =
            parse(Path::new("prod.yaml"), include_str!("../../environments/prod.yaml")).unwrap();
        let scope = Scope::of(&environment);
        let policies = role_policies(&environment, &scope).unwrap();
        let code = BTreeMap::from(Function::ALL.map(|function| (function, "code".to_owned())));
        let declared = |draining| {
            registry().declare(&Blueprint {
                environment: &environment,
                scope: &scope,
                policies: &policies,
                code: &code,
                draining,
            })
        };
        let there: Observed = declared(None)
            .into_iter()
            .map(|(id, properties)| {
                (id, Found { properties, handle: Value::Null, tags: None, revision: None })
            })
            .collect();
        for without_floor in [false, true] {
            let draining = Draining { since: date(2026, 11, 24), without_floor };
            let drained = draining.of_what_is_there(&there, &scope).unwrap();
            let wanted = declared(Some(draining));
            assert_eq!(drained, wanted);
            let alarm = |what: &str| wanted.contains_key(&ResourceId::new(Alarm::NAME, scope.alarm(what)));
            for about_backups in ["backup-errors", "backup-heartbeat", "stale-backup", "unprotected-volumes"]
            {
                assert!(!alarm(about_backups), "{about_backups}");
            }
            assert!(alarm("cleanup-heartbeat") && alarm("dead-letters"));
        }
    }

    /// A deployed environment, with a variable in the cleanup function and in its release that somebody else set.
    fn observed(scope: &Scope, in_function: bool, in_release: bool) -> Observed {
        let settings = json!({ "policy": { "floor": 1, "mass_deletion_percent": 50 } }).to_string();
        let version = |foreign: bool| {
            let mut version = json!({ "memory_mb": 256, "environment": { VARIABLE: settings } });
            if foreign {
                version["environment"]["DB_PASSWORD"] = "(hidden, checksum 1a2b)".into();
            }
            version
        };
        let found = |properties| Found { properties, handle: Value::Null, tags: None, revision: None };
        let function = ResourceId::new(LambdaFunction::NAME, scope.function(Function::Cleanup));
        let alias = ResourceId::new(Alias::NAME, alias_name(scope, Function::Cleanup));
        Observed::from([
            (function, found(json!({ "version": version(in_function) }))),
            (alias, found(json!({ "serves": version(in_release) }))),
        ])
    }

    /// What a plan shows in place of a secret must never be written over the secret, nor keep a drain from ending.
    #[test]
    fn what_stands_for_a_hidden_variable_is_never_written() {
        let scope = crate::scope::tests::scope("test");
        let draining = Draining { since: date(2026, 11, 24), without_floor: true };
        for (in_function, in_release) in [(true, true), (true, false), (false, true), (false, false)] {
            let desired =
                draining.of_what_is_there(&observed(&scope, in_function, in_release), &scope).unwrap();
            let text = format!("{desired:?}");
            assert!(!text.contains("hidden") && !text.contains("DB_PASSWORD"), "{text}");
        }
    }

    /// A drain publishes the function as it is: with a change that nobody released, it would release it.
    #[test]
    fn what_was_changed_since_its_release_is_not_released_by_a_drain() {
        let scope = crate::scope::tests::scope("test");
        let mut observed = observed(&scope, false, false);
        let function = ResourceId::new(LambdaFunction::NAME, scope.function(Function::Cleanup));
        observed.get_mut(&function).unwrap().properties["version"]["memory_mb"] = 512.into();
        let draining = Draining { since: date(2026, 11, 24), without_floor: true };
        assert_eq!(draining.of_what_is_there(&observed, &scope), Err(Unreleased));
    }

    /// What a deploy reads back must be what a drain wrote, or backups start again.
    #[test]
    fn the_tag_reads_back_as_it_was_written() {
        for without_floor in [false, true] {
            let draining = Draining { since: date(2026, 11, 24), without_floor };
            assert_eq!(draining.to_string().parse::<Draining>().unwrap(), draining);
        }
        assert!("yes".parse::<Draining>().is_err());
    }
}

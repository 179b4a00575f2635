//! What is watched, and when somebody is told: pure, from the environment file.
//!
//! Only plain metric alarms: each looks at one metric, so that its text can say what it means and what to do.

use serde::{Deserialize, Serialize};

use crate::environment::{Environment, Requirement};
use crate::heartbeat;
use crate::kinds::Blueprint;
use crate::metrics::{Metric, names, runs};
use crate::scope::{Function, Scope};

/// One alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// What it watches, which ends its name.
    pub what: String,
    /// What it means and what to do, for people.
    pub description: String,
    /// When it rings.
    pub condition: Condition,
    /// Whether the trouble lasts, so that its end is worth a message as well.
    pub lasts: bool,
}

/// When an alarm rings (source: CloudWatch API, `PutMetricAlarm`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// What it looks at.
    pub metric: Metric,
    /// What is made of a period's values: `Sum`, `Maximum`, ….
    pub statistic: String,
    /// How long a period is, in seconds.
    pub period_seconds: i32,
    /// How many periods it looks at.
    pub evaluation_periods: i32,
    /// How many of them have to be bad.
    pub datapoints_to_alarm: i32,
    /// Such as `GreaterThanOrEqualToThreshold`.
    pub comparison: String,
    /// What is compared with.
    pub threshold: f64,
    /// What a period without values counts as: `breaching`, `notBreaching`, `ignore` or `missing`.
    pub missing_data: String,
}

/// The milliseconds from which on an invocation was too close to its timeout.
///
/// A function starts nothing more in its last minute, or its last quarter where that is less (`runtime/deadline.rs`):
/// a large fleet's run always comes that far, and goes on in another invocation. Half of that time has to do for what
/// is under way then.
pub fn too_long_ms(timeout_seconds: u32) -> u32 {
    let timeout = timeout_seconds.saturating_mul(1000);
    timeout - (timeout / 4).min(60_000) / 2
}

/// What alarms of this or any earlier version watch, whatever the environment.
pub fn all() -> impl Iterator<Item = String> {
    let each = ["errors", "throttles", "duration", "heartbeat", "events-lost"];
    let of_functions = Function::ALL
        .into_iter()
        .flat_map(move |function| each.into_iter().map(move |what| format!("{}-{what}", function.as_str())));
    let others = [
        "stale-backup",
        "unprotected-volumes",
        "unencrypted-snapshots",
        "copies-failed",
        "copies-behind",
        "seal-heartbeat",
        "cleanup-backlog",
        "dead-letters",
        "dead-letters-sent",
        "schedules-dropped",
        "schedules-lost",
    ];
    of_functions.chain(others.map(str::to_owned))
}

/// Whether what an alarm watches is whether backups are made.
pub fn is_about_backups(what: &str) -> bool {
    what.starts_with("backup-") || ["stale-backup", "unprotected-volumes"].contains(&what)
}

/// The alarms of an environment. One that drains has none about backups, since they have ended.
pub fn alarms(blueprint: &Blueprint<'_>) -> Vec<Alarm> {
    let (environment, scope) = (blueprint.environment, blueprint.scope);
    let of_functions =
        Function::ALL.into_iter().flat_map(|function| of_function(environment, scope, function));
    let mut alarms: Vec<_> =
        of_functions.chain(of_coverage(environment, scope)).chain(of_the_rest(scope)).collect();
    alarms.retain(|alarm| blueprint.draining.is_none() || !is_about_backups(&alarm.what));
    alarms.extend(of_encryption(environment, scope));
    alarms
}

fn of_function(environment: &Environment, scope: &Scope, function: Function) -> Vec<Alarm> {
    let name = function.as_str();
    let env = &scope.environment;
    let logs = format!("cargo xtask logs {name} --env {env}");
    let timeout = environment.functions.timeout_seconds.get();
    let queue = scope.dead_letter_queue();
    let lambda = |metric: &str| Metric::lambda(scope, function, metric);
    let mut alarms = vec![
        alarm(
            &format!("{name}-errors"),
            format!("A {name} run failed. Lambda tries it twice more; see how it ended with: {logs}"),
            any(lambda("Errors")),
        ),
        alarm(
            &format!("{name}-throttles"),
            format!(
                "Lambda had no free concurrency for {name}, and tries again for up to six hours. Look at the account's \
                 concurrency limit, and at the function's reserved concurrency, which should not be set: \
                 cargo xtask plan --env {env}"
            ),
            any(lambda("Throttles")),
        ),
        alarm(
            &format!("{name}-duration"),
            format!(
                "A {name} invocation came close to its timeout of {timeout} s. It stops in time and goes on in another, \
                 but its last calls took long: Lambda may end the next one before it has reported. Look for slow or \
                 throttled calls: {logs}"
            ),
            Condition {
                statistic: "Maximum".to_owned(),
                comparison: "GreaterThanThreshold".to_owned(),
                threshold: f64::from(too_long_ms(timeout)),
                ..any(lambda("Duration"))
            },
        ),
        // Whatever Lambda drops it sends to the queue first, so that no other metric of lost events is watched.
        alarm(
            &format!("{name}-events-lost"),
            format!(
                "Lambda gave a {name} event up and could not put it into {queue} either: that run was missed, and nothing \
                 else tells. Look at the role's rights and at the queue: cargo xtask plan --env {env}"
            ),
            any(lambda("DestinationDeliveryFailures")),
        ),
    ];
    if let Some(hours) = heartbeat::silent_hours(environment, function) {
        let periods = i32::try_from(hours).unwrap_or(i32::MAX);
        let condition = Condition {
            comparison: "LessThanThreshold".to_owned(),
            period_seconds: 3600,
            evaluation_periods: periods,
            datapoints_to_alarm: periods,
            missing_data: "breaching".to_owned(),
            ..any(Metric::own(scope, runs(function)))
        };
        alarms.push(Alarm {
            lasts: true,
            ..alarm(
                &format!("{name}-heartbeat"),
                format!(
                    "No {name} run has ended for {hours} hours, which is longer than its schedule ever pauses. See what \
                     became of it with: cargo xtask status --env {env}"
                ),
                condition,
            )
        });
    }
    alarms
}

/// Alarms about how well everything is backed up. Cleanup measures it, so that a backup that died does not hide it.
fn of_coverage(environment: &Environment, scope: &Scope) -> Vec<Alarm> {
    let env = &scope.environment;
    let daily = |metric: &str| Condition {
        statistic: "Maximum".to_owned(),
        period_seconds: 3600,
        // Between two runs of cleanup nothing is measured, and nothing has changed.
        missing_data: "ignore".to_owned(),
        ..any(Metric::own(scope, metric))
    };
    let configured = environment.notify.stale_after_hours.map(|hours| i64::from(hours.get()));
    let stale = configured
        .or_else(|| heartbeat::stale_hours(environment))
        .and_then(|hours| i32::try_from(hours).ok());
    let stale = stale.map(|hours| Alarm {
        lasts: true,
        ..alarm(
            "stale-backup",
            format!(
                "The newest backup of some volume is older than {hours} hours. See which with: \
                 cargo xtask invoke cleanup --dry-run --env {env}"
            ),
            Condition {
                comparison: "GreaterThanThreshold".to_owned(),
                threshold: f64::from(hours),
                ..daily(names::OLDEST_BACKUP_AGE_HOURS)
            },
        )
    });
    let unprotected = Alarm {
        lasts: true,
        ..alarm(
            "unprotected-volumes",
            format!(
                "Some selected volume has no backup, although there was time to make one. See which with: \
                 cargo xtask invoke cleanup --dry-run --env {env}"
            ),
            daily(names::UNPROTECTED_VOLUMES),
        )
    };
    stale.into_iter().chain([unprotected]).collect()
}

/// Alarms about what is in clear text, and about copies. An environment that drains has them as well: what it holds is as readable.
fn of_encryption(environment: &Environment, scope: &Scope) -> Vec<Alarm> {
    let env = &scope.environment;
    let clear = Metric::own(scope, names::UNENCRYPTED_SNAPSHOTS);
    let lasting = |metric: Metric| Condition {
        statistic: "Maximum".to_owned(),
        period_seconds: 3600,
        missing_data: "ignore".to_owned(),
        ..any(metric)
    };
    let alarm = |what: &str, description: String, condition: Condition| Alarm {
        lasts: true,
        ..alarm(what, description, condition)
    };
    let mut alarms = match environment.encryption.require {
        Requirement::Off => Vec::new(),
        Requirement::Report => vec![alarm(
            "unencrypted-snapshots",
            format!(
                "Some snapshots are not encrypted, since their volumes are not. See which with: \
                 cargo xtask invoke cleanup --dry-run --env {env}"
            ),
            lasting(clear),
        )],
        Requirement::Enforce => vec![alarm(
            "unencrypted-snapshots",
            format!(
                "For a whole day, some snapshot has not been encrypted, although sealing is on. See what holds it \
                 with: cargo xtask invoke seal --dry-run --env {env}"
            ),
            Condition {
                statistic: "Minimum".to_owned(),
                evaluation_periods: 24,
                datapoints_to_alarm: 24,
                ..lasting(clear)
            },
        )],
    };
    if environment.has_passes() {
        let keys = match (
            environment.encryption.sealing_key(&environment.environment),
            environment.copy_to.is_empty(),
        ) {
            (Some(_), true) => {
                "which stays in clear text. Mostly encryption.kms_key, or its key policy, is wrong"
            }
            (None, _) => {
                "which a place of copy_to lacks. Mostly its kms_key, a key policy or, in another account, the role is wrong"
            }
            (Some(_), false) => {
                "which stays in clear text, or which a place of copy_to lacks. Mostly a key, a key policy or, in another \
                 account, the role is wrong"
            }
        };
        alarms.push(alarm(
            "copies-failed",
            format!(
                "EC2 could not make, or refused, the encrypted copy of some snapshot, {keys}. See why with: \
                 cargo xtask invoke seal --dry-run --env {env}"
            ),
            lasting(Metric::own(scope, names::COPIES_FAILED)),
        ));
        alarms.push(alarm(
            "seal-heartbeat",
            format!(
                "No sealing pass has ended for two hours, although one is due every 15 minutes. See why with: \
                 cargo xtask logs cleanup --env {env}"
            ),
            Condition {
                comparison: "LessThanThreshold".to_owned(),
                period_seconds: 3600,
                evaluation_periods: 2,
                datapoints_to_alarm: 2,
                missing_data: "breaching".to_owned(),
                ..any(Metric::own(scope, names::SEALING_RUNS))
            },
        ));
    }
    alarms.extend(behind(environment, scope));
    alarms
}

/// That the newest backups are nowhere else yet. A copy takes hours, and the newest one begins when it is made.
fn behind(environment: &Environment, scope: &Scope) -> Option<Alarm> {
    let is_copied_to = environment.copy_to.iter().any(|target| !target.paused);
    let hours = heartbeat::stale_hours(environment).and_then(|hours| i32::try_from(hours).ok());
    let hours = hours.filter(|_| is_copied_to)?;
    let env = &scope.environment;
    Some(Alarm {
        lasts: true,
        ..alarm(
            "copies-behind",
            format!(
                "Some backup is older than {hours} hours and has no copy yet in a place of copy_to. See which place, and \
                 what it waits for, with: cargo xtask invoke seal --dry-run --env {env}"
            ),
            Condition {
                statistic: "Maximum".to_owned(),
                comparison: "GreaterThanThreshold".to_owned(),
                threshold: f64::from(hours),
                period_seconds: 3600,
                missing_data: "ignore".to_owned(),
                ..any(Metric::own(scope, names::COPIES_BEHIND_HOURS))
            },
        )
    })
}

fn of_the_rest(scope: &Scope) -> Vec<Alarm> {
    let env = &scope.environment;
    let queue = scope.dead_letter_queue();
    let status = format!("cargo xtask status --env {env}");
    let letters = format!("cargo xtask dead-letters --env {env}");
    vec![
        Alarm {
            lasts: true,
            ..alarm(
                "cleanup-backlog",
                format!(
                    "Cleanup leaves more due snapshots to the next run than it may delete in one, so they are billed \
                     longer than their DeleteOn. Raise cleanup.max_deletes, or see what happened: {status}"
                ),
                Condition {
                    statistic: "Maximum".to_owned(),
                    period_seconds: 3600,
                    missing_data: "ignore".to_owned(),
                    ..any(Metric::own(scope, names::SNAPSHOTS_POSTPONED))
                },
            )
        },
        Alarm {
            lasts: true,
            ..alarm(
                "dead-letters",
                format!(
                    "{queue} holds events of runs that were given up: those nights were missed. See which, and what to run \
                     again, with: {letters}"
                ),
                Condition {
                    statistic: "Maximum".to_owned(),
                    ..any(Metric::queue(scope, "ApproximateNumberOfMessagesVisible"))
                },
            )
        },
        // The depth rings once and then stays; this rings for every event.
        alarm(
            "dead-letters-sent",
            format!("A run was given up, and its event went to {queue}. See what is missing with: {letters}"),
            any(Metric::queue(scope, "NumberOfMessagesSent")),
        ),
        alarm(
            "schedules-dropped",
            format!(
                "EventBridge Scheduler could not hand an event to Lambda, and gave it up: that run was missed. See why \
                 with: {status}"
            ),
            any(Metric::scheduler(scope, "InvocationDroppedCount")),
        ),
        alarm(
            "schedules-lost",
            format!(
                "EventBridge Scheduler gave an event up and could not put it into {queue} either: that run was missed. \
                 Look at the scheduler role's rights and at the queue: cargo xtask plan --env {env}"
            ),
            any(Metric::scheduler(scope, "InvocationsFailedToBeSentToDeadLetterCount")),
        ),
    ]
}

fn alarm(what: &str, description: String, condition: Condition) -> Alarm {
    Alarm { what: what.to_owned(), description, condition, lasts: false }
}

/// At least one within five minutes. No data means that nothing happened.
fn any(metric: Metric) -> Condition {
    Condition {
        metric,
        statistic: "Sum".to_owned(),
        period_seconds: 300,
        evaluation_periods: 1,
        datapoints_to_alarm: 1,
        comparison: "GreaterThanOrEqualToThreshold".to_owned(),
        threshold: 1.0,
        missing_data: "notBreaching".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use snapwarden_runtime::Deadline;

    use super::*;

    /// An alarm that rings every night, since a large fleet takes more than one invocation, is soon not heard.
    #[test]
    fn a_run_that_stops_in_time_and_goes_on_is_not_too_long() {
        for seconds in [1, 8, 60, 240, 241, 900] {
            let now = SystemTime::now();
            let deadline = Deadline::of(now + Duration::from_secs(seconds), now);
            let too_long = Duration::from_millis(too_long_ms(u32::try_from(seconds).unwrap()).into());
            assert!(deadline.passes_within(too_long), "of {seconds} s");
            assert!(too_long < Duration::from_secs(seconds), "of {seconds} s");
        }
        assert_eq!(too_long_ms(900), 870_000);
    }

    /// What `all` does not name is deleted by nobody, and shown by no status.
    #[test]
    fn every_alarm_is_one_of_all() {
        let environment =
            crate::environment::parse(Path::new("prod.yaml"), include_str!("../../environments/prod.yaml"));
        let (environment, code) = (environment.unwrap(), std::collections::BTreeMap::new());
        let scope = Scope::of(&environment);
        let policies = crate::policy::role_policies(&environment, &scope).unwrap();
        let blueprint = Blueprint {
            environment: &environment,
            scope: &scope,
            policies: &policies,
            code: &code,
            draining: None,
        };
        let named: Vec<_> = all().collect();
        let declared: Vec<_> = alarms(&blueprint).into_iter().map(|alarm| alarm.what).collect();
        assert!(declared.len() >= 17, "{declared:?}");
        let unnamed: Vec<_> = declared.iter().filter(|what| !named.contains(what)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}

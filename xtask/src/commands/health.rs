//! How an environment does, beyond what it holds: its last runs, its coverage, its alarms, and who is told.
//!
//! Every part is asked for by itself. One that cannot be read is named and leaves the others as they are: a status
//! that stops at the first missing right helps nobody.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use snapwarden_deployer::error::AwsError;
use snapwarden_deployer::heartbeat;
use snapwarden_deployer::inventory;
use snapwarden_deployer::kinds::{Alias, Kind, Schedule, Subscription, alias_name, read};
use snapwarden_deployer::metrics::names;
use snapwarden_deployer::monitoring::{AlarmState, State, alarm_states};
use snapwarden_deployer::runs::{Ended, Measured, last_runs};
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::{Observed, ResourceId};

use crate::context::Context;
use crate::session::Session;

/// How an environment does.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Health {
    /// What the aliases serve.
    pub(crate) releases: Vec<Release>,
    /// How each function's last run went.
    pub(crate) runs: Vec<LastRun>,
    /// How the last sealing pass went, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealing: Option<Ended>,
    /// How well everything is backed up, as the last cleanup saw it; absent before the first.
    pub(crate) coverage: Option<Coverage>,
    /// How many events lie in the dead-letter queue; absent where that cannot be read.
    pub(crate) undelivered: Option<u64>,
    /// The alarms, those that ring first.
    pub(crate) alarms: Vec<AlarmState>,
    /// How many subscribers are told when something goes wrong; absent where that cannot be read.
    pub(crate) subscribers: Option<usize>,
    /// Those who have not confirmed yet, and are told nothing.
    pub(crate) unconfirmed: Vec<String>,
    /// What could not be read, each with the reason.
    pub(crate) unreadable: Vec<String>,
}

/// What an alias serves.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Release {
    /// `backup` or `cleanup`.
    pub(crate) function: Function,
    /// The version's number.
    pub(crate) version: String,
    /// When it was published.
    pub(crate) at: Option<Timestamp>,
    /// From which commit and by whom.
    pub(crate) note: Option<String>,
}

/// How a function's last run went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LastRun {
    /// `backup` or `cleanup`.
    pub(crate) function: Function,
    /// How it ended; absent where none has within a week.
    pub(crate) ended: Option<Ended>,
    /// Since when another should have ended; absent while there is time.
    pub(crate) missed_since: Option<Timestamp>,
}

/// How well everything is backed up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Coverage {
    /// When cleanup looked.
    pub(crate) at: Timestamp,
    /// Volumes of selected instances.
    pub(crate) selected: Option<f64>,
    /// Those without a backup, although there was time to make one.
    pub(crate) unprotected: Option<f64>,
    /// The age of the newest backup of the volume whose newest one is oldest, in hours.
    pub(crate) oldest_hours: Option<f64>,
    /// Snapshots that are due, but held.
    pub(crate) held: Option<f64>,
    /// Snapshots that are not encrypted; absent where `encryption.require` is off.
    pub(crate) unencrypted: Option<f64>,
}

impl Health {
    /// Looks at all parts.
    pub(crate) async fn of(
        session: &Session,
        observed: &Observed,
        unreadable: &BTreeMap<&'static str, AwsError>,
        now: Timestamp,
    ) -> Self {
        let (aws, scope) = (&session.aws, &session.scope);
        let mut health = Self { releases: releases(observed, scope), ..Self::default() };
        for (kind, error) in unreadable {
            health.unreadable.push(cannot_be_read(&format!("what there is of the kind `{kind}`"), error));
        }
        for function in Function::ALL {
            let what = format!("the {} runs", function.as_str());
            if let Some(runs) = health.part(&what, last_runs(aws, scope, function, now).await) {
                let last = runs.last.as_ref().map(|last| last.at);
                let missed_since = scheduled(observed, function).and_then(|made| {
                    heartbeat::missed_since(&session.environment, function, last, made, now)
                });
                health.runs.push(LastRun { function, ended: runs.last, missed_since });
                if function == Function::Cleanup {
                    health.sealing = runs.sealing;
                    health.coverage = runs.measured.as_ref().map(|measured| Coverage {
                        unencrypted: unencrypted(runs.sealing_measured.as_ref(), measured),
                        ..coverage(measured)
                    });
                }
            }
        }
        health.undelivered = health.part("the dead-letter queue", inventory::undelivered(aws, scope).await);
        health.alarms = health.part("the alarms", alarm_states(aws, scope).await).unwrap_or_default();
        let mut subscribers = 0;
        for (id, found) in observed.iter().filter(|(id, _)| id.kind == Subscription::NAME) {
            match read::<Subscription>(found) {
                Ok(found) if found.handle.pending => health.unconfirmed.push(id.name.clone()),
                _ => subscribers += 1,
            }
        }
        health.subscribers = (!unreadable.contains_key(Subscription::NAME)).then_some(subscribers);
        health
    }

    /// A part where it can be read; else why not is noted.
    pub(crate) fn part<T>(&mut self, what: &str, result: Result<T, AwsError>) -> Option<T> {
        result.map_err(|error| self.unreadable.push(cannot_be_read(what, &error))).ok()
    }

    /// What needs a person. While an environment drains, nobody waits for its backups.
    pub(crate) fn attention(&self, context: &Context, session: &Session, drains: bool) -> Vec<String> {
        let mut attention = self.unreadable.clone();
        for LastRun { function, ended, missed_since } in
            self.runs.iter().filter(|run| !(drains && run.function == Function::Backup))
        {
            let name = function.as_str();
            if let Some(Ended { at, failed: true, summary }) = ended {
                let logs = context.command_line(&format!("logs {name}"));
                attention
                    .push(format!("the last {name} run failed ({}): {summary}; see `{logs}`", short(*at)));
            }
            if let Some(since) = missed_since {
                let logs = context.command_line(&format!("logs {name} --since 7d"));
                attention.push(format!(
                    "no {name} run has ended since {}, longer than its schedule ever pauses; see `{logs}`",
                    short(*since)
                ));
            }
        }
        if let Some(Ended { at, failed: true, summary }) = &self.sealing {
            let logs = context.command_line("logs cleanup");
            attention.push(format!("the last sealing pass failed ({}): {summary}; see `{logs}`", short(*at)));
        }
        if let Some(undelivered @ 1..) = self.undelivered {
            let queue = session.scope.dead_letter_queue();
            let letters = context.command_line("dead-letters");
            attention.push(format!(
                "{queue} holds {undelivered}: events that could not be delivered, or whose last try failed; see `{letters}`"
            ));
        }
        for alarm in self.alarms.iter().filter(|alarm| alarm.state == State::Ringing) {
            let since = alarm.since.map(short).unwrap_or_default();
            attention.push(format!("alarm {} rings since {since}: {}", alarm.alarm, alarm.reason));
        }
        let coverage = self.coverage.iter().filter(|_| !drains);
        attention.extend(coverage.flat_map(|coverage| coverage.gaps(context, session)));
        attention
    }

    /// What is worth knowing.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .unconfirmed
            .iter()
            .map(|name| format!("{name} is told nothing before its owner confirms the subscription"))
            .collect();
        if self.subscribers == Some(0) {
            notes.push(
                "nobody is told when something goes wrong: set notify.emails or notify.https".to_owned(),
            );
        }
        notes
    }
}

fn cannot_be_read(what: &str, error: &AwsError) -> String {
    format!("{what} cannot be read: {error}")
}

impl Coverage {
    fn gaps(&self, context: &Context, session: &Session) -> Vec<String> {
        let which = context.command_line("invoke cleanup --dry-run");
        let unprotected = self
            .unprotected
            .filter(|count| *count > 0.0)
            .map(|count| format!("{count} selected volumes have no backup; see which with `{which}`"));
        let configured = session.environment.notify.stale_after_hours.map(|hours| i64::from(hours.get()));
        let limit = configured.or_else(|| heartbeat::stale_hours(&session.environment));
        let limit = limit.and_then(|hours| i32::try_from(hours).ok()).map(f64::from);
        let stale = self.oldest_hours.zip(limit).filter(|(age, limit)| age > limit).map(|(age, limit)| {
            format!("the newest backup of some volume is {age} h old, more than {limit} h; see which with `{which}`")
        });
        unprotected.into_iter().chain(stale).collect()
    }
}

fn coverage(measured: &Measured) -> Coverage {
    let value = |name: &str| measured.values.get(name).copied();
    Coverage {
        at: measured.at,
        selected: value(names::VOLUMES_SELECTED),
        unprotected: value(names::UNPROTECTED_VOLUMES),
        oldest_hours: value(names::OLDEST_BACKUP_AGE_HOURS),
        held: value(names::SNAPSHOTS_HELD),
        unencrypted: value(names::UNENCRYPTED_SNAPSHOTS),
    }
}

/// When a function's schedule was made; `None` where it does not fire.
fn scheduled(observed: &Observed, function: Function) -> Option<Timestamp> {
    let found = observed.get(&ResourceId::new(Schedule::NAME, Scope::schedule(function)))?;
    let schedule = read::<Schedule>(found).ok()?;
    schedule.handle.created.filter(|_| schedule.properties.enabled)
}

/// As the later of a cleanup and a sealing pass saw it.
fn unencrypted(sealing: Option<&Measured>, cleanup: &Measured) -> Option<f64> {
    let later = sealing.filter(|sealing| sealing.at > cleanup.at).unwrap_or(cleanup);
    later.values.get(names::UNENCRYPTED_SNAPSHOTS).copied()
}

fn releases(observed: &Observed, scope: &Scope) -> Vec<Release> {
    let release = |function: Function| {
        let alias = observed.get(&ResourceId::new(Alias::NAME, alias_name(scope, function)))?;
        let handle = read::<Alias>(alias).ok()?.handle;
        Some(Release { function, version: handle.version, at: handle.published_at, note: handle.note })
    };
    Function::ALL.into_iter().filter_map(release).collect()
}

/// `2026-11-24 02:00 UTC`.
pub(crate) fn short(at: Timestamp) -> String {
    at.strftime("%F %H:%M UTC").to_string()
}

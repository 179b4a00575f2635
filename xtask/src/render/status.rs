//! An environment at one moment, as text.

use std::fmt::Write;

use snapwarden_deployer::monitoring::State;
use snapwarden_deployer::runs::Ended;
use snapwarden_domain::verdict::Tally;

use super::style::{BAD, BOLD, NOTICE, painted};
use super::table::table;
use crate::commands::health::{Coverage, Health, LastRun, Release, short};
use crate::commands::status::{Firing, Resource, Status};

/// Everything that `status` knows.
pub(crate) fn text(status: &Status, all: bool) -> String {
    let Status { environment, account, region, .. } = status;
    let title = format!("environment {environment}, account {account}, {region}");
    let mut text = format!("{}\n\n", painted(BOLD, title));
    if !status.deployed {
        text.push_str("nothing is deployed\n");
    } else if all {
        text.push_str(&inventory(&status.resources, &status.schedules));
    } else {
        let count = status.resources.len();
        let drift = match status.drift.len() {
            0 => "as the environment file says".to_owned(),
            differing => format!("{differing} differ from the environment file"),
        };
        let _ = writeln!(text, "{count} resources, {drift}");
        if let Some(release) = &status.release {
            let _ = writeln!(text, "{}", release.line);
        }
        text.push_str(&releases(&status.health));
        text.push('\n');
        text.push_str(&firings(&status.schedules));
    }
    text.push_str(&health(&status.health));
    // Without a deployed cleanup, nothing becomes of them.
    let Tally { due, held, .. } = status.expiry.unwrap_or_default();
    let fate =
        |count: usize, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
    if let Some(snapshots) = status.snapshots {
        let (due, held) = (fate(due, "go with the next cleanup"), fate(held, "held although due"));
        let _ = writeln!(text, "snapshots: {snapshots}{due}{held}");
    }
    for (region, copies) in &status.copies {
        let _ = writeln!(text, "copies in {region}: {copies}");
    }
    for line in &status.notes {
        let _ = writeln!(text, "{line}");
    }
    for line in &status.attention {
        let _ = writeln!(text, "{} {line}", painted(NOTICE, "attention:"));
    }
    text
}

/// What the aliases serve, and who released it.
fn releases(health: &Health) -> String {
    let mut text = String::new();
    for Release { function, version, at, note } in &health.releases {
        let at = at.map(short).map(|at| format!(", released {at}")).unwrap_or_default();
        let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        let _ = writeln!(text, "{}: version {version}{at}{note}", function.as_str());
    }
    text
}

/// How the nights went.
fn health(health: &Health) -> String {
    let mut text = String::new();
    for LastRun { function, ended, .. } in &health.runs {
        let name = function.as_str();
        let _ = match ended {
            Some(Ended { at, failed: false, summary }) => {
                writeln!(text, "last {name}: {}, {summary}", short(*at))
            }
            Some(Ended { at, .. }) => {
                writeln!(text, "last {name}: {}, {}", short(*at), painted(BAD, "FAILED"))
            }
            None => writeln!(text, "last {name}: none within a week"),
        };
    }
    if let Some(Ended { at, failed, summary }) = &health.sealing {
        let how = if *failed { painted(BAD, "FAILED").to_string() } else { summary.clone() };
        let _ = writeln!(text, "last sealing pass: {}, {how}", short(*at));
    }
    if let Some(Coverage { at, selected, unprotected, oldest_hours, held, unencrypted }) = &health.coverage {
        let parts = [
            (selected, "volumes selected"),
            (unprotected, "unprotected"),
            (oldest_hours, "h since the oldest newest backup"),
            (held, "due snapshots held"),
            (unencrypted, "snapshots not encrypted"),
        ];
        let known = parts.iter().filter_map(|(value, what)| Some(format!("{} {what}", (**value)?)));
        let _ = writeln!(text, "coverage ({}): {}", short(*at), known.collect::<Vec<_>>().join(", "));
    }
    if !health.alarms.is_empty() {
        let count = |state| health.alarms.iter().filter(|alarm| alarm.state == state).count();
        let (ringing, quiet) = (count(State::Ringing), count(State::Quiet));
        let _ = writeln!(
            text,
            "alarms: {ringing} ringing, {quiet} quiet, {} without data yet",
            count(State::Unknown)
        );
    }
    if let Some(undelivered) = health.undelivered {
        let _ = writeln!(text, "undelivered events: {undelivered}");
    }
    text
}

/// What exists, and when it runs next.
pub(crate) fn inventory(resources: &[Resource], firings: &[Firing]) -> String {
    let rows = resources.iter().map(|r| [r.id.kind.clone(), r.id.name.clone(), r.detail.clone()]);
    let mut text = table(["KIND", "NAME", "DETAIL"], rows);
    text.push_str("\n\n");
    text.push_str(&self::firings(firings));
    text
}

/// When it runs next.
fn firings(firings: &[Firing]) -> String {
    let mut text = String::new();
    for firing in firings {
        let _ = match (&firing.next, &firing.next_local) {
            (Some(next), _) if firing.timezone == "UTC" => {
                writeln!(text, "next {}: {}", firing.schedule, next.strftime("%F %H:%M UTC"))
            }
            (Some(next), Some(local)) => {
                writeln!(text, "next {}: {} ({local})", firing.schedule, next.strftime("%F %H:%M UTC"))
            }
            _ => writeln!(text, "next {}: {}", firing.schedule, painted(NOTICE, "never")),
        };
    }
    text
}

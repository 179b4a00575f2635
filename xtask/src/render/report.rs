//! The functions' reports as text.

use std::fmt::Write;

use snapwarden_domain::report::{BackupReport, CleanupReport, Outcome, Report};
use snapwarden_domain::retention::Term;

use super::style::{BAD, NOTICE, painted};
use super::table::table;

/// What a backup run did, instance by instance.
pub(crate) fn backup(report: &BackupReport) -> String {
    let rows = report.instances.iter().flat_map(|instance| {
        let outcome = match &instance.outcome {
            Outcome::Created => "backed up".to_owned(),
            Outcome::AlreadyDone => "already done".to_owned(),
            Outcome::WouldCreate => "would be backed up".to_owned(),
            Outcome::NoVolumes => "no volumes".to_owned(),
            Outcome::Postponed => "left to the next hop".to_owned(),
            Outcome::Failed(failure) => format!("FAILED: {failure}"),
        };
        let delete_on = match instance.retention {
            Term::Daily => instance.delete_on.to_string(),
            term => format!("{} ({term})", instance.delete_on),
        };
        let cells = |volume: &str, snapshot: &str| {
            [
                instance.instance.clone(),
                instance.name.clone().unwrap_or_default(),
                volume.to_owned(),
                snapshot.to_owned(),
                delete_on.clone(),
                outcome.clone(),
            ]
        };
        let rows: Vec<_> = if instance.snapshots.is_empty() {
            vec![cells("-", "-")]
        } else {
            let each = instance.snapshots.iter();
            each.map(|made| cells(&made.volume, made.snapshot.as_deref().unwrap_or("-"))).collect()
        };
        rows
    });
    let header = ["INSTANCE", "NAME", "VOLUME", "SNAPSHOT", "DELETE ON", "OUTCOME"];
    ending(&table(header, rows), report, report.instances.is_empty(), &report.warnings)
}

/// What a cleanup run did, snapshot by snapshot.
pub(crate) fn cleanup(report: &CleanupReport) -> String {
    let cells = |snapshot: &snapwarden_domain::report::DueSnapshot, verdict: &str| {
        [
            snapshot.snapshot.clone(),
            snapshot.volume.clone().unwrap_or_default(),
            snapshot.instance.clone().unwrap_or_default(),
            snapshot.delete_on.clone().unwrap_or_default(),
            verdict.to_owned(),
        ]
    };
    let deleted = report.deleted.iter().map(|snapshot| cells(snapshot, "deleted"));
    let would = report.would_delete.iter().map(|snapshot| cells(snapshot, "would be deleted"));
    let held = report.held.iter().map(|held| cells(&held.snapshot, &format!("kept: {}", held.reason)));
    let failed = report.failed.iter().map(|failed| {
        let blank = String::new;
        [failed.snapshot.clone(), blank(), blank(), blank(), format!("FAILED: {}", failed.failure)]
    });
    let rows: Vec<_> = deleted.chain(would).chain(held).chain(failed).collect();
    let empty = rows.is_empty();
    ending(
        &table(["SNAPSHOT", "VOLUME", "INSTANCE", "DELETE ON", "VERDICT"], rows),
        report,
        empty,
        &report.warnings,
    )
}

/// The table, the warnings, and the run in one line.
fn ending(table: &str, report: &impl Report, empty: bool, warnings: &[String]) -> String {
    let mut text = if empty { String::new() } else { format!("{table}\n\n") };
    for warning in warnings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {warning}", painted(NOTICE, "warning:"));
    }
    let effort = report.effort();
    if effort.handed_on {
        let next = effort.hops + 1;
        let _ =
            writeln!(text, "the run goes on by itself in hop {next}: the last hop's report is in the log");
    }
    if effort.hops > 0 || effort.throttles > 0 {
        let (hops, calls, throttles) = (effort.hops, effort.api_calls, effort.throttles);
        let _ = writeln!(text, "hops: {hops}, EC2 calls: {calls}, throttled: {throttles}");
    }
    let failures = report.failures();
    let summary = report.summary();
    text + &if failures.is_empty() { summary } else { painted(BAD, summary).to_string() }
}

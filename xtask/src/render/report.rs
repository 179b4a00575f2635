//! The functions' reports as text.

use std::fmt::Write;

use snapwarden_domain::audit::{Audit, Protection};
use snapwarden_domain::clear_text::ClearText;
use snapwarden_domain::report::{
    BackupReport, CleanupReport, DueSnapshot, Outcome, Report, SealedSnapshot, SealingReport,
};
use snapwarden_domain::retention::Term;
use snapwarden_domain::verdict::Fence;

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

/// What a cleanup run did, volume by volume, and how well the volumes are backed up; of a dry run `all`, or without what
/// is not due.
pub(crate) fn cleanup(report: &CleanupReport, all: bool) -> String {
    let stopped = report.mass_deletion.is_some();
    let would = if stopped { "would be deleted, once let through" } else { "would be deleted" };
    let mut rows: Vec<_> =
        report.deleted.iter().map(|snapshot| row(snapshot, "deleted".to_owned())).collect();
    rows.extend(report.would_delete.iter().map(|snapshot| row(snapshot, would.to_owned())));
    rows.extend(report.held.iter().map(|held| row(&held.snapshot, format!("kept: {}", held.reason))));
    let shown = report.kept.iter().filter(|kept| all || kept.fence != Fence::NotDue);
    rows.extend(shown.map(|kept| row(&kept.snapshot, format!("kept: {}", kept.reason))));
    rows.extend(report.failed.iter().map(|failed| {
        let volume = failed.volume.clone().unwrap_or_default();
        let blank = String::new;
        let verdict = format!("FAILED: {}", failed.failure);
        [volume, blank(), failed.snapshot.clone(), blank(), blank(), blank(), verdict]
    }));
    for there in &report.copies {
        let place = there.place();
        let all = there.deleted.iter().map(|one| row(one, format!("copy in {place} deleted")));
        rows.extend(all);
        let all = there.would_delete.iter().map(|one| row(one, format!("copy in {place} would be deleted")));
        rows.extend(all);
        let all = there
            .held
            .iter()
            .map(|held| row(&held.snapshot, format!("copy in {place} kept: {}", held.reason)));
        rows.extend(all);
        rows.extend(there.failed.iter().map(|failed| {
            let volume = failed.volume.clone().unwrap_or_default();
            let blank = String::new;
            let verdict = format!("copy in {place} FAILED: {}", failed.failure);
            [volume, blank(), failed.snapshot.clone(), blank(), blank(), blank(), verdict]
        }));
    }
    // By volume, each with its oldest snapshot first.
    rows.sort_by(|a, b| (&a[1], &a[0], &a[4], &a[2]).cmp(&(&b[1], &b[0], &b[4], &b[2])));
    let header = ["VOLUME", "INSTANCE", "SNAPSHOT", "GIB", "STARTED", "DELETE ON", "VERDICT"];
    let audit = report.audit.as_ref().map(audit).unwrap_or_default();
    let empty = rows.is_empty();
    let mut table = if empty { String::new() } else { table(header, rows) };
    if let Some(unlisted) = unlisted(report, all) {
        table = if empty { unlisted } else { format!("{table}\n{unlisted}") };
    }
    let clear_text = report.clear_text.as_ref().map(clear_text).unwrap_or_default();
    let mut text = audit + &clear_text + &ending(&table, report, table.is_empty(), &report.warnings);
    if !report.deleted.is_empty() {
        text.push_str(
            "\nwhere a retention rule of the Recycle Bin keeps deleted snapshots, they are billed on: \
             aws rbin list-rules --resource-type EBS_SNAPSHOT",
        );
    }
    text
}

/// How much of what stays the table does not show.
fn unlisted(report: &CleanupReport, all: bool) -> Option<String> {
    let listed = |fence| report.kept.iter().filter(|kept| kept.fence == fence).count();
    let not_due = report.not_due.saturating_sub(if all { listed(Fence::NotDue) } else { 0 });
    let postponed = report.postponed.saturating_sub(listed(Fence::RunLimit));
    let mut parts = Vec::new();
    parts.extend((report.held_unlisted > 0).then(|| format!("{} held", report.held_unlisted)));
    if report.dry_run {
        parts.extend((postponed > 0).then(|| format!("{postponed} left to the next run")));
        let how = if all { "" } else { " (--verbose lists them)" };
        parts.extend((not_due > 0).then(|| format!("{not_due} not due{how}")));
    }
    (!parts.is_empty()).then(|| format!("not listed: {}", parts.join(", ")))
}

/// How far the sealing of each snapshot in clear text is.
pub(crate) fn sealing(report: &SealingReport) -> String {
    let done = |done: &str, would: &str| if report.dry_run { would.to_owned() } else { done.to_owned() };
    let row = |one: &SealedSnapshot, stage: String| {
        let volume = one.volume.clone().unwrap_or_default();
        [volume, one.snapshot.clone(), one.copy.clone().unwrap_or_default(), one.size_gib.to_string(), stage]
    };
    let mut rows: Vec<_> =
        report.begun.iter().map(|one| row(one, done("copy begun", "would be copied"))).collect();
    rows.extend(report.copying.iter().map(|one| row(one, "being copied".to_owned())));
    rows.extend(
        report.sealed.iter().map(|one| row(one, done("sealed, and deleted", "sealed; would be deleted"))),
    );
    for there in &report.copy_to {
        let place = there.place();
        let begun = done(&format!("copy begun in {place}"), &format!("would be copied to {place}"));
        rows.extend(there.begun.iter().map(|one| row(one, begun.clone())));
        rows.extend(there.copying.iter().map(|one| row(one, format!("being copied to {place}"))));
        for (list, word) in [(&there.held, "its copy is doubtful"), (&there.failed, "FAILED")] {
            rows.extend(list.iter().map(|one| {
                let volume = one.volume.clone().unwrap_or_default();
                let stage = format!("{place}: {word}: {}", one.failure);
                [volume, one.snapshot.clone(), String::new(), String::new(), stage]
            }));
        }
    }
    for (list, word) in [(&report.held, "stays in clear text"), (&report.failed, "FAILED")] {
        rows.extend(list.iter().map(|one| {
            let volume = one.volume.clone().unwrap_or_default();
            [volume, one.snapshot.clone(), String::new(), String::new(), format!("{word}: {}", one.failure)]
        }));
    }
    rows.sort();
    let empty = rows.is_empty();
    let table = table(["VOLUME", "SNAPSHOT", "ENCRYPTED COPY", "GIB", "STAGE"], rows);
    ending(&table, report, empty, &report.warnings)
}

/// The volumes whose snapshots are in clear text.
fn clear_text(clear_text: &ClearText) -> String {
    let rows: Vec<_> = clear_text
        .volumes
        .iter()
        .map(|volume| {
            [
                volume.volume.clone().unwrap_or_default(),
                volume.instance.clone().unwrap_or_default(),
                volume.name.clone().unwrap_or_default(),
                volume.snapshots.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let table = table(["VOLUME NOT ENCRYPTED", "INSTANCE", "NAME", "SNAPSHOTS IN CLEAR TEXT"], rows);
    format!("{table}\n\n")
}

fn row(snapshot: &DueSnapshot, verdict: String) -> [String; 7] {
    [
        snapshot.volume.clone().unwrap_or_default(),
        snapshot.instance.clone().unwrap_or_default(),
        snapshot.snapshot.clone(),
        snapshot.size_gib.to_string(),
        snapshot.started_at.map(|at| at.strftime("%F %H:%M").to_string()).unwrap_or_default(),
        snapshot.delete_on.clone().unwrap_or_default(),
        verdict,
    ]
}

/// The volumes whose backups need a person; what is as it should be takes no line.
fn audit(audit: &Audit) -> String {
    let rows: Vec<_> = audit
        .volumes
        .iter()
        .filter_map(|volume| {
            let backups = match volume.protection {
                Protection::Unprotected => "NEVER BACKED UP",
                Protection::Stale => "STALE",
                Protection::New => "new: not backed up yet",
                Protection::Protected => return None,
            };
            Some([
                volume.volume.clone(),
                volume.instance.clone(),
                volume.name.clone().unwrap_or_default(),
                volume.newest.clone().unwrap_or_default(),
                volume.age_hours.map(|hours| format!("{hours} h")).unwrap_or_default(),
                backups.to_owned(),
            ])
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let table = table(["VOLUME", "INSTANCE", "NAME", "NEWEST SNAPSHOT", "AGE", "BACKUPS"], rows);
    format!("{table}\n\n")
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

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn shown(deleted: &[&str], [held_unlisted, postponed, not_due]: [usize; 3]) -> String {
        let due = |id: &&str| json!({ "snapshot": id, "volume": "vol-1", "instance": "i-1", "delete_on": "2026-11-21" });
        let report = json!({
            "environment": "prod", "run": "manual@2026-11-22T03:00:00Z", "dry_run": true, "today": "2026-11-22",
            "managed": 9, "deleted": deleted.iter().map(due).collect::<Vec<_>>(), "would_delete": [], "held": [],
            "held_unlisted": held_unlisted, "postponed": postponed, "not_due": not_due, "failed": [], "warnings": [],
            "hops": 0, "handed_on": false, "api_calls": 0, "throttles": 0, "duration_ms": 0,
        });
        cleanup(&CleanupReport::deserialize(report).unwrap(), false)
    }

    /// Whoever compares the table with what EC2 lists must not look for the rest in vain.
    #[test]
    fn what_the_table_leaves_out_is_counted() {
        let text = shown(&[], [3, 2, 0]);
        assert!(text.contains("not listed: 3 held, 2 left to the next run"), "{text}");
        assert!(shown(&[], [0, 0, 5]).contains("not listed: 5 not due (--verbose lists them)"));
        assert!(!shown(&[], [0; 3]).contains("not listed"));
    }

    /// "Deleted", and the bill stays as it was.
    #[test]
    fn what_is_deleted_may_lie_in_the_recycle_bin() {
        assert!(shown(&["snap-1"], [0; 3]).contains("aws rbin list-rules --resource-type EBS_SNAPSHOT"));
        assert!(!shown(&[], [0, 0, 5]).contains("rbin"));
    }
}

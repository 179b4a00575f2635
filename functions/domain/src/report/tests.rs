use jiff::civil::date;
use serde_json::json;

use super::*;
use crate::audit::{Audit, Protection, VolumeAudit};
use crate::clear_text::{ClearText, ClearVolume};
use crate::inventory::Snapshot;
use crate::retention::Term;
use crate::settings::CleanupPolicy;
use crate::verdict::{Fence, MassDeletion};

fn backup(outcomes: Vec<Outcome>, dry_run: bool) -> BackupReport {
    let instances: Vec<_> = outcomes
        .into_iter()
        .zip(1..)
        .map(|(outcome, number)| InstanceReport {
            instance: format!("i-{number}"),
            name: (number == 1).then(|| "web".to_owned()),
            snapshots: match outcome {
                Outcome::Created => {
                    let (snapshot, volume) = (Some("snap-1".to_owned()), "vol-1".to_owned());
                    vec![VolumeSnapshot { snapshot, volume, encrypted: Some(true) }]
                }
                Outcome::WouldCreate => {
                    vec![VolumeSnapshot { snapshot: None, volume: "vol-1".to_owned(), encrypted: None }]
                }
                _ => Vec::new(),
            },
            outcome,
            delete_on: date(2026, 11, 29).into(),
            retention: Term::Daily,
        })
        .collect();
    BackupReport {
        environment: "prod".parse().unwrap(),
        run: "g/backup@2026-11-22T02:00:00Z".parse().unwrap(),
        dry_run,
        selected: instances.len(),
        snapshots_created: instances.iter().filter(|i| i.outcome == Outcome::Created).count(),
        instances,
        snapshots_unlisted: 0,
        instances_unlisted: Outcomes::default(),
        problems: Vec::new(),
        warnings: Vec::new(),
        effort: Effort { duration_ms: 1, ..Effort::default() },
    }
}

fn denied() -> Outcome {
    Outcome::Failed(Failure {
        code: Some("UnauthorizedOperation".to_owned()),
        message: "not allowed".to_owned(),
        hint: Some("deploy again".to_owned()),
    })
}

#[test]
fn the_summary_of_a_backup_tells_the_night_in_one_line() {
    assert_eq!(
        backup(vec![Outcome::Created, Outcome::Created], false).summary(),
        "2 instances backed up, 2 snapshots made, deleted from 2026-11-29 on"
    );
    assert_eq!(
        backup(vec![denied(), Outcome::Created, Outcome::AlreadyDone, Outcome::NoVolumes], false).summary(),
        "1 instance backed up, 1 snapshot made, deleted from 2026-11-29 on, 1 already done, 1 without volumes, \
         1 FAILED"
    );
    assert_eq!(
        backup(vec![Outcome::WouldCreate], true).summary(),
        "dry run: 1 instance would be backed up, 1 snapshot would be made, deleted from 2026-11-29 on"
    );
    assert_eq!(backup(vec![], false).summary(), "0 instances backed up, 0 snapshots made");
}

#[test]
fn a_failed_instance_is_named_with_awss_code_and_what_to_do() {
    let failures = backup(vec![denied(), Outcome::Created], false).failures();
    assert_eq!(failures, ["i-1 (web): UnauthorizedOperation: not allowed (hint: deploy again)"]);
}

#[test]
fn other_versions_and_jq_scripts_keep_reading_the_reports() {
    let report = backup(vec![denied()], false);
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(
        value["instances"][0],
        json!({
            "instance": "i-1", "name": "web", "outcome": "failed", "code": "UnauthorizedOperation",
            "message": "not allowed", "hint": "deploy again", "snapshots": [], "delete_on": "2026-11-29", "retention": "daily",
        })
    );
    assert_eq!(serde_json::from_value::<BackupReport>(value).unwrap(), report);

    let report = cleanup();
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(
        value["held"][0],
        json!({
            "snapshot": "snap-2", "volume": null, "instance": "i-1", "delete_on": "2026-11-01",
            "size_gib": 8, "age_days": 21, "fence": "floor", "reason": "it is one of its instance's newest complete copies (cleanup.floor)",
        })
    );
    assert_eq!(value["today"], "2026-11-22");
    assert_eq!(serde_json::from_value::<CleanupReport>(value).unwrap(), report);
}

#[test]
fn the_summary_of_a_cleanup_counts_what_it_does_not_list() {
    assert_eq!(
        cleanup().summary(),
        "1 snapshot deleted, 3 held, 7 left to the next run, 12 not due, 1 FAILED"
    );
    let dry = CleanupReport { dry_run: true, failed: vec![], ..cleanup() };
    assert_eq!(
        dry.summary(),
        "dry run: 0 snapshots would be deleted, 3 held, 7 left to the next run, 12 not due"
    );
    assert_eq!(cleanup().failures(), ["snap-3: no answer (hint: run again)"]);
}

/// A night that would take most of the backups has to wake somebody, and to say how it can go on.
#[test]
fn a_mass_deletion_fails_the_run_and_says_how_to_let_it_through() {
    let stop = MassDeletion { due: 60, managed: 100, allowed_percent: 50 };
    let stopped = CleanupReport {
        mass_deletion: Some(stop),
        deleted: vec![],
        failed: vec![],
        postponed: 0,
        ..cleanup()
    };
    assert_eq!(
        stopped.summary(),
        "STOPPED before the first deletion: 60 of 100 snapshots would be deleted, more than the 50 % that one run \
         may (cleanup.mass_deletion_percent), 3 held, 12 not due"
    );
    assert!(stopped.failures()[0].contains("--allow-mass-deletion"), "{:?}", stopped.failures());
    let dry = CleanupReport { dry_run: true, ..stopped };
    assert!(dry.summary().starts_with("dry run: a real run would STOP"), "{}", dry.summary());
    assert_eq!(dry.failures(), [""; 0], "a dry run shows what would go, which an error could not");
}

/// People read a report volume by volume.
#[test]
fn lists_are_grouped_by_volume() {
    let of = |id: &str, volume: &str| DueSnapshot {
        snapshot: id.to_owned(),
        volume: Some(volume.to_owned()),
        ..cleanup().deleted[0].clone()
    };
    let deleted = vec![of("snap-1", "vol-2"), of("snap-2", "vol-1"), of("snap-3", "vol-2")];
    let grouped = CleanupReport { deleted, ..cleanup() }.grouped();
    let ids: Vec<_> = grouped.deleted.iter().map(|deleted| deleted.snapshot.as_str()).collect();
    assert_eq!(ids, ["snap-2", "snap-1", "snap-3"]);
}

#[test]
fn a_cleanup_that_was_cut_short_is_not_a_success() {
    let late = CleanupReport { out_of_time: 4, failed: vec![], ..cleanup() };
    assert_eq!(
        late.summary(),
        "1 snapshot deleted, 3 held, 7 left to the next run, 4 not reached IN TIME, 12 not due"
    );
    assert!(late.failures()[0].starts_with("out of time, with 4 snapshots still to delete (hint: "));
    let unsure = CleanupReport { problems: vec![Failure::new("nobody looked", "look")], ..late };
    assert_eq!(unsure.failures()[0], "nobody looked (hint: look)");
}

#[test]
fn reports_of_older_functions_are_still_read() {
    let mut value = serde_json::to_value(cleanup()).unwrap();
    let fields = value.as_object_mut().unwrap();
    for added in ["out_of_time", "problems", "audit", "held_gib"] {
        assert!(fields.remove(added).is_some(), "{added}");
    }
    assert_eq!(
        serde_json::from_value::<CleanupReport>(value).unwrap(),
        CleanupReport { held_gib: 0, ..cleanup() }
    );
    let mut value = serde_json::to_value(backup(vec![], false)).unwrap();
    assert!(value.as_object_mut().unwrap().remove("snapshots_unlisted").is_some());
    assert!(serde_json::from_value::<BackupReport>(value).is_ok());
}

/// What a Lambda function may answer, in bytes, with some room.
const LIMIT: usize = 6_000_000;

#[test]
fn the_report_of_the_largest_cleanup_reaches_whoever_asked() {
    // The quotation mark is what takes the most room in JSON of all that a tag can hold.
    let snapshot = Snapshot {
        id: "snap-0123456789abcdef0".to_owned(),
        volume: Some("vol-0123456789abcdef0".to_owned()),
        size_gib: 65_536,
        started_at: Some("2026-11-22T02:00:09Z".parse().unwrap()),
        instance: Some("\"".repeat(256)),
        delete_on: Some("\"".repeat(256)),
        ..Snapshot::default()
    };
    let expired = Snapshot { delete_on: Some("2026-11-22".to_owned()), ..snapshot.clone() };
    let held = HeldSnapshot {
        snapshot: DueSnapshot::from(&snapshot),
        age_days: Some(10_000),
        fence: Fence::Unplaced,
        reason: Fence::Unplaced.to_string(),
    };
    let largest = CleanupReport {
        deleted: vec![DueSnapshot::from(&expired); CleanupPolicy::HIGHEST_MAX_DELETES as usize],
        held: vec![held.clone(); CleanupReport::MAX_HELD],
        audit: Some(largest_audit()),
        clear_text: Some(largest_clear_text()),
        ..cleanup()
    };
    let size = serde_json::to_vec(&largest).unwrap().len();
    assert!(size < LIMIT, "{size}");
    for would_delete in [CleanupPolicy::HIGHEST_MAX_DELETES as usize, 16_000] {
        let dry = CleanupReport {
            would_delete: vec![DueSnapshot::from(&expired); would_delete],
            deleted: vec![],
            kept: vec![held.clone(); CleanupReport::MAX_HELD],
            ..largest.clone()
        };
        let size = serde_json::to_vec(&dry.grouped()).unwrap().len();
        assert!(size < LIMIT, "{size}");
    }
}

fn largest_audit() -> Audit {
    let volume = VolumeAudit {
        volume: "vol-0123456789abcdef0".to_owned(),
        instance: "i-0123456789abcdef0".to_owned(),
        name: Some("\"".repeat(60)),
        protection: Protection::Unprotected,
        newest: Some("snap-0123456789abcdef0".to_owned()),
        age_hours: Some(87_600),
        copies: 1_000,
    };
    let failed = crate::audit::FailedSnapshot {
        snapshot: "snap-0123456789abcdef0".to_owned(),
        volume: Some("vol-0123456789abcdef0".to_owned()),
        started_at: Some("2026-11-22T02:00:09Z".parse().unwrap()),
        message: Some("\"".repeat(200)),
    };
    Audit {
        never_backed_up: vec!["i-0123456789abcdef0".to_owned(); Audit::MAX_LISTED],
        volumes: vec![volume; Audit::MAX_LISTED],
        failed_snapshots: vec![failed; Audit::MAX_LISTED],
        ..Audit::default()
    }
}

fn largest_clear_text() -> ClearText {
    let volume = ClearVolume {
        volume: Some("vol-0123456789abcdef0".to_owned()),
        instance: Some("\"".repeat(60)),
        name: Some("\"".repeat(60)),
        snapshots: 100_000,
    };
    ClearText { volumes: vec![volume; ClearText::MAX_LISTED], ..ClearText::default() }
}

#[test]
fn the_report_of_the_largest_backup_reaches_whoever_asked() {
    let made = VolumeSnapshot {
        snapshot: Some("snap-0123456789abcdef0".to_owned()),
        volume: "vol-0123456789abcdef0".to_owned(),
        encrypted: Some(false),
    };
    let instance = |outcome, volumes| InstanceReport {
        instance: "i-0123456789abcdef0".to_owned(),
        name: Some("\"".repeat(256)),
        outcome,
        snapshots: vec![made.clone(); volumes],
        delete_on: date(2026, 11, 29).into(),
        retention: Term::Daily,
    };
    let mut largest = backup(vec![], false);
    largest.instances = vec![instance(Outcome::Created, 128); 1_000];
    largest.instances.extend(vec![instance(Outcome::NoVolumes, 0); 48_000]);
    largest.instances.extend(vec![instance(denied(), 0); 1_000]);
    largest.warnings =
        vec!["i-0123456789abcdef0 is selected, but has no EBS volume to back up".to_owned(); 48_000];
    let before = (largest.summary(), largest.failures().len());
    let report = largest.shortened();
    let after = (report.summary(), report.failures().len());
    assert_eq!(after, before, "what is not listed is counted, and what failed is listed");
    let listed: usize = report.instances.iter().map(|instance| instance.snapshots.len()).sum();
    assert_eq!(listed + report.snapshots_unlisted, 128_000);
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < LIMIT, "{size}");
}

/// Thousands of denials, each with AWS's long message, in the answer of a hop that has handed on: were it too long, Lambda
/// would repeat the hop.
#[test]
fn the_report_of_the_worst_backup_reaches_whoever_asked() {
    let failed = |number: usize| InstanceReport {
        instance: format!("i-{number:017x}"),
        name: Some("\"".repeat(256)),
        outcome: Outcome::Failed(Failure {
            code: Some("UnauthorizedOperation".to_owned()),
            message: "\"".repeat(400),
            hint: Some("\"".repeat(2_000)),
        }),
        snapshots: vec![],
        delete_on: date(2026, 11, 29).into(),
        retention: Term::Daily,
    };
    let mut worst = backup(vec![Outcome::Created], false);
    worst.instances.extend((0..12_000).map(failed));
    worst.warnings = vec!["\"".repeat(500); 48_000];
    let report = worst.shortened();
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < LIMIT, "{size}");
    assert!(report.failures().len() > 1_000, "{}", report.failures().len());
    assert_eq!(report.outcomes().failed, 12_000, "what is not listed is counted");
    assert!(report.summary().starts_with("1 instance backed up, 1 snapshot made"), "{}", report.summary());
}

fn cleanup() -> CleanupReport {
    let due = |id: &str| DueSnapshot {
        snapshot: id.to_owned(),
        volume: None,
        instance: Some("i-1".to_owned()),
        delete_on: Some("2026-11-01".to_owned()),
        size_gib: 8,
        started_at: None,
    };
    CleanupReport {
        environment: "prod".parse().unwrap(),
        run: "g/cleanup@2026-11-22T03:00:00Z".parse().unwrap(),
        dry_run: false,
        today: date(2026, 11, 22),
        managed: 24,
        deleted: vec![due("snap-1")],
        deleted_earlier: 0,
        would_delete: vec![],
        mass_deletion: None,
        held: vec![HeldSnapshot {
            snapshot: due("snap-2"),
            age_days: Some(21),
            fence: Fence::Floor,
            reason: Fence::Floor.to_string(),
        }],
        held_unlisted: 2,
        held_gib: 24,
        postponed: 7,
        out_of_time: 0,
        not_due: 12,
        kept: vec![],
        failed: vec![FailedSnapshot {
            snapshot: "snap-3".to_owned(),
            volume: None,
            failure: Failure::new("no answer", "run again"),
        }],
        problems: vec![],
        copies: Vec::new(),
        warnings: vec![],
        audit: None,
        clear_text: None,
        effort: Effort { duration_ms: 9, ..Effort::default() },
    }
}

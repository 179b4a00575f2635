use jiff::civil::date;
use serde_json::json;

use super::*;
use crate::settings::CleanupPolicy;
use crate::verdict::{Fence, Snapshot};

fn backup(outcomes: Vec<Outcome>, dry_run: bool) -> BackupReport {
    let instances: Vec<_> = outcomes
        .into_iter()
        .zip(1..)
        .map(|(outcome, number)| InstanceReport {
            instance: format!("i-{number}"),
            name: (number == 1).then(|| "web".to_owned()),
            snapshots: match outcome {
                Outcome::Created => {
                    vec![VolumeSnapshot { snapshot: Some("snap-1".to_owned()), volume: "vol-1".to_owned() }]
                }
                Outcome::WouldCreate => vec![VolumeSnapshot { snapshot: None, volume: "vol-1".to_owned() }],
                _ => Vec::new(),
            },
            outcome,
            delete_on: date(2026, 11, 29).into(),
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
            "message": "not allowed", "hint": "deploy again", "snapshots": [], "delete_on": "2026-11-29",
        })
    );
    assert_eq!(serde_json::from_value::<BackupReport>(value).unwrap(), report);

    let report = cleanup();
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(
        value["held"][0],
        json!({
            "snapshot": "snap-2", "volume": null, "instance": "i-1", "delete_on": "2026-11-01",
            "fence": "floor", "reason": "it is one of its instance's newest complete copies (cleanup.floor)",
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
    assert!(fields.remove("out_of_time").is_some() && fields.remove("problems").is_some());
    assert_eq!(serde_json::from_value::<CleanupReport>(value).unwrap(), cleanup());
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
        state: crate::verdict::State::Completed,
        archived: false,
        started_at: None,
        environment: None,
        instance: Some("\"".repeat(256)),
        run: None,
        delete_on: Some("\"".repeat(256)),
    };
    let expired = Snapshot { delete_on: Some("2026-11-22".to_owned()), ..snapshot.clone() };
    let held = HeldSnapshot {
        snapshot: DueSnapshot::from(&snapshot),
        fence: Fence::Unplaced,
        reason: Fence::Unplaced.to_string(),
    };
    let largest = CleanupReport {
        deleted: vec![DueSnapshot::from(&expired); CleanupPolicy::HIGHEST_MAX_DELETES as usize],
        held: vec![held; CleanupReport::MAX_HELD],
        ..cleanup()
    };
    let size = serde_json::to_vec(&largest).unwrap().len();
    assert!(size < LIMIT, "{size}");
}

#[test]
fn the_report_of_the_largest_backup_reaches_whoever_asked() {
    let made = VolumeSnapshot {
        snapshot: Some("snap-0123456789abcdef0".to_owned()),
        volume: "vol-0123456789abcdef0".to_owned(),
    };
    let instance = |outcome, volumes| InstanceReport {
        instance: "i-0123456789abcdef0".to_owned(),
        name: Some("\"".repeat(256)),
        outcome,
        snapshots: vec![made.clone(); volumes],
        delete_on: date(2026, 11, 29).into(),
    };
    let mut largest = backup(vec![], false);
    largest.instances = vec![instance(Outcome::Created, 128); 1_000];
    largest.instances.extend(vec![instance(Outcome::NoVolumes, 0); 9_000]);
    largest.warnings =
        vec!["i-0123456789abcdef0 is selected, but has no EBS volume to back up".to_owned(); 9_000];
    let report = largest.shortened();
    let listed: usize = report.instances.iter().map(|instance| instance.snapshots.len()).sum();
    assert_eq!(listed + report.snapshots_unlisted, 128_000);
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < LIMIT, "{size}");
}

fn cleanup() -> CleanupReport {
    let due = |id: &str| DueSnapshot {
        snapshot: id.to_owned(),
        volume: None,
        instance: Some("i-1".to_owned()),
        delete_on: Some("2026-11-01".to_owned()),
    };
    CleanupReport {
        environment: "prod".parse().unwrap(),
        run: "g/cleanup@2026-11-22T03:00:00Z".parse().unwrap(),
        dry_run: false,
        today: date(2026, 11, 22),
        managed: 24,
        deleted: vec![due("snap-1")],
        would_delete: vec![],
        held: vec![HeldSnapshot {
            snapshot: due("snap-2"),
            fence: Fence::Floor,
            reason: Fence::Floor.to_string(),
        }],
        held_unlisted: 2,
        postponed: 7,
        out_of_time: 0,
        not_due: 12,
        failed: vec![FailedSnapshot {
            snapshot: "snap-3".to_owned(),
            failure: Failure::new("no answer", "run again"),
        }],
        problems: vec![],
        warnings: vec![],
        effort: Effort { duration_ms: 9, ..Effort::default() },
    }
}

use jiff::civil::date;
use serde_json::json;

use super::*;

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
        warnings: Vec::new(),
        duration_ms: 1,
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
            "fence": "floor", "reason": "it is one of its instance's newest complete copies",
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
        not_due: 12,
        failed: vec![FailedSnapshot {
            snapshot: "snap-3".to_owned(),
            failure: Failure::new("no answer", "run again"),
        }],
        warnings: vec![],
        duration_ms: 9,
    }
}

//! The user's own scenario, from nothing to a deleted snapshot, with the real functions.

use jiff::{ToSpan, Zoned};
use serde_json::json;
use snapwarden_tests::{Local, Snapshot};

fn today() -> jiff::civil::Date {
    Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date()
}

fn instances_backed_up(local: &Local) -> usize {
    let report = local.json(&["invoke", "backup"]);
    report["instances"].as_array().map_or(0, |all| all.iter().filter(|i| i["outcome"] == "created").count())
}

/// To the letter of what a user does by hand after the first deploy. If it fails, the product does not do its job.
#[test]
fn a_snapshot_whose_day_has_come_goes_and_the_others_stay() {
    let local = Local::with("floor: 1", "floor: 0");
    local.deploy();
    local.json(&["local", "seed"]);

    assert_eq!(instances_backed_up(&local), 2, "both tagged instances, and not the untagged one");
    let made = local.snapshots();
    assert_eq!(made.len(), 3, "one snapshot for each of the three volumes");
    let expiry = today().checked_add(7.days()).unwrap().to_string();
    for snapshot in &made {
        assert_eq!(snapshot.tag("DeleteOn"), expiry, "{snapshot:?}");
        assert_eq!(snapshot.tag("snapwarden:environment"), "local", "{snapshot:?}");
        assert!(snapshot.tag("snapwarden:instance").starts_with("i-"), "{snapshot:?}");
        assert!(snapshot.tag("snapwarden:run").starts_with("manual@"), "{snapshot:?}");
    }

    let doomed = made[1].clone();
    local.tag(&doomed.id, "DeleteOn", &today().to_string());
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(report["deleted"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["deleted"][0]["snapshot"], json!(doomed.id), "{report}");
    let others: Vec<Snapshot> = made.into_iter().filter(|snapshot| *snapshot != doomed).collect();
    assert_eq!(local.snapshots(), others, "the others are there, unchanged");
}

/// An instance's last complete set is what a user restores from after everything else has expired.
#[test]
fn the_floor_holds_the_last_complete_set_and_says_so() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    assert_eq!(instances_backed_up(&local), 2);
    let first = local.snapshots();
    for snapshot in &first {
        local.tag(&snapshot.id, "DeleteOn", &today().to_string());
    }
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(report["deleted"], json!([]), "{report}");
    assert_eq!(report["held"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(report["held"].as_array().unwrap().iter().all(|held| held["fence"] == "floor"), "{report}");

    // A run is named after its second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(instances_backed_up(&local), 2);
    local.json(&["invoke", "cleanup"]);
    let left = local.snapshots();
    assert_eq!(left.len(), 3, "only the newer set is left: {left:?}");
    assert!(first.iter().all(|old| !left.contains(old)), "{left:?}");
}

/// A dry run that changed something, or that could not say what the real run does, would be worse than none.
#[test]
fn a_dry_run_decides_the_same_and_changes_nothing() {
    let local = Local::with("floor: 1", "floor: 0");
    local.deploy();
    local.json(&["local", "seed"]);
    let would = local.json(&["invoke", "backup", "--dry-run"]);
    assert_eq!(would["dry_run"], json!(true));
    assert_eq!(would["selected"], json!(2), "{would}");
    assert_eq!(local.snapshots(), []);

    local.json(&["invoke", "backup"]);
    let made = local.snapshots();
    local.tag(&made[0].id, "DeleteOn", "2020-01-01");
    let before = local.snapshots();
    let would = local.json(&["invoke", "cleanup", "--dry-run"]);
    assert_eq!(would["would_delete"][0]["snapshot"], json!(made[0].id), "{would}");
    assert_eq!(local.snapshots(), before);
}

/// "0 of 80 instances, succeeded" is how other tools lose backups for months.
#[test]
fn a_backup_that_finds_no_instance_fails() {
    let local = Local::new();
    local.deploy();
    let ran = local.run(&["invoke", "backup"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("Backup=true"), "it names the tag that selects: {ran:?}");
}

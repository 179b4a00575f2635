//! Night after night on the simulated clock, through the deployed schedules.

use std::collections::BTreeSet;

use serde_json::json;
use snapwarden_tests::Local;

/// Retention is what users pay for, and a foreign snapshot deleted is what they never forgive.
#[test]
fn ten_nights_keep_exactly_seven_days_and_never_touch_a_foreign_snapshot() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    let foreign = local.foreign_snapshot();
    local.tag(&foreign, "DeleteOn", "2020-01-01");
    local.tag(&foreign, "Backup", "true");

    let nights = local.json(&["local", "night", "--nights", "10"]);
    let nights = nights.as_array().unwrap();
    assert_eq!(nights.len(), 10);
    for (index, night) in nights.iter().enumerate() {
        let firings = night["firings"].as_array().unwrap();
        let fired: Vec<_> = firings.iter().map(|fired| fired["schedule"].as_str().unwrap()).collect();
        assert_eq!(fired, ["backup", "cleanup"], "both schedules fire, backup first: {night}");
        assert_eq!(firings[0]["report"]["snapshots_created"], json!(3), "{night}");
        let expected = 3 * (index + 1).min(7);
        assert_eq!(night["snapshots"], json!(expected), "seven nights of three snapshots at most: {night}");
    }

    let left = local.snapshots();
    assert!(left.iter().any(|snapshot| snapshot.id == foreign), "the foreign snapshot is still there");
    let days: BTreeSet<_> = left
        .iter()
        .filter(|snapshot| snapshot.id != foreign)
        .map(|snapshot| snapshot.tag("DeleteOn"))
        .collect();
    assert_eq!(days.len(), 7, "seven different days to delete on: {days:?}");
}

/// EventBridge Scheduler delivers at least once; every copy of a snapshot is billed.
#[test]
fn a_run_that_is_delivered_twice_makes_one_set() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["local", "night"]);
    let once = local.snapshots();
    // Turning the clock back makes the next night the same one again.
    std::fs::remove_file(local.path("local/clock")).unwrap();
    let again = local.json(&["local", "night"]);
    assert_eq!(again[0]["firings"][0]["report"]["snapshots_created"], json!(0), "{again}");
    assert_eq!(local.snapshots(), once);
}

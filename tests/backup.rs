//! Backups of fleets that take more than a moment, and of runs that are delivered more than once.

#![allow(clippy::expect_used, reason = "what cannot be set up fails the test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification};
use serde_json::json;
use snapwarden_tests::{Local, Snapshot, block_on};

/// Makes so many instances that the backup selects, with more tags.
fn instances(local: &Local, count: i32, tags: &[(&str, &str)]) {
    let ec2 = local.aws().ec2;
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let mut left = count;
    while left > 0 {
        let batch = left.min(250);
        let specification = TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(
            [("Backup", "true")].iter().chain(tags).map(|(key, value)| tag(key, value)).collect(),
        ));
        let call = ec2.run_instances().image_id("ami-0123456789abcdef0").instance_type(InstanceType::T3Micro);
        let call = call.min_count(batch).max_count(batch).tag_specifications(specification.build());
        block_on(call.send()).expect("instances are made");
        left -= batch;
    }
}

/// How many snapshots there are of each instance.
fn by_instance(snapshots: &[Snapshot]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for snapshot in snapshots {
        *counts.entry(snapshot.tag("snapwarden:instance")).or_default() += 1;
    }
    counts
}

/// A night that does not fit one invocation must neither end there nor start over.
#[test]
fn a_run_that_takes_longer_than_an_invocation_goes_on_by_itself() {
    // In the 15 of 20 seconds that are for work, EC2's pace admits 170 calls.
    const FLEET: i32 = 250;
    let local = Local::with("timeout_seconds: 900", "timeout_seconds: 20");
    local.deploy();
    instances(&local, FLEET, &[]);

    let ran = local.run(&["invoke", "backup", "--json"]);
    assert_eq!(ran.code, 6, "it has not ended yet: {ran:?}");
    let first: serde_json::Value = serde_json::from_str(&ran.stdout).expect("a report");
    assert_eq!(first["handed_on"], json!(true), "{first}");
    assert_eq!(first["selected"], json!(FLEET));
    let start = Instant::now();
    while local.snapshots().len() < 250 && start.elapsed() < Duration::from_mins(3) {
        std::thread::sleep(Duration::from_secs(2));
    }
    let made = local.snapshots();
    let counts = by_instance(&made);
    assert_eq!((counts.len(), made.len()), (250, 250), "every instance once: {counts:?}");
    let run = first["run"].as_str().unwrap();
    assert!(made.iter().all(|snapshot| snapshot.tag("snapwarden:run") == run), "all of one run");
    assert!(made.iter().any(|snapshot| snapshot.tag("snapwarden:hop") == "1"), "by more than one hop");
}

/// Fleets are larger than a page of EC2's lists. `SNAPWARDEN_LONG=1` makes it 2,000 instances.
#[test]
fn a_large_fleet_is_backed_up_whole_and_a_second_delivery_adds_nothing() {
    let fleet = if std::env::var_os("SNAPWARDEN_LONG").is_some() { 2_000 } else { 200 };
    let local = Local::new();
    local.deploy();
    instances(&local, fleet, &[]);

    let start = Instant::now();
    let report = local.json(&["invoke", "backup", "--pace", "1000"]);
    eprintln!("{fleet} instances took {:.0} s", start.elapsed().as_secs_f64());
    assert_eq!(report["snapshots_created"], json!(fleet), "{report}");
    assert_eq!(report["throttles"], json!(0));
    assert!(report["api_calls"].as_i64() >= Some(i64::from(fleet)));
    let made = local.snapshots();
    assert_eq!(i32::try_from(by_instance(&made).len()), Ok(fleet), "every instance");

    if fleet > 1_000 {
        // With so many tags, the emulator does not answer in time any more, when it is asked for instances by tag.
        return;
    }
    let run = report["run"].as_str().unwrap();
    let again = local.json(&["invoke", "backup", "--pace", "1000", "--run", run]);
    assert_eq!(again["snapshots_created"], json!(0), "{again}");
    assert_eq!(again["instances"][0]["outcome"], json!("already_done"));
    assert_eq!(local.snapshots().len(), made.len());
}

/// Owners know best what of an instance is worth keeping; a typing error must not cost them the backup.
#[test]
fn owners_say_how_long_and_what_and_a_typing_error_costs_nothing() {
    let local = Local::new();
    local.deploy();
    instances(&local, 1, &[("BackupRetentionDays", "30")]);
    instances(&local, 1, &[("BackupRetentionDays", "ever"), ("BackupExcludeVolumes", "the big one")]);
    let report = local.json(&["invoke", "backup"]);
    assert_eq!(report["snapshots_created"], json!(2), "{report}");
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings[0].as_str().unwrap().contains("BackupRetentionDays=ever is no number of days"),
        "{report}"
    );
    assert_eq!(warnings.len(), 4, "one for the days, three for words that are no volume: {report}");
    let mut days: Vec<_> = local.snapshots().iter().map(|made| made.tag("DeleteOn").to_owned()).collect();
    days.sort();
    days.dedup();
    assert_eq!(days.len(), 2, "{days:?}");
}

/// An event that anybody could forge must not date snapshots back or ahead.
#[test]
fn a_run_of_another_time_is_refused() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    let ran = local.run(&["invoke", "backup", "--run", "manual@2020-01-01T02:00:00Z"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("more than 48 hours away"), "{ran:?}");
    let ran = local.run(&["invoke", "backup", "--run", "last night"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(local.snapshots(), []);
}

/// An alarm on a missing heartbeat is what notices that backups have stopped.
#[test]
fn a_run_leaves_metrics_in_its_log_and_a_dry_run_none() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup", "--dry-run"]);
    let metrics = || {
        let logs = local.aws().logs;
        let found =
            block_on(logs.filter_log_events().log_group_name("/aws/lambda/snapwarden-local-backup").send());
        let events = found.expect("the log is read").events.unwrap_or_default();
        let messages: Vec<_> = events.into_iter().filter_map(|event| event.message).collect();
        messages.into_iter().filter(|line| line.contains("BackupRuns")).collect::<Vec<_>>()
    };
    assert_eq!(metrics(), [] as [String; 0]);
    local.json(&["invoke", "backup"]);
    let lines = metrics();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let metric: serde_json::Value = serde_json::from_str(lines[0].trim()).unwrap();
    assert_eq!(metric["InstancesBackedUp"], json!(2.0));
    assert_eq!(metric["Environment"], json!("local"));
}

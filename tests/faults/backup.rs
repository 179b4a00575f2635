//! The backup function on bad days.

use std::collections::BTreeMap;

use serde_json::Value;
use snapwarden_tests::proxy::Proxy;
use snapwarden_tests::{Local, block_on};

use super::{Case, Load, Tally, cases};

/// What a backup of the seeded instances comes to.
const LOAD: Load = Load { calls: 7, mutating: 2 };

/// The volumes of the seeded instances that are selected.
const VOLUMES: usize = 3;

/// Whatever happens to the calls of a run: it says so when it has failed, its repetition finishes it, and no volume is
/// snapshotted twice. A second set is billed for a week, and a missing one is found when it is needed.
#[test]
fn a_backup_survives_every_fault_without_a_second_set() {
    let local = Local::new();
    let proxy = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    let mut tally = Tally::default();
    for (index, case) in cases(LOAD, 1, 8, 2).into_iter().enumerate() {
        back_up(&local, &proxy, &case, &run_id(index), &mut tally);
        println!("{case}: one set");
    }
    println!("backup: {}", tally.close());
}

/// Runs are named after their second, and so the cases after seconds of their own.
fn run_id(index: usize) -> String {
    let ago = jiff::SignedDuration::from_secs(i64::try_from(index).unwrap());
    let at = jiff::Timestamp::from_second((jiff::Timestamp::now() - ago).as_second()).unwrap();
    format!("manual@{}", at - jiff::SignedDuration::from_hours(1))
}

fn back_up(local: &Local, proxy: &Proxy, case: &Case, run: &str, tally: &mut Tally) {
    let command = ["invoke", "backup", "--run", run, "--json"];
    proxy.forget();
    proxy.rule(case.rules());
    let ran = local.run(&command);
    proxy.settle();
    proxy.rule(Vec::new());
    tally.cases += 1;
    tally.note(case, proxy.faults(), ran.code);
    if ran.code == 0 {
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(snapshots_of(&report), VOLUMES, "{case}: it reported success: {ran:?}");
    } else {
        assert_eq!(ran.code, 1, "{case}: {ran:?}");
        assert!(ran.stderr.contains("backup failed"), "{case}: it failed, and does not say why: {ran:?}");
        // What Lambda does with an event whose function has failed.
        local.ok(&command);
    }
    let mut by_volume: BTreeMap<String, usize> = BTreeMap::new();
    let made = local.snapshots();
    for snapshot in &made {
        assert_eq!(snapshot.tag("snapwarden:run"), run, "{case}: of another run: {snapshot:?}");
        assert_ne!(snapshot.tag("DeleteOn"), "", "{case}: it would stay for ever: {snapshot:?}");
        *by_volume.entry(snapshot.volume.clone()).or_default() += 1;
    }
    assert_eq!((by_volume.len(), made.len()), (VOLUMES, VOLUMES), "{case}: one snapshot each: {by_volume:?}");
    let ec2 = local.aws().ec2;
    for snapshot in made {
        block_on(ec2.delete_snapshot().snapshot_id(snapshot.id).send()).unwrap();
    }
}

/// How many snapshots a report names.
fn snapshots_of(report: &Value) -> usize {
    let instances = report["instances"].as_array().map_or(&[][..], Vec::as_slice);
    instances.iter().filter_map(|instance| instance["snapshots"].as_array()).map(Vec::len).sum()
}

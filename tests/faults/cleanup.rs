//! The cleanup function on bad days.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, Snapshot, block_on};

use super::{Case, Load, Tally, cases};

/// What a cleanup of three snapshots comes to.
const LOAD: Load = Load { calls: 9, mutating: 3 };

/// Whatever happens to the calls of a run: nothing goes that the undisturbed decision keeps, nothing is reported gone
/// that is there, and the next run finishes. A snapshot deleted by mistake is what nobody forgives.
#[test]
fn a_cleanup_survives_every_fault_and_deletes_what_is_due_alone() {
    let (local, proxy) = deployed();
    let mut tally = Tally::default();
    for case in cases(LOAD, 1, 8, 3) {
        clean_up(&local, &proxy, &case, &mut tally);
        println!("{case}: only what was due");
    }
    println!("cleanup: {}", tally.close());
}

fn deployed() -> (Local, Proxy) {
    let local = Local::new();
    let proxy = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    // Whatever its tags say, it is not ours.
    let foreign = local.foreign_snapshot();
    local.tag(&foreign, "DeleteOn", "2020-01-01");
    (local, proxy)
}

/// Two sets whose day has come, of which the floor holds the newer one; answers what is to go, and what is to stay.
fn expired(local: &Local) -> (BTreeSet<String>, Vec<Snapshot>) {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    for hours in [2, 1] {
        let run = format!("manual@{}", now - jiff::SignedDuration::from_hours(hours));
        local.ok(&["invoke", "backup", "--run", &run]);
        // EC2 tells which set is the newer one by the second in which it was made.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    for snapshot in local.snapshots().iter().filter(|snapshot| snapshot.tag("snapwarden:run") != "") {
        local.tag(&snapshot.id, "DeleteOn", "2020-01-01");
    }
    let would = local.json(&["invoke", "cleanup", "--dry-run"]);
    let due = ids(&would["would_delete"]);
    assert_eq!(due.len(), 3, "the older set: {would}");
    let kept: Vec<_> = local.snapshots().into_iter().filter(|snapshot| !due.contains(&snapshot.id)).collect();
    assert_eq!(kept.len(), 4, "the newer set and the foreign one: {kept:?}");
    (due, kept)
}

fn ids(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|entry| entry["snapshot"].as_str().unwrap().to_owned()).collect()
}

fn clean_up(local: &Local, proxy: &Proxy, case: &Case, tally: &mut Tally) {
    let (due, kept) = expired(local);
    proxy.forget();
    proxy.rule(case.rules());
    let ran = local.run(&["invoke", "cleanup", "--json"]);
    proxy.settle();
    proxy.rule(Vec::new());
    tally.cases += 1;
    tally.note(case, proxy.faults(), ran.code);
    let left = local.snapshots();
    let missing: Vec<_> = kept.iter().filter(|snapshot| !left.contains(snapshot)).collect();
    assert!(missing.is_empty(), "{case}: deleted or changed, and not due: {missing:?}: {ran:?}");
    if ran.code == 0 {
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(ids(&report["deleted"]), due, "{case}: {ran:?}");
        assert_eq!(left, kept, "{case}: it reported success: {ran:?}");
    } else {
        assert_eq!(ran.code, 1, "{case}: {ran:?}");
        assert!(ran.stderr.contains("cleanup failed"), "{case}: it failed, and does not say why: {ran:?}");
        local.ok(&["invoke", "cleanup"]);
        assert_eq!(local.snapshots(), kept, "{case}: the next run finishes");
    }
    remove(local, &kept);
}

fn remove(local: &Local, kept: &[Snapshot]) {
    let ec2 = local.aws().ec2;
    for snapshot in kept.iter().filter(|snapshot| snapshot.tag("snapwarden:run") != "") {
        block_on(ec2.delete_snapshot().snapshot_id(&snapshot.id).send()).unwrap();
    }
}

/// "Deleted" of what EC2 has merely accepted hides a lock, a Recycle Bin rule, or a bill.
#[test]
fn a_deletion_that_does_not_show_fails_the_run() {
    let (local, proxy) = deployed();
    let (due, _) = expired(&local);
    // EC2's lists lag by seconds: the run waits for them.
    let soon = Effect::Later(Duration::from_secs(3));
    proxy.rule(vec![Rule::nth(1, Calls::Action("ec2:DeleteSnapshot"), soon)]);
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(ids(&report["deleted"]), due, "{report}");

    let (due, kept) = expired_again(&local);
    let never = Effect::Later(Duration::from_hours(9));
    proxy.rule(vec![Rule::nth(1, Calls::Action("ec2:DeleteSnapshot"), never)]);
    let ran = local.run(&["invoke", "cleanup"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("still lists the snapshot"), "{ran:?}");
    proxy.rule(Vec::new());
    let left = local.snapshots();
    assert_eq!(left.iter().filter(|snapshot| due.contains(&snapshot.id)).count(), 1, "{left:?}");
    local.ok(&["invoke", "cleanup"]);
    assert_eq!(local.snapshots(), kept);
}

fn expired_again(local: &Local) -> (BTreeSet<String>, Vec<Snapshot>) {
    let kept = local.snapshots();
    remove(local, &kept);
    expired(local)
}

//! Night after night in which something always goes wrong.

use std::collections::BTreeMap;

use serde_json::Value;
use snapwarden_tests::Local;
use snapwarden_tests::proxy::{Proxy, Scenario};

use super::{SEED, is_long};

/// What goes wrong, in about every tenth call. Nothing of it is rarer on AWS than once in a year of nights.
const WEATHER: &str = "
rules:
  - { calls: all, fault: throttle, chance: 0.03 }
  - { calls: all, fault: reset, chance: 0.01 }
  - { calls: all, fault: unavailable, chance: 0.01 }
  - { calls: all, fault: internal-error, chance: 0.01 }
  - { calls: reads, fault: stale, chance: 0.02 }
  - { calls: reads, fault: truncated, chance: 0.01 }
  - { calls: mutating, fault: lost-answer, chance: 0.02 }
  - { calls: mutating, fault: truncated, chance: 0.01 }
  - { calls: all, fault: expired-token, chance: 0.003 }
  - { calls: all, fault: kill-before, chance: 0.003 }
  - { calls: mutating, fault: kill-after, chance: 0.003 }
";

/// The volumes of the seeded instances that are selected.
const VOLUMES: usize = 3;

/// A week's retention under faults that no single night shows: sets made twice, or backups that expire while no new
/// ones come.
#[test]
fn nights_of_bad_weather_lose_nothing_and_double_nothing() {
    let nights = if is_long() { 200 } else { 5 };
    let local = Local::new();
    let proxy = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    let foreign = local.foreign_snapshot();
    local.tag(&foreign, "DeleteOn", "2020-01-01");
    let weather: Scenario = WEATHER.parse().unwrap();
    proxy.play(&Scenario { seed: SEED, ..weather });
    let (mut runs, mut failed, mut backed_up) = (0, 0, 0);
    for number in 1..=nights {
        let ran = local.run(&["local", "night", "--json"]);
        proxy.settle();
        let night: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let firings = night[0]["firings"].as_array().unwrap();
        let failures = firings.iter().filter(|firing| firing["failed"] == true).count();
        assert_eq!(ran.code, i32::from(failures > 0), "night {number}: failures show: {ran:?}");
        for firing in firings {
            runs += 1;
            if firing["failed"] == true {
                failed += 1;
                let message = firing["report"]["errorMessage"].as_str().unwrap_or_default();
                assert!(!message.is_empty(), "night {number}: a failure without a reason: {firing}");
            } else if firing["schedule"] == "backup" {
                backed_up += 1;
                let run = firing["report"]["run"].as_str().unwrap();
                let made = local.snapshots().iter().filter(|made| made.tag("snapwarden:run") == run).count();
                assert_eq!(made, VOLUMES, "night {number}: success, and yet: {firing}");
            }
        }
        assert_sound(&local, &foreign, number, backed_up);
    }
    let faults = proxy.faults();
    let calls: u64 = proxy.counts().values().map(|count| count.calls).sum();
    println!(
        "{nights} nights: {runs} runs, {calls} calls, {faults} of them disturbed; {failed} runs failed and said so; \
         no set twice, nothing lost"
    );
    assert!(faults > 0, "the weather was fine");
    // One clear night sets right what is left of the bad ones.
    proxy.rule(Vec::new());
    local.ok(&["local", "night"]);
    let left = local.snapshots().len() - 1;
    assert!(left <= 7 * VOLUMES, "seven days are kept, and {left} snapshots are there");
}

fn assert_sound(local: &Local, foreign: &str, number: usize, backed_up: usize) {
    let snapshots = local.snapshots();
    assert!(snapshots.iter().any(|snapshot| snapshot.id == foreign), "night {number}: a foreign one is gone");
    let mut sets: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut volumes: BTreeMap<&str, usize> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.id != foreign) {
        *sets.entry((snapshot.tag("snapwarden:run"), &snapshot.volume)).or_default() += 1;
        *volumes.entry(&snapshot.volume).or_default() += 1;
    }
    let twice: Vec<_> = sets.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "night {number}: made twice: {twice:?}");
    assert!(
        backed_up == 0 || volumes.len() == VOLUMES,
        "night {number}: a volume without a copy: {volumes:?}"
    );
}

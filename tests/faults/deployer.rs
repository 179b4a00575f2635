//! Deploy, update and destroy on bad days.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, Ran, bundle};

use super::inventory::inventory;
use super::{Case, Load, Tally, cases};

/// How many environments are used side by side.
const PARALLEL: usize = 2;

/// What a deploy comes to.
const LOAD: Load = Load { calls: 150, mutating: 50 };

const EDITS: [(&str, &str); 4] = [
    ("memory_mb: 256, timeout_seconds: 900", "memory_mb: 512, timeout_seconds: 600"),
    ("cron(0 2 * * ? *)", "cron(0 1 * * ? *)"),
    ("tag: Backup", "tag: Nightly"),
    ("project: snapwarden", "project: backups"),
];

/// A pipeline at night meets throttles, lost answers and expired credentials. After any of them the same command has to
/// do, and nothing may be left behind, or reported as done that is not.
#[test]
fn deploy_update_and_destroy_survive_every_fault() {
    let cases = cases(LOAD, 12, 6, 1);
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    thread::scope(|threads| {
        for _ in 0..PARALLEL {
            threads.spawn(|| {
                let local = Local::new();
                local.ok(&["local", "up"]);
                let proxy = Proxy::of(&local);
                let empty = inventory(&local.aws());
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    live(&local, &proxy, case, &empty, &tally);
                    println!("{case}: converged");
                }
            });
        }
    });
    println!("deploy, update, destroy: {}", tally.into_inner().unwrap().close());
}

/// A whole life of an environment, each command of which is disturbed.
fn live(local: &Local, proxy: &Proxy, case: &Case, empty: &[String], tally: &Mutex<Tally>) {
    let bundle = bundle();
    let deploy = ["deploy", "--bundle", &bundle];
    disturb(local, proxy, case, &deploy, tally);
    assert_converged(local, case, "deploy");
    for (from, to) in EDITS {
        local.edit(from, to);
    }
    disturb(local, proxy, case, &deploy, tally);
    assert_converged(local, case, "update");
    for (from, to) in EDITS {
        local.edit(to, from);
    }
    disturb(local, proxy, case, &["destroy", "--yes"], tally);
    assert_eq!(inventory(&local.aws()), empty, "{case}, destroy: something is left");
    tally.lock().unwrap().cases += 1;
}

/// Runs a command under a fault, and again without one where it failed.
fn disturb(local: &Local, proxy: &Proxy, case: &Case, command: &[&str], tally: &Mutex<Tally>) {
    let ran = proxy.run(local, command, case.rules());
    let faults = proxy.faults();
    assert!(ran.code == 0 || faults > 0, "{case}: nothing was disturbed, and yet: {ran:?}");
    assert_reported(&ran, case, proxy.kills() > 0);
    tally.lock().unwrap().note(case, faults, ran.code);
    proxy.rule(Vec::new());
    if ran.code != 0 {
        local.ok(command);
    }
}

/// Who is not killed says that something failed, and what it was.
fn assert_reported(ran: &Ran, case: &Case, killed: bool) {
    match ran.code {
        0 => {}
        -1 => assert!(killed, "{case}: a signal ended it: {ran:?}"),
        1 => assert!(
            ran.stderr.contains("error") || ran.stderr.contains("failed"),
            "{case}: it failed, and does not say why: {ran:?}"
        ),
        _ => panic!("{case}: an exit code that means something else: {ran:?}"),
    }
    assert!(!ran.stderr.contains("panicked"), "{case}: {ran:?}");
}

fn assert_converged(local: &Local, case: &Case, command: &str) {
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    assert_eq!(plan.code, 0, "{case}, {command}: {plan:?}");
}

/// "Deployed", said of what AWS does not show, is how environments without alarms come about.
#[test]
fn what_a_deploy_reports_as_done_is_there_although_reads_lag_behind() {
    let local = Local::new();
    local.ok(&["local", "up"]);
    let proxy = Proxy::of(&local);
    let bundle = bundle();
    let stale = Rule::every(2, Calls::Reads, Effect::Stale);
    let ran = proxy.run(&local, &["deploy", "--bundle", &bundle], vec![stale]);
    assert!(proxy.faults() > 5, "reads were stale: {:?}", proxy.counts());
    proxy.rule(Vec::new());
    if ran.code != 0 {
        assert!(ran.stderr.contains("hint"), "{ran:?}");
        local.ok(&["deploy", "--bundle", &bundle]);
    }
    let plan = local.run(&["plan", "--bundle", &bundle, "--exit-code"]);
    assert_eq!(plan.code, 0, "{plan:?}");
}

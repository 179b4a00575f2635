//! Wherever the process dies, the same command typed again ends well.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, bundle};

use super::assert_no_changes;
use super::inventory::inventory;

/// What the update changes: something of every kind that can change.
const EDITS: [(&str, &str); 5] = [
    (
        "memory_mb: 256, timeout_seconds: 900, log_retention_days: 30",
        "memory_mb: 512, timeout_seconds: 600, log_retention_days: 90",
    ),
    ("cron(0 2 * * ? *)", "cron(0 1 * * ? *)"),
    ("select: { tag: Backup, value: \"true\" }", "select: { tag: Nightly, value: \"yes\" }"),
    ("floor: 1 ", "floor: 2 "),
    ("tags: { project: snapwarden }", "tags: { team: platform }"),
];

/// How many environments are used side by side.
const PARALLEL: usize = 2;

/// The commands of one case, in their order, with the kills that each has survived so far.
const PHASES: [&str; 3] = ["deploy", "update", "destroy"];

/// For every fifth call that may change something, of a deploy, of an update and of a destroy: the process is killed
/// right before the call or right after its reply, in turn. `cargo xtask test --long` does it at every call, both ways.
/// If one of these needed a person, a power cut at night would.
#[test]
fn whatever_call_the_process_dies_at_the_same_command_goes_on_from_there() {
    let all = std::env::var_os("SNAPWARDEN_LONG").is_some();
    let next = AtomicUsize::new(0);
    let kills = Mutex::new([0_usize; PHASES.len()]);
    thread::scope(|threads| {
        for _ in 0..PARALLEL {
            threads.spawn(|| {
                let local = Local::new();
                local.ok(&["local", "up"]);
                let proxy = Proxy::of(&local);
                let empty = inventory(&local.aws());
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    let effect = if case.is_multiple_of(2) { Effect::KillBefore } else { Effect::KillAfter };
                    let call = if all { case / 2 } else { case * 5 } + 1;
                    let killed = run_case(&local, &proxy, call, effect, &empty);
                    let mut kills = kills.lock().unwrap();
                    for (sum, killed) in kills.iter_mut().zip(killed) {
                        *sum += usize::from(killed);
                    }
                    if killed == [false; 3] {
                        return;
                    }
                }
            });
        }
    });
    let kills = kills.into_inner().unwrap();
    println!(
        "{} processes killed: {}",
        kills.iter().sum::<usize>(),
        PHASES
            .iter()
            .zip(kills)
            .map(|(phase, kills)| format!("{phase} {kills}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    // Each of them makes more calls than this. Fewer kills mean that the proof has proved nothing.
    let least = if all { 60 } else { 6 };
    assert!(kills.iter().all(|kills| *kills >= least), "{kills:?}");
}

/// A whole life of an environment, in which each command is killed at its `k`th mutation. Tells which were.
fn run_case(local: &Local, proxy: &Proxy, k: usize, effect: Effect, empty: &[String]) -> [bool; 3] {
    let bundle = bundle();
    let deploy = ["deploy", "--bundle", &bundle];
    let mut killed = [false; 3];

    killed[0] = kill(local, proxy, &deploy, k, effect);
    assert_no_changes(local, &format!("deploy, {effect:?} {k}"));
    for (from, to) in EDITS {
        local.edit(from, to);
    }
    killed[1] = kill(local, proxy, &deploy, k, effect);
    assert_no_changes(local, &format!("update, {effect:?} {k}"));
    for (from, to) in EDITS {
        local.edit(to, from);
    }
    killed[2] = kill(local, proxy, &["destroy", "--yes"], k, effect);
    assert_eq!(inventory(&local.aws()), empty, "destroy, {effect:?} {k}: something is left");
    killed
}

/// Runs a command that is killed at its `k`th mutation, and once more when it was.
fn kill(local: &Local, proxy: &Proxy, command: &[&str], k: usize, effect: Effect) -> bool {
    let ran = proxy.run(local, command, vec![Rule::nth(k, Calls::Mutating, effect)]);
    let last = || proxy.mutations().last().map(|call| call.action.clone()).unwrap_or_default();
    if proxy.kills() == 0 {
        assert_eq!(ran.code, 0, "{ran:?}");
        return false;
    }
    assert_eq!(ran.code, -1, "{effect:?} {k} ({}) was to kill it: {ran:?}", last());
    let again = local.run(command);
    assert_eq!(again.code, 0, "after {effect:?} {k} ({}): {again:?}", last());
    true
}

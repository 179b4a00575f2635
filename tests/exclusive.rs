//! Two commands at once, and a command that is interrupted.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::time::Duration;

use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, bundle};

/// Two pipelines that deploy at the same moment must not leave a mixture of both.
#[test]
fn of_two_deploys_at_once_one_waits_and_then_has_nothing_to_do() {
    let local = Local::new();
    local.ok(&["local", "up"]);
    let proxy = Proxy::of(&local);
    // The first one is slow enough for the second to come while it works.
    let bundle = bundle();
    let deploy = ["deploy", "--bundle", &bundle];
    let slow =
        Rule::first(100, Calls::Action("lambda:CreateFunction"), Effect::Delay(Duration::from_secs(3)));
    std::thread::scope(|threads| {
        let first = threads.spawn(|| proxy.run(&local, &deploy, vec![slow]));
        std::thread::sleep(Duration::from_secs(1));
        let second = local.run(&deploy);
        let first = first.join().unwrap();
        assert_eq!((first.code, second.code), (0, 0), "{first:?}\n{second:?}");
        assert!(second.stderr.contains("who has the lock (deploy)"), "{second:?}");
        assert!(
            first.stderr.contains("creating function") && !second.stderr.contains("creating function"),
            "{second:?}"
        );
    });
    assert_eq!(local.run(&["plan", "--exit-code", "--bundle", &bundle]).code, 0);
}

/// Ctrl-C in the middle of a deploy must leave a report of what was done, and nothing half done.
#[test]
fn an_interrupted_deploy_finishes_what_it_does_and_says_what_it_did_not_do() {
    let local = Local::new();
    local.ok(&["local", "up"]);
    let proxy = Proxy::of(&local);
    let bundle = bundle();
    let interrupt = Rule::nth(1, Calls::Action("lambda:CreateFunction"), Effect::Interrupt);
    let ran = proxy.run(&local, &["deploy", "--bundle", &bundle], vec![interrupt]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [
        "interrupted: waiting",
        "creating function snapwarden-local-backup: done",
        "not attempted: create alias",
        "stopped: interrupted",
        "hint: cargo xtask deploy",
    ] {
        assert!(ran.stderr.contains(part), "no `{part}`: {ran:?}");
    }
    let again = local.ok(&["deploy", "--bundle", &bundle]);
    assert!(!again.stderr.contains("creating function"), "{again:?}");
}

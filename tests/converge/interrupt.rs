//! A command that is asked to end.

use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, bundle};

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

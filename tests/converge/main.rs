//! Proofs that the deployer converges: wherever it is killed, whatever was changed behind its back, and with no call
//! more than it takes.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

mod calls;
mod concurrent;
mod drift;
mod interrupt;
mod inventory;
mod kill_points;

use snapwarden_tests::{Local, bundle};

/// An environment that is deployed.
fn deployed() -> Local {
    let local = Local::new();
    local.deploy();
    local
}

/// Nothing is left to do: the proof that a deploy has reached its end.
fn assert_no_changes(local: &Local, context: &str) {
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    assert_eq!(plan.code, 0, "{context}: {plan:?}");
    assert!(plan.stdout.contains("no changes"), "{context}: {plan:?}");
}

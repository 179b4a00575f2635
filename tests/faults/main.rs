//! Bad days as routine: every fault at every command, through the real command line and the real arm64 functions.
//!
//! An ordinary run takes a sample of the cases, drawn by [`SEED`]; `cargo xtask test --long` runs them all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test cannot do fails it")]

mod backup;
mod by_hand;
mod cleanup;
mod deployer;
#[path = "../converge/inventory.rs"]
mod inventory;
mod microburst;
mod soak;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use snapwarden_tests::proxy::{Calls, Effect, Rule};

/// Draws the sample; the same seed takes the same cases.
const SEED: u64 = 20_261_125;

/// Something that goes wrong, beginning with some call.
#[derive(Clone, Debug)]
struct Fault {
    name: &'static str,
    effect: Effect,
    calls: Calls,
    /// How many calls in a row.
    times: usize,
}

/// One fault that begins at the call with this number, counting from 1.
#[derive(Clone, Debug)]
struct Case {
    fault: Fault,
    call: usize,
}

/// Every fault. The SDK tries five or six times, so twelve in a row are more than it hides.
fn faults() -> Vec<Fault> {
    const FOR_GOOD: usize = usize::MAX;
    let fault = |name, effect, calls, times| Fault { name, effect, calls, times };
    vec![
        fault("throttled twice", Effect::Throttle, Calls::All, 2),
        fault("throttled for long", Effect::Throttle, Calls::All, 12),
        fault("internal error once", Effect::InternalError, Calls::All, 1),
        fault("internal errors for good", Effect::InternalError, Calls::All, FOR_GOOD),
        fault("unavailable twice", Effect::Unavailable, Calls::All, 2),
        fault("credentials expired", Effect::ExpiredToken, Calls::All, FOR_GOOD),
        fault("connection reset once", Effect::Reset, Calls::All, 1),
        fault("connections reset for good", Effect::Reset, Calls::All, FOR_GOOD),
        fault("answer lost", Effect::LoseAnswer, Calls::Mutating, 1),
        fault("answers lost", Effect::LoseAnswer, Calls::Mutating, 3),
        fault("answer truncated", Effect::Truncate, Calls::All, 1),
        fault("slow", Effect::Delay(Duration::from_millis(400)), Calls::All, 6),
        fault("stale reads", Effect::Stale, Calls::Reads, 3),
        fault("killed before", Effect::KillBefore, Calls::All, 1),
        fault("killed after", Effect::KillAfter, Calls::Mutating, 1),
    ]
}

impl Case {
    fn rules(&self) -> Vec<Rule> {
        let Self { fault, call } = self;
        vec![Rule::from(*call, fault.times, fault.calls.clone(), fault.effect)]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from call {} on", self.fault.name, self.call)
    }
}

/// Whether every case is to be run.
fn is_long() -> bool {
    std::env::var_os("SNAPWARDEN_LONG").is_some()
}

/// How many calls a command makes, and how many of them may change something.
#[derive(Clone, Copy)]
struct Load {
    calls: usize,
    mutating: usize,
}

impl Load {
    /// How many calls a fault can begin at.
    fn reach(self, fault: &Fault) -> usize {
        match fault.calls {
            Calls::Mutating => self.mutating,
            Calls::Reads => self.calls - self.mutating,
            _ => self.calls,
        }
    }
}

/// Every fault at every `step`th call; of them, in an ordinary run, each fault once, and no more than `sample` cases.
fn cases(load: Load, step: usize, sample: usize, salt: u64) -> Vec<Case> {
    let mut random = fastrand::Rng::with_seed(SEED ^ salt);
    let at_each = |fault: Fault| {
        (1..=load.reach(&fault)).step_by(step).map(move |call| Case { fault: fault.clone(), call })
    };
    if is_long() {
        return faults().into_iter().flat_map(at_each).collect();
    }
    let drawn = |fault: Fault| Case { call: random.usize(1..=load.reach(&fault)), fault };
    let mut cases: Vec<Case> = faults().into_iter().map(drawn).collect();
    random.shuffle(&mut cases);
    cases.truncate(sample);
    cases
}

/// What came of the cases so far.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    /// Commands that were disturbed, and how often in all.
    disturbed: usize,
    faults: u64,
    /// Disturbed commands that ended well all the same, and those that said that they failed.
    unharmed: usize,
    reported: usize,
    /// How often each fault came; a case that begins beyond the last call has none.
    by_fault: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Notes a command that was disturbed so often.
    fn note(&mut self, case: &Case, faults: u64, code: i32) {
        *self.by_fault.entry(case.fault.name).or_default() += faults;
        self.faults += faults;
        if faults > 0 {
            self.disturbed += 1;
            if code == 0 {
                self.unharmed += 1;
            } else {
                self.reported += 1;
            }
        }
    }

    /// The counts, for people; fails where hardly a fault was injected: then nothing has been proven.
    fn close(self) -> String {
        let Self { cases, disturbed, faults, unharmed, reported, by_fault } = self;
        assert!(usize::try_from(faults).unwrap() >= cases / 2, "hardly a fault was injected: {by_fault:?}");
        format!(
            "{cases} cases, {disturbed} commands disturbed by {faults} faults: {unharmed} did their work all the same, \
             {reported} failed and said so, and all converged when run again"
        )
    }
}

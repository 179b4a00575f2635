//! What is to happen to which calls.

use std::time::Duration;

use fastrand::Rng;

use super::Call;

/// One thing that happens to some calls. Where several rules apply to a call, the first one counts.
#[derive(Clone, Debug)]
pub struct Rule {
    calls: Calls,
    when: When,
    effect: Effect,
    seen: usize,
}

/// Which calls a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Every call.
    All,
    /// Those that may change something.
    Mutating,
    /// Those that change nothing.
    Reads,
    /// Those of one action, such as `lambda:CreateFunction`.
    Action(&'static str),
    /// The same, as a file names it; with a `*` at its end, all that begin so, such as `ec2:Describe*`.
    Like(String),
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// So many from this one on, counting from 1.
    From { first: usize, times: usize },
    /// Every so many calls.
    Every(usize),
    /// Each with this probability.
    Chance(f64),
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The caller is killed, and the call does not arrive.
    KillBefore,
    /// The call takes effect, and its caller is killed before it learns of it.
    KillAfter,
    /// The call takes effect, and the connection breaks before the answer arrives.
    LoseAnswer,
    /// The call takes effect, and the connection breaks in the middle of the answer.
    Truncate,
    /// The connection is reset, and the call does not arrive.
    Reset,
    /// The service answers that there are too many calls.
    Throttle,
    /// The service answers that something is wrong inside of it (500).
    InternalError,
    /// The service answers that it is not available (503).
    Unavailable,
    /// The service answers that the caller's credentials have expired.
    ExpiredToken,
    /// The service answers that the caller lacks the right.
    Deny,
    /// A read is answered as the same read was answered the last time: changes since then do not show yet.
    Stale,
    /// The service says yes at once and does it only so much later. For calls whose answer says nothing but that.
    Later(Duration),
    /// The call arrives late.
    Delay(Duration),
    /// The caller is asked to end, as by Ctrl-C, while it waits for the answer.
    Interrupt,
}

impl Rule {
    /// The `nth` of these calls, counting from 1.
    pub fn nth(nth: usize, calls: Calls, effect: Effect) -> Self {
        Self::from(nth, 1, calls, effect)
    }

    /// The first `times` of these calls.
    pub fn first(times: usize, calls: Calls, effect: Effect) -> Self {
        Self::from(1, times, calls, effect)
    }

    /// So many of these calls, beginning with the `first`, counting from 1.
    pub fn from(first: usize, times: usize, calls: Calls, effect: Effect) -> Self {
        Self::new(calls, When::From { first, times }, effect)
    }

    /// Every `nth` of these calls.
    pub fn every(nth: usize, calls: Calls, effect: Effect) -> Self {
        Self::new(calls, When::Every(nth), effect)
    }

    /// Each of these calls with this probability.
    pub fn chance(chance: f64, calls: Calls, effect: Effect) -> Self {
        Self::new(calls, When::Chance(chance), effect)
    }

    pub(crate) fn new(calls: Calls, when: When, effect: Effect) -> Self {
        Self { calls, when, effect, seen: 0 }
    }

    /// What it does.
    pub(crate) fn effect(&self) -> Effect {
        self.effect
    }

    /// Counts a call, and answers what happens to it.
    pub(crate) fn apply(&mut self, call: &Call, random: &mut Rng) -> Option<Effect> {
        if !self.calls.include(call) {
            return None;
        }
        self.seen += 1;
        let applies = match self.when {
            When::From { first, times } => self.seen >= first && self.seen - first < times,
            When::Every(calls) => self.seen.is_multiple_of(calls),
            When::Chance(chance) => random.f64() < chance,
        };
        applies.then_some(self.effect)
    }
}

impl Calls {
    fn include(&self, call: &Call) -> bool {
        match self {
            Self::All => true,
            Self::Mutating => call.mutating,
            Self::Reads => !call.mutating,
            Self::Action(action) => call.action == *action,
            Self::Like(pattern) => match pattern.strip_suffix('*') {
                Some(start) => call.action.starts_with(start),
                None => call.action == *pattern,
            },
        }
    }
}

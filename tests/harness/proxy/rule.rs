//! What is to happen to which calls.

use std::time::Duration;

use super::Call;

/// One thing that happens to some calls. Where several rules match a call, the first one counts.
#[derive(Clone, Debug)]
pub struct Rule {
    calls: Calls,
    /// The first match that it happens to, counting from 1.
    first: usize,
    /// How many matches it happens to.
    times: usize,
    effect: Effect,
    seen: usize,
}

/// Which calls a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Every call.
    All,
    /// Those that may change something.
    Mutating,
    /// Those of one action, such as `lambda:CreateFunction`.
    Action(&'static str),
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
    /// The service answers that there are too many calls.
    Throttle,
    /// The call arrives late.
    Delay(Duration),
    /// The caller is asked to end, as by Ctrl-C, while it waits for the answer.
    Interrupt,
}

impl Rule {
    /// The `nth` of these calls, counting from 1.
    pub fn nth(nth: usize, calls: Calls, effect: Effect) -> Self {
        Self { calls, first: nth, times: 1, effect, seen: 0 }
    }

    /// The first `times` of these calls.
    pub fn first(times: usize, calls: Calls, effect: Effect) -> Self {
        Self { calls, first: 1, times, effect, seen: 0 }
    }

    /// Counts a call, and answers what happens to it.
    pub(super) fn apply(&mut self, call: &Call) -> Option<Effect> {
        let matches = match self.calls {
            Calls::All => true,
            Calls::Mutating => call.mutating,
            Calls::Action(action) => call.action == action,
        };
        if !matches {
            return None;
        }
        self.seen += 1;
        (self.first..self.first + self.times).contains(&self.seen).then_some(self.effect)
    }
}

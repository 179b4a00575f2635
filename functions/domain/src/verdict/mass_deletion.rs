//! The stop before a deletion of unlikely size.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Decision, Verdict};
use crate::settings::CleanupPolicy;

/// A run would delete so much at once that a mistake is likelier than an ordinary night: a wrong time zone, tags
/// rewritten by a script, a floor switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MassDeletion {
    /// How many snapshots no fence holds.
    pub due: usize,
    /// How many snapshots there are.
    pub managed: usize,
    /// The share of them, in percent, that a run may delete.
    pub allowed_percent: u32,
}

impl MassDeletion {
    /// As many may always go: in a small environment, a large share of all is an ordinary night.
    pub const ALWAYS_ALLOWED: usize = 20;

    /// What stops a run with these verdicts before its first deletion, unless a person has let it through.
    ///
    /// The share is of what is there now, so a run that is continued has a lower one than it began with.
    pub fn of(verdicts: &[Verdict<'_>], policy: &CleanupPolicy) -> Option<Self> {
        let due = verdicts.iter().filter(|verdict| verdict.decision == Decision::Delete).count();
        let managed = verdicts.len();
        let percent = u64::from(policy.mass_deletion_percent);
        let is_too_much = due as u64 * 100 > managed as u64 * percent;
        (due > Self::ALWAYS_ALLOWED && is_too_much).then_some(Self {
            due,
            managed,
            allowed_percent: policy.mass_deletion_percent,
        })
    }
}

impl fmt::Display for MassDeletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { due, managed, allowed_percent } = self;
        write!(
            f,
            "{due} of {managed} snapshots would be deleted, more than the {allowed_percent} % that one run may \
             (cleanup.mass_deletion_percent)"
        )
    }
}

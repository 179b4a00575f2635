//! How many snapshots a run has deleted, beyond what EC2 shows of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use snapwarden_domain::run::RunId;

/// What this process knows of the deletions of each run: those of an attempt that failed count against the limit of the
/// next one, `max_deletes`, which Lambda begins with the very same event.
///
/// A deleted snapshot leaves no trace, and a failed attempt hands nothing on, so this is kept where Lambda mostly
/// repeats a run: in the process. An attempt in a new process starts at what the run's hops have handed on; three attempts
/// in three processes may delete three times the limit. Neither the floor nor any other fence depends on it.
#[derive(Debug, Default)]
pub(crate) struct Spent(Mutex<BTreeMap<RunId, u64>>);

impl Spent {
    /// How many the run has deleted so far, where its earlier hops have handed on so many.
    pub(crate) fn before(&self, run: &RunId, handed_on: u64) -> u64 {
        self.with(run, |deleted| {
            *deleted = (*deleted).max(handed_on);
            *deleted
        })
    }

    /// Counts one more.
    pub(crate) fn add(&self, run: &RunId) {
        self.with(run, |deleted| *deleted = deleted.saturating_add(1));
    }

    fn with<T>(&self, run: &RunId, act: impl FnOnce(&mut u64) -> T) -> T {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(runs.entry(run.clone()).or_default())
    }
}

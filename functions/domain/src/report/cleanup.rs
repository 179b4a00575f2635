//! What a run of the cleanup function reports.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{Effort, Failure, Report, counted, cut};
use crate::metrics::{self, Metric};
use crate::names::EnvironmentName;
use crate::run::RunId;
use crate::verdict::{Fence, Snapshot};

/// What a run of the cleanup function did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupReport {
    /// The environment it ran for.
    pub environment: EnvironmentName,
    /// The run.
    pub run: RunId,
    /// Whether it only decided, and changed nothing.
    pub dry_run: bool,
    /// The day it went by.
    pub today: Date,
    /// How many snapshots carry the environment's ownership tag.
    pub managed: usize,
    /// Those deleted, and seen to be gone unless `problems` says that nobody could look.
    pub deleted: Vec<DueSnapshot>,
    /// Those that a dry run would have deleted.
    pub would_delete: Vec<DueSnapshot>,
    /// Those that a fence holds although their `DeleteOn` has come or is unreadable, up to [`Self::MAX_HELD`].
    pub held: Vec<HeldSnapshot>,
    /// How many more are held than listed.
    pub held_unlisted: usize,
    /// How many are due, but left to the next run, since this one has deleted as many as it may.
    pub postponed: usize,
    /// How many are due, but were not reached before the function's timeout came near.
    #[serde(default)]
    pub out_of_time: usize,
    /// How many are not due: the ordinary case.
    pub not_due: usize,
    /// Those whose deletion failed.
    pub failed: Vec<FailedSnapshot>,
    /// What else went wrong, with no snapshot in particular.
    #[serde(default)]
    pub problems: Vec<Failure>,
    /// What people should look at, though the run is fine.
    pub warnings: Vec<String>,
    /// What the run took; its fields stand beside this struct's.
    #[serde(flatten)]
    pub effort: Effort,
}

/// A snapshot that is deleted, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueSnapshot {
    /// Its id, `snap-…`.
    pub snapshot: String,
    /// The volume it was made of.
    pub volume: Option<String>,
    /// The instance that the volume belonged to.
    pub instance: Option<String>,
    /// Its `DeleteOn` tag, as written, cut where it is much longer than a date.
    pub delete_on: Option<String>,
}

impl DueSnapshot {
    /// The longest text listed of a tag, in bytes: anybody may have changed a tag to as much as a kilobyte.
    const MAX_TEXT: usize = 40;
}

impl From<&Snapshot> for DueSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let text = |text: &Option<String>| text.as_ref().map(|text| cut(text, Self::MAX_TEXT));
        Self {
            snapshot: snapshot.id.clone(),
            volume: snapshot.volume.clone(),
            instance: text(&snapshot.instance),
            delete_on: text(&snapshot.delete_on),
        }
    }
}

/// A snapshot that is kept although it is due, or although nobody can tell when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: DueSnapshot,
    /// What holds it.
    pub fence: Fence,
    /// The same for people.
    pub reason: String,
}

/// A snapshot that could not be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSnapshot {
    /// Its id, `snap-…`.
    pub snapshot: String,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

impl CleanupReport {
    /// The most held snapshots listed: about one megabyte.
    pub const MAX_HELD: usize = 4_000;
}

impl Report for CleanupReport {
    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn run(&self) -> &RunId {
        &self.run
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    fn effort(&self) -> &Effort {
        &self.effort
    }

    fn summary(&self) -> String {
        let mut parts = vec![if self.dry_run {
            format!("dry run: {} would be deleted", counted(self.would_delete.len(), "snapshot"))
        } else {
            format!("{} deleted", counted(self.deleted.len(), "snapshot"))
        }];
        let held = self.held.len() + self.held_unlisted;
        parts.extend((held > 0).then(|| format!("{held} held")));
        parts.extend((self.postponed > 0).then(|| format!("{} left to the next run", self.postponed)));
        parts.extend((self.out_of_time > 0).then(|| format!("{} not reached IN TIME", self.out_of_time)));
        parts.push(format!("{} not due", self.not_due));
        parts.extend((!self.failed.is_empty()).then(|| format!("{} FAILED", self.failed.len())));
        parts.join(", ")
    }

    fn failures(&self) -> Vec<String> {
        let mut failures: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        if self.out_of_time > 0 {
            // As a success, the run would be over: Lambda repeats only what fails, and the repetition goes on.
            let failure = Failure::new(
                format!("out of time, with {} still to delete", counted(self.out_of_time, "snapshot")),
                "the run's next attempt goes on from here; raise the timeout if there is none left",
            );
            failures.push(failure.to_string());
        }
        failures.extend(self.failed.iter().map(|failed| format!("{}: {}", failed.snapshot, failed.failure)));
        failures
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::count(metrics::CLEANUP_RUNS, 1)]
    }
}

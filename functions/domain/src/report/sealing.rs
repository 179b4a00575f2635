//! What a sealing pass of the cleanup function reports.

use serde::{Deserialize, Serialize};

use super::{CleanupReport, Effort, Failure, PlaceCopies, Report};
use crate::inventory::Snapshot;
use crate::metrics::{self, Metric};
use crate::names::EnvironmentName;
use crate::run::{RunId, ScheduleName};

/// What a sealing pass did; docs/encryption.md explains it to users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingReport {
    /// The environment it ran for.
    pub environment: EnvironmentName,
    /// The run.
    pub run: RunId,
    /// Whether it only decided, and changed nothing.
    pub dry_run: bool,
    /// Whether it seals: where it only makes copies elsewhere, the lists from here to `failed` are empty.
    #[serde(default = "yes")]
    pub seals: bool,
    /// How many snapshots are in clear text after it, those that failed not counted.
    pub unencrypted_snapshots: usize,
    /// The copies begun, or that a dry run would have begun.
    pub begun: Vec<SealedSnapshot>,
    /// The snapshots in clear text that were deleted for their copies' sake, and are seen to be gone; of a dry run, those
    /// that would have been. Up to [`Self::MAX_LISTED`].
    pub sealed: Vec<SealedSnapshot>,
    /// How many more there are than listed.
    #[serde(default)]
    pub sealed_unlisted: usize,
    /// Those whose copies are being made.
    pub copying: Vec<SealedSnapshot>,
    /// Copies of no more use that were deleted, or would have been: second ones, and those that failed long ago.
    pub superfluous: Vec<String>,
    /// How many wait for a place among the copies.
    pub waiting: usize,
    /// How many are still being made themselves.
    pub pending: usize,
    /// How many the next cleanup deletes, so that they are not worth a copy.
    pub expiring: usize,
    /// Those that stay in clear text until somebody does something, up to [`Self::MAX_LISTED`].
    pub held: Vec<UnsealedSnapshot>,
    /// How many more are held than listed.
    #[serde(default)]
    pub held_unlisted: usize,
    /// Those whose copy failed, was refused, or may or may not have been begun, and deletions that failed; up to
    /// [`Self::MAX_LISTED`].
    pub failed: Vec<UnsealedSnapshot>,
    /// How many more failed than listed.
    #[serde(default)]
    pub failed_unlisted: usize,
    /// How far the copies elsewhere are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_to: Vec<PlaceCopies>,
    /// What else went wrong, with no snapshot in particular.
    pub problems: Vec<Failure>,
    /// What people should look at, though the pass is fine.
    pub warnings: Vec<String>,
    /// What the pass took; its fields stand beside this struct's.
    #[serde(flatten)]
    pub effort: Effort,
}

/// A snapshot in clear text and its copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSnapshot {
    /// The snapshot in clear text.
    pub snapshot: String,
    /// The encrypted copy; absent where a dry run would begin it.
    pub copy: Option<String>,
    /// The volume it was made of.
    pub volume: Option<String>,
    /// The volume's size in GiB.
    pub size_gib: u32,
}

/// A snapshot that stays in clear text for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealedSnapshot {
    /// The snapshot in clear text, or a copy that could not be deleted.
    pub snapshot: String,
    /// The volume it was made of.
    pub volume: Option<String>,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

/// Reports of versions that knew only sealing.
fn yes() -> bool {
    true
}

fn copies(count: usize) -> String {
    if count == 1 { "1 encrypted copy".to_owned() } else { format!("{count} encrypted copies") }
}

impl SealedSnapshot {
    /// A snapshot and what is known of its copy.
    pub fn of(snapshot: &Snapshot, copy: Option<&str>) -> Self {
        Self {
            snapshot: snapshot.id.clone(),
            copy: copy.map(str::to_owned),
            volume: snapshot.volume.clone(),
            size_gib: snapshot.size_gib,
        }
    }
}

impl SealingReport {
    /// The most snapshots that each list holds: a report has to fit Lambda's 6 MB.
    pub const MAX_LISTED: usize = 1_000;

    /// A pass that has found nothing to do yet.
    pub fn new(environment: EnvironmentName, run: RunId, dry_run: bool, seals: bool) -> Self {
        Self {
            environment,
            run,
            dry_run,
            seals,
            unencrypted_snapshots: 0,
            begun: Vec::new(),
            sealed: Vec::new(),
            sealed_unlisted: 0,
            copying: Vec::new(),
            superfluous: Vec::new(),
            waiting: 0,
            pending: 0,
            expiring: 0,
            held: Vec::new(),
            held_unlisted: 0,
            failed: Vec::new(),
            failed_unlisted: 0,
            copy_to: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            effort: Effort::default(),
        }
    }

    /// How many were sealed, listed or not.
    pub fn sealed_count(&self) -> usize {
        self.sealed.len() + self.sealed_unlisted
    }

    /// How many failed, listed or not.
    pub fn failed_count(&self) -> usize {
        self.failed.len() + self.failed_unlisted
    }

    /// The number of copies begun, here and elsewhere.
    fn begun_in_all(&self) -> usize {
        self.begun.len() + self.copy_to.iter().map(|there| there.begun.len()).sum::<usize>()
    }

    /// How many failed, here and elsewhere; a place that could not be looked at counts as one.
    fn failed_in_all(&self) -> usize {
        self.failed_count() + self.copy_to.iter().map(PlaceCopies::failed_count).sum::<usize>()
    }

    fn sealing_summary(&self) -> String {
        let (begun, sealed) = (self.begun.len(), self.sealed_count());
        let mut parts = if self.dry_run {
            vec![
                format!("dry run: {} would be begun", copies(begun)),
                format!("{sealed} would be replaced by their copies"),
            ]
        } else {
            vec![format!("{} begun", copies(begun)), format!("{sealed} replaced by their copies")]
        };
        let more = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        parts.extend(more(self.copying.len(), "being copied"));
        parts.extend(more(self.waiting, "waiting for a place among the copies"));
        parts.extend(more(self.pending, "still being made"));
        parts.extend(more(self.expiring, "going with the next cleanup"));
        parts.extend(more(self.held.len() + self.held_unlisted, "held in clear text"));
        parts.extend(more(self.failed_count(), "FAILED"));
        parts.push(format!("{} in clear text", self.unencrypted_snapshots));
        parts.join(", ")
    }

    /// The report with its lists as long as they may be.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        fn cut<T>(list: &mut Vec<T>, unlisted: &mut usize) {
            *unlisted += list.len().saturating_sub(SealingReport::MAX_LISTED);
            list.truncate(SealingReport::MAX_LISTED);
        }
        cut(&mut self.sealed, &mut self.sealed_unlisted);
        cut(&mut self.held, &mut self.held_unlisted);
        cut(&mut self.failed, &mut self.failed_unlisted);
        for there in &mut self.copy_to {
            cut(&mut there.held, &mut there.held_unlisted);
            cut(&mut there.failed, &mut there.failed_unlisted);
        }
        self
    }
}

impl Report for SealingReport {
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

    fn outcome(&self) -> &'static str {
        if self.dry_run { "dry_run" } else { "sealed" }
    }

    fn summary(&self) -> String {
        let mut parts = if self.seals { vec![self.sealing_summary()] } else { Vec::new() };
        parts.extend(self.copy_to.iter().map(|there| there.summary(self.dry_run)));
        parts.join("; ")
    }

    /// What failed for single snapshots fails only a pass that a person waits for. The schedule's next pass is 15 minutes
    /// away and tries again: Lambda's repetitions would come to the same, and fill the dead-letter queue. That somebody
    /// has to look tells the metric [`metrics::COPIES_FAILED`].
    fn failures(&self) -> Vec<String> {
        let problems = self.problems.iter().map(ToString::to_string);
        let by_hand = *self.run.schedule() == ScheduleName::manual();
        let failed = self.failed.iter().filter(|_| by_hand && !self.dry_run);
        let failed = failed.map(|one| format!("{}: {}", one.snapshot, one.failure));
        let elsewhere = self.copy_to.iter().filter(|_| by_hand);
        problems.chain(failed).chain(elsewhere.flat_map(|there| there.failures(self.dry_run))).collect()
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = vec![
            Metric::count(metrics::SEALING_RUNS, 1),
            Metric::count(metrics::COPIES_BEGUN, self.begun_in_all()),
            Metric::count(metrics::COPIES_FAILED, self.failed_in_all()),
        ];
        if self.seals {
            metrics.push(Metric::count(metrics::UNENCRYPTED_SNAPSHOTS, self.unencrypted_snapshots));
            metrics.push(Metric::count(metrics::SNAPSHOTS_SEALED, self.sealed_count()));
        }
        let behind = self.copy_to.iter().filter_map(|region| region.behind_hours).max();
        metrics.extend(behind.map(|hours| Metric::amount(metrics::COPIES_BEHIND_HOURS, hours)));
        metrics
    }
}

/// What the cleanup function answers: it has two tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum CleanupAnswer {
    /// Of a cleanup.
    Cleanup(Box<CleanupReport>),
    /// Of a sealing pass.
    Sealing(Box<SealingReport>),
}

/// Hands each question on to the report that there is.
macro_rules! of_either {
    ($answer:expr, $report:ident => $value:expr) => {
        match $answer {
            CleanupAnswer::Cleanup($report) => $value,
            CleanupAnswer::Sealing($report) => $value,
        }
    };
}

impl Report for CleanupAnswer {
    fn environment(&self) -> &EnvironmentName {
        of_either!(self, report => report.environment())
    }

    fn run(&self) -> &RunId {
        of_either!(self, report => report.run())
    }

    fn is_dry_run(&self) -> bool {
        of_either!(self, report => report.is_dry_run())
    }

    fn effort(&self) -> &Effort {
        of_either!(self, report => report.effort())
    }

    fn outcome(&self) -> &'static str {
        of_either!(self, report => report.outcome())
    }

    fn summary(&self) -> String {
        of_either!(self, report => report.summary())
    }

    fn failures(&self) -> Vec<String> {
        of_either!(self, report => report.failures())
    }

    fn warnings(&self) -> &[String] {
        of_either!(self, report => report.warnings())
    }

    fn metrics(&self) -> Vec<Metric> {
        of_either!(self, report => report.metrics())
    }
}

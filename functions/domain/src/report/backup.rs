//! What a run of the backup function reports.

use serde::{Deserialize, Serialize};

use super::{Effort, Failure, Report, counted, cut};
use crate::metrics::{self, Metric};
use crate::names::EnvironmentName;
use crate::retention::DeleteOn;
use crate::run::RunId;

/// What a run of the backup function did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The environment it ran for.
    pub environment: EnvironmentName,
    /// The run.
    pub run: RunId,
    /// Whether it only decided, and changed nothing.
    pub dry_run: bool,
    /// How many instances carry the tag that selects them.
    pub selected: usize,
    /// Every selected instance, by id.
    pub instances: Vec<InstanceReport>,
    /// What people should look at, though the run is fine.
    pub warnings: Vec<String>,
    /// How many snapshots this invocation made.
    pub snapshots_created: usize,
    /// How many more snapshots the instances have, or would have, than are listed with them.
    #[serde(default)]
    pub snapshots_unlisted: usize,
    /// What the run took; its fields stand beside this struct's.
    #[serde(flatten)]
    pub effort: Effort,
}

/// What became of one instance in a backup run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Its id, `i-…`.
    pub instance: String,
    /// Its `Name` tag, cut where it is very long.
    pub name: Option<String>,
    /// The outcome, whose fields stand beside this struct's.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// One entry a volume: the snapshots made, those that were there already, or those that would be made.
    pub snapshots: Vec<VolumeSnapshot>,
    /// The `DeleteOn` that the run gives its snapshots.
    pub delete_on: DeleteOn,
}

/// How a backup of one instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A snapshot set was made.
    Created,
    /// An earlier delivery of the same run had made it.
    AlreadyDone,
    /// A dry run would have made it, and EC2 confirmed the right to.
    WouldCreate,
    /// There is no EBS volume to back up.
    NoVolumes,
    /// It was not made.
    Failed(Failure),
}

/// A snapshot of a volume; without an id where it was not made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// Its id, `snap-…`.
    pub snapshot: Option<String>,
    /// The volume's id, `vol-…`.
    pub volume: String,
}

impl BackupReport {
    /// The most snapshots listed: about two megabytes.
    pub const MAX_SNAPSHOTS: usize = 30_000;

    /// The longest name of an instance listed, in bytes.
    const MAX_NAME: usize = 64;

    /// The report as it fits Lambda's limit for some ten thousand instances.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let mut listed = 0;
        for instance in &mut self.instances {
            if let Some(name) = &mut instance.name {
                *name = cut(name, Self::MAX_NAME);
            }
            if listed + instance.snapshots.len() > Self::MAX_SNAPSHOTS {
                self.snapshots_unlisted += std::mem::take(&mut instance.snapshots).len();
            }
            listed += instance.snapshots.len();
        }
        self
    }
}

impl Report for BackupReport {
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
        let count = |is: fn(&Outcome) -> bool| self.instances.iter().filter(|i| is(&i.outcome)).count();
        let snapshots = |is: fn(&Outcome) -> bool| -> usize {
            self.instances.iter().filter(|i| is(&i.outcome)).map(|i| i.snapshots.len()).sum()
        };
        let would = count(|o| *o == Outcome::WouldCreate);
        let done = count(|o| *o == Outcome::AlreadyDone);
        let empty = count(|o| *o == Outcome::NoVolumes);
        let failed = count(|o| matches!(o, Outcome::Failed(_)));

        let mut parts = if self.dry_run {
            let planned = snapshots(|o| *o == Outcome::WouldCreate) + self.snapshots_unlisted;
            vec![
                format!("dry run: {} would be backed up", counted(would, "instance")),
                format!("{} would be made", counted(planned, "snapshot")),
            ]
        } else {
            vec![
                format!("{} backed up", counted(count(|o| *o == Outcome::Created), "instance")),
                format!("{} made", counted(self.snapshots_created, "snapshot")),
            ]
        };
        let made = |i: &&InstanceReport| matches!(i.outcome, Outcome::Created | Outcome::WouldCreate);
        if let Some(instance) = self.instances.iter().find(made) {
            parts.push(format!("deleted from {} on", instance.delete_on));
        }
        parts.extend((done > 0).then(|| format!("{done} already done")));
        parts.extend((empty > 0).then(|| format!("{empty} without volumes")));
        parts.extend((failed > 0).then(|| format!("{failed} FAILED")));
        parts.join(", ")
    }

    fn failures(&self) -> Vec<String> {
        let failure = |instance: &InstanceReport| match &instance.outcome {
            Outcome::Failed(failure) => Some(match &instance.name {
                Some(name) => format!("{} ({name}): {failure}", instance.instance),
                None => format!("{}: {failure}", instance.instance),
            }),
            _ => None,
        };
        self.instances.iter().filter_map(failure).collect()
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn metrics(&self) -> Vec<Metric> {
        let count = |is: fn(&Outcome) -> bool| self.instances.iter().filter(|i| is(&i.outcome)).count();
        let throttles = usize::try_from(self.effort.throttles).unwrap_or(usize::MAX);
        vec![
            Metric::count(metrics::BACKUP_RUNS, 1),
            Metric::count(metrics::INSTANCES_SELECTED, self.selected),
            Metric::count(
                metrics::INSTANCES_BACKED_UP,
                count(|o| matches!(o, Outcome::Created | Outcome::AlreadyDone)),
            ),
            Metric::count(metrics::INSTANCES_FAILED, count(|o| matches!(o, Outcome::Failed(_)))),
            Metric::count(metrics::SNAPSHOTS_CREATED, self.snapshots_created),
            Metric::count(metrics::THROTTLES, throttles),
            Metric::milliseconds(metrics::DURATION_MS, self.effort.duration_ms),
        ]
    }
}

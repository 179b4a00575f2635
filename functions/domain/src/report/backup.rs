//! What a run of the backup function reports.

use serde::{Deserialize, Serialize};

use super::{Effort, Failure, Report, counted, cut};
use crate::metrics::{self, Metric};
use crate::names::EnvironmentName;
use crate::retention::{DeleteOn, Term};
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
    /// The selected instances, by id: all, up to [`Self::MAX_INSTANCES`].
    pub instances: Vec<InstanceReport>,
    /// How many more instances there are than listed, by outcome.
    #[serde(default)]
    pub instances_unlisted: Outcomes,
    /// What people should look at, though the run is fine.
    pub warnings: Vec<String>,
    /// How many snapshots the run has made, in all of its hops.
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
    /// The term of retention that this day comes from.
    #[serde(default)]
    pub retention: Term,
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
    /// Nothing yet: it is left to the run's next hop.
    Postponed,
    /// It was not made.
    Failed(Failure),
}

/// How many instances ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// Those of [`Outcome::Created`].
    pub created: usize,
    /// Those of [`Outcome::AlreadyDone`].
    pub already_done: usize,
    /// Those of [`Outcome::WouldCreate`].
    pub would_create: usize,
    /// Those of [`Outcome::NoVolumes`].
    pub no_volumes: usize,
    /// Those of [`Outcome::Postponed`].
    pub postponed: usize,
    /// Those of [`Outcome::Failed`].
    pub failed: usize,
}

impl Outcomes {
    fn add(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Created => &mut self.created,
            Outcome::AlreadyDone => &mut self.already_done,
            Outcome::WouldCreate => &mut self.would_create,
            Outcome::NoVolumes => &mut self.no_volumes,
            Outcome::Postponed => &mut self.postponed,
            Outcome::Failed(_) => &mut self.failed,
        };
        *count += 1;
    }
}

/// A snapshot of a volume; without an id where it was not made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// Its id, `snap-…`.
    pub snapshot: Option<String>,
    /// The volume's id, `vol-…`.
    pub volume: String,
    /// Whether it is encrypted, where EC2 said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
}

impl BackupReport {
    /// The most instances listed. Lambda takes an answer of more than 6 MB for a failure of the function.
    pub const MAX_INSTANCES: usize = 10_000;

    /// The most snapshots listed: about two megabytes.
    pub const MAX_SNAPSHOTS: usize = 25_000;

    /// The most warnings listed.
    pub const MAX_WARNINGS: usize = 2_000;

    /// The longest name of an instance listed, in bytes.
    const MAX_NAME: usize = 64;

    /// How all instances ended, listed or not.
    pub fn outcomes(&self) -> Outcomes {
        let mut outcomes = self.instances_unlisted;
        self.instances.iter().for_each(|instance| outcomes.add(&instance.outcome));
        outcomes
    }

    /// The report as it fits Lambda's limit, whatever the size of the fleet: what failed is listed first.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        if self.instances.len() > Self::MAX_INSTANCES {
            self.instances.sort_by_key(|instance| !matches!(instance.outcome, Outcome::Failed(_)));
            for dropped in self.instances.split_off(Self::MAX_INSTANCES) {
                self.instances_unlisted.add(&dropped.outcome);
                self.snapshots_unlisted += dropped.snapshots.len();
            }
            self.instances.sort_by(|a, b| a.instance.cmp(&b.instance));
        }
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
        let more = self.warnings.len().saturating_sub(Self::MAX_WARNINGS);
        if more > 0 {
            self.warnings.truncate(Self::MAX_WARNINGS);
            self.warnings.push(format!("and {more} more warnings, which the function's log has"));
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
        let Outcomes { created, already_done, would_create, no_volumes, postponed, failed } = self.outcomes();
        // What a later hop finds done is this very run's own work.
        let (backed_up, already_done) =
            if self.effort.hops > 0 { (created + already_done, 0) } else { (created, already_done) };
        let mut parts = if self.dry_run {
            let would = |i: &&InstanceReport| i.outcome == Outcome::WouldCreate;
            let planned: usize = self.instances.iter().filter(would).map(|i| i.snapshots.len()).sum();
            vec![
                format!("dry run: {} would be backed up", counted(would_create, "instance")),
                format!("{} would be made", counted(planned + self.snapshots_unlisted, "snapshot")),
            ]
        } else {
            vec![
                format!("{} backed up", counted(backed_up, "instance")),
                format!("{} made", counted(self.snapshots_created, "snapshot")),
            ]
        };
        let made = |i: &&InstanceReport| matches!(i.outcome, Outcome::Created | Outcome::WouldCreate);
        if let Some(first) = self.instances.iter().filter(made).map(|instance| instance.delete_on).min() {
            parts.push(format!("deleted from {first} on"));
        }
        parts.extend((already_done > 0).then(|| format!("{already_done} already done")));
        parts.extend((no_volumes > 0).then(|| format!("{no_volumes} without volumes")));
        parts.extend((postponed > 0).then(|| format!("{postponed} left to the next hop")));
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
        let outcomes = self.outcomes();
        let throttles = usize::try_from(self.effort.throttles).unwrap_or(usize::MAX);
        vec![
            Metric::count(metrics::BACKUP_RUNS, 1),
            Metric::count(metrics::INSTANCES_SELECTED, self.selected),
            Metric::count(metrics::INSTANCES_BACKED_UP, outcomes.created + outcomes.already_done),
            Metric::count(metrics::INSTANCES_FAILED, outcomes.failed),
            Metric::count(metrics::SNAPSHOTS_CREATED, self.snapshots_created),
            Metric::count(metrics::THROTTLES, throttles),
            Metric::milliseconds(metrics::DURATION_MS, self.effort.duration_ms),
        ]
    }
}

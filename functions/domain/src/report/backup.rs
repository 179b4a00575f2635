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
    /// What went wrong, with no instance in particular.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Failure>,
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

    /// The most bytes that the listed instances take as JSON. Messages of AWS's can be long, and JSON can double them.
    const MAX_BYTES: usize = 4_500_000;

    /// The most bytes that the listed warnings take.
    const MAX_WARNING_BYTES: usize = 700_000;

    /// The longest name of an instance listed, in bytes.
    const MAX_NAME: usize = 64;

    /// The longest text listed of a failure, in bytes.
    const MAX_TEXT: usize = 500;

    /// How all instances ended, listed or not.
    pub fn outcomes(&self) -> Outcomes {
        let mut outcomes = self.instances_unlisted;
        self.instances.iter().for_each(|instance| outcomes.add(&instance.outcome));
        outcomes
    }

    /// The report as it fits Lambda's limit, whatever the size of the fleet: what failed is listed first.
    ///
    /// A hop whose answer does not fit would count as failed, and be repeated beside the one it handed on to.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let mut snapshots = 0;
        for instance in &mut self.instances {
            instance.shorten();
            if snapshots + instance.snapshots.len() > Self::MAX_SNAPSHOTS {
                self.snapshots_unlisted += std::mem::take(&mut instance.snapshots).len();
            }
            snapshots += instance.snapshots.len();
        }
        self.instances.sort_by_key(|instance| !matches!(instance.outcome, Outcome::Failed(_)));
        let listed = fitting(&self.instances, Self::MAX_BYTES).min(Self::MAX_INSTANCES);
        for dropped in self.instances.split_off(listed) {
            self.instances_unlisted.add(&dropped.outcome);
            self.snapshots_unlisted += dropped.snapshots.len();
        }
        self.instances.sort_by(|a, b| a.instance.cmp(&b.instance));

        let listed = fitting(&self.warnings, Self::MAX_WARNING_BYTES).min(Self::MAX_WARNINGS);
        let more = self.warnings.split_off(listed).len();
        if more > 0 {
            self.warnings.push(format!("and {more} more warnings, which the function's log has"));
        }
        self
    }
}

/// How many of these, from the first on, take no more than so many bytes as JSON.
fn fitting<T: Serialize>(all: &[T], bytes: usize) -> usize {
    let sizes = all.iter().map(|one| serde_json::to_vec(one).map_or(usize::MAX, |json| json.len() + 1));
    sizes
        .scan(0_usize, |total, size| {
            *total = total.saturating_add(size);
            Some(*total)
        })
        .take_while(|total| *total <= bytes)
        .count()
}

impl InstanceReport {
    fn shorten(&mut self) {
        if let Some(name) = &mut self.name {
            *name = cut(name, BackupReport::MAX_NAME);
        }
        if let Outcome::Failed(Failure { code, message, hint }) = &mut self.outcome {
            for text in code.iter_mut().chain([message]).chain(hint) {
                *text = cut(text, BackupReport::MAX_TEXT);
            }
        }
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
        let problems = self.problems.iter().map(ToString::to_string);
        problems.chain(self.instances.iter().filter_map(failure)).collect()
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

//! What a run of the cleanup function reports.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{Effort, Failure, PlaceCleanup, Report, counted, cut};
use crate::audit::Audit;
use crate::clear_text::ClearText;
use crate::inventory::Snapshot;
use crate::metrics::{self, Metric};
use crate::names::EnvironmentName;
use crate::run::RunId;
use crate::settings::CleanupPolicy;
use crate::verdict::{Fence, MassDeletion};

/// What a run of the cleanup function did. Every list is grouped by volume; docs/reports.md explains it to users.
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
    /// How many the earlier invocations of this run have deleted.
    #[serde(default)]
    pub deleted_earlier: u64,
    /// Those that a dry run would have deleted.
    pub would_delete: Vec<DueSnapshot>,
    /// Why the run stopped before its first deletion, or would have in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass_deletion: Option<MassDeletion>,
    /// Those that a fence holds although their `DeleteOn` has come or is unreadable, up to [`Self::MAX_HELD`].
    pub held: Vec<HeldSnapshot>,
    /// How many more are held than listed.
    pub held_unlisted: usize,
    /// The size of all held ones in GiB: that of their volumes, an upper bound of what they cost.
    #[serde(default)]
    pub held_gib: u64,
    /// How many are due, but left to the next run, since this one has deleted as many as it may.
    pub postponed: usize,
    /// How many are due, but were not reached before the function's timeout came near.
    #[serde(default)]
    pub out_of_time: usize,
    /// How many are not due: the ordinary case.
    pub not_due: usize,
    /// In a dry run: what else stays, for want of a turn or of its day, up to [`Self::MAX_HELD`]; `postponed` and
    /// `not_due` count all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<HeldSnapshot>,
    /// Those whose deletion failed.
    pub failed: Vec<FailedSnapshot>,
    /// What else went wrong, with no snapshot in particular.
    #[serde(default)]
    pub problems: Vec<Failure>,
    /// What became of the copies elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<PlaceCleanup>,
    /// What people should look at, though the run is fine.
    pub warnings: Vec<String>,
    /// How well the selected volumes are backed up; absent in reports of older versions.
    #[serde(default)]
    pub audit: Option<Audit>,
    /// What is not encrypted; absent where `encryption.require` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_text: Option<ClearText>,
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
    /// The volume's size in GiB.
    #[serde(default)]
    pub size_gib: u32,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl DueSnapshot {
    /// The longest text listed of a tag, in bytes: anybody may have changed a tag to as much as a kilobyte.
    const MAX_TEXT: usize = 24;

    /// By instance and volume, the oldest first: the order in which people look for them.
    fn place(&self) -> impl Ord + '_ {
        (&self.instance, &self.volume, self.started_at, &self.snapshot)
    }
}

impl From<&Snapshot> for DueSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let text = |text: &Option<String>| text.as_ref().map(|text| cut(text, Self::MAX_TEXT));
        Self {
            snapshot: snapshot.id.clone(),
            volume: snapshot.volume.clone(),
            instance: text(&snapshot.instance),
            delete_on: text(&snapshot.delete_on),
            size_gib: snapshot.size_gib,
            started_at: snapshot.started_at,
        }
    }
}

/// A snapshot that is kept although it is due, or although nobody can tell when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: DueSnapshot,
    /// Its age in whole days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_days: Option<i64>,
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
    /// The volume it was made of.
    #[serde(default)]
    pub volume: Option<String>,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

impl CleanupReport {
    /// The most held snapshots listed: less than a megabyte.
    pub const MAX_HELD: usize = 2_000;

    /// How many snapshots are held.
    pub fn held_count(&self) -> usize {
        self.held.len() + self.held_unlisted
    }

    /// How many snapshots the run has deleted so far, in all of its invocations.
    pub fn deleted_in_all(&self) -> u64 {
        let elsewhere: usize = self.copies.iter().map(|there| there.deleted.len()).sum();
        let deleted = self.deleted.len() + elsewhere;
        self.deleted_earlier.saturating_add(u64::try_from(deleted).unwrap_or(u64::MAX))
    }

    /// Whether this invocation has deleted anything.
    pub fn has_deleted(&self) -> bool {
        !self.deleted.is_empty() || self.copies.iter().any(|there| !there.deleted.is_empty())
    }

    /// How many are due, here and elsewhere, and were not reached in time.
    pub fn out_of_time_in_all(&self) -> usize {
        self.out_of_time + self.copies.iter().map(|there| there.out_of_time).sum::<usize>()
    }

    /// All whose deletion failed, here and elsewhere.
    pub fn failed_in_all(&self) -> impl Iterator<Item = &FailedSnapshot> {
        self.failed.iter().chain(self.copies.iter().flat_map(|there| &there.failed))
    }

    /// The report with its lists grouped by volume.
    #[must_use]
    pub fn grouped(mut self) -> Self {
        self.deleted.sort_by(|a, b| a.place().cmp(&b.place()));
        self.would_delete.sort_by(|a, b| a.place().cmp(&b.place()));
        self.held.sort_by(|a, b| a.snapshot.place().cmp(&b.snapshot.place()));
        // A report that lists thousands of deletions has no room for as much that stays.
        let highest = usize::try_from(CleanupPolicy::HIGHEST_MAX_DELETES).unwrap_or(usize::MAX);
        self.kept.sort_by_key(|kept| kept.fence == Fence::NotDue);
        self.kept.truncate(highest.saturating_sub(self.would_delete.len()) / 2);
        self.kept.sort_by(|a, b| a.snapshot.place().cmp(&b.snapshot.place()));
        self.failed.sort_by(|a, b| (&a.volume, &a.snapshot).cmp(&(&b.volume, &b.snapshot)));
        self
    }
}

impl Report for CleanupReport {
    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    fn effort(&self) -> &Effort {
        &self.effort
    }

    fn run(&self) -> &RunId {
        &self.run
    }

    fn summary(&self) -> String {
        let mut parts = vec![match (&self.mass_deletion, self.dry_run) {
            (Some(stop), false) => format!("STOPPED before the first deletion: {stop}"),
            (Some(stop), true) => format!("dry run: a real run would STOP before the first deletion: {stop}"),
            (None, true) => {
                format!("dry run: {} would be deleted", counted(self.would_delete.len(), "snapshot"))
            }
            (None, false) => {
                let elsewhere: usize = self.copies.iter().map(|there| there.deleted.len()).sum();
                let deleted = usize::try_from(self.deleted_in_all()).unwrap_or(usize::MAX) - elsewhere;
                format!("{} deleted", counted(deleted, "snapshot"))
            }
        }];
        let held = self.held_count();
        parts.extend((held > 0).then(|| format!("{held} held")));
        parts.extend((self.postponed > 0).then(|| format!("{} left to the next run", self.postponed)));
        parts.extend((self.out_of_time > 0).then(|| format!("{} not reached IN TIME", self.out_of_time)));
        parts.push(format!("{} not due", self.not_due));
        parts.extend((!self.failed.is_empty()).then(|| format!("{} FAILED", self.failed.len())));
        if let Some(audit) = &self.audit {
            let unprotected = audit.unprotected_volumes;
            parts
                .extend((unprotected > 0).then(|| format!("{} UNPROTECTED", counted(unprotected, "volume"))));
        }
        if let Some(ClearText { unencrypted_snapshots: clear @ 1.., .. }) = self.clear_text {
            parts.push(format!("{clear} NOT ENCRYPTED"));
        }
        let elsewhere = self.copies.iter().map(|there| there.summary(self.dry_run));
        [parts.join(", ")].into_iter().chain(elsewhere).collect::<Vec<_>>().join("; ")
    }

    fn failures(&self) -> Vec<String> {
        let mut failures: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        if let Some(stop) = self.mass_deletion.filter(|_| !self.dry_run) {
            let failure = Failure::new(
                format!("nothing was deleted: {stop}"),
                "look at `cargo xtask invoke cleanup --dry-run`; if it is right, let one run through with \
                 `cargo xtask invoke cleanup --allow-mass-deletion`",
            );
            failures.push(failure.to_string());
        }
        failures.extend(self.copies.iter().flat_map(|there| there.failures(self.dry_run)));
        let out_of_time = self.out_of_time_in_all();
        if out_of_time > 0 {
            // As a success, the run would be over: Lambda repeats only what fails, and the repetition goes on.
            let failure = Failure::new(
                format!("out of time, with {} still to delete", counted(out_of_time, "snapshot")),
                "the run's next attempt goes on from here; raise the timeout if there is none left",
            );
            failures.push(failure.to_string());
        }
        failures
            .extend(self.failed_in_all().map(|failed| format!("{}: {}", failed.snapshot, failed.failure)));
        failures
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
    fn metrics(&self) -> Vec<Metric> {
        let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut metrics = vec![
            Metric::count(metrics::CLEANUP_RUNS, 1),
            Metric::count(metrics::SNAPSHOTS_MANAGED, self.managed - self.deleted.len().min(self.managed)),
            Metric::count(metrics::SNAPSHOTS_DELETED, number(self.deleted_in_all())),
            Metric::count(metrics::SNAPSHOTS_HELD, self.held_count()),
            Metric::count(metrics::SNAPSHOTS_POSTPONED, self.postponed),
            Metric::amount(metrics::HELD_GIB, self.held_gib),
            Metric::count(metrics::CLEANUP_THROTTLES, number(self.effort.throttles)),
            Metric::milliseconds(metrics::CLEANUP_DURATION_MS, self.effort.duration_ms),
        ];
        if let Some(audit) = &self.audit {
            metrics.push(Metric::count(metrics::VOLUMES_SELECTED, audit.volumes_selected));
            metrics.push(Metric::count(metrics::UNPROTECTED_VOLUMES, audit.unprotected_volumes));
            metrics.push(Metric::count(metrics::SNAPSHOTS_IN_ERROR, audit.failed_lately));
            // No value where no volume has any backup: 0 would look like a fresh one.
            let age = audit.oldest_backup_age_hours;
            metrics.extend(age.map(|hours| Metric::amount(metrics::OLDEST_BACKUP_AGE_HOURS, hours)));
        }
        if let Some(clear_text) = &self.clear_text {
            metrics.push(Metric::count(metrics::UNENCRYPTED_SNAPSHOTS, clear_text.unencrypted_snapshots));
        }
        metrics
    }
}

//! What a run reports: as JSON to whoever invoked it, as one line to people.
//!
//! The JSON is read by the deployer's commands, possibly those of another version: fields may be added, never
//! renamed. A Lambda response is limited to 6 MB, so only what was acted upon, and what is held although it is due,
//! is listed, each up to a limit; the rest is counted.

use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::names::EnvironmentName;
use crate::retention::DeleteOn;
use crate::run::RunId;
use crate::verdict::{Fence, Snapshot};

/// What both reports have in common.
pub trait Report: Serialize {
    /// The run reported on.
    fn run(&self) -> &RunId;

    /// The whole run in one line for people.
    fn summary(&self) -> String;

    /// What went wrong, one line each. A run with any failure counts as failed.
    fn failures(&self) -> Vec<String>;

    /// What people should look at, though the run is fine, one line each.
    fn warnings(&self) -> &[String];
}

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
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
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

/// Why something failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// AWS's error code, where AWS answered with one.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that AWS knows nothing of.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: None, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same failure, saying what it stopped.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
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
    fn run(&self) -> &RunId {
        &self.run
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
}

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
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
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
    fn run(&self) -> &RunId {
        &self.run
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
}

/// The beginning of a text that is longer than so many bytes.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;

//! Metrics in CloudWatch's embedded metric format: log lines from which CloudWatch Logs makes metrics.
//!
//! The functions need no right for it but to write their log. In Lambda's JSON log format such a line passes as it
//! is; one without a `level` counts as INFO, so an application log level above INFO would drop the metrics.
//! (Source: CloudWatch user guide, "Specification: Embedded metric format"; Lambda developer guide, "Log-level
//! filtering".)

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::names::EnvironmentName;
use crate::run::RunId;

/// The namespace of all metrics.
pub const NAMESPACE: &str = "Snapwarden";

/// The one dimension of all metrics: the environment's name.
pub const DIMENSION: &str = "Environment";

/// Backup runs that came to a report, good or bad; the heartbeat. A run counts once for all of its hops, and once more
/// each time that Lambda repeats it after a failure. One that had to give up, since it could not even read what there
/// is, counts not at all.
pub const BACKUP_RUNS: &str = "BackupRuns";
/// Instances that carry the tag that selects them.
pub const INSTANCES_SELECTED: &str = "InstancesSelected";
/// Instances of which the run has a complete snapshot set.
pub const INSTANCES_BACKED_UP: &str = "InstancesBackedUp";
/// Instances whose backup failed.
pub const INSTANCES_FAILED: &str = "InstancesFailed";
/// Snapshots that the run made.
pub const SNAPSHOTS_CREATED: &str = "SnapshotsCreated";
/// Calls of a backup run that EC2 throttled.
pub const THROTTLES: &str = "Throttles";
/// How long a backup run took, all hops together.
pub const DURATION_MS: &str = "DurationMs";

/// Cleanup runs that came to a report, counted as [`BACKUP_RUNS`] are.
pub const CLEANUP_RUNS: &str = "CleanupRuns";
/// Calls of a cleanup run that EC2 throttled.
pub const CLEANUP_THROTTLES: &str = "CleanupThrottles";
/// How long a cleanup run took, all hops together.
pub const CLEANUP_DURATION_MS: &str = "CleanupDurationMs";
/// Snapshots in state `error` that were started within the backup's interval: what failed after the backup had ended,
/// and would otherwise show only when it is late.
pub const SNAPSHOTS_IN_ERROR: &str = "SnapshotsInError";
/// The age in hours of the newest completed snapshot of that selected volume whose newest one is oldest. No value
/// while no volume has any.
pub const OLDEST_BACKUP_AGE_HOURS: &str = "OldestBackupAgeHours";
/// Volumes of selected instances, without those that tags leave out.
pub const VOLUMES_SELECTED: &str = "VolumesSelected";
/// Selected volumes that have no completed snapshot, although there was time to make one.
pub const UNPROTECTED_VOLUMES: &str = "UnprotectedVolumes";
/// Snapshots of the environment that are there after a cleanup.
pub const SNAPSHOTS_MANAGED: &str = "SnapshotsManaged";
/// Snapshots that a cleanup deleted.
pub const SNAPSHOTS_DELETED: &str = "SnapshotsDeleted";
/// Snapshots that a fence holds, although they are due.
pub const SNAPSHOTS_HELD: &str = "SnapshotsHeld";
/// The size of those in GiB: that of their volumes.
pub const HELD_GIB: &str = "HeldGiB";
/// Snapshots that are due, and left to the next run since this one has deleted as many as it may: the backlog.
pub const SNAPSHOTS_POSTPONED: &str = "SnapshotsPostponed";
/// Snapshots that are not encrypted, those that failed not counted. No value where `encryption.require` is off.
pub const UNENCRYPTED_SNAPSHOTS: &str = "UnencryptedSnapshots";

/// Sealing passes that ended, counted as [`BACKUP_RUNS`] are.
pub const SEALING_RUNS: &str = "SealingRuns";
/// Encrypted copies that a sealing pass began.
pub const COPIES_BEGUN: &str = "CopiesBegun";
/// Snapshots in clear text that a sealing pass deleted, since their encrypted copies had been checked.
pub const SNAPSHOTS_SEALED: &str = "SnapshotsSealed";
/// Snapshots in clear text whose copies failed, or were refused.
pub const COPIES_FAILED: &str = "CopiesFailed";
/// How many hours ago the oldest backup was due that should have a copy in another Region, and has none: of the Region
/// that is furthest behind. No value where no Region is copied to.
pub const COPIES_BEHIND_HOURS: &str = "CopiesBehindHours";

/// Restore drills, which `cargo xtask restore drill` runs.
pub const RESTORE_DRILLS: &str = "RestoreDrills";
/// Those that did not prove the backup.
pub const RESTORE_DRILL_FAILURES: &str = "RestoreDrillFailures";
/// How long a drill took until its volumes could be attached.
pub const RESTORE_DRILL_SECONDS: &str = "RestoreDrillSeconds";

/// One metric and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, one of this module's.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Its value.
    pub value: f64,
}

/// A unit that CloudWatch knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Gibibytes, for which CloudWatch has no name of its own; or hours, or whatever else the metric's name says.
    None,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::None => "None",
        }
    }
}

impl Metric {
    /// A number of things.
    pub fn count(name: &'static str, count: usize) -> Self {
        Self { name, unit: Unit::Count, value: number(u64::try_from(count).unwrap_or(u64::MAX)) }
    }

    /// An amount in the unit that the metric's name says.
    pub fn amount(name: &'static str, amount: u64) -> Self {
        Self { name, unit: Unit::None, value: number(amount) }
    }

    /// A duration in milliseconds.
    pub fn milliseconds(name: &'static str, milliseconds: u64) -> Self {
        Self { name, unit: Unit::Milliseconds, value: number(milliseconds) }
    }
}

/// The log line that carries the metrics of a run: one JSON document, which has to stay one line.
///
/// At most 100 metrics fit. The run's id is a plain property: a dimension would make a new metric for every run.
pub fn document(environment: &EnvironmentName, run: &RunId, at: Timestamp, metrics: &[Metric]) -> Value {
    let definitions: Vec<_> =
        metrics.iter().map(|metric| json!({ "Name": metric.name, "Unit": metric.unit.as_str() })).collect();
    let mut document = Map::new();
    document.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": at.as_millisecond(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [[DIMENSION]],
                "Metrics": definitions,
            }],
        }),
    );
    document.insert(DIMENSION.to_owned(), json!(environment));
    document.insert("run".to_owned(), json!(run));
    document.extend(metrics.iter().map(|metric| (metric.name.to_owned(), json!(metric.value))));
    Value::Object(document)
}

/// CloudWatch's values are floating-point numbers, exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "no count of ours comes near 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloudwatch_finds_every_metric_it_is_told_of() {
        let metrics = [Metric::count(BACKUP_RUNS, 1), Metric::milliseconds(DURATION_MS, 1_500)];
        let run = "snapwarden-prod/backup@2026-11-22T02:00:00Z".parse().unwrap();
        let at = "2026-11-22T02:00:07Z".parse().unwrap();
        let document = document(&"prod".parse().unwrap(), &run, at, &metrics);
        assert_eq!(
            document,
            json!({
                "_aws": {
                    "Timestamp": 1_795_312_807_000_u64,
                    "CloudWatchMetrics": [{
                        "Namespace": "Snapwarden",
                        "Dimensions": [["Environment"]],
                        "Metrics": [
                            { "Name": "BackupRuns", "Unit": "Count" },
                            { "Name": "DurationMs", "Unit": "Milliseconds" },
                        ],
                    }],
                },
                "Environment": "prod",
                "run": "snapwarden-prod/backup@2026-11-22T02:00:00Z",
                "BackupRuns": 1.0,
                "DurationMs": 1500.0,
            })
        );
        assert!(!document.to_string().contains('\n'), "CloudWatch reads one line");
    }
}

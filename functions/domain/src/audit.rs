//! What cleanup notices about the backups: it runs after them, sees every snapshot, and does not depend on them.
//!
//! The audit only looks. A backup that died shows as an age that grows, in the report and in the metric
//! `OldestBackupAgeHours`; it is no reason for cleanup to fail.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::inventory::{AttachedVolume, Instance, Inventory, Snapshot, State};
use crate::report::cut;
use crate::settings::CleanupSettings;

/// How well the selected instances are backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// How many instances a backup selects.
    pub instances_selected: usize,
    /// How many volumes they have, without those that tags leave out.
    pub volumes_selected: usize,
    /// The age, in whole hours, of the newest completed snapshot of the volume whose newest one is oldest; absent while
    /// no volume has any.
    pub oldest_backup_age_hours: Option<u64>,
    /// How many volumes are [`Protection::Unprotected`].
    pub unprotected_volumes: usize,
    /// How many volumes are [`Protection::Stale`].
    pub stale_volumes: usize,
    /// The selected instances of which no volume was ever backed up, although there was time.
    pub never_backed_up: Vec<String>,
    /// Every selected volume, the worst first, up to [`Audit::MAX_LISTED`].
    pub volumes: Vec<VolumeAudit>,
    /// How many more there are than listed.
    pub volumes_unlisted: usize,
    /// The environment's snapshots that failed, up to [`Audit::MAX_LISTED`].
    pub failed_snapshots: Vec<FailedSnapshot>,
    /// How many more failed than are listed.
    pub failed_unlisted: usize,
    /// How many of them were started within the backup's interval.
    #[serde(default)]
    pub failed_lately: usize,
}

/// A selected volume and its backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAudit {
    /// Its id, `vol-…`.
    pub volume: String,
    /// The instance it is attached to.
    pub instance: String,
    /// That instance's `Name` tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the audit says of it.
    pub protection: Protection,
    /// The newest completed snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Whole hours since that one was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_hours: Option<u64>,
    /// How many completed snapshots it has.
    pub copies: usize,
}

/// How well a volume is backed up. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It has no completed snapshot, although it has been attached for longer than a backup's interval.
    Unprotected,
    /// It has one, but none was started within a backup's interval.
    Stale,
    /// It has none yet, and none was to be expected.
    New,
    /// It has a recent one.
    Protected,
}

/// A snapshot that holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSnapshot {
    /// Its id, `snap-…`.
    pub snapshot: String,
    /// The volume it was to be made of.
    pub volume: Option<String>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// What EC2 says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Audit {
    /// The most volumes, instances and failed snapshots listed, each: a report has to fit Lambda's 6 MB.
    pub const MAX_LISTED: usize = 1_000;

    /// How much later than its interval a backup may be: flexible windows, retries, a long queue.
    const TOLERANCE: SignedDuration = SignedDuration::from_hours(3);

    /// Looks at every selected volume.
    pub fn of(inventory: &Inventory, now: Timestamp, settings: &CleanupSettings) -> Self {
        let environment = settings.environment.as_str();
        let mut by_volume: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
        for snapshot in inventory.snapshots.iter().filter(|snapshot| snapshot.belongs_to(environment)) {
            if let Some(volume) = snapshot.source_volume() {
                by_volume.entry(volume).or_default().push(snapshot);
            }
        }
        let expected_within =
            SignedDuration::from_hours(i64::from(settings.backup_interval_hours)) + Self::TOLERANCE;
        let recent = |at: Timestamp| now.duration_since(at) <= expected_within;

        let selected: Vec<_> = inventory.instances.iter().filter(|instance| instance.selected).collect();
        let mut volumes = Vec::new();
        let mut never_backed_up = BTreeSet::new();
        for instance in &selected {
            let wanted = instance.volumes.iter().filter(|volume| !volume.excluded);
            let audited: Vec<_> = wanted
                .map(|volume| {
                    let snapshots = by_volume.get(volume.id.as_str()).map_or(&[][..], Vec::as_slice);
                    VolumeAudit::of(instance, volume, snapshots, now, recent)
                })
                .collect();
            if !audited.is_empty()
                && audited.iter().all(|volume| volume.protection == Protection::Unprotected)
            {
                never_backed_up.insert(instance.id.clone());
            }
            volumes.extend(audited);
        }
        volumes.sort_by(|a, b| a.urgency().cmp(&b.urgency()));

        let count = |wanted| volumes.iter().filter(|volume| volume.protection == wanted).count();
        let mut failed: Vec<_> = inventory
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.state == State::Error && snapshot.belongs_to(environment))
            .map(FailedSnapshot::from)
            .collect();
        failed.sort_by(|a, b| {
            (&a.volume, a.started_at, &a.snapshot).cmp(&(&b.volume, b.started_at, &b.snapshot))
        });
        Self {
            instances_selected: selected.len(),
            volumes_selected: volumes.len(),
            oldest_backup_age_hours: volumes.iter().filter_map(|volume| volume.age_hours).max(),
            unprotected_volumes: count(Protection::Unprotected),
            stale_volumes: count(Protection::Stale),
            never_backed_up: never_backed_up.into_iter().take(Self::MAX_LISTED).collect(),
            volumes_unlisted: volumes.len().saturating_sub(Self::MAX_LISTED),
            volumes: volumes.into_iter().take(Self::MAX_LISTED).collect(),
            failed_unlisted: failed.len().saturating_sub(Self::MAX_LISTED),
            failed_lately: failed.iter().filter(|failed| failed.started_at.is_some_and(recent)).count(),
            failed_snapshots: failed.into_iter().take(Self::MAX_LISTED).collect(),
        }
    }

    /// What people should look at, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let first = |wanted| self.volumes.iter().find(|volume| volume.protection == wanted);
        let mut warnings = Vec::new();
        if let Some(volume) = first(Protection::Unprotected) {
            warnings.push(format!(
                "selected, but without any completed snapshot: {}, the first is {volume}",
                crate::report::counted(self.unprotected_volumes, "volume"),
            ));
        }
        if let Some(volume) = first(Protection::Stale) {
            warnings.push(format!(
                "not backed up when it was due: {}, the first is {volume}, {} hours old",
                crate::report::counted(self.stale_volumes, "volume"),
                volume.age_hours.unwrap_or_default(),
            ));
        }
        let failed = self.failed_snapshots.len() + self.failed_unlisted;
        if let Some(snapshot) = self.failed_snapshots.first() {
            let why = snapshot.message.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            warnings.push(format!(
                "in state error, so they hold nothing: {}, the first is {}{why}",
                crate::report::counted(failed, "snapshot"),
                snapshot.snapshot,
            ));
        }
        warnings
    }
}

impl VolumeAudit {
    fn of(
        instance: &Instance,
        volume: &AttachedVolume,
        snapshots: &[&Snapshot],
        now: Timestamp,
        recent: impl Fn(Timestamp) -> bool,
    ) -> Self {
        let completed = || snapshots.iter().filter(|snapshot| snapshot.is_restorable());
        let newest = completed().max_by_key(|snapshot| (snapshot.started_at, &snapshot.id));
        let age = newest.and_then(|newest| newest.started_at).map(|at| now.duration_since(at));
        // A large volume's first snapshot takes hours: while it is made, nothing is wrong.
        let on_its_way = snapshots
            .iter()
            .any(|snapshot| snapshot.state == State::Pending && snapshot.started_at.is_some_and(&recent));
        let has_recent = newest.and_then(|newest| newest.started_at).is_some_and(&recent);
        let protection = match newest {
            Some(_) if has_recent || on_its_way => Protection::Protected,
            Some(_) => Protection::Stale,
            None if on_its_way || volume.attached_at.is_some_and(&recent) => Protection::New,
            None => Protection::Unprotected,
        };
        Self {
            volume: volume.id.clone(),
            instance: instance.id.clone(),
            name: instance.name.as_ref().map(|name| cut(name, Self::MAX_NAME)),
            protection,
            newest: newest.map(|newest| newest.id.clone()),
            age_hours: age.map(|age| u64::try_from(age.as_hours()).unwrap_or(0)),
            // An encrypted copy and its source hold the same.
            copies: completed().map(|snapshot| snapshot.origin()).collect::<BTreeSet<_>>().len(),
        }
    }

    /// The longest `Name` listed, in bytes.
    const MAX_NAME: usize = 60;

    fn urgency(&self) -> impl Ord + '_ {
        (self.protection, std::cmp::Reverse(self.age_hours), &self.instance, &self.volume)
    }
}

impl std::fmt::Display for VolumeAudit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.volume, self.instance)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl From<&Snapshot> for FailedSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: snapshot.id.clone(),
            volume: snapshot.volume.clone(),
            started_at: snapshot.started_at,
            message: snapshot.state_message.as_ref().map(|message| cut(message, 200)),
        }
    }
}

#[cfg(test)]
mod tests;

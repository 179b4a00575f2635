//! Replacing snapshots in clear text by encrypted copies, as a pure function of what EC2 shows.
//!
//! ```text
//! clear ──CopySnapshot──► copying ──EC2──► sealed ──DeleteSnapshot──► the clear one is gone
//!   ▲                        │
//!   └── after RETRY ── failed ◄┘
//! ```
//!
//! Nothing is remembered: how far a snapshot is follows from the copies that name it in their tags, which are set in
//! the call that makes them. So a pass may end anywhere, and two may run beside each other.
//!
//! No order of events loses the last readable copy. A snapshot in clear text is deleted only for the sake of a copy
//! that is completed and checked; a second copy of the same snapshot only for the sake of an earlier one that is. What
//! everything else is deleted for is therefore never deleted itself. Whoever deletes looks at the copy once more right
//! before.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::inventory::{Inventory, Snapshot, State};
use crate::settings::CleanupSettings;
use crate::verdict::{Decision, Fence, fence_but_for_the_day, judge};

/// How many copies run at the same time: the quota for a destination Region (source: EBS user guide, "Quotas for Amazon
/// EBS", "Concurrent snapshot copies per destination Region"). Whoever else copies there takes a share of it.
pub const CONCURRENT_COPIES: usize = 20;

/// How long after it was begun a copy that failed is tried again. What makes copies fail, such as a key that may not be
/// used, takes a person; every attempt leaves a trace that people look at.
pub const RETRY: SignedDuration = SignedDuration::from_hours(6);

/// Everything that there is to seal, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey<'a> {
    /// Every snapshot in clear text, the oldest first.
    pub sealings: Vec<Sealing<'a>>,
    /// What is of no more use: later copies of what an earlier one holds as well, and copies that failed long ago.
    pub superfluous: Vec<Superfluous<'a>>,
    /// How many copies are being made.
    pub in_flight: usize,
}

/// A snapshot in clear text, and how far its sealing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing<'a> {
    /// The snapshot in clear text.
    pub snapshot: &'a Snapshot,
    /// How far it is.
    pub stage: Stage<'a>,
}

/// How far a snapshot in clear text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage<'a> {
    /// It is being made; EC2 copies only what is completed.
    Pending,
    /// The next cleanup deletes it: it is not worth a copy.
    Expiring,
    /// It could not be deleted for its copy's sake.
    Held(Fence),
    /// There is no copy.
    Clear,
    /// This copy is being made.
    Copying(&'a Snapshot),
    /// This copy failed, and it is not time yet to try again.
    Failed(&'a Snapshot),
    /// This copy is completed, and is not what it should be.
    Doubtful(&'a Snapshot, Doubt),
    /// This copy is completed and checked.
    Sealed(&'a Snapshot),
}

/// What is wrong with a copy. Reads as the reason after the copy's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It is in clear text itself.
    NotEncrypted,
    /// It is not of the source's size.
    Size,
    /// It does not carry the source's tags, but for `DeleteOn`.
    Tags,
    /// Somebody has changed the `DeleteOn` of one of the two.
    DeleteOn,
    /// It lies in the archive tier, from which nothing can be restored at once.
    Archived,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotEncrypted => "is not encrypted",
            Self::Size => "has another size",
            Self::Tags => "does not carry the same tags",
            Self::DeleteOn => "has another DeleteOn: set both to the same day",
            Self::Archived => "lies in the archive tier",
        })
    }
}

/// A copy that is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superfluous<'a> {
    /// The copy.
    pub copy: &'a Snapshot,
    /// What holds the same, and stays.
    pub stays: &'a Snapshot,
}

impl<'a> Survey<'a> {
    /// Looks at everything.
    pub fn of(inventory: &'a Inventory, today: Date, now: Timestamp, settings: &CleanupSettings) -> Self {
        let environment = settings.environment.as_str();
        let mut copies: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
        let mut sources: BTreeMap<&str, &Snapshot> = BTreeMap::new();
        for snapshot in inventory.snapshots.iter().filter(|snapshot| snapshot.belongs_to(environment)) {
            match &snapshot.copy {
                Some(copy) => copies.entry(&copy.source).or_default().push(snapshot),
                None => _ = sources.insert(&snapshot.id, snapshot),
            }
        }
        // The order by which everything is decided, whatever the order of the list.
        for copies in copies.values_mut() {
            copies.sort_by_key(|copy| place(copy));
        }

        let mut survey = Self::default();
        for verdict in judge(inventory, today, settings) {
            let snapshot = verdict.snapshot;
            let is_clear = !snapshot.encrypted && snapshot.copy.is_none() && snapshot.state != State::Error;
            if is_clear && snapshot.belongs_to(environment) {
                let of_it = copies.get(snapshot.id.as_str()).map_or(&[][..], Vec::as_slice);
                let stage = Stage::of(snapshot, of_it, verdict.decision, now, environment);
                survey.sealings.push(Sealing { snapshot, stage });
            }
        }
        survey.sealings.sort_by_key(|sealing| (sealing.snapshot.started_at, &sealing.snapshot.id));
        for (source, copies) in &copies {
            let source = sources.get(source).copied();
            survey.superfluous.extend(superfluous(source, copies, now, environment));
            let is_under_way = |copy: &&&Snapshot| copy.state == State::Pending;
            survey.in_flight += copies.iter().filter(is_under_way).count();
        }
        survey
    }

    /// What to begin copying now, if none of it fails.
    pub fn to_copy(&self) -> Vec<&'a Snapshot> {
        self.clear().take(self.places()).collect()
    }

    /// How many copies may be begun.
    pub fn places(&self) -> usize {
        CONCURRENT_COPIES.saturating_sub(self.in_flight)
    }

    /// How many have to wait for a place among the copies.
    pub fn waiting(&self) -> usize {
        self.clear().count() - self.to_copy().len()
    }

    /// All that is to be copied, what is copied first at the top. What cannot be copied takes no place from what can, so a
    /// pass goes on to the next until its places are taken.
    pub fn clear(&self) -> impl Iterator<Item = &'a Snapshot> {
        let clear = self.sealings.iter().filter(|sealing| sealing.stage == Stage::Clear);
        clear.map(|sealing| sealing.snapshot)
    }

    /// What to delete now, each with what it is deleted for the sake of.
    pub fn to_delete(&self) -> Vec<(&'a Snapshot, &'a Snapshot)> {
        let sealed = self.sealings.iter().filter_map(|sealing| match sealing.stage {
            Stage::Sealed(copy) => Some((sealing.snapshot, copy)),
            _ => None,
        });
        sealed.chain(self.superfluous.iter().map(|one| (one.copy, one.stays))).collect()
    }
}

impl<'a> Stage<'a> {
    fn of(
        snapshot: &'a Snapshot,
        copies: &[&'a Snapshot],
        decision: Decision,
        now: Timestamp,
        environment: &str,
    ) -> Self {
        if snapshot.state == State::Pending {
            return Self::Pending;
        }
        if decision == Decision::Delete {
            return Self::Expiring;
        }
        if let Some(fence) = fence_but_for_the_day(snapshot, environment) {
            return Self::Held(fence);
        }
        match Progress::of(copies, now, |copy| doubt(snapshot, copy)) {
            Progress::Checked(copy) => Self::Sealed(copy),
            Progress::Doubtful(copy, doubt) => Self::Doubtful(copy, doubt),
            Progress::UnderWay(copy) => Self::Copying(copy),
            Progress::Failed(copy) => Self::Failed(copy),
            Progress::None => Self::Clear,
        }
    }
}

/// How far the copying of a snapshot is, in whichever Region its copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress<'a> {
    /// This copy is completed and checked.
    Checked(&'a Snapshot),
    /// This copy is completed, and is not what it should be.
    Doubtful(&'a Snapshot, Doubt),
    /// This copy is being made.
    UnderWay(&'a Snapshot),
    /// This copy failed, and it is not time yet to try again.
    Failed(&'a Snapshot),
    /// There is no copy.
    None,
}

impl<'a> Progress<'a> {
    /// The best that these copies of one snapshot come to; `doubt` says what is wrong with a completed one.
    pub(crate) fn of(
        copies: &[&'a Snapshot],
        now: Timestamp,
        doubt: impl Fn(&Snapshot) -> Option<Doubt>,
    ) -> Self {
        let completed = || copies.iter().copied().filter(|copy| copy.state == State::Completed);
        if let Some(copy) = completed().find(|copy| doubt(copy).is_none()) {
            return Self::Checked(copy);
        }
        if let Some((copy, doubt)) = completed().find_map(|copy| Some((copy, doubt(copy)?))) {
            return Self::Doubtful(copy, doubt);
        }
        let is_under_way = |copy: &&Snapshot| matches!(copy.state, State::Pending | State::Unsettled);
        if let Some(copy) = copies.iter().copied().find(is_under_way) {
            return Self::UnderWay(copy);
        }
        match copies.iter().copied().rfind(|copy| !failed_long_ago(copy, now)) {
            Some(copy) => Self::Failed(copy),
            None => Self::None,
        }
    }
}

/// What is wrong with a completed copy; nothing, where the source may be deleted for its sake.
pub fn doubt(source: &Snapshot, copy: &Snapshot) -> Option<Doubt> {
    let ours = |snapshot: &Snapshot| {
        let Snapshot { environment, instance, run, set_volumes, volume, started_at, adopted, .. } =
            snapshot.clone();
        (environment, instance, run, set_volumes, volume, started_at, adopted)
    };
    if !copy.encrypted {
        Some(Doubt::NotEncrypted)
    } else if copy.size_gib != source.size_gib {
        Some(Doubt::Size)
    } else if ours(copy) != ours(source) {
        Some(Doubt::Tags)
    } else if copy.delete_on != source.delete_on {
        Some(Doubt::DeleteOn)
    } else {
        copy.archived.then_some(Doubt::Archived)
    }
}

/// The order of the copies of one snapshot: a later one may go for an earlier one's sake, never the other way round.
pub(crate) fn place(copy: &Snapshot) -> (bool, Option<Timestamp>, &str) {
    let begun_at = copy.copy.as_ref().and_then(|copy| copy.begun_at);
    (begun_at.is_none(), begun_at, &copy.id)
}

pub(crate) fn failed_long_ago(copy: &Snapshot, now: Timestamp) -> bool {
    let begun_at = copy.copy.as_ref().and_then(|copy| copy.begun_at);
    copy.state == State::Error && begun_at.is_some_and(|at| now.duration_since(at) >= RETRY)
}

/// Which copies of one snapshot are of no more use. `copies` is in the order of [`place`].
///
/// A copy that failed stays until something else holds the same: else its set would look whole without it.
fn superfluous<'a>(
    source: Option<&'a Snapshot>,
    copies: &[&'a Snapshot],
    now: Timestamp,
    environment: &str,
) -> Vec<Superfluous<'a>> {
    let is_good = |copy: &Snapshot| copy.is_restorable() && doubt(source.unwrap_or(copy), copy).is_none();
    let first = copies.iter().position(|copy| is_good(copy));
    let readable_source = source.filter(|source| source.is_restorable());
    let mut found = Vec::new();
    for (index, copy) in copies.iter().copied().enumerate() {
        let earlier = first.filter(|first| *first < index).map(|first| copies[first]);
        let stays = if failed_long_ago(copy, now) {
            first.map(|first| copies[first]).or(readable_source)
        } else if copy.is_restorable() {
            earlier.filter(|earlier| doubt(earlier, copy).is_none())
        } else {
            None
        };
        if let Some(stays) = stays
            && fence_but_for_the_day(copy, environment).is_none()
        {
            found.push(Superfluous { copy, stays });
        }
    }
    found
}

#[cfg(test)]
mod tests;

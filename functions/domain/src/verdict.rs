//! What cleanup decides about each snapshot, as a pure function of what EC2 shows.
//!
//! A snapshot is deleted only when no fence stands in the way. Every fence that cannot be evaluated, for want of a
//! tag or a time, counts as standing: cleanup never fills in what it does not know.

mod fence;
mod floor;
mod mass_deletion;

use jiff::civil::Date;
use serde::Serialize;

pub use self::fence::Fence;
use self::floor::Floor;
pub use self::mass_deletion::MassDeletion;
use crate::inventory::{Inventory, Snapshot, State};
use crate::retention::DeleteOn;
use crate::settings::CleanupSettings;

/// Judges every snapshot, with the oldest `DeleteOn` first and unreadable ones last.
///
/// All that no fence holds may go, in this order. How many of them one run deletes is not decided here: whether EC2
/// lets a snapshot go shows only when it is asked to, and one that it does not must not take another's place.
///
/// The verdicts do not depend on the order of the inventory.
pub fn judge<'a>(inventory: &'a Inventory, today: Date, settings: &CleanupSettings) -> Vec<Verdict<'a>> {
    let floor = Floor::of(inventory, today, settings);
    let mut ordered: Vec<_> = inventory.snapshots.iter().map(|snapshot| (snapshot.due(), snapshot)).collect();
    ordered.sort_by_key(|(due, snapshot)| {
        (due.is_none(), *due, &snapshot.instance, &snapshot.run, &snapshot.id)
    });

    let verdict = |(due, snapshot): (Option<DeleteOn>, &'a Snapshot)| {
        let fence = standing_alone(snapshot, due, today, settings).or_else(|| floor.fence(snapshot));
        Verdict { snapshot, decision: fence.map_or(Decision::Delete, Decision::Keep) }
    };
    ordered.into_iter().map(verdict).collect()
}

/// A snapshot and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The snapshot judged.
    pub snapshot: &'a Snapshot,
    /// What becomes of it.
    pub decision: Decision,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No fence stands in the way.
    Delete,
    /// This fence does.
    Keep(Fence),
}

/// How many snapshots get which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Those that no fence holds.
    pub due: usize,
    /// Those that are due, or of which nobody can tell, and that a fence holds.
    pub held: usize,
    /// Those whose day has not come.
    pub not_due: usize,
}

impl Tally {
    /// Counts the verdicts.
    pub fn of(verdicts: &[Verdict<'_>]) -> Self {
        let mut tally = Self::default();
        for verdict in verdicts {
            match verdict.decision {
                Decision::Delete => tally.due += 1,
                Decision::Keep(Fence::NotDue) => tally.not_due += 1,
                Decision::Keep(_) => tally.held += 1,
            }
        }
        tally
    }
}

/// The first fence that stands around a snapshot by itself, whatever else there is.
fn standing_alone(
    snapshot: &Snapshot,
    due: Option<DeleteOn>,
    today: Date,
    settings: &CleanupSettings,
) -> Option<Fence> {
    let fence = fence_but_for_the_day(snapshot, settings.environment.as_str());
    match (fence, due) {
        (Some(Fence::NotOurs | Fence::AwsBackup), _) => fence,
        // Said before what else holds it: the ordinary case.
        (_, Some(due)) if !due.has_come(today) => Some(Fence::NotDue),
        _ => fence,
    }
}

/// The same, apart from whether its day has come: what also holds a snapshot that a copy makes superfluous.
pub fn fence_but_for_the_day(snapshot: &Snapshot, environment: &str) -> Option<Fence> {
    // EC2 was asked for this environment's snapshots only. A filter gone wrong must still delete nothing.
    if !snapshot.belongs_to(environment) {
        return Some(Fence::NotOurs);
    }
    if snapshot.aws_backup {
        return Some(Fence::AwsBackup);
    }
    if snapshot.due().is_none() {
        return Some(Fence::UnreadableDeleteOn);
    }
    if snapshot.archived {
        return Some(Fence::Archived);
    }
    if !matches!(snapshot.state, State::Completed | State::Error) {
        return Some(Fence::Unsettled);
    }
    if snapshot.locked {
        return Some(Fence::Locked);
    }
    snapshot.image.is_some().then_some(Fence::InUse)
}

#[cfg(test)]
mod tests;

//! Copies in another Region or account, as a pure function of what EC2 shows in both places.
//!
//! ```text
//! missing ──CopySnapshot──► copying ──EC2──► copied ──own DeleteOn──► gone, by cleanup
//!    ▲                         │
//!    └──── after RETRY ──── failed ◄┘
//! ```
//!
//! As in [`crate::sealing`], nothing is remembered: what a copy is of stands in its tags, which are set in the call that
//! makes it. A copy counts for the snapshot that the volume's contents were first held by, so that a sealed copy and what
//! it was made of are not copied twice.
//!
//! What is copied: of each instance the newest whole set, and whatever whole set comes after the oldest one that is there.
//! So to switch it on does not copy years of history, and nights for which no pass ran are made up for. A set is not
//! worth a copy once it is due, at home or by the target's own retention: what cleanup has deleted there is not made
//! again.
//!
//! Another account has to be let at a source before it can copy it. It is for as long as the copy is to be made or is being
//! made, and no longer: see [`Copies::to_withdraw`].
//!
//! No source is ever deleted for a copy's sake. Of the copies, only what failed goes here, and a second one for the sake of an
//! earlier one that is completed and checked; everything else is [`crate::verdict`]'s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;

use crate::event::day;
use crate::inventory::{Snapshot, State};
use crate::retention::DeleteOn;
use crate::sealing::{CONCURRENT_COPIES, Doubt, Progress, failed_long_ago, place};
use crate::settings::{CleanupSettings, CopyTarget};
use crate::snapshot_set::{by_set, of_one_moment, one_a_volume, time_of};
use crate::verdict::fence_but_for_the_day;

/// Everything that a place should hold, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies<'a> {
    /// Every snapshot that there should be a copy of, those of the newest sets first.
    pub wanted: Vec<Wanted<'a>>,
    /// What is of no more use there: later copies of what an earlier one holds as well, and copies that failed long ago.
    pub superfluous: Vec<Superfluous<'a>>,
    /// How many copies are being made.
    pub in_flight: usize,
    /// What they are of: see [`Snapshot::origin`].
    pub under_way: BTreeSet<&'a str>,
    /// Whether none are begun for now.
    pub is_paused: bool,
}

/// A snapshot that there should be a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What is copied: where both are there, the encrypted copy of a snapshot in clear text.
    pub source: &'a Snapshot,
    /// When the copy goes, by the target's own retention.
    pub delete_on: DeleteOn,
    /// Of how many volumes its set is, so that the copied set shows when one of it is missing.
    pub set_volumes: usize,
    /// When its set was due to be made.
    pub made_at: Timestamp,
    /// How far its copy is.
    pub stage: Stage<'a>,
}

/// A copy that is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superfluous<'a> {
    /// The copy.
    pub copy: &'a Snapshot,
    /// What holds the same, and stays; nothing where the copy failed, and holds nothing.
    pub stays: Option<&'a Snapshot>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage<'a> {
    /// The source is in clear text, and is sealed first: what is in clear text leaves no place.
    Unsealed,
    /// There is no copy.
    Missing,
    /// This copy is being made.
    Copying(&'a Snapshot),
    /// This copy failed, and it is not time yet to try again.
    Failed(&'a Snapshot),
    /// This copy is completed, and is not what it should be.
    Doubtful(&'a Snapshot, Doubt),
    /// This copy is completed and checked.
    Copied(&'a Snapshot),
}

impl<'a> Copies<'a> {
    /// Compares what there is with what there should be. `sources` are the environment's own snapshots, `copies` those
    /// that are where the target says.
    pub fn of(
        sources: &'a [Snapshot],
        copies: &'a [Snapshot],
        today: Date,
        now: Timestamp,
        target: &CopyTarget,
        settings: &CleanupSettings,
    ) -> Self {
        let environment = settings.environment.as_str();
        let of_origin = by_origin(copies, environment);
        let mut survey = Self { is_paused: target.paused, ..Self::default() };
        for set in wanted_sets(sources, copies, today, target, settings) {
            for source in set.members {
                let of_it = of_origin.get(source.origin()).map_or(&[][..], Vec::as_slice);
                let mut stage = Stage::of(source, of_it, now);
                if stage == Stage::Missing && !source.encrypted && settings.encryption.is_enforced() {
                    stage = Stage::Unsealed;
                }
                let Set { delete_on, made_at, volumes, .. } = set;
                survey.wanted.push(Wanted { source, delete_on, set_volumes: volumes, made_at, stage });
            }
        }
        survey.wanted.sort_by_key(|wanted| {
            let Snapshot { instance, volume, id, .. } = wanted.source;
            (Reverse(wanted.made_at), instance, volume, id)
        });
        let origins: BTreeSet<_> = survey.wanted.iter().map(|wanted| wanted.source.origin()).collect();
        for (origin, copies) in &of_origin {
            survey.superfluous.extend(superfluous(
                copies,
                !target.paused && origins.contains(origin),
                now,
                environment,
            ));
            let pending = copies.iter().filter(|copy| copy.state == State::Pending).count();
            survey.in_flight += pending;
            survey.under_way.extend((pending > 0).then_some(*origin));
        }
        survey
    }

    /// What to begin copying now, if none of it fails.
    pub fn to_copy(&self) -> Vec<Wanted<'a>> {
        self.missing().take(self.places()).collect()
    }

    /// How many copies may be begun.
    pub fn places(&self) -> usize {
        if self.is_paused { 0 } else { CONCURRENT_COPIES.saturating_sub(self.in_flight) }
    }

    /// All that there is no copy of, what is copied first at the top. What cannot be copied takes no place from what can,
    /// so a pass goes on to the next until its places are taken.
    pub fn missing(&self) -> impl Iterator<Item = Wanted<'a>> {
        self.wanted.iter().copied().filter(|wanted| wanted.stage == Stage::Missing)
    }

    /// Which of the snapshots that are shared with the other account are to be shared no more: all of which no copy is to be
    /// made now, or being made. A copy that is being made needs its source until it is completed, whether or not it would
    /// still be begun.
    pub fn to_withdraw(&self, sources: &[Snapshot], shared: &BTreeSet<String>) -> Vec<String> {
        let read = sources.iter().filter(|source| self.under_way.contains(source.origin()));
        let to_be_read = self.missing().filter(|_| !self.is_paused).map(|wanted| wanted.source);
        let needed: BTreeSet<_> = read.chain(to_be_read).map(|source| source.id.as_str()).collect();
        shared.iter().filter(|id| !needed.contains(id.as_str())).cloned().collect()
    }

    /// How many have to wait: for a place among the copies, or for the end of the pause.
    pub fn waiting(&self) -> usize {
        self.missing().count() - self.to_copy().len()
    }

    /// When the oldest backup was due that should be there and is not, completed and checked; nothing where all are, or
    /// where nobody is to make them.
    pub fn behind_since(&self) -> Option<Timestamp> {
        let not_there = self.wanted.iter().filter(|wanted| !matches!(wanted.stage, Stage::Copied(_)));
        not_there.map(|wanted| wanted.made_at).min().filter(|_| !self.is_paused)
    }
}

impl<'a> Stage<'a> {
    fn of(source: &Snapshot, copies: &[&'a Snapshot], now: Timestamp) -> Self {
        match Progress::of(copies, now, |copy| doubt(source, copy)) {
            Progress::Checked(copy) => Self::Copied(copy),
            Progress::Doubtful(copy, doubt) => Self::Doubtful(copy, doubt),
            Progress::UnderWay(copy) => Self::Copying(copy),
            Progress::Failed(copy) => Self::Failed(copy),
            Progress::None => Self::Missing,
        }
    }
}

/// A set that there should be copies of.
struct Set<'a> {
    members: Vec<&'a Snapshot>,
    volumes: usize,
    made_at: Timestamp,
    delete_on: DeleteOn,
}

/// The sets that a target should hold.
fn wanted_sets<'a>(
    sources: &'a [Snapshot],
    copies: &'a [Snapshot],
    today: Date,
    target: &CopyTarget,
    settings: &CleanupSettings,
) -> Vec<Set<'a>> {
    let environment = settings.environment.as_str();
    let ours = |snapshot: &&Snapshot| snapshot.belongs_to(environment);
    let mut oldest_there: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (key, members) in by_set(copies.iter().filter(ours)) {
        if let Some(at) = time_of(key, &members) {
            let oldest = oldest_there.entry(key.instance).or_insert(at);
            *oldest = at.min(*oldest);
        }
    }
    let mut whole: BTreeMap<&str, Vec<(Timestamp, Vec<&'a Snapshot>)>> = BTreeMap::new();
    for (key, members) in by_set(sources.iter().filter(ours)) {
        let of_one_moment = of_one_moment(&members);
        if let Some(at) = time_of(key, &members).filter(|_| !of_one_moment.is_empty()) {
            whole.entry(key.instance).or_default().push((at, of_one_moment));
        }
    }
    let mut sets = Vec::new();
    for (instance, whole) in whole {
        let newest = whole.iter().map(|(at, ..)| *at).max();
        let from = oldest_there.get(instance).copied().or(newest);
        for (made_at, members) in whole {
            let delete_on = target.retention.earned(day(made_at, &settings.timezone)).delete_on;
            let is_over = |member: &&Snapshot| member.due().is_none_or(|due| due.has_come(today));
            let is_in_time = target.history || from.is_some_and(|from| made_at >= from);
            if is_in_time && !delete_on.has_come(today) && !members.iter().any(is_over) {
                let members = one_a_volume(members);
                sets.push(Set { volumes: members.len(), members, made_at, delete_on });
            }
        }
    }
    sets
}

/// The copies by the id that their contents were first held by, in the order of [`place`].
fn by_origin<'a>(copies: &'a [Snapshot], environment: &str) -> BTreeMap<&'a str, Vec<&'a Snapshot>> {
    let mut of_origin: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    // Without the tag that says what it is of, a copy stands for nothing.
    for copy in copies.iter().filter(|copy| copy.belongs_to(environment) && copy.copy.is_some()) {
        of_origin.entry(copy.origin()).or_default().push(copy);
    }
    for copies in of_origin.values_mut() {
        copies.sort_by_key(|copy| place(copy));
    }
    of_origin
}

/// What is wrong with a completed copy. Its `DeleteOn` is its own: people may change it.
fn doubt(source: &Snapshot, copy: &Snapshot) -> Option<Doubt> {
    let content = |snapshot: &Snapshot| {
        let Snapshot { instance, run, volume, started_at, adopted, .. } = snapshot.clone();
        (instance, run, volume, started_at, adopted)
    };
    if !copy.encrypted {
        Some(Doubt::NotEncrypted)
    } else if copy.size_gib != source.size_gib {
        Some(Doubt::Size)
    } else if content(copy) != content(source) {
        Some(Doubt::Tags)
    } else {
        copy.archived.then_some(Doubt::Archived)
    }
}

/// Which copies of one snapshot are of no more use. `copies` is in the order of [`place`].
///
/// A copy that failed stays until another one holds the same, or is about to be made: else its set would look whole
/// without it.
fn superfluous<'a>(
    copies: &[&'a Snapshot],
    is_made_again: bool,
    now: Timestamp,
    environment: &str,
) -> Vec<Superfluous<'a>> {
    let is_good = |copy: &Snapshot| copy.is_restorable() && doubt(copy, copy).is_none();
    let first = copies.iter().position(|copy| is_good(copy));
    let mut found = Vec::new();
    for (index, copy) in copies.iter().copied().enumerate() {
        if fence_but_for_the_day(copy, environment).is_some() {
            continue;
        }
        let stays = match first {
            // It holds nothing, so nothing has to stay for its sake.
            _ if failed_long_ago(copy, now) && (first.is_some() || is_made_again) => None,
            // Somebody who changed the day of one of them wants it.
            Some(first)
                if first < index
                    && copy.is_restorable()
                    && doubt(copies[first], copy).is_none()
                    && copies[first].delete_on == copy.delete_on =>
            {
                Some(copies[first])
            }
            _ => continue,
        };
        found.push(Superfluous { copy, stays });
    }
    found
}

#[cfg(test)]
mod tests;

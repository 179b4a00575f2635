//! Snapshot sets: what one run made of one instance, and what of it can be restored together.
//!
//! Cleanup's floor and a restore go by these same functions, so that what is kept as complete can be restored as such.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::inventory::Snapshot;
use crate::moment::moments;
use crate::run::RunId;

/// What tells a set from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetKey<'a> {
    /// The instance.
    pub instance: &'a str,
    /// The run, as the tag says it.
    pub run: &'a str,
}

impl<'a> SetKey<'a> {
    /// The set that a snapshot belongs to; none where its tags do not say, or where it was adopted.
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        if snapshot.adopted {
            return None;
        }
        Some(Self { instance: snapshot.instance.as_deref()?, run: snapshot.run.as_deref()? })
    }
}

/// The snapshots by set.
pub fn by_set<'a>(
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
) -> BTreeMap<SetKey<'a>, Vec<&'a Snapshot>> {
    let mut sets: BTreeMap<SetKey<'a>, Vec<&'a Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        if let Some(key) = SetKey::of(snapshot) {
            sets.entry(key).or_default().push(snapshot);
        }
    }
    sets
}

/// Whether each volume of the set can be restored, from whichever attempt; of those that EC2 still shows.
pub fn has_every_volume(members: &[&Snapshot]) -> bool {
    volumes(restorable(members)) == volumes(members.iter().copied())
}

/// Whether one attempt made all of it, and all that it made is still there. Two halves of different attempts show the
/// instance at two moments; a volume of which EC2 made no snapshot, or whose snapshot somebody deleted, shows only in
/// the number that the others carry.
pub fn is_whole(members: &[&Snapshot]) -> bool {
    !of_one_moment(members).is_empty()
}

/// The newest moment's snapshots that have all of the set's volumes; none where no attempt made all of it.
///
/// An encrypted copy is of its source's moment, so both are among them while both are there.
pub fn of_one_moment<'a>(members: &[&'a Snapshot]) -> Vec<&'a Snapshot> {
    let all = volumes(members.iter().copied());
    let restorable: Vec<_> = restorable(members).collect();
    let whole = moments(&restorable, |member| member.started_at).filter(|moment| {
        let expected = moment.iter().filter_map(|member| member.set_volumes).max();
        let there = volumes(moment.iter().copied());
        there == all && expected.is_none_or(|expected| there.len() >= expected)
    });
    whole.last().unwrap_or_default()
}

/// One snapshot for each volume: of what holds the same, the encrypted one. One that does not say its volume stands for
/// one of its own.
pub fn one_a_volume(mut members: Vec<&Snapshot>) -> Vec<&Snapshot> {
    members.sort_by_key(|member| (&member.volume, !member.encrypted, &member.id));
    let mut seen = BTreeSet::new();
    members.retain(|member| member.volume.is_none() || seen.insert(member.volume.clone()));
    members
}

fn restorable<'a>(members: &[&'a Snapshot]) -> impl Iterator<Item = &'a Snapshot> {
    members.iter().copied().filter(|member| member.is_restorable())
}

/// The volumes of these snapshots. One that does not say its volume stands for one of its own.
fn volumes<'a>(
    members: impl IntoIterator<Item = &'a Snapshot>,
) -> BTreeSet<(Option<&'a str>, Option<&'a str>)> {
    let volume = |member: &'a Snapshot| {
        let volume = member.volume.as_deref();
        (volume, volume.is_none().then_some(member.id.as_str()))
    };
    members.into_iter().map(volume).collect()
}

/// When the set was due to be made, or else when it was started: the order of age within an instance.
pub fn time_of(key: SetKey<'_>, members: &[&Snapshot]) -> Option<Timestamp> {
    match key.run.parse::<RunId>() {
        Ok(run) => Some(run.scheduled_at()),
        Err(_) => members
            .iter()
            .filter(|member| member.is_restorable())
            .filter_map(|member| member.started_at)
            .max(),
    }
}

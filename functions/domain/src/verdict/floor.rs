//! The copies that stay, expired or not.
//!
//! Two rules, both switched off by a floor of 0:
//!
//! - Of each instance, the newest complete snapshot sets stay, so that what is kept can be restored together.
//! - Of each volume that exists, the newest copies stay. Usually they are members of those sets. They are not when the
//!   volume was detached: no set holds it any more, nothing backs it up, and only its old copies are left.
//!
//! An encrypted copy is a member of its source's set, and a copy of its source's volume, see [`crate::sealing`].
//!
//! A snapshot that was adopted belongs to no set. The second rule is the only one for it, and holds for volumes that
//! are gone as well.
//!
//! What is gone keeps its floor for `orphan_floor_days`. EC2 does not tell for longer than an hour when an instance
//! was terminated, and nothing of ours remembers it. So the days count from the last proof that it was there which
//! the floor itself preserves: the newest complete set. (A failed or partial set proves it too, but goes when it is
//! due, and the floor must not end earlier for that.) The proof is never younger than the termination, and older by
//! the time for which backups did not succeed. While a volume of the instance exists, the second rule holds that
//! volume's copies however old they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::{Span, Timestamp};

use super::Fence;
use crate::event::day;
use crate::inventory::{Inventory, Snapshot, State};
use crate::settings::CleanupSettings;
use crate::snapshot_set::{SetKey, by_set, has_every_volume, is_whole, time_of};

/// The snapshots that stay.
pub(super) struct Floor<'a> {
    sets: BTreeMap<SetKey<'a>, Fence>,
    incomplete: BTreeSet<SetKey<'a>>,
    copies: BTreeSet<&'a str>,
    is_off: bool,
}

impl<'a> Floor<'a> {
    pub(super) fn of(inventory: &'a Inventory, today: Date, settings: &CleanupSettings) -> Self {
        // A foreign snapshot must not take the place of one of ours.
        let environment = settings.environment.as_str();
        let ours: Vec<_> = inventory.snapshots.iter().filter(|s| s.belongs_to(environment)).collect();

        let has_ended = |last_proof: Option<Timestamp>| {
            let days = Span::new().days(settings.policy.orphan_floor_days.min(MAX_SPAN_DAYS));
            last_proof.is_some_and(|at| day(at, &settings.timezone).saturating_add(days) <= today)
        };
        let (sets, incomplete) = sets(inventory, &ours, settings.policy.floor, has_ended);
        Self {
            sets,
            incomplete,
            copies: copies(inventory, &ours, settings.policy.floor, has_ended),
            is_off: settings.policy.floor == 0,
        }
    }

    pub(super) fn fence(&self, snapshot: &Snapshot) -> Option<Fence> {
        if self.is_off {
            return None;
        }
        let key = SetKey::of(snapshot);
        // A failed snapshot holds nothing, so it is nobody's last copy.
        if snapshot.state == State::Error {
            return key.filter(|key| self.incomplete.contains(key)).map(|_| Fence::FailedPart);
        }
        let is_placed = key.is_some() || snapshot.adopted && snapshot.source_volume().is_some();
        if !is_placed {
            return Some(Fence::Unplaced);
        }
        let of_set = key.and_then(|key| self.sets.get(&key).copied());
        of_set.or_else(|| self.copies.contains(snapshot.id.as_str()).then_some(Fence::VolumeFloor))
    }
}

/// The sets that stay with the reason, and those of which a volume is missing.
fn sets<'a>(
    inventory: &'a Inventory,
    ours: &[&'a Snapshot],
    floor: u32,
    has_ended: impl Fn(Option<Timestamp>) -> bool,
) -> (BTreeMap<SetKey<'a>, Fence>, BTreeSet<SetKey<'a>>) {
    let sets = by_set(ours.iter().copied());
    let mut candidates: BTreeMap<&str, Vec<(Timestamp, SetKey<'a>, bool)>> = BTreeMap::new();
    let (mut kept, mut incomplete) = (BTreeMap::new(), BTreeSet::new());
    for (key, members) in sets {
        if has_every_volume(&members) {
            match time_of(key, &members) {
                Some(at) => {
                    let whole = is_whole(&members);
                    candidates.entry(key.instance).or_default().push((at, key, whole));
                }
                // EC2 tells a start time for every snapshot. If it ever does not, any set may be the newest.
                None => _ = kept.insert(key, Fence::Floor),
            }
        } else if members.iter().any(|member| member.state != State::Error) {
            incomplete.insert(key);
        }
    }

    let existing: BTreeSet<_> = inventory.instances.iter().map(|instance| instance.id.as_str()).collect();
    for (instance, mut sets) in candidates {
        sets.sort_unstable_by_key(|set| Reverse(*set));
        let ended = !existing.contains(instance) && has_ended(sets.first().map(|(at, ..)| *at));
        let mut wanted = if ended { 0 } else { floor };
        for (_, key, whole) in sets {
            if wanted == 0 {
                break;
            }
            // A patchwork takes no place, but may hold what no whole one does; and what a later cleanup left of it
            // could take one.
            kept.insert(key, if whole { Fence::Floor } else { Fence::Patchwork });
            wanted -= u32::from(whole);
        }
    }
    (kept, incomplete)
}

/// The ids of each volume's newest copies.
fn copies<'a>(
    inventory: &Inventory,
    ours: &[&'a Snapshot],
    floor: u32,
    has_ended: impl Fn(Option<Timestamp>) -> bool,
) -> BTreeSet<&'a str> {
    let mut volumes: BTreeMap<&str, Vec<&'a Snapshot>> = BTreeMap::new();
    for copy in ours.iter().copied().filter(|snapshot| snapshot.is_restorable()) {
        if let Some(volume) = copy.source_volume() {
            volumes.entry(volume).or_default().push(copy);
        }
    }
    let mut kept = BTreeSet::new();
    for (volume, mut copies) in volumes {
        let exists = inventory.volumes.contains(volume);
        copies.retain(|copy| exists || copy.adopted);
        // One that does not tell when it was started may be the newest.
        copies.sort_unstable_by_key(|copy| {
            Reverse((copy.started_at.is_none(), copy.started_at, copy.origin(), copy.id.as_str()))
        });
        let ended = !exists && has_ended(copies.first().and_then(|newest| newest.started_at));
        let wanted = if ended { 0 } else { usize::try_from(floor).unwrap_or(usize::MAX) };
        // An encrypted copy and its source hold the same: they take one place, and both stay in it.
        let mut places = BTreeSet::new();
        for copy in copies {
            if places.contains(copy.origin()) || places.len() < wanted {
                places.insert(copy.origin());
                kept.insert(copy.id.as_str());
            }
        }
    }
    kept
}

/// Longer than the whole calendar, and still a [`Span`].
const MAX_SPAN_DAYS: u32 = 4_000_000;

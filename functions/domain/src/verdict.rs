//! What cleanup decides about each snapshot, as a pure function of what EC2 shows.
//!
//! A snapshot is deleted only when no fence stands in the way. Every fence that cannot be evaluated, for want of a
//! tag or a time, counts as standing: cleanup never fills in what it does not know.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::day;
use crate::moment::moments;
use crate::retention::DeleteOn;
use crate::run::RunId;
use crate::settings::CleanupSettings;

/// Judges every snapshot, with the oldest `DeleteOn` first and unreadable ones last.
///
/// All that no fence holds may go, in this order. How many of them one run deletes is not decided here: whether EC2
/// lets a snapshot go shows only when it is asked to, and one that it does not must not take another's place.
///
/// The verdicts do not depend on the order of `snapshots`. `instances` are the ids of the instances that exist.
pub fn judge<'a>(
    snapshots: &'a [Snapshot],
    instances: &BTreeSet<String>,
    today: Date,
    settings: &CleanupSettings,
) -> Vec<Verdict<'a>> {
    let floor = Floor::of(snapshots, instances, today, settings);
    let mut ordered: Vec<_> = snapshots.iter().map(|snapshot| (snapshot.due(), snapshot)).collect();
    ordered.sort_by_key(|(due, snapshot)| {
        (due.is_none(), *due, &snapshot.instance, &snapshot.run, &snapshot.id)
    });

    let verdict = |(due, snapshot): (Option<DeleteOn>, &'a Snapshot)| {
        let fence = snapshot.fence(due, today, settings).or_else(|| floor.fence(snapshot));
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

/// A condition that stops a deletion. Reads as the reason after "kept: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fence {
    /// The ownership tag does not name this environment.
    NotOurs,
    /// `DeleteOn` is missing, or not a date of the form `YYYY-MM-DD`.
    UnreadableDeleteOn,
    /// `DeleteOn` lies in the future: the ordinary case.
    NotDue,
    /// The snapshot is neither completed nor failed.
    Unsettled,
    /// The snapshot lies in the archive tier, where somebody moved it on purpose.
    Archived,
    /// The snapshot has lost the tags that say which set it belongs to, so whether it is a last copy is unknown.
    Unplaced,
    /// The snapshot belongs to one of the newest complete sets of its instance.
    Floor,
    /// The snapshot belongs to a set that has all volumes, but not of one moment, and is newer than the last whole
    /// one of its instance: half of it deleted, the other half would look whole.
    Patchwork,
    /// The snapshot failed, and the rest of its set is still there: without this trace it would look complete.
    FailedPart,
    /// The run has deleted as many snapshots as it may.
    RunLimit,
    /// The run came too close to the function's timeout.
    OutOfTime,
    /// An AMI (or fast snapshot restore) uses the snapshot; EC2 says so when asked to delete it.
    InUse,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "its snapwarden:environment tag does not name this environment",
            Self::UnreadableDeleteOn => "its DeleteOn tag is missing or not a date of the form YYYY-MM-DD",
            Self::NotDue => "its DeleteOn has not come",
            Self::Unsettled => "it is neither completed nor failed",
            Self::Archived => "it lies in the archive tier",
            Self::Unplaced => {
                "it has no snapwarden:instance or snapwarden:run tag, so it may be its instance's last copy"
            }
            Self::Floor => "it is one of its instance's newest complete copies (cleanup.floor)",
            Self::Patchwork => "its set was made in several attempts, and there is no newer whole copy",
            Self::FailedPart => "it marks its set as incomplete, and goes once the rest of the set is gone",
            Self::RunLimit => "this run has reached max_deletes; the next run goes on",
            Self::OutOfTime => "this run was out of time; the next run goes on",
            Self::InUse => "an AMI or fast snapshot restore uses it",
        })
    }
}

/// A snapshot as EC2 shows it; the tags as they are written, readable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, `snap-…`.
    pub id: String,
    /// The volume it was made of.
    pub volume: Option<String>,
    /// How far it is.
    pub state: State,
    /// Whether it lies in the archive tier.
    pub archived: bool,
    /// When it was started; the same for all snapshots of a set.
    pub started_at: Option<Timestamp>,
    /// The tag [`crate::tags::ENVIRONMENT`].
    pub environment: Option<String>,
    /// The tag [`crate::tags::INSTANCE`].
    pub instance: Option<String>,
    /// The tag [`crate::tags::RUN`].
    pub run: Option<String>,
    /// The tag [`crate::tags::DELETE_ON`].
    pub delete_on: Option<String>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be restored from.
    Completed,
    /// It failed and holds nothing.
    Error,
    /// Anything else: being made, or coming back from the recycle bin.
    Unsettled,
}

impl Snapshot {
    fn due(&self) -> Option<DeleteOn> {
        self.delete_on.as_ref()?.parse().ok()
    }

    /// The first fence that stands around this snapshot by itself, whatever else there is.
    fn fence(&self, due: Option<DeleteOn>, today: Date, settings: &CleanupSettings) -> Option<Fence> {
        // EC2 was asked for this environment's snapshots only. A filter gone wrong must still delete nothing.
        if self.environment.as_deref() != Some(settings.environment.as_str()) {
            return Some(Fence::NotOurs);
        }
        let Some(due) = due else {
            return Some(Fence::UnreadableDeleteOn);
        };
        if !due.has_come(today) {
            return Some(Fence::NotDue);
        }
        if self.archived {
            return Some(Fence::Archived);
        }
        (self.state == State::Unsettled).then_some(Fence::Unsettled)
    }

    /// Whether a volume can be made of it at once. An archived snapshot takes days to come back.
    fn is_restorable(&self) -> bool {
        self.state == State::Completed && !self.archived
    }
}

/// The snapshot sets that stay, expired or not: the newest complete ones of each instance.
struct Floor<'a> {
    kept: BTreeMap<SetKey<'a>, Fence>,
    incomplete: BTreeSet<SetKey<'a>>,
    is_off: bool,
}

/// A snapshot set: what one run made of one instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SetKey<'a> {
    instance: &'a str,
    run: &'a str,
}

impl<'a> SetKey<'a> {
    fn of(snapshot: &'a Snapshot) -> Option<Self> {
        Some(Self { instance: snapshot.instance.as_deref()?, run: snapshot.run.as_deref()? })
    }
}

impl<'a> Floor<'a> {
    fn of(
        snapshots: &'a [Snapshot],
        instances: &BTreeSet<String>,
        today: Date,
        settings: &CleanupSettings,
    ) -> Self {
        let mut sets: BTreeMap<SetKey<'a>, Vec<&'a Snapshot>> = BTreeMap::new();
        for snapshot in snapshots {
            // A foreign snapshot must not take the place of one of ours.
            let ours = snapshot.environment.as_deref() == Some(settings.environment.as_str());
            if let Some(key) = SetKey::of(snapshot).filter(|_| ours) {
                sets.entry(key).or_default().push(snapshot);
            }
        }

        let mut candidates: BTreeMap<&str, Vec<(Timestamp, SetKey<'a>, bool)>> = BTreeMap::new();
        let (mut kept, mut incomplete) = (BTreeMap::new(), BTreeSet::new());
        for (key, members) in sets {
            if has_every_volume(&members) {
                match time_of(key, &members) {
                    Some(at) => {
                        let whole = is_of_one_moment(&members);
                        candidates.entry(key.instance).or_default().push((at, key, whole));
                    }
                    // EC2 tells a start time for every snapshot. If it ever does not, any set may be the newest.
                    None => _ = kept.insert(key, Fence::Floor),
                }
            } else if members.iter().any(|member| member.state != State::Error) {
                incomplete.insert(key);
            }
        }

        let policy = settings.policy;
        for (instance, mut sets) in candidates {
            sets.sort_unstable_by_key(|set| Reverse(*set));
            let newest = sets.first().map(|(at, ..)| day(*at, &settings.timezone));
            let ended = !instances.contains(instance)
                && newest.is_some_and(|day| {
                    day.saturating_add(Span::new().days(policy.orphan_floor_days.min(MAX_SPAN_DAYS))) <= today
                });
            let mut wanted = if ended { 0 } else { policy.floor };
            for (_, key, whole) in sets {
                if wanted == 0 {
                    break;
                }
                // A patchwork takes no place, but stays as long as what a later cleanup left of it could take one.
                kept.insert(key, if whole { Fence::Floor } else { Fence::Patchwork });
                wanted -= u32::from(whole);
            }
        }
        Self { kept, incomplete, is_off: policy.floor == 0 }
    }

    fn fence(&self, snapshot: &Snapshot) -> Option<Fence> {
        if self.is_off {
            return None;
        }
        match SetKey::of(snapshot) {
            // A failed snapshot holds nothing, so it is nobody's last copy.
            Some(key) if snapshot.state == State::Error => {
                self.incomplete.contains(&key).then_some(Fence::FailedPart)
            }
            Some(key) => self.kept.get(&key).copied(),
            None => (snapshot.state != State::Error).then_some(Fence::Unplaced),
        }
    }
}

/// Longer than the whole calendar, and still a [`Span`].
const MAX_SPAN_DAYS: u32 = 4_000_000;

/// Whether each volume of the set can be restored, from whichever attempt. Only what EC2 still shows is known, so a
/// member deleted by hand is not missed.
fn has_every_volume(members: &[&Snapshot]) -> bool {
    volumes(restorable(members)) == volumes(members.iter().copied())
}

/// Whether one attempt made all of it. Two halves of different attempts show the instance at two moments.
fn is_of_one_moment(members: &[&Snapshot]) -> bool {
    let all = volumes(members.iter().copied());
    let restorable: Vec<_> = restorable(members).collect();
    moments(&restorable, |member| member.started_at).any(|moment| volumes(moment) == all)
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
fn time_of(key: SetKey<'_>, members: &[&Snapshot]) -> Option<Timestamp> {
    match key.run.parse::<RunId>() {
        Ok(run) => Some(run.scheduled_at()),
        Err(_) => members
            .iter()
            .filter(|member| member.is_restorable())
            .filter_map(|member| member.started_at)
            .max(),
    }
}

#[cfg(test)]
mod tests;

//! What an instance needs, given what the run has already made. Pure.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use snapwarden_domain::moment::moments;
use snapwarden_domain::report::VolumeSnapshot;
use snapwarden_domain::retention::{Days, Earned, Retention};

/// An instance that the tag selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// Its EBS volumes that are backed up.
    pub(crate) volumes: BTreeSet<String>,
    /// Whether its boot volume is left out.
    pub(crate) exclude_boot: bool,
    /// Its other volumes that are left out.
    pub(crate) exclude_data: BTreeSet<String>,
    /// How long its daily snapshots are kept, where its owner says so.
    pub(crate) retention_days: Option<Days>,
    /// What of its owner's tags could not be read.
    pub(crate) warnings: Vec<String>,
    /// Whether it is just being started: EC2 may not list its volumes yet.
    pub(crate) starting: bool,
}

impl Selected {
    /// What its snapshots of a day earn, by the environment's retention or its own.
    pub(crate) fn earned(&self, environments: &Retention, day: Date) -> Earned {
        let daily_days = self.retention_days.unwrap_or(environments.daily_days);
        Retention { daily_days, ..*environments }.earned(day)
    }

    /// Whether there is no volume to back up, and none to come.
    pub(crate) fn has_nothing_to_back_up(&self) -> bool {
        self.volumes.is_empty() && !self.starting
    }

    /// Its volumes, of which no snapshot is made.
    pub(crate) fn without_snapshots(&self) -> Vec<VolumeSnapshot> {
        let volume =
            |volume: &String| VolumeSnapshot { snapshot: None, volume: volume.clone(), encrypted: None };
        self.volumes.iter().map(volume).collect()
    }
}

/// A snapshot that the run has made already and that is completed or on its way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) volume: String,
    pub(crate) started_at: Option<Timestamp>,
    /// Whether it is encrypted, where EC2 said so.
    pub(crate) encrypted: Option<bool>,
    /// Which of the run's hops made it.
    pub(crate) hop: u32,
}

/// How old the newest snapshot of a later hop may be for that hop to be at work still. A hop lasts a quarter of an
/// hour at most and makes snapshots throughout.
const AT_WORK: SignedDuration = SignedDuration::from_mins(20);

/// Whether a later hop of the run is at work, so that this one is not wanted: Lambda has repeated it, or delivered it
/// twice, after it had handed on. To go on, and to hand on again, would fork the run's chain of hops. Should the later
/// hop fail, Lambda repeats that one; and once the chain has been still for a while, the run can be started again.
pub(crate) fn is_superseded(hop: u32, made: &[Made], now: Timestamp) -> bool {
    let is_recent = |at: Timestamp| now.duration_since(at) <= AT_WORK;
    made.iter().any(|made| made.hop > hop && made.started_at.is_some_and(is_recent))
}

/// What to do about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a snapshot set.
    Create,
    /// Nothing: an earlier delivery of the same run has made this set.
    AlreadyDone(Vec<VolumeSnapshot>),
    /// Nothing: there is no EBS volume.
    NoVolumes,
    /// Nothing yet: there is no EBS volume so far.
    NotYet,
}

/// Decides about one instance.
///
/// Only a set with all volumes counts as done. A partial one is made again as a whole, not filled up, nor are the
/// parts that several attempts made taken together: the volumes of a set belong to one moment.
pub(crate) fn decide(instance: &Selected, made: &[Made]) -> Action {
    if instance.volumes.is_empty() {
        return if instance.starting { Action::NotYet } else { Action::NoVolumes };
    }
    // A volume attached to several instances is part of each one's set.
    let own: Vec<_> = made.iter().filter(|made| made.instance == instance.id).collect();
    let done = moments(&own, |made| made.started_at).find_map(|set| whole(instance, &set));
    done.map_or(Action::Create, Action::AlreadyDone)
}

/// The snapshots of all of the instance's volumes, if the set has them.
fn whole(instance: &Selected, set: &[&Made]) -> Option<Vec<VolumeSnapshot>> {
    let snapshot_of = |volume: &String| {
        let made = set.iter().find(|made| made.volume == *volume)?;
        let (snapshot, volume) = (Some(made.id.clone()), volume.clone());
        Some(VolumeSnapshot { snapshot, volume, encrypted: made.encrypted })
    };
    instance.volumes.iter().map(snapshot_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(volumes: &[&str]) -> Selected {
        let volumes = volumes.iter().map(|&volume| volume.to_owned()).collect();
        Selected { id: "i-1".to_owned(), volumes, ..Selected::default() }
    }

    fn made(instance: &str, volume: &str) -> Made {
        made_at(instance, volume, "2026-11-22T02:00:09Z")
    }

    fn made_at(instance: &str, volume: &str, at: &str) -> Made {
        Made {
            id: format!("snap-{volume}"),
            instance: instance.to_owned(),
            volume: volume.to_owned(),
            started_at: Some(at.parse().unwrap()),
            encrypted: None,
            hop: 0,
        }
    }

    #[test]
    fn a_repeated_delivery_does_not_snapshot_twice() {
        let action = decide(&instance(&["vol-1", "vol-2"]), &[made("i-1", "vol-2"), made("i-1", "vol-1")]);
        let Action::AlreadyDone(snapshots) = action else { panic!("{action:?}") };
        assert_eq!(snapshots[0].snapshot.as_deref(), Some("snap-vol-1"));
        assert_eq!(snapshots[1].snapshot.as_deref(), Some("snap-vol-2"));
    }

    #[test]
    fn a_volume_without_a_snapshot_is_not_forgotten() {
        assert_eq!(decide(&instance(&["vol-1"]), &[]), Action::Create);
        assert_eq!(decide(&instance(&["vol-1", "vol-2"]), &[made("i-1", "vol-1")]), Action::Create);
    }

    #[test]
    fn a_shared_volume_in_another_instances_set_does_not_count() {
        assert_eq!(decide(&instance(&["vol-1"]), &[made("i-2", "vol-1")]), Action::Create);
    }

    #[test]
    fn parts_of_two_attempts_do_not_pass_for_a_set() {
        let first = made_at("i-1", "vol-1", "2026-11-22T02:00:09Z");
        let second = made_at("i-1", "vol-2", "2026-11-22T02:01:15Z");
        let instance = instance(&["vol-1", "vol-2"]);
        assert_eq!(decide(&instance, &[first.clone(), second.clone()]), Action::Create);
        let rest = made_at("i-1", "vol-1", "2026-11-22T02:01:15Z");
        assert!(matches!(decide(&instance, &[first, second, rest]), Action::AlreadyDone(_)));
    }

    #[test]
    fn a_volume_detached_since_does_not_repeat_the_set() {
        let made = [made("i-1", "vol-1"), made("i-1", "vol-gone")];
        assert!(matches!(decide(&instance(&["vol-1"]), &made), Action::AlreadyDone(_)));
    }

    #[test]
    fn an_instance_without_volumes_needs_no_call() {
        assert_eq!(decide(&instance(&[]), &[]), Action::NoVolumes);
    }

    #[test]
    fn an_instance_that_is_just_starting_is_not_taken_for_one_without_volumes() {
        assert_eq!(decide(&Selected { starting: true, ..instance(&[]) }, &[]), Action::NotYet);
        assert_eq!(decide(&Selected { starting: true, ..instance(&["vol-1"]) }, &[]), Action::Create);
    }

    #[test]
    fn an_instances_own_retention_replaces_the_daily_one_alone() {
        let days = |days: u32| Days::try_from(days).unwrap();
        let retention = Retention { daily_days: days(7), weekly_days: Some(days(28)), monthly_days: None };
        let own = Selected { retention_days: Some(days(3)), ..instance(&["vol-1"]) };
        let sunday = "2026-11-22".parse().unwrap();
        assert_eq!(own.earned(&retention, sunday).delete_on.to_string(), "2026-11-25");
        let monday = "2026-11-23".parse().unwrap();
        assert_eq!(own.earned(&retention, monday).delete_on.to_string(), "2026-12-21");
    }

    #[test]
    fn a_repeated_hop_leaves_the_run_to_the_one_it_handed_on_to() {
        let of = |hop| Made { hop, ..made_at("i-1", "vol-1", "2026-11-22T02:20:00Z") };
        let at = |text: &str| text.parse().unwrap();
        let soon = at("2026-11-22T02:21:00Z");
        assert!(is_superseded(0, &[of(0), of(1)], soon));
        assert!(!is_superseded(1, &[of(0), of(1)], soon), "the last hop's own repetition goes on");
        assert!(!is_superseded(0, &[of(0)], soon));
        assert!(
            !is_superseded(0, &[of(1)], at("2026-11-22T02:41:00Z")),
            "that chain has come to a standstill"
        );
    }
}

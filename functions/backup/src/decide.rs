//! What an instance needs, given what the run has already made. Pure.

use std::collections::BTreeSet;

use snapwarden_domain::report::VolumeSnapshot;

/// An instance that the tag selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// Its EBS volumes.
    pub(crate) volumes: BTreeSet<String>,
}

/// A snapshot that the run has made already and that is completed or on its way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) volume: String,
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
}

/// Decides about one instance.
///
/// Only a set with all volumes counts as done. A partial one is made again as a whole, not filled up: the volumes of
/// a set belong to one moment.
pub(crate) fn decide(instance: &Selected, made: &[Made]) -> Action {
    if instance.volumes.is_empty() {
        return Action::NoVolumes;
    }
    // A volume attached to several instances is part of each one's set.
    let own = || made.iter().filter(|made| made.instance == instance.id);
    let snapshot_of = |volume: &String| {
        let snapshot = own().find(|made| made.volume == *volume)?.id.clone();
        Some(VolumeSnapshot { snapshot: Some(snapshot), volume: volume.clone() })
    };
    match instance.volumes.iter().map(snapshot_of).collect() {
        Some(snapshots) => Action::AlreadyDone(snapshots),
        None => Action::Create,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(volumes: &[&str]) -> Selected {
        let volumes = volumes.iter().map(|&volume| volume.to_owned()).collect();
        Selected { id: "i-1".to_owned(), name: None, volumes }
    }

    fn made(instance: &str, volume: &str) -> Made {
        Made { id: format!("snap-{volume}"), instance: instance.to_owned(), volume: volume.to_owned() }
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
    fn a_volume_detached_since_does_not_repeat_the_set() {
        let made = [made("i-1", "vol-1"), made("i-1", "vol-gone")];
        assert!(matches!(decide(&instance(&["vol-1"]), &made), Action::AlreadyDone(_)));
    }

    #[test]
    fn an_instance_without_volumes_needs_no_call() {
        assert_eq!(decide(&instance(&[]), &[]), Action::NoVolumes);
    }
}

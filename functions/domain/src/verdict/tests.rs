use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::inventory::Instance;
use crate::settings::CleanupPolicy;
use jiff::civil::date;
use jiff::{SignedDuration, Span, Timestamp};

const TODAY: Date = date(2026, 11, 22);

fn settings(floor: u32) -> CleanupSettings {
    CleanupSettings {
        environment: "prod".parse().unwrap(),
        alias_arn: String::new(),
        timezone: "UTC".parse().unwrap(),
        policy: CleanupPolicy { floor, orphan_floor_days: 90, max_deletes: 5000, mass_deletion_percent: 50 },
        select: crate::settings::Selector::default(),
        backup_interval_hours: 24,
        encryption: crate::settings::Encryption::Off,
        copy_to: Vec::new(),
    }
}

/// An expired snapshot that no fence holds but the floor.
fn expired(id: &str, run_day: &str) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some("vol-1".to_owned()),
        state: State::Completed,
        started_at: Some(format!("{run_day}T02:00:09Z").parse().unwrap()),
        environment: Some("prod".to_owned()),
        instance: Some("i-1".to_owned()),
        run: Some(format!("snapwarden-prod/backup@{run_day}T02:00:00Z")),
        delete_on: Some("2026-11-22".to_owned()),
        ..Snapshot::default()
    }
}

/// The snapshots in an account where these instances and volumes exist.
fn inventory(snapshots: &[Snapshot], instances: &[&str], volumes: &[&str]) -> Inventory {
    let instance = |id: &&str| Instance { id: (*id).to_owned(), ..Instance::default() };
    Inventory {
        snapshots: snapshots.to_vec(),
        instances: instances.iter().map(instance).collect(),
        volumes: volumes.iter().map(|id| (*id).to_owned()).collect(),
        ..Inventory::default()
    }
}

/// The verdicts where the instance exists and its volumes are gone, so that only the floor of sets holds.
fn verdicts(snapshots: &[Snapshot], settings: &CleanupSettings) -> BTreeMap<String, Decision> {
    verdicts_in(&inventory(snapshots, &["i-1"], &[]), settings)
}

fn verdicts_in(inventory: &Inventory, settings: &CleanupSettings) -> BTreeMap<String, Decision> {
    judge(inventory, TODAY, settings)
        .into_iter()
        .map(|verdict| (verdict.snapshot.id.clone(), verdict.decision))
        .collect()
}

fn decision(snapshot: Snapshot, settings: &CleanupSettings) -> Decision {
    let id = snapshot.id.clone();
    verdicts(&[snapshot], settings)[&id]
}

#[test]
fn each_fence_holds_by_itself() {
    let snapshot = || expired("snap-1", "2026-11-15");
    let text = |text: &str| Some(text.to_owned());
    for (fence, snapshot) in [
        (Fence::NotOurs, Snapshot { environment: None, ..snapshot() }),
        (Fence::NotOurs, Snapshot { environment: text("staging"), ..snapshot() }),
        (Fence::UnreadableDeleteOn, Snapshot { delete_on: None, ..snapshot() }),
        (Fence::UnreadableDeleteOn, Snapshot { delete_on: text("22.11.2026"), ..snapshot() }),
        (Fence::NotDue, Snapshot { delete_on: text("2026-11-23"), ..snapshot() }),
        (Fence::Archived, Snapshot { archived: true, ..snapshot() }),
        (Fence::Unsettled, Snapshot { state: State::Unsettled, ..snapshot() }),
        (Fence::Unsettled, Snapshot { state: State::Pending, ..snapshot() }),
        (Fence::AwsBackup, Snapshot { aws_backup: true, ..snapshot() }),
        (Fence::Locked, Snapshot { locked: true, ..snapshot() }),
        (Fence::InUse, Snapshot { image: text("ami-1"), ..snapshot() }),
    ] {
        assert_eq!(decision(snapshot.clone(), &settings(0)), Decision::Keep(fence), "{snapshot:?}");
    }
    assert_eq!(decision(snapshot(), &settings(0)), Decision::Delete, "on the day itself");
}

#[test]
fn the_last_copy_of_an_instance_survives_its_expiry() {
    let newest = expired("snap-new", "2026-11-15");
    let older = expired("snap-old", "2026-11-14");
    let both = [newest, older];
    let verdicts = |floor| self::verdicts(&both, &settings(floor));
    assert_eq!(verdicts(0).values().filter(|decision| **decision == Decision::Delete).count(), 2);
    assert_eq!(verdicts(1)["snap-new"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts(1)["snap-old"], Decision::Delete);
    assert_eq!(verdicts(2)["snap-old"], Decision::Keep(Fence::Floor));
}

#[test]
fn a_set_that_cannot_be_restored_whole_does_not_displace_an_older_one() {
    let good = expired("snap-good", "2026-11-14");
    let half = expired("snap-half", "2026-11-15");
    for other_half in [
        Snapshot { state: State::Error, ..expired("snap-other", "2026-11-15") },
        Snapshot { state: State::Unsettled, ..expired("snap-other", "2026-11-15") },
        Snapshot { archived: true, ..expired("snap-other", "2026-11-15") },
    ] {
        let other_half = Snapshot { volume: Some("vol-2".to_owned()), ..other_half };
        let verdicts = verdicts(&[good.clone(), half.clone(), other_half], &settings(1));
        assert_eq!(verdicts["snap-good"], Decision::Keep(Fence::Floor));
    }
}

/// EC2 may leave a volume out, and people delete single snapshots: the rest must not cost the last copy that can be
/// restored together.
#[test]
fn a_set_of_which_a_volume_is_missing_does_not_displace_a_whole_one() {
    let of_two = |id: &str, day: &str, volume: &str| Snapshot {
        volume: Some(volume.to_owned()),
        set_volumes: Some(2),
        ..expired(id, day)
    };
    let whole = [of_two("snap-1", "2026-11-13", "vol-1"), of_two("snap-2", "2026-11-13", "vol-2")];
    let older = of_two("snap-old", "2026-11-12", "vol-1");
    let rest = of_two("snap-rest", "2026-11-14", "vol-1");
    let [one, two] = whole;
    let verdicts = verdicts(&[one, two, older, rest], &settings(1));
    assert_eq!(verdicts["snap-1"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-2"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-rest"], Decision::Keep(Fence::Patchwork), "the newest of its volume");
    assert_eq!(verdicts["snap-old"], Decision::Delete, "older than a whole one");
}

/// Half of the last set of an instance that is gone is still more than nothing.
#[test]
fn what_is_left_of_the_only_set_stays() {
    let rest = Snapshot { set_volumes: Some(2), ..expired("snap-rest", "2026-11-14") };
    assert_eq!(decision(rest, &settings(1)), Decision::Keep(Fence::Patchwork));
}

#[test]
fn a_set_whose_second_attempt_succeeded_is_complete_and_its_failed_first_one_goes() {
    let failed = Snapshot { state: State::Error, ..expired("snap-failed", "2026-11-15") };
    let made = expired("snap-made", "2026-11-15");
    let verdicts = verdicts(&[failed, made], &settings(1));
    assert_eq!(verdicts["snap-made"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-failed"], Decision::Delete);
}

#[test]
fn half_a_set_never_passes_for_a_whole_one_because_its_failed_half_was_tidied_away() {
    let good = expired("snap-good", "2026-11-14");
    let half = Snapshot { delete_on: Some("2027-01-01".to_owned()), ..expired("snap-half", "2026-11-15") };
    let failed = Snapshot {
        state: State::Error,
        volume: Some("vol-2".to_owned()),
        ..expired("snap-failed", "2026-11-15")
    };
    let before = verdicts(&[good, half, failed.clone()], &settings(1));
    assert_eq!(before["snap-good"], Decision::Keep(Fence::Floor));
    assert_eq!(before["snap-failed"], Decision::Keep(Fence::FailedPart));
    assert_eq!(decision(failed, &settings(1)), Decision::Delete, "once it is alone");
}

#[test]
fn a_snapshot_without_its_place_is_kept_since_it_may_be_the_last_copy() {
    let no_instance = Snapshot { instance: None, ..expired("snap-1", "2026-11-15") };
    let no_run = Snapshot { run: None, ..expired("snap-1", "2026-11-15") };
    for snapshot in [no_instance, no_run] {
        assert_eq!(decision(snapshot.clone(), &settings(1)), Decision::Keep(Fence::Unplaced));
        assert_eq!(decision(snapshot, &settings(0)), Decision::Delete, "no floor to be unsure about");
    }
}

#[test]
fn an_unreadable_run_is_ordered_by_when_it_was_started() {
    let renamed = Snapshot { run: Some("by hand".to_owned()), ..expired("snap-hand", "2026-11-16") };
    let older = expired("snap-old", "2026-11-15");
    let verdicts = verdicts(&[older, renamed], &settings(1));
    assert_eq!(verdicts["snap-hand"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-old"], Decision::Delete);
}

#[test]
fn the_floor_of_an_instance_that_is_gone_ends_after_its_days() {
    let gone = |run_day| Snapshot { instance: Some("i-gone".to_owned()), ..expired("snap-1", run_day) };
    assert_eq!(decision(gone("2026-08-25"), &settings(1)), Decision::Keep(Fence::Floor), "after 89 days");
    assert_eq!(decision(gone("2026-08-24"), &settings(1)), Decision::Delete, "after 90 days");
    assert_eq!(
        decision(expired("snap-1", "2020-01-01"), &settings(1)),
        Decision::Keep(Fence::Floor),
        "exists"
    );
    let mut for_ever = settings(1);
    for_ever.policy.orphan_floor_days = u32::MAX;
    assert_eq!(decision(gone("2020-01-01"), &for_ever), Decision::Keep(Fence::Floor));
}

#[test]
fn what_has_been_due_for_longest_goes_first() {
    let snapshots: Vec<_> = ["2026-11-20", "2026-11-18", "2026-11-19"]
        .into_iter()
        .map(|day| Snapshot { delete_on: Some(day.to_owned()), ..expired(day, day) })
        .collect();
    let settings = settings(0);
    let inventory = inventory(&snapshots, &["i-1"], &[]);
    let ids: Vec<_> =
        judge(&inventory, TODAY, &settings).into_iter().map(|verdict| &verdict.snapshot.id).collect();
    assert_eq!(ids, ["2026-11-18", "2026-11-19", "2026-11-20"]);
}

#[test]
fn halves_of_two_attempts_do_not_displace_the_last_whole_copy() {
    let whole = expired("snap-whole", "2026-11-14");
    let first_half = expired("snap-first", "2026-11-15");
    let second_half = Snapshot {
        volume: Some("vol-2".to_owned()),
        started_at: Some("2026-11-15T02:03:00Z".parse().unwrap()),
        ..expired("snap-second", "2026-11-15")
    };
    let both = verdicts(&[whole.clone(), first_half.clone(), second_half.clone()], &settings(1));
    assert_eq!(both["snap-whole"], Decision::Keep(Fence::Floor));
    // Either half alone would look whole to the next run, so neither goes before there is a newer whole copy.
    assert_eq!(both["snap-first"], Decision::Keep(Fence::Patchwork));
    assert_eq!(both["snap-second"], Decision::Keep(Fence::Patchwork));

    let newer = expired("snap-newer", "2026-11-16");
    let later = verdicts(&[whole, first_half.clone(), second_half.clone(), newer], &settings(1));
    assert_eq!(later.values().filter(|decision| **decision == Decision::Delete).count(), 3);

    let repeated = Snapshot { started_at: second_half.started_at, ..expired("snap-repeated", "2026-11-15") };
    let whole_again = verdicts(&[first_half, second_half, repeated], &settings(1));
    assert_eq!(whole_again["snap-second"], Decision::Keep(Fence::Floor), "the second attempt made all of it");
}

#[test]
fn a_tally_counts_every_snapshot_once() {
    let later = Snapshot { delete_on: Some("2027-01-01".to_owned()), ..expired("snap-later", "2026-11-16") };
    let unreadable = Snapshot { delete_on: None, ..expired("snap-none", "2026-11-13") };
    let snapshots = [expired("snap-old", "2026-11-14"), expired("snap-2", "2026-11-15"), later, unreadable];
    let inventory = inventory(&snapshots, &["i-1"], &[]);
    let tally = Tally::of(&judge(&inventory, TODAY, &settings(2)));
    assert_eq!(tally, Tally { due: 1, held: 2, not_due: 1 });
}

/// A detached volume is in no set any more, and its old copies are all there is of it but the volume itself.
#[test]
fn the_newest_copies_of_a_detached_volume_stay_as_long_as_it_exists() {
    let of = |volume: &str, snapshot: Snapshot| Snapshot { volume: Some(volume.to_owned()), ..snapshot };
    let snapshots = [
        of("vol-2", expired("snap-older", "2026-11-13")),
        of("vol-2", expired("snap-detached", "2026-11-14")),
        of("vol-1", expired("snap-same-set", "2026-11-14")),
        of("vol-1", expired("snap-newest", "2026-11-15")),
    ];
    let exists = inventory(&snapshots, &["i-1"], &["vol-1", "vol-2"]);
    let verdicts = verdicts_in(&exists, &settings(1));
    assert_eq!(verdicts["snap-newest"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-detached"], Decision::Keep(Fence::VolumeFloor));
    assert_eq!(verdicts["snap-same-set"], Decision::Delete);
    assert_eq!(verdicts["snap-older"], Decision::Delete);

    let gone = inventory(&snapshots, &["i-1"], &["vol-1"]);
    assert_eq!(verdicts_in(&gone, &settings(1))["snap-detached"], Decision::Delete);
    assert_eq!(verdicts_in(&exists, &settings(0))["snap-detached"], Decision::Delete);
}

/// Terminated by mistake, an instance may leave its disks behind: what they were like last stays, however old.
#[test]
fn copies_outlive_the_floor_of_an_instance_that_is_gone_while_its_volume_exists() {
    let old = Snapshot { instance: Some("i-gone".to_owned()), ..expired("snap-1", "2020-01-01") };
    let with = |volumes: &[&str]| {
        verdicts_in(&inventory(std::slice::from_ref(&old), &[], volumes), &settings(1))["snap-1"]
    };
    assert_eq!(with(&["vol-1"]), Decision::Keep(Fence::VolumeFloor));
    assert_eq!(with(&[]), Decision::Delete);
}

fn adopted(id: &str, day: &str) -> Snapshot {
    Snapshot { instance: None, run: None, adopted: true, ..expired(id, day) }
}

/// What another program made belongs to no set: it must neither take a set's place nor vanish as a last copy.
#[test]
fn adopted_snapshots_are_held_by_volume_and_never_displace_a_set() {
    let set = expired("snap-set", "2026-11-10");
    let newer = adopted("snap-new", "2026-11-15");
    let older = adopted("snap-old", "2026-11-09");
    let all = [set, newer, older];
    let verdicts = verdicts_in(&inventory(&all, &["i-1"], &["vol-1"]), &settings(1));
    assert_eq!(verdicts["snap-set"], Decision::Keep(Fence::Floor));
    assert_eq!(verdicts["snap-new"], Decision::Keep(Fence::VolumeFloor));
    assert_eq!(verdicts["snap-old"], Decision::Delete);
}

/// Nobody knows of which instance it was, so the days of a gone volume count for it.
#[test]
fn the_last_adopted_copy_of_a_volume_that_is_gone_stays_for_the_orphans_days() {
    let alone = |snapshot| verdicts_in(&inventory(&[snapshot], &[], &[]), &settings(1))["snap-1"];
    assert_eq!(alone(adopted("snap-1", "2026-08-25")), Decision::Keep(Fence::VolumeFloor), "after 89 days");
    assert_eq!(alone(adopted("snap-1", "2026-08-24")), Decision::Delete, "after 90 days");
    let copy = Snapshot { volume: Some("vol-ffffffff".to_owned()), ..adopted("snap-1", "2020-01-01") };
    assert_eq!(alone(copy), Decision::Keep(Fence::Unplaced), "a copy, whose volume EC2 does not tell");
}

#[test]
fn a_reason_names_the_ami() {
    let snapshot = Snapshot { image: Some("ami-1".to_owned()), ..Snapshot::default() };
    assert_eq!(Fence::InUse.reason(&snapshot), "ami-1 is made of it");
    assert_eq!(Fence::InUse.reason(&Snapshot::default()), "an AMI or fast snapshot restore uses it");
}

fn mass_deletion(due: usize, not_due: usize, percent: u32) -> Option<MassDeletion> {
    let mut settings = settings(0);
    settings.policy.mass_deletion_percent = percent;
    let mut snapshots: Vec<_> = (0..due).map(|n| expired(&format!("snap-{n}"), "2026-11-10")).collect();
    let later = |n: usize| Snapshot {
        delete_on: Some("2027-01-01".to_owned()),
        ..expired(&format!("snap-later-{n}"), "2026-11-11")
    };
    snapshots.extend((0..not_due).map(later));
    let inventory = inventory(&snapshots, &["i-1"], &[]);
    MassDeletion::of(&judge(&inventory, TODAY, &settings), &settings.policy)
}

/// Of two nights of snapshots kept one day each, half go every night: that is no accident.
#[test]
fn only_more_than_the_share_and_more_than_a_few_is_a_mass_deletion() {
    assert_eq!(mass_deletion(20, 0, 1), None, "a few always go");
    assert_eq!(mass_deletion(50, 50, 50), None, "exactly the share");
    assert_eq!(mass_deletion(51, 49, 50), Some(MassDeletion { due: 51, managed: 100, allowed_percent: 50 }));
    assert_eq!(mass_deletion(21, 0, 100), None, "all may go");
    assert_eq!(mass_deletion(21, 79, 20).map(|stop| stop.due), Some(21));
}

#[test]
fn the_default_snapshot_of_which_nothing_is_known_is_never_deleted() {
    for floor in [0, 1] {
        assert!(matches!(decision(Snapshot::default(), &settings(floor)), Decision::Keep(_)));
    }
}

mod properties;

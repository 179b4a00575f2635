use jiff::SignedDuration;
use jiff::civil::date;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::settings::CleanupPolicy;

const TODAY: Date = date(2026, 11, 22);

fn settings(floor: u32) -> CleanupSettings {
    CleanupSettings {
        environment: "prod".parse().unwrap(),
        alias_arn: String::new(),
        timezone: "UTC".parse().unwrap(),
        policy: CleanupPolicy { floor, orphan_floor_days: 90, max_deletes: 5000 },
    }
}

/// An expired snapshot that no fence holds but the floor.
fn expired(id: &str, run_day: &str) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some("vol-1".to_owned()),
        state: State::Completed,
        archived: false,
        started_at: Some(format!("{run_day}T02:00:09Z").parse().unwrap()),
        environment: Some("prod".to_owned()),
        instance: Some("i-1".to_owned()),
        run: Some(format!("snapwarden-prod/backup@{run_day}T02:00:00Z")),
        delete_on: Some("2026-11-22".to_owned()),
    }
}

fn verdicts(snapshots: &[Snapshot], settings: &CleanupSettings) -> BTreeMap<String, Decision> {
    let instances = BTreeSet::from(["i-1".to_owned()]);
    judge(snapshots, &instances, TODAY, settings)
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
    let ids: Vec<_> = deleted(&snapshots, &settings).into_iter().map(|snapshot| &snapshot.id).collect();
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

fn days_around_today() -> impl Strategy<Value = String> {
    (-200..30_i32).prop_map(|offset| (TODAY + Span::new().days(offset)).to_string())
}

prop_compose! {
    fn any_snapshot()(
        volume in proptest::option::weighted(0.9, select(vec!["vol-1", "vol-2"])),
        state in select(vec![State::Completed, State::Completed, State::Completed, State::Error, State::Unsettled]),
        archived in proptest::bool::weighted(0.1),
        started in proptest::option::weighted(0.9, days_around_today()),
        environment in proptest::option::weighted(0.95, select(vec!["prod", "prod", "prod", "staging"])),
        instance in proptest::option::weighted(0.9, select(vec!["i-1", "i-2", "i-gone"])),
        run in proptest::option::weighted(0.9, prop_oneof![
            8 => days_around_today().prop_map(|day| format!("g/backup@{day}T02:00:00Z")),
            1 => Just("nonsense".to_owned()),
        ]),
        delete_on in proptest::option::weighted(0.9, prop_oneof![8 => days_around_today(), 1 => Just("soon".to_owned())]),
    ) -> Snapshot {
        Snapshot {
            id: String::new(),
            volume: volume.map(str::to_owned),
            state,
            archived,
            started_at: started.map(|day| format!("{day}T02:00:09Z").parse().unwrap()),
            environment: environment.map(str::to_owned),
            instance: instance.map(str::to_owned),
            run,
            delete_on,
        }
    }
}

prop_compose! {
    /// Few instances, volumes and runs, so that sets of several members and second attempts are common.
    fn any_snapshots()(
        snapshots in proptest::collection::vec(any_snapshot(), 0..24),
        repeats in proptest::collection::vec(
            (any::<proptest::sample::Index>(), any::<bool>(), proptest::bool::weighted(0.3)), 0..12,
        ),
    ) -> Vec<Snapshot> {
        let mut all = snapshots.clone();
        for (index, other_volume, other_moment) in repeats {
            if let Some(snapshot) = snapshots.get(index.index(snapshots.len().max(1))) {
                let volume = if other_volume { Some("vol-3".to_owned()) } else { snapshot.volume.clone() };
                let shift = SignedDuration::from_mins(if other_moment { 3 } else { 0 });
                let started_at = snapshot.started_at.map(|at| at + shift);
                all.push(Snapshot { volume, started_at, state: State::Completed, ..snapshot.clone() });
            }
        }
        for (number, snapshot) in all.iter_mut().enumerate() {
            snapshot.id = format!("snap-{number:02}");
        }
        all
    }
}

fn existing() -> BTreeSet<String> {
    ["i-1", "i-2"].map(str::to_owned).into()
}

fn deleted<'a>(snapshots: &'a [Snapshot], settings: &CleanupSettings) -> Vec<&'a Snapshot> {
    judge(snapshots, &existing(), TODAY, settings)
        .into_iter()
        .filter(|verdict| verdict.decision == Decision::Delete)
        .map(|verdict| verdict.snapshot)
        .collect()
}

/// The days of the complete sets of an instance among `snapshots`, told in other words than the code's own.
fn complete_days(snapshots: &[&Snapshot], instance: &str) -> BTreeSet<String> {
    let members: Vec<_> = snapshots
        .iter()
        .filter(|s| s.environment.as_deref() == Some("prod") && s.instance.as_deref() == Some(instance))
        .filter(|s| s.run.as_deref().is_some_and(|run| run != "nonsense"))
        .collect();
    let restorable = |s: &Snapshot| s.state == State::Completed && !s.archived;
    let made_at_once = |run: &Option<String>, moment: Timestamp| {
        members.iter().filter(|s| s.run == *run).all(|member| {
            let stands_for = |s: &Snapshot| match &member.volume {
                Some(_) => s.volume == member.volume,
                None => s.id == member.id,
            };
            members
                .iter()
                .any(|s| s.run == *run && s.started_at == Some(moment) && restorable(s) && stands_for(s))
        })
    };
    members
        .iter()
        .filter(|s| s.started_at.is_some_and(|moment| made_at_once(&s.run, moment)))
        .filter_map(|s| s.run.clone())
        .collect()
}

proptest! {
    #[test]
    fn nothing_is_deleted_without_every_fence_out_of_the_way(
        snapshots in any_snapshots(), floor in 0..3_u32,
    ) {
        for snapshot in deleted(&snapshots, &settings(floor)) {
            prop_assert_eq!(snapshot.environment.as_deref(), Some("prod"));
            prop_assert!(snapshot.delete_on.as_ref().unwrap().parse::<DeleteOn>().unwrap().date() <= TODAY);
            prop_assert!(!snapshot.archived);
            prop_assert!(snapshot.state != State::Unsettled);
        }
    }

    #[test]
    fn every_snapshot_gets_one_verdict_whatever_the_order_of_the_list(
        (snapshots, shuffled) in any_snapshots().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        floor in 0..3_u32,
    ) {
        let settings = settings(floor);
        let verdicts = judge(&snapshots, &existing(), TODAY, &settings);
        prop_assert_eq!(verdicts.len(), snapshots.len());
        prop_assert_eq!(verdicts, judge(&shuffled, &existing(), TODAY, &settings));
    }

    #[test]
    fn a_higher_floor_never_deletes_more(snapshots in any_snapshots(), floor in 0..3_u32) {
        let low = deleted(&snapshots, &settings(floor));
        let high = deleted(&snapshots, &settings(floor + 1));
        prop_assert!(high.iter().all(|snapshot| low.contains(snapshot)));
    }

    #[test]
    fn the_newest_complete_sets_survive_whatever_their_delete_on_says(
        mut snapshots in any_snapshots(), floor in 1..3_u32,
    ) {
        for snapshot in &mut snapshots {
            snapshot.delete_on = Some("2000-01-01".to_owned());
            // A run that cannot be read is placed by its start, which `complete_days` leaves to its own test.
            snapshot.run = snapshot.run.take().filter(|run| run != "nonsense");
        }
        let gone = deleted(&snapshots, &settings(floor));
        let left: Vec<_> = snapshots.iter().filter(|snapshot| !gone.contains(snapshot)).collect();
        let all: Vec<_> = snapshots.iter().collect();
        for instance in ["i-1", "i-2"] {
            let before = complete_days(&all, instance);
            let after = complete_days(&left, instance);
            for day in before.iter().rev().take(floor as usize) {
                prop_assert!(after.contains(day), "{instance} lost {day}");
            }
        }
    }

    #[test]
    fn a_second_cleanup_on_the_same_day_deletes_nothing_of_worth(snapshots in any_snapshots(), floor in 0..3_u32) {
        let settings = settings(floor);
        let gone = deleted(&snapshots, &settings);
        let left: Vec<_> = snapshots.iter().filter(|s| !gone.contains(s)).cloned().collect();
        // What the first one left of a set must not look like more than it was.
        prop_assert!(deleted(&left, &settings).iter().all(|snapshot| snapshot.state == State::Error));
    }
}

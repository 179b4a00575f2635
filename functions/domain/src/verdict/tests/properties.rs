//! What holds for every inventory, however odd.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn days_around_today() -> impl Strategy<Value = String> {
    (-200..30_i32).prop_map(|offset| (TODAY + Span::new().days(offset)).to_string())
}

prop_compose! {
    fn any_snapshot()(
        volume in proptest::option::weighted(0.9, select(vec!["vol-1", "vol-2"])),
        state in select(vec![State::Completed, State::Completed, State::Completed, State::Error, State::Pending, State::Unsettled]),
        archived in proptest::bool::weighted(0.1),
        (locked, aws_backup, in_use) in (
            proptest::bool::weighted(0.1), proptest::bool::weighted(0.1), proptest::bool::weighted(0.1),
        ),
        adopted in proptest::bool::weighted(0.2),
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
            locked,
            aws_backup,
            image: in_use.then(|| "ami-1".to_owned()),
            adopted,
            started_at: started.map(|day| format!("{day}T02:00:09Z").parse().unwrap()),
            environment: environment.map(str::to_owned),
            instance: instance.map(str::to_owned),
            run,
            delete_on,
            ..Snapshot::default()
        }
    }
}

prop_compose! {
    /// Few instances, volumes and runs, so that sets of several members and second attempts are common.
    fn any_snapshots()(
        snapshots in proptest::collection::vec(any_snapshot(), 0..24),
        volumes in proptest::array::uniform7(proptest::option::of(1..4_usize)),
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
            // One call sets the number for all that it makes.
            let call = format!("{:?} {:?} {:?}", snapshot.instance, snapshot.run, snapshot.started_at);
            snapshot.set_volumes = volumes[call.bytes().map(usize::from).sum::<usize>() % volumes.len()];
        }
        all
    }
}

/// An account with two of the three instances, and two of the three volumes.
fn account(snapshots: &[Snapshot]) -> Inventory {
    inventory(snapshots, &["i-1", "i-2"], &["vol-1", "vol-3"])
}

fn deleted(snapshots: &[Snapshot], settings: &CleanupSettings) -> Vec<Snapshot> {
    judge(&account(snapshots), TODAY, settings)
        .into_iter()
        .filter(|verdict| verdict.decision == Decision::Delete)
        .map(|verdict| verdict.snapshot.clone())
        .collect()
}

/// The newest restorable copies of a volume, told in other words than the code's own.
fn newest_copies<'a>(snapshots: &'a [Snapshot], volume: &str, floor: u32) -> Vec<&'a Snapshot> {
    let mut copies: Vec<_> = snapshots
        .iter()
        .filter(|s| s.environment.as_deref() == Some("prod") && s.volume.as_deref() == Some(volume))
        .filter(|s| s.state == State::Completed && !s.archived && s.started_at.is_some())
        .collect();
    copies.sort_by_key(|copy| copy.started_at);
    copies.into_iter().rev().take(floor as usize).collect()
}

/// The days of the complete sets of an instance among `snapshots`, told in other words than the code's own.
fn complete_days(snapshots: &[&Snapshot], instance: &str) -> BTreeSet<String> {
    let members: Vec<_> = snapshots
        .iter()
        .filter(|s| s.environment.as_deref() == Some("prod") && s.instance.as_deref() == Some(instance))
        .filter(|s| !s.adopted && s.run.as_deref().is_some_and(|run| run != "nonsense"))
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
    let none_is_missing = |run: &Option<String>, moment: Timestamp| {
        let of_call: Vec<_> = members
            .iter()
            .filter(|s| s.run == *run && s.started_at == Some(moment) && restorable(s))
            .collect();
        let nameless = of_call.iter().filter(|s| s.volume.is_none()).count();
        let volumes: BTreeSet<_> = of_call.iter().filter_map(|s| s.volume.as_deref()).collect();
        of_call.iter().filter_map(|s| s.set_volumes).all(|expected| volumes.len() + nameless >= expected)
    };
    members
        .iter()
        .filter(|s| {
            s.started_at.is_some_and(|moment| made_at_once(&s.run, moment) && none_is_missing(&s.run, moment))
        })
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
            prop_assert!(!snapshot.archived && !snapshot.locked && !snapshot.aws_backup);
            prop_assert!(snapshot.image.is_none());
            prop_assert!(matches!(snapshot.state, State::Completed | State::Error));
            let is_placed = snapshot.instance.is_some() && snapshot.run.is_some()
                || snapshot.adopted && snapshot.volume.is_some();
            prop_assert!(is_placed || floor == 0 || snapshot.state == State::Error);
        }
    }

    #[test]
    fn every_snapshot_gets_one_verdict_whatever_the_order_of_the_list(
        (snapshots, shuffled) in any_snapshots().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        floor in 0..3_u32,
    ) {
        let settings = settings(floor);
        let (account, other_order) = (account(&snapshots), account(&shuffled));
        let verdicts = judge(&account, TODAY, &settings);
        prop_assert_eq!(verdicts.len(), snapshots.len());
        prop_assert_eq!(verdicts, judge(&other_order, TODAY, &settings));
    }

    #[test]
    fn a_higher_floor_never_deletes_more(snapshots in any_snapshots(), floor in 0..3_u32) {
        let low = deleted(&snapshots, &settings(floor));
        let high = deleted(&snapshots, &settings(floor + 1));
        prop_assert!(high.iter().all(|snapshot| low.contains(snapshot)));
    }

    /// A user who raises a retention, or moves a tag to a later day, never loses a snapshot by it.
    #[test]
    fn a_longer_retention_never_deletes_more(
        snapshots in any_snapshots(), days in proptest::collection::vec(0..40_i32, 40), floor in 0..3_u32,
    ) {
        let later: Vec<_> = snapshots
            .iter()
            .zip(days.iter().cycle())
            .map(|(snapshot, days)| {
                let moved = snapshot.due().map(|due| (due.date() + Span::new().days(*days)).to_string());
                Snapshot { delete_on: moved.or_else(|| snapshot.delete_on.clone()), ..snapshot.clone() }
            })
            .collect();
        let before: BTreeSet<_> = deleted(&snapshots, &settings(floor)).into_iter().map(|s| s.id).collect();
        prop_assert!(deleted(&later, &settings(floor)).iter().all(|snapshot| before.contains(&snapshot.id)));
    }

    #[test]
    fn more_days_for_orphans_never_delete_more(snapshots in any_snapshots(), days in 0..200_u32, more in 0..200_u32) {
        let mut shorter = settings(1);
        shorter.policy.orphan_floor_days = days;
        let mut longer = settings(1);
        longer.policy.orphan_floor_days = days + more;
        let before = deleted(&snapshots, &shorter);
        prop_assert!(deleted(&snapshots, &longer).iter().all(|snapshot| before.contains(snapshot)));
    }

    #[test]
    fn the_newest_copies_of_an_existing_volume_survive_whatever_their_delete_on_says(
        mut snapshots in any_snapshots(), floor in 1..3_u32,
    ) {
        for snapshot in &mut snapshots {
            snapshot.delete_on = Some("2000-01-01".to_owned());
        }
        let gone = deleted(&snapshots, &settings(floor));
        for volume in ["vol-1", "vol-3"] {
            let newest = newest_copies(&snapshots, volume, floor);
            // Where several were started at once, which of them stays does not matter, only how many.
            let since = newest.last().and_then(|copy| copy.started_at);
            let left = snapshots
                .iter()
                .filter(|s| s.environment.as_deref() == Some("prod") && s.volume.as_deref() == Some(volume))
                .filter(|s| s.state == State::Completed && !s.archived && !gone.contains(s))
                .filter(|s| s.started_at.is_none() || s.started_at >= since);
            prop_assert!(left.count() >= newest.len(), "{volume} lost a newest copy");
        }
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
        let left: Vec<_> = snapshots.iter().filter(|snapshot| !gone.contains(*snapshot)).collect();
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
        let left: Vec<_> = snapshots.iter().filter(|s| !gone.contains(*s)).cloned().collect();
        // What the first one left of a set must not look like more than it was.
        prop_assert!(deleted(&left, &settings).iter().all(|snapshot| snapshot.state == State::Error));
    }
}

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::inventory::{CopyOf, Instance};

const NOW: &str = "2026-11-22T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn settings() -> CleanupSettings {
    serde_json::from_str(
        r#"{"environment": "prod", "alias_arn": "arn", "timezone": "UTC", "backup_interval_hours": 24,
            "policy": {"floor": 1, "orphan_floor_days": 90, "max_deletes": 9, "mass_deletion_percent": 50},
            "select": {"tag": "Backup", "value": "true"},
            "encryption": {"require": "enforce", "kms_key": "alias/backup"}}"#,
    )
    .unwrap()
}

fn clear(id: &str) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some(format!("vol-of-{id}")),
        size_gib: 8,
        state: State::Completed,
        started_at: Some("2026-11-22T02:00:09Z".parse().unwrap()),
        environment: Some("prod".to_owned()),
        instance: Some("i-1".to_owned()),
        run: Some("g/backup@2026-11-22T02:00:00Z".to_owned()),
        delete_on: Some("2026-12-22".to_owned()),
        ..Snapshot::default()
    }
}

fn copy(id: &str, source: &Snapshot, hours_ago: i64, state: State) -> Snapshot {
    let begun_at = Some(now() - SignedDuration::from_hours(hours_ago));
    let copy = Some(CopyOf { source: source.id.clone(), begun_at });
    Snapshot { id: id.to_owned(), encrypted: true, copy, state, ..source.clone() }
}

fn account(snapshots: &[Snapshot]) -> Inventory {
    let instance = Instance { id: "i-1".to_owned(), ..Instance::default() };
    Inventory { snapshots: snapshots.to_vec(), instances: vec![instance], ..Inventory::default() }
}

fn stage_of(snapshots: &[Snapshot]) -> String {
    let inventory = account(snapshots);
    let survey = Survey::of(&inventory, day(), now(), &settings());
    match survey.sealings[0].stage {
        Stage::Copying(copy) => format!("copying {}", copy.id),
        Stage::Failed(copy) => format!("failed {}", copy.id),
        Stage::Sealed(copy) => format!("sealed {}", copy.id),
        Stage::Doubtful(copy, doubt) => format!("{} {doubt}", copy.id),
        stage => format!("{stage:?}"),
    }
}

fn day() -> Date {
    jiff::civil::date(2026, 11, 22)
}

#[test]
fn how_far_a_snapshot_is_follows_from_its_copies() {
    let source = clear("snap-1");
    let with = |copies: &[Snapshot]| {
        let all: Vec<_> = std::iter::once(source.clone()).chain(copies.iter().cloned()).collect();
        stage_of(&all)
    };
    let of = |id: &str, hours_ago, state| copy(id, &source, hours_ago, state);
    let good = of("snap-c", 1, State::Completed);
    assert_eq!(with(&[]), "Clear");
    assert_eq!(with(&[of("snap-c", 1, State::Pending)]), "copying snap-c");
    assert_eq!(with(&[of("snap-c", 1, State::Unsettled)]), "copying snap-c");
    assert_eq!(with(std::slice::from_ref(&good)), "sealed snap-c");
    assert_eq!(with(&[of("snap-c", 1, State::Error)]), "failed snap-c");
    assert_eq!(with(&[of("snap-c", 7, State::Error)]), "Clear", "it is tried again");
    assert_eq!(with(&[of("snap-c", 7, State::Error), of("snap-d", 1, State::Error)]), "failed snap-d");
    assert_eq!(with(&[of("snap-c", 7, State::Error), of("snap-d", 1, State::Pending)]), "copying snap-d");
    assert_eq!(with(&[of("snap-c", 2, State::Pending), of("snap-d", 1, State::Completed)]), "sealed snap-d");
    // A copy of the same id in another environment is none of ours.
    assert_eq!(with(&[Snapshot { environment: Some("staging".to_owned()), ..good }]), "Clear");
}

/// What is deleted for the sake of something that is not the same is lost.
#[test]
fn a_copy_that_is_not_what_it_should_be_seals_nothing() {
    // Where a copy does not say of how many volumes its set is, half a set would look whole.
    let source = Snapshot { set_volumes: Some(2), ..clear("snap-1") };
    let good = || copy("snap-c", &source, 1, State::Completed);
    for (doubt, bad) in [
        ("is not encrypted", Snapshot { encrypted: false, ..good() }),
        ("has another size", Snapshot { size_gib: 7, ..good() }),
        ("does not carry the same tags", Snapshot { run: None, ..good() }),
        ("does not carry the same tags", Snapshot { instance: Some("i-2".to_owned()), ..good() }),
        ("does not carry the same tags", Snapshot { volume: Some("vol-ffffffff".to_owned()), ..good() }),
        ("does not carry the same tags", Snapshot { started_at: Some(now()), ..good() }),
        ("does not carry the same tags", Snapshot { set_volumes: None, ..good() }),
        ("does not carry the same tags", Snapshot { set_volumes: Some(3), ..good() }),
        ("has another DeleteOn", Snapshot { delete_on: Some("2026-12-01".to_owned()), ..good() }),
        ("lies in the archive tier", Snapshot { archived: true, ..good() }),
    ] {
        let stage = stage_of(&[source.clone(), bad]);
        assert!(stage.starts_with(&format!("snap-c {doubt}")), "{stage}");
    }
    assert_eq!(stage_of(&[source.clone(), good()]), "sealed snap-c");
}

/// A copy costs as much as its volume: none is made of what goes anyway, or could not be replaced.
#[test]
fn what_a_fence_holds_or_cleanup_deletes_is_not_copied() {
    let expired = Snapshot { delete_on: Some("2026-11-22".to_owned()), ..clear("snap-1") };
    let newer = Snapshot {
        id: "snap-2".to_owned(),
        run: Some("g/backup@2026-11-22T06:00:00Z".to_owned()),
        started_at: Some("2026-11-22T06:00:09Z".parse().unwrap()),
        ..clear("snap-1")
    };
    assert_eq!(stage_of(&[expired.clone(), newer]), "Expiring");
    assert_eq!(stage_of(&[expired]), "Clear", "the floor holds it: it may stay for long");
    for (stage, snapshot) in [
        ("Held(Locked)", Snapshot { locked: true, ..clear("snap-1") }),
        ("Held(InUse)", Snapshot { image: Some("ami-1".to_owned()), ..clear("snap-1") }),
        ("Held(AwsBackup)", Snapshot { aws_backup: true, ..clear("snap-1") }),
        ("Held(Archived)", Snapshot { archived: true, ..clear("snap-1") }),
        ("Held(UnreadableDeleteOn)", Snapshot { delete_on: Some("soon".to_owned()), ..clear("snap-1") }),
        ("Held(Unsettled)", Snapshot { state: State::Unsettled, ..clear("snap-1") }),
        ("Pending", Snapshot { state: State::Pending, ..clear("snap-1") }),
    ] {
        assert_eq!(stage_of(&[snapshot]), stage);
    }
    let nothing = [
        Snapshot { encrypted: true, ..clear("snap-1") },
        Snapshot { state: State::Error, ..clear("snap-2") },
        Snapshot { environment: Some("staging".to_owned()), ..clear("snap-3") },
    ];
    assert_eq!(Survey::of(&account(&nothing), day(), now(), &settings()), Survey::default());
}

#[test]
fn no_more_copies_run_at_a_time_than_ec2_allows() {
    let mut snapshots: Vec<_> = (10..50).map(|number| clear(&format!("snap-{number}"))).collect();
    for number in 0..8 {
        snapshots.push(copy(&format!("snap-c{number}"), &snapshots[number], 1, State::Pending));
    }
    let inventory = account(&snapshots);
    let survey = Survey::of(&inventory, day(), now(), &settings());
    assert_eq!((survey.in_flight, survey.to_copy().len(), survey.waiting()), (8, 12, 20));
    assert_eq!(survey.to_copy()[0].id, "snap-18", "the oldest first");
}

/// After an answer that got lost, or two passes at once, there are two copies. The earlier one stays.
#[test]
fn a_second_copy_goes_for_the_first_ones_sake_and_never_the_other_way_round() {
    let source = clear("snap-1");
    let first = copy("snap-x", &source, 3, State::Completed);
    let second = copy("snap-a", &source, 2, State::Completed);
    let deleted = |snapshots: &[Snapshot]| -> Vec<(String, String)> {
        let inventory = account(snapshots);
        let survey = Survey::of(&inventory, day(), now(), &settings());
        let ids = |(gone, stays): (&Snapshot, &Snapshot)| (gone.id.clone(), stays.id.clone());
        survey.to_delete().into_iter().map(ids).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let all = [second.clone(), source.clone(), first.clone()];
    assert_eq!(deleted(&all), [pair("snap-1", "snap-x"), pair("snap-a", "snap-x")]);
    assert_eq!(
        deleted(&[second.clone(), first.clone()]),
        [pair("snap-a", "snap-x")],
        "without the source, too"
    );
    let pending = Snapshot { state: State::Pending, ..first.clone() };
    assert_eq!(deleted(&[source, pending, second.clone()]), [pair("snap-1", "snap-a")]);
    let locked = Snapshot { locked: true, ..second.clone() };
    assert_eq!(deleted(&[locked, first.clone()]), []);
    let edited = Snapshot { delete_on: Some("2027-01-01".to_owned()), ..second };
    assert_eq!(deleted(&[edited, first]), [], "somebody wants it to stay longer");
}

/// Without its trace, a set of which a volume is missing would look whole.
#[test]
fn a_failed_copy_goes_once_something_else_holds_the_same() {
    let source = clear("snap-1");
    let failed = copy("snap-f", &source, 7, State::Error);
    let gone = |snapshots: &[Snapshot]| {
        let inventory = account(snapshots);
        Survey::of(&inventory, day(), now(), &settings()).superfluous.len()
    };
    assert_eq!(gone(&[source.clone(), failed.clone()]), 1);
    assert_eq!(gone(&[failed.clone(), copy("snap-c", &source, 1, State::Completed)]), 1);
    assert_eq!(gone(std::slice::from_ref(&failed)), 0);
    assert_eq!(gone(&[failed.clone(), copy("snap-c", &source, 1, State::Pending)]), 0);
    assert_eq!(gone(&[source.clone(), copy("snap-f", &source, 5, State::Error)]), 0, "people may look at it");
}

/// EC2, and passes that look at it, act on what they saw, and end anywhere.
struct World {
    snapshots: Vec<Snapshot>,
    now: Timestamp,
    made: usize,
    /// What each pass still means to do, decided by what it saw.
    passes: [Vec<Action>; 3],
}

#[derive(Clone, Debug)]
enum Action {
    Copy(Box<Snapshot>),
    Delete { gone: String, stays: String },
}

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// A pass looks, and decides; what it meant to do before is forgotten, as if it had been killed.
    Look(usize),
    /// A pass does one of the things that it meant to do. Whether its answer gets lost changes nothing.
    Act(usize, Index),
    /// EC2 ends one of the copies under way.
    Settle(Index, End),
    /// Time goes by.
    Wait(i64),
    /// Somebody changes the day of a snapshot.
    Edit(Index),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Completed,
    Failed,
    /// As if EC2 had ignored the key, or half of the volume.
    Unencrypted,
    Truncated,
}

fn happening() -> impl Strategy<Value = Happening> {
    let end = prop_oneof![
        6 => Just(End::Completed), 2 => Just(End::Failed), 1 => Just(End::Unencrypted), 1 => Just(End::Truncated)
    ];
    prop_oneof![
        4 => (0..3_usize).prop_map(Happening::Look),
        8 => (0..3_usize, any::<Index>()).prop_map(|(pass, index)| Happening::Act(pass, index)),
        5 => (any::<Index>(), end).prop_map(|(index, end)| Happening::Settle(index, end)),
        1 => (1..9_i64).prop_map(Happening::Wait),
        1 => any::<Index>().prop_map(Happening::Edit),
    ]
}

impl World {
    fn of(sources: usize) -> Self {
        let snapshots = (1..=sources).map(|number| clear(&format!("snap-{number}"))).collect();
        Self { snapshots, now: now(), made: 0, passes: Default::default() }
    }

    fn look(&mut self, pass: usize) {
        let inventory = account(&self.snapshots);
        let survey = Survey::of(&inventory, day(), self.now, &settings());
        let copies = survey.to_copy().into_iter().map(|source| Action::Copy(Box::new(source.clone())));
        let deletions = survey
            .to_delete()
            .into_iter()
            .map(|(gone, stays)| Action::Delete { gone: gone.id.clone(), stays: stays.id.clone() });
        self.passes[pass] = copies.chain(deletions).collect();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Copy(source) => {
                // EC2 copies only what is still there.
                if self.snapshots.iter().any(|snapshot| snapshot.id == source.id) {
                    self.made += 1;
                    let copy = CopyOf { source: source.id.clone(), begun_at: Some(self.now) };
                    self.snapshots.push(Snapshot {
                        id: format!("snap-c{:03}", self.made),
                        copy: Some(copy),
                        encrypted: true,
                        state: State::Pending,
                        ..*source
                    });
                }
            }
            Action::Delete { gone, stays } => {
                // What the caller does: looks once more.
                let is_there = |snapshot: &Snapshot| snapshot.id == stays && snapshot.is_restorable();
                if self.snapshots.iter().any(is_there) {
                    self.snapshots.retain(|snapshot| snapshot.id != gone);
                }
            }
        }
        self.now += SignedDuration::from_secs(1);
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Look(pass) => self.look(*pass),
            Happening::Act(pass, index) => {
                let actions = &mut self.passes[*pass];
                if !actions.is_empty() {
                    let action = actions.swap_remove(index.index(actions.len()));
                    self.act(action);
                }
            }
            Happening::Settle(index, end) => {
                let mut pending: Vec<_> =
                    self.snapshots.iter_mut().filter(|snapshot| snapshot.state == State::Pending).collect();
                if !pending.is_empty() {
                    let index = index.index(pending.len());
                    let copy = &mut *pending[index];
                    copy.state = State::Completed;
                    match end {
                        End::Completed => {}
                        End::Failed => copy.state = State::Error,
                        End::Unencrypted => copy.encrypted = false,
                        End::Truncated => copy.size_gib = 1,
                    }
                }
            }
            Happening::Wait(hours) => self.now += SignedDuration::from_hours(*hours),
            Happening::Edit(index) => {
                let index = index.index(self.snapshots.len());
                self.snapshots[index].delete_on = Some("2027-06-01".to_owned());
            }
        }
    }

    /// What could be restored of a source's contents.
    fn readable(&self, origin: &str) -> usize {
        let is_whole = |snapshot: &&Snapshot| {
            snapshot.origin() == origin && snapshot.is_restorable() && snapshot.size_gib == 8
        };
        self.snapshots.iter().filter(is_whole).count()
    }
}

proptest! {
    /// The promise: whatever fails, is repeated, is killed or runs beside itself.
    #[test]
    fn no_order_of_events_loses_the_last_readable_copy(
        sources in 1..4_usize, happenings in proptest::collection::vec(happening(), 0..120),
    ) {
        let mut world = World::of(sources);
        for happening in &happenings {
            world.happens(happening);
            for number in 1..=sources {
                let origin = format!("snap-{number}");
                prop_assert!(world.readable(&origin) > 0, "{origin} is lost by {happening:?}");
            }
        }
    }

    /// However it was interrupted, once EC2 does as it should, everything is sealed, and nothing twice.
    #[test]
    fn whatever_happened_it_converges(
        sources in 1..4_usize,
        happenings in proptest::collection::vec(
            happening().prop_filter("nobody repairs these", |happening| !matches!(
                happening, Happening::Edit(_) | Happening::Settle(_, End::Unencrypted | End::Truncated)
            )),
            0..80,
        ),
    ) {
        let mut world = World::of(sources);
        for happening in &happenings {
            world.happens(happening);
        }
        for _ in 0..4 {
            world.look(0);
            for action in std::mem::take(&mut world.passes[0]) {
                world.act(action);
            }
            for snapshot in &mut world.snapshots {
                snapshot.state = if snapshot.state == State::Error { State::Error } else { State::Completed };
            }
            world.now += RETRY;
        }
        prop_assert_eq!(world.snapshots.len(), sources, "{:?}", world.snapshots);
        prop_assert!(world.snapshots.iter().all(|snapshot| snapshot.encrypted));
        let inventory = account(&world.snapshots);
        prop_assert_eq!(Survey::of(&inventory, day(), world.now, &settings()), Survey::default());
    }

    #[test]
    fn the_order_of_the_list_decides_nothing(
        happenings in proptest::collection::vec(happening(), 0..60), turned in any::<Index>(),
    ) {
        let mut world = World::of(3);
        for happening in &happenings {
            world.happens(happening);
        }
        let mut other = world.snapshots.clone();
        let by = turned.index(other.len());
        other.rotate_left(by);
        let (one, other) = (account(&world.snapshots), account(&other));
        prop_assert_eq!(
            Survey::of(&one, day(), world.now, &settings()),
            Survey::of(&other, day(), world.now, &settings())
        );
    }
}

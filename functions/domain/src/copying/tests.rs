use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::inventory::{CopyOf, Instance, Inventory};
use crate::sealing::RETRY;
use crate::verdict::{Decision, judge};

const NOW: &str = "2026-11-22T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn today() -> Date {
    jiff::civil::date(2026, 11, 22)
}

fn settings() -> CleanupSettings {
    serde_json::from_str(
        r#"{"environment": "prod", "alias_arn": "arn", "timezone": "UTC", "backup_interval_hours": 24,
            "policy": {"floor": 1, "orphan_floor_days": 90, "max_deletes": 9, "mass_deletion_percent": 50},
            "select": {"tag": "Backup", "value": "true"},
            "copy_to": [{"region": "eu-west-1", "kms_key": "alias/backup", "retention": {"daily_days": 14}}]}"#,
    )
    .unwrap()
}

fn enforcing() -> CleanupSettings {
    let kms_key = "alias/backup".to_owned();
    CleanupSettings { encryption: crate::settings::Encryption::Enforce { kms_key }, ..settings() }
}

/// A completed snapshot of the night of a day of November.
fn snapshot(day: u32, volume: &str) -> Snapshot {
    Snapshot {
        id: format!("snap-{day}-{volume}"),
        volume: Some(format!("vol-{volume}")),
        size_gib: 8,
        state: State::Completed,
        encrypted: true,
        started_at: Some(format!("2026-11-{day:02}T02:00:09Z").parse().unwrap()),
        environment: Some("prod".to_owned()),
        instance: Some("i-1".to_owned()),
        run: Some(format!("g/backup@2026-11-{day:02}T02:00:00Z")),
        set_volumes: Some(2),
        delete_on: Some("2026-12-22".to_owned()),
        ..Snapshot::default()
    }
}

fn set(day: u32) -> Vec<Snapshot> {
    vec![snapshot(day, "a"), snapshot(day, "b")]
}

fn sets(days: &[u32]) -> Vec<Snapshot> {
    days.iter().flat_map(|day| set(*day)).collect()
}

fn copy(id: &str, source: &Snapshot, hours_ago: i64, state: State) -> Snapshot {
    let begun_at = Some(now() - SignedDuration::from_hours(hours_ago));
    let copy = Some(CopyOf { source: source.origin().to_owned(), begun_at });
    let delete_on = Some("2026-12-06".to_owned());
    Snapshot { id: id.to_owned(), encrypted: true, copy, state, delete_on, ..source.clone() }
}

fn copies_of(snapshots: &[Snapshot]) -> Vec<Snapshot> {
    snapshots.iter().map(|one| copy(&format!("copy-of-{}", one.id), one, 1, State::Completed)).collect()
}

fn survey<'a>(sources: &'a [Snapshot], copies: &'a [Snapshot], settings: &CleanupSettings) -> Copies<'a> {
    Copies::of(sources, copies, today(), now(), &settings.copy_to[0], settings)
}

/// The ids of what would be copied.
fn wanted(sources: &[Snapshot], copies: &[Snapshot], settings: &CleanupSettings) -> Vec<String> {
    survey(sources, copies, settings).to_copy().iter().map(|one| one.source.id.clone()).collect()
}

/// Years of history cost as much in the other Region as here; nobody has asked for that by naming it.
#[test]
fn the_newest_whole_set_is_the_first_and_all_later_ones_follow() {
    let newest = ["snap-21-a", "snap-21-b"];
    assert_eq!(wanted(&sets(&[18, 19, 20, 21]), &[], &settings()), newest);
    // Nights for which no pass ran.
    let all = sets(&[18, 19, 20, 21]);
    let there = copies_of(&set(19));
    assert_eq!(wanted(&all, &there, &settings()), ["snap-21-a", "snap-21-b", "snap-20-a", "snap-20-b"]);
    assert_eq!(wanted(&all, &copies_of(&sets(&[19, 20, 21])), &settings()), [""; 0]);
    // Half of a set that a pass began when it was killed; and half of one that somebody deleted there.
    let half = &copies_of(&set(21))[..1];
    assert_eq!(wanted(&all, half, &settings()), ["snap-21-b"]);
    let mut history = settings();
    history.copy_to[0].history = true;
    assert_eq!(wanted(&all, &[], &history).len(), 8);
}

/// Half of an instance restores nothing, and what is due goes anyway.
#[test]
fn only_what_is_whole_and_not_due_is_copied() {
    let before = set(20);
    let with = |changed: Snapshot| {
        let all: Vec<_> = before.iter().cloned().chain([snapshot(21, "a"), changed]).collect();
        wanted(&all, &[], &settings())
    };
    let earlier = ["snap-20-a", "snap-20-b"];
    let b = || snapshot(21, "b");
    assert_eq!(with(Snapshot { state: State::Pending, ..b() }), earlier);
    assert_eq!(with(Snapshot { state: State::Error, ..b() }), earlier);
    assert_eq!(with(Snapshot { archived: true, ..b() }), earlier);
    assert_eq!(with(Snapshot { environment: Some("staging".to_owned()), ..b() }), earlier);
    assert_eq!(with(Snapshot { adopted: true, ..b() }), earlier, "what others made belongs to no set");
    assert_eq!(with(Snapshot { delete_on: Some("2026-11-22".to_owned()), ..b() }), [""; 0], "due at home");
    let old = sets(&[1]);
    assert_eq!(wanted(&old, &[], &settings()), [""; 0], "due there: 14 days");
    let mut longer = settings();
    longer.copy_to[0].retention = serde_json::from_str(r#"{"daily_days": 60}"#).unwrap();
    assert_eq!(wanted(&old, &[], &longer).len(), 2);
}

/// EC2 gives a copy up whose source it may not read any more; and what stays open for no copy is open to whoever has a role in
/// that account.
#[test]
fn another_account_reads_what_is_being_copied_and_nothing_else() {
    let all = sets(&[18, 19, 20, 21]);
    let shared: BTreeSet<String> = all.iter().map(|one| one.id.clone()).collect();
    let read_by = |copies: &[Snapshot], settings: &CleanupSettings| {
        let withdrawn = survey(&all, copies, settings).to_withdraw(&all, &shared);
        let kept: Vec<_> = shared.iter().filter(|id| !withdrawn.contains(id)).cloned().collect();
        kept
    };
    let newest = ["snap-21-a", "snap-21-b"];
    assert_eq!(read_by(&[], &settings()), newest, "to be copied by this pass or the next");
    let of_a = |state| vec![copy("copy-a", &all[6], 1, state)];
    assert_eq!(read_by(&of_a(State::Pending), &settings()), newest);
    assert_eq!(read_by(&of_a(State::Completed), &settings()), newest[1..]);
    assert_eq!(read_by(&of_a(State::Error), &settings()), newest[1..], "until it is tried again");
    let mut paused = settings();
    paused.copy_to[0].paused = true;
    assert_eq!(read_by(&[], &paused), [""; 0]);
    assert_eq!(read_by(&of_a(State::Pending), &paused), newest[..1], "what was begun may end");
    // Due meanwhile, and nobody would begin it now.
    let mut due = all.clone();
    due[6].delete_on = Some("2026-11-22".to_owned());
    let copies = of_a(State::Pending);
    let withdrawn = survey(&due, &copies, &settings()).to_withdraw(&due, &shared);
    assert!(!withdrawn.contains(&"snap-21-a".to_owned()), "{withdrawn:?}");
}

/// A copy has the day that its own Region's retention gives the night of the backup, whenever it is made.
#[test]
fn a_copy_has_a_day_of_its_own() {
    let sources = set(20);
    let survey = survey(&sources, &[], &settings());
    let days: Vec<_> = survey.wanted.iter().map(|one| (one.delete_on.to_string(), one.set_volumes)).collect();
    assert_eq!(days, [("2026-12-04".to_owned(), 2), ("2026-12-04".to_owned(), 2)]);
}

/// What has to be encrypted at home must not leave in clear text, nor be copied once as it was and once as it is.
#[test]
fn what_is_sealed_is_copied_sealed_and_once() {
    let clear = Snapshot { encrypted: false, ..snapshot(21, "a") };
    let encrypted = snapshot(21, "b");
    let sealed = copy("snap-sealed", &clear, 1, State::Completed);
    let before = [clear.clone(), encrypted.clone()];
    let stages = |sources: &[Snapshot], there: &[Snapshot], settings: &CleanupSettings| {
        let survey = survey(sources, there, settings);
        survey
            .wanted
            .iter()
            .map(|one| (one.source.id.clone(), format!("{:?}", one.stage)))
            .collect::<Vec<_>>()
    };
    let stage = |id: &str, stage: &str| (id.to_owned(), stage.to_owned());
    let missing = |id: &str| stage(id, "Missing");
    assert_eq!(stages(&before, &[], &enforcing()), [stage("snap-21-a", "Unsealed"), missing("snap-21-b")]);
    let both = [clear.clone(), encrypted.clone(), sealed.clone()];
    assert_eq!(stages(&both, &[], &enforcing()), [missing("snap-sealed"), missing("snap-21-b")]);
    let after = [encrypted.clone(), sealed.clone()];
    assert_eq!(stages(&after, &[], &enforcing()), [missing("snap-sealed"), missing("snap-21-b")]);
    // Where nobody minds, it goes as it is, and is encrypted on the way.
    assert_eq!(stages(&before, &[], &settings()), [missing("snap-21-a"), missing("snap-21-b")]);
    // Copied before it was sealed: the same.
    let there = copies_of(&before);
    assert_eq!(wanted(&after, &there, &enforcing()), [""; 0]);
}

#[test]
fn how_far_a_copy_is_follows_from_what_is_there() {
    let source = snapshot(21, "a");
    let sources = [source.clone(), snapshot(21, "b")];
    let with = |there: &[Snapshot]| {
        let survey = survey(&sources, there, &settings());
        match survey.wanted[0].stage {
            Stage::Copying(copy) => format!("copying {}", copy.id),
            Stage::Failed(copy) => format!("failed {}", copy.id),
            Stage::Copied(copy) => format!("copied {}", copy.id),
            Stage::Doubtful(copy, doubt) => format!("{} {doubt}", copy.id),
            stage => format!("{stage:?}"),
        }
    };
    let of = |id: &str, hours_ago, state| copy(id, &source, hours_ago, state);
    let good = || of("snap-c", 1, State::Completed);
    assert_eq!(with(&[]), "Missing");
    assert_eq!(with(&[of("snap-c", 1, State::Pending)]), "copying snap-c");
    assert_eq!(with(&[good()]), "copied snap-c");
    assert_eq!(with(&[of("snap-c", 1, State::Error)]), "failed snap-c");
    assert_eq!(with(&[of("snap-c", 7, State::Error)]), "Missing", "it is tried again");
    assert_eq!(with(&[of("snap-c", 7, State::Error), of("snap-d", 1, State::Pending)]), "copying snap-d");
    for (doubt, bad) in [
        ("is not encrypted", Snapshot { encrypted: false, ..good() }),
        ("has another size", Snapshot { size_gib: 7, ..good() }),
        ("does not carry the same tags", Snapshot { run: None, ..good() }),
        ("does not carry the same tags", Snapshot { volume: None, ..good() }),
        ("lies in the archive tier", Snapshot { archived: true, ..good() }),
    ] {
        assert_eq!(with(&[bad]), format!("snap-c {doubt}"));
    }
    // Another environment's, or one that does not say what it is of, stands for nothing.
    assert_eq!(with(&[Snapshot { environment: None, ..good() }]), "Missing");
    assert_eq!(with(&[Snapshot { copy: None, ..good() }]), "Missing");
}

#[test]
fn no_more_copies_run_at_a_time_than_ec2_allows_and_none_while_it_is_paused() {
    let mut sources = Vec::new();
    for number in 0..15 {
        for one in set(21) {
            let instance = Some(format!("i-{number:02}"));
            sources.push(Snapshot { id: format!("{}-{number:02}", one.id), instance, ..one });
        }
    }
    let there: Vec<_> =
        sources[..8].iter().map(|one| copy(&format!("copy-of-{}", one.id), one, 1, State::Pending)).collect();
    let survey = survey(&sources, &there, &settings());
    assert_eq!((survey.in_flight, survey.to_copy().len(), survey.waiting()), (8, 12, 10));
    let mut paused = settings();
    paused.copy_to[0].paused = true;
    let survey = self::survey(&sources, &there, &paused);
    assert_eq!((survey.to_copy().len(), survey.waiting()), (0, 22));
}

/// After an answer that got lost, or two passes at once, there are two copies. The earlier one stays.
#[test]
fn a_second_copy_goes_and_a_failed_one_once_it_is_made_again() {
    let source = snapshot(21, "a");
    let sources = [source.clone(), snapshot(21, "b")];
    let gone = |sources: &[Snapshot], there: &[Snapshot]| {
        let survey = survey(sources, there, &settings());
        let ids = |one: &Superfluous<'_>| (one.copy.id.clone(), one.stays.map(|stays| stays.id.clone()));
        survey.superfluous.iter().map(ids).collect::<Vec<_>>()
    };
    let first = copy("snap-x", &source, 3, State::Completed);
    let second = copy("snap-a", &source, 2, State::Completed);
    let pair = |gone: &str, stays: Option<&str>| (gone.to_owned(), stays.map(str::to_owned));
    assert_eq!(gone(&sources, &[second.clone(), first.clone()]), [pair("snap-a", Some("snap-x"))]);
    assert_eq!(gone(&[], &[second.clone(), first.clone()]), [pair("snap-a", Some("snap-x"))]);
    let pending = Snapshot { state: State::Pending, ..first.clone() };
    assert_eq!(gone(&sources, &[pending, second.clone()]), []);
    let locked = Snapshot { locked: true, ..second.clone() };
    assert_eq!(gone(&sources, &[first.clone(), locked]), []);
    let longer = Snapshot { delete_on: Some("2027-01-01".to_owned()), ..second };
    assert_eq!(gone(&sources, &[first.clone(), longer]), [], "somebody wants it to stay longer");

    let failed = copy("snap-f", &source, 7, State::Error);
    assert_eq!(gone(&sources, std::slice::from_ref(&failed)), [pair("snap-f", None)]);
    assert_eq!(gone(&[], &[failed.clone(), first]), [pair("snap-f", None)]);
    assert_eq!(
        gone(&[], std::slice::from_ref(&failed)),
        [],
        "without its trace, the set there would look whole"
    );
    assert_eq!(gone(&sources, &[copy("snap-f", &source, 5, State::Error)]), [], "people may look at it");
}

/// Two Regions, and passes and cleanups that act on what they saw, and end anywhere.
struct World {
    home: Vec<Snapshot>,
    there: Vec<Snapshot>,
    now: Timestamp,
    made: usize,
    passes: [Vec<Action>; 3],
    /// The copies that were once completed and checked, with the day until which they have to stay.
    promised: BTreeMap<String, Option<DeleteOn>>,
}

#[derive(Clone, Debug)]
enum Action {
    Copy(Box<Snapshot>, String),
    Delete { gone: String, stays: Option<String> },
}

#[derive(Clone, Debug)]
enum Happening {
    /// A night's backup, each volume's snapshot completed or failed.
    Night(bool),
    /// A pass looks, and decides; what it meant to do before is forgotten, as if it had been killed.
    Look(usize),
    Act(usize, Index),
    Settle(Index, bool),
    /// Cleanup at home, and there.
    Cleanup,
    /// Hours go by.
    Wait(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => proptest::bool::weighted(0.8).prop_map(Happening::Night),
        4 => (0..3_usize).prop_map(Happening::Look),
        8 => (0..3_usize, any::<Index>()).prop_map(|(pass, index)| Happening::Act(pass, index)),
        6 => (any::<Index>(), proptest::bool::weighted(0.75)).prop_map(|(at, good)| Happening::Settle(at, good)),
        2 => Just(Happening::Cleanup),
        2 => (1..30_i64).prop_map(Happening::Wait),
    ]
}

impl World {
    fn new() -> Self {
        let (home, there, promised) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { home, there, now: now(), made: 0, passes: Default::default(), promised }
    }

    fn today(&self) -> Date {
        day(self.now, &settings().timezone)
    }

    fn survey(&self) -> Copies<'_> {
        Copies::of(&self.home, &self.there, self.today(), self.now, &settings().copy_to[0], &settings())
    }

    fn look(&mut self, pass: usize) {
        let survey = self.survey();
        let copies = survey
            .to_copy()
            .into_iter()
            .map(|one| Action::Copy(Box::new(one.source.clone()), one.delete_on.to_string()));
        let deletions = survey.superfluous.iter().map(|one| Action::Delete {
            gone: one.copy.id.clone(),
            stays: one.stays.map(|stays| stays.id.clone()),
        });
        self.passes[pass] = copies.chain(deletions).collect();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Copy(source, delete_on) => {
                if self.home.iter().any(|snapshot| snapshot.id == source.id) {
                    self.made += 1;
                    let copy = Some(CopyOf { source: source.id.clone(), begun_at: Some(self.now) });
                    self.there.push(Snapshot {
                        id: format!("copy-{:03}", self.made),
                        copy,
                        state: State::Pending,
                        delete_on: Some(delete_on),
                        ..*source
                    });
                }
            }
            Action::Delete { gone, stays } => {
                // What the caller does: looks once more at what stays.
                let is_there =
                    |id: &String| self.there.iter().any(|one| one.id == *id && one.is_restorable());
                if stays.as_ref().is_none_or(is_there) {
                    self.there.retain(|one| one.id != gone);
                }
            }
        }
        self.now += SignedDuration::from_secs(1);
    }

    fn cleanup(&mut self) {
        let today = self.today();
        for in_target in [false, true] {
            let snapshots = if in_target { &mut self.there } else { &mut self.home };
            let instances = vec![Instance { id: "i-1".to_owned(), ..Instance::default() }];
            let inventory = Inventory { snapshots: snapshots.clone(), instances, ..Inventory::default() };
            let verdicts = judge(&inventory, today, &settings());
            let due = verdicts.iter().filter(|verdict| verdict.decision == Decision::Delete);
            let due: BTreeSet<_> = due.map(|verdict| verdict.snapshot.id.clone()).collect();
            snapshots.retain(|snapshot| !due.contains(&snapshot.id));
        }
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Night(good) => {
                let run = format!("g/backup@{:.0}", self.now);
                let due = self.today().saturating_add(jiff::Span::new().days(7));
                for volume in ["a", "b"] {
                    let state = if *good || volume == "a" { State::Completed } else { State::Error };
                    self.home.push(Snapshot {
                        id: format!("snap-{}-{volume}", self.now.as_second()),
                        started_at: Some(Timestamp::from_second(self.now.as_second()).unwrap()),
                        run: Some(run.clone()),
                        delete_on: Some(due.to_string()),
                        state,
                        ..snapshot(21, volume)
                    });
                }
                self.now += SignedDuration::from_mins(1);
            }
            Happening::Look(pass) => self.look(*pass),
            Happening::Act(pass, index) => {
                let actions = &mut self.passes[*pass];
                if !actions.is_empty() {
                    let action = actions.swap_remove(index.index(actions.len()));
                    self.act(action);
                }
            }
            Happening::Settle(index, good) => {
                let mut pending: Vec<_> =
                    self.there.iter_mut().filter(|one| one.state == State::Pending).collect();
                if !pending.is_empty() {
                    let index = index.index(pending.len());
                    pending[index].state = if *good { State::Completed } else { State::Error };
                }
            }
            Happening::Cleanup => self.cleanup(),
            Happening::Wait(hours) => self.now += SignedDuration::from_hours(*hours),
        }
        for copy in self.there.iter().filter(|copy| copy.is_restorable()) {
            self.promised.insert(copy.origin().to_owned(), copy.due());
        }
    }

    /// How many completed copies there are of a source's contents.
    fn readable(&self, origin: &str) -> usize {
        self.there.iter().filter(|one| one.origin() == origin && one.is_restorable()).count()
    }
}

proptest! {
    /// The promise: whatever fails, is repeated, is killed or runs beside itself, what has once been copied can be read
    /// there until its own day; and no whole set that was the newest ever leaves a Region without any.
    #[test]
    fn no_order_of_events_loses_a_copy_before_its_day(
        happenings in proptest::collection::vec(happening(), 0..150),
    ) {
        let mut world = World::new();
        let mut had_any = false;
        for happening in &happenings {
            world.happens(happening);
            let today = world.today();
            for (origin, due) in &world.promised {
                let is_due = due.is_none_or(|due| due.has_come(today));
                prop_assert!(is_due || world.readable(origin) > 0, "{origin} is lost by {happening:?}");
            }
            let whole = by_set(&world.there).values().any(|set| !of_one_moment(set).is_empty());
            prop_assert!(whole || !had_any, "the last whole set there is lost by {happening:?}");
            had_any |= whole;
        }
    }

    /// However it was interrupted, once EC2 does as it should, every set that there should be a copy of has one, and none
    /// has two.
    #[test]
    fn whatever_happened_it_converges(happenings in proptest::collection::vec(happening(), 0..100)) {
        let mut world = World::new();
        for happening in &happenings {
            world.happens(happening);
        }
        for _ in 0..6 {
            world.look(0);
            for action in std::mem::take(&mut world.passes[0]) {
                world.act(action);
            }
            for copy in &mut world.there {
                copy.state = if copy.state == State::Error { State::Error } else { State::Completed };
            }
            world.now += RETRY;
        }
        let survey = world.survey();
        for wanted in &survey.wanted {
            prop_assert!(matches!(wanted.stage, Stage::Copied(_)), "{wanted:?}");
        }
        prop_assert_eq!(survey.superfluous.len(), 0, "{:?}", survey.superfluous);
        let mut origins = BTreeSet::new();
        for copy in world.there.iter().filter(|copy| copy.is_restorable()) {
            prop_assert!(origins.insert(copy.origin()), "{} is there twice", copy.origin());
        }
        // What has been done is not done again.
        let there = world.there.len();
        world.look(1);
        prop_assert_eq!((world.passes[1].len(), world.there.len()), (0, there));
    }

    #[test]
    fn the_order_of_the_lists_decides_nothing(
        happenings in proptest::collection::vec(happening(), 0..80), turned in any::<Index>(),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            world.happens(happening);
        }
        let mut other = (world.home.clone(), world.there.clone());
        for list in [&mut other.0, &mut other.1].into_iter().filter(|list| !list.is_empty()) {
            let by = turned.index(list.len());
            list.rotate_left(by);
        }
        let settings = settings();
        let other = Copies::of(&other.0, &other.1, world.today(), world.now, &settings.copy_to[0], &settings);
        prop_assert_eq!(world.survey(), other);
    }
}

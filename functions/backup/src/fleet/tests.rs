use std::time::{Duration, SystemTime};

use snapwarden_domain::report::Effort;
use snapwarden_domain::retention::Days;
use snapwarden_runtime::{Api, Pace};
use tokio::time::Instant;

use super::*;
use crate::model::{Invoker, Model, Trouble, instance};

const RETENTION: fn() -> Retention =
    || Retention { daily_days: Days::try_from(7).unwrap(), weekly_days: None, monthly_days: None };

/// What one invocation of 900 seconds does, the lists included that it begins with.
async fn hop(
    model: &Model,
    selected: &[Selected],
    before: Option<&Continuation>,
) -> (Vec<InstanceReport>, Vec<String>) {
    let now = SystemTime::now();
    let deadline = Deadline::of(now + Duration::from_mins(15), now);
    let invoker = Invoker::new(model, before.map_or(0, |before| before.hop));
    let made = model.listed();
    for _ in 0..=selected.len() / 1_000 {
        invoker.call(Api::DescribeInstances).await.unwrap();
    }
    for _ in 0..=made.len() / 1_000 {
        invoker.call(Api::DescribeSnapshots).await.unwrap();
    }
    let retention = RETENTION();
    let day = "2026-11-22".parse().unwrap();
    let fleet = Fleet { selected, made, before, retention: &retention, day, deadline, dry_run: false };
    back_up_fleet(&invoker, fleet).await
}

fn count(reports: &[InstanceReport], is: impl Fn(&Outcome) -> bool) -> usize {
    reports.iter().filter(|report| is(&report.outcome)).count()
}

/// The largest fleets are backed up in one night, as fast as EC2 lets anybody, without taking more than it gives.
#[tokio::test(start_paused = true)]
async fn fifty_thousand_instances_are_backed_up_at_ec2s_own_pace() {
    const FLEET: usize = 50_000;
    let (capacity, refill) = Api::CreateSnapshots.limit();
    let (capacity, refill) = (f64::from(capacity), f64::from(refill));

    let model = Model::with(300, 3);
    let selected: Vec<_> = (0..FLEET).map(|number| instance(number, 1)).collect();
    let start = Instant::now();
    let mut before: Option<Continuation> = None;
    let mut done = 0;
    loop {
        let (reports, _) = hop(&model, &selected, before.as_ref()).await;
        assert_eq!(reports.len(), FLEET, "no instance is forgotten");
        assert_eq!(count(&reports, |outcome| matches!(outcome, Outcome::Failed(_))), 0);
        done += count(&reports, |outcome| *outcome == Outcome::Created);
        if count(&reports, |outcome| *outcome == Outcome::Postponed) == 0 {
            break;
        }
        before = Some(Continuation::after(before.as_ref(), &Effort::default(), 0));
    }
    let seconds = start.elapsed().as_secs_f64();
    let possible = capacity + refill * seconds;
    let hops = f64::from(before.map_or(0, |before| before.hop));

    assert_eq!((done, model.sets()), (FLEET, FLEET), "each once");
    assert_eq!(model.throttles(), 0, "no throttle provoked");
    let used = 50_000.0 / possible;
    assert!(used >= 0.95, "only {used:.3} of what EC2 gives in {seconds:.0} s");
    // Fourteen of an invocation's fifteen minutes are for work.
    let predicted = ((50_000.0 / Pace::SHARE - capacity) / (refill * 840.0)).ceil() - 1.0;
    assert!((hops - predicted).abs() < 0.5, "{hops} hops, {predicted} predicted");
}

#[tokio::test(start_paused = true)]
async fn throttles_that_others_cause_slow_a_run_down_and_fail_nothing() {
    let model = Model::with(300, 3);
    // Somebody else takes most of the bucket.
    let others = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            _ = model.call(Api::CreateSnapshots).await;
        }
    };
    let selected: Vec<_> = (0..1_000).map(|number| instance(number, 1)).collect();
    let (reports, _) = tokio::select! {
        done = hop(&model, &selected, None) => done,
        () = others => unreachable!(),
    };
    assert_eq!(count(&reports, |outcome| matches!(outcome, Outcome::Failed(_))), 0);
    assert!(count(&reports, |outcome| *outcome == Outcome::Created) > 500);
}

/// Whoever queues for longer than Lambda lets an invocation live is cut off: no report, and nobody goes on.
#[tokio::test(start_paused = true)]
async fn a_night_in_which_others_take_every_call_still_ends_in_time() {
    let model = Model::with(300, 3);
    let others = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            _ = model.call(Api::CreateSnapshots).await;
        }
    };
    let selected: Vec<_> = (0..5_000).map(|number| instance(number, 1)).collect();
    let start = Instant::now();
    let (reports, _) = tokio::select! {
        done = hop(&model, &selected, None) => done,
        () = others => unreachable!(),
    };
    assert!(
        start.elapsed() <= Duration::from_secs(870),
        "half a minute is for handing on: {:?}",
        start.elapsed()
    );
    assert_eq!(reports.len(), 5_000, "no instance is forgotten");
    assert!(count(&reports, |outcome| *outcome == Outcome::Postponed) > 0);
    assert_eq!(count(&reports, |outcome| matches!(outcome, Outcome::Failed(_))), 0);
}

/// A call that hangs is given up in time, and its instance left to the next hop, which finds out.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_does_not_take_the_next_hop_with_it() {
    let model = Model::with(1_000, 3);
    let now = SystemTime::now();
    let deadline = Deadline::of(now + Duration::from_secs(20), now); // 15 are for work
    let retention = RETENTION();
    let day = "2026-11-22".parse().unwrap();
    let selected = [instance(1, 1)];
    let fleet = Fleet {
        selected: &selected,
        made: Vec::new(),
        before: None,
        retention: &retention,
        day,
        deadline,
        dry_run: false,
    };
    model.trouble(&[Trouble::Hangs]);
    let start = Instant::now();
    let (reports, _) = back_up_fleet(&Invoker::new(&model, 0), fleet).await;
    assert_eq!(reports[0].outcome, Outcome::Postponed);
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
}

/// Lambda delivers a hop twice, and neither knows of the other: twice the calls, and still one set each.
#[tokio::test(start_paused = true)]
async fn a_chain_of_hops_that_has_forked_makes_nothing_twice() {
    let model = Model::with(300, 3);
    let selected: Vec<_> = (0..300).map(|number| instance(number, 2)).collect();
    let before = Continuation::after(None, &Effort::default(), 0);
    let late = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        hop(&model, &selected, Some(&before)).await.0
    };
    let (one, other) = tokio::join!(async { hop(&model, &selected, Some(&before)).await.0 }, late);
    assert_eq!(model.sets(), 300);
    for reports in [&one, &other] {
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Created | Outcome::AlreadyDone);
        assert_eq!(count(reports, done), 300);
    }
}

/// Lambda and the Scheduler deliver at least once, also the largest night.
#[tokio::test(start_paused = true)]
async fn a_second_delivery_of_a_large_night_adds_nothing() {
    let model = Model::with(300, 3);
    let selected: Vec<_> = (0..2_000).map(|number| instance(number, 2)).collect();
    let (first, _) = hop(&model, &selected, None).await;
    assert_eq!(count(&first, |outcome| *outcome == Outcome::Created), 2_000);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let attempts = model.attempts();
    let (second, _) = hop(&model, &selected, None).await;
    assert_eq!(count(&second, |outcome| *outcome == Outcome::AlreadyDone), 2_000);
    assert_eq!((model.sets(), model.attempts()), (2_000, attempts), "no call is even made");
}

/// A dry run is to be over in a moment, and may not hand on, whatever the size of the fleet.
#[tokio::test(start_paused = true)]
async fn a_dry_run_of_a_large_fleet_asks_about_some_and_says_so() {
    let model = Model::with(300, 3);
    let selected: Vec<_> = (0..5_000).map(|number| instance(number, 1)).collect();
    let retention = RETENTION();
    let now = SystemTime::now();
    let fleet = Fleet {
        selected: &selected,
        made: Vec::new(),
        before: None,
        retention: &retention,
        day: "2026-11-22".parse().unwrap(),
        deadline: Deadline::of(now + Duration::from_mins(1), now),
        dry_run: true,
    };
    let (reports, warnings) = back_up_fleet(&Invoker::new(&model, 0), fleet).await;
    assert_eq!(count(&reports, |outcome| *outcome == Outcome::WouldCreate), 5_000);
    assert!(reports.iter().all(|report| report.snapshots.len() == 1));
    assert_eq!(model.attempts(), ASKED);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("EC2 was asked about the first 100 of 5000 instances"), "{warnings:?}");
}

/// One broken instance must not hold up, in every hop again, those that were never tried.
#[tokio::test(start_paused = true)]
async fn what_failed_in_an_earlier_hop_is_tried_last_and_once_more() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("InternalTrouble")]);
    let selected = [instance(1, 1), instance(2, 1)];
    let (reports, _) = hop(&model, &selected[..1], None).await;
    let Outcome::Failed(failure) = reports[0].outcome.clone() else { panic!("{reports:?}") };

    let before = Continuation::after(None, &Effort::default(), 0)
        .with_failures([("i-00001".to_owned(), failure.clone())]);
    model.trouble(&[Trouble::Refused("ForTheFirstInTurn")]);
    let (reports, _) = hop(&model, &selected, Some(&before)).await;
    assert_eq!(reports[0].outcome, Outcome::Created, "its second chance");
    assert!(matches!(reports[1].outcome, Outcome::Failed(_)), "the other one's turn came first");

    let retention = RETENTION();
    let fleet = Fleet {
        selected: &[instance(3, 1), instance(4, 1)],
        made: Vec::new(),
        before: Some(&before.with_failures([("i-00003".to_owned(), failure.clone())])),
        retention: &retention,
        day: "2026-11-22".parse().unwrap(),
        deadline: Deadline::passed(),
        dry_run: false,
    };
    let (reports, _) = back_up_fleet(&Invoker::new(&model, 1), fleet).await;
    assert_eq!(reports[0].outcome, Outcome::Failed(failure), "without time for it, that failure stands");
    assert_eq!(reports[1].outcome, Outcome::Postponed);
}

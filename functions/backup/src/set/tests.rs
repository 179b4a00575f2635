use proptest::prelude::*;
use proptest::sample::select;
use snapwarden_runtime::Deadline;

use super::*;
use crate::model::{Invoker, Model, Trouble, instance};

const COPY: Copying = Copying::Copy { with_name: true };

async fn make_one(model: &Model) -> Ending {
    make(&Invoker::new(model, 0), &instance(1, 2), COPY, Deadline::never(), false).await
}

/// A second set doubles what a night costs; a missing one costs the night.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_one_set_whether_ec2_made_it_or_not() {
    for troubles in [
        &[Trouble::LostAnswer][..],
        &[Trouble::LostRequest],
        &[Trouble::LostRequest, Trouble::LostAnswer],
        &[Trouble::LostRequest; 4],
    ] {
        for lag in [0, 3, 29] {
            let model = Model::with(1_000, lag);
            model.trouble(troubles);
            let ending = make_one(&model).await;
            assert_eq!(ending.outcome, Outcome::Created, "{troubles:?}, lag {lag} s");
            assert_eq!((model.sets(), ending.snapshots.len()), (1, 2), "{troubles:?}, lag {lag} s");
        }
    }
}

/// Right before its deadline, a run has no time to wait for EC2's lists, and must not make a second set instead.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_close_to_the_deadline_makes_one_set_at_most() {
    for milliseconds in (0..60_000).step_by(500) {
        let model = Model::with(1_000, 3);
        model.trouble(&[Trouble::LostAnswer]);
        let now = std::time::SystemTime::now();
        // Three quarters of a short invocation are for work.
        let deadline = Deadline::of(now + Duration::from_millis(milliseconds) * 4 / 3, now);
        make(&Invoker::new(&model, 0), &instance(1, 2), COPY, deadline, false).await;
        assert!(model.attempts() <= 1, "{milliseconds} ms: nothing tells yet whether there is a set");
        let again = make_one(&model).await;
        assert_eq!(model.sets(), 1, "{milliseconds} ms: {again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_unclear_is_not_reported_as_done() {
    let model = Model::new();
    model.trouble(&[Trouble::LostRequest; 5]);
    let ending = make_one(&model).await;
    assert!(matches!(ending.outcome, Outcome::Failed(_)), "{ending:?}");
    assert_eq!(model.sets(), 0);
}

/// EventBridge Scheduler and Lambda deliver at least once, perhaps twice at a time.
#[tokio::test(start_paused = true)]
async fn two_invocations_at_once_make_one_set() {
    for offset in 0..40 {
        for lag in [0, 3, 14] {
            let model = Model::with(1_000, lag);
            let late = async {
                sleep(Duration::from_millis(offset * 500)).await;
                make_one(&model).await.outcome
            };
            let (first, second) = tokio::join!(make_one(&model), late);
            let mut outcomes = [first.outcome, second];
            outcomes.sort_by_key(|outcome| *outcome == Outcome::AlreadyDone);
            assert_eq!(outcomes, [Outcome::Created, Outcome::AlreadyDone], "{offset}, lag {lag} s");
            assert_eq!(model.sets(), 1, "{offset}, lag {lag} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_tag_costs_a_backup() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("TagLimitExceeded")]);
    let ending = make_one(&model).await;
    assert_eq!(ending.outcome, Outcome::Created);
    assert!(ending.warning.unwrap().contains("TagLimitExceeded"));

    let left = Copying::Leave("vol-1 has a tag DeleteOn of its own".to_owned());
    let ending = make(&Invoker::new(&Model::new(), 0), &instance(1, 1), left, Deadline::never(), false).await;
    assert!(ending.warning.unwrap().contains("vol-1 has a tag DeleteOn"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_not_repeated() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("SnapshotLimitExceeded")]);
    let Outcome::Failed(failure) = make_one(&model).await.outcome else { panic!() };
    assert_eq!(failure.code.as_deref(), Some("SnapshotLimitExceeded"));
    assert_eq!(model.sets(), 0);
}

/// Somebody else uses up the account's rate for ten minutes: nothing of that is the instance's fault, and there is time.
#[tokio::test(start_paused = true)]
async fn throttling_is_waited_out_as_long_as_there_is_time() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("RequestLimitExceeded"); 40]);
    let now = std::time::SystemTime::now();
    let deadline = Deadline::of(now + Duration::from_mins(15), now);
    let ending = make(&Invoker::new(&model, 0), &instance(1, 2), COPY, deadline, false).await;
    assert_eq!((ending.outcome, model.sets()), (Outcome::Created, 1));

    let model = Model::new();
    model.trouble(&[Trouble::Refused("RequestLimitExceeded"); 100]);
    let ending = make(&Invoker::new(&model, 0), &instance(1, 2), COPY, deadline_of(60), false).await;
    assert_eq!(ending.outcome, Outcome::Postponed, "the next hop goes on");
    let ending = make_one(&model).await;
    assert!(matches!(ending.outcome, Outcome::Failed(_)), "there is an end to it, even without a deadline");
}

fn deadline_of(seconds: u64) -> Deadline {
    let now = std::time::SystemTime::now();
    Deadline::of(now + Duration::from_secs(seconds), now)
}

/// A refusal of the tags on what would have been the last attempt must not turn into attempts without end.
#[tokio::test(start_paused = true)]
async fn attempts_end_also_where_tags_are_refused_in_between() {
    let model = Model::new();
    let busy = Trouble::Refused("SnapshotCreationPerVolumeRateExceeded");
    model.trouble(&[busy; 4]);
    model.trouble(&[Trouble::Refused("TagLimitExceeded")]);
    model.trouble(&[busy; 100]);
    assert!(matches!(make_one(&model).await.outcome, Outcome::Failed(_)));
    assert!(model.attempts() < 10, "{}", model.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_just_snapshotted_is_waited_for() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("SnapshotCreationPerVolumeRateExceeded"); 3]);
    assert_eq!(make_one(&model).await.outcome, Outcome::Created);
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    let codes = [
        "RequestLimitExceeded",
        "SnapshotCreationPerVolumeRateExceeded",
        "TagLimitExceeded",
        "SnapshotLimitExceeded",
    ];
    let refused = codes.map(Trouble::Refused);
    let lost = [Trouble::LostAnswer, Trouble::LostAnswer, Trouble::LostRequest, Trouble::Hangs];
    select(refused.into_iter().chain(lost).collect::<Vec<_>>())
}

proptest! {
    /// However calls end, and whenever Lambda ends, repeats or doubles the invocations of a run.
    #[test]
    fn there_is_one_set_at_most_and_none_is_reported_that_is_not_there(
        troubles in proptest::collection::vec(any_trouble(), 0..6),
        lag in 0..29_u64,
        beside in proptest::option::of(0..40_000_u64),
        killed_after in proptest::option::of(0..60_000_u64),
        seconds in 4..900_u64,
    ) {
        let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        paused.unwrap().block_on(async {
            // Two at once are told from each other only as long as EC2's rate limit for a volume lasts.
            let model = Model::with(1_000, if beside.is_some() { lag.min(14) } else { lag });
            model.trouble(&troubles);
            let attempt = async || {
                let deadline = deadline_of(seconds);
                let invoker = Invoker::new(&model, 0);
                let instance = instance(1, 2);
                let making = make(&invoker, &instance, COPY, deadline, false);
                let ending = deadline.before_the_end(making).await;
                let is_done = |ending: &Ending| {
                    matches!(ending.outcome, Outcome::Created | Outcome::AlreadyDone)
                };
                assert!(!ending.as_ref().is_some_and(is_done) || model.sets() == 1, "{ending:?}");
            };
            let killed = async {
                let life = Duration::from_millis(killed_after.unwrap_or(u64::from(u32::MAX)));
                _ = tokio::time::timeout(life, attempt()).await;
            };
            let double = async {
                if let Some(milliseconds) = beside {
                    sleep(Duration::from_millis(milliseconds)).await;
                    attempt().await;
                }
            };
            tokio::join!(killed, double);
            for _ in 0..2 {
                sleep(Duration::from_mins(1)).await;
                attempt().await;
            }
            assert!(model.sets() <= 1, "{} sets", model.sets());
        });
    }
}

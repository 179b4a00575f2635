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

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_just_snapshotted_is_waited_for() {
    let model = Model::new();
    model.trouble(&[Trouble::Refused("SnapshotCreationPerVolumeRateExceeded"); 3]);
    assert_eq!(make_one(&model).await.outcome, Outcome::Created);
}

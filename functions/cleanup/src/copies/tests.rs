use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::copy_snapshot::{CopySnapshotError, CopySnapshotInput, CopySnapshotOutput};
use aws_sdk_ec2::operation::delete_snapshot::{
    DeleteSnapshotError, DeleteSnapshotInput, DeleteSnapshotOutput,
};
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
use aws_sdk_ec2::operation::describe_snapshots::{
    DescribeSnapshotsError, DescribeSnapshotsInput, DescribeSnapshotsOutput,
};
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::operation::modify_snapshot_attribute::{
    ModifySnapshotAttributeError, ModifySnapshotAttributeInput, ModifySnapshotAttributeOutput,
};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{self, Instance, OperationType, Reservation, SnapshotState, StorageTier, Tag};
use aws_sdk_sts::operation::assume_role::{AssumeRoleError, AssumeRoleOutput};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{CleanupReport, Report as _, SealingReport};
use snapwarden_runtime::{Deadline, Roles};
use tokio::time::Instant;

use super::*;

const THERE: &str = "eu-west-1";

fn behind(report: &SealingReport) -> Option<f64> {
    report.metrics().into_iter().find(|metric| metric.name == "CopiesBehindHours").map(|metric| metric.value)
}

/// The whole way: missing, copying, copied; each step seen by a pass of its own, and none made twice.
#[tokio::test(start_paused = true)]
async fn the_newest_set_is_copied_once_with_all_that_says_what_it_is() {
    let account = Account::with(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    let report = account.pass().await;
    assert_eq!(report.summary(), "eu-west-1: 2 copies begun, 0 there, 34 h behind");
    assert_eq!(behind(&report), Some(34.0), "an alarm can tell that nothing gets there");
    let requests = account.contents().copies.clone();
    for (request, volume) in requests.iter().zip(["a", "b"]) {
        assert_eq!(request.source_snapshot_id(), Some(format!("snap-2026-11-21-{volume}").as_str()));
        assert_eq!(request.destination_region(), Some(THERE));
        assert_eq!((request.encrypted(), request.kms_key_id()), (Some(true), Some("alias/there")));
        let url = request.presigned_url().unwrap();
        assert!(url.contains("DestinationRegion=eu-west-1") && url.contains("X-Amz-Signature="), "{url}");
        let home = request.source_region().unwrap();
        assert!(url.starts_with(&format!("https://ec2.{home}.amazonaws.com/")), "{url}");
        let tags = request.tag_specifications()[0].tags();
        for (key, value) in [
            ("snapwarden:copied-by", format!("prod/{home}")),
            ("snapwarden:source-snapshot", format!("snap-2026-11-21-{volume}")),
            ("snapwarden:source-volume", format!("vol-{volume}")),
            ("snapwarden:started-at", "2026-11-21T02:00:09Z".to_owned()),
            ("snapwarden:run", "g/backup@2026-11-21T02:00:00Z".to_owned()),
            ("snapwarden:volumes", "2".to_owned()),
            ("DeleteOn", "2026-12-05".to_owned()),
            ("team", "web".to_owned()),
        ] {
            assert_eq!(listing::tag(tags, key), Some(value.as_str()), "{key}");
        }
        assert_eq!(
            listing::tag(tags, "snapwarden:environment"),
            None,
            "an environment there may be called the same"
        );
    }

    let report = account.pass().await;
    assert_eq!((report.copy_to[0].copying.len(), account.contents().copies.len()), (2, 2));
    account.settle(&SnapshotState::Completed);
    let report = account.pass().await;
    let there = &report.copy_to[0];
    assert_eq!(behind(&report), Some(0.0));
    assert_eq!((there.copied, there.newest), (2, Some("2026-11-21T02:00:09Z".parse().unwrap())));
    assert_eq!(
        (report.effort.api_calls, account.contents().copies.len()),
        (2, 2),
        "a look at home, and one there"
    );
    assert_eq!(account.contents().home.len(), 4, "nothing at home goes for a copy's sake");

    account.contents().home.extend(night("2026-11-22"));
    assert_eq!(account.pass().await.copy_to[0].begun.len(), 2, "and later nights follow");
}

/// EC2 copied, and its answer got lost: asking again would make a second one, and pay for it.
#[tokio::test(start_paused = true)]
async fn a_copy_whose_answer_got_lost_is_found_by_the_next_pass() {
    let account = Account::with(night("2026-11-21"));
    account.contents().lost = Some("InternalError");
    let report = account.pass().await;
    let failure = &report.copy_to[0].failed[0].failure;
    assert!(failure.message.contains("may have been begun"), "{failure}");
    assert_eq!(report.failures(), Vec::<String>::new(), "the next pass is near");
    account.contents().lost = None;
    assert_eq!(account.pass().await.copy_to[0].copying.len(), 2);
    assert_eq!(account.contents().copies.len(), 2);
}

/// Keys that may not be used show only hours later. Somebody is told, and it is tried again, and not all the time.
#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_is_told_and_made_again_after_six_hours() {
    let account = Account::with(night("2026-11-21"));
    account.pass().await;
    account.settle(&SnapshotState::Error);
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].failed.len(), account.contents().copies.len()), (2, 2));
    let failed = report.metrics().into_iter().find(|metric| metric.name == "CopiesFailed").unwrap();
    assert!((failed.value - 2.0).abs() < f64::EPSILON, "the alarm rings");
    assert!(
        !report.metrics().iter().any(|metric| metric.name == "UnencryptedSnapshots"),
        "nothing is sealed here"
    );
    let report = account.run(|invocation| at(invocation, "2026-11-22T18:00:10Z")).await;
    assert_eq!((report.copy_to[0].begun.len(), report.copy_to[0].superfluous.len()), (2, 2));
    assert_eq!(account.there(), ["copy-3", "copy-4"]);
}

/// The quota is the account's: others copy as well.
#[tokio::test(start_paused = true)]
async fn where_ec2_takes_no_more_copies_the_rest_waits() {
    let account = Account::with(night("2026-11-21"));
    account.contents().places = 1;
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].begun.len(), report.copy_to[0].waiting), (1, 1));
    assert!(report.warnings[0].contains("no more copies in eu-west-1"), "{:?}", report.warnings);
    account.contents().places = 5;
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].copying.len(), report.copy_to[0].begun.len()), (1, 1));
}

/// A Region that cannot be reached is what copies are for; that it is the wrong one must ring, and stop nothing else.
#[tokio::test(start_paused = true)]
async fn a_region_that_does_not_answer_is_told_and_stops_nothing_at_home() {
    let account = Account::with(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    for snapshot in account.contents().home.iter_mut().take(2) {
        tag(snapshot, "DeleteOn", "2026-11-22");
    }
    account.contents().is_lost = true;
    let report = account.pass().await;
    assert!(report.copy_to[0].problems[0].message.contains("could not list"), "{report:?}");
    assert_eq!(
        report.failures(),
        Vec::<String>::new(),
        "by the alarm: Lambda's repetitions would come to the same"
    );
    let by_hand = account.run(|invocation| invocation.event.schedule = "manual".parse().unwrap()).await;
    assert_eq!(by_hand.failures().len(), 1, "{:?}", by_hand.failures());

    let report = account.clean_up().await;
    assert_eq!(report.deleted.len(), 2, "{report:?}");
    let failures = report.failures();
    assert!(failures.len() == 1 && failures[0].starts_with("eu-west-1: "), "{failures:?}");
}

/// Copies go by their own day, and by nothing else; the newest whole set stays, expired or not.
#[tokio::test(start_paused = true)]
async fn cleanup_deletes_what_is_due_there_and_ours() {
    let account = Account::with(night("2026-11-21"));
    for (day, due) in
        [("2026-11-18", "2026-11-22"), ("2026-11-19", "2026-11-22"), ("2026-11-20", "2026-11-23")]
    {
        account.contents().there.extend(copies_of(&night(day), due));
    }
    let mut strangers = copies_of(&night("2026-11-10"), "2026-11-20");
    for stranger in &mut strangers {
        tag(stranger, "snapwarden:copied-by", "prod/ap-south-1");
    }
    account.contents().there.extend(strangers);
    let dry = account.clean_up_with(|invocation| invocation.event.dry_run = true).await;
    assert_eq!((dry.copies[0].would_delete.len(), dry.failures()), (4, Vec::new()));
    let report = account.clean_up().await;
    let there = &report.copies[0];
    assert_eq!((there.managed, there.deleted.len(), there.not_due), (6, 4, 2), "{there:?}");
    assert_eq!((report.deleted.len(), report.deleted_in_all()), (0, 4));
    assert!(report.summary().contains("; eu-west-1: 4 copies deleted, 2 not due"), "{}", report.summary());
    assert_eq!(account.there().len(), 4, "the strangers stay");

    // Nothing is copied any more, and in time everything there is due: the last whole set stays all the same.
    let report = account.clean_up_with(|invocation| at(invocation, "2027-01-05T03:00:00Z")).await;
    assert_eq!((report.copies[0].deleted.len(), report.copies[0].held.len()), (0, 2), "{report:?}");
}

/// The limit of a run is for all that it deletes, wherever.
#[tokio::test(start_paused = true)]
async fn the_limit_of_a_run_is_for_all_regions_together() {
    let account = Account::with(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    for snapshot in account.contents().home.iter_mut().take(2) {
        tag(snapshot, "DeleteOn", "2026-11-22");
    }
    for (day, due) in [("2026-11-18", "2026-11-22"), ("2026-11-20", "2026-12-04")] {
        account.contents().there.extend(copies_of(&night(day), due));
    }
    let three = |invocation: &mut Invocation<CleanupSettings>| invocation.settings.policy.max_deletes = 3;
    let report = account.clean_up_with(three).await;
    let there = &report.copies[0];
    assert_eq!((report.deleted.len(), there.deleted.len(), there.postponed), (2, 1, 1), "{report:?}");
}

const VAULT: &str = "210987654321";
const ROLE: &str = "arn:aws:iam::210987654321:role/copies";
const WHOSE: &str = "snapwarden:copied-by";

/// Copies in the account itself are lost with it, or with whoever may delete in it. Another account reads a snapshot for as
/// long as it takes to copy it, and never more.
#[tokio::test(start_paused = true)]
async fn another_account_is_let_at_a_snapshot_until_it_has_its_copy() {
    let account = Account::with_vault(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    let dry = account.run(|invocation| invocation.event.dry_run = true).await;
    assert_eq!((dry.copy_to[0].begun.len(), dry.failures(), account.shared().len()), (2, vec![], 0));

    let report = account.pass().await;
    assert_eq!(
        report.summary(),
        "eu-west-1 of account 210987654321: 2 copies begun, 0 there, 34 h behind, 2 shared"
    );
    let newest = ["snap-2026-11-21-a", "snap-2026-11-21-b"];
    assert_eq!(account.shared(), newest);
    let request = account.contents().copies[0].clone();
    let url = request.presigned_url().unwrap();
    assert!(url.contains("X-Amz-Credential=theirs"), "{url}");
    let home = request.source_region().unwrap();
    let tags = request.tag_specifications()[0].tags();
    assert_eq!(whose(tags), Some(format!("prod/{home}/123456789012").as_str()));

    assert_eq!(account.pass().await.copy_to[0].copying.len(), 2);
    assert_eq!(account.shared(), newest, "a copy that is being made needs its source");
    account.settle(&SnapshotState::Completed);
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].copied, report.copy_to[0].shared, account.shared().len()), (2, Some(0), 0));
    assert_eq!(account.pass().await.effort.api_calls, 3, "a look at home, one there, and at what is shared");
    assert_eq!(account.contents().home.len(), 4);
}

/// What somebody shared with the account by hand, or what is left of a pass that was cut off, ends with the next pass.
#[tokio::test(start_paused = true)]
async fn whatever_is_shared_for_no_copy_is_taken_back_also_while_paused() {
    let account = Account::with_vault(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    account.contents().shared = Some(["snap-2026-11-20-a", "snap-2026-11-21-a"].map(str::to_owned).into());
    let report = account.run(|invocation| invocation.settings.copy_to[0].paused = true).await;
    assert_eq!(
        (report.copy_to[0].waiting, report.copy_to[0].shared, account.shared().len()),
        (2, Some(0), 0)
    );

    account.contents().shared = Some(BTreeSet::from(["snap-2026-11-20-a".to_owned()]));
    account.contents().unsharable = Some("UnauthorizedOperation");
    let report = account.pass().await;
    let problem = report.copy_to[0].problems[0].to_string();
    assert!(problem.contains("snap-2026-11-20-a is still shared with account 210987654321"), "{problem}");
    assert_eq!((report.copy_to[0].failed.len(), report.copy_to[0].waiting), (1, 1), "one refusal is for all");
}

/// A volume that AWS's own key encrypts cannot be copied this way, night after night; somebody has to know why.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_is_told_and_the_rest_is_copied() {
    let account = Account::with_vault(night("2026-11-21"));
    account.contents().unsharable = Some("InvalidParameter");
    let report = account.pass().await;
    let failed = &report.copy_to[0].failed;
    assert_eq!((failed.len(), account.contents().copies.len()), (2, 0), "each is tried");
    let text = failed[0].failure.to_string();
    assert!(text.contains("could not be shared with account 210987654321"), "{text}");
    assert!(text.contains("alias/aws/ebs"), "{text}");
}

/// Twenty volumes under AWS's own key come first in every pass: what can be copied must not wait for them for ever.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_takes_no_place_from_what_can() {
    let mut home = night("2026-11-21");
    for number in 0..25 {
        let mut other = night("2026-11-21").remove(0);
        other.snapshot_id = Some(format!("snap-of-a-{number:02}"));
        other.volume_id = Some(format!("vol-a-{number:02}"));
        tag(&mut other, "snapwarden:instance", &format!("i-0-{number:02}"));
        tag(&mut other, "snapwarden:volumes", "1");
        home.push(other);
    }
    let account = Account::with_vault(home);
    account.contents().unsharable = Some("InvalidParameter");
    account.contents().unsharable_ids =
        Some((0..25).map(|number| format!("snap-of-a-{number:02}")).collect());
    let report = account.pass().await;
    let there = &report.copy_to[0];
    assert_eq!((there.begun.len(), there.failed.len(), there.waiting), (2, 25, 0), "{there:?}");
}

/// EC2's lists lag behind: right after it is shared, a snapshot may not be seen yet.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_the_other_account_does_not_see_yet_is_copied_by_the_next_pass() {
    let account = Account::with_vault(night("2026-11-21"));
    account.contents().lags_by = 1;
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].begun.len(), report.copy_to[0].failed.len()), (1, 0), "no failure");
    assert_eq!(account.shared().len(), 2, "shared for the next pass");
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].begun.len(), report.copy_to[0].shared), (1, Some(2)));
}

/// A night in which EC2 throttles is no failure that wakes anybody, and no reason to suspect a key.
#[tokio::test(start_paused = true)]
async fn where_ec2_has_no_time_to_share_the_rest_waits() {
    let account = Account::with_vault(night("2026-11-21"));
    account.contents().unsharable = Some("ResourceLimitExceeded");
    let report = account.pass().await;
    assert_eq!((report.copy_to[0].failed.len(), report.copy_to[0].waiting), (0, 2), "{report:?}");

    // What cleanup has just deleted is shared with nobody.
    account.contents().shared = Some(BTreeSet::from(["snap-2026-11-21-a".to_owned()]));
    account.contents().unsharable = Some("InvalidSnapshot.NotFound");
    let report = account.run(|invocation| invocation.settings.copy_to[0].paused = true).await;
    assert_eq!((report.copy_to[0].problems.len(), report.copy_to[0].shared), (0, Some(0)), "{report:?}");
}

/// A pass beside another one goes by older news: what the other shares meanwhile is not this one's to take back.
#[tokio::test(start_paused = true)]
async fn what_is_shared_is_read_before_all_else() {
    let account = Account::with_vault(night("2026-11-21"));
    account.pass().await;
    let asked = account.contents().asked.clone();
    assert_eq!(asked[..3], ["shared", "home", "there"], "{asked:?}");
}

/// A role that is gone stops nothing at home, and rings.
#[tokio::test(start_paused = true)]
async fn an_account_that_cannot_be_reached_is_told_and_stops_nothing_at_home() {
    let account = Account::with_vault(night("2026-11-20").into_iter().chain(night("2026-11-21")));
    for snapshot in account.contents().home.iter_mut().take(2) {
        tag(snapshot, "DeleteOn", "2026-11-22");
    }
    account.contents().is_denied = true;
    account.contents().shared = Some(BTreeSet::from(["snap-2026-11-21-a".to_owned()]));
    let report = account.pass().await;
    let problem = report.copy_to[0].problems[0].to_string();
    assert!(problem.contains("could not act as arn:aws:iam::210987654321:role/copies"), "{problem}");
    assert_eq!(report.copy_to[0].shared, Some(1), "it may be being copied");
    // Its owner has deleted the role: the place can be given up all the same.
    let report = account.run(|invocation| invocation.settings.copy_to[0].paused = true).await;
    assert_eq!((report.copy_to[0].shared, account.shared().len()), (Some(0), 0));
    let report = account.clean_up().await;
    assert_eq!(report.deleted.len(), 2, "{report:?}");
    let failures = report.failures();
    assert!(failures[0].starts_with("eu-west-1 of account 210987654321: "), "{failures:?}");
}

/// Its copies go by the same fences as those in another Region; those of others that it holds are not ours.
#[tokio::test(start_paused = true)]
async fn cleanup_deletes_what_is_due_in_the_other_account_and_ours() {
    let account = Account::with_vault(night("2026-11-21"));
    let home = account.invocation().ec2.region().unwrap().to_owned();
    for (day, due, whose) in [
        ("2026-11-18", "2026-11-22", "123456789012"),
        ("2026-11-20", "2026-12-04", "123456789012"),
        ("2026-11-18", "2026-11-22", "555555555555"),
    ] {
        let mut copies = copies_of(&night(day), due);
        for copy in &mut copies {
            tag(copy, WHOSE, &format!("prod/{home}/{whose}"));
        }
        account.contents().there.extend(copies);
    }
    let report = account.clean_up().await;
    let there = &report.copies[0];
    assert_eq!(
        (there.account.as_deref(), there.managed, there.deleted.len()),
        (Some(VAULT), 4, 2),
        "{there:?}"
    );
}

fn whose(tags: &[Tag]) -> Option<&str> {
    listing::tag(tags, WHOSE)
}

/// Two Regions of an account with one instance, `i-1`. EC2 tells which is asked by the tag that is asked for.
#[derive(Clone, Default)]
struct Account(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    home: Vec<types::Snapshot>,
    there: Vec<types::Snapshot>,
    /// Every copy that was asked for.
    copies: Vec<CopySnapshotInput>,
    /// What was listed, in order.
    asked: Vec<&'static str>,
    /// It makes the copy, and answers with this code.
    lost: Option<&'static str>,
    /// How many more copies EC2 takes.
    places: usize,
    /// The other Region lists nothing.
    is_lost: bool,
    /// It is another account that holds the copies: what it may read of the environment's.
    shared: Option<BTreeSet<String>>,
    /// EC2 refuses to share, or to share no longer, with this code; where it has an id, only that snapshot.
    unsharable: Option<&'static str>,
    unsharable_ids: Option<BTreeSet<String>>,
    /// The other account sees what is shared only so many copies later.
    lags_by: usize,
    /// The role in the other account does not trust the function.
    is_denied: bool,
}

impl Account {
    fn with(home: impl IntoIterator<Item = types::Snapshot>) -> Self {
        let home = home.into_iter().collect();
        Self(Arc::new(Mutex::new(Contents { home, places: usize::MAX, ..Contents::default() })))
    }

    /// The same, and copies are in another account of the same Region.
    fn with_vault(home: impl IntoIterator<Item = types::Snapshot>) -> Self {
        let account = Self::with(home);
        account.contents().shared = Some(BTreeSet::new());
        account
    }

    fn shared(&self) -> Vec<String> {
        self.contents().shared.iter().flatten().cloned().collect()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn there(&self) -> Vec<String> {
        self.contents().there.iter().map(|one| one.snapshot_id.clone().unwrap()).collect()
    }

    fn settle(&self, state: &SnapshotState) {
        for copy in &mut self.contents().there {
            if copy.state() == Some(&SnapshotState::Pending) {
                copy.state = Some(state.clone());
            }
        }
    }

    async fn pass(&self) -> SealingReport {
        self.run(|_| ()).await
    }

    async fn run(&self, change: impl FnOnce(&mut Invocation<CleanupSettings>)) -> SealingReport {
        let mut invocation = self.invocation();
        change(&mut invocation);
        crate::seal::seal(invocation).await.unwrap()
    }

    async fn clean_up(&self) -> CleanupReport {
        self.clean_up_with(|_| ()).await
    }

    async fn clean_up_with(&self, change: impl FnOnce(&mut Invocation<CleanupSettings>)) -> CleanupReport {
        let mut invocation = self.invocation();
        invocation.event.seal = false;
        change(&mut invocation);
        crate::handler::clean_up(invocation, &Spent::default()).await.unwrap().into_report()
    }

    fn invocation(&self) -> Invocation<CleanupSettings> {
        let account = self.clone();
        let list = mock!(Client::describe_snapshots)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.list(request));
        let account = self.clone();
        let copy = mock!(Client::copy_snapshot)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.copy(request));
        let account = self.clone();
        let delete = mock!(Client::delete_snapshot)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.delete(request));
        let instances = mock!(Client::describe_instances).match_requests(|_| true).then_output(|| {
            let instance = Instance::builder().instance_id("i-1").build();
            let reservation = Reservation::builder().instances(instance).build();
            DescribeInstancesOutput::builder().reservations(reservation).build()
        });
        let images = mock!(Client::describe_images)
            .match_requests(|_| true)
            .then_output(|| DescribeImagesOutput::builder().build());
        let locks = mock!(Client::describe_locked_snapshots)
            .match_requests(|_| true)
            .then_output(|| DescribeLockedSnapshotsOutput::builder().build());
        let volumes = mock!(Client::describe_volumes)
            .match_requests(|_| true)
            .then_output(|| DescribeVolumesOutput::builder().build());
        let account = self.clone();
        let share = mock!(Client::modify_snapshot_attribute)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.share(request));
        let rules = [&list, &copy, &delete, &instances, &images, &locks, &volumes, &share];
        let client = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &rules);
        let settings = r#"{
            "environment": "prod", "timezone": "UTC",
            "alias_arn": "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-cleanup:live",
            "policy": {
                "floor": 1, "orphan_floor_days": 90, "max_deletes": 5000, "mass_deletion_percent": 100
            },
            "select": {"tag": "Backup", "value": "true"}, "backup_interval_hours": 24,
            "copy_to": [{"region": "eu-west-1", "kms_key": "alias/there", "retention": {"daily_days": 14}}]
        }"#;
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let schedule = "snapwarden-prod/seal".parse().unwrap();
        let event = Event { seal: true, schedule, ..Event::manual(now, false) };
        let mut settings: CleanupSettings = serde_json::from_str(settings).unwrap();
        if self.contents().shared.is_some() {
            settings.copy_to[0].role = Some(ROLE.to_owned());
        }
        let credentials = Credentials::new("key", "secret", None, None, "test");
        Invocation {
            settings,
            clock: event.clock(now).unwrap(),
            real_now: now,
            event,
            ec2: Ec2::new(&client, true, NonZeroU16::MIN),
            roles: Roles::new(SharedCredentialsProvider::new(credentials), self.sts()),
            is_emulated: false,
            deadline: Deadline::never(),
            started: Instant::now(),
            may_hand_on: false,
        }
    }

    fn list(
        &self,
        request: &DescribeSnapshotsInput,
    ) -> MockResponse<DescribeSnapshotsOutput, DescribeSnapshotsError> {
        let mut contents = self.contents();
        let is_of_copies = |filter: &types::Filter| filter.name() == Some("tag:snapwarden:copied-by");
        let what = match request.restorable_by_user_ids() {
            [_, ..] => "shared",
            [] if request.filters().iter().any(is_of_copies) => "there",
            [] => "home",
        };
        contents.asked.push(what);
        if let [account] = request.restorable_by_user_ids() {
            assert_eq!((account.as_str(), request.owner_ids()), (VAULT, &["self".to_owned()][..]));
            let shared = contents.shared.clone().unwrap();
            let mut found = contents.home.clone();
            found.retain(|one| shared.contains(one.snapshot_id().unwrap()));
            return MockResponse::Output(
                DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build(),
            );
        }
        let asked_for = |name: &str| request.filters().iter().find(|filter| filter.name() == Some(name));
        let owner = asked_for("tag:snapwarden:copied-by");
        if owner.is_some() && contents.is_lost {
            let error = ErrorMetadata::builder().code("OptInRequired").message("as asked").build();
            return MockResponse::Error(DescribeSnapshotsError::generic(error));
        }
        let mut found = if owner.is_some() { contents.there.clone() } else { contents.home.clone() };
        // As EC2 does.
        if let Some(owner) = owner {
            found.retain(|one| {
                let whose = listing::tag(one.tags(), "snapwarden:copied-by").map(str::to_owned);
                whose.is_some_and(|whose| owner.values().contains(&whose))
            });
        }
        if let Some(ids) = asked_for("snapshot-id") {
            found.retain(|one| ids.values().contains(one.snapshot_id.as_ref().unwrap()));
        }
        MockResponse::Output(DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build())
    }

    fn copy(&self, request: &CopySnapshotInput) -> MockResponse<CopySnapshotOutput, CopySnapshotError> {
        let refusal = |code: &str| {
            let error = ErrorMetadata::builder().code(code).message("as asked").build();
            MockResponse::Error(CopySnapshotError::generic(error))
        };
        let mut contents = self.contents();
        if request.dry_run() == Some(true) {
            return refusal("DryRunOperation");
        }
        if contents.places == 0 {
            return refusal("ResourceLimitExceeded");
        }
        let source = request.source_snapshot_id().unwrap_or_default();
        if contents.shared.is_some() && contents.lags_by > 0 {
            contents.lags_by -= 1;
            return refusal("InvalidSnapshot.NotFound");
        }
        if contents.shared.as_ref().is_some_and(|shared| !shared.contains(source)) {
            return refusal("InvalidSnapshot.NotFound");
        }
        contents.places -= 1;
        contents.copies.push(request.clone());
        let count = i64::try_from(contents.copies.len()).unwrap();
        let id = format!("copy-{count}");
        contents.there.push(
            types::Snapshot::builder()
                .snapshot_id(&id)
                .volume_id("vol-ffffffff")
                .volume_size(8)
                .state(SnapshotState::Pending)
                .storage_tier(StorageTier::Standard)
                .start_time(DateTime::from_secs(1_795_348_800 + count))
                .set_encrypted(request.encrypted())
                .set_tags(Some(request.tag_specifications()[0].tags().to_vec()))
                .build(),
        );
        match contents.lost {
            Some(code) => refusal(code),
            None => MockResponse::Output(CopySnapshotOutput::builder().snapshot_id(id).build()),
        }
    }

    fn share(
        &self,
        request: &ModifySnapshotAttributeInput,
    ) -> MockResponse<ModifySnapshotAttributeOutput, ModifySnapshotAttributeError> {
        let refusal = |code: &str| {
            let error = ErrorMetadata::builder().code(code).message("as asked").build();
            MockResponse::Error(ModifySnapshotAttributeError::generic(error))
        };
        assert_eq!(request.user_ids(), [VAULT], "nobody else is let at anything");
        assert!(request.group_names().is_empty());
        let mut contents = self.contents();
        let id = request.snapshot_id().unwrap().to_owned();
        let is_meant = contents.unsharable_ids.as_ref().is_none_or(|ids| ids.contains(&id));
        if let Some(code) = contents.unsharable.filter(|_| is_meant) {
            return refusal(code);
        }
        if request.dry_run() == Some(true) {
            return refusal("DryRunOperation");
        }
        let shared = contents.shared.as_mut().unwrap();
        match request.operation_type() {
            Some(OperationType::Add) => shared.insert(id),
            _ => shared.remove(&id),
        };
        MockResponse::Output(ModifySnapshotAttributeOutput::builder().build())
    }

    fn sts(&self) -> aws_sdk_sts::Client {
        let is_denied = self.contents().is_denied;
        let assume = mock!(aws_sdk_sts::Client::assume_role)
            .match_requests(|request| request.role_arn() == Some(ROLE))
            .then_compute_response(move |_| {
                if is_denied {
                    let error = ErrorMetadata::builder().code("AccessDenied").message("as asked").build();
                    return MockResponse::Error(AssumeRoleError::generic(error));
                }
                let given = aws_sdk_sts::types::Credentials::builder()
                    .access_key_id("theirs")
                    .secret_access_key("secret")
                    .session_token("token")
                    .expiration(DateTime::from_secs(0))
                    .build()
                    .unwrap();
                MockResponse::Output(AssumeRoleOutput::builder().credentials(given).build())
            });
        mock_client!(aws_sdk_sts, RuleMode::MatchAny, [&assume])
    }

    fn delete(
        &self,
        request: &DeleteSnapshotInput,
    ) -> MockResponse<DeleteSnapshotOutput, DeleteSnapshotError> {
        if request.dry_run() == Some(true) {
            let error = ErrorMetadata::builder().code("DryRunOperation").message("as asked").build();
            return MockResponse::Error(DeleteSnapshotError::generic(error));
        }
        let mut contents = self.contents();
        contents.home.retain(|one| one.snapshot_id() != request.snapshot_id());
        contents.there.retain(|one| one.snapshot_id() != request.snapshot_id());
        MockResponse::Output(DeleteSnapshotOutput::builder().build())
    }
}

fn at(invocation: &mut Invocation<CleanupSettings>, time: &str) {
    let time = time.parse().unwrap();
    invocation.event.scheduled_at = time;
    invocation.clock = invocation.event.clock(time).unwrap();
    invocation.real_now = time;
}

fn tag(snapshot: &mut types::Snapshot, key: &str, value: &str) {
    let mut tags = snapshot.tags().to_vec();
    tags.retain(|tag| tag.key() != Some(key));
    tags.push(Tag::builder().key(key).value(value).build());
    snapshot.tags = Some(tags);
}

/// What the backup of a night made of `i-1`, which has two encrypted volumes.
fn night(day: &str) -> Vec<types::Snapshot> {
    let started: jiff::Timestamp = format!("{day}T02:00:09Z").parse().unwrap();
    let of_volume = |volume: &str| {
        let mut snapshot = types::Snapshot::builder()
            .snapshot_id(format!("snap-{day}-{volume}"))
            .volume_id(format!("vol-{volume}"))
            .volume_size(8)
            .encrypted(true)
            .state(SnapshotState::Completed)
            .storage_tier(StorageTier::Standard)
            .start_time(DateTime::from_secs(started.as_second()))
            .build();
        for (key, value) in [
            ("snapwarden:environment", "prod"),
            ("snapwarden:instance", "i-1"),
            ("snapwarden:run", &format!("g/backup@{day}T02:00:00Z")),
            ("snapwarden:volumes", "2"),
            ("DeleteOn", "2026-12-22"),
            ("team", "web"),
        ] {
            tag(&mut snapshot, key, value);
        }
        snapshot
    };
    ["a", "b"].map(of_volume).into()
}

/// Completed copies of these, due on a day.
fn copies_of(snapshots: &[types::Snapshot], due: &str) -> Vec<types::Snapshot> {
    let copy = |source: &types::Snapshot| {
        let mut copy = source.clone();
        let id = source.snapshot_id().unwrap();
        let started = listing::started_at(source).unwrap().to_string();
        copy.tags.as_mut().unwrap().retain(|tag| tag.key() != Some("snapwarden:environment"));
        for (key, value) in [
            ("snapwarden:copied-by", "prod/us-east-1"),
            ("snapwarden:source-snapshot", id),
            ("snapwarden:source-volume", source.volume_id().unwrap()),
            ("snapwarden:started-at", &started),
            ("DeleteOn", due),
        ] {
            tag(&mut copy, key, value);
        }
        copy.snapshot_id = Some(format!("copy-of-{id}"));
        copy
    };
    snapshots.iter().map(copy).collect()
}

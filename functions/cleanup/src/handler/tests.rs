use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_snapshots::{DescribeSnapshotsError, DescribeSnapshotsOutput};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{self, Instance, Reservation, SnapshotState, StorageTier, Tag};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use snapwarden_domain::event::Event;
use snapwarden_domain::report::Report as _;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn what_is_due_goes_and_the_last_copy_stays() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.summary(), "2 snapshots deleted, 1 not due");
    assert_eq!(account.left(), ["snap-3"]);

    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2)]);
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.summary(), "1 snapshot deleted, 1 held, 0 not due");
    assert_eq!(report.held[0].fence, Fence::Floor);
    assert_eq!(account.left(), ["snap-2"]);
}

#[tokio::test]
async fn snapshots_beyond_the_first_page_are_judged_too() {
    let page = |snapshot: types::Snapshot| DescribeSnapshotsOutput::builder().snapshots(snapshot);
    let first = mock!(Client::describe_snapshots)
        .match_requests(|request| request.next_token().is_none())
        .then_output(move || page(expired("snap-1", 1)).next_token("2").build());
    let second = mock!(Client::describe_snapshots)
        .match_requests(|request| request.next_token() == Some("2"))
        .then_output(move || page(expired("snap-2", 2)).build());
    let mut invocation = invocation(&[&first, &second, &instances(), &may_delete("DryRunOperation")]);
    invocation.event.dry_run = true;
    let report = super::clean_up(invocation).await.unwrap().into_report();
    assert_eq!(report.managed, 2);
    assert_eq!(report.would_delete[0].snapshot, "snap-1");
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_deletes_nothing() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2)]);
    let report = account.clean_up(|invocation| invocation.event.dry_run = true).await.unwrap();
    assert_eq!(report.summary(), "dry run: 1 snapshot would be deleted, 1 held, 0 not due");
    assert!(report.failures().is_empty());
    assert_eq!(account.left(), ["snap-1", "snap-2"]);
}

#[tokio::test]
async fn a_dry_run_finds_the_missing_right_before_the_night_does() {
    let snapshots = [expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)];
    let dry_run = async |answer| {
        let list = mock!(Client::describe_snapshots).match_requests(|_| true).then_output({
            let snapshots = snapshots.clone();
            move || DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots.to_vec())).build()
        });
        let mut invocation = invocation(&[&list, &instances(), &answer]);
        invocation.event.dry_run = true;
        let report = super::clean_up(invocation).await.unwrap().into_report();
        assert_eq!(answer.num_calls(), 1, "the first one speaks for all");
        assert_eq!(report.would_delete.len(), 2);
        report.failures()
    };
    assert!(dry_run(may_delete("DryRunOperation")).await.is_empty());
    assert!(dry_run(may_delete("InvalidSnapshot.InUse")).await.is_empty());
    let denied = dry_run(may_delete("UnauthorizedOperation")).await;
    assert!(
        denied[0].starts_with("UnauthorizedOperation: a real run could not delete: as asked"),
        "{denied:?}"
    );
    let ignored = mock!(Client::delete_snapshot)
        .match_requests(|_| true)
        .then_output(|| DeleteSnapshotOutput::builder().build());
    assert!(dry_run(ignored).await[0].contains("although it was asked for a dry run"));
}

#[tokio::test]
async fn snapshots_in_use_never_take_the_place_of_those_that_can_go() {
    let ids = ["snap-1", "snap-2", "snap-3", "snap-4", "snap-5"];
    for in_use in 0..1_u32 << ids.len() {
        for max in 1..=4 {
            let mut snapshots: Vec<_> = ids.into_iter().zip(1..).map(|(id, day)| expired(id, day)).collect();
            snapshots.push(future("snap-9", 9));
            let account = Account::with(&snapshots);
            let (held, free): (Vec<_>, Vec<_>) =
                ids.into_iter().enumerate().partition(|(index, _)| in_use & 1 << index != 0);
            for (_, id) in &held {
                account.answers(id, "InvalidSnapshot.InUse");
            }
            let report =
                account.clean_up(|invocation| invocation.settings.policy.max_deletes = max).await.unwrap();
            let mut deleted: Vec<_> =
                report.deleted.iter().map(|deleted| deleted.snapshot.as_str()).collect();
            deleted.sort_unstable();
            let expected: Vec<_> = free.iter().map(|(_, id)| *id).take(max as usize).collect();
            assert_eq!(deleted, expected, "at most {max}, in use: {held:?}");
            assert_eq!(report.deleted.len() + report.held.len() + report.postponed, ids.len());
            assert!(report.failures().is_empty());
        }
    }
}

#[tokio::test]
async fn the_limit_of_a_run_leaves_the_youngest_for_the_next_and_is_no_failure() {
    let snapshots = [expired("snap-3", 3), expired("snap-1", 1), expired("snap-2", 2), future("snap-4", 4)];
    let dry = Account::with(&snapshots);
    let report = dry
        .clean_up(|invocation| {
            invocation.settings.policy.max_deletes = 2;
            invocation.event.dry_run = true;
        })
        .await
        .unwrap();
    assert_eq!(report.would_delete.len(), 2);
    let account = Account::with(&snapshots);
    let report = account.clean_up(|invocation| invocation.settings.policy.max_deletes = 2).await.unwrap();
    assert_eq!(account.left(), ["snap-3", "snap-4"]);
    assert_eq!(report.warnings, ["left to the next run, although due: 1"]);
    assert!(report.failures().is_empty());
}

#[tokio::test]
async fn a_deletion_whose_answer_got_lost_counts_against_the_limit() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
    account.answers("snap-1", "");
    let report = account.clean_up(|invocation| invocation.settings.policy.max_deletes = 1).await.unwrap();
    assert_eq!(account.left(), ["snap-1", "snap-2", "snap-3"]);
    assert_eq!((report.failed.len(), report.postponed), (1, 1));
}

#[tokio::test]
async fn hundreds_of_deletions_are_verified_within_ec2s_limits() {
    let mut snapshots: Vec<_> = (0..450).map(|number| expired(&format!("snap-{number:03}"), 1)).collect();
    snapshots.push(future("snap-new", 2));
    let account = Account::with(&snapshots);
    tokio::time::pause();
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.deleted.len(), 450);
    assert_eq!(report.failures(), [""; 0]);
}

#[tokio::test]
async fn what_is_deleted_is_reported_even_if_nobody_can_look_afterwards() {
    let first = mock!(Client::describe_snapshots)
        .match_requests(|request| request.filters().len() == 1)
        .then_output(|| {
            let snapshots = vec![expired("snap-1", 1), future("snap-2", 2)];
            DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots)).build()
        });
    let second = mock!(Client::describe_snapshots).match_requests(|request| request.filters().len() == 2);
    let second = second.then_error(|| {
        let error = ErrorMetadata::builder().code("UnauthorizedOperation").message("as asked").build();
        DescribeSnapshotsError::generic(error)
    });
    let deletes = mock!(Client::delete_snapshot)
        .match_requests(|_| true)
        .then_output(|| DeleteSnapshotOutput::builder().build());
    let report =
        super::clean_up(invocation(&[&first, &second, &deletes, &instances()])).await.unwrap().into_report();
    assert_eq!(report.deleted[0].snapshot, "snap-1");
    let failures = report.failures();
    assert!(
        failures[0].starts_with("UnauthorizedOperation: 1 deletion could not be verified: could not list"),
        "{failures:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn looking_whether_they_are_gone_does_not_outlast_the_function() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    account.answers("snap-1", "pretends");
    let start = Instant::now();
    let report = account.clean_up(|invocation| invocation.deadline = in_seconds(10)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(
        report.failures()[0].starts_with("1 deletion could not be verified: the function was out of time"),
        "{:?}",
        report.failures()
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_dissolves_when_time_is_up() {
    let mut snapshots: Vec<_> = (0..500).map(|number| expired(&format!("snap-{number:03}"), 1)).collect();
    snapshots.push(future("snap-new", 2));
    let account = Account::with(&snapshots);
    let start = Instant::now();
    let report = account.clean_up(|invocation| invocation.deadline = in_seconds(40)).await.unwrap();
    // 80 at once and 4 a second for 30 seconds. To let the others queue would take 75 seconds more.
    assert!(start.elapsed() < Duration::from_secs(35), "{:?}", start.elapsed());
    assert!((190..=210).contains(&report.deleted.len()), "{}", report.deleted.len());
    assert_eq!(report.deleted.len() + report.out_of_time, 500);
}

#[tokio::test]
async fn a_snapshot_that_an_ami_needs_is_held_and_one_gone_meanwhile_is_done() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
    account.answers("snap-1", "InvalidSnapshot.InUse");
    account.loses("snap-2");
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.held[0].fence, Fence::InUse);
    assert_eq!(report.held[0].snapshot.snapshot, "snap-1");
    assert_eq!(report.deleted[0].snapshot, "snap-2");
    assert!(report.failures().is_empty());
}

#[tokio::test]
async fn one_failed_deletion_stops_no_other_and_is_named() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
    account.answers("snap-1", "UnauthorizedOperation");
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(account.left(), ["snap-1", "snap-3"]);
    let failures = report.failures();
    assert!(failures[0].starts_with("snap-1: UnauthorizedOperation: as asked (hint: "), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_did_not_happen_is_not_reported_as_done() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    account.answers("snap-1", "pretends");
    let report = account.clean_up(|_| ()).await.unwrap();
    assert!(report.deleted.is_empty());
    assert!(report.failures()[0].starts_with("snap-1: EC2 accepted the deletion, but still lists"));
}

#[tokio::test]
async fn a_run_out_of_time_fails_so_that_its_retry_does_the_rest() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    let report = account.clean_up(|invocation| invocation.deadline = Deadline::passed()).await.unwrap();
    assert_eq!((report.out_of_time, report.postponed), (1, 0));
    assert_eq!(account.left(), ["snap-1", "snap-2"]);
    let failures = report.failures();
    assert!(failures[0].starts_with("out of time, with 1 snapshot still to delete"), "{failures:?}");
}

#[tokio::test]
async fn archived_pending_and_unreadable_snapshots_stay() {
    let changed = |id: &str, change: fn(&mut types::Snapshot)| {
        let mut snapshot = expired(id, 1);
        change(&mut snapshot);
        snapshot
    };
    let account = Account::with(&[
        changed("snap-1", |snapshot| snapshot.storage_tier = Some(StorageTier::Archive)),
        changed("snap-2", |snapshot| snapshot.state = Some(SnapshotState::Pending)),
        changed("snap-3", |snapshot| snapshot.tags.iter_mut().flatten().for_each(|tag| tag.value = None)),
        changed("snap-4", |snapshot| snapshot.tags = None),
        changed("snap-5", |snapshot| snapshot.state = None),
        // Out of the archive for some days, and a copy that has to stay all the same.
        changed("snap-6", |snapshot| snapshot.restore_expiry_time = Some(DateTime::from_secs(1_800_000_000))),
        future("snap-7", 3),
    ]);
    account.clean_up(|_| ()).await.unwrap();
    assert_eq!(account.left().len(), 7);
}

#[tokio::test]
async fn what_is_held_for_good_is_counted_beyond_what_is_listed() {
    let count = CleanupReport::MAX_HELD + 10;
    let snapshots: Vec<_> =
        (0..count).map(|number| snapshot(&format!("snap-{number:05}"), 1, "soon")).collect();
    let report = Account::with(&snapshots).clean_up(|_| ()).await.unwrap();
    assert_eq!((report.held.len(), report.held_unlisted), (CleanupReport::MAX_HELD, 10));
    assert!(report.warnings[0].starts_with("4010 held for good, snap-00000 the first: its DeleteOn tag"));
}

#[tokio::test]
async fn a_snapshot_of_aws_backup_is_failed_with_where_it_can_be_deleted() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    account.answers("snap-1", "InvalidParameterValue");
    let report = account.clean_up(|_| ()).await.unwrap();
    assert!(report.failures()[0].contains("AWS Backup"), "{:?}", report.failures());
}

#[tokio::test]
async fn nothing_to_delete_asks_ec2_about_no_ids() {
    // A request for "these ids" without any would list, or mean, all.
    let list = mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .then_output(|| DescribeSnapshotsOutput::builder().build());
    super::clean_up(invocation(&[&list, &instances()])).await.unwrap();
    assert_eq!(list.num_calls(), 1);
}

/// An account that lists and deletes snapshots of one existing instance, `i-1`.
struct Account {
    snapshots: Arc<Mutex<Vec<types::Snapshot>>>,
    answers: Mutex<Vec<(String, &'static str)>>,
}

impl Account {
    fn with(snapshots: &[types::Snapshot]) -> Self {
        Self { snapshots: Arc::new(Mutex::new(snapshots.to_vec())), answers: Mutex::default() }
    }

    /// Lets the deletion of a snapshot end with this code, or only pretend to happen.
    fn answers(&self, id: &str, code: &'static str) {
        self.answers.lock().unwrap().push((id.to_owned(), code));
    }

    /// Lets a snapshot vanish between list and deletion.
    fn loses(&self, id: &str) {
        self.answers(id, "InvalidSnapshot.NotFound");
    }

    fn left(&self) -> Vec<String> {
        self.snapshots.lock().unwrap().iter().filter_map(|snapshot| snapshot.snapshot_id.clone()).collect()
    }

    async fn clean_up(
        &self,
        change: impl FnOnce(&mut Invocation<CleanupSettings>),
    ) -> Result<CleanupReport, Failure> {
        let snapshots = Arc::clone(&self.snapshots);
        let list =
            mock!(Client::describe_snapshots).match_requests(|_| true).then_compute_output(move |request| {
                let values: usize = request.filters().iter().map(|filter| filter.values().len()).sum();
                assert!(values <= 200, "EC2 refuses {values} filter values");
                let wanted = request.filters().iter().find(|filter| filter.name() == Some("snapshot-id"));
                let mut found = snapshots.lock().unwrap().clone();
                found.retain(|snapshot| {
                    wanted
                        .is_none_or(|filter| filter.values().contains(snapshot.snapshot_id.as_ref().unwrap()))
                });
                DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build()
            });
        let mut rules = vec![list, instances(), may_delete("DryRunOperation")];
        for (id, code) in self.answers.lock().unwrap().clone() {
            let snapshots = Arc::clone(&self.snapshots);
            let asked = id.clone();
            let rule = mock!(Client::delete_snapshot)
                .match_requests(move |request| request.snapshot_id() == Some(&asked));
            rules.push(match code {
                "pretends" => rule.then_output(|| DeleteSnapshotOutput::builder().build()),
                code => rule.then_error(move || {
                    if code == "InvalidSnapshot.NotFound" {
                        snapshots.lock().unwrap().retain(|snapshot| snapshot.snapshot_id() != Some(&id));
                    }
                    delete_error(code)
                }),
            });
        }
        let snapshots = Arc::clone(&self.snapshots);
        rules.push(mock!(Client::delete_snapshot).match_requests(|_| true).then_compute_output(
            move |request| {
                snapshots.lock().unwrap().retain(|snapshot| snapshot.snapshot_id() != request.snapshot_id());
                DeleteSnapshotOutput::builder().build()
            },
        ));
        let mut invocation = invocation(&rules.iter().collect::<Vec<_>>());
        change(&mut invocation);
        super::clean_up(invocation).await.map(Ended::into_report)
    }
}

fn invocation(rules: &[&Rule]) -> Invocation<CleanupSettings> {
    let settings = r#"{
        "environment": "prod", "timezone": "UTC", "alias_arn": "arn",
        "policy": {"floor": 1, "orphan_floor_days": 90, "max_deletes": 5000}
    }"#;
    let at = "2026-11-22T03:00:00Z".parse().unwrap();
    let event = Event::manual(at, false);
    Invocation {
        settings: serde_json::from_str(settings).unwrap(),
        clock: event.clock(at).unwrap(),
        event,
        ec2: Ec2::new(&mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules), true, NonZeroU16::MIN),
        deadline: Deadline::never(),
        started: Instant::now(),
        may_hand_on: false,
    }
}

/// A function that Lambda ends after so many seconds.
fn in_seconds(seconds: u64) -> Deadline {
    let now = std::time::SystemTime::now();
    Deadline::of(now + Duration::from_secs(seconds), now)
}

/// What EC2 answers to the dry run of a deletion.
fn may_delete(code: &'static str) -> Rule {
    mock!(Client::delete_snapshot)
        .match_requests(|request| request.dry_run() == Some(true))
        .then_error(move || delete_error(code))
}

/// An error with this code, or with none, as when no answer came.
fn delete_error(code: &str) -> DeleteSnapshotError {
    let error = ErrorMetadata::builder().message("as asked");
    DeleteSnapshotError::generic(if code.is_empty() { error } else { error.code(code) }.build())
}

fn instances() -> Rule {
    mock!(Client::describe_instances).match_requests(|_| true).then_output(|| {
        let instance = Instance::builder().instance_id("i-1").build();
        let reservation = Reservation::builder().instances(instance).build();
        DescribeInstancesOutput::builder().reservations(reservation).build()
    })
}

fn expired(id: &str, day: u8) -> types::Snapshot {
    snapshot(id, day, "2026-11-22")
}

fn future(id: &str, day: u8) -> types::Snapshot {
    snapshot(id, day, "2026-11-23")
}

fn snapshot(id: &str, day: u8, delete_on: &str) -> types::Snapshot {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    types::Snapshot::builder()
        .snapshot_id(id)
        .volume_id("vol-1")
        .state(SnapshotState::Completed)
        .storage_tier(StorageTier::Standard)
        .start_time(DateTime::from_secs(1_793_498_400 + 86_400 * i64::from(day)))
        .tags(tag("snapwarden:environment", "prod"))
        .tags(tag("snapwarden:instance", "i-1"))
        .tags(tag("snapwarden:run", &format!("g/backup@2026-11-{day:02}T02:00:00Z")))
        .tags(tag("DeleteOn", delete_on))
        .build()
}

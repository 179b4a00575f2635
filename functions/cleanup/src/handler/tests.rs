use std::sync::{Arc, Mutex};

use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
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
    let mut invocation = invocation(&[&first, &second, &instances()]);
    invocation.event.dry_run = true;
    let report = super::clean_up(invocation).await.unwrap();
    assert_eq!(report.managed, 2);
    assert_eq!(report.would_delete[0].snapshot, "snap-1");
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_deletes_nothing() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2)]);
    let report = account.clean_up(|invocation| invocation.event.dry_run = true).await.unwrap();
    assert_eq!(report.summary(), "dry run: 1 snapshot would be deleted, 1 held, 0 not due");
    assert_eq!(account.left(), ["snap-1", "snap-2"]);
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
async fn a_run_out_of_time_leaves_the_rest_and_says_so() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    let report = account.clean_up(|invocation| invocation.deadline = Deadline::passed()).await.unwrap();
    assert_eq!(report.postponed, 1);
    assert_eq!(account.left(), ["snap-1", "snap-2"]);
    assert_eq!(report.warnings, ["left to the next run, although due: 1"]);
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
    ]);
    account.clean_up(|_| ()).await.unwrap();
    assert_eq!(account.left().len(), 5);
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
                let wanted = request.filters().iter().find(|filter| filter.name() == Some("snapshot-id"));
                let mut found = snapshots.lock().unwrap().clone();
                found.retain(|snapshot| {
                    wanted
                        .is_none_or(|filter| filter.values().contains(snapshot.snapshot_id.as_ref().unwrap()))
                });
                DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build()
            });
        let mut rules = vec![list, instances()];
        for (id, code) in self.answers.lock().unwrap().clone() {
            let snapshots = Arc::clone(&self.snapshots);
            let rule = mock!(Client::delete_snapshot)
                .match_requests(move |request| request.snapshot_id() == Some(&id));
            rules.push(match code {
                "pretends" => rule.then_output(|| DeleteSnapshotOutput::builder().build()),
                code => rule.then_error(move || {
                    if code == "InvalidSnapshot.NotFound" {
                        snapshots.lock().unwrap().retain(|snapshot| snapshot.snapshot_id() != Some("snap-2"));
                    }
                    let error = ErrorMetadata::builder().code(code).message("as asked").build();
                    DeleteSnapshotError::generic(error)
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
        super::clean_up(invocation).await
    }
}

fn invocation(rules: &[&Rule]) -> Invocation<CleanupSettings> {
    let settings = r#"{
        "environment": "prod", "timezone": "UTC",
        "policy": {"floor": 1, "orphan_floor_days": 90, "max_deletes": 5000}
    }"#;
    let at = "2026-11-22T03:00:00Z".parse().unwrap();
    let event = Event::manual(at, false);
    Invocation {
        settings: serde_json::from_str(settings).unwrap(),
        clock: event.clock(at).unwrap(),
        event,
        ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules),
        deadline: Deadline::never(),
        started: Instant::now(),
    }
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
        .tags(tag("snapwarden:environment", "prod"))
        .tags(tag("snapwarden:instance", "i-1"))
        .tags(tag("snapwarden:run", &format!("g/backup@2026-11-{day:02}T02:00:00Z")))
        .tags(tag("DeleteOn", delete_on))
        .build()
}

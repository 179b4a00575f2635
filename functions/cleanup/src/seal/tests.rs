use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::copy_snapshot::{CopySnapshotError, CopySnapshotInput, CopySnapshotOutput};
use aws_sdk_ec2::operation::delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput};
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
use aws_sdk_ec2::operation::describe_snapshots::{DescribeSnapshotsInput, DescribeSnapshotsOutput};
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{self, Instance, Reservation, SnapshotState, StorageTier, Tag};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use futures::FutureExt as _;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::Report as _;
use snapwarden_runtime::{Deadline, Roles};
use tokio::time::Instant;

use super::*;

const KEY: &str = "alias/backup";

/// The whole way: clear, copying, sealed, and the clear one gone; each step by a pass of its own.
#[tokio::test(start_paused = true)]
async fn a_snapshot_in_clear_text_is_replaced_by_its_encrypted_copy() {
    let account = Account::with(vec![clear("snap-1")]);
    let report = account.pass().await.unwrap();
    assert_eq!(report.summary(), "1 encrypted copy begun, 0 replaced by their copies, 1 in clear text");
    let copy = account.only_copy();
    assert_eq!((copy.encrypted(), copy.kms_key_id()), (Some(true), Some(KEY)));
    for (key, value) in [
        ("snapwarden:source-snapshot", "snap-1"),
        ("snapwarden:source-volume", "vol-1"),
        ("snapwarden:started-at", "2026-11-21T02:00:00Z"),
        ("snapwarden:environment", "prod"),
        ("snapwarden:instance", "i-1"),
        ("snapwarden:run", "g/backup@2026-11-21T02:00:00Z"),
        ("DeleteOn", "2026-12-22"),
        ("team", "web"),
    ] {
        assert_eq!(shared::tag(copy.tags(), key), Some(value), "{key}");
    }

    let report = account.pass().await.unwrap();
    assert_eq!((report.copying.len(), account.copies_begun()), (1, 1), "a pending copy is waited for");
    assert_eq!(account.left(), ["copy-1", "snap-1"]);
    account.settle(&SnapshotState::Completed);
    let report = account.pass().await.unwrap();
    assert_eq!(report.sealed[0].copy.as_deref(), Some("copy-1"));
    assert_eq!((report.unencrypted_snapshots, report.failures()), (0, Vec::new()));
    assert_eq!(account.left(), ["copy-1"]);
    let report = account.pass().await.unwrap();
    assert_eq!(report.effort.api_calls, 1, "where everything is sealed, a pass only looks");
}

/// Keys that may not be used show only hours later. Nothing is lost meanwhile, somebody is told, and it is tried again.
#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_keeps_its_source_and_is_told() {
    let account = Account::with(vec![clear("snap-1")]);
    account.pass().await.unwrap();
    account.settle(&SnapshotState::Error);
    let report = account.pass().await.unwrap();
    assert_eq!((account.left(), account.copies_begun()), (vec!["copy-1".into(), "snap-1".into()], 1));
    let failure = &report.failed[0].failure;
    assert!(failure.message.contains("copy-1 failed: the key is not accessible"), "{failure}");
    let failed = report.metrics().into_iter().find(|metric| metric.name == "CopiesFailed").unwrap();
    assert!((failed.value - 1.0).abs() < f64::EPSILON);
    assert_eq!(report.failures(), Vec::<String>::new(), "the next pass is near: no repetition by Lambda");

    let later = |invocation: &mut Invocation<CleanupSettings>| at(invocation, "2026-11-22T18:00:10Z");
    account.run(later).await.unwrap();
    assert_eq!(
        account.left(),
        ["copy-2", "snap-1"],
        "after six hours, the failed one has made place for another"
    );
    account.settle(&SnapshotState::Completed);
    account.run(later).await.unwrap();
    assert_eq!(account.left(), ["copy-2"]);
}

/// A person who waits for the answer must not take it for a success.
#[tokio::test(start_paused = true)]
async fn by_hand_a_refused_copy_fails_the_pass() {
    let account = Account::with(vec![clear("snap-1"), clear("snap-2")]);
    account.contents().copy_answer = Some("UnauthorizedOperation");
    let report =
        account.run(|invocation| invocation.event.schedule = "manual".parse().unwrap()).await.unwrap();
    assert_eq!(report.failures().len(), 1, "{:?}", report.failures());
    assert!(report.failures()[0].starts_with("snap-1: UnauthorizedOperation: not copied"), "{report:?}");
    assert_eq!(
        (account.contents().copy_calls, report.waiting),
        (1, 1),
        "what is denied once is denied to all"
    );
}

/// The quota is the account's: others copy as well.
#[tokio::test(start_paused = true)]
async fn where_ec2_takes_no_more_copies_the_rest_waits() {
    let account = Account::with((10..40).map(|number| clear(&format!("snap-{number}"))).collect());
    account.contents().places = 5;
    let report = account.pass().await.unwrap();
    assert_eq!((report.begun.len(), report.waiting, report.failed.len()), (5, 25, 0));
    assert!(report.warnings[0].contains("takes no more copies"), "{:?}", report.warnings);
    account.contents().places = usize::MAX;
    let report = account.pass().await.unwrap();
    assert_eq!((report.copying.len(), report.begun.len(), report.waiting), (5, 15, 10), "20 at a time");
}

/// More than fit among the copies at a time, and first in every pass: what can be sealed must not wait for them for ever.
#[tokio::test(start_paused = true)]
async fn what_ec2_refuses_takes_no_place_from_the_next() {
    let ids: Vec<_> = (10..40).map(|number| format!("snap-{number}")).collect();
    let account = Account::with(ids.iter().map(|id| clear(id)).collect());
    account.contents().refused = ids[..25].to_vec();
    let report = account.pass().await.unwrap();
    assert_eq!((report.begun.len(), report.failed.len(), report.waiting), (5, 25, 0));
}

/// EC2 copied, and its answer got lost: asking again would make a second one.
#[tokio::test(start_paused = true)]
async fn a_copy_whose_answer_got_lost_is_found_by_the_next_pass() {
    for code in ["InternalError", ""] {
        let account = Account::with(vec![clear("snap-1")]);
        account.contents().lost = Some(code);
        let report = account.pass().await.unwrap();
        assert!(report.failed[0].failure.message.contains("may have been begun"), "{report:?}");
        assert_eq!(account.contents().copy_calls, 1, "no repetition, not even by the SDK: {code:?}");
        account.contents().lost = None;
        let report = account.pass().await.unwrap();
        assert_eq!((report.copying.len(), account.copies_begun()), (1, 1));
    }
}

/// Between the list and the deletion, somebody deletes the copy: the clear one is then the last.
#[tokio::test(start_paused = true)]
async fn a_copy_that_vanishes_takes_nothing_with_it() {
    let account = Account::with(vec![clear("snap-1")]);
    account.pass().await.unwrap();
    account.settle(&SnapshotState::Completed);
    account.contents().vanishing = Some("copy-1");
    let report = account.pass().await.unwrap();
    assert_eq!((report.sealed.len(), account.left()), (0, vec!["snap-1".into()]));
    account.contents().vanishing = None;
    account.pass().await.unwrap();
    assert_eq!(account.left(), ["copy-2", "snap-1"], "it is copied again");
}

/// Lambda may end the process at any call. Afterwards everything is sealed, once.
#[tokio::test(start_paused = true)]
async fn a_pass_killed_at_any_call_is_finished_by_the_next_ones() {
    for kill_at in 1..=8 {
        for after_ec2_acts in [true, false] {
            let account = Account::with(vec![clear("snap-1"), clear("snap-2"), clear("snap-3")]);
            account.contents().killed_at = Some((kill_at, after_ec2_acts));
            for _ in 0..6 {
                let killed = AssertUnwindSafe(account.pass()).catch_unwind().await.is_err();
                if killed {
                    account.contents().killed_at = None;
                }
                account.settle(&SnapshotState::Completed);
            }
            let left = account.left();
            assert_eq!(left.len(), 3, "killed at {kill_at}, after EC2 acts: {after_ec2_acts}: {left:?}");
            assert!(left.iter().all(|id| id.starts_with("copy-")), "{left:?}");
        }
    }
}

/// What a fence holds stays, whatever copies there are.
#[tokio::test(start_paused = true)]
async fn a_fence_that_shows_only_at_the_deletion_holds() {
    let account = Account::with(vec![clear("snap-1")]);
    account.pass().await.unwrap();
    account.settle(&SnapshotState::Completed);
    account.contents().delete_answer = Some("InvalidSnapshot.InUse");
    let report = account.pass().await.unwrap();
    assert_eq!((report.sealed.len(), report.held.len(), report.unencrypted_snapshots), (0, 1, 1));
    assert_eq!(account.left(), ["copy-1", "snap-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let account = Account::with(vec![clear("snap-1"), clear("snap-2")]);
    let dry = |invocation: &mut Invocation<CleanupSettings>| invocation.event.dry_run = true;
    let report = account.run(dry).await.unwrap();
    assert_eq!((report.begun.len(), report.failures()), (2, Vec::new()));
    assert_eq!(account.left(), ["snap-1", "snap-2"]);
    account.contents().copy_answer = Some("UnauthorizedOperation");
    let failures = account.run(dry).await.unwrap().failures();
    assert!(failures[0].contains("a real pass could not copy"), "{failures:?}");
}

#[tokio::test]
async fn where_sealing_is_off_an_event_cannot_switch_it_on() {
    let account = Account::with(vec![clear("snap-1")]);
    let off =
        |invocation: &mut Invocation<CleanupSettings>| invocation.settings.encryption = Encryption::Report;
    let failure = account.run(off).await.unwrap_err();
    assert!(failure.message.contains("nothing is to be sealed"), "{failure}");
    assert_eq!(account.left(), ["snap-1"]);
}

/// An account that lists, copies and deletes snapshots of one existing instance, `i-1`.
#[derive(Clone, Default)]
struct Account(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    snapshots: Vec<types::Snapshot>,
    copy_calls: usize,
    /// How EC2 answers every copy; it makes none then.
    copy_answer: Option<&'static str>,
    /// It answers the copies of these so that they are refused.
    refused: Vec<String>,
    /// It makes the copy, and answers with this code, or not at all.
    lost: Option<&'static str>,
    /// How many more copies EC2 takes.
    places: usize,
    delete_answer: Option<&'static str>,
    /// Goes between two looks at it.
    vanishing: Option<&'static str>,
    /// The number of the change that kills the pass, counted from one, and whether EC2 has acted on it by then.
    killed_at: Option<(usize, bool)>,
    changes: usize,
}

impl Account {
    fn with(snapshots: Vec<types::Snapshot>) -> Self {
        Self(Arc::new(Mutex::new(Contents { snapshots, places: usize::MAX, ..Contents::default() })))
    }

    /// The contents, also after a pass was killed.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> Vec<String> {
        let mut ids: Vec<_> =
            self.contents().snapshots.iter().filter_map(|one| one.snapshot_id.clone()).collect();
        ids.sort();
        ids
    }

    fn only_copy(&self) -> types::Snapshot {
        self.contents().snapshots.iter().find(|one| one.encrypted() == Some(true)).cloned().unwrap()
    }

    fn copies_begun(&self) -> usize {
        self.contents().snapshots.iter().filter(|one| one.encrypted() == Some(true)).count()
    }

    /// Lets all copies that are being made end like this.
    fn settle(&self, state: &SnapshotState) {
        for snapshot in &mut self.contents().snapshots {
            if snapshot.state() == Some(&SnapshotState::Pending) {
                snapshot.state_message =
                    (*state == SnapshotState::Error).then(|| "the key is not accessible".to_owned());
                snapshot.state = Some(state.clone());
            }
        }
    }

    async fn pass(&self) -> Result<SealingReport, Failure> {
        self.run(|_| ()).await
    }

    async fn run(
        &self,
        change: impl FnOnce(&mut Invocation<CleanupSettings>),
    ) -> Result<SealingReport, Failure> {
        let account = self.clone();
        let list = mock!(Client::describe_snapshots)
            .match_requests(|_| true)
            .then_compute_response(move |request| MockResponse::Output(account.list(request)));
        let account = self.clone();
        let copy = mock!(Client::copy_snapshot)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.copy(request));
        let account = self.clone();
        let delete = mock!(Client::delete_snapshot)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.delete(request.snapshot_id().unwrap_or_default()));
        let mut invocation = invocation(&[&list, &copy, &delete]);
        change(&mut invocation);
        super::seal(invocation).await
    }

    fn list(&self, request: &DescribeSnapshotsInput) -> DescribeSnapshotsOutput {
        let mut contents = self.contents();
        let by_id = request.filters().iter().find(|filter| filter.name() == Some("snapshot-id"));
        if by_id.is_some() {
            let vanishing = contents.vanishing;
            contents.snapshots.retain(|one| one.snapshot_id() != vanishing);
        }
        let mut found = contents.snapshots.clone();
        if let Some(filter) = by_id {
            found.retain(|one| filter.values().contains(one.snapshot_id.as_ref().unwrap()));
        }
        DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build()
    }

    fn copy(&self, request: &CopySnapshotInput) -> MockResponse<CopySnapshotOutput, CopySnapshotError> {
        let refusal = |code: &str| {
            let error = ErrorMetadata::builder().message("as asked");
            let error = if code.is_empty() { error } else { error.code(code) };
            MockResponse::Error(CopySnapshotError::generic(error.build()))
        };
        let mut contents = self.contents();
        contents.copy_calls += 1;
        if let Some(code) = contents.copy_answer {
            return refusal(code);
        }
        if contents.refused.iter().any(|id| request.source_snapshot_id() == Some(id)) {
            return refusal("InvalidParameterValue");
        }
        if request.dry_run() == Some(true) {
            return refusal("DryRunOperation");
        }
        if contents.places == 0 {
            return refusal("ResourceLimitExceeded");
        }
        let killed = change(&mut contents);
        assert_ne!(killed, Some(false), "killed before EC2 acts");
        contents.places -= 1;
        let id = format!("copy-{}", contents.copy_calls);
        let tags = request.tag_specifications()[0].tags().to_vec();
        // EC2 tells nothing of the source but its size.
        let copy = types::Snapshot::builder()
            .snapshot_id(&id)
            .volume_id("vol-ffffffff")
            .volume_size(8)
            .state(SnapshotState::Pending)
            .storage_tier(StorageTier::Standard)
            .start_time(DateTime::from_secs(NOW + i64::try_from(contents.copy_calls).unwrap()))
            .set_encrypted(request.encrypted())
            .set_kms_key_id(request.kms_key_id().map(str::to_owned))
            .set_tags(Some(tags));
        contents.snapshots.push(copy.build());
        assert!(killed.is_none(), "killed before EC2's answer comes");
        match contents.lost {
            Some(code) => refusal(code),
            None => MockResponse::Output(CopySnapshotOutput::builder().snapshot_id(id).build()),
        }
    }

    fn delete(&self, id: &str) -> MockResponse<DeleteSnapshotOutput, DeleteSnapshotError> {
        let mut contents = self.contents();
        if let Some(code) = contents.delete_answer {
            let error = ErrorMetadata::builder().code(code).message("as asked").build();
            return MockResponse::Error(DeleteSnapshotError::generic(error));
        }
        let killed = change(&mut contents);
        assert_ne!(killed, Some(false), "killed before EC2 acts");
        contents.snapshots.retain(|one| one.snapshot_id() != Some(id));
        assert!(killed.is_none(), "killed before EC2's answer comes");
        MockResponse::Output(DeleteSnapshotOutput::builder().build())
    }
}

/// Counts a change; says whether it kills the pass, and if so, whether EC2 acts before.
fn change(contents: &mut Contents) -> Option<bool> {
    contents.changes += 1;
    contents.killed_at.filter(|(at, _)| *at == contents.changes).map(|(_, after_ec2_acts)| after_ec2_acts)
}

/// 2026-11-22T12:00:00Z.
const NOW: i64 = 1_795_348_800;

fn at(invocation: &mut Invocation<CleanupSettings>, time: &str) {
    let time = time.parse().unwrap();
    invocation.event.scheduled_at = time;
    invocation.clock = invocation.event.clock(time).unwrap();
    invocation.real_now = time;
}

fn invocation(rules: &[&Rule]) -> Invocation<CleanupSettings> {
    let settings = r#"{
        "environment": "prod", "timezone": "UTC", "alias_arn": "arn",
        "policy": {
            "floor": 1, "orphan_floor_days": 90, "max_deletes": 5000, "mass_deletion_percent": 100
        },
        "select": {"tag": "Backup", "value": "true"}, "backup_interval_hours": 24,
        "encryption": {"require": "enforce", "kms_key": "alias/backup"}
    }"#;
    let around = surroundings();
    let rules: Vec<_> = rules.iter().copied().chain(&around).collect();
    let now = jiff::Timestamp::from_second(NOW).unwrap();
    let schedule = "snapwarden-prod/seal".parse().unwrap();
    let event = Event { seal: true, schedule, ..Event::manual(now, false) };
    Invocation {
        settings: serde_json::from_str(settings).unwrap(),
        clock: event.clock(now).unwrap(),
        real_now: now,
        event,
        ec2: Ec2::new(&mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &rules), true, NonZeroU16::MIN),
        roles: Roles::default(),
        is_emulated: false,
        deadline: Deadline::never(),
        started: Instant::now(),
        may_hand_on: false,
    }
}

/// What else a pass asks about: one instance, no AMI, no lock, no volume.
fn surroundings() -> [Rule; 4] {
    [
        mock!(Client::describe_instances).match_requests(|_| true).then_output(|| {
            let instance = Instance::builder().instance_id("i-1").build();
            let reservation = Reservation::builder().instances(instance).build();
            DescribeInstancesOutput::builder().reservations(reservation).build()
        }),
        mock!(Client::describe_images)
            .match_requests(|_| true)
            .then_output(|| DescribeImagesOutput::builder().build()),
        mock!(Client::describe_locked_snapshots)
            .match_requests(|_| true)
            .then_output(|| DescribeLockedSnapshotsOutput::builder().build()),
        mock!(Client::describe_volumes)
            .match_requests(|_| true)
            .then_output(|| DescribeVolumesOutput::builder().build()),
    ]
}

fn clear(id: &str) -> types::Snapshot {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    types::Snapshot::builder()
        .snapshot_id(id)
        .volume_id("vol-1")
        .volume_size(8)
        .encrypted(false)
        .state(SnapshotState::Completed)
        .storage_tier(StorageTier::Standard)
        .start_time(DateTime::from_secs(NOW - 34 * 3600))
        .tags(tag("snapwarden:environment", "prod"))
        .tags(tag("snapwarden:instance", "i-1"))
        .tags(tag("snapwarden:run", "g/backup@2026-11-21T02:00:00Z"))
        .tags(tag("DeleteOn", "2026-12-22"))
        .tags(tag("team", "web"))
        .build()
}

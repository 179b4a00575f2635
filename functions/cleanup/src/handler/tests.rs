use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput};
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
use aws_sdk_ec2::operation::describe_snapshots::{
    DescribeSnapshotsError, DescribeSnapshotsInput, DescribeSnapshotsOutput,
};
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{self, Instance, Reservation, SnapshotState, StorageTier, Tag};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use futures::FutureExt as _;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::Report as _;
use snapwarden_runtime::Roles;
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
    let mut invocation = invocation(&[&first, &second, &may_delete("DryRunOperation")]);
    invocation.event.dry_run = true;
    let report = clean_up_once(invocation).await.unwrap().into_report();
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
        let mut invocation = invocation(&[&list, &answer]);
        invocation.event.dry_run = true;
        let report = clean_up_once(invocation).await.unwrap().into_report();
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
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.snapshot.snapshot.as_str(), kept.fence)).collect();
    assert_eq!(kept, [("snap-3", Fence::RunLimit), ("snap-4", Fence::NotDue)], "what stays, with reasons");
    let account = Account::with(&snapshots);
    let report = account.clean_up(|invocation| invocation.settings.policy.max_deletes = 2).await.unwrap();
    assert_eq!(account.left(), ["snap-3", "snap-4"]);
    assert!(report.warnings[0].starts_with("left to the next run, although due: 1 (`cargo xtask invoke"));
    assert!(report.failures().is_empty());
}

#[tokio::test(start_paused = true)]
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
    let report = clean_up_once(invocation(&[&first, &second, &deletes])).await.unwrap().into_report();
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
    // 97 at once and 4.85 a second for 30 seconds. To let the others queue would take 50 seconds more.
    assert!(start.elapsed() < Duration::from_secs(35), "{:?}", start.elapsed());
    assert!((230..=255).contains(&report.deleted.len()), "{}", report.deleted.len());
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
    assert!(report.warnings[0].starts_with("2010 held for good, snap-00000 the first: its DeleteOn tag"));
}

/// EC2's refusals that are reasons are told from failures: a night with a locked snapshot is an ordinary night.
#[tokio::test]
async fn what_ec2_refuses_for_a_reason_is_held_with_the_reason() {
    for (code, fence) in [
        ("InvalidSnapshot.InUse", Fence::InUse),
        ("InvalidSnapshot.Locked", Fence::Locked),
        ("managed by AWS Backup", Fence::AwsBackup),
    ] {
        let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
        account.answers("snap-1", code);
        let report = account.clean_up(|_| ()).await.unwrap();
        assert_eq!((report.held[0].fence, report.held[0].snapshot.snapshot.as_str()), (fence, "snap-1"));
        assert_eq!(account.left(), ["snap-1", "snap-3"]);
        assert!(report.failures().is_empty(), "{:?}", report.failures());
    }
}

/// A dry run can only say so if it knows before it asks to delete.
#[tokio::test]
async fn what_an_ami_or_a_lock_holds_is_known_beforehand() {
    let image = mock!(Client::describe_images)
        .match_requests(|request| request.include_disabled() == Some(true) && request.owners() == ["self"])
        .then_output(|| {
            let disk = types::EbsBlockDevice::builder().snapshot_id("snap-1").build();
            let device = types::BlockDeviceMapping::builder().ebs(disk).build();
            let image = types::Image::builder().image_id("ami-1").block_device_mappings(device).build();
            DescribeImagesOutput::builder().images(image).build()
        });
    let lock =
        |id: &str, state| types::LockedSnapshotsInfo::builder().snapshot_id(id).lock_state(state).build();
    let page_1 = mock!(Client::describe_locked_snapshots)
        .match_requests(|request| request.next_token().is_none())
        .then_output(move || {
            DescribeLockedSnapshotsOutput::builder()
                .snapshots(lock("snap-2", types::LockState::Governance))
                .next_token("2")
                .build()
        });
    let page_2 = mock!(Client::describe_locked_snapshots)
        .match_requests(|request| request.next_token() == Some("2"))
        .then_output(move || {
            DescribeLockedSnapshotsOutput::builder()
                .snapshots(lock("snap-3", types::LockState::ComplianceCooloff))
                .snapshots(lock("snap-4", types::LockState::Expired))
                .build()
        });
    let ids = ["snap-1", "snap-2", "snap-3", "snap-4"];
    let list = mock!(Client::describe_snapshots).match_requests(|_| true).then_output(move || {
        let mut snapshots: Vec<_> = ids.into_iter().zip(1..).map(|(id, day)| expired(id, day)).collect();
        snapshots.push(future("snap-5", 9));
        DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots)).build()
    });
    let may = may_delete("DryRunOperation");
    let mut invocation = invocation(&[&list, &image, &page_1, &page_2, &may]);
    invocation.event.dry_run = true;
    let report = clean_up_once(invocation).await.unwrap().into_report();
    let held: Vec<_> =
        report.held.iter().map(|h| (h.snapshot.snapshot.as_str(), h.reason.as_str())).collect();
    let lock = "a snapshot lock protects it";
    assert_eq!(held, [("snap-1", "ami-1 is made of it"), ("snap-2", lock), ("snap-3", lock)]);
    assert_eq!(report.would_delete[0].snapshot, "snap-4", "its lock has expired");
}

/// A fence that cannot be seen would not hold. Only an emulator, which has no locks, may not know them.
#[tokio::test]
async fn unknown_locks_stop_the_run_before_it_deletes_anything() {
    let run = async |is_emulated| {
        let list = mock!(Client::describe_snapshots).match_requests(|_| true).then_output(|| {
            DescribeSnapshotsOutput::builder()
                .snapshots(expired("snap-1", 1))
                .snapshots(future("snap-2", 2))
                .build()
        });
        let denied = mock!(Client::describe_locked_snapshots).match_requests(|_| true).then_error(|| {
            let error = ErrorMetadata::builder().code("UnauthorizedOperation").message("as asked").build();
            aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsError::generic(error)
        });
        let may = may_delete("DryRunOperation");
        let delete = mock!(Client::delete_snapshot)
            .match_requests(|request| request.dry_run() != Some(true))
            .then_output(|| DeleteSnapshotOutput::builder().build());
        let mut invocation = invocation(&[&list, &denied, &may, &delete]);
        invocation.is_emulated = is_emulated;
        invocation.event.dry_run = is_emulated;
        let ended = clean_up_once(invocation).await;
        assert_eq!(delete.num_calls(), 0);
        ended.map(Ended::into_report)
    };
    let failure = run(false).await.unwrap_err().to_string();
    assert!(failure.starts_with("UnauthorizedOperation: could not list the snapshot locks"), "{failure}");
    let report = run(true).await.unwrap();
    assert_eq!(report.would_delete[0].snapshot, "snap-1");
}

/// Sixty snapshots at once are more likely a mistake than a night.
#[tokio::test(start_paused = true)]
async fn a_mass_deletion_stops_before_the_first_and_one_run_can_be_let_through() {
    let mut snapshots: Vec<_> = (0..60).map(|number| expired(&format!("snap-{number:02}"), 1)).collect();
    snapshots.extend((60..100).map(|number| future(&format!("snap-{number:02}"), 2)));
    let account = Account::with(&snapshots);
    let half =
        |invocation: &mut Invocation<CleanupSettings>| invocation.settings.policy.mass_deletion_percent = 50;

    let report = account.clean_up(half).await.unwrap();
    assert_eq!(account.left().len(), 100);
    assert!(report.failures()[0].contains("60 of 100 snapshots would be deleted"), "{:?}", report.failures());

    let dry = account.clean_up(|invocation| {
        half(invocation);
        invocation.event.dry_run = true;
    });
    let dry = dry.await.unwrap();
    assert_eq!((dry.would_delete.len(), dry.failures().len()), (60, 0));

    let through = account.clean_up(|invocation| {
        half(invocation);
        invocation.event.allow_mass_deletion = true;
    });
    assert_eq!(through.await.unwrap().deleted.len(), 60);
}

#[tokio::test]
async fn one_run_can_be_given_more_than_the_limit() {
    let snapshots = [expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)];
    let account = Account::with(&snapshots);
    let report = account.clean_up(|invocation| {
        invocation.settings.policy.max_deletes = 1;
        invocation.event.max_deletes = Some(2);
    });
    assert_eq!(report.await.unwrap().deleted.len(), 2);
}

/// EC2's own trouble passes; a deletion that a moment later would succeed must not fail the night.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_for_a_moment_is_tried_again() {
    for code in ["IncorrectState", "ConcurrentTagAccess", ""] {
        let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
        account.answers_once("snap-1", code);
        let report = account.clean_up(|_| ()).await.unwrap();
        assert_eq!(report.failures(), [""; 0], "{code}");
        assert_eq!(account.left(), ["snap-3"], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_keeps_failing_is_named_in_the_end() {
    let account = Account::with(&[expired("snap-1", 1), expired("snap-2", 2), future("snap-3", 3)]);
    account.answers("snap-1", "IncorrectState");
    let report = account.clean_up(|_| ()).await.unwrap();
    assert!(report.failures()[0].starts_with("snap-1: IncorrectState"), "{:?}", report.failures());
    assert_eq!(account.left(), ["snap-1", "snap-3"]);
}

/// Somebody else uses up the account's rate all night: that is said, and nothing is claimed.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_ec2_throttles_for_good_is_named_and_counted() {
    let list = mock!(Client::describe_snapshots).match_requests(|_| true).then_output(|| {
        DescribeSnapshotsOutput::builder()
            .snapshots(expired("snap-1", 1))
            .snapshots(future("snap-2", 2))
            .build()
    });
    let throttle = mock!(Client::delete_snapshot)
        .match_requests(|_| true)
        .then_error(|| delete_error("RequestLimitExceeded"));
    let report = clean_up_once(invocation(&[&list, &throttle])).await.unwrap().into_report();
    assert!(report.failures()[0].starts_with("snap-1: RequestLimitExceeded"), "{:?}", report.failures());
    assert_eq!(report.deleted, []);
    assert!(throttle.num_calls() >= 3, "it is tried again: {}", throttle.num_calls());
}

/// EC2 deleted it and the answer got lost: the repetition finds nothing, which is as good as done.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_got_lost_is_done() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    account.answers_once("snap-1", LOST);
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.failures(), [""; 0]);
    assert_eq!(report.deleted[0].snapshot, "snap-1");
}

/// Of the calls that look whether hundreds of snapshots are gone, the second one fails.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_half_way_hides_nothing() {
    let mut snapshots: Vec<_> = (0..300).map(|number| expired(&format!("snap-{number:03}"), 1)).collect();
    snapshots.push(future("snap-new", 2));
    let account = Account::with(&snapshots);
    account.contents().looks = Some(1);
    let report = account.clean_up(|_| ()).await.unwrap();
    assert_eq!(report.deleted.len(), 300);
    let failures = report.failures();
    assert!(failures[0].contains("300 deletions could not be verified"), "{failures:?}");
}

/// Lambda may end the process at any moment: between two deletions, and between EC2's deletion and its answer. The
/// run is repeated, and in the end exactly what a run without trouble would have deleted is gone.
#[tokio::test(start_paused = true)]
async fn a_run_killed_at_any_deletion_is_finished_by_the_next() {
    let snapshots: Vec<_> = (1..=6)
        .map(|day| expired(&format!("snap-{day}"), day))
        .chain([future("snap-8", 8), snapshot("snap-9", 9, "soon")])
        .collect();
    let untroubled = Account::with(&snapshots);
    untroubled.clean_up(|_| ()).await.unwrap();
    for kill_at in 1..=6 {
        for after_ec2_acts in [true, false] {
            let account = Account::with(&snapshots);
            account.contents().killed_at = Some((kill_at, after_ec2_acts));
            let killed = AssertUnwindSafe(account.clean_up(|_| ())).catch_unwind().await;
            assert!(killed.is_err(), "killed at {kill_at}");
            account.contents().killed_at = None;
            let report = account.clean_up(|_| ()).await.unwrap();
            assert_eq!(report.failures(), [""; 0]);
            assert_eq!(
                account.left(),
                untroubled.left(),
                "killed at {kill_at}, after EC2 acts: {after_ec2_acts}"
            );
        }
    }
}

/// More to delete than one invocation has time for: the next one goes on, and the last report tells the whole run.
#[tokio::test(start_paused = true)]
async fn what_one_invocation_has_no_time_for_is_handed_on() {
    let mut snapshots: Vec<_> = (0..500).map(|number| expired(&format!("snap-{number:03}"), 1)).collect();
    snapshots.push(future("snap-new", 2));
    let account = Account::with(&snapshots);
    let ended = account
        .run(|invocation| {
            invocation.deadline = in_seconds(40);
            invocation.may_hand_on = true;
            invocation.settings.policy.max_deletes = 400;
        })
        .await
        .unwrap();
    let Ended::Unfinished { report, next } = ended else { panic!("{ended:?}") };
    let first = report.deleted.len();
    assert_eq!(next.done, first as u64);
    assert!(report.out_of_time > 0 && first > 100, "{first}");

    let report = account
        .clean_up(|invocation| {
            invocation.event.continuation = Some(next);
            invocation.settings.policy.max_deletes = 400;
        })
        .await
        .unwrap();
    assert_eq!(first + report.deleted.len(), 400, "the limit is one for the whole run");
    assert!(report.summary().starts_with("400 snapshots deleted"), "{}", report.summary());
    assert_eq!((account.left().len(), report.postponed), (101, 100));
}

/// Lambda repeats a run that failed with the same event. Without a memory, a limit of 2 would be one of 6, every night
/// in which one snapshot cannot be deleted.
#[tokio::test]
async fn the_repetitions_of_a_run_share_its_limit() {
    let mut snapshots: Vec<_> = (1..=9).map(|day| expired(&format!("snap-{day}"), day)).collect();
    snapshots.push(future("snap-new", 10));
    let account = Account::with(&snapshots);
    account.answers("snap-1", "UnauthorizedOperation");
    let attempt = || account.clean_up(|invocation| invocation.settings.policy.max_deletes = 2);

    let first = attempt().await.unwrap();
    assert_eq!((first.deleted.len(), first.failed.len(), first.postponed), (2, 1, 6));
    for _ in 0..2 {
        let repeated = attempt().await.unwrap();
        assert_eq!((repeated.deleted.len(), repeated.deleted_earlier), (0, 2));
    }
    assert_eq!(account.left().len(), 8);

    let later = account.clean_up(|invocation| {
        invocation.settings.policy.max_deletes = 2;
        invocation.event.scheduled_at += jiff::SignedDuration::from_secs(1);
    });
    assert_eq!(later.await.unwrap().deleted.len(), 2, "another run has a limit of its own");
}

/// What cannot be deleted is the oldest, and would come first in every hop.
#[tokio::test(start_paused = true)]
async fn what_failed_in_an_earlier_hop_holds_up_no_other() {
    let mut snapshots: Vec<_> = (0..500).map(|number| expired(&format!("snap-{number:03}"), 1)).collect();
    snapshots.push(future("snap-new", 2));
    let account = Account::with(&snapshots);
    for number in 0..200 {
        account.answers(&format!("snap-{number:03}"), "UnauthorizedOperation");
    }
    let hop = |continuation, seconds| {
        account.run(move |invocation| {
            invocation.deadline = in_seconds(seconds);
            invocation.may_hand_on = true;
            invocation.event.continuation = continuation;
        })
    };
    let Ended::Unfinished { report, next } = hop(None, 40).await.unwrap() else { panic!() };
    assert_eq!((report.failed.len(), next.failures_by_resource().len()), (200, 200));
    let first = report.deleted.len();
    let Ended::Unfinished { report, next } = hop(Some(next), 40).await.unwrap() else { panic!() };
    assert!(report.deleted.len() > 200, "the others come first: {}, {first} before", report.deleted.len());
    let Ended::Finished(report) = hop(Some(next), 900).await.unwrap() else { panic!() };
    assert_eq!(report.deleted_in_all(), 300);
    assert_eq!(report.failed.len(), 200, "and in the end, what failed is named");
}

/// A hop without progress would be followed by thirty more: hours of calls, for nothing.
#[tokio::test(start_paused = true)]
async fn a_hop_that_deleted_nothing_does_not_hand_on() {
    let account = Account::with(&[expired("snap-1", 1), future("snap-2", 2)]);
    let ended = account.run(|invocation| {
        invocation.deadline = Deadline::passed();
        invocation.may_hand_on = true;
    });
    let Ended::Finished(report) = ended.await.unwrap() else { panic!("it hands on") };
    assert!(report.failures()[0].starts_with("out of time"), "{:?}", report.failures());
}

#[tokio::test]
async fn nothing_to_delete_asks_ec2_about_no_ids() {
    // A request for "these ids" without any would list, or mean, all.
    let list = mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .then_output(|| DescribeSnapshotsOutput::builder().build());
    clean_up_once(invocation(&[&list])).await.unwrap();
    assert_eq!(list.num_calls(), 1);
}

/// A run in a process of its own.
async fn clean_up_once(invocation: Invocation<CleanupSettings>) -> Result<Ended<CleanupReport>, Failure> {
    super::clean_up(invocation, &Spent::default()).await
}

/// An account that lists and deletes snapshots of one existing instance, `i-1`.
#[derive(Clone, Default)]
struct Account {
    contents: Arc<Mutex<Contents>>,
    /// What the function's process remembers.
    spent: Arc<Spent>,
}

#[derive(Default)]
struct Contents {
    snapshots: Vec<types::Snapshot>,
    /// How EC2 answers the deletion of these, each time.
    answers: Vec<(String, &'static str)>,
    /// The same for their first deletion.
    first_answers: Vec<(String, &'static str)>,
    /// How many more looks at certain snapshots succeed; all, if there is no number.
    looks: Option<usize>,
    /// The number of the deletion that kills the run, counted from one, and whether EC2 has acted on it by then.
    killed_at: Option<(usize, bool)>,
    deletions: usize,
}

impl Account {
    fn with(snapshots: &[types::Snapshot]) -> Self {
        let contents = Contents { snapshots: snapshots.to_vec(), ..Contents::default() };
        Self { contents: Arc::new(Mutex::new(contents)), spent: Arc::default() }
    }

    /// The contents, also after a run was killed.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the deletion of a snapshot end with this code, or only pretend to happen.
    fn answers(&self, id: &str, code: &'static str) {
        self.contents().answers.push((id.to_owned(), code));
    }

    /// The same for the first attempt alone.
    fn answers_once(&self, id: &str, code: &'static str) {
        self.contents().first_answers.push((id.to_owned(), code));
    }

    /// Lets a snapshot vanish between list and deletion.
    fn loses(&self, id: &str) {
        self.answers(id, "InvalidSnapshot.NotFound");
    }

    fn left(&self) -> Vec<String> {
        self.contents().snapshots.iter().filter_map(|snapshot| snapshot.snapshot_id.clone()).collect()
    }

    /// A run whose report is the last one.
    async fn clean_up(
        &self,
        change: impl FnOnce(&mut Invocation<CleanupSettings>),
    ) -> Result<CleanupReport, Failure> {
        self.run(change).await.map(Ended::into_report)
    }

    async fn run(
        &self,
        change: impl FnOnce(&mut Invocation<CleanupSettings>),
    ) -> Result<Ended<CleanupReport>, Failure> {
        let account = self.clone();
        let list = mock!(Client::describe_snapshots)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.list(request));
        let account = self.clone();
        let delete = mock!(Client::delete_snapshot)
            .match_requests(|_| true)
            .then_compute_response(move |request| account.delete(request.snapshot_id().unwrap_or_default()));
        let mut invocation = invocation(&[&list, &may_delete("DryRunOperation"), &delete]);
        change(&mut invocation);
        super::clean_up(invocation, &self.spent).await
    }

    fn list(
        &self,
        request: &DescribeSnapshotsInput,
    ) -> MockResponse<DescribeSnapshotsOutput, DescribeSnapshotsError> {
        let values: usize = request.filters().iter().map(|filter| filter.values().len()).sum();
        assert!(values <= 200, "EC2 refuses {values} filter values");
        let mut contents = self.contents();
        let mut found = contents.snapshots.clone();
        if let Some(filter) = request.filters().iter().find(|filter| filter.name() == Some("snapshot-id")) {
            match contents.looks {
                Some(0) => {
                    let error = ErrorMetadata::builder().code("InternalError").message("as asked").build();
                    return MockResponse::Error(DescribeSnapshotsError::generic(error));
                }
                Some(left) => contents.looks = Some(left - 1),
                None => {}
            }
            found.retain(|snapshot| filter.values().contains(snapshot.snapshot_id.as_ref().unwrap()));
        }
        MockResponse::Output(DescribeSnapshotsOutput::builder().set_snapshots(Some(found)).build())
    }

    fn delete(&self, id: &str) -> MockResponse<DeleteSnapshotOutput, DeleteSnapshotError> {
        let mut contents = self.contents();
        contents.deletions += 1;
        let killed = contents.killed_at.filter(|(at, _)| *at == contents.deletions);
        assert_ne!(killed, Some((contents.deletions, false)), "killed before EC2 acts");

        let first = contents.first_answers.iter().position(|(asked, _)| asked == id);
        let first = first.map(|index| contents.first_answers.remove(index));
        let each = contents.answers.iter().find(|(asked, _)| asked == id).cloned();
        let answer = first.or(each).map(|(_, code)| code);
        let exists = contents.snapshots.iter().any(|snapshot| snapshot.snapshot_id() == Some(id));
        if matches!(answer, None | Some("InvalidSnapshot.NotFound" | LOST)) {
            contents.snapshots.retain(|snapshot| snapshot.snapshot_id() != Some(id));
        }
        assert!(killed.is_none(), "killed before EC2's answer comes");
        match answer {
            Some("pretends") => MockResponse::Output(DeleteSnapshotOutput::builder().build()),
            Some(LOST) => MockResponse::Error(delete_error("")),
            Some(code) => MockResponse::Error(delete_error(code)),
            None if exists => MockResponse::Output(DeleteSnapshotOutput::builder().build()),
            None => MockResponse::Error(delete_error("InvalidSnapshot.NotFound")),
        }
    }
}

/// EC2 acts, and its answer does not come.
const LOST: &str = "deleted, and the answer lost";

fn invocation(rules: &[&Rule]) -> Invocation<CleanupSettings> {
    let settings = r#"{
        "environment": "prod", "timezone": "UTC", "alias_arn": "arn",
        "policy": {
            "floor": 1, "orphan_floor_days": 90, "max_deletes": 5000, "mass_deletion_percent": 100
        },
        "select": {"tag": "Backup", "value": "true"}, "backup_interval_hours": 24
    }"#;
    let around = surroundings();
    let rules: Vec<_> = rules.iter().copied().chain(&around).collect();
    let at = "2026-11-22T03:00:00Z".parse().unwrap();
    let event = Event::manual(at, false);
    Invocation {
        settings: serde_json::from_str(settings).unwrap(),
        clock: event.clock(at).unwrap(),
        real_now: at,
        event,
        ec2: Ec2::new(&mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &rules), true, NonZeroU16::MIN),
        roles: Roles::default(),
        is_emulated: false,
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
    if code == "managed by AWS Backup" {
        let error = ErrorMetadata::builder().code("InvalidParameterValue");
        let message =
            "This snapshot is managed by the AWS Backup service and cannot be deleted via EC2 APIs.";
        return DeleteSnapshotError::generic(error.message(message).build());
    }
    let error = ErrorMetadata::builder().message("as asked");
    DeleteSnapshotError::generic(if code.is_empty() { error } else { error.code(code) }.build())
}

/// What else a run asks about: one instance, no AMI, no lock, no volume, unless a rule before these says otherwise.
fn surroundings() -> [Rule; 4] {
    [
        instances(),
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

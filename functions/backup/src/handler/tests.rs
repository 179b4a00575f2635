use std::num::NonZeroU16;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::create_snapshots::{CreateSnapshotsError, CreateSnapshotsOutput};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_snapshots::{DescribeSnapshotsInput, DescribeSnapshotsOutput};
use aws_sdk_ec2::operation::describe_volumes::{DescribeVolumesError, DescribeVolumesOutput};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    CopyTagsFromSource, EbsInstanceBlockDevice, Instance, InstanceBlockDeviceMapping, InstanceState,
    InstanceStateName, Reservation, Snapshot, SnapshotInfo, SnapshotState, Tag, Volume,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{Effort, Report as _};
use snapwarden_runtime::{Deadline, Ec2, Roles};
use tokio::time::Instant;

use super::*;
use crate::copied_tags::Copying;
use crate::set::{NotMade, Sets as _};

const RUN: &str = "manual@2026-11-22T02:00:00Z";

#[tokio::test]
async fn every_volume_of_every_selected_instance_is_backed_up_with_the_tags_that_cleanup_needs() {
    let instances = lists(vec![instance("i-1", "web", &["vol-1", "vol-2"]), instance("i-2", "", &["vol-3"])]);
    let web = mock!(Client::create_snapshots)
        .match_requests(|request| {
            let mut tags: Vec<_> = request.tag_specifications()[0]
                .tags()
                .iter()
                .map(|tag| format!("{}={}", tag.key().unwrap(), tag.value().unwrap()))
                .collect();
            tags.sort();
            instance_of(request) == "i-1"
                && request.dry_run() == Some(false)
                && request.copy_tags_from_source() == Some(&CopyTagsFromSource::Volume)
                && tags
                    == [
                        "DeleteOn=2026-11-29",
                        "Name=web",
                        "snapwarden:environment=prod",
                        "snapwarden:instance=i-1",
                        "snapwarden:run=manual@2026-11-22T02:00:00Z",
                        "snapwarden:volumes=2",
                    ]
        })
        .then_output(|| answer(&["vol-1", "vol-2"]));
    let other = creates("i-2", &["vol-3"]);
    let report = run(&[&instances, &no_snapshots(), &web, &other]).await.unwrap();
    assert_eq!(report.summary(), "2 instances backed up, 3 snapshots made, deleted from 2026-11-29 on");
    assert_eq!(report.instances[0].snapshots[1].snapshot.as_deref(), Some("snap-of-vol-2"));
    assert!(report.failures().is_empty() && report.warnings.is_empty());
}

#[tokio::test]
async fn a_repeated_delivery_makes_nothing_twice() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let made = mock!(Client::describe_snapshots)
        .match_requests(|request| request.filters().iter().any(|filter| filter.values() == [RUN]))
        .then_output(|| {
            let of = |volume: &str, instance: &str, state| {
                Snapshot::builder()
                    .snapshot_id(format!("snap-of-{volume}"))
                    .volume_id(volume)
                    .tags(Tag::builder().key("snapwarden:instance").value(instance).build())
                    .state(state)
                    .start_time(DateTime::from_secs(1_795_312_809))
                    .build()
            };
            DescribeSnapshotsOutput::builder()
                .snapshots(of("vol-1", "i-1", SnapshotState::Pending))
                .snapshots(of("vol-2", "i-2", SnapshotState::Error))
                .build()
        });
    let failed_before = creates("i-2", &["vol-2"]);
    let report = run(&[&instances, &made, &failed_before]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::AlreadyDone);
    assert_eq!(report.instances[1].outcome, Outcome::Created);
    assert_eq!(failed_before.num_calls(), 1);
}

#[tokio::test]
async fn one_instances_failure_stops_no_other_and_is_named() {
    let instances = lists(vec![instance("i-1", "db", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let denied = refuses("i-1", "UnauthorizedOperation");
    let fine = creates("i-2", &["vol-2"]);
    let report = run(&[&instances, &no_snapshots(), &denied, &fine]).await.unwrap();
    assert_eq!(report.snapshots_created, 1);
    let failures = report.failures();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].starts_with("i-1 (db): UnauthorizedOperation: as asked (hint: "), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_for_before_anything_is_repeated() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let broken = mock!(Client::create_snapshots)
        .match_requests(|_| true)
        .sequence()
        .http_status(500, None)
        .output(|| answer(&["vol-1"]))
        .build();
    // Not on the first look, nor before the call, nor soon after it.
    let made = mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .sequence()
        .output(|| DescribeSnapshotsOutput::builder().build())
        .times(4)
        .output(|| DescribeSnapshotsOutput::builder().snapshots(pending("vol-1", "i-1", 0)).build())
        .build();
    let report = run(&[&instances, &made, &broken]).await.unwrap();
    assert_eq!(broken.num_calls(), 1, "a second call could make a second snapshot of every disk");
    assert_eq!(report.instances[0].outcome, Outcome::Created);
}

#[tokio::test]
async fn ec2s_rate_limit_is_no_unclear_end_though_it_looks_like_one() {
    for (code, status, unclear) in [
        ("RequestLimitExceeded", 503, false),
        ("InternalError", 500, true),
        ("SomethingNew", 500, true),
        ("SnapshotLimitExceeded", 400, false),
    ] {
        let xml = format!("<Response><Errors><Error><Code>{code}</Code></Error></Errors></Response>");
        let refused = mock!(Client::create_snapshots)
            .match_requests(|_| true)
            .sequence()
            .http_status(status, Some(xml))
            .build();
        let invocation = invocation(&[&refused]);
        let run = RUN.parse().unwrap();
        let sets = RunSets {
            ec2: &invocation.ec2,
            settings: &invocation.settings,
            run: &run,
            hop: 0,
            day: "2026-11-22".parse().unwrap(),
            dry_run: false,
        };
        let copying = Copying::Copy { with_name: true };
        let turn = sets.turn(Deadline::never()).await.unwrap();
        let ended = sets.create(&selected("i-1", "vol-1"), &copying, turn).await.unwrap_err();
        assert_eq!(matches!(ended, NotMade::Unclear(_)), unclear, "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_now_is_waited_out() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let busy = mock!(Client::create_snapshots)
        .match_requests(|_| true)
        .sequence()
        .error(|| error("RequestLimitExceeded"))
        .error(|| error("SnapshotCreationPerVolumeRateExceeded"))
        .output(|| answer(&["vol-1"]))
        .build();
    let report = run(&[&instances, &no_snapshots(), &busy]).await.unwrap();
    assert_eq!(report.summary(), "1 instance backed up, 1 snapshot made, deleted from 2026-11-29 on");
}

#[tokio::test]
async fn a_volume_that_ec2_left_out_is_not_reported_as_backed_up() {
    let instances = lists(vec![instance("i-1", "", &["vol-1", "vol-2"])]);
    let half = creates("i-1", &["vol-1"]);
    let report = run(&[&instances, &no_snapshots(), &half]).await.unwrap();
    assert!(report.failures()[0].contains("EC2 made no snapshot of vol-2"), "{:?}", report.failures());
}

/// When one volume fails, EC2 answers as usual and lets the whole set fail. It must not count, now or later.
#[tokio::test]
async fn a_set_with_a_failed_volume_is_a_failure_and_made_again_by_the_next_attempt() {
    let instances = lists(vec![instance("i-1", "", &["vol-1", "vol-2"])]);
    let failed = mock!(Client::create_snapshots).match_requests(|_| true).then_output(|| {
        let info = |volume: &str, state| {
            SnapshotInfo::builder()
                .snapshot_id(format!("snap-of-{volume}"))
                .volume_id(volume)
                .state(state)
                .build()
        };
        CreateSnapshotsOutput::builder()
            .snapshots(info("vol-1", SnapshotState::Pending))
            .snapshots(info("vol-2", SnapshotState::Error))
            .build()
    });
    let report = run(&[&instances, &no_snapshots(), &failed]).await.unwrap();
    assert!(report.failures()[0].contains("EC2 made no snapshot of vol-2"), "{:?}", report.failures());

    let left = mock!(Client::describe_snapshots).match_requests(|_| true).then_output(|| {
        let state = |volume, state| {
            let mut snapshot = pending(volume, "i-1", 0);
            snapshot.state = Some(state);
            snapshot
        };
        DescribeSnapshotsOutput::builder()
            .snapshots(state("vol-1", SnapshotState::Error))
            .snapshots(state("vol-2", SnapshotState::Error))
            .build()
    });
    let again = creates("i-1", &["vol-1", "vol-2"]);
    let report = run(&[&instances, &left, &again]).await.unwrap();
    assert_eq!((&report.instances[0].outcome, again.num_calls()), (&Outcome::Created, 1));
}

#[tokio::test]
async fn a_backup_of_nothing_fails_unless_that_is_wanted() {
    let rules = [lists(vec![]), no_snapshots()];
    let rules: Vec<_> = rules.iter().collect();
    let report = run(&rules).await.unwrap();
    let failures = report.failures();
    assert!(failures[0].starts_with("no instance carries the tag Backup=true (hint: "), "{failures:?}");
    let selected = report.metrics().into_iter().find(|metric| metric.name == "InstancesSelected");
    assert_eq!(selected.map(|metric| metric.value), Some(0.0), "a graph shows it, too");
    for change in [allow_none as fn(&mut _), dry_run] {
        let mut invocation = invocation(&rules);
        change(&mut invocation);
        let report = back_up(invocation).await.unwrap().into_report();
        assert!(report.failures().is_empty() && report.warnings.len() == 1);
    }
}

#[tokio::test]
async fn instances_that_a_loose_filter_lets_through_are_left_alone() {
    let almost = Instance::builder()
        .instance_id("i-1")
        .tags(Tag::builder().key("Backup").value("True").build())
        .build();
    let rules = [lists(vec![almost]), no_snapshots()];
    let report = run(&rules.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!((report.selected, report.failures().len()), (0, 1));
}

#[tokio::test]
async fn an_instance_without_volumes_is_pointed_out() {
    let instances = lists(vec![instance("i-1", "", &[]), instance("i-2", "", &["vol-2"])]);
    let report = run(&[&instances, &no_snapshots(), &creates("i-2", &["vol-2"])]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::NoVolumes);
    assert_eq!(report.warnings, ["i-1 is selected, but has no EBS volume to back up"]);
}

#[tokio::test]
async fn a_backup_without_a_single_volume_fails_unless_that_is_wanted() {
    let rules = [lists(vec![instance("i-1", "", &[]), instance("i-2", "", &[])]), no_snapshots()];
    let rules: Vec<_> = rules.iter().collect();
    let failures = run(&rules).await.unwrap().failures();
    let expected = "no instance that carries the tag Backup=true has an EBS volume to back up";
    assert!(failures[0].starts_with(expected), "{failures:?}");
    for change in [allow_none as fn(&mut _), dry_run] {
        let mut invocation = invocation(&rules);
        change(&mut invocation);
        let report = back_up(invocation).await.unwrap().into_report();
        assert!(report.failures().is_empty() && report.warnings.len() == 2);
    }
}

#[tokio::test]
async fn an_instance_that_is_just_starting_is_not_skipped_silently() {
    let starting = |id: &str, volumes: &[&str]| {
        let mut instance = instance(id, "", volumes);
        instance.state = Some(InstanceState::builder().name(InstanceStateName::Pending).build());
        instance
    };
    let instances = lists(vec![starting("i-1", &[]), starting("i-2", &["vol-2"])]);
    let report = run(&[&instances, &no_snapshots(), &creates("i-2", &["vol-2"])]).await.unwrap();
    assert_eq!(report.instances[1].outcome, Outcome::Created);
    assert!(
        report.failures()[0].starts_with("i-1: the instance is just starting"),
        "{:?}",
        report.failures()
    );
}

#[tokio::test]
async fn what_another_delivery_made_since_the_first_look_is_not_made_twice() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let is_about_i_1 = |request: &DescribeSnapshotsInput| {
        let mut names: Vec<_> = request.filters().iter().map(|filter| filter.name().unwrap()).collect();
        names.sort_unstable();
        names == ["tag:snapwarden:environment", "tag:snapwarden:run", "volume-id"]
    };
    let first_look = mock!(Client::describe_snapshots)
        .match_requests(move |request| !is_about_i_1(request))
        .then_output(|| DescribeSnapshotsOutput::builder().build());
    let second_look = mock!(Client::describe_snapshots).match_requests(is_about_i_1).then_output(|| {
        let made = Snapshot::builder()
            .snapshot_id("snap-1")
            .volume_id("vol-1")
            .tags(Tag::builder().key("snapwarden:instance").value("i-1").build())
            .state(SnapshotState::Pending)
            .start_time(DateTime::from_secs(1_795_312_809))
            .build();
        DescribeSnapshotsOutput::builder().snapshots(made).build()
    });
    let doubled = creates("i-1", &["vol-1"]);
    let report = run(&[&instances, &first_look, &second_look, &doubled]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::AlreadyDone);
    assert_eq!((second_look.num_calls(), doubled.num_calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ec2_does_not_outlast_the_function() {
    let rules = [
        lists(vec![instance("i-1", "", &["vol-1"])]),
        no_snapshots(),
        refuses("i-1", "RequestLimitExceeded"),
    ];
    let mut invocation = invocation(&rules.iter().collect::<Vec<_>>());
    let now = std::time::SystemTime::now();
    invocation.deadline = Deadline::of(now + Duration::from_secs(32), now); // 24 seconds, and 8 for the rest
    let start = Instant::now();
    let report = back_up(invocation).await.unwrap().into_report();
    assert!(report.failures()[0].contains("out of time"), "{:?}", report.failures());
    assert_eq!(rules[2].num_calls(), 2);
    assert_eq!(start.elapsed().as_secs(), 15, "a pause that ends too late is not begun");
}

#[tokio::test]
async fn a_dry_run_proves_the_rights_and_makes_nothing() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let allowed = mock!(Client::create_snapshots)
        .match_requests(|request| request.dry_run() == Some(true) && instance_of(request) == "i-1")
        .then_error(|| error("DryRunOperation"));
    let denied = refuses("i-2", "UnauthorizedOperation");
    let rules = [&instances, &no_snapshots(), &allowed, &denied];
    let mut invocation = invocation(&rules);
    dry_run(&mut invocation);
    let report = back_up(invocation).await.unwrap().into_report();
    assert_eq!(report.instances[0].outcome, Outcome::WouldCreate);
    assert_eq!(report.instances[0].snapshots, selected("i-1", "vol-1").without_snapshots());
    assert_eq!(report.snapshots_created, 0);
    assert_eq!(report.failures().len(), 1);
}

#[tokio::test]
async fn a_run_out_of_time_fails_so_that_its_retry_does_the_rest() {
    let rules = [lists(vec![instance("i-1", "", &["vol-1"])]), no_snapshots()];
    let mut invocation = invocation(&rules.iter().collect::<Vec<_>>());
    invocation.deadline = Deadline::passed();
    let report = back_up(invocation).await.unwrap().into_report();
    assert!(report.failures()[0].contains("out of time"), "{:?}", report.failures());
}

#[tokio::test]
async fn what_the_owner_leaves_out_is_left_out_and_kept_as_long_as_they_say() {
    let tagged = |tags: &[(&str, &str)]| {
        let mut db = instance("i-1", "", &["vol-0a", "vol-0b", "vol-0c"]);
        db.root_device_name = Some("/dev/xvda".to_owned());
        db.block_device_mappings.as_mut().unwrap()[0].device_name = Some("/dev/xvda".to_owned());
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build());
        db.tags.as_mut().unwrap().extend(tags);
        lists(vec![db])
    };
    let asked = mock!(Client::create_snapshots)
        .match_requests(|request| {
            let disks = request.instance_specification().unwrap();
            let tags = request.tag_specifications()[0].tags();
            disks.exclude_boot_volume() == Some(true)
                && disks.exclude_data_volume_ids() == ["vol-0b"]
                && tags.iter().any(|tag| tag.value() == Some("2026-12-22"))
        })
        .then_output(|| answer(&["vol-0c"]));
    let wishes = tagged(&[("BackupExcludeVolumes", "vol-0a vol-0b vol-0d"), ("BackupRetentionDays", "30")]);
    let report = run(&[&wishes, &no_snapshots(), &asked]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::Created, "{report:?}");
    assert_eq!(report.warnings, ["i-1: BackupExcludeVolumes names vol-0d, which is not attached to it"]);

    let everything = tagged(&[("BackupExcludeVolumes", "vol-0a vol-0b vol-0c")]);
    let failures = run(&[&everything, &no_snapshots()]).await.unwrap().failures();
    assert!(failures[0].contains("has an EBS volume to back up"), "nothing at all is no backup");
}

#[tokio::test]
async fn volumes_whose_tags_would_collide_are_backed_up_without_copies() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let volumes = mock!(Client::describe_volumes)
        .match_requests(|request| {
            request.filters()[0].name() == Some("attachment.instance-id")
                && request.filters()[0].values() == ["i-1"]
        })
        .then_output(|| {
            let restored = Tag::builder().key("DeleteOn").value("2020-01-01").build();
            let volume = Volume::builder().volume_id("vol-1").tags(restored).build();
            DescribeVolumesOutput::builder().volumes(volume).build()
        });
    let without = mock!(Client::create_snapshots)
        .match_requests(|request| request.copy_tags_from_source().is_none())
        .then_output(|| answer(&["vol-1"]));
    let report = run(&[&instances, &no_snapshots(), &volumes, &without]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::Created);
    assert!(report.warnings[0].contains("vol-1 has a tag DeleteOn of its own"), "{:?}", report.warnings);
}

/// Not even on their tags: one that nobody has seen is not copied, and the report says so.
#[tokio::test]
async fn a_backup_does_not_depend_on_the_right_to_look_at_volumes() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let denied = mock!(Client::describe_volumes).match_requests(|_| true).then_error(|| {
        DescribeVolumesError::generic(ErrorMetadata::builder().code("UnauthorizedOperation").build())
    });
    let without = mock!(Client::create_snapshots)
        .match_requests(|request| request.copy_tags_from_source().is_none())
        .then_output(|| answer(&["vol-1"]));
    let report = run(&[&instances, &no_snapshots(), &denied, &without]).await.unwrap();
    assert_eq!(report.instances[0].outcome, Outcome::Created);
    assert!(report.warnings[0].contains("the tags of vol-1 are not known"), "{:?}", report.warnings);
}

/// Lambda's deadline comes after the first instance's turn and before the second's.
async fn cut_short(may_hand_on: bool) -> Ended<BackupReport> {
    let instances = lists(vec![instance("i-1", "", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let busy = mock!(Client::create_snapshots)
        .match_requests(|request| instance_of(request) == "i-2")
        .then_error(|| error("RequestLimitExceeded"));
    let rules = [&instances, &no_snapshots(), &creates("i-1", &["vol-1"]), &busy];
    let mut invocation = invocation(&rules);
    let now = std::time::SystemTime::now();
    invocation.deadline = Deadline::of(now + Duration::from_secs(12), now);
    invocation.may_hand_on = may_hand_on;
    back_up(invocation).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_time_for_is_handed_on() {
    let Ended::Unfinished { report, next } = cut_short(true).await else { panic!() };
    assert_eq!(
        report.summary(),
        "1 instance backed up, 1 snapshot made, deleted from 2026-11-29 on, 1 left to the next hop"
    );
    assert!(report.effort.handed_on);
    assert_eq!((next.hop, next.done, next.failures.len()), (1, 1, 0));
    assert!(next.api_calls >= 5, "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_handed_on_fails_so_that_lambda_repeats_it() {
    let Ended::Finished(report) = cut_short(false).await else { panic!() };
    assert!(report.failures()[0].contains("out of time"), "{:?}", report.failures());
}

#[tokio::test]
async fn the_last_hop_answers_for_the_whole_run() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let made = mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .then_output(|| DescribeSnapshotsOutput::builder().snapshots(pending("vol-1", "i-1", 0)).build());
    let marked = mock!(Client::create_snapshots)
        .match_requests(|request| {
            let mut tags = request.tag_specifications()[0].tags().iter();
            tags.any(|tag| tag.key() == Some("snapwarden:hop") && tag.value() == Some("1"))
        })
        .then_error(|| error("UnauthorizedOperation"));
    let mut invocation = invocation(&[&instances, &made, &marked]);
    let effort = Effort { api_calls: 100, throttles: 2, duration_ms: 840_000, ..Effort::default() };
    invocation.event.continuation =
        Some(Continuation::after(None, &effort, 7).with_warnings(["i-1: look".to_owned()]));
    let report = back_up(invocation).await.unwrap().into_report();
    assert_eq!(report.summary(), "1 instance backed up, 7 snapshots made, 1 FAILED");
    assert_eq!(report.warnings, ["i-1: look"]);
    assert_eq!((report.effort.hops, report.effort.throttles), (1, 2));
    assert!(report.effort.api_calls > 100 && report.effort.duration_ms >= 840_000);
}

/// What a hop says of how it made its sets, no later hop can find out again.
#[tokio::test]
async fn warnings_of_earlier_hops_are_handed_on_or_at_least_counted() {
    let many = (0..1_000).map(|number| format!("i-{number}: {}", "?".repeat(100)));
    let before = Continuation::after(None, &Effort::default(), u64::MAX).with_warnings(many);
    assert!(before.unlisted > 0);
    let instances = lists(vec![instance("i-1", "", &["vol-1"])]);
    let mut invocation = invocation(&[&instances, &no_snapshots(), &creates("i-1", &["vol-1"])]);
    invocation.event.continuation = Some(before.clone());
    let report = back_up(invocation).await.unwrap().into_report();
    assert_eq!(report.warnings.len(), before.warnings.len() + 1);
    let last = report.warnings.last().unwrap();
    assert_eq!(
        *last,
        format!("and {} more warnings of earlier hops, which the function's log has", before.unlisted)
    );
    assert_eq!(report.snapshots_created, usize::MAX, "a forged number wraps nothing");
}

/// Lambda repeats an invocation that it lost sight of, and may deliver one twice.
#[tokio::test]
async fn a_repeated_middle_hop_does_not_fork_the_chain() {
    let instances = lists(vec![instance("i-1", "", &["vol-1"]), instance("i-2", "", &["vol-2"])]);
    let made = mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .then_output(|| DescribeSnapshotsOutput::builder().snapshots(pending("vol-1", "i-1", 2)).build());
    let mut invocation = invocation(&[&instances, &made]);
    invocation.may_hand_on = true;
    invocation.event.continuation = Some(Continuation::after(None, &Effort::default(), 7));
    let Ended::Finished(report) = back_up(invocation).await.unwrap() else { panic!("a second chain") };
    assert!(report.failures().is_empty(), "a failure would be repeated as well");
    assert!(report.effort.handed_on && report.warnings[0].contains("a later hop"), "{report:?}");
}

async fn run(rules: &[&Rule]) -> Result<BackupReport, Failure> {
    back_up(invocation(rules)).await.map(Ended::into_report)
}

fn invocation(rules: &[&Rule]) -> Invocation<BackupSettings> {
    let settings = r#"{
        "environment": "prod", "timezone": "UTC", "alias_arn": "arn", "select": {"tag": "Backup", "value": "true"},
        "retention": {"daily_days": 7}, "allow_no_instances": false
    }"#;
    let at = "2026-11-22T02:00:00Z".parse().unwrap();
    let event = Event::manual(at, false);
    let untagged = mock!(Client::describe_volumes).match_requests(|_| true).then_output(|| {
        let volumes = ["vol-1", "vol-2", "vol-3", "vol-0c"].map(|id| Volume::builder().volume_id(id).build());
        DescribeVolumesOutput::builder().set_volumes(Some(volumes.into())).build()
    });
    let rules = rules.iter().copied().chain([&untagged]);
    Invocation {
        settings: serde_json::from_str(settings).unwrap(),
        clock: event.clock(at).unwrap(),
        real_now: at,
        event,
        // With the function's own repetitions, which are not to happen where they would do harm.
        ec2: Ec2::new(
            &mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules, |config| config
                .retry_config(RetryConfig::standard().with_max_attempts(6))),
            true,
            NonZeroU16::MIN,
        ),
        roles: Roles::default(),
        is_emulated: false,
        deadline: Deadline::never(),
        started: Instant::now(),
        may_hand_on: false,
    }
}

fn allow_none(invocation: &mut Invocation<BackupSettings>) {
    invocation.settings.allow_no_instances = true;
}

fn dry_run(invocation: &mut Invocation<BackupSettings>) {
    invocation.event.dry_run = true;
}

fn selected(id: &str, volume: &str) -> Selected {
    Selected { id: id.to_owned(), volumes: [volume.to_owned()].into(), ..Selected::default() }
}

fn instance(id: &str, name: &str, volumes: &[&str]) -> Instance {
    let device = |volume: &&str| {
        let ebs = EbsInstanceBlockDevice::builder().volume_id(*volume).build();
        InstanceBlockDeviceMapping::builder().ebs(ebs).build()
    };
    Instance::builder()
        .instance_id(id)
        .tags(Tag::builder().key("Backup").value("true").build())
        .tags(Tag::builder().key("Name").value(name).build())
        .set_block_device_mappings(Some(volumes.iter().map(device).collect()))
        .build()
}

fn lists(instances: Vec<Instance>) -> Rule {
    mock!(Client::describe_instances)
        .match_requests(|request| {
            request.filters()[0].name() == Some("tag:Backup")
                && request.filters()[1].values() == ["pending", "running", "stopping", "stopped"]
        })
        .then_output(move || {
            let reservation = Reservation::builder().set_instances(Some(instances.clone())).build();
            DescribeInstancesOutput::builder().reservations(reservation).build()
        })
}

/// A snapshot that a hop of the run has made at its start.
fn pending(volume: &str, instance: &str, hop: u32) -> Snapshot {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    Snapshot::builder()
        .snapshot_id(format!("snap-of-{volume}"))
        .volume_id(volume)
        .tags(tag("snapwarden:instance", instance))
        .tags(tag("snapwarden:hop", &hop.to_string()))
        .state(SnapshotState::Pending)
        .start_time(DateTime::from_secs(1_795_312_809))
        .build()
}

fn no_snapshots() -> Rule {
    mock!(Client::describe_snapshots)
        .match_requests(|_| true)
        .then_output(|| DescribeSnapshotsOutput::builder().build())
}

fn creates(id: &'static str, volumes: &'static [&str]) -> Rule {
    mock!(Client::create_snapshots)
        .match_requests(move |request| instance_of(request) == id)
        .then_output(move || answer(volumes))
}

fn refuses(id: &'static str, code: &'static str) -> Rule {
    mock!(Client::create_snapshots)
        .match_requests(move |request| instance_of(request) == id)
        .then_error(move || error(code))
}

fn instance_of(request: &aws_sdk_ec2::operation::create_snapshots::CreateSnapshotsInput) -> &str {
    request.instance_specification().and_then(|instance| instance.instance_id()).unwrap_or_default()
}

fn answer(volumes: &[&str]) -> CreateSnapshotsOutput {
    let info = |volume: &&str| {
        SnapshotInfo::builder().snapshot_id(format!("snap-of-{volume}")).volume_id(*volume).build()
    };
    CreateSnapshotsOutput::builder().set_snapshots(Some(volumes.iter().map(info).collect())).build()
}

fn error(code: &str) -> CreateSnapshotsError {
    CreateSnapshotsError::generic(ErrorMetadata::builder().code(code).message("as asked").build())
}

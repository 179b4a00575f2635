use std::num::NonZeroU16;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::types::{
    EbsInstanceBlockDevice, InstanceBlockDeviceMapping, InstanceState, Reservation, Tag, Volume,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

use super::*;

fn tags(tags: &[(&str, &str)]) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect()
}

/// To delete what AWS Backup manages is refused by EC2; to say so before takes one of these signs.
#[test]
fn a_snapshot_of_aws_backup_is_known_by_its_tag_or_its_description() {
    let snapshot = |tagged: &[(&str, &str)], description: &str| {
        let snapshot = types::Snapshot::builder().snapshot_id("snap-1").description(description);
        read_snapshot(&snapshot.set_tags(Some(tags(tagged))).build()).unwrap().aws_backup
    };
    assert!(snapshot(&[("aws:backup:source-resource", "i-1:…")], ""));
    assert!(snapshot(&[], "This snapshot is created by the AWS Backup service."));
    assert!(!snapshot(&[("backup:source-resource", "aws:backup")], "for AWS Backup, some day"));
}

/// A state that is added to EC2 one day must not pass for "completed".
#[test]
fn only_what_ec2_calls_completed_is() {
    for (text, state) in [
        ("completed", State::Completed),
        ("error", State::Error),
        ("pending", State::Pending),
        ("recovering", State::Unsettled),
        ("recoverable", State::Unsettled),
        ("paused", State::Unsettled),
    ] {
        let snapshot = types::Snapshot::builder().snapshot_id("snap-1").state(SnapshotState::from(text));
        assert_eq!(read_snapshot(&snapshot.build()).unwrap().state, state, "{text}");
    }
}

/// The audit must miss what the backup should make, and nothing that its owner has left out.
#[test]
fn an_instance_is_selected_and_a_volume_left_out_as_the_backup_sees_it() {
    let device = |name: &str, volume: &str| {
        let disk = EbsInstanceBlockDevice::builder().volume_id(volume).build();
        InstanceBlockDeviceMapping::builder().device_name(name).ebs(disk).build()
    };
    let instance = |state: InstanceStateName, tagged: &[(&str, &str)]| {
        let instance = types::Instance::builder()
            .instance_id("i-1")
            .state(InstanceState::builder().name(state).build())
            .root_device_name("/dev/xvda")
            .block_device_mappings(device("/dev/xvda", "vol-a"))
            .block_device_mappings(device("/dev/sdf", "vol-b"))
            .set_tags(Some(tags(tagged)))
            .build();
        let read = read_instance(&instance, &Selector::default()).unwrap();
        let out: Vec<_> = read.volumes.into_iter().filter(|volume| volume.excluded).map(|v| v.id).collect();
        (read.selected, out)
    };
    let running = InstanceStateName::Running;
    assert_eq!(instance(running.clone(), &[("Backup", "true")]), (true, vec![]));
    assert!(!instance(InstanceStateName::ShuttingDown, &[("Backup", "true")]).0);
    assert!(!instance(running.clone(), &[("Backup", "True")]).0);
    let boot = instance(running.clone(), &[("Backup", "true"), ("BackupExcludeBoot", "true")]);
    assert_eq!(boot.1, ["vol-a"]);
    let named = instance(running, &[("Backup", "true"), ("BackupExcludeVolumes", "vol-b vol-c")]);
    assert_eq!(named.1, ["vol-b"]);
}

/// A volume on the second page that passed for gone would lose the copies that its existence protects.
#[tokio::test(start_paused = true)]
async fn every_page_of_every_list_counts() {
    let snapshot = |id: &str| types::Snapshot::builder().snapshot_id(id).build();
    let volume = |id: &str| Volume::builder().volume_id(id).build();
    let instance = |id: &str| {
        Reservation::builder().instances(types::Instance::builder().instance_id(id).build()).build()
    };
    let image = |id: &str, snapshot: &str| {
        let disk = types::EbsBlockDevice::builder().snapshot_id(snapshot).build();
        let device = types::BlockDeviceMapping::builder().ebs(disk).build();
        types::Image::builder().image_id(id).block_device_mappings(device).build()
    };
    let lock = |id: &str| {
        types::LockedSnapshotsInfo::builder().snapshot_id(id).lock_state(LockState::from("new state")).build()
    };
    let rules: Vec<Rule> = vec![
        mock!(Client::describe_snapshots).match_requests(|r| r.next_token().is_none()).then_output(
            move || DescribeSnapshotsOutput::builder().snapshots(snapshot("snap-1")).next_token("2").build(),
        ),
        mock!(Client::describe_snapshots).match_requests(|r| r.next_token().is_some()).then_output(
            move || {
                // The first page's last one again, as when the list changes meanwhile.
                let listed = DescribeSnapshotsOutput::builder().snapshots(snapshot("snap-1"));
                listed.snapshots(snapshot("snap-2")).build()
            },
        ),
        mock!(Client::describe_images).match_requests(|r| r.next_token().is_none()).then_output(|| {
            // A page may be empty and not be the last one.
            DescribeImagesOutput::builder().next_token("2").build()
        }),
        mock!(Client::describe_images)
            .match_requests(|r| r.next_token().is_some())
            .then_output(move || DescribeImagesOutput::builder().images(image("ami-1", "snap-1")).build()),
        mock!(Client::describe_locked_snapshots)
            .match_requests(|r| r.next_token().is_none())
            .then_output(|| DescribeLockedSnapshotsOutput::builder().next_token("2").build()),
        mock!(Client::describe_locked_snapshots)
            .match_requests(|r| r.next_token().is_some())
            .then_output(move || DescribeLockedSnapshotsOutput::builder().snapshots(lock("snap-2")).build()),
        mock!(Client::describe_instances).match_requests(|r| r.next_token().is_none()).then_output(
            move || DescribeInstancesOutput::builder().reservations(instance("i-1")).next_token("2").build(),
        ),
        mock!(Client::describe_instances)
            .match_requests(|r| r.next_token().is_some())
            .then_output(move || DescribeInstancesOutput::builder().reservations(instance("i-2")).build()),
        mock!(Client::describe_volumes).match_requests(|r| r.next_token().is_none()).then_output(move || {
            DescribeVolumesOutput::builder().volumes(volume("vol-1")).next_token("2").build()
        }),
        mock!(Client::describe_volumes)
            .match_requests(|r| r.next_token().is_some())
            .then_output(move || DescribeVolumesOutput::builder().volumes(volume("vol-2")).build()),
    ];
    let client = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &rules.iter().collect::<Vec<_>>());
    let ec2 = Ec2::new(&client, true, NonZeroU16::MIN);
    let inventory = read(&ec2, &"prod".parse().unwrap(), &Selector::default(), false).await.unwrap();
    let held: Vec<_> =
        inventory.snapshots.iter().map(|s| (s.id.as_str(), s.image.as_deref(), s.locked)).collect();
    assert_eq!(held, [("snap-1", Some("ami-1"), false), ("snap-2", None, true)]);
    assert_eq!(inventory.instances.len(), 2);
    assert_eq!(inventory.volumes.len(), 2);
}

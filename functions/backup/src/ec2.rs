//! The calls that a backup makes.

use std::time::Duration;

use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{
    Instance, InstanceSpecification, InstanceStateName, ResourceType, Snapshot, SnapshotInfo, SnapshotState,
    Tag, TagSpecification,
};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::{Failure, VolumeSnapshot};
use snapwarden_domain::retention::DeleteOn;
use snapwarden_domain::run::RunId;
use snapwarden_domain::settings::Selector;
use snapwarden_domain::tags;
use snapwarden_runtime::{Api, Ec2, ec2};

use crate::decide::{Made, Selected};

/// The instances that the tag selects and that have disks to back up, by id.
pub(crate) async fn selected(client: &Ec2, select: &Selector) -> Result<Vec<Selected>, Failure> {
    // A stopped instance's disks can be lost just the same. One that is just starting may be refused by EC2, which
    // the run reports and repeats; left out here, it would have no backup and nobody would know.
    let with_disks = ec2::one_of("instance-state-name", ["pending", "running", "stopping", "stopped"]);
    let filters = vec![ec2::tagged(&select.tag, &select.value), with_disks];
    let mut selected = ec2::instances(client, filters, |instance| {
        // The filter is exact as far as EC2 is; what a user did not tag must not depend on that.
        let is_selected = ec2::tag(instance.tags(), &select.tag) == Some(&select.value);
        is_selected.then(|| read_instance(instance)).flatten()
    })
    .await?;
    selected.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(selected)
}

fn read_instance(instance: &Instance) -> Option<Selected> {
    let volumes = instance.block_device_mappings().iter().filter_map(|device| device.ebs()?.volume_id());
    Some(Selected {
        id: instance.instance_id()?.to_owned(),
        name: ec2::tag(instance.tags(), tags::NAME).filter(|name| !name.is_empty()).map(str::to_owned),
        volumes: volumes.map(str::to_owned).collect(),
        starting: instance.state().and_then(|state| state.name()) == Some(&InstanceStateName::Pending),
    })
}

/// What the run has made already, without what failed; of one instance, or of all.
pub(crate) async fn made(
    client: &Ec2,
    environment: &EnvironmentName,
    run: &RunId,
    instance: Option<&Selected>,
) -> Result<Vec<Made>, Failure> {
    let mut filters = vec![ec2::tagged(tags::RUN, &run.to_string())];
    filters.extend(instance.map(|instance| ec2::tagged(tags::INSTANCE, &instance.id)));
    ec2::snapshots(client, environment, filters, read_snapshot).await
}

fn read_snapshot(snapshot: &Snapshot) -> Option<Made> {
    let usable = matches!(snapshot.state()?, SnapshotState::Pending | SnapshotState::Completed);
    usable.then_some(())?;
    Some(Made {
        id: snapshot.snapshot_id()?.to_owned(),
        instance: ec2::tag(snapshot.tags(), tags::INSTANCE)?.to_owned(),
        volume: snapshot.volume_id()?.to_owned(),
        started_at: ec2::started_at(snapshot),
    })
}

/// What the snapshots of a run have in common.
pub(crate) struct Label<'a> {
    pub(crate) environment: &'a EnvironmentName,
    pub(crate) run: &'a RunId,
    pub(crate) delete_on: DeleteOn,
}

/// Makes one snapshot set of all of the instance's volumes, at one moment, with its tags in the same call: there is
/// no time at which a snapshot exists that cleanup does not know.
///
/// With `dry_run`, only asks EC2 whether it would, and returns no snapshot.
pub(crate) async fn create(
    client: &Ec2,
    instance: &Selected,
    label: &Label<'_>,
    dry_run: bool,
) -> Result<Vec<VolumeSnapshot>, Failure> {
    // CreateSnapshots knows no client token. Were the SDK to repeat a call whose answer got lost, every disk would be
    // snapshotted twice. So an unclear end fails the instance, and the run's retry by Lambda, minutes later, looks
    // for what was made before it makes anything.
    let once = Config::builder().retry_config(RetryConfig::disabled()).timeout_config(
        TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).operation_timeout(PATIENCE).build(),
    );
    let answer = client
        .turn(Api::CreateSnapshots)
        .await
        .create_snapshots()
        .instance_specification(InstanceSpecification::builder().instance_id(&instance.id).build())
        .description(format!("Snapwarden backup of {}, run {}", instance.id, label.run))
        .tag_specifications(tag_specification(instance, label))
        .dry_run(dry_run)
        .customize()
        .config_override(once)
        .send()
        .await;
    match answer {
        Ok(answer) => read_answer(instance, answer.snapshots()),
        Err(error) => match ec2::failure(&error) {
            failure if dry_run && failure.code.as_deref() == Some("DryRunOperation") => Ok(Vec::new()),
            failure => Err(failure),
        },
    }
}

/// How long EC2 may take to answer: long for many volumes at once, and shorter than what the deadline leaves.
const PATIENCE: Duration = Duration::from_secs(50);

/// Whether EC2 says for certain that nothing was made, for a reason that passes with time.
pub(crate) fn is_refused_for_now(failure: &Failure) -> bool {
    matches!(failure.code.as_deref(), Some("RequestLimitExceeded" | "SnapshotCreationPerVolumeRateExceeded"))
}

fn tag_specification(instance: &Selected, label: &Label<'_>) -> TagSpecification {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    TagSpecification::builder()
        .resource_type(ResourceType::Snapshot)
        .tags(tag(tags::DELETE_ON, &label.delete_on.to_string()))
        .tags(tag(tags::ENVIRONMENT, label.environment.as_str()))
        .tags(tag(tags::RUN, &label.run.to_string()))
        .tags(tag(tags::INSTANCE, &instance.id))
        .tags(tag(tags::NAME, instance.name.as_ref().unwrap_or(&instance.id)))
        .build()
}

fn read_answer(instance: &Selected, answer: &[SnapshotInfo]) -> Result<Vec<VolumeSnapshot>, Failure> {
    let made = |info: &SnapshotInfo| {
        // When one volume fails, EC2 lets the whole set fail.
        let failed = info.state() == Some(&SnapshotState::Error);
        let (snapshot, volume) = (info.snapshot_id()?, info.volume_id()?);
        (!failed).then(|| VolumeSnapshot { snapshot: Some(snapshot.to_owned()), volume: volume.to_owned() })
    };
    let mut snapshots: Vec<_> = answer.iter().filter_map(made).collect();
    snapshots.sort_by(|a, b| a.volume.cmp(&b.volume));

    let is_made = |volume: &str| snapshots.iter().any(|made| made.volume == volume);
    let missing: Vec<_> = instance.volumes.iter().map(String::as_str).filter(|id| !is_made(id)).collect();
    if missing.is_empty() {
        return Ok(snapshots);
    }
    Err(Failure::new(
        format!("EC2 made no snapshot of {}", missing.join(", ")),
        "the set counts as not made; the run's next attempt makes it again, unless the volume was detached",
    ))
}

//! The calls that a backup makes.

use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{
    CopyTagsFromSource, Instance, InstanceSpecification, InstanceStateName, ResourceType, Snapshot,
    SnapshotInfo, SnapshotState, Tag, TagSpecification,
};
use jiff::civil::Date;
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::{Failure, VolumeSnapshot};
use snapwarden_domain::run::RunId;
use snapwarden_domain::settings::{BackupSettings, Selector};
use snapwarden_domain::tags;
use snapwarden_runtime::{Api, Deadline, Ec2, ec2};

use crate::copied_tags::{Copying, VolumeTags};
use crate::decide::{Made, Selected};
use crate::set::{NotMade, Sets};
use snapwarden_domain::wishes;

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
    let wishes = wishes::read(|key| ec2::tag(instance.tags(), key));
    let mut read = Selected {
        id: instance.instance_id()?.to_owned(),
        name: ec2::tag(instance.tags(), tags::NAME).filter(|name| !name.is_empty()).map(str::to_owned),
        starting: instance.state().and_then(|state| state.name()) == Some(&InstanceStateName::Pending),
        retention_days: wishes.retention_days,
        warnings: wishes.warnings,
        ..Selected::default()
    };
    let mut named = wishes.exclude_volumes;
    for device in instance.block_device_mappings() {
        let Some(id) = device.ebs().and_then(|disk| disk.volume_id()) else { continue };
        let is_named = named.remove(id);
        // EC2 takes the boot volume's id for a mistake in the list of data volumes.
        let is_boot = device.device_name().is_some() && device.device_name() == instance.root_device_name();
        if is_boot && (wishes.exclude_boot || is_named) {
            read.exclude_boot = true;
        } else if is_named {
            read.exclude_data.insert(id.to_owned());
        } else {
            read.volumes.insert(id.to_owned());
        }
    }
    let not_attached = |id| format!("{} names {id}, which is not attached to it", tags::EXCLUDE_VOLUMES);
    // One that is just being started may not list its volumes yet.
    read.warnings.extend(named.into_iter().filter(|_| !read.starting).map(not_attached));
    Some(read)
}

/// The tags' keys of the volumes that are attached to these instances.
async fn volume_tags(client: &Ec2, instances: &[&Selected]) -> Result<VolumeTags, Failure> {
    /// The most that EC2 lists a page (source: EC2 API reference, `DescribeVolumes`).
    const PAGE: i32 = 500;

    let attached =
        ec2::one_of("attachment.instance-id", instances.iter().map(|instance| instance.id.as_str()));
    let call = client.turn(Api::DescribeVolumes).await.describe_volumes().filters(attached);
    let mut pages = call.max_results(PAGE).into_paginator().send();
    let mut known = VolumeTags::new();
    while let Some(page) = pages.next().await {
        for volume in page.map_err(|error| ec2::failure(&error))?.volumes() {
            let keys = volume.tags().iter().filter_map(|tag| tag.key().map(str::to_owned));
            known.extend(volume.volume_id().map(|id| (id.to_owned(), keys.collect())));
        }
        client.turn(Api::DescribeVolumes).await;
    }
    Ok(known)
}

/// What the run has made already, without what failed; of one instance, or of all.
pub(crate) async fn made(
    client: &Ec2,
    environment: &EnvironmentName,
    run: &RunId,
    instance: Option<&Selected>,
) -> Result<Vec<Made>, Failure> {
    // By its volumes, of which EC2 takes at most 128, and 200 values a call: each has few snapshots, the tags have many.
    let of_instance =
        instance.map(|instance| ec2::one_of("volume-id", instance.volumes.iter().map(String::as_str)));
    let filters = of_instance.into_iter().chain([ec2::tagged(tags::RUN, &run.to_string())]).collect();
    ec2::snapshots(client, environment, filters, read_snapshot).await
}

fn read_snapshot(snapshot: &Snapshot) -> Option<Made> {
    let usable = matches!(snapshot.state()?, SnapshotState::Pending | SnapshotState::Completed);
    usable.then_some(())?;
    Some(Made {
        id: snapshot.snapshot_id()?.to_owned(),
        instance: ec2::tag(snapshot.tags(), tags::INSTANCE)?.to_owned(),
        volume: ec2::volume(snapshot)?.to_owned(),
        started_at: ec2::moment(snapshot),
        encrypted: snapshot.encrypted(),
        hop: ec2::tag(snapshot.tags(), tags::HOP).and_then(|hop| hop.parse().ok()).unwrap_or(0),
    })
}

/// Snapshot sets of one run in EC2.
pub(crate) struct RunSets<'a> {
    pub(crate) ec2: &'a Ec2,
    pub(crate) settings: &'a BackupSettings,
    pub(crate) run: &'a RunId,
    pub(crate) hop: u32,
    /// The day that the run belongs to.
    pub(crate) day: Date,
    pub(crate) dry_run: bool,
}

impl<'a> Sets for RunSets<'a> {
    type Turn = &'a Client;

    async fn turn(&self, deadline: Deadline) -> Option<&'a Client> {
        self.ec2.turn_before(Api::CreateSnapshots, deadline).await
    }

    async fn volume_tags(&self, instances: &[&Selected]) -> Result<VolumeTags, Failure> {
        volume_tags(self.ec2, instances).await
    }

    async fn made(&self, instance: &Selected) -> Result<Vec<Made>, Failure> {
        made(self.ec2, &self.settings.environment, self.run, Some(instance)).await
    }

    /// Makes one snapshot set of the instance's volumes, at one moment, with its tags in the same call: there is no
    /// time at which a snapshot exists that cleanup does not know.
    async fn create(
        &self,
        instance: &Selected,
        copying: &Copying,
        client: Self::Turn,
    ) -> Result<Vec<VolumeSnapshot>, NotMade> {
        // CreateSnapshots knows no client token. Were the SDK to repeat a call whose answer got lost, every disk
        // would be snapshotted twice.
        let once = Config::builder().retry_config(RetryConfig::disabled()).timeout_config(
            TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).operation_timeout(PATIENCE).build(),
        );
        let disks = InstanceSpecification::builder()
            .instance_id(&instance.id)
            .set_exclude_boot_volume(instance.exclude_boot.then_some(true))
            .set_exclude_data_volume_ids(
                (!instance.exclude_data.is_empty()).then(|| instance.exclude_data.iter().cloned().collect()),
            );
        let copies = matches!(copying, Copying::Copy { .. }).then_some(CopyTagsFromSource::Volume);
        let answer = client
            .create_snapshots()
            .instance_specification(disks.build())
            .description(format!("Snapwarden backup of {}, run {}", instance.id, self.run))
            .tag_specifications(self.tags(instance, copying))
            .set_copy_tags_from_source(copies)
            .dry_run(self.dry_run)
            .customize()
            .config_override(once)
            .send()
            .await;
        match answer {
            Ok(answer) => read_answer(instance, answer.snapshots()).map_err(NotMade::Refused),
            Err(error) => {
                let is_internal = error.raw_response().is_some_and(|raw| raw.status().is_server_error());
                match ec2::failure(&error) {
                    failure if self.dry_run && failure.code.as_deref() == Some("DryRunOperation") => {
                        Ok(Vec::new())
                    }
                    failure if is_unclear(&failure, is_internal) => Err(NotMade::Unclear(failure)),
                    failure => Err(NotMade::Refused(failure)),
                }
            }
        }
    }
}

impl RunSets<'_> {
    fn tags(&self, instance: &Selected, copying: &Copying) -> TagSpecification {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let earned = instance.earned(&self.settings.retention, self.day);
        let mut specification = TagSpecification::builder()
            .resource_type(ResourceType::Snapshot)
            .tags(tag(tags::DELETE_ON, &earned.delete_on.to_string()))
            .tags(tag(tags::ENVIRONMENT, self.settings.environment.as_str()))
            .tags(tag(tags::RUN, &self.run.to_string()))
            .tags(tag(tags::INSTANCE, &instance.id))
            .tags(tag(tags::VOLUMES, &instance.volumes.len().to_string()));
        if self.hop > 0 {
            specification = specification.tags(tag(tags::HOP, &self.hop.to_string()));
        }
        if *copying != (Copying::Copy { with_name: false }) {
            let name = instance.name.as_ref().unwrap_or(&instance.id);
            specification = specification.tags(tag(tags::NAME, name));
        }
        specification.build()
    }
}

/// How long EC2 may take to answer: long for many volumes at once. Near the end of an invocation it is not waited for
/// so long (see [`Deadline::before_the_end`]); the next one finds by its tag what was made.
const PATIENCE: Duration = Duration::from_secs(50);

/// Whether the snapshots may have been made all the same. A throttled call was not let in, though EC2 answers it with
/// a server error's status (source: EC2 API reference, "Error codes").
fn is_unclear(failure: &Failure, is_internal: bool) -> bool {
    match failure.code.as_deref() {
        Some("RequestLimitExceeded") => false,
        Some("InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable") | None => true,
        Some(_) => is_internal,
    }
}

fn read_answer(instance: &Selected, answer: &[SnapshotInfo]) -> Result<Vec<VolumeSnapshot>, Failure> {
    let made = |info: &SnapshotInfo| {
        // When one volume fails, EC2 lets the whole set fail.
        let failed = info.state() == Some(&SnapshotState::Error);
        let (snapshot, volume) = (info.snapshot_id()?, info.volume_id()?);
        (!failed).then(|| VolumeSnapshot {
            snapshot: Some(snapshot.to_owned()),
            volume: volume.to_owned(),
            encrypted: info.encrypted(),
        })
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

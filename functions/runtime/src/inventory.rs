//! Reads what cleanup decides by. The function, the preview of a changed policy and the adoption of old snapshots read
//! it here, so they see the same.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::types::{self, InstanceStateName, LockState, SnapshotState, StorageTier};
use jiff::Timestamp;
use snapwarden_domain::inventory::{AttachedVolume, Instance, Inventory, Snapshot, State};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;
use snapwarden_domain::settings::Selector;
use snapwarden_domain::{tags, wishes};

use crate::ec2::{Ec2, PAGE, copy_of, failure, instances, moment, one_of, snapshots, tag, volume};
use crate::pace::Api;

/// Reads all that verdicts on the environment's snapshots need.
///
/// What cannot be read fails, since a fence that is not seen would not hold. `is_emulated` says that an emulator on
/// this host answers in EC2's place: it may not know snapshot locks, and then has none.
pub async fn read(
    client: &Ec2,
    environment: &EnvironmentName,
    select: &Selector,
    is_emulated: bool,
) -> Result<Inventory, Failure> {
    let found = snapshots(client, environment, Vec::new(), read_snapshot).await?;
    read_around(client, found, select, is_emulated).await
}

/// The same around snapshots that are listed already.
pub async fn read_around(
    client: &Ec2,
    snapshots: Vec<Snapshot>,
    select: &Selector,
    is_emulated: bool,
) -> Result<Inventory, Failure> {
    let snapshots = with_holders(client, snapshots, is_emulated).await?;
    // Terminated instances are listed for about another hour; they are gone.
    let existing =
        one_of("instance-state-name", ["pending", "running", "shutting-down", "stopping", "stopped"]);
    let instances = instances(client, vec![existing], |instance| read_instance(instance, select)).await?;
    let (volumes, clear_volumes) = volumes(client).await?;
    Ok(Inventory { snapshots, instances, volumes, clear_volumes })
}

/// The snapshots with what holds each: AMIs and locks of their own Region.
pub async fn with_holders(
    client: &Ec2,
    mut snapshots: Vec<Snapshot>,
    is_emulated: bool,
) -> Result<Vec<Snapshot>, Failure> {
    // A list that changes between two pages may name one twice.
    snapshots.sort_by(|a, b| a.id.cmp(&b.id));
    snapshots.dedup_by(|a, b| a.id == b.id);

    let images = images(client).await?;
    let locked = match locked(client, is_emulated).await {
        // EC2 itself refuses to delete a locked snapshot, whatever is known here.
        Err(failure) if is_emulated => {
            tracing::warn!("the emulator does not know snapshot locks: {failure}");
            BTreeSet::new()
        }
        locked => locked?,
    };
    for snapshot in &mut snapshots {
        snapshot.image = images.get(&snapshot.id).cloned();
        snapshot.locked = locked.contains(&snapshot.id);
    }
    Ok(snapshots)
}

/// A snapshot without what other lists say about it: AMIs and locks.
pub fn read_snapshot(snapshot: &types::Snapshot) -> Option<Snapshot> {
    let tag = |key| tag(snapshot.tags(), key).map(str::to_owned);
    Some(Snapshot {
        id: snapshot.snapshot_id()?.to_owned(),
        volume: volume(snapshot).map(str::to_owned),
        size_gib: snapshot.volume_size().and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
        state: match snapshot.state() {
            Some(SnapshotState::Completed) => State::Completed,
            Some(SnapshotState::Error) => State::Error,
            Some(SnapshotState::Pending) => State::Pending,
            _ => State::Unsettled,
        },
        state_message: snapshot.state_message().filter(|text| !text.is_empty()).map(str::to_owned),
        // While it is restored for some days only, EC2 may show its tier as that of any other snapshot.
        archived: snapshot.restore_expiry_time().is_some()
            || snapshot.storage_tier().is_some_and(|tier| *tier != StorageTier::Standard),
        locked: false,
        aws_backup: is_of_aws_backup(snapshot),
        image: None,
        encrypted: snapshot.encrypted().unwrap_or_default(),
        copy: copy_of(snapshot),
        started_at: moment(snapshot),
        environment: tag(tags::ENVIRONMENT),
        instance: tag(tags::INSTANCE),
        run: tag(tags::RUN),
        set_volumes: tag(tags::VOLUMES).and_then(|volumes| volumes.parse().ok()),
        adopted: tag(tags::ADOPTED).is_some(),
        delete_on: tag(tags::DELETE_ON),
    })
}

/// What verdicts on the copies in a Region go by: the copies and what holds them there, instances and volumes at home.
pub async fn read_copies(
    client: &Ec2,
    owner: &Owner,
    home: &Inventory,
    is_emulated: bool,
) -> Result<Inventory, Failure> {
    let copies = snapshots(client, owner, Vec::new(), |listed| read_copy(listed, owner)).await?;
    if copies.is_empty() {
        return Ok(Inventory::default());
    }
    Ok(Inventory {
        snapshots: with_holders(client, copies, is_emulated).await?,
        instances: home.instances.clone(),
        volumes: home.volumes.clone(),
        clear_volumes: BTreeSet::new(),
    })
}

/// A copy in another Region, the same way: it belongs to the environment whose copy it is, and to no other.
pub fn read_copy(snapshot: &types::Snapshot, owner: &Owner) -> Option<Snapshot> {
    let (key, value) = owner.tag();
    let is_ours = tag(snapshot.tags(), key) == Some(&value);
    let environment = is_ours.then(|| owner.environment().to_string());
    Some(Snapshot { environment, ..read_snapshot(snapshot)? })
}

/// AWS Backup tags what it makes with `aws:backup:source-resource` and describes it in a sentence that names the
/// service (source: AWS Backup developer guide). Nobody else can set tags that begin with `aws:`. Where both are
/// missing, EC2 still refuses the deletion.
fn is_of_aws_backup(snapshot: &types::Snapshot) -> bool {
    let is_its_tag = |tag: &types::Tag| tag.key().is_some_and(|key| key.starts_with("aws:backup:"));
    snapshot.tags().iter().any(is_its_tag)
        || snapshot.description().is_some_and(|text| text.contains("created by the AWS Backup service"))
}

fn read_instance(instance: &types::Instance, select: &Selector) -> Option<Instance> {
    let id = instance.instance_id()?.to_owned();
    let tag = |key: &str| tag(instance.tags(), key);
    let can_be_backed_up = matches!(
        instance.state().and_then(|state| state.name()),
        Some(
            InstanceStateName::Pending
                | InstanceStateName::Running
                | InstanceStateName::Stopping
                | InstanceStateName::Stopped
        )
    );
    let wishes = wishes::read(tag);
    let volumes = instance.block_device_mappings().iter().filter_map(|device| {
        let disk = device.ebs()?;
        let id = disk.volume_id()?.to_owned();
        let is_root = device.device_name().is_some() && device.device_name() == instance.root_device_name();
        let excluded = is_root && wishes.exclude_boot || wishes.exclude_volumes.contains(&id);
        Some(AttachedVolume { attached_at: disk.attach_time().and_then(timestamp), id, excluded })
    });
    Some(Instance {
        name: tag(tags::NAME).filter(|name| !name.is_empty()).map(str::to_owned),
        selected: can_be_backed_up && tag(&select.tag) == Some(&select.value),
        volumes: volumes.collect(),
        id,
    })
}

fn timestamp(time: &aws_sdk_ec2::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}

/// The AMIs of this account by the snapshots that they are made of. Disabled ones hold their snapshots as well.
///
/// An AMI in the Recycle Bin is not listed. EC2 still says that its snapshots are in use when one is to be deleted.
async fn images(client: &Ec2) -> Result<BTreeMap<String, String>, Failure> {
    let call = client.unpaced().describe_images().owners("self").include_disabled(true).max_results(PAGE);
    let mut pages = call.into_paginator().send();
    let mut found = BTreeMap::new();
    loop {
        client.turn(Api::OtherDescribe).await;
        let Some(page) = pages.next().await else { return Ok(found) };
        let page = page.map_err(|error| failure(&error).during("could not list the AMIs"))?;
        for image in page.images() {
            let Some(id) = image.image_id() else { continue };
            let devices = image.block_device_mappings().iter();
            let made_of = devices.filter_map(|device| device.ebs()?.snapshot_id());
            found.extend(made_of.map(|snapshot| (snapshot.to_owned(), id.to_owned())));
        }
    }
}

/// The ids of the snapshots under a lock that has not expired. The SDK has no paginator for this call.
async fn locked(client: &Ec2, is_emulated: bool) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut token = None;
    loop {
        let client = client.turn(Api::OtherDescribe).await;
        let call = client.describe_locked_snapshots().max_results(PAGE).set_next_token(token);
        let mut call = call.customize();
        if is_emulated {
            // What an emulator does not know, it does not learn by being asked again.
            call = call.config_override(Config::builder().retry_config(RetryConfig::disabled()));
        }
        let page =
            call.send().await.map_err(|error| failure(&error).during("could not list the snapshot locks"))?;
        // A state that is added one day counts as locked.
        let locked = page.snapshots().iter().filter(|lock| lock.lock_state() != Some(&LockState::Expired));
        found.extend(locked.filter_map(|lock| lock.snapshot_id().map(str::to_owned)));
        token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// The ids of all volumes, and of those that are not encrypted.
async fn volumes(client: &Ec2) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
    /// EC2 lists at most 500 volumes a page (source: EC2 API, `DescribeVolumes`).
    const VOLUMES: i32 = 500;

    let mut pages = client.unpaced().describe_volumes().max_results(VOLUMES).into_paginator().send();
    let (mut found, mut clear) = (BTreeSet::new(), BTreeSet::new());
    loop {
        client.turn(Api::DescribeVolumes).await;
        let Some(page) = pages.next().await else { return Ok((found, clear)) };
        let page = page.map_err(|error| failure(&error).during("could not list the volumes"))?;
        for volume in page.volumes() {
            let Some(id) = volume.volume_id() else { continue };
            found.insert(id.to_owned());
            if volume.encrypted() == Some(false) {
                clear.insert(id.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Restoring: new volumes of an instance's newest complete snapshot set at or before a time.
//!
//! What to restore is chosen by [`choose`], which is pure and goes by the same [`snapshot_set`] as cleanup's floor. The
//! originals are never touched: volumes are made beside them, and whoever restores attaches them.
//!
//! [`snapshot_set`]: snapwarden_domain::snapshot_set

pub mod drill;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use jiff::Timestamp;
use serde::Serialize;
use snapwarden_domain::inventory as domain;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::place::place;
use snapwarden_domain::snapshot_set::{by_set, of_one_moment, one_a_volume};
use snapwarden_domain::tags;
use snapwarden_runtime::ec2::{self, Ec2, tagged};
use snapwarden_runtime::inventory::read_snapshot;

use crate::aws::Aws;
use crate::environment::{CopyPlace, Environment, Requirement};
use crate::error::{AwsError, Call};
use crate::scope::Scope;

pub use volumes::{Made, RestoreError, restore};

/// The tags of restored volumes. None of them is a snapshot's: a restored volume is backed up like any other.
pub mod volume_tags {
    /// Whose snapshots the volume was made of: the environment's name or, in another account, what its copies say of it.
    pub const RESTORED_BY: &str = "snapwarden:restored-by";
    /// The snapshot that it was made of.
    pub const RESTORED_FROM: &str = "snapwarden:restored-from";
    /// When the drill began that made it, in seconds since 1970; only on volumes that a drill deletes again.
    pub const DRILL: &str = "snapwarden:drill";
}

/// A snapshot set and what restoring it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The environment whose snapshots they are.
    pub environment: String,
    /// The instance that they are of.
    pub instance: String,
    /// The run that made the set.
    pub run: String,
    /// The moment that it holds.
    pub taken_at: Option<Timestamp>,
    /// The Region whose copies they are, where they are copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_in: Option<String>,
    /// The account whose copies they are, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What the copies in that account say of whose they are.
    #[serde(skip)]
    pub owner: Option<String>,
    /// Where the volumes are made.
    pub zone: String,
    /// One for each volume of the instance.
    pub volumes: Vec<VolumePlan>,
}

impl RestorePlan {
    /// What says on the volumes whose they are. An account may hold the copies of several environments of one name.
    pub fn restored_by(&self) -> &str {
        self.owner.as_deref().unwrap_or(&self.environment)
    }

    /// Where the copies are that it is made of, where it is of copies: `eu-west-1`, or with the account.
    pub fn place(&self) -> Option<String> {
        let region = self.copies_in.clone()?;
        Some(place(&region, self.account.as_deref()))
    }
}

/// A volume to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumePlan {
    /// The snapshot that it is made of.
    pub snapshot: String,
    /// The volume that the snapshot was made of.
    pub source_volume: Option<String>,
    /// Its size in GiB: that of the source.
    pub size_gib: u32,
    /// Its type: the source's where that still exists, else `gp3`.
    pub kind: String,
    /// Its provisioned IOPS, where its type has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<i32>,
    /// Its throughput in MiB/s, where its type has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i32>,
    /// The device that the source is attached as, where it still is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether the snapshot is encrypted, and the volume therefore as well.
    pub encrypted: bool,
    /// The key that encrypts the volume, where its snapshot is in clear text and nothing has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// The tags of the source volume, as its snapshot carries them.
    pub tags: BTreeMap<String, String>,
}

/// A complete snapshot set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The instance.
    pub instance: &'a str,
    /// The run that made it.
    pub run: &'a str,
    /// The moment that it holds.
    pub taken_at: Timestamp,
    /// One snapshot for each volume; an encrypted copy rather than what it is of.
    pub members: Vec<&'a domain::Snapshot>,
}

/// Why nothing can be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToRestore {
    /// There is no snapshot of the instance, or of any.
    #[error("there is no snapshot of {0}")]
    NoSnapshots(String),
    /// No set has every volume, from one moment.
    #[error(
        "no snapshot set of {instance} is complete: of each, some volume's snapshot is missing, failed, archived or \
         still being made"
    )]
    NoCompleteSet {
        /// The instance.
        instance: String,
    },
    /// The oldest complete set is younger.
    #[error("the oldest complete snapshot set of {instance} is of {oldest:.0}, after {at:.0}")]
    NoneSoEarly {
        /// The instance.
        instance: String,
        /// The time asked for.
        at: Timestamp,
        /// The moment of the oldest complete set.
        oldest: Timestamp,
    },
    /// Nobody said where, and the originals do not tell.
    #[error("nobody knows in which Availability Zone to make the volumes: {0}")]
    NoZone(String),
    /// The zone is in another Region.
    #[error("{zone} is no Availability Zone of {region}")]
    ForeignZone {
        /// What was asked for.
        zone: String,
        /// The Region that is restored in.
        region: String,
    },
}

/// The newest complete set at or before a time; of an instance, or of whichever has the newest.
pub fn choose<'a>(
    snapshots: &'a [domain::Snapshot],
    instance: Option<&str>,
    at: Option<Timestamp>,
) -> Result<Chosen<'a>, NothingToRestore> {
    let wanted = |snapshot: &&domain::Snapshot| {
        instance.is_none_or(|instance| snapshot.instance.as_deref() == Some(instance))
    };
    let name = || instance.unwrap_or("any instance").to_owned();
    let of_instance: Vec<_> = snapshots.iter().filter(wanted).collect();
    if of_instance.is_empty() {
        return Err(NothingToRestore::NoSnapshots(name()));
    }
    let complete = by_set(of_instance).into_iter().filter_map(|(key, members)| {
        let members = one_a_volume(of_one_moment(&members));
        let taken_at = members.iter().filter_map(|member| member.started_at).max()?;
        Some(Chosen { instance: key.instance, run: key.run, taken_at, members })
    });
    let mut complete: Vec<_> = complete.collect();
    complete.sort_by_key(|set| (set.taken_at, set.run, set.instance));
    let Some(oldest) = complete.first().map(|set| set.taken_at) else {
        return Err(NothingToRestore::NoCompleteSet { instance: name() });
    };
    let newest = complete.into_iter().rfind(|set| at.is_none_or(|at| set.taken_at <= at));
    newest.ok_or_else(|| NothingToRestore::NoneSoEarly { instance: name(), at: at.unwrap_or(oldest), oldest })
}

/// What is known of a volume that still exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    zone: String,
    kind: String,
    iops: Option<i32>,
    throughput: Option<i32>,
    /// The device that it is attached as, by instance.
    devices: BTreeMap<String, String>,
}

/// What restoring a set makes. Pure.
pub fn plan(
    chosen: &Chosen<'_>,
    disks: &BTreeMap<String, Disk>,
    tags_of: &BTreeMap<String, BTreeMap<String, String>>,
    zone: Option<&str>,
    copies_in: Option<&CopyPlace>,
    environment: &Environment,
) -> Result<RestorePlan, NothingToRestore> {
    let region = copies_in.map_or(&environment.region, |place| &place.region).as_str();
    let zone = match zone {
        // A local zone is named after its Region, too.
        Some(zone) if zone.len() > region.len() && zone.starts_with(region) => zone.to_owned(),
        Some(zone) => {
            return Err(NothingToRestore::ForeignZone { zone: zone.to_owned(), region: region.to_owned() });
        }
        None if copies_in.is_some() => {
            let why = "the original volumes are elsewhere";
            return Err(NothingToRestore::NoZone(why.to_owned()));
        }
        None => zone_of(chosen, disks)?,
    };
    let encryption = &environment.encryption;
    let own = encryption.key(&environment.environment).filter(|_| encryption.require != Requirement::Off);
    let key = match copies_in {
        // A key encrypts in its own Region only.
        Some(place) => {
            let target = environment.copy_to.iter().find(|target| target.place() == *place);
            target.map(|target| &target.kms_key)
        }
        None => own.as_ref(),
    };
    let volume = |member: &&domain::Snapshot| {
        let disk = member.volume.as_ref().and_then(|volume| disks.get(volume));
        let own =
            |key: &str| key.starts_with("snapwarden:") || key.starts_with("aws:") || key == tags::DELETE_ON;
        let tags = tags_of.get(&member.id).into_iter().flatten().filter(|(key, _)| !own(key));
        VolumePlan {
            snapshot: member.id.clone(),
            source_volume: member.source_volume().map(str::to_owned),
            size_gib: member.size_gib,
            kind: disk.map_or_else(|| "gp3".to_owned(), |disk| disk.kind.clone()),
            iops: disk.and_then(|disk| disk.iops),
            throughput: disk.and_then(|disk| disk.throughput),
            device: disk.and_then(|disk| disk.devices.get(chosen.instance).cloned()),
            encrypted: member.encrypted,
            kms_key: key.as_ref().filter(|_| !member.encrypted).map(ToString::to_string),
            tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    };
    Ok(RestorePlan {
        environment: environment.environment.to_string(),
        instance: chosen.instance.to_owned(),
        run: chosen.run.to_owned(),
        taken_at: Some(chosen.taken_at),
        copies_in: copies_in.map(|place| place.region.to_string()),
        account: copies_in.and_then(|place| place.account().map(str::to_owned)),
        owner: copies_in
            .filter(|place| place.role.is_some())
            .map(|place| Scope::of(environment).owner_of_copies(place).tag().1),
        zone,
        volumes: chosen.members.iter().map(volume).collect(),
    })
}

/// The zone of the originals: only there can the new volumes take their place.
fn zone_of(chosen: &Chosen<'_>, disks: &BTreeMap<String, Disk>) -> Result<String, NothingToRestore> {
    let of_member =
        |member: &&domain::Snapshot| disks.get(member.volume.as_ref()?).map(|disk| disk.zone.clone());
    let zones: BTreeSet<_> = chosen.members.iter().filter_map(of_member).collect();
    let mut zones = zones.into_iter();
    match (zones.next(), zones.next()) {
        (Some(zone), None) => Ok(zone),
        (None, _) => Err(NothingToRestore::NoZone(format!("the volumes of {} are gone", chosen.instance))),
        (Some(_), Some(_)) => {
            Err(NothingToRestore::NoZone(format!("the volumes of {} are in several", chosen.instance)))
        }
    }
}

/// The environment's snapshots with their tags, by id; of one instance, or all. `copies` says that the clients are of
/// another place than the environment's own, and that its copies there are meant.
pub async fn snapshots(
    aws: &Aws,
    scope: &Scope,
    instance: Option<&str>,
    copies: Option<&CopyPlace>,
) -> Result<(Vec<domain::Snapshot>, BTreeMap<String, BTreeMap<String, String>>), AwsError> {
    let ec2 = Ec2::new(&aws.ec2, true, NonZeroU16::MIN);
    let filters = instance.map(|instance| tagged(tags::INSTANCE, instance)).into_iter().collect();
    let own = || Owner::from(&scope.environment);
    let owner = copies.map_or_else(own, |place| scope.owner_of_copies(place));
    let listed = ec2::snapshots(&ec2, &owner, filters, |listed| {
        let pair = |tag: &aws_sdk_ec2::types::Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
        Some((read_snapshot(listed)?, listed.tags().iter().filter_map(pair).collect()))
    });
    let listed = listed.await.map_err(|failure| {
        AwsError::answered("ec2:DescribeSnapshots", failure.code, Some(failure.message))
    })?;
    let tags: BTreeMap<_, BTreeMap<_, _>> = listed
        .iter()
        .map(|(snapshot, tags): &(domain::Snapshot, BTreeMap<_, _>)| (snapshot.id.clone(), tags.clone()))
        .collect();
    Ok((listed.into_iter().map(|(snapshot, _)| snapshot).collect(), tags))
}

/// What is known of the volumes that a set was made of, of those that still exist.
pub async fn disks(aws: &Aws, chosen: &Chosen<'_>) -> Result<BTreeMap<String, Disk>, AwsError> {
    let ids: Vec<_> = chosen.members.iter().filter_map(|member| member.source_volume()).collect();
    let mut disks = BTreeMap::new();
    // EC2 takes 200 values of a filter; an instance has at most 128 volumes.
    for ids in ids.chunks(200) {
        let these = ec2::one_of("volume-id", ids.iter().copied());
        let mut pages = aws.ec2.describe_volumes().filters(these).into_paginator().send();
        while let Some(page) = pages.next().await {
            for volume in page.call("ec2:DescribeVolumes")?.volumes.unwrap_or_default() {
                let attached = volume.attachments().iter().filter_map(|attachment| {
                    Some((attachment.instance_id()?.to_owned(), attachment.device()?.to_owned()))
                });
                let kind = volume.volume_type().map(|kind| kind.as_str().to_owned());
                // EC2 reports IOPS of types for which they cannot be asked.
                let is_provisioned = matches!(kind.as_deref(), Some("gp3" | "io1" | "io2"));
                let disk = Disk {
                    zone: volume.availability_zone().unwrap_or_default().to_owned(),
                    devices: attached.collect(),
                    iops: volume.iops().filter(|iops| is_provisioned && *iops > 0),
                    throughput: volume.throughput().filter(|_| kind.as_deref() == Some("gp3")),
                    kind: kind.unwrap_or_default(),
                };
                disks.extend(volume.volume_id().map(|id| (id.to_owned(), disk)));
            }
        }
    }
    Ok(disks)
}

#[cfg(test)]
mod tests;

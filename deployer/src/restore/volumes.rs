//! Making the volumes of a plan, once, and waiting until they can be attached.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification, VolumeState, VolumeType};
use serde::Serialize;
use snapwarden_runtime::ec2::{one_of, tagged};

use super::volume_tags::{RESTORED_BY, RESTORED_FROM};
use super::{RestorePlan, VolumePlan};
use crate::aws::Aws;
use crate::error::{AwsError, Call};

/// A volume that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Its id.
    pub volume: String,
    /// The snapshot that it was made of.
    pub snapshot: String,
    /// Its size in GiB.
    pub size_gib: i32,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Whether an earlier command had made it.
    pub was_there: bool,
}

/// Why a restore did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// AWS refused, or did not answer.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Volumes were made, and did not become available.
    #[error("not available within {seconds} s: {}", volumes.join(", "))]
    NotAvailable {
        /// How long it was waited for.
        seconds: u64,
        /// The volumes.
        volumes: Vec<String>,
    },
    /// EC2 accepted a volume and could not make it; mostly, its key cannot be used.
    #[error("EC2 could not make {}", volumes.join(", "))]
    Failed {
        /// The volumes.
        volumes: Vec<String>,
    },
}

/// How long EC2 may take to make volumes available: seconds, as a rule.
const PATIENCE: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_secs(2);

/// Makes what of the plan is not there yet, with more tags, and waits until all of it is available.
///
/// `CreateVolume` takes a client token, which the SDK sends with every repetition of a call, so a lost answer makes no
/// second volume. What an earlier command made is found by its tags.
pub async fn restore(
    aws: &Aws,
    plan: &RestorePlan,
    more_tags: &BTreeMap<String, String>,
    tell: &dyn Fn(usize),
) -> Result<Vec<Made>, RestoreError> {
    let there = made_before(aws, plan, more_tags).await?;
    let mut made = Vec::new();
    for wanted in &plan.volumes {
        match there.get(&wanted.snapshot) {
            Some(id) => made.push((id.clone(), wanted, true)),
            None => made.push((create(aws, plan, wanted, more_tags).await?, wanted, false)),
        }
        tell(made.len());
    }
    let ids: BTreeSet<_> = made.iter().map(|(id, ..)| id.clone()).collect();
    let available = wait_until_available(aws, &ids).await?;
    let made = made.into_iter().map(|(volume, wanted, was_there)| {
        let (size_gib, encrypted) = available.get(&volume).copied().unwrap_or_default();
        Made { volume, snapshot: wanted.snapshot.clone(), size_gib, encrypted, was_there }
    });
    Ok(made.collect())
}

/// Volumes that an earlier command made of these snapshots in this zone, and nobody uses yet, by snapshot.
async fn made_before(
    aws: &Aws,
    plan: &RestorePlan,
    more_tags: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, AwsError> {
    let mut filters = vec![
        tagged(RESTORED_BY, plan.restored_by()),
        one_of("availability-zone", [plan.zone.as_str()]),
        one_of("status", ["creating", "available"]),
    ];
    filters.extend(more_tags.iter().map(|(key, value)| tagged(key, value)));
    let mut pages = aws.ec2.describe_volumes().set_filters(Some(filters)).into_paginator().send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        for volume in page.call("ec2:DescribeVolumes")?.volumes.unwrap_or_default() {
            let tag = |key: &str| volume.tags().iter().find(|tag| tag.key() == Some(key))?.value();
            let is_like_this =
                tag(super::volume_tags::DRILL).is_some() == more_tags.contains_key(super::volume_tags::DRILL);
            if let (Some(id), Some(snapshot), true) = (volume.volume_id(), tag(RESTORED_FROM), is_like_this) {
                found.insert(snapshot.to_owned(), id.to_owned());
            }
        }
    }
    Ok(found)
}

async fn create(
    aws: &Aws,
    plan: &RestorePlan,
    wanted: &VolumePlan,
    more_tags: &BTreeMap<String, String>,
) -> Result<String, AwsError> {
    let mut tags = wanted.tags.clone();
    tags.extend(more_tags.clone());
    tags.insert(RESTORED_BY.to_owned(), plan.restored_by().to_owned());
    tags.insert(RESTORED_FROM.to_owned(), wanted.snapshot.clone());
    let tags = tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let specification = TagSpecification::builder().resource_type(ResourceType::Volume);
    let call = aws
        .ec2
        .create_volume()
        .availability_zone(&plan.zone)
        .snapshot_id(&wanted.snapshot)
        .volume_type(VolumeType::from(wanted.kind.as_str()))
        .set_iops(wanted.iops)
        .set_throughput(wanted.throughput)
        .set_encrypted(wanted.kms_key.is_some().then_some(true))
        .set_kms_key_id(wanted.kms_key.clone())
        .tag_specifications(specification.set_tags(Some(tags.collect())).build());
    let answer = call.send().await.call("ec2:CreateVolume")?;
    Ok(answer.volume_id.unwrap_or_default())
}

/// Waits for all of them; returns size and encryption of each.
async fn wait_until_available(
    aws: &Aws,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, (i32, bool)>, RestoreError> {
    let started = tokio::time::Instant::now();
    loop {
        let mut available = BTreeMap::new();
        let mut failed = Vec::new();
        for volume in list(aws, ids).await? {
            let id = volume.volume_id.clone().unwrap_or_default();
            match volume.state() {
                Some(VolumeState::Available | VolumeState::InUse) => {
                    let size = volume.size().unwrap_or_default();
                    available.insert(id, (size, volume.encrypted().unwrap_or_default()));
                }
                Some(VolumeState::Error) => failed.push(id),
                _ => {}
            }
        }
        if !failed.is_empty() {
            return Err(RestoreError::Failed { volumes: failed });
        }
        if available.len() == ids.len() {
            return Ok(available);
        }
        if started.elapsed() > PATIENCE {
            let volumes = ids.iter().filter(|id| !available.contains_key(*id)).cloned().collect();
            return Err(RestoreError::NotAvailable { seconds: PATIENCE.as_secs(), volumes });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Those of these volumes that EC2 lists.
pub(super) async fn list(
    aws: &Aws,
    ids: &BTreeSet<String>,
) -> Result<Vec<aws_sdk_ec2::types::Volume>, AwsError> {
    let mut found = Vec::new();
    // By a filter, since ids asked for directly fail the call as soon as one of them is not listed yet. No ids, no call.
    for chunk in ids.iter().map(String::as_str).collect::<Vec<_>>().chunks(200) {
        let these = one_of("volume-id", chunk.iter().copied());
        let mut pages = aws.ec2.describe_volumes().filters(these).into_paginator().send();
        while let Some(page) = pages.next().await {
            found.extend(page.call("ec2:DescribeVolumes")?.volumes.unwrap_or_default());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

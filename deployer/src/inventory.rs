//! What an environment has produced: snapshots, and events that could not be delivered. Only looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;
use serde::Serialize;
use snapwarden_domain::inventory::{self as domain, Inventory};
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;
use snapwarden_domain::settings::{CleanupSettings, Selector};
use snapwarden_domain::tags;
use snapwarden_runtime::Ec2;
use snapwarden_runtime::ec2::{self, snapshots as list};
use snapwarden_runtime::inventory::{read_around, read_copies, read_snapshot};
use snapwarden_runtime::sharing::shared_with;

use crate::aws::Aws;
use crate::environment::CopyPlace;
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Condition, Resources, Right};
use crate::scope::Scope;

/// What it takes to take the inventory.
pub const RIGHTS: &[Right] = &[
    Right::on(Resources::Everything, "ec2:DescribeSnapshots").when(Condition::InRegion),
    Right::on(Resources::Everything, "ec2:DescribeInstances").when(Condition::InRegion),
    Right::on(Resources::Everything, "ec2:DescribeVolumes").when(Condition::InRegion),
    Right::on(Resources::Everything, "ec2:DescribeImages").when(Condition::InRegion),
    Right::on(Resources::Everything, "ec2:DescribeLockedSnapshots").when(Condition::InRegion),
    Right::on(Resources::LogGroupContents, "logs:FilterLogEvents"),
    Right::on(Resources::DeadLetterQueue, "sqs:GetQueueUrl"),
    Right::on(Resources::DeadLetterQueue, "sqs:GetQueueAttributes"),
];

/// One snapshot that carries the environment's tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Snapshot {
    /// Its `DeleteOn` tag, as written.
    pub delete_on: Option<String>,
    /// Its id, `snap-…`.
    pub snapshot: String,
    /// The volume that it was made of; of an encrypted copy, the one that its source was made of.
    pub volume: String,
    /// Its `snapwarden:instance` tag.
    pub instance: Option<String>,
    /// `pending`, `completed` or `error`.
    pub state: String,
    /// The volume's size in GiB.
    pub size_gib: i32,
    /// When EC2 began to make it, or what it is a copy of.
    pub started_at: Option<Timestamp>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// All snapshots of the environment, those due first at the top.
pub async fn snapshots(aws: &Aws, scope: &Scope) -> Result<Vec<Snapshot>, AwsError> {
    owned_by(&aws.ec2, &Owner::from(&scope.environment)).await
}

/// The copies of the environment's snapshots that another Region or account holds.
pub async fn copies(aws: &Aws, scope: &Scope, place: &CopyPlace) -> Result<Vec<Snapshot>, AwsError> {
    owned_by(&aws.ec2_at(place).await?, &scope.owner_of_copies(place)).await
}

/// Which of the environment's snapshots another account may read, so that it can copy them.
pub async fn shared(aws: &Aws, scope: &Scope, account: &str) -> Result<BTreeSet<String>, AwsError> {
    let ec2 = Ec2::new(&aws.ec2, true, NonZeroU16::MIN);
    shared_with(&ec2, &Owner::from(&scope.environment), account).await.map_err(failed)
}

pub(crate) async fn owned_by(ec2: &aws_sdk_ec2::Client, owner: &Owner) -> Result<Vec<Snapshot>, AwsError> {
    let (key, value) = owner.tag();
    let filter = aws_sdk_ec2::types::Filter::builder().name(format!("tag:{key}")).values(&value).build();
    let pages = ec2.describe_snapshots().owner_ids("self").filters(filter).max_results(1000).into_paginator();
    let mut found = Vec::new();
    for snapshot in pages.items().send().collect::<Vec<_>>().await {
        let snapshot = snapshot.call("ec2:DescribeSnapshots")?;
        let tag = |key: &str| {
            let tags = snapshot.tags.iter().flatten();
            tags.filter(|tag| tag.key.as_deref() == Some(key)).find_map(|tag| tag.value.clone())
        };
        // A purge deletes all that is returned here. A filter gone wrong must not make it somebody else's.
        if tag(key).as_ref() != Some(&value) {
            continue;
        }
        found.push(Snapshot {
            delete_on: tag(tags::DELETE_ON),
            instance: tag(tags::INSTANCE),
            state: snapshot.state.as_ref().map(|state| state.as_str().to_owned()).unwrap_or_default(),
            size_gib: snapshot.volume_size.unwrap_or_default(),
            started_at: ec2::moment(&snapshot),
            encrypted: snapshot.encrypted.unwrap_or_default(),
            volume: ec2::volume(&snapshot).unwrap_or_default().to_owned(),
            snapshot: snapshot.snapshot_id.unwrap_or_default(),
        });
    }
    found.sort();
    Ok(found)
}

/// A volume, as far as a restore of it has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is, such as `eu-central-1a`.
    pub availability_zone: String,
    /// Such as `gp3`.
    pub kind: String,
    /// How many operations it does in a second.
    pub iops: Option<i32>,
    /// How many MiB it moves in a second.
    pub throughput: Option<i32>,
}

/// All volumes of the account in this Region, by id.
pub async fn volumes(aws: &Aws) -> Result<BTreeMap<String, Volume>, AwsError> {
    let pages = aws.ec2.describe_volumes().max_results(500).into_paginator();
    let mut found = BTreeMap::new();
    for volume in pages.items().send().collect::<Vec<_>>().await {
        let volume = volume.call("ec2:DescribeVolumes")?;
        let kind = volume.volume_type.as_ref().map(|kind| kind.as_str().to_owned()).unwrap_or_default();
        let found_volume = Volume {
            availability_zone: volume.availability_zone.unwrap_or_default(),
            kind,
            iops: volume.iops,
            throughput: volume.throughput,
        };
        found.insert(volume.volume_id.unwrap_or_default(), found_volume);
    }
    Ok(found)
}

/// The instances that a backup selects, read by the functions' own code, whether or not they have any snapshot.
pub async fn selected_instances(
    aws: &Aws,
    select: &Selector,
    is_emulated: bool,
) -> Result<Vec<domain::Instance>, AwsError> {
    let ec2 = Ec2::new(&aws.ec2, true, NonZeroU16::MIN);
    let inventory = read_around(&ec2, Vec::new(), select, is_emulated).await.map_err(failed)?;
    Ok(inventory.instances.into_iter().filter(|instance| instance.selected).collect())
}

/// Everything that cleanup would go by, read by the function's own code, with more snapshots beside the environment's.
pub async fn of_cleanup(
    aws: &Aws,
    settings: &CleanupSettings,
    others: Vec<domain::Snapshot>,
    is_emulated: bool,
) -> Result<Inventory, AwsError> {
    let ec2 = Ec2::new(&aws.ec2, true, NonZeroU16::MIN);
    let own = list(&ec2, &settings.environment, Vec::new(), read_snapshot).await.map_err(failed)?;
    let snapshots: Vec<_> = own.into_iter().chain(others).collect();
    if snapshots.is_empty() {
        return Ok(Inventory::default());
    }
    read_around(&ec2, snapshots, &settings.select, is_emulated).await.map_err(failed)
}

/// The same of the copies elsewhere. `home` is the inventory of the environment's own.
pub async fn of_cleanup_in(
    aws: &Aws,
    scope: &Scope,
    place: &CopyPlace,
    home: &Inventory,
    is_emulated: bool,
) -> Result<Inventory, AwsError> {
    let ec2 = Ec2::new(&aws.ec2_at(place).await?, true, NonZeroU16::MIN);
    read_copies(&ec2, &scope.owner_of_copies(place), home, is_emulated).await.map_err(failed)
}

fn failed(failure: Failure) -> AwsError {
    AwsError::answered("EC2", failure.code, Some(failure.message))
}

/// About how many events lie in the dead-letter queue; none where there is no queue.
pub async fn undelivered(aws: &Aws, scope: &Scope) -> Result<u64, AwsError> {
    let queue = aws.sqs.get_queue_url().queue_name(scope.dead_letter_queue()).send().await;
    let Some(url) = queue.call("sqs:GetQueueUrl").or_absent()?.and_then(|queue| queue.queue_url) else {
        return Ok(0);
    };
    // What somebody is looking at just now is still there.
    let numbers = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    ];
    let call = aws.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(numbers.to_vec()));
    let answer = call.send().await.call("sqs:GetQueueAttributes").or_absent()?;
    let attributes = answer.and_then(|answer| answer.attributes).unwrap_or_default();
    Ok(numbers.iter().filter_map(|number| attributes.get(number)?.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::Client;
    use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
    use aws_sdk_ec2::types::{Snapshot as Ec2Snapshot, Tag};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;
    use crate::aws::LocalEndpoints;

    /// A purge deletes what is listed here.
    #[tokio::test]
    async fn what_a_loose_filter_lets_through_is_not_ours() {
        let list = mock!(Client::describe_snapshots).match_requests(|_| true).then_output(|| {
            let of = |id: &str, environment: &str| {
                let tag = Tag::builder().key(tags::ENVIRONMENT).value(environment).build();
                Ec2Snapshot::builder().snapshot_id(id).tags(tag).build()
            };
            DescribeSnapshotsOutput::builder()
                .snapshots(of("snap-1", "test"))
                .snapshots(of("snap-2", "test2"))
                .snapshots(Ec2Snapshot::builder().snapshot_id("snap-3").build())
                .build()
        });
        let nowhere =
            LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
        let aws = Aws::local(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere);
        let aws = Aws { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&list]), ..aws };
        let scope = Scope {
            account: "123456789012".to_owned().try_into().unwrap(),
            region: "eu-central-1".to_owned().try_into().unwrap(),
            environment: "test".parse().unwrap(),
            iam: crate::environment::Iam::default(),
            encryption: crate::environment::Encryption::default(),
        };
        let found = snapshots(&aws, &scope).await.unwrap();
        assert_eq!(found.iter().map(|one| one.snapshot.as_str()).collect::<Vec<_>>(), ["snap-1"]);
    }
}

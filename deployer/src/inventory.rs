//! What an environment has produced: snapshots, and events that could not be delivered. Only looked at.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;
use serde::Serialize;
use snapwarden_domain::inventory::{self as domain, Inventory};
use snapwarden_domain::report::Failure;
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_domain::tags;
use snapwarden_runtime::Ec2;
use snapwarden_runtime::ec2::snapshots as list;
use snapwarden_runtime::inventory::{read_around, read_snapshot};

use crate::aws::Aws;
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
    /// The volume that it was made of.
    pub volume: String,
    /// Its `snapwarden:instance` tag.
    pub instance: Option<String>,
    /// `pending`, `completed` or `error`.
    pub state: String,
    /// The volume's size in GiB.
    pub size_gib: i32,
    /// When EC2 began to make it.
    pub started_at: Option<Timestamp>,
}

/// All snapshots of the environment, those due first at the top.
pub async fn snapshots(aws: &Aws, scope: &Scope) -> Result<Vec<Snapshot>, AwsError> {
    let owned = aws_sdk_ec2::types::Filter::builder()
        .name(format!("tag:{}", tags::ENVIRONMENT))
        .values(scope.environment.as_str())
        .build();
    let pages =
        aws.ec2.describe_snapshots().owner_ids("self").filters(owned).max_results(1000).into_paginator();
    let mut found = Vec::new();
    for snapshot in pages.items().send().collect::<Vec<_>>().await {
        let snapshot = snapshot.call("ec2:DescribeSnapshots")?;
        let tag = |key: &str| {
            let tags = snapshot.tags.iter().flatten();
            tags.filter(|tag| tag.key.as_deref() == Some(key)).find_map(|tag| tag.value.clone())
        };
        // A purge deletes all that is returned here. A filter gone wrong must not make it somebody else's.
        if tag(tags::ENVIRONMENT).as_deref() != Some(scope.environment.as_str()) {
            continue;
        }
        found.push(Snapshot {
            delete_on: tag(tags::DELETE_ON),
            instance: tag(tags::INSTANCE),
            state: snapshot.state.as_ref().map(|state| state.as_str().to_owned()).unwrap_or_default(),
            size_gib: snapshot.volume_size.unwrap_or_default(),
            started_at: snapshot.start_time.and_then(|time| Timestamp::from_second(time.secs()).ok()),
            snapshot: snapshot.snapshot_id.unwrap_or_default(),
            volume: snapshot.volume_id.unwrap_or_default(),
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
}

/// All volumes of the account in this Region, by id.
pub async fn volumes(aws: &Aws) -> Result<BTreeMap<String, Volume>, AwsError> {
    let pages = aws.ec2.describe_volumes().max_results(500).into_paginator();
    let mut found = BTreeMap::new();
    for volume in pages.items().send().collect::<Vec<_>>().await {
        let volume = volume.call("ec2:DescribeVolumes")?;
        let kind = volume.volume_type.as_ref().map(|kind| kind.as_str().to_owned()).unwrap_or_default();
        let availability_zone = volume.availability_zone.unwrap_or_default();
        found.insert(volume.volume_id.unwrap_or_default(), Volume { availability_zone, kind });
    }
    Ok(found)
}

/// Everything that cleanup would go by, read by the function's own code, with more snapshots beside the environment's.
pub async fn of_cleanup(
    aws: &Aws,
    settings: &CleanupSettings,
    others: Vec<domain::Snapshot>,
    is_emulated: bool,
) -> Result<Inventory, AwsError> {
    let ec2 = Ec2::new(&aws.ec2, true, NonZeroU16::MIN);
    let failed = |failure: Failure| AwsError::answered("EC2", failure.code, Some(failure.message));
    let own = list(&ec2, &settings.environment, Vec::new(), read_snapshot).await.map_err(failed)?;
    let snapshots: Vec<_> = own.into_iter().chain(others).collect();
    if snapshots.is_empty() {
        return Ok(Inventory::default());
    }
    read_around(&ec2, snapshots, &settings.select, is_emulated).await.map_err(failed)
}

/// About how many events lie in the dead-letter queue; none where there is no queue.
pub async fn undelivered(aws: &Aws, scope: &Scope) -> Result<u64, AwsError> {
    let queue = aws.sqs.get_queue_url().queue_name(scope.dead_letter_queue()).send().await;
    let Some(url) = queue.call("sqs:GetQueueUrl").or_absent()?.and_then(|queue| queue.queue_url) else {
        return Ok(0);
    };
    let number = QueueAttributeName::ApproximateNumberOfMessages;
    let call = aws.sqs.get_queue_attributes().queue_url(url).attribute_names(number.clone());
    let attributes =
        call.send().await.call("sqs:GetQueueAttributes").or_absent()?.and_then(|answer| answer.attributes);
    Ok(attributes.and_then(|attributes| attributes.get(&number)?.parse().ok()).unwrap_or(0))
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
        };
        let found = snapshots(&aws, &scope).await.unwrap();
        assert_eq!(found.iter().map(|one| one.snapshot.as_str()).collect::<Vec<_>>(), ["snap-1"]);
    }
}

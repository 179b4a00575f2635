//! A restore for practice: volumes are made of the newest set, looked at, and deleted again. A backup that was never
//! restored is a hope.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use snapwarden_domain::metrics::{
    DIMENSION, NAMESPACE, RESTORE_DRILL_FAILURES, RESTORE_DRILL_SECONDS, RESTORE_DRILLS,
};
use snapwarden_runtime::ec2::tagged;

use super::volume_tags::{DRILL, RESTORED_BY};
use super::volumes::list;
use super::{Made, RestorePlan, restore};
use crate::aws::Aws;
use crate::error::{AwsError, Call};
use crate::scope::Scope;

/// How a drill went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drill {
    /// What was to be restored.
    pub plan: RestorePlan,
    /// The volumes that were made, and are deleted again.
    pub made: Vec<Made>,
    /// What was wrong; nothing after a drill that proves the backup.
    pub problems: Vec<String>,
    /// Volumes that could not be deleted, and are billed.
    pub left: Vec<String>,
    /// How long it took until everything could be attached, in seconds.
    pub seconds: u64,
}

/// How old the volumes of an earlier drill are that nobody can be at any more.
const ABANDONED: SignedDuration = SignedDuration::from_hours(1);

/// Makes the volumes, checks them, and deletes them, whatever happens in between. `tell` hears how many there are.
pub async fn drill(aws: &Aws, plan: RestorePlan, now: Timestamp, tell: &dyn Fn(usize)) -> Drill {
    let started = tokio::time::Instant::now();
    let tags = BTreeMap::from([(DRILL.to_owned(), now.as_second().to_string())]);
    let mut drill = Drill { plan, made: Vec::new(), problems: Vec::new(), left: Vec::new(), seconds: 0 };
    match restore(aws, &drill.plan, &tags, tell).await {
        Ok(made) => {
            drill.problems = wrong_with(&drill.plan, &made);
            drill.made = made;
        }
        Err(error) => drill.problems.push(error.to_string()),
    }
    drill.seconds = started.elapsed().as_secs();
    // By their tags rather than by what was answered: also what was made by a call whose answer got lost.
    match of_drills(aws, drill.plan.restored_by()).await {
        Ok(found) => {
            let is_ours = |began: &Option<Timestamp>| {
                began.is_none_or(|began| {
                    began.as_second() == now.as_second() || now.duration_since(began) > ABANDONED
                })
            };
            let ours: BTreeSet<_> =
                found.into_iter().filter(|(_, began)| is_ours(began)).map(|(id, _)| id).collect();
            drill.left = delete(aws, ours, &mut drill.problems).await;
        }
        Err(error) => {
            drill.left = drill.made.iter().map(|made| made.volume.clone()).collect();
            drill.problems.push(format!("the volumes were not deleted: {error}"));
        }
    }
    drill
}

/// What of the volumes is not as planned. Pure.
fn wrong_with(plan: &RestorePlan, made: &[Made]) -> Vec<String> {
    let mut problems = Vec::new();
    if made.len() != plan.volumes.len() {
        problems.push(format!("{} volumes were made, and the set has {}", made.len(), plan.volumes.len()));
    }
    for wanted in &plan.volumes {
        let Some(made) = made.iter().find(|made| made.snapshot == wanted.snapshot) else {
            problems.push(format!("no volume was made of {}", wanted.snapshot));
            continue;
        };
        if u32::try_from(made.size_gib) != Ok(wanted.size_gib) {
            let (volume, size, wanted) = (&made.volume, made.size_gib, wanted.size_gib);
            problems.push(format!("{volume} has {size} GiB, and its snapshot {wanted}"));
        }
        if !made.encrypted && (wanted.encrypted || wanted.kms_key.is_some()) {
            problems.push(format!("{} is not encrypted", made.volume));
        }
    }
    problems
}

/// The volumes of all drills of an environment, with the time at which each began.
async fn of_drills(aws: &Aws, restored_by: &str) -> Result<Vec<(String, Option<Timestamp>)>, AwsError> {
    let has_tag = aws_sdk_ec2::types::Filter::builder().name("tag-key").values(DRILL).build();
    let filters = vec![tagged(RESTORED_BY, restored_by), has_tag];
    let mut pages = aws.ec2.describe_volumes().set_filters(Some(filters)).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        for volume in page.call("ec2:DescribeVolumes")?.volumes.unwrap_or_default() {
            let tag = volume.tags().iter().find(|tag| tag.key() == Some(DRILL)).and_then(|tag| tag.value());
            let began = tag.and_then(|tag| Timestamp::from_second(tag.parse().ok()?).ok());
            found.extend(volume.volume_id().map(|id| (id.to_owned(), began)));
        }
    }
    Ok(found)
}

/// Deletes them, and returns those that are still there.
async fn delete(aws: &Aws, ids: BTreeSet<String>, problems: &mut Vec<String>) -> Vec<String> {
    const PAUSES_SECS: [u64; 5] = [0, 2, 5, 10, 20];

    for id in &ids {
        match aws.ec2.delete_volume().volume_id(id).send().await.call("ec2:DeleteVolume") {
            Err(error) if error.code != "InvalidVolume.NotFound" => problems.push(format!("{id}: {error}")),
            _ => {}
        }
    }
    let mut left = ids;
    for pause in PAUSES_SECS {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        match list(aws, &left).await {
            Ok(listed) => left = listed.into_iter().filter_map(|volume| volume.volume_id).collect(),
            Err(error) => problems.push(format!("whether the volumes are gone cannot be seen: {error}")),
        }
        if left.is_empty() {
            break;
        }
    }
    left.into_iter().collect()
}

/// Tells CloudWatch how a drill went: an alarm can watch it, and that there are drills at all.
pub async fn record(aws: &Aws, scope: &Scope, drill: &Drill) -> Result<(), AwsError> {
    let dimension = Dimension::builder().name(DIMENSION).value(scope.environment.as_str()).build();
    let datum = |name: &str, unit: StandardUnit, value: f64| {
        MetricDatum::builder().metric_name(name).dimensions(dimension.clone()).unit(unit).value(value).build()
    };
    let failed = !drill.problems.is_empty() || !drill.left.is_empty();
    #[allow(clippy::cast_precision_loss, reason = "a drill takes minutes")]
    let seconds = drill.seconds as f64;
    aws.cloudwatch
        .put_metric_data()
        .namespace(NAMESPACE)
        .metric_data(datum(RESTORE_DRILLS, StandardUnit::Count, 1.0))
        .metric_data(datum(RESTORE_DRILL_FAILURES, StandardUnit::Count, f64::from(u8::from(failed))))
        .metric_data(datum(RESTORE_DRILL_SECONDS, StandardUnit::Seconds, seconds))
        .send()
        .await
        .call("cloudwatch:PutMetricData")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::VolumePlan;
    use super::*;

    fn plan() -> RestorePlan {
        let volume = |snapshot: &str, encrypted| VolumePlan {
            snapshot: snapshot.to_owned(),
            source_volume: None,
            size_gib: 8,
            kind: "gp3".to_owned(),
            iops: None,
            throughput: None,
            device: None,
            encrypted,
            kms_key: None,
            tags: BTreeMap::new(),
        };
        RestorePlan {
            environment: "prod".to_owned(),
            instance: "i-1".to_owned(),
            run: "g/backup@2026-11-22T02:00:00Z".to_owned(),
            taken_at: None,
            copies_in: None,
            account: None,
            owner: None,
            zone: "eu-central-1a".to_owned(),
            volumes: vec![volume("snap-1", true), volume("snap-2", false)],
        }
    }

    fn made(snapshot: &str, size_gib: i32, encrypted: bool) -> Made {
        let volume = format!("vol-of-{snapshot}");
        Made { volume, snapshot: snapshot.to_owned(), size_gib, encrypted, was_there: false }
    }

    /// A drill that calls everything fine proves nothing.
    #[test]
    fn a_drill_finds_what_is_missing_smaller_or_in_clear_text() {
        assert_eq!(wrong_with(&plan(), &[made("snap-1", 8, true), made("snap-2", 8, false)]), [""; 0]);
        assert_eq!(
            wrong_with(&plan(), &[made("snap-1", 7, false)]),
            [
                "1 volumes were made, and the set has 2",
                "vol-of-snap-1 has 7 GiB, and its snapshot 8",
                "vol-of-snap-1 is not encrypted",
                "no volume was made of snap-2"
            ]
        );
    }
}

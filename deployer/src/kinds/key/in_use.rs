//! What could never be read again without the key.

use std::fmt;

use aws_sdk_ec2::types::{Filter, Tag};
use serde::Serialize;
use snapwarden_domain::tags;

use super::Handle;
use crate::aws::Aws;
use crate::error::{AwsError, Call};
use crate::scope::{Function, Scope};
use crate::world::Observed;

/// Whether something that is deployed goes by the environment's own key: its file may not ask for one any more.
pub fn is_named(observed: &Observed, scope: &Scope) -> bool {
    // In the settings of a function, a property of the topic, or the policy of a role.
    observed.values().any(|found| found.properties.to_string().contains(&scope.key_alias()))
}

/// What is encrypted with a key, as far as EC2 and CloudWatch Logs show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Needing {
    /// Snapshots of the account in this Region, whosever they are.
    pub snapshots: Vec<String>,
    /// Volumes, such as restored ones.
    pub volumes: Vec<String>,
    /// Log groups that were kept.
    pub log_groups: Vec<String>,
}

/// Whose snapshots count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All of the account's.
    Anybodys,
    /// All but the environment's, which are about to be deleted.
    OfOthers,
}

impl Needing {
    /// Whether nothing needs the key.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.volumes.is_empty() && self.log_groups.is_empty()
    }
}

/// How many are named before the rest is only counted.
const NAMED: usize = 3;

/// `4 snapshots (snap-1, snap-2, snap-3, …) and 1 volume (vol-1)`
impl fmt::Display for Needing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists =
            [("snapshot", &self.snapshots), ("volume", &self.volumes), ("log group", &self.log_groups)];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(what, ids)| {
                let plural = if ids.len() == 1 { "" } else { "s" };
                let more = if ids.len() > NAMED { ", …" } else { "" };
                let named = ids[..ids.len().min(NAMED)].join(", ");
                format!("{} {what}{plural} ({named}{more})", ids.len())
            })
            .collect();
        f.write_str(&parts.join(" and "))
    }
}

/// Looks for all that is encrypted with the key. EC2 has no filter for a key, so everything encrypted is looked at.
pub async fn needing(aws: &Aws, scope: &Scope, key: &Handle, whose: Whose) -> Result<Needing, AwsError> {
    // EC2 says the ARN; whatever else could mean the key counts as well.
    let names = [key.arn.clone(), key.id.clone(), scope.key_alias(), scope.arn("kms", &scope.key_alias())];
    let is_it = |named: Option<&str>| named.is_some_and(|named| names.iter().any(|name| name == named));
    let encrypted = || Filter::builder().name("encrypted").values("true").build();
    let ours = |found: &[Tag]| {
        found.iter().any(|tag| {
            tag.key() == Some(tags::ENVIRONMENT) && tag.value() == Some(scope.environment.as_str())
        })
    };
    let mut needing = Needing::default();
    let call = aws.ec2.describe_snapshots().owner_ids("self").filters(encrypted()).max_results(1000);
    let mut pages = call.into_paginator().send();
    while let Some(page) = pages.next().await {
        for snapshot in page.call("ec2:DescribeSnapshots")?.snapshots.unwrap_or_default() {
            let counts = whose == Whose::Anybodys || !ours(snapshot.tags());
            if counts && is_it(snapshot.kms_key_id()) {
                needing.snapshots.push(snapshot.snapshot_id.unwrap_or_default());
            }
        }
    }
    let call = aws.ec2.describe_volumes().filters(encrypted()).max_results(500);
    let mut pages = call.into_paginator().send();
    while let Some(page) = pages.next().await {
        for volume in page.call("ec2:DescribeVolumes")?.volumes.unwrap_or_default() {
            if is_it(volume.kms_key_id()) {
                needing.volumes.push(volume.volume_id.unwrap_or_default());
            }
        }
    }
    if whose == Whose::Anybodys {
        for name in Function::ALL.map(|function| scope.log_group(function)) {
            let page = aws.logs.describe_log_groups().log_group_name_prefix(&name).send().await;
            let groups = page.call("logs:DescribeLogGroups")?.log_groups.unwrap_or_default();
            let found = groups.into_iter().find(|group| group.log_group_name.as_ref() == Some(&name));
            if found.is_some_and(|group| is_it(group.kms_key_id.as_deref())) {
                needing.log_groups.push(name);
            }
        }
    }
    Ok(needing)
}

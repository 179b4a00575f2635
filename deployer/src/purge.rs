//! Deletes an environment's snapshots, whatever their `DeleteOn` says: the end of an environment that nobody wants to
//! restore from.

use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use crate::aws::Aws;
use crate::error::{AwsError, Call};
use crate::inventory::{self, Snapshot};
use crate::rights::{Condition, Resources, Right};
use crate::scope::Scope;

/// What became of the snapshots.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Purged {
    /// Those that are seen to be gone.
    pub deleted: Vec<String>,
    /// Those that are still there, each with the reason.
    pub remaining: Vec<Remaining>,
}

/// A snapshot that could not be deleted.
#[derive(Clone, Debug, Serialize)]
pub struct Remaining {
    /// Its id.
    pub snapshot: String,
    /// Why it is still there.
    pub reason: String,
}

/// What it takes to delete snapshots.
pub const RIGHTS: &[Right] = &[Right::on(Resources::Snapshots, "ec2:DeleteSnapshot").when(Condition::Owned)];

/// How many deletions are under way at a time.
const CONCURRENCY: usize = 8;

/// Deletes these snapshots, of which only those count that still carry the environment's tag. One that cannot be
/// deleted stops no other.
pub async fn purge(
    aws: &Aws,
    scope: &Scope,
    snapshots: &[Snapshot],
    tell: &dyn Fn(usize),
) -> Result<Purged, AwsError> {
    // Somebody may have taken the tag off since the list was made, to keep the snapshot.
    let mut ours = inventory::snapshots(aws, scope).await?;
    ours.retain(|ours| snapshots.iter().any(|listed| listed.snapshot == ours.snapshot));

    let mut refused = Vec::new();
    let mut deletions = stream::iter(&ours)
        .map(|snapshot| async move { (snapshot, delete(aws, &snapshot.snapshot).await) })
        .buffer_unordered(CONCURRENCY);
    let mut done = 0;
    while let Some((snapshot, result)) = deletions.next().await {
        done += 1;
        tell(done);
        if let Err(error) = result {
            refused.push((snapshot.snapshot.clone(), error.to_string()));
        }
    }
    drop(deletions);

    let left = inventory::snapshots(aws, scope).await?;
    let is_left = |id: &str| left.iter().any(|left| left.snapshot == id);
    let mut purged = Purged::default();
    for snapshot in ours {
        let id = snapshot.snapshot;
        if is_left(&id) {
            let reason = refused.iter().find(|(refused, _)| *refused == id).map(|(_, reason)| reason.clone());
            let reason = reason.unwrap_or_else(|| "EC2 accepted the deletion, but still lists it".to_owned());
            purged.remaining.push(Remaining { snapshot: id, reason });
        } else {
            purged.deleted.push(id);
        }
    }
    Ok(purged)
}

async fn delete(aws: &Aws, id: &str) -> Result<(), AwsError> {
    // The SDK slows down by itself as EC2 throttles; a deletion can be repeated without harm.
    let adaptive = Config::builder().retry_config(RetryConfig::adaptive().with_max_attempts(10));
    let answer = aws.ec2.delete_snapshot().snapshot_id(id).customize().config_override(adaptive).send().await;
    match answer.call("ec2:DeleteSnapshot") {
        Err(error) if error.code != "InvalidSnapshot.NotFound" => Err(error),
        _ => Ok(()),
    }
}

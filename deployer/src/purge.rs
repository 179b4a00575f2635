//! Deletes an environment's snapshots, whatever their `DeleteOn` says: the end of an environment that nobody wants to
//! restore from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use futures::stream::{self, StreamExt};
use serde::Serialize;
use snapwarden_domain::owner::Owner;

use crate::apply::Guard;
use crate::aws::Aws;
use crate::environment::CopyPlace;
use crate::error::{AwsError, Call};
use crate::inventory::{Snapshot, owned_by};
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

/// Seconds between looks at what EC2 still lists; about a minute in all.
const PAUSES: [u64; 6] = [0, 2, 5, 10, 20, 30];

/// How often it is looked for snapshots that a run made while others were deleted.
const ROUNDS: usize = 5;

/// Where snapshots are deleted.
struct Place {
    ec2: aws_sdk_ec2::Client,
    /// Whose they are: the environment's own, or its copies.
    owner: Owner,
}

impl Place {
    async fn list(&self) -> Result<Vec<Snapshot>, AwsError> {
        owned_by(&self.ec2, &self.owner).await
    }
}

/// Deletes all snapshots that carry the environment's tag, and its copies in these places, also those that appear
/// meanwhile. One that cannot be deleted stops no other; `guard` is asked before each, and `tell` hears how many are done.
pub async fn purge(
    aws: &Aws,
    scope: &Scope,
    copies: &BTreeSet<CopyPlace>,
    guard: &dyn Guard,
    tell: &dyn Fn(usize, usize),
) -> Result<Purged, AwsError> {
    let mut purged = Purged::default();
    // Before anything is deleted: a place may be out of reach.
    for copies in copies {
        aws.ec2_at(copies).await?;
    }
    // The copies last: until the snapshots are gone, a pass that was in flight could make another one of each.
    for copies in [None].into_iter().chain(copies.iter().map(Some)) {
        let place = match copies {
            None => Place { ec2: aws.ec2.clone(), owner: Owner::from(&scope.environment) },
            // Anew: a role is acted as for an hour, and thousands of snapshots take longer.
            Some(copies) => Place { ec2: aws.ec2_at(copies).await?, owner: scope.owner_of_copies(copies) },
        };
        let mut remaining = Vec::new();
        for _ in 0..ROUNDS {
            let (round, is_over) = delete_all(&place, guard, tell).await?;
            purged.deleted.extend(round.deleted);
            remaining = round.remaining;
            if is_over {
                break;
            }
        }
        purged.remaining.extend(remaining);
    }
    Ok(purged)
}

/// Deletes what is there, and answers whether nothing else has appeared meanwhile.
async fn delete_all(
    place: &Place,
    guard: &dyn Guard,
    tell: &dyn Fn(usize, usize),
) -> Result<(Purged, bool), AwsError> {
    let ours = place.list().await?;
    let (mut done, mut reasons) = (0, BTreeMap::new());
    let mut deletions = stream::iter(&ours)
        .map(|snapshot| async move {
            let result = match guard.check().await {
                Ok(()) => delete(&place.ec2, &snapshot.snapshot).await.map_err(|error| error.to_string()),
                Err(halt) => Err(format!("not attempted: {halt}")),
            };
            (snapshot, result)
        })
        .buffer_unordered(CONCURRENCY);
    while let Some((snapshot, result)) = deletions.next().await {
        done += 1;
        tell(done, ours.len());
        if let Err(reason) = result {
            reasons.insert(snapshot.snapshot.clone(), reason);
        }
    }
    drop(deletions);

    let mut left = BTreeMap::new();
    for pause in PAUSES {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let listed = place.list().await?;
        left = listed.into_iter().map(|snapshot| (snapshot.snapshot, snapshot.state)).collect();
        // What EC2 accepted goes some seconds later; what it refused stays, and what is new is for the next round.
        if ours.iter().all(|Snapshot { snapshot: id, .. }| !left.contains_key(id) || reasons.contains_key(id))
        {
            break;
        }
    }
    let is_over = left.keys().all(|id| ours.iter().any(|snapshot| snapshot.snapshot == *id));
    let mut purged = Purged::default();
    for Snapshot { snapshot, .. } in ours {
        let Some(state) = left.get(&snapshot) else {
            purged.deleted.push(snapshot);
            continue;
        };
        let accepted = || match state.as_str() {
            "pending" => "EC2 deletes it once it is completed".to_owned(),
            _ => "EC2 accepted the deletion, but still lists it".to_owned(),
        };
        let reason = reasons.remove(&snapshot).unwrap_or_else(accepted);
        purged.remaining.push(Remaining { snapshot, reason });
    }
    Ok((purged, is_over))
}

async fn delete(ec2: &aws_sdk_ec2::Client, id: &str) -> Result<(), AwsError> {
    // The SDK slows down by itself as EC2 throttles; a deletion can be repeated without harm.
    let adaptive = Config::builder().retry_config(RetryConfig::adaptive().with_max_attempts(10));
    let answer = ec2.delete_snapshot().snapshot_id(id).customize().config_override(adaptive).send().await;
    match answer.call("ec2:DeleteSnapshot") {
        Err(error) if error.code != "InvalidSnapshot.NotFound" => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use aws_smithy_http_client::test_util::infallible_client_fn;

    use super::*;
    use crate::apply::Halt;
    use crate::aws::LocalEndpoints;
    use crate::scope::tests::scope;

    struct Always;

    #[async_trait(?Send)]
    impl Guard for Always {
        async fn check(&self) -> Result<(), Halt> {
            Ok(())
        }
    }

    /// A run that was in flight makes a snapshot while the others are deleted: left behind, nobody would ever delete it.
    #[tokio::test(start_paused = true)]
    async fn what_appears_while_others_are_deleted_is_deleted_too() {
        let snapshots = Arc::new(Mutex::new(vec!["snap-1".to_owned()]));
        let held = snapshots.clone();
        let http = infallible_client_fn(move |request| {
            let form = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
            let mut held = held.lock().unwrap();
            if form.contains("Action=DeleteSnapshot") {
                held.retain(|id| !form.contains(&format!("SnapshotId={id}")));
                if form.contains("SnapshotId=snap-1") {
                    held.push("snap-2".to_owned());
                }
                return http::Response::new("<DeleteSnapshotResponse/>".to_owned());
            }
            let tag = "<tagSet><item><key>snapwarden:environment</key><value>test</value></item></tagSet>";
            let items = held.iter().map(|id| format!("<item><snapshotId>{id}</snapshotId>{tag}</item>"));
            let set: String = items.collect();
            http::Response::new(format!(
                "<DescribeSnapshotsResponse><snapshotSet>{set}</snapshotSet></DescribeSnapshotsResponse>"
            ))
        });
        let nowhere =
            LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
        let scope = scope("test");
        let aws = Aws::local_through(&scope.region, &nowhere, &http);
        let purged = purge(&aws, &scope, &BTreeSet::new(), &Always, &|_, _| ()).await.unwrap();
        assert_eq!(purged.deleted, ["snap-1", "snap-2"]);
        assert!(purged.remaining.is_empty() && snapshots.lock().unwrap().is_empty());
    }
    /// Copies that are left behind in a Region where nobody looks are billed for ever; those of an environment of the
    /// same name there are its own.
    #[tokio::test(start_paused = true)]
    async fn copies_in_other_regions_go_too_and_nobody_elses() {
        const SNAPSHOTS: [(&str, &str, &str, &str); 4] = [
            ("eu-central-1", "snap-1", "snapwarden:environment", "test"),
            ("eu-west-1", "copy-1", "snapwarden:copied-by", "test/eu-central-1"),
            ("eu-west-1", "copy-2", "snapwarden:copied-by", "test/us-east-1"),
            ("eu-west-1", "snap-2", "snapwarden:environment", "test"),
        ];
        let gone = Arc::new(Mutex::new(Vec::new()));
        let deleted = gone.clone();
        let http = infallible_client_fn(move |request| {
            let form = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
            let signed_for = request.headers()["authorization"].to_str().unwrap_or_default().to_owned();
            let mut deleted = deleted.lock().unwrap();
            let is_here = |region: &str| signed_for.contains(&format!("/{region}/ec2/"));
            if form.contains("Action=DeleteSnapshot") {
                let (_, id, ..) = SNAPSHOTS
                    .into_iter()
                    .find(|(region, id, ..)| is_here(region) && form.contains(&format!("SnapshotId={id}")))
                    .expect("it is asked for where it is");
                deleted.push(id.to_owned());
                return http::Response::new("<DeleteSnapshotResponse/>".to_owned());
            }
            // The filter is left to whoever reads: it may go wrong.
            let items = SNAPSHOTS
                .iter()
                .filter(|(region, id, ..)| is_here(region) && !deleted.iter().any(|gone| gone == id));
            let set: Vec<String> = items
                .map(|(_, id, key, value)| {
                    format!(
                        "<item><snapshotId>{id}</snapshotId><tagSet><item><key>{key}</key><value>{value}</value></item>\
                         </tagSet></item>"
                    )
                })
                .collect();
            let set = set.concat();
            http::Response::new(format!(
                "<DescribeSnapshotsResponse><snapshotSet>{set}</snapshotSet></DescribeSnapshotsResponse>"
            ))
        });
        let nowhere =
            LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
        let scope = scope("test");
        let aws = Aws::local_through(&scope.region, &nowhere, &http);
        let regions =
            BTreeSet::from([CopyPlace { region: "eu-west-1".to_owned().try_into().unwrap(), role: None }]);
        let purged = purge(&aws, &scope, &regions, &Always, &|_, _| ()).await.unwrap();
        assert_eq!(purged.deleted, ["snap-1", "copy-1"]);
        assert!(purged.remaining.is_empty());
        assert_eq!(*gone.lock().unwrap(), ["snap-1", "copy-1"]);
    }
}

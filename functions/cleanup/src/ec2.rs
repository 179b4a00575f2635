//! The calls that a cleanup makes.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{self, SnapshotState, StorageTier};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;
use snapwarden_domain::verdict::{Snapshot, State};
use snapwarden_runtime::{Api, Ec2, ec2};

/// Every snapshot of the environment, by id: a list that changes between two pages may name one twice.
pub(crate) async fn managed(client: &Ec2, environment: &EnvironmentName) -> Result<Vec<Snapshot>, Failure> {
    let mut found = ec2::snapshots(client, environment, Vec::new(), read).await?;
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    Ok(found)
}

fn read(snapshot: &types::Snapshot) -> Option<Snapshot> {
    let tag = |key| ec2::tag(snapshot.tags(), key).map(str::to_owned);
    Some(Snapshot {
        id: snapshot.snapshot_id()?.to_owned(),
        volume: snapshot.volume_id().map(str::to_owned),
        state: match snapshot.state() {
            Some(SnapshotState::Completed) => State::Completed,
            Some(SnapshotState::Error) => State::Error,
            _ => State::Unsettled,
        },
        // While it is restored for some days only, EC2 may show its tier as that of any other snapshot.
        archived: snapshot.restore_expiry_time().is_some()
            || snapshot.storage_tier().is_some_and(|tier| *tier != StorageTier::Standard),
        started_at: ec2::started_at(snapshot),
        environment: tag(tags::ENVIRONMENT),
        instance: tag(tags::INSTANCE),
        run: tag(tags::RUN),
        delete_on: tag(tags::DELETE_ON),
    })
}

/// The ids of all instances that exist, selected for backup or not.
pub(crate) async fn existing_instances(client: &Ec2) -> Result<BTreeSet<String>, Failure> {
    // Terminated ones are listed for about another hour.
    let existing = ["pending", "running", "shutting-down", "stopping", "stopped"];
    let id = |instance: &types::Instance| instance.instance_id().map(str::to_owned);
    let found = ec2::instances(client, vec![ec2::one_of("instance-state-name", existing)], id).await?;
    Ok(found.into_iter().collect())
}

/// How EC2 answered a deletion that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It is deleted, or was already.
    Done,
    /// An AMI or fast snapshot restore uses the snapshot.
    InUse,
}

/// Deletes a snapshot. To repeat this does no harm, so the SDK's own retries stay on.
pub(crate) async fn delete(client: &Ec2, id: &str) -> Result<Deletion, Failure> {
    let Err(error) = client.turn(Api::DeleteSnapshot).await.delete_snapshot().snapshot_id(id).send().await
    else {
        return Ok(Deletion::Done);
    };
    let failure = ec2::failure(&error);
    match failure.code.as_deref() {
        Some("InvalidSnapshot.NotFound") => Ok(Deletion::Done),
        Some("InvalidSnapshot.InUse") => Ok(Deletion::InUse),
        Some("InvalidParameterValue") => Err(Failure {
            hint: Some(
                "see the message; AWS Backup's own snapshots, for one, can only be deleted there".to_owned(),
            ),
            ..failure
        }),
        _ => Err(failure),
    }
}

/// Asks EC2 whether it would let the function delete this snapshot. Nothing is deleted.
pub(crate) async fn may_delete(client: &Ec2, id: &str) -> Result<(), Failure> {
    let Err(error) =
        client.turn(Api::DeleteSnapshot).await.delete_snapshot().snapshot_id(id).dry_run(true).send().await
    else {
        return Err(Failure::new(
            format!("EC2 answered as if it had deleted {id}, although it was asked for a dry run"),
            "look at the snapshot, and at what answers in EC2's place",
        ));
    };
    let failure = ec2::failure(&error);
    match failure.code.as_deref() {
        // The latter two in case EC2 looks at the snapshot too: they say nothing against the right to delete.
        Some("DryRunOperation" | "InvalidSnapshot.NotFound" | "InvalidSnapshot.InUse") => Ok(()),
        _ => Err(failure.during("a real run could not delete")),
    }
}

/// Which of these snapshots EC2 still lists.
pub(crate) async fn still_listed(
    client: &Ec2,
    environment: &EnvironmentName,
    ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Failure> {
    /// EC2 takes 200 filter values a call, all filters together; one is the ownership tag's.
    const IDS: usize = 190;

    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut listed = BTreeSet::new();
    // A filter, since ids asked for directly fail the call as soon as one of them is gone. No ids, no call.
    for chunk in ids.chunks(IDS) {
        let these = ec2::one_of("snapshot-id", chunk.iter().copied());
        let id = |snapshot: &types::Snapshot| snapshot.snapshot_id().map(str::to_owned);
        listed.extend(ec2::snapshots(client, environment, vec![these], id).await?);
    }
    Ok(listed)
}

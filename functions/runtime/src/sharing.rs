//! Letting another account at a snapshot, so that it can copy it.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{OperationType, SnapshotAttributeName};
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;

use crate::ec2::{Ec2, failure, tagged};
use crate::pace::Api;

/// What becomes of another account's right to read a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It is given. EC2 refuses it for what AWS's own key encrypts (source: EC2 API, `ModifySnapshotAttribute`).
    Granted,
    /// It is taken back. What the account has begun to copy by then may not be completed: AWS does not say.
    Withdrawn,
}

/// Gives another account the right to read a snapshot, or takes it back. To repeat this does no harm.
pub async fn change(
    ec2: &Ec2,
    snapshot: &str,
    account: &str,
    sharing: Sharing,
    dry_run: bool,
) -> Result<(), Failure> {
    let operation = match sharing {
        Sharing::Granted => OperationType::Add,
        Sharing::Withdrawn => OperationType::Remove,
    };
    let client = ec2.turn(Api::ModifySnapshotAttribute).await;
    let answer = client
        .modify_snapshot_attribute()
        .snapshot_id(snapshot)
        .attribute(SnapshotAttributeName::CreateVolumePermission)
        .operation_type(operation)
        .user_ids(account)
        .dry_run(dry_run)
        .send()
        .await;
    let Err(error) = answer else { return Ok(()) };
    let failure = failure(&error);
    match failure.code.as_deref() {
        Some("DryRunOperation") if dry_run => Ok(()),
        _ => Err(failure),
    }
}

/// Which of the owner's snapshots another account may read.
pub async fn shared_with(ec2: &Ec2, owner: &Owner, account: &str) -> Result<BTreeSet<String>, Failure> {
    let (key, value) = owner.tag();
    let call = ec2.unpaced().describe_snapshots().owner_ids("self").restorable_by_user_ids(account);
    let mut pages = call.filters(tagged(key, &value)).max_results(crate::ec2::PAGE).into_paginator().send();
    let mut found = BTreeSet::new();
    loop {
        ec2.turn(Api::DescribeSnapshots).await;
        let Some(page) = pages.next().await else { return Ok(found) };
        let page = page.map_err(|error| {
            failure(&error).during(&format!("could not list what is shared with {account}"))
        })?;
        found.extend(page.snapshots().iter().filter_map(|one| one.snapshot_id().map(str::to_owned)));
    }
}

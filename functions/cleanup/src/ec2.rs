//! The calls that a cleanup makes, beside those that read its inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::types;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;
use snapwarden_domain::verdict::Fence;
use snapwarden_runtime::{Api, Deadline, Ec2, ec2};

/// How EC2 answered a deletion that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It is deleted, or was already.
    Done,
    /// EC2 does not let it go, for a reason that is no failure.
    Held(Fence),
}

/// Deletes a snapshot, or nothing where its turn would come after the deadline. To repeat this does no harm, so the SDK's
/// own retries stay on.
pub(crate) async fn delete(client: &Ec2, id: &str, deadline: Deadline) -> Option<Result<Deletion, Failure>> {
    let client = client.turn_before(Api::DeleteSnapshot, deadline).await?;
    let Err(error) = client.delete_snapshot().snapshot_id(id).send().await else {
        return Some(Ok(Deletion::Done));
    };
    let failure = ec2::failure(&error);
    if failure.code.as_deref() == Some("InvalidSnapshot.NotFound") {
        return Some(Ok(Deletion::Done));
    }
    Some(reason_to_stay(&failure).map_or(Err(failure), |fence| Ok(Deletion::Held(fence))))
}

/// What EC2's refusal means, where it says that the snapshot has to stay.
///
/// The code for a locked snapshot is not documented, so the lock is recognised by its name. A refusal that is not
/// recognised is a failure, which names the snapshot and EC2's message.
fn reason_to_stay(failure: &Failure) -> Option<Fence> {
    let code = failure.code.as_deref()?;
    match code {
        "InvalidSnapshot.InUse" => Some(Fence::InUse),
        "InvalidParameterValue" if failure.message.contains("AWS Backup") => Some(Fence::AwsBackup),
        "UnauthorizedOperation" => None,
        _ if mentions_lock(code) || mentions_lock(&failure.message) => Some(Fence::Locked),
        _ => None,
    }
}

fn mentions_lock(text: &str) -> bool {
    // Nobody's account is "blocked", and no "clock" is wrong, because of a lock.
    let text = text.to_lowercase();
    text.match_indices("lock").any(|(at, _)| !text[..at].ends_with(['b', 'c']))
}

/// Whether the same call, some seconds later, could end differently.
pub(crate) fn may_pass(failure: &Failure) -> bool {
    !matches!(
        failure.code.as_deref(),
        Some(
            "UnauthorizedOperation"
                | "InvalidParameterValue"
                | "InvalidSnapshotID.Malformed"
                | "AuthFailure"
                | "InvalidClientTokenId"
                | "SignatureDoesNotMatch"
                | "OptInRequired"
        )
    )
}

/// Asks EC2 whether it would let the function delete this snapshot. Nothing is deleted.
pub(crate) async fn may_delete(client: &Ec2, id: &str) -> Result<(), Failure> {
    let client = client.turn(Api::DeleteSnapshot).await;
    let Err(error) = client.delete_snapshot().snapshot_id(id).dry_run(true).send().await else {
        return Err(Failure::new(
            format!("EC2 answered as if it had deleted {id}, although it was asked for a dry run"),
            "look at the snapshot, and at what answers in EC2's place",
        ));
    };
    let failure = ec2::failure(&error);
    match failure.code.as_deref() {
        Some("DryRunOperation" | "InvalidSnapshot.NotFound") => Ok(()),
        // In case EC2 looks at the snapshot too: that says nothing against the right to delete.
        _ if reason_to_stay(&failure).is_some() => Ok(()),
        _ => Err(failure.during("a real run could not delete")),
    }
}

/// Those of the snapshots that EC2 still lists after some seconds, all where it cannot be asked; and why it could not be,
/// with `then`, what happens next, where the time was over.
pub(crate) async fn left(
    client: &Ec2,
    owner: &Owner,
    deleted: BTreeSet<String>,
    deadline: Deadline,
    then: &str,
) -> (BTreeSet<String>, Result<(), Failure>) {
    // EC2's lists lag behind its actions by some seconds.
    const PAUSES_SECS: [u64; 4] = [0, 2, 5, 10];

    let mut doubtful = deleted;
    let look = async {
        for pause in PAUSES_SECS {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            doubtful = still_listed(client, owner, &doubtful).await?;
            if doubtful.is_empty() {
                break;
            }
        }
        Ok(())
    };
    let looked = deadline.before_the_end(look).await;
    let looked = looked.unwrap_or_else(|| Err(Failure::new("the function was out of time", then)));
    (doubtful, looked)
}

/// Which of these snapshots EC2 still lists.
async fn still_listed(
    client: &Ec2,
    owner: &Owner,
    ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Failure> {
    listed(client, owner, ids, |_| true).await
}

/// Which of these snapshots are completed.
pub(crate) async fn completed(
    client: &Ec2,
    owner: &Owner,
    ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Failure> {
    let is_completed =
        |snapshot: &types::Snapshot| snapshot.state() == Some(&types::SnapshotState::Completed);
    listed(client, owner, ids, is_completed).await
}

/// The tags of those of these snapshots that are completed.
pub(crate) async fn tags_of_completed(
    client: &Ec2,
    owner: &Owner,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Failure> {
    let tags = |snapshot: &types::Snapshot| {
        let pair = |tag: &types::Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
        let is_completed = snapshot.state() == Some(&types::SnapshotState::Completed);
        let id = snapshot.snapshot_id().filter(|_| is_completed)?;
        Some((id.to_owned(), snapshot.tags().iter().filter_map(pair).collect()))
    };
    listed_as(client, owner, ids, tags).await
}

async fn listed(
    client: &Ec2,
    owner: &Owner,
    ids: &BTreeSet<String>,
    is_wanted: impl Fn(&types::Snapshot) -> bool,
) -> Result<BTreeSet<String>, Failure> {
    let id = |snapshot: &types::Snapshot| {
        snapshot.snapshot_id().filter(|_| is_wanted(snapshot)).map(str::to_owned)
    };
    listed_as(client, owner, ids, id).await
}

async fn listed_as<T, C: Default + Extend<T>>(
    client: &Ec2,
    owner: &Owner,
    ids: &BTreeSet<String>,
    read: impl Fn(&types::Snapshot) -> Option<T>,
) -> Result<C, Failure> {
    /// EC2 takes 200 filter values a call, all filters together; one is the ownership tag's.
    const IDS: usize = 190;

    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut listed = C::default();
    // A filter, since ids asked for directly fail the call as soon as one of them is gone. No ids, no call.
    for chunk in ids.chunks(IDS) {
        let these = ec2::one_of("snapshot-id", chunk.iter().copied());
        listed.extend(ec2::snapshots(client, owner, vec![these], &read).await?);
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, message: &str) -> Option<Fence> {
        reason_to_stay(&Failure { code: Some(code.to_owned()), message: message.to_owned(), hint: None })
    }

    /// A lock taken for a failure would fail the run every night, and a failure taken for a lock would hide it.
    #[test]
    fn refusals_that_are_reasons_are_told_from_failures() {
        assert_eq!(refusal("InvalidSnapshot.InUse", "in use by ami-1"), Some(Fence::InUse));
        assert_eq!(refusal("InvalidSnapshot.Locked", ""), Some(Fence::Locked));
        assert_eq!(
            refusal("IncorrectState", "the snapshot is locked in governance mode"),
            Some(Fence::Locked)
        );
        let backup = "This snapshot is managed by the AWS Backup service and cannot be deleted via EC2 APIs.";
        assert_eq!(refusal("InvalidParameterValue", backup), Some(Fence::AwsBackup));
        assert_eq!(refusal("InvalidParameterValue", "as asked"), None);
        assert_eq!(refusal("UnauthorizedOperation", "explicit deny: lock-down"), None);
        assert_eq!(refusal("Blocked", "this account is currently blocked"), None);
        assert_eq!(refusal("RequestExpired", "check the clock of this host"), None);
    }
}

//! One cleanup run, from its event to its report.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::Client;
use futures::{StreamExt as _, stream};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::{CleanupReport, DueSnapshot, FailedSnapshot, Failure, HeldSnapshot};
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_domain::verdict::{Decision, Fence, Snapshot, Verdict, judge};
use snapwarden_runtime::{Deadline, Invocation, Pace};

use crate::ec2::{self, Deletion};

/// How many deletions are under way at a time.
const CONCURRENCY: usize = 8;

/// Judges all of the environment's snapshots, deletes those that no fence holds, and looks whether they are gone.
pub(crate) async fn clean_up(invocation: Invocation<CleanupSettings>) -> Result<CleanupReport, Failure> {
    let Invocation { settings, ec2: client, .. } = &invocation;
    let dry_run = invocation.event.dry_run;
    let today = invocation.clock.today(&settings.timezone);

    let snapshots = ec2::managed(client, &settings.environment).await?;
    let instances = ec2::existing_instances(client).await?;
    let verdicts = judge(&snapshots, &instances, today, settings);

    let mut report = CleanupReport {
        environment: settings.environment.clone(),
        run: invocation.event.run(),
        dry_run,
        today,
        managed: snapshots.len(),
        deleted: Vec::new(),
        would_delete: Vec::new(),
        held: Vec::new(),
        held_unlisted: 0,
        postponed: 0,
        not_due: 0,
        failed: Vec::new(),
        warnings: Vec::new(),
        duration_ms: 0,
    };
    let mut to_delete = Vec::new();
    for Verdict { snapshot, decision } in verdicts {
        match decision {
            Decision::Keep(fence) => keep(&mut report, snapshot, fence),
            Decision::Delete if dry_run => {
                tracing::info!(snapshot = snapshot.id, instance = snapshot.instance, "would be deleted");
                report.would_delete.push(due(snapshot));
            }
            Decision::Delete => to_delete.push(snapshot),
        }
    }
    delete_all(client, &to_delete, invocation.deadline, &mut report).await;
    verify(client, &settings.environment, &mut report).await?;

    report.warnings = warnings(&report);
    report.duration_ms = invocation.elapsed_ms();
    Ok(report)
}

/// Deletes the snapshots. One that cannot be deleted stops no other.
async fn delete_all(
    client: &Client,
    snapshots: &[&Snapshot],
    deadline: Deadline,
    report: &mut CleanupReport,
) {
    let pace = Pace::new();
    let mut deletions = stream::iter(snapshots)
        .map(async |snapshot| {
            pace.turn().await;
            if deadline.has_passed() {
                return (*snapshot, None);
            }
            (*snapshot, Some(ec2::delete(client, &snapshot.id).await))
        })
        .buffer_unordered(CONCURRENCY);
    while let Some((snapshot, outcome)) = deletions.next().await {
        match outcome {
            None => keep(report, snapshot, Fence::OutOfTime),
            Some(Ok(Deletion::InUse)) => keep(report, snapshot, Fence::InUse),
            Some(Ok(Deletion::Done)) => {
                let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
                tracing::info!(snapshot = id, instance, volume, delete_on, "deleted");
                report.deleted.push(due(snapshot));
            }
            Some(Err(failure)) => fail(report, &snapshot.id, failure),
        }
    }
}

/// Takes what EC2 still lists off the deleted ones: a deletion counts when the snapshot is seen to be gone.
async fn verify(
    client: &Client,
    environment: &EnvironmentName,
    report: &mut CleanupReport,
) -> Result<(), Failure> {
    // EC2's lists lag behind its actions by some seconds.
    const PAUSES_SECS: [u64; 4] = [0, 2, 5, 10];

    let mut doubtful: BTreeSet<_> = report.deleted.iter().map(|deleted| deleted.snapshot.clone()).collect();
    for pause in PAUSES_SECS {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        doubtful = ec2::still_listed(client, environment, &doubtful)
            .await
            .map_err(|failure| failure.during("could not see whether the deleted snapshots are gone"))?;
        if doubtful.is_empty() {
            return Ok(());
        }
    }
    report.deleted.retain(|deleted| !doubtful.contains(&deleted.snapshot));
    for id in doubtful {
        let failure = Failure::new(
            "EC2 accepted the deletion, but still lists the snapshot",
            "the next run tries again; if this goes on, look for a lock on the snapshot",
        );
        fail(report, &id, failure);
    }
    Ok(())
}

fn keep(report: &mut CleanupReport, snapshot: &Snapshot, fence: Fence) {
    match fence {
        Fence::NotDue => report.not_due += 1,
        Fence::RunLimit | Fence::OutOfTime => report.postponed += 1,
        _ => {
            let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
            tracing::info!(snapshot = id, instance, volume, delete_on, "held: {fence}");
            if report.held.len() < CleanupReport::MAX_HELD {
                report.held.push(HeldSnapshot { snapshot: due(snapshot), fence, reason: fence.to_string() });
            } else {
                report.held_unlisted += 1;
            }
        }
    }
}

fn fail(report: &mut CleanupReport, id: &str, failure: Failure) {
    tracing::error!(snapshot = id, "not deleted: {failure}");
    report.failed.push(FailedSnapshot { snapshot: id.to_owned(), failure });
}

fn due(snapshot: &Snapshot) -> DueSnapshot {
    DueSnapshot {
        snapshot: snapshot.id.clone(),
        volume: snapshot.volume.clone(),
        instance: snapshot.instance.clone(),
        delete_on: snapshot.delete_on.clone(),
    }
}

/// What people have to set right, since no later run will.
fn warnings(report: &CleanupReport) -> Vec<String> {
    let mut warnings = Vec::new();
    for fence in [Fence::NotOurs, Fence::UnreadableDeleteOn, Fence::Unplaced] {
        let held: Vec<_> = report.held.iter().filter(|held| held.fence == fence).collect();
        if let Some(first) = held.first() {
            let (count, id) = (held.len(), &first.snapshot.snapshot);
            warnings.push(format!("{count} held for good, {id} the first: {fence}"));
        }
    }
    if report.postponed > 0 {
        warnings.push(format!("left to the next run, although due: {}", report.postponed));
    }
    warnings
}

#[cfg(test)]
mod tests;

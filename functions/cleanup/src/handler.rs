//! One cleanup run, from its event to its report.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::{CleanupReport, Effort, FailedSnapshot, Failure, HeldSnapshot};
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_domain::verdict::{Decision, Fence, Snapshot, Verdict, judge};
use snapwarden_runtime::{Deadline, Ec2, Ended, Invocation};

use crate::ec2::{self, Deletion};

/// How many deletions are under way at a time.
const CONCURRENCY: usize = 8;

/// Judges all of the environment's snapshots, deletes those that no fence holds, and looks whether they are gone.
///
/// Once anything may be deleted, every way out is by the report: it says what is gone.
pub(crate) async fn clean_up(
    invocation: Invocation<CleanupSettings>,
) -> Result<Ended<CleanupReport>, Failure> {
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
        out_of_time: 0,
        not_due: 0,
        failed: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        effort: Effort::default(),
    };
    let mut due = Vec::new();
    for Verdict { snapshot, decision } in &verdicts {
        match decision {
            Decision::Keep(fence) => keep(&mut report, snapshot, *fence),
            Decision::Delete => due.push(*snapshot),
        }
    }
    let max = usize::try_from(settings.policy.max_deletes).unwrap_or(usize::MAX);
    if dry_run {
        would_delete(client, &due, max, &mut report).await;
    } else {
        delete_all(client, &due, max, invocation.deadline, &mut report).await;
        verify(client, &settings.environment, invocation.deadline, &mut report).await;
    }

    report.warnings = warnings(&verdicts, &report);
    report.effort = invocation.effort();
    Ok(Ended::Finished(report))
}

/// Says what would be deleted, and lets EC2 confirm the right to, by the first of them: the role has it for all of
/// the environment's snapshots, or for none.
async fn would_delete(client: &Ec2, due: &[&Snapshot], max: usize, report: &mut CleanupReport) {
    let (now, later) = due.split_at(max.min(due.len()));
    for snapshot in now {
        tracing::info!(snapshot = snapshot.id, instance = snapshot.instance, "would be deleted");
        report.would_delete.push((*snapshot).into());
    }
    for snapshot in later {
        keep(report, snapshot, Fence::RunLimit);
    }
    if let Some(first) = now.first() {
        report.problems.extend(ec2::may_delete(client, &first.id).await.err());
    }
}

/// Deletes the snapshots, in order, until so many are gone.
///
/// It goes in rounds: what turns out to be in use has taken nobody's place, so the next round is for as many as are
/// still allowed. Otherwise the oldest ones, in use night after night, could fill up every run.
async fn delete_all(
    client: &Ec2,
    due: &[&Snapshot],
    max: usize,
    deadline: Deadline,
    report: &mut CleanupReport,
) {
    let (mut allowed, mut due) = (max, due);
    while allowed > 0 && !due.is_empty() {
        let (round, rest) = due.split_at(allowed.min(due.len()));
        allowed -= delete_round(client, round, deadline, report).await;
        due = rest;
    }
    for snapshot in due {
        keep(report, snapshot, Fence::RunLimit);
    }
}

/// Deletes these snapshots, and returns how many may be gone. One that cannot be deleted stops no other.
async fn delete_round(
    client: &Ec2,
    snapshots: &[&Snapshot],
    deadline: Deadline,
    report: &mut CleanupReport,
) -> usize {
    let mut deletions = stream::iter(snapshots)
        .map(async |snapshot| {
            if deadline.has_passed() {
                return (*snapshot, None);
            }
            (*snapshot, Some(ec2::delete(client, &snapshot.id).await))
        })
        .buffer_unordered(CONCURRENCY);
    let mut used = 0;
    while let Some((snapshot, outcome)) = deletions.next().await {
        match outcome {
            None => keep(report, snapshot, Fence::OutOfTime),
            Some(Ok(Deletion::InUse)) => keep(report, snapshot, Fence::InUse),
            Some(Ok(Deletion::Done)) => {
                let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
                tracing::info!(snapshot = id, instance, volume, delete_on, "deleted");
                report.deleted.push(snapshot.into());
                used += 1;
            }
            Some(Err(failure)) => {
                // Without a code, EC2's answer got lost: the snapshot may be gone.
                used += usize::from(failure.code.is_none());
                fail(report, &snapshot.id, failure);
            }
        }
    }
    used
}

/// Takes what EC2 still lists off the deleted ones: a deletion counts when the snapshot is seen to be gone.
///
/// What cannot be seen, for want of an answer or of time, fails the run without hiding what it did.
async fn verify(client: &Ec2, environment: &EnvironmentName, deadline: Deadline, report: &mut CleanupReport) {
    // EC2's lists lag behind its actions by some seconds.
    const PAUSES_SECS: [u64; 4] = [0, 2, 5, 10];

    let mut doubtful: BTreeSet<_> = report.deleted.iter().map(|deleted| deleted.snapshot.clone()).collect();
    let look = async {
        for pause in PAUSES_SECS {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            doubtful = ec2::still_listed(client, environment, &doubtful).await?;
            if doubtful.is_empty() {
                break;
            }
        }
        Ok(())
    };
    let looked = deadline.before_the_end(look).await;
    let in_time = looked.unwrap_or_else(|| {
        Err(Failure::new("the function was out of time", "the next run deletes what is still there"))
    });
    if let Err(failure) = in_time {
        let count = doubtful.len();
        let what = format!("{count} deletion{} could not be verified", if count == 1 { "" } else { "s" });
        report.problems.push(failure.during(&what));
        return;
    }
    report.deleted.retain(|deleted| !doubtful.contains(&deleted.snapshot));
    for id in doubtful {
        let failure = Failure::new(
            "EC2 accepted the deletion, but still lists the snapshot",
            "the next run tries again; if this goes on, look for a lock on the snapshot",
        );
        fail(report, &id, failure);
    }
}

fn keep(report: &mut CleanupReport, snapshot: &Snapshot, fence: Fence) {
    match fence {
        Fence::NotDue => report.not_due += 1,
        Fence::RunLimit => report.postponed += 1,
        Fence::OutOfTime => report.out_of_time += 1,
        _ => {
            let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
            tracing::info!(snapshot = id, instance, volume, delete_on, "held: {fence}");
            if report.held.len() < CleanupReport::MAX_HELD {
                report.held.push(HeldSnapshot {
                    snapshot: snapshot.into(),
                    fence,
                    reason: fence.to_string(),
                });
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

/// What people have to set right, since no later run will.
fn warnings(verdicts: &[Verdict<'_>], report: &CleanupReport) -> Vec<String> {
    let mut warnings = Vec::new();
    for fence in [Fence::NotOurs, Fence::UnreadableDeleteOn, Fence::Unplaced] {
        // Not from the report, which lists only so many.
        let mut held = verdicts.iter().filter(|verdict| verdict.decision == Decision::Keep(fence));
        if let Some(first) = held.next() {
            let (count, id) = (1 + held.count(), &first.snapshot.id);
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

//! One cleanup run, from its event to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use snapwarden_domain::audit::Audit;
use snapwarden_domain::clear_text::ClearText;
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::inventory::Snapshot;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::{CleanupReport, Effort, FailedSnapshot, Failure, HeldSnapshot};
use snapwarden_domain::settings::{CleanupPolicy, CleanupSettings};
use snapwarden_domain::verdict::{Decision, Fence, MassDeletion, Verdict, judge};
use snapwarden_runtime::{Deadline, Ec2, Ended, Invocation, inventory};

use crate::copies;
use crate::ec2::{self, Deletion};
use crate::spent::Spent;

/// How many deletions are under way at a time.
const CONCURRENCY: usize = 8;

/// Judges all of the environment's snapshots, deletes those that no fence holds, looks whether they are gone, and
/// audits the backups.
///
/// Once anything may be deleted, every way out is by the report: it says what is gone.
///
/// What there is no time for is handed on. The next hop judges everything anew, so it needs to be told nothing but how
/// many snapshots the run has deleted, and what failed: that is due there again, and is tried after all else.
pub(crate) async fn clean_up(
    invocation: Invocation<CleanupSettings>,
    spent: &Spent,
) -> Result<Ended<CleanupReport>, Failure> {
    let Invocation { settings, event, ec2: client, .. } = &invocation;
    let today = invocation.clock.today(&settings.timezone);
    let before = event.continuation.as_ref();

    let reading = inventory::read(client, &settings.environment, &settings.select, invocation.is_emulated);
    let read = invocation.deadline.before_the_end(reading).await;
    let inventory = read.unwrap_or_else(|| Err(nothing_decided()))?;
    let verdicts = judge(&inventory, today, settings);
    let now = invocation.clock.now();
    let audit = Audit::of(&inventory, now, settings);

    let mut run = Run {
        invocation: &invocation,
        ec2: client,
        owner: settings.owner(),
        spent,
        failures: before.map(Continuation::failures_by_resource).unwrap_or_default(),
        report: begun(
            &invocation,
            &verdicts,
            spent.before(&event.run(), before.map_or(0, |before| before.done)),
        ),
    };
    run.carry_out(&verdicts).await;

    let mut report = run.report;
    report.warnings.extend(warnings(&verdicts, &report));
    drop(verdicts);
    report.copies = copies::clean_up(&invocation, &inventory, spent, report.would_delete.len()).await;
    report.warnings.extend(audit.warnings());
    report.audit = Some(audit);
    if !settings.encryption.is_off() {
        let clear_text = ClearText::of(&inventory, settings);
        report.warnings.extend(clear_text.warning());
        report.clear_text = Some(clear_text);
    }
    report.effort = invocation.effort();
    // A hop that deleted nothing would hand on nothing but the trouble it had.
    if report.out_of_time_in_all() > 0 && invocation.may_hand_on && report.has_deleted() {
        let failed = report.failed_in_all().map(|failed| (failed.snapshot.clone(), failed.failure.clone()));
        let next = Continuation::after(before, &report.effort, report.deleted_in_all()).with_failures(failed);
        report.effort.handed_on = true;
        return Ok(Ended::Unfinished { report: report.grouped(), next });
    }
    Ok(Ended::Finished(report.grouped()))
}

/// The report of a run that has decided, and done nothing yet.
pub(crate) fn begun(
    invocation: &Invocation<CleanupSettings>,
    verdicts: &[Verdict<'_>],
    deleted_earlier: u64,
) -> CleanupReport {
    let Invocation { settings, event, .. } = invocation;
    CleanupReport {
        environment: settings.environment.clone(),
        run: event.run(),
        dry_run: event.dry_run,
        today: invocation.clock.today(&settings.timezone),
        managed: verdicts.len(),
        deleted: Vec::new(),
        deleted_earlier,
        would_delete: Vec::new(),
        mass_deletion: MassDeletion::of(verdicts, &settings.policy).filter(|_| !event.allow_mass_deletion),
        held: Vec::new(),
        held_unlisted: 0,
        held_gib: 0,
        postponed: 0,
        out_of_time: 0,
        not_due: 0,
        kept: Vec::new(),
        failed: Vec::new(),
        problems: Vec::new(),
        copies: Vec::new(),
        warnings: Vec::new(),
        audit: None,
        clear_text: None,
        effort: Effort::default(),
    }
}

/// A run on its way, in one Region.
pub(crate) struct Run<'a> {
    pub(crate) invocation: &'a Invocation<CleanupSettings>,
    /// EC2 in that Region.
    pub(crate) ec2: &'a Ec2,
    /// Whose snapshots they are.
    pub(crate) owner: Owner,
    pub(crate) spent: &'a Spent,
    /// What could not be deleted in an earlier hop.
    pub(crate) failures: BTreeMap<&'a str, &'a Failure>,
    pub(crate) report: CleanupReport,
}

impl Run<'_> {
    /// Deletes what no fence holds, and looks whether it is gone; or says what it would delete.
    pub(crate) async fn carry_out(&mut self, verdicts: &[Verdict<'_>]) {
        let mut due = Vec::new();
        for Verdict { snapshot, decision } in verdicts {
            match decision {
                Decision::Keep(fence) => self.keep(snapshot, *fence),
                Decision::Delete => due.push(*snapshot),
            }
        }
        // One that fails must not hold up, in every hop again, those that were never tried.
        due.sort_by_key(|snapshot| self.failures.contains_key(snapshot.id.as_str()));
        if self.invocation.event.dry_run {
            self.would_delete(&due).await;
        } else if self.report.mass_deletion.is_none() {
            self.delete_all(&due).await;
            self.verify().await;
        }
    }

    /// Says what would be deleted, and lets EC2 confirm the right to, by the first of them: the role has it for all of
    /// the environment's snapshots, or for none.
    async fn would_delete(&mut self, due: &[&Snapshot]) {
        let (now, later) = due.split_at(self.max_deletes().min(due.len()));
        for snapshot in now {
            tracing::info!(snapshot = snapshot.id, instance = snapshot.instance, "would be deleted");
            self.report.would_delete.push((*snapshot).into());
        }
        for snapshot in later {
            self.keep(snapshot, Fence::RunLimit);
        }
        if let Some(first) = now.first() {
            let denied = ec2::may_delete(self.ec2, &first.id).await.err();
            self.report.problems.extend(denied);
        }
    }

    /// How many snapshots this run may still delete.
    fn max_deletes(&self) -> usize {
        let Invocation { event, settings, .. } = self.invocation;
        let max = event.max_deletes.unwrap_or(settings.policy.max_deletes);
        let left = u64::from(max.min(CleanupPolicy::HIGHEST_MAX_DELETES))
            .saturating_sub(self.report.deleted_earlier);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Deletes the snapshots, in order, until so many are gone.
    ///
    /// It goes in rounds: what turns out to be in use has taken nobody's place, so the next round is for as many as
    /// are still allowed. Otherwise the oldest ones, in use night after night, could fill up every run.
    async fn delete_all(&mut self, due: &[&Snapshot]) {
        let (mut allowed, mut due) = (self.max_deletes(), due);
        while allowed > 0 && !due.is_empty() {
            let (round, rest) = due.split_at(allowed.min(due.len()));
            allowed -= self.delete_round(round).await;
            due = rest;
        }
        for snapshot in due {
            self.keep(snapshot, Fence::RunLimit);
        }
    }

    /// Deletes these snapshots, and returns how many may be gone. One that cannot be deleted stops no other.
    async fn delete_round(&mut self, snapshots: &[&Snapshot]) -> usize {
        let (client, Invocation { deadline, event, .. }) = (self.ec2, self.invocation);
        let run = event.run();
        let mut deletions = stream::iter(snapshots)
            .map(async |snapshot| (*snapshot, delete(client, &snapshot.id, *deadline).await))
            .buffer_unordered(CONCURRENCY);
        let mut used = 0;
        let mut waiting: BTreeMap<&str, &Snapshot> =
            snapshots.iter().map(|snapshot| (snapshot.id.as_str(), *snapshot)).collect();
        while let Some((snapshot, outcome)) = deadline.before_the_end(deletions.next()).await.flatten() {
            waiting.remove(snapshot.id.as_str());
            match outcome {
                None => self.keep(snapshot, Fence::OutOfTime),
                Some(Ok(Deletion::Held(fence))) => self.keep(snapshot, fence),
                Some(Ok(Deletion::Done)) => {
                    let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
                    tracing::info!(snapshot = id, instance, volume, delete_on, "deleted");
                    self.report.deleted.push(snapshot.into());
                    self.spent.add(&run);
                    used += 1;
                }
                Some(Err(failure)) => {
                    // Without a code, EC2's answer got lost: the snapshot may be gone.
                    if failure.code.is_none() {
                        self.spent.add(&run);
                        used += 1;
                    }
                    self.fail(&snapshot.id, snapshot.volume.clone(), failure);
                }
            }
        }
        // What was under way when the time was up may be gone or not: the next hop sees.
        for snapshot in waiting.into_values() {
            self.keep(snapshot, Fence::OutOfTime);
        }
        used
    }

    /// Takes what EC2 still lists off the deleted ones: a deletion counts when the snapshot is seen to be gone.
    ///
    /// What cannot be seen, for want of an answer or of time, fails the run without hiding what it did.
    async fn verify(&mut self) {
        let (client, deadline) = (self.ec2, self.invocation.deadline);
        let deleted = self.report.deleted.iter().map(|deleted| deleted.snapshot.clone()).collect();
        let then = "the next run deletes what is still there";
        let (doubtful, looked) = ec2::left(client, &self.owner, deleted, deadline, then).await;
        if let Err(failure) = looked {
            let count = doubtful.len();
            let what = format!("{count} deletion{} could not be verified", if count == 1 { "" } else { "s" });
            self.report.problems.push(failure.during(&what));
            return;
        }
        let (there, gone) =
            self.report.deleted.drain(..).partition(|deleted| doubtful.contains(&deleted.snapshot));
        self.report.deleted = gone;
        let there: Vec<_> = there;
        for claimed in there {
            let failure = Failure::new(
                "EC2 accepted the deletion, but still lists the snapshot",
                "the next run tries again; if this goes on, look for a lock on the snapshot",
            );
            self.fail(&claimed.snapshot, claimed.volume, failure);
        }
    }

    fn keep(&mut self, snapshot: &Snapshot, fence: Fence) {
        if let (Fence::RunLimit | Fence::OutOfTime, Some(&failure)) =
            (fence, self.failures.get(snapshot.id.as_str()))
        {
            // It has failed in an earlier hop, and its second turn has not come.
            return self.fail(&snapshot.id, snapshot.volume.clone(), failure.clone());
        }
        let dry_run = self.invocation.event.dry_run;
        let now = self.invocation.clock.now();
        let report = &mut self.report;
        let held = || HeldSnapshot {
            snapshot: snapshot.into(),
            age_days: snapshot.age_days(now),
            fence,
            reason: fence.reason(snapshot),
        };
        // What is due tells people more than what is not, and comes after it here.
        let room = match fence {
            Fence::NotDue => CleanupReport::MAX_HELD / 2,
            Fence::RunLimit => CleanupReport::MAX_HELD,
            _ => 0,
        };
        if dry_run && report.kept.len() < room {
            report.kept.push(held());
        }
        match fence {
            Fence::NotDue => report.not_due += 1,
            Fence::RunLimit => report.postponed += 1,
            Fence::OutOfTime => report.out_of_time += 1,
            _ => {
                let Snapshot { id, instance, volume, delete_on, .. } = snapshot;
                let reason = fence.reason(snapshot);
                tracing::info!(snapshot = id, instance, volume, delete_on, "held: {reason}");
                report.held_gib += u64::from(snapshot.size_gib);
                if report.held.len() < CleanupReport::MAX_HELD {
                    report.held.push(held());
                } else {
                    report.held_unlisted += 1;
                }
            }
        }
    }

    fn fail(&mut self, id: &str, volume: Option<String>, failure: Failure) {
        tracing::error!(snapshot = id, volume, "not deleted: {failure}");
        self.report.failed.push(FailedSnapshot { snapshot: id.to_owned(), volume, failure });
    }
}

/// The pauses before a deletion is tried again that failed in spite of the SDK's own retries.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// Deletes one snapshot when its turn comes; nothing where the function is out of time before.
async fn delete(client: &Ec2, id: &str, deadline: Deadline) -> Option<Result<Deletion, Failure>> {
    let mut pauses = PAUSES.into_iter();
    loop {
        if deadline.has_passed() {
            return None;
        }
        let outcome = ec2::delete(client, id, deadline).await?;
        let again = outcome.as_ref().is_err_and(ec2::may_pass);
        match pauses.next().filter(|pause| again && !deadline.passes_within(*pause)) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Some(outcome),
        }
    }
}

fn nothing_decided() -> Failure {
    Failure::new(
        "the function was out of time before it had read what there is, so nothing was deleted",
        "raise functions.timeout_seconds",
    )
}

/// What people have to set right, since no later run will.
fn warnings(verdicts: &[Verdict<'_>], report: &CleanupReport) -> Vec<String> {
    let mut warnings = Vec::new();
    let for_good = |verdict: &Verdict<'_>| match verdict.decision {
        Decision::Keep(fence) if fence.is_for_good() => Some(fence),
        _ => None,
    };
    let fences: BTreeSet<_> = verdicts.iter().filter_map(for_good).collect();
    for fence in fences {
        // Not from the report, which lists only so many.
        let mut held = verdicts.iter().filter(|verdict| verdict.decision == Decision::Keep(fence));
        if let Some(first) = held.next() {
            let (count, id) = (1 + held.count(), &first.snapshot.id);
            warnings.push(format!("{count} held for good, {id} the first: {fence}"));
        }
    }
    if report.postponed > 0 {
        warnings.push(format!(
            "left to the next run, although due: {} (`cargo xtask invoke cleanup --max-deletes N` gives one run more)",
            report.postponed
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;

//! One backup run, from its event to its report.

use std::collections::BTreeSet;

use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::report::{BackupReport, Failure, InstanceReport, Outcome, Outcomes};
use snapwarden_domain::settings::{BackupSettings, Selector};
use snapwarden_runtime::{Ended, Invocation};

use crate::decide::{Selected, is_superseded};
use crate::ec2::{self, RunSets};
use crate::fleet::{Fleet, back_up_fleet, warnings_of};

/// Backs up every selected instance that this run has not backed up yet. One instance's failure stops no other.
pub(crate) async fn back_up(invocation: Invocation<BackupSettings>) -> Result<Ended<BackupReport>, Failure> {
    let Invocation { settings, event, ec2: client, .. } = &invocation;
    if event.seal {
        return Err(Failure::new(
            "the event asks to seal snapshots, which the backup function does not",
            "send it to the cleanup function",
        ));
    }
    let run = event.run();
    let is_fine_without = settings.allow_no_instances || event.dry_run;

    let looking = async {
        let selected = ec2::selected(client, &settings.select).await?;
        let made = ec2::made(client, &settings.environment, &run, None).await?;
        Ok((selected, made))
    };
    let looked = invocation.deadline.before_the_end(looking).await;
    let (selected, made) = looked.unwrap_or_else(|| Err(nothing_begun()))?;
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    if selected.is_empty() {
        let nothing = nothing_selected(&settings.select);
        if is_fine_without {
            warnings.push(nothing.to_string());
        } else {
            problems.push(nothing);
        }
    } else if !is_fine_without && selected.iter().all(Selected::has_nothing_to_back_up) {
        problems.push(nothing_to_back_up(&settings.select));
    }

    let mut report = BackupReport {
        environment: settings.environment.clone(),
        run: run.clone(),
        dry_run: event.dry_run,
        selected: selected.len(),
        snapshots_created: made_before(event.continuation.as_ref()),
        snapshots_unlisted: 0,
        instances: Vec::new(),
        instances_unlisted: Outcomes::default(),
        problems,
        warnings,
        effort: invocation.effort(),
    };
    if is_superseded(event.hop(), &made, invocation.real_now) {
        report.effort.handed_on = true;
        report.warnings.push(
            "a later hop of this run is at work: this invocation, a repetition, leaves the rest to it"
                .to_owned(),
        );
        return Ok(Ended::Finished(report));
    }

    let day = invocation.clock.scheduled_day(&settings.timezone);
    let sets = RunSets { ec2: client, settings, run: &run, hop: event.hop(), day, dry_run: event.dry_run };
    let fleet = Fleet {
        selected: &selected,
        made,
        before: event.continuation.as_ref(),
        retention: &settings.retention,
        day,
        deadline: invocation.deadline,
        dry_run: event.dry_run,
    };
    let (instances, of_fleet) = back_up_fleet(&sets, fleet).await;
    let created = instances.iter().filter(|instance| instance.outcome == Outcome::Created);
    let created: usize = created.map(|instance| instance.snapshots.len()).sum();
    report.snapshots_created = report.snapshots_created.saturating_add(created);
    let clear = settings.requires_encryption.then(|| clear_text(&instances)).flatten();
    let of_fleet = of_fleet.into_iter().chain(clear).collect();
    report.instances = instances;
    report.effort = invocation.effort();
    report.warnings.extend(selected.iter().flat_map(warnings_of));
    // A hop that made nothing would hand on nothing but the trouble it had.
    Ok(end(report, of_fleet, event.continuation.as_ref(), invocation.may_hand_on && created > 0))
}

/// The end of the run, or of this hop where there is work left and somebody to do it.
///
/// `of_fleet` is what no later hop can find out again. Only that is handed on: the rest is said anew by each.
fn end(
    mut report: BackupReport,
    of_fleet: Vec<String>,
    before: Option<&Continuation>,
    may_hand_on: bool,
) -> Ended<BackupReport> {
    let earlier = before.iter().flat_map(|before| before.warnings.clone());
    let lasting = once_each(earlier.chain(of_fleet));
    report.warnings.extend(lasting.iter().cloned());
    let unlisted = before.map_or(0, |before| before.unlisted);
    if unlisted > 0 {
        report
            .warnings
            .push(format!("and {unlisted} more warnings of earlier hops, which the function's log has"));
    }
    if report.outcomes().postponed > 0 && may_hand_on {
        report.effort.handed_on = true;
        let failed = report.instances.iter().filter_map(|instance| match &instance.outcome {
            Outcome::Failed(failure) => Some((instance.instance.clone(), failure.clone())),
            _ => None,
        });
        let done = u64::try_from(report.snapshots_created).unwrap_or(u64::MAX);
        let next =
            Continuation::after(before, &report.effort, done).with_failures(failed).with_warnings(lasting);
        return Ended::Unfinished { report: report.shortened(), next };
    }
    for instance in &mut report.instances {
        if instance.outcome == Outcome::Postponed {
            tracing::error!(instance = instance.instance, "not backed up: out of time");
            instance.outcome = Outcome::Failed(out_of_time());
        }
    }
    Ended::Finished(report.shortened())
}

fn made_before(before: Option<&Continuation>) -> usize {
    before.map_or(0, |before| usize::try_from(before.done).unwrap_or(usize::MAX))
}

/// In their order, each once.
fn once_each(warnings: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    warnings.filter(|warning| seen.insert(warning.clone())).collect()
}

/// Names the volumes whose snapshots are in clear text: nothing else in an account tells that its backups are.
fn clear_text(instances: &[InstanceReport]) -> Option<String> {
    /// As many are named; the report marks all.
    const NAMED: usize = 20;

    let clear: BTreeSet<_> = instances
        .iter()
        .flat_map(|instance| instance.snapshots.iter().map(move |made| (&instance.instance, made)))
        .filter(|(_, made)| made.encrypted == Some(false))
        .map(|(instance, made)| format!("{} of {instance}", made.volume))
        .collect();
    let named = clear.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = clear.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!clear.is_empty()).then(|| format!("not encrypted, so their snapshots are not either: {named}{more}"))
}

fn nothing_selected(Selector { tag, value }: &Selector) -> Failure {
    Failure::new(
        format!("no instance carries the tag {tag}={value}"),
        "tag the instances to back up (key and value match in upper and lower case), or set backup.allow_no_instances",
    )
}

fn nothing_to_back_up(Selector { tag, value }: &Selector) -> Failure {
    Failure::new(
        format!("no instance that carries the tag {tag}={value} has an EBS volume to back up"),
        "instance store volumes cannot be snapshotted: tag instances with EBS volumes, or set backup.allow_no_instances",
    )
}

fn nothing_begun() -> Failure {
    Failure::new(
        "the function was out of time before it knew what to back up",
        "raise functions.timeout_seconds",
    )
}

fn out_of_time() -> Failure {
    Failure::new(
        "the function was out of time before this instance's turn",
        "the run's next attempt goes on from here; raise the timeout if there is none left",
    )
}

#[cfg(test)]
mod tests;

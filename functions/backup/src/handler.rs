//! One backup run, from its event to its report.

use futures::{StreamExt as _, stream};
use snapwarden_domain::report::{BackupReport, Failure, InstanceReport, Outcome, VolumeSnapshot};
use snapwarden_domain::run::RunId;
use snapwarden_domain::settings::{BackupSettings, Selector};
use snapwarden_runtime::{Invocation, Pace};

use crate::decide::{Action, Made, Selected, decide};
use crate::ec2::{self, Label};

/// How many instances are worked on at a time.
const CONCURRENCY: usize = 8;

/// Backs up every selected instance that this run has not backed up yet. One instance's failure stops no other.
pub(crate) async fn back_up(invocation: Invocation<BackupSettings>) -> Result<BackupReport, Failure> {
    let settings = &invocation.settings;
    let run = invocation.event.run();
    let dry_run = invocation.event.dry_run;

    let selected = ec2::selected(&invocation.ec2, &settings.select).await?;
    let mut warnings = Vec::new();
    if selected.is_empty() {
        let nothing = nothing_selected(&settings.select);
        if !settings.allow_no_instances && !dry_run {
            return Err(nothing);
        }
        tracing::warn!("{nothing}");
        warnings.push(nothing.to_string());
    }
    let made = ec2::made(&invocation.ec2, &settings.environment, &run).await?;

    let pace = Pace::new();
    let mut instances: Vec<_> = stream::iter(&selected)
        .map(|instance| back_up_instance(&invocation, &run, instance, &made, &pace))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    instances.sort_by(|a, b| a.instance.cmp(&b.instance));

    let empty = instances.iter().filter(|report| report.outcome == Outcome::NoVolumes);
    warnings.extend(
        empty.map(|report| format!("{} is selected, but has no EBS volume to back up", report.instance)),
    );
    let created = instances.iter().filter(|report| report.outcome == Outcome::Created);
    Ok(BackupReport {
        environment: settings.environment.clone(),
        run,
        dry_run,
        selected: selected.len(),
        snapshots_created: created.map(|report| report.snapshots.len()).sum(),
        instances,
        warnings,
        duration_ms: invocation.elapsed_ms(),
    })
}

async fn back_up_instance(
    invocation: &Invocation<BackupSettings>,
    run: &RunId,
    instance: &Selected,
    made: &[Made],
    pace: &Pace,
) -> InstanceReport {
    let settings = &invocation.settings;
    let dry_run = invocation.event.dry_run;
    let delete_on = settings.retention.delete_on(invocation.clock.scheduled_day(&settings.timezone));

    let (outcome, snapshots) = match decide(instance, made) {
        Action::NoVolumes => (Outcome::NoVolumes, Vec::new()),
        Action::AlreadyDone(snapshots) => (Outcome::AlreadyDone, snapshots),
        Action::Create if invocation.deadline.has_passed() => (Outcome::Failed(out_of_time()), Vec::new()),
        Action::Create => {
            let label = Label { environment: &settings.environment, run, delete_on };
            match ec2::create(&invocation.ec2, instance, &label, dry_run, pace).await {
                Ok(_) if dry_run => (Outcome::WouldCreate, planned(instance)),
                Ok(snapshots) => (Outcome::Created, snapshots),
                Err(failure) => (Outcome::Failed(failure), Vec::new()),
            }
        }
    };
    let report = InstanceReport {
        instance: instance.id.clone(),
        name: instance.name.clone(),
        outcome,
        snapshots,
        delete_on,
    };
    log(&report);
    report
}

fn planned(instance: &Selected) -> Vec<VolumeSnapshot> {
    instance.volumes.iter().map(|volume| VolumeSnapshot { snapshot: None, volume: volume.clone() }).collect()
}

fn log(report: &InstanceReport) {
    let InstanceReport { instance, name, outcome, snapshots, delete_on } = report;
    let name = name.as_deref();
    let ids: Vec<_> = snapshots.iter().filter_map(|made| made.snapshot.as_deref()).collect();
    let snapshots = ids.join(" ");
    match outcome {
        Outcome::Created => tracing::info!(instance, name, snapshots, %delete_on, "backed up"),
        Outcome::AlreadyDone => tracing::info!(instance, name, snapshots, "already backed up by this run"),
        Outcome::WouldCreate => tracing::info!(instance, name, %delete_on, "would be backed up"),
        Outcome::NoVolumes => tracing::warn!(instance, name, "has no volumes to back up"),
        Outcome::Failed(failure) => tracing::error!(instance, name, "not backed up: {failure}"),
    }
}

fn nothing_selected(Selector { tag, value }: &Selector) -> Failure {
    Failure::new(
        format!("no instance carries the tag {tag}={value}"),
        "tag the instances to back up (key and value match in upper and lower case), or allow runs without any",
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

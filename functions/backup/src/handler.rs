//! One backup run, from its event to its report.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use snapwarden_domain::report::{BackupReport, Failure, InstanceReport, Outcome, VolumeSnapshot};
use snapwarden_domain::run::RunId;
use snapwarden_domain::settings::{BackupSettings, Selector};
use snapwarden_runtime::{Ended, Invocation};

use crate::decide::{Action, Made, Selected, decide};
use crate::ec2::{self, Label};

/// How many instances are worked on at a time.
const CONCURRENCY: usize = 8;

/// Backs up every selected instance that this run has not backed up yet. One instance's failure stops no other.
pub(crate) async fn back_up(invocation: Invocation<BackupSettings>) -> Result<Ended<BackupReport>, Failure> {
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
        warnings.push(nothing.to_string());
    }
    let made = ec2::made(&invocation.ec2, &settings.environment, &run, None).await?;
    let has_none = |instance| decide(instance, &made) == Action::NoVolumes;
    if !selected.is_empty() && selected.iter().all(has_none) && !settings.allow_no_instances && !dry_run {
        return Err(nothing_to_back_up(&settings.select));
    }

    let mut instances: Vec<_> = stream::iter(&selected)
        .map(|instance| back_up_instance(&invocation, &run, instance, &made))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    instances.sort_by(|a, b| a.instance.cmp(&b.instance));

    let empty = instances.iter().filter(|report| report.outcome == Outcome::NoVolumes);
    warnings.extend(
        empty.map(|report| format!("{} is selected, but has no EBS volume to back up", report.instance)),
    );
    let created = instances.iter().filter(|report| report.outcome == Outcome::Created);
    let report = BackupReport {
        environment: settings.environment.clone(),
        run,
        dry_run,
        selected: selected.len(),
        snapshots_created: created.map(|report| report.snapshots.len()).sum(),
        snapshots_unlisted: 0,
        instances,
        warnings,
        effort: invocation.effort(),
    };
    Ok(Ended::Finished(report.shortened()))
}

async fn back_up_instance(
    invocation: &Invocation<BackupSettings>,
    run: &RunId,
    instance: &Selected,
    made: &[Made],
) -> InstanceReport {
    let settings = &invocation.settings;
    let delete_on = settings.retention.delete_on(invocation.clock.scheduled_day(&settings.timezone));

    let result = match decide(instance, made) {
        Action::NoVolumes => Ok((Outcome::NoVolumes, Vec::new())),
        Action::NotYet => Err(still_starting()),
        Action::AlreadyDone(snapshots) => Ok((Outcome::AlreadyDone, snapshots)),
        Action::Create => {
            let label = Label { environment: &settings.environment, run, delete_on };
            make(invocation, instance, &label).await
        }
    };
    let (outcome, snapshots) = result.unwrap_or_else(|failure| (Outcome::Failed(failure), Vec::new()));
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

/// How often a call is tried that EC2 refuses for now.
const ATTEMPTS: u32 = 4;

/// The pause before the next attempt: EC2 asks for 15 seconds between two snapshots of a volume.
const PAUSE: Duration = Duration::from_secs(15);

/// Makes the set when its turn comes, and waits out what passes by itself.
///
/// Right before, it looks once more for what the run has made of this instance: in a large run, the first look may be
/// many minutes old. Deliveries of a run that follow each other thus never double a set. Two that overlap could, if
/// both look before EC2 shows either one's snapshots: within the same seconds. There is nothing in EC2 to lock.
async fn make(
    invocation: &Invocation<BackupSettings>,
    instance: &Selected,
    label: &Label<'_>,
) -> Result<(Outcome, Vec<VolumeSnapshot>), Failure> {
    let Invocation { ec2: client, deadline, .. } = invocation;
    let dry_run = invocation.event.dry_run;
    let mut attempt = 1;
    loop {
        // Before the turn, so that a long queue dissolves at once, and after what took time.
        if deadline.has_passed() {
            return Err(out_of_time());
        }
        if !dry_run {
            let made = ec2::made(client, label.environment, label.run, Some(instance)).await?;
            if let Action::AlreadyDone(snapshots) = decide(instance, &made) {
                return Ok((Outcome::AlreadyDone, snapshots));
            }
        }
        if deadline.has_passed() {
            return Err(out_of_time());
        }
        match ec2::create(client, instance, label, dry_run).await {
            Ok(_) if dry_run => return Ok((Outcome::WouldCreate, planned(instance))),
            Ok(snapshots) => return Ok((Outcome::Created, snapshots)),
            Err(failure) if !ec2::is_refused_for_now(&failure) || attempt == ATTEMPTS => return Err(failure),
            Err(_) if deadline.passes_within(PAUSE) => return Err(out_of_time()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        attempt += 1;
    }
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
        Outcome::NoVolumes => tracing::info!(instance, name, "has no volumes to back up"),
        Outcome::Failed(failure) => tracing::error!(instance, name, "not backed up: {failure}"),
    }
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

fn still_starting() -> Failure {
    Failure::new(
        "the instance is just starting, and EC2 lists no volume of it yet",
        "the run's next attempt looks again",
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

//! All selected instances, each at its turn, until the time is up.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use futures::{StreamExt as _, stream};
use jiff::civil::Date;
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::report::{Failure, InstanceReport, Outcome, VolumeSnapshot};
use snapwarden_domain::retention::{Earned, Retention};
use snapwarden_runtime::Deadline;

use crate::copied_tags::{self, VolumeTags};
use crate::decide::{Action, Made, Selected, decide};
use crate::set::{self, Ending, Sets};

/// How many instances are worked on at a time. EC2 takes a second or more for a set; so many keep up with its rate
/// even at six.
const CONCURRENCY: usize = 32;

/// How many instances' volumes are looked up by one call: EC2 takes 200 values a filter.
const INSTANCES_A_LOOK: usize = 150;

/// What is to be done, and how far the run has come.
pub(crate) struct Fleet<'a> {
    pub(crate) selected: &'a [Selected],
    /// What the run had made when this invocation started.
    pub(crate) made: Vec<Made>,
    pub(crate) before: Option<&'a Continuation>,
    pub(crate) retention: &'a Retention,
    /// The day that the run belongs to.
    pub(crate) day: Date,
    pub(crate) deadline: Deadline,
    pub(crate) dry_run: bool,
}

/// Backs up what the run has not backed up yet; returns what became of every instance, by id, and the warnings.
///
/// What failed in an earlier hop is tried once more after everything else, so that it holds up nobody. Where the time
/// does not do for that, the earlier failure stands.
pub(crate) async fn back_up_fleet(sets: &impl Sets, fleet: Fleet<'_>) -> (Vec<InstanceReport>, Vec<String>) {
    let mut made: BTreeMap<&str, Vec<Made>> = BTreeMap::new();
    for snapshot in &fleet.made {
        made.entry(&snapshot.instance).or_default().push(snapshot.clone());
    }
    let failures = fleet.before.map(Continuation::failures_by_resource).unwrap_or_default();

    let mut reports = Vec::new();
    let (mut queue, mut again) = (Vec::new(), Vec::new());
    for instance in fleet.selected {
        let settled = match decide(instance, made.get(instance.id.as_str()).map_or(&[], Vec::as_slice)) {
            Action::NoVolumes => (Outcome::NoVolumes, Vec::new()),
            Action::NotYet => (Outcome::Failed(still_starting()), Vec::new()),
            Action::AlreadyDone(snapshots) => (Outcome::AlreadyDone, snapshots),
            Action::Create if failures.contains_key(instance.id.as_str()) => {
                again.push(instance);
                continue;
            }
            Action::Create => {
                queue.push(instance);
                continue;
            }
        };
        reports.push(fleet.report(instance, settled));
    }
    drop(made);
    queue.append(&mut again);

    let mut warnings: Vec<String> = fleet.selected.iter().flat_map(warnings_of).collect();
    let looks = stream::iter(queue.chunks(INSTANCES_A_LOOK))
        .then(async |instances| (instances, fleet.volume_tags(sets, instances).await));
    let endings = looks
        .flat_map(|(instances, tags)| stream::iter(instances.iter().map(move |one| (*one, Rc::clone(&tags)))))
        .map(async |(instance, tags)| {
            let copying = copied_tags::decide(&instance.volumes, &tags);
            (instance, set::make(sets, instance, copying, fleet.deadline, fleet.dry_run).await)
        })
        .buffer_unordered(CONCURRENCY);
    let mut endings = pin!(endings);
    while let Some((instance, Ending { outcome, snapshots, warning })) = endings.next().await {
        let outcome = match (outcome, failures.get(instance.id.as_str())) {
            (Outcome::Postponed, Some(&failure)) => Outcome::Failed(failure.clone()),
            (outcome, _) => outcome,
        };
        warnings.extend(warning.map(|warning| format!("{}: {warning}", instance.id)));
        reports.push(fleet.report(instance, (outcome, snapshots)));
    }
    reports.sort_by(|a, b| a.instance.cmp(&b.instance));
    (reports, warnings)
}

impl Fleet<'_> {
    /// What EC2 knows of the volumes' tags. Without an answer, the backup goes on: EC2 then decides about copies.
    async fn volume_tags(&self, sets: &impl Sets, instances: &[&Selected]) -> Rc<VolumeTags> {
        if self.deadline.has_passed() {
            return Rc::default();
        }
        let known = sets.volume_tags(instances).await.unwrap_or_else(|failure| {
            tracing::warn!("the volumes' tags are not known: {failure}");
            VolumeTags::new()
        });
        Rc::new(known)
    }

    fn report(&self, instance: &Selected, ended: (Outcome, Vec<VolumeSnapshot>)) -> InstanceReport {
        let Earned { term, delete_on } = instance.earned(self.retention, self.day);
        let report = InstanceReport {
            instance: instance.id.clone(),
            name: instance.name.clone(),
            outcome: ended.0,
            snapshots: ended.1,
            delete_on,
            retention: term,
        };
        log(&report);
        report
    }
}

fn warnings_of(instance: &Selected) -> impl Iterator<Item = String> {
    let id = &instance.id;
    let empty = instance.has_nothing_to_back_up().then(|| {
        if instance.exclude_boot || !instance.exclude_data.is_empty() {
            format!("{id} is selected, but its tags leave out every volume")
        } else {
            format!("{id} is selected, but has no EBS volume to back up")
        }
    });
    empty.into_iter().chain(instance.warnings.iter().map(move |warning| format!("{id}: {warning}")))
}

fn log(report: &InstanceReport) {
    let InstanceReport { instance, name, outcome, snapshots, delete_on, .. } = report;
    let name = name.as_deref();
    let ids: Vec<_> = snapshots.iter().filter_map(|made| made.snapshot.as_deref()).collect();
    let snapshots = ids.join(" ");
    match outcome {
        Outcome::Created => tracing::info!(instance, name, snapshots, %delete_on, "backed up"),
        Outcome::AlreadyDone => tracing::info!(instance, name, snapshots, "already backed up by this run"),
        Outcome::WouldCreate => tracing::info!(instance, name, %delete_on, "would be backed up"),
        Outcome::NoVolumes => tracing::info!(instance, name, "has no volumes to back up"),
        Outcome::Postponed => tracing::debug!(instance, name, "not reached in time"),
        Outcome::Failed(failure) => tracing::error!(instance, name, "not backed up: {failure}"),
    }
}

fn still_starting() -> Failure {
    Failure::new(
        "the instance is just starting, and EC2 lists no volume of it yet",
        "the run's next attempt looks again",
    )
}

#[cfg(test)]
mod tests;

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

/// How many instances a dry run asks EC2 about: as many as EC2 lets through at once. To ask about all of a large fleet
/// takes longer than an invocation, and takes the account's rate from others.
const ASKED: usize = 100;

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

/// Backs up what the run has not backed up yet; returns what became of every instance, by id, and what people should
/// know of how. (What the instances' own tags have to say is in [`warnings_of`], in every hop.)
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

    let mut waiting: BTreeMap<&str, &Selected> =
        queue.iter().map(|instance| (instance.id.as_str(), *instance)).collect();
    let mut warnings = Vec::new();
    let looks = stream::iter(queue.chunks(INSTANCES_A_LOOK))
        .then(async |instances| (instances, fleet.volume_tags(sets, instances).await));
    let endings = looks
        .flat_map(|(instances, tags)| stream::iter(instances.iter().map(move |one| (*one, Rc::clone(&tags)))))
        .enumerate()
        .map(async |(number, (instance, tags))| {
            let copying = copied_tags::decide(&instance.volumes, &tags);
            if fleet.dry_run && number >= ASKED {
                return (instance, set::assume(instance, &copying));
            }
            (instance, set::make(sets, instance, copying, fleet.deadline, fleet.dry_run).await)
        })
        .buffer_unordered(CONCURRENCY);
    let mut endings = pin!(endings);
    // What is under way when the time is up may be done or not: the next hop, or the run's next attempt, finds out.
    while let Some((instance, ending)) = fleet.deadline.before_the_end(endings.next()).await.flatten() {
        let Ending { outcome, snapshots, warning } = ending;
        waiting.remove(instance.id.as_str());
        warnings.extend(warning.map(|warning| format!("{}: {warning}", instance.id)));
        reports.push(fleet.report(instance, (standing(outcome, instance, &failures), snapshots)));
    }
    for instance in waiting.into_values() {
        let outcome = standing(Outcome::Postponed, instance, &failures);
        reports.push(fleet.report(instance, (outcome, Vec::new())));
    }
    if fleet.dry_run && queue.len() > ASKED {
        warnings.push(format!(
            "EC2 was asked about the first {ASKED} of {} instances: that it would let the others be backed up too is \
             assumed",
            queue.len()
        ));
    }
    reports.sort_by(|a, b| a.instance.cmp(&b.instance));
    (reports, warnings)
}

impl Fleet<'_> {
    /// What EC2 knows of the volumes' tags. Without an answer, the backup goes on, and copies none.
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
        log(&report, self.before.is_some());
        report
    }
}

/// The outcome that counts: an instance that failed in an earlier hop, and has not had another turn, has failed.
fn standing(outcome: Outcome, instance: &Selected, failures: &BTreeMap<&str, &Failure>) -> Outcome {
    match (outcome, failures.get(instance.id.as_str())) {
        (Outcome::Postponed, Some(&failure)) => Outcome::Failed(failure.clone()),
        (outcome, _) => outcome,
    }
}

/// What is to be said of an instance, whatever becomes of it.
pub(crate) fn warnings_of(instance: &Selected) -> impl Iterator<Item = String> {
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

fn log(report: &InstanceReport, is_later_hop: bool) {
    let InstanceReport { instance, name, outcome, snapshots, delete_on, .. } = report;
    let name = name.as_deref();
    let ids: Vec<_> = snapshots.iter().filter_map(|made| made.snapshot.as_deref()).collect();
    let snapshots = ids.join(" ");
    match outcome {
        Outcome::Created => tracing::info!(instance, name, snapshots, %delete_on, "backed up"),
        // What the hop before has said, thousands of times, need not be said in each that follows.
        Outcome::AlreadyDone if is_later_hop => {
            tracing::debug!(instance, name, snapshots, "already backed up by this run");
        }
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

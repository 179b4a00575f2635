//! Making the snapshot set of one instance: once in a run, whatever happens to the calls.
//!
//! EC2 has neither a lock nor an idempotency token for `CreateSnapshots`. What there is instead:
//!
//! - Every snapshot carries its run's id from the moment it exists, and right before a set is made, EC2 is asked for
//!   what the run has made of the instance. Invocations of a run that follow each other (a hop, Lambda's repetition, a
//!   second delivery) are minutes apart and EC2's lists lag by seconds, so the later one finds what the earlier one
//!   made. This much is guaranteed as far as the lists are not minutes late.
//! - After an unclear end (no answer, or an error inside EC2) the same question is asked for half a minute before the
//!   call is made again.
//! - Two invocations at the same time can both ask before either one has made the set. EC2 refuses a second snapshot of
//!   a volume that soon after the first (`SnapshotCreationPerVolumeRateExceeded`, 15 seconds); whoever is refused
//!   waits that long and asks again. For a second set to come about, the two calls must be further apart than that
//!   limit, and the first set must still not be listed when it has expired. That is very unlikely, but not impossible;
//!   the price is a second set with the same `DeleteOn`, never a missing one.

use std::time::Duration;

use snapwarden_domain::report::{Failure, Outcome, VolumeSnapshot};
use snapwarden_runtime::Deadline;
use tokio::time::sleep;

use crate::copied_tags::{Copying, VolumeTags, is_about_tags};
use crate::decide::{Action, Made, Selected, decide};

/// What EC2 is asked for.
pub(crate) trait Sets {
    /// The tags of these instances' volumes.
    async fn volume_tags(&self, instances: &[&Selected]) -> Result<VolumeTags, Failure>;

    /// What the run has made of an instance already, without what failed.
    async fn made(&self, instance: &Selected) -> Result<Vec<Made>, Failure>;

    /// Makes one set, or asks in a dry run whether EC2 would, and then returns no snapshot.
    async fn create(&self, instance: &Selected, copying: &Copying) -> Result<Vec<VolumeSnapshot>, NotMade>;
}

/// Why a call made no set, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotMade {
    /// EC2 said so.
    Refused(Failure),
    /// It may have made one: there was no answer, or an error inside EC2.
    Unclear(Failure),
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) snapshots: Vec<VolumeSnapshot>,
    pub(crate) warning: Option<String>,
}

/// How often a call is made that EC2 refuses for now, or that ends unclearly.
const ATTEMPTS: u32 = 5;

/// The pause before the next attempt: EC2 asks for 15 seconds between two snapshots of a volume.
const PAUSE: Duration = Duration::from_secs(15);

/// The pauses before each look for what an unclear call may have made: EC2's lists lag by some seconds.
const LOOKS: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)];

/// Makes the set of an instance, unless the run has made it already, and waits out what passes by itself.
///
/// Where the time does not do, nothing is started, and the outcome is [`Outcome::Postponed`].
pub(crate) async fn make(
    sets: &impl Sets,
    instance: &Selected,
    copying: Copying,
    deadline: Deadline,
    dry_run: bool,
) -> Ending {
    let mut making = Making { sets, instance, copying, deadline, dry_run, warning: None };
    let (outcome, snapshots) = match making.make().await {
        Ok(Some(made)) => made,
        Ok(None) => (Outcome::Postponed, Vec::new()),
        Err(failure) => (Outcome::Failed(failure), Vec::new()),
    };
    if let Copying::Leave(reason) = &making.copying {
        making.warning = Some(format!("the volumes' tags are not on the snapshots: {reason}"));
    }
    let is_made = matches!(outcome, Outcome::Created | Outcome::WouldCreate);
    Ending { outcome, snapshots, warning: making.warning.filter(|_| is_made) }
}

struct Making<'a, S> {
    sets: &'a S,
    instance: &'a Selected,
    copying: Copying,
    deadline: Deadline,
    dry_run: bool,
    warning: Option<String>,
}

type Set = (Outcome, Vec<VolumeSnapshot>);

impl<S: Sets> Making<'_, S> {
    /// The set, or none for want of time.
    async fn make(&mut self) -> Result<Option<Set>, Failure> {
        for attempt in 1.. {
            // Before any turn is taken, so that a long queue dissolves at once.
            if self.deadline.has_passed() {
                return Ok(None);
            }
            if let Some(snapshots) = self.found().await? {
                return Ok(Some((Outcome::AlreadyDone, snapshots)));
            }
            if self.deadline.has_passed() {
                return Ok(None);
            }
            let is_last = attempt == ATTEMPTS;
            match self.sets.create(self.instance, &self.copying).await {
                Ok(_) if self.dry_run => {
                    return Ok(Some((Outcome::WouldCreate, self.instance.without_snapshots())));
                }
                Ok(snapshots) => return Ok(Some((Outcome::Created, snapshots))),
                Err(NotMade::Refused(failure)) if self.is_copying() && is_about_tags(&failure) => {
                    self.copying = Copying::Leave(format!("EC2 refused the set with them: {failure}"));
                }
                Err(NotMade::Refused(failure)) if !is_for_now(&failure) || is_last => return Err(failure),
                Err(NotMade::Refused(_)) if self.deadline.passes_within(PAUSE) => return Ok(None),
                Err(NotMade::Refused(_)) => sleep(PAUSE).await,
                Err(NotMade::Unclear(failure)) => {
                    if let Some(snapshots) = self.looked_for().await? {
                        return Ok(Some((Outcome::Created, snapshots)));
                    }
                    if is_last || self.deadline.has_passed() {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The whole set, if the run has made it. A dry run shows what a run would do from the start.
    async fn found(&self) -> Result<Option<Vec<VolumeSnapshot>>, Failure> {
        if self.dry_run {
            return Ok(None);
        }
        match decide(self.instance, &self.sets.made(self.instance).await?) {
            Action::AlreadyDone(snapshots) => Ok(Some(snapshots)),
            _ => Ok(None),
        }
    }

    /// The set that an unclear call may have made, once EC2 lists it.
    async fn looked_for(&self) -> Result<Option<Vec<VolumeSnapshot>>, Failure> {
        for pause in LOOKS {
            if self.deadline.passes_within(pause) {
                break;
            }
            sleep(pause).await;
            if let Some(snapshots) = self.found().await? {
                return Ok(Some(snapshots));
            }
        }
        Ok(None)
    }

    fn is_copying(&self) -> bool {
        matches!(self.copying, Copying::Copy { .. })
    }
}

/// Whether the refusal passes with time.
fn is_for_now(refusal: &Failure) -> bool {
    matches!(refusal.code.as_deref(), Some("RequestLimitExceeded" | "SnapshotCreationPerVolumeRateExceeded"))
}

#[cfg(test)]
mod tests;

//! Making the snapshot set of one instance: once in a run, whatever happens to the calls.
//!
//! EC2 has neither a lock nor an idempotency token for `CreateSnapshots`. What there is instead:
//!
//! - Every snapshot carries its run's id from the moment it exists, and right before a set is made, with the turn to make
//!   it in hand, EC2 is asked for what the run has made of the instance. Invocations of a run that follow each other (a hop, Lambda's repetition, a
//!   second delivery) are minutes apart and EC2's lists lag by seconds, so the later one finds what the earlier one
//!   made. This much is guaranteed as far as the lists are not minutes late.
//! - After an unclear end (no answer, or an error inside EC2) the same question is asked for half a minute before the
//!   call is made again.
//! - Two invocations at the same time can both ask before either one has made the set. EC2 refuses a second snapshot of
//!   a volume that soon after the first (`SnapshotCreationPerVolumeRateExceeded`, 15 seconds); whoever is refused
//!   waits that long and asks again. For a second set to come about, the two calls must be further apart than that
//!   limit, and the first set must still not be listed when it has expired. That is very unlikely, but not impossible;
//!   the price is a second set with the same `DeleteOn`, never a missing one.
//! - The same holds for two chains of hops. A hop that is repeated after it has handed on, and before its successor's
//!   first snapshot shows, does not see that it is superseded (`decide::is_superseded`) and works beside it: both call
//!   EC2, and each writes the run's metrics, but neither makes what the other has made.

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

    /// The right to call `CreateSnapshots` once, now.
    type Turn;

    /// Waits for the turn of one `CreateSnapshots`; nothing where it would come after the deadline.
    async fn turn(&self, deadline: Deadline) -> Option<Self::Turn>;

    /// What the run has made of an instance already, without what failed.
    async fn made(&self, instance: &Selected) -> Result<Vec<Made>, Failure>;

    /// Makes one set, or asks in a dry run whether EC2 would, and then returns no snapshot.
    async fn create(
        &self,
        instance: &Selected,
        copying: &Copying,
        turn: Self::Turn,
    ) -> Result<Vec<VolumeSnapshot>, NotMade>;
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

/// How often EC2 may throttle a call: for all the time that an invocation lasts. It says nothing about the instance;
/// somebody else uses up the account's rate, and may stop any moment.
const THROTTLES: u32 = 60;

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
    let mut making = Making { sets, instance, copying, deadline, dry_run };
    let (outcome, snapshots) = match making.make().await {
        Ok(Some(made)) => made,
        Ok(None) => (Outcome::Postponed, Vec::new()),
        Err(failure) => (Outcome::Failed(failure), Vec::new()),
    };
    Ending::of(outcome, snapshots, &making.copying)
}

/// The end of an instance in a dry run that has asked EC2 about enough others.
pub(crate) fn assume(instance: &Selected, copying: &Copying) -> Ending {
    Ending::of(Outcome::WouldCreate, instance.without_snapshots(), copying)
}

impl Ending {
    fn of(outcome: Outcome, snapshots: Vec<VolumeSnapshot>, copying: &Copying) -> Self {
        let warning = match (&outcome, copying) {
            (Outcome::Created | Outcome::WouldCreate, Copying::Leave(reason)) => {
                Some(format!("the volumes' tags are not on the snapshots: {reason}"))
            }
            _ => None,
        };
        Self { outcome, snapshots, warning }
    }
}

/// What came of looking for a set that may have been made.
enum Looked {
    Found(Vec<VolumeSnapshot>),
    NotThere,
    /// For too short a time to tell: nothing may be made again. The run's next attempt looks again.
    TooShort,
}

struct Making<'a, S> {
    sets: &'a S,
    instance: &'a Selected,
    copying: Copying,
    deadline: Deadline,
    dry_run: bool,
}

type Set = (Outcome, Vec<VolumeSnapshot>);

impl<S: Sets> Making<'_, S> {
    /// The set, or none for want of time.
    async fn make(&mut self) -> Result<Option<Set>, Failure> {
        let (mut attempts, mut throttles) = (ATTEMPTS, THROTTLES);
        loop {
            // A long queue dissolves here once the time is up.
            let Some(turn) = self.sets.turn(self.deadline).await else { return Ok(None) };
            // With the turn in hand: while EC2 throttles, it can be minutes from a look to a turn.
            if let Some(snapshots) = self.found().await? {
                return Ok(Some((Outcome::AlreadyDone, snapshots)));
            }
            match self.sets.create(self.instance, &self.copying, turn).await {
                Ok(_) if self.dry_run => {
                    return Ok(Some((Outcome::WouldCreate, self.instance.without_snapshots())));
                }
                Ok(snapshots) => return Ok(Some((Outcome::Created, snapshots))),
                Err(NotMade::Refused(failure)) if self.is_copying() && is_about_tags(&failure) => {
                    self.copying = Copying::Leave(format!("EC2 refused the set with them: {failure}"));
                }
                Err(NotMade::Refused(failure)) if !is_for_now(&failure) => return Err(failure),
                Err(NotMade::Refused(failure)) => {
                    let left = if is_throttle(&failure) { &mut throttles } else { &mut attempts };
                    *left -= 1;
                    if *left == 0 {
                        return Err(failure);
                    }
                    if self.deadline.passes_within(PAUSE) {
                        return Ok(None);
                    }
                    sleep(PAUSE).await;
                }
                Err(NotMade::Unclear(failure)) if self.dry_run => return Err(failure),
                Err(NotMade::Unclear(failure)) => {
                    attempts -= 1;
                    match self.looked_for().await? {
                        Looked::Found(snapshots) => return Ok(Some((Outcome::Created, snapshots))),
                        Looked::NotThere if attempts > 0 => (),
                        Looked::NotThere | Looked::TooShort => return Err(failure),
                    }
                }
            }
        }
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

    /// Looks for the set that an unclear call may have made, until EC2 must have listed it.
    async fn looked_for(&self) -> Result<Looked, Failure> {
        for pause in LOOKS {
            if self.deadline.passes_within(pause) {
                return Ok(Looked::TooShort);
            }
            sleep(pause).await;
            if let Some(snapshots) = self.found().await? {
                return Ok(Looked::Found(snapshots));
            }
        }
        Ok(Looked::NotThere)
    }

    fn is_copying(&self) -> bool {
        matches!(self.copying, Copying::Copy { .. })
    }
}

/// Whether the refusal passes with time.
fn is_for_now(refusal: &Failure) -> bool {
    is_throttle(refusal) || refusal.code.as_deref() == Some("SnapshotCreationPerVolumeRateExceeded")
}

/// Whether the account's request rate is used up.
fn is_throttle(refusal: &Failure) -> bool {
    refusal.code.as_deref() == Some("RequestLimitExceeded")
}

#[cfg(test)]
mod tests;

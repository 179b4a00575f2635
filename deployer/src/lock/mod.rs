//! One command at a time changes an environment: a lock in an SSM parameter, without a server of our own.
//!
//! The parameter is made without `Overwrite`, which SSM does for one caller only. Its holder writes it again every
//! [`RENEWAL`], which raises its version; whoever waits watches the version with its own clock, so no two clocks have
//! to agree. What is not renewed for [`LEASE`], or was left behind by a process of this machine that has ended, is
//! taken over.
//!
//! SSM can neither replace nor delete a parameter on condition of what it holds (source: AWS Systems Manager API,
//! `PutParameter` and `DeleteParameter`). A takeover therefore follows Fischer's algorithm: write one's token, let any
//! other write that was under way arrive ([`SETTLING`]), and look whose token is there. And it is fenced: every step
//! of a plan looks again right before it begins, and every call is sent only while the lease lasts ([`Lease`]), so that
//! a holder who has lost the lock, such as a laptop that slept, changes nothing more.

mod lease;
mod parameter;

use std::cell::RefCell;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::apply::{Guard, Halt};
use crate::error::{AwsError, ErrorClass};
use crate::rights::{Resources, Right};

pub use lease::{Lease, LeaseOver, Moment};
pub use parameter::Parameter;

/// What it takes to take, hold and give back the lock.
pub const RIGHTS: &[Right] = &[
    Right::on(Resources::Lock, "ssm:PutParameter"),
    Right::on(Resources::Lock, "ssm:AddTagsToResource"),
    Right::on(Resources::Lock, "ssm:GetParameter"),
    Right::on(Resources::Lock, "ssm:DeleteParameter"),
];

/// How long a lock is respected that its holder does not renew.
pub const LEASE: Duration = Duration::from_secs(90);

/// How often its holder renews it.
const RENEWAL: Duration = Duration::from_secs(20);

/// How long another taker's write may be under way: longer than the write is waited for.
const SETTLING: Duration = Duration::from_millis(1500);

/// How often a holder looks before it takes the lock for lost.
const LOOKS: u32 = 3;

/// How often somebody who waits looks.
const LOOK: Duration = Duration::from_secs(2);

/// Who holds an environment, as the parameter says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who it is, such as `ann@laptop`.
    pub who: String,
    /// What it does: `deploy` or `destroy`.
    pub command: String,
    /// Since when, by its own clock.
    pub since: Timestamp,
    /// The process, where others on the same machine can tell whether it still runs.
    #[serde(default)]
    pub process: Option<Process>,
    /// Different for every holder.
    token: String,
}

/// A process that others can look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The machine, and the part of it within which process numbers mean something.
    pub machine: String,
    /// Its number.
    pub pid: u32,
    /// When it began, in a form that is only good for comparing: numbers are given out again.
    pub began: String,
}

impl Holder {
    /// Somebody who wants to hold an environment.
    pub fn new(who: String, command: &str, since: Timestamp, process: Option<Process>) -> Self {
        let token = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self { who, command: command.to_owned(), since, process, token }
    }
}

/// Where a lock is kept: one value, made by one caller only, whose version rises with every write.
#[async_trait(?Send)]
pub trait Slot {
    /// Makes it, or fails with [`ErrorClass::AlreadyExists`].
    async fn create(&self, holder: &Holder) -> Result<(), AwsError>;
    /// Writes it, whatever it holds, within [`SETTLING`] or not at all as far as that can be made sure of; returns the
    /// version.
    async fn overwrite(&self, holder: &Holder) -> Result<i64, AwsError>;
    /// What it holds, with its version; the inner `None` for what nobody of us has written.
    async fn read(&self) -> Result<Option<(Option<Holder>, i64)>, AwsError>;
    /// Removes it, within [`SETTLING`] or not at all as far as that can be made sure of; that it is gone is fine.
    async fn delete(&self) -> Result<(), AwsError>;
    /// What tells the calls that need the lock for how long it lasts.
    fn lease(&self) -> Lease {
        Lease::default()
    }
}

/// A lock that is held. Dropping it does not release it: [`Lock::release`] does, or the lease's end.
pub struct Lock<S> {
    slot: S,
    holder: Holder,
    lost: RefCell<Option<String>>,
}

/// How somebody waits for a lock.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long.
    pub limit: Duration,
    /// Whether to take it from whoever holds it.
    pub break_lock: bool,
    /// Whether a process is known to have ended.
    pub has_ended: &'a dyn Fn(&Process) -> bool,
    /// Hears of every look at a lock that somebody else holds, with the time waited so far.
    pub waiting: &'a dyn Fn(&Holder, Duration),
}

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it, and goes on to.
    #[error("{} is changing this environment ({} since {})", .0.who, .0.command, .0.since.strftime("%F %H:%M UTC"))]
    Held(Box<Holder>),
    /// What lies in the lock's place is not a lock.
    #[error("the lock's SSM parameter holds something that is no lock")]
    Unreadable,
    /// SSM did not let us.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

impl<S: Slot> Lock<S> {
    /// Takes the lock, waiting for whoever has it.
    pub async fn take(slot: S, holder: Holder, patience: Patience<'_>) -> Result<Self, LockError> {
        let started = Instant::now();
        let mut seen: Option<(i64, Instant)> = None;
        // Once: what was written since is somebody's who is there.
        let mut may_break = patience.break_lock;
        let taken = |slot: S, asked| {
            slot.lease().renew(asked);
            Self { slot, holder: holder.clone(), lost: RefCell::default() }
        };
        loop {
            let asked = Moment::now();
            match slot.create(&holder).await {
                Ok(()) => return Ok(taken(slot, asked)),
                Err(error) if error.class == ErrorClass::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            let waited = started.elapsed();
            let Some((other, version)) = slot.read().await? else {
                // Given back just now, or not shown yet.
                if waited >= patience.limit + SETTLING {
                    return Err(LockError::Unreadable);
                }
                sleep(LOOK / 4).await;
                continue;
            };
            let unchanged_since = match seen {
                Some((before, since)) if before == version => since,
                _ => Instant::now(),
            };
            seen = Some((version, unchanged_since));
            let is_free = match &other {
                // The SDK repeats a call whose answer was lost: this is what we just made.
                Some(other) if other.token == holder.token => return Ok(taken(slot, asked)),
                Some(other) => {
                    other.process.as_ref().is_some_and(patience.has_ended)
                        || unchanged_since.elapsed() >= LEASE
                }
                // What is no lock does not become ours by waiting.
                None => false,
            };
            if is_free || std::mem::take(&mut may_break) {
                let asked = Moment::now();
                let written = slot.overwrite(&holder).await?;
                sleep(SETTLING).await;
                match slot.read().await? {
                    Some((Some(now), version)) if now.token == holder.token && version == written => {
                        return Ok(taken(slot, asked));
                    }
                    _ => continue,
                }
            }
            // Waiting does not make a lock of it.
            if waited >= patience.limit || other.is_none() {
                return Err(other.map_or(LockError::Unreadable, |other| LockError::Held(Box::new(other))));
            }
            if let Some(other) = &other {
                (patience.waiting)(other, waited);
            }
            sleep(LOOK).await;
        }
    }

    /// Does something while the lock is renewed.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> T {
        let renewing = async {
            loop {
                sleep(RENEWAL).await;
                self.renew().await;
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            () = renewing => unreachable!("it renews for ever"),
        }
    }

    async fn renew(&self) {
        // Where SSM does not answer, the next step's look says so, and the lease still runs.
        match self.slot.read().await {
            Ok(Some((Some(held), version))) if held.token == self.holder.token => {
                let asked = Moment::now();
                match self.slot.overwrite(&self.holder).await {
                    Ok(written) if written == version + 1 => self.slot.lease().renew(asked),
                    // Somebody who wrote in between has taken the lock over, and finds our token where its own was:
                    // neither of us may go on.
                    Ok(_) => self.lose(),
                    Err(_) => {}
                }
            }
            Ok(Some(_)) => self.lose(),
            Ok(None) | Err(_) => {}
        }
    }

    /// Looks again before it believes the worst: SSM may show for a moment what was there before.
    async fn is_still_held(&self) -> Result<bool, AwsError> {
        for _ in 0..LOOKS {
            if is_held_by(&self.slot, &self.holder).await? {
                return Ok(true);
            }
            sleep(LOOK / 4).await;
        }
        Ok(false)
    }

    fn lose(&self) {
        let text = "another command has taken this environment's lock over; look at its result, then run the \
                    command again";
        self.lost.borrow_mut().get_or_insert_with(|| text.to_owned());
        self.slot.lease().lose();
    }

    /// Gives the lock back. Where that fails, its lease ends.
    ///
    /// Somebody who breaks the lock between look and deletion loses it to the deletion, and notices: it arrives within
    /// [`SETTLING`], after which they look.
    pub async fn release(self) -> Result<(), AwsError> {
        self.slot.lease().end();
        let mut result = Ok(());
        for _ in 0..LOOKS {
            if !is_held_by(&self.slot, &self.holder).await? {
                return Ok(());
            }
            result = self.slot.delete().await;
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

#[async_trait(?Send)]
impl<S: Slot> Guard for Lock<S> {
    async fn check(&self) -> Result<(), Halt> {
        if self.lost.borrow().is_none() {
            match self.is_still_held().await {
                Ok(true) => return Ok(()),
                Ok(false) => self.lose(),
                Err(error) => {
                    return Err(Halt(format!("cannot tell whether the lock is still held: {error}")));
                }
            }
        }
        Err(Halt(self.lost.borrow().clone().unwrap_or_default()))
    }
}

async fn is_held_by(slot: &impl Slot, holder: &Holder) -> Result<bool, AwsError> {
    let held = slot.read().await?.and_then(|(other, _)| other);
    Ok(held.is_some_and(|other| other.token == holder.token))
}

#[cfg(test)]
mod tests;

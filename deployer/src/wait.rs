//! Everything that AWS makes its callers wait for, in one place: bounded, jittered and visible.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::error::{AwsError, ErrorClass};
use crate::event::Event;
use crate::kinds::{Context, StepError};

/// A reason to wait: which errors it explains, and how long it is worth waiting.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// What people read, after "waiting for".
    text: &'static str,
    explains: fn(&AwsError) -> bool,
    limit: Duration,
}

/// A new role takes some seconds to reach Lambda, usually under a minute.
pub const ROLE_FOR_LAMBDA: Reason = Reason {
    text: "IAM to let Lambda assume the role",
    explains: |error| {
        error.code == "InvalidParameterValueException"
            && (error.message.contains("cannot be assumed") || error.message.contains("CreateGrant"))
    },
    limit: Duration::from_mins(5),
};

/// The same when a function is invoked right after its role was made.
pub const ROLE_FOR_CANARY: Reason = Reason {
    text: "IAM to let Lambda assume the new version's role",
    explains: |error| {
        error.message.contains("cannot be assumed")
            || error.code.starts_with("KMSAccessDenied")
            || error.code == "ResourceNotReadyException"
    },
    limit: Duration::from_mins(2),
};

/// Lambda refuses what is one invocation too many at once. Such a one was not begun, so a dry run can come later; the SDK
/// repeats no invocation by itself, since of others nobody knows.
pub const THROTTLED_INVOCATION: Reason = Reason {
    text: "Lambda to take one invocation more",
    explains: |error| error.class == ErrorClass::Throttled,
    limit: Duration::from_mins(1),
};

/// A role takes as long to be let write to a destination, which Lambda checks when it is told of one.
pub const ROLE_FOR_DESTINATION: Reason = Reason {
    text: "Lambda to see the destination, and IAM to let the function's role write to it",
    explains: |error| {
        error.code == "InvalidParameterValueException"
            && (error.message.contains("does not have permissions")
                || (error.message.contains("destination ARN") && error.message.contains("is invalid")))
    },
    limit: Duration::from_mins(2),
};

/// IAM takes some seconds to notice that nothing hangs on a role any more.
pub const ROLE_IN_USE: Reason = Reason {
    text: "IAM to let go of the role",
    explains: |error| error.code.starts_with("DeleteConflict"),
    limit: Duration::from_mins(1),
};

/// The same for EventBridge Scheduler, which checks the role's trust when a schedule is written.
pub const ROLE_FOR_SCHEDULER: Reason = Reason {
    text: "IAM to let EventBridge Scheduler assume the role",
    explains: |error| error.code == "ValidationException" && error.message.contains("assume the role"),
    limit: Duration::from_mins(5),
};

/// Lambda takes one change of a function at a time.
pub const FUNCTION_BUSY: Reason = Reason {
    text: "Lambda to finish an earlier change of the function",
    explains: |error| error.code == "ResourceConflictException" && error.class == ErrorClass::Conflict,
    limit: Duration::from_mins(5),
};

/// CloudWatch Logs takes one change of a log group at a time (source: CloudWatch Logs API, `OperationAbortedException`).
pub const LOG_GROUP_BUSY: Reason = Reason {
    text: "CloudWatch Logs to finish an earlier change of the log group",
    explains: |error| error.code == "OperationAbortedException",
    limit: Duration::from_mins(1),
};

/// A new key, or its policy, takes some seconds to reach CloudWatch Logs, which tries the key when it is told of it.
pub const KEY_FOR_LOGS: Reason = Reason {
    text: "KMS to let CloudWatch Logs use the key",
    explains: |error| error.code == "InvalidParameterException" && error.message.contains("KMS"),
    limit: Duration::from_mins(1),
};

/// The name of a deleted queue is free again after 60 s.
pub const QUEUE_NAME: Reason = Reason {
    text: "SQS to free the name of the deleted queue",
    explains: |error| error.code.ends_with("QueueDeletedRecently"),
    limit: Duration::from_secs(90),
};

/// CloudFormation goes through the accounts of a stack set for one operation at a time.
pub const STACK_SET_BUSY: Reason = Reason {
    text: "CloudFormation to finish another operation on the stack set",
    explains: |error| error.code.starts_with("OperationInProgress"),
    limit: Duration::from_hours(12),
};

/// KMS makes few keys at a time. Its refusal is clear: nothing was made.
pub const KMS_THROTTLES: Reason = Reason {
    text: "KMS to take another key",
    explains: |error| error.class == ErrorClass::Throttled,
    limit: Duration::from_mins(1),
};

/// A schedule group is deleted in the background, and cannot be made anew before that is over.
pub const GROUP_DELETION: Reason = Reason {
    text: "EventBridge Scheduler to finish deleting the schedule group",
    explains: |error| error.class == ErrorClass::Conflict,
    limit: Duration::from_mins(5),
};

/// The time, for events that say when they were sent.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Most waits are over at once; those for IAM take several of the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Repeats a call as long as one of the reasons explains its error; the last error is what the caller sees.
pub async fn retry<T>(
    cx: &Context,
    reasons: &[Reason],
    mut call: impl AsyncFnMut() -> Result<T, AwsError>,
) -> Result<T, AwsError> {
    let mut pauses = Pauses::new(cx);
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(reason) = reasons.iter().find(|reason| (reason.explains)(&error)) else { return Err(error) };
        if !pauses.pause(reason.text, reason.limit).await {
            return Err(error);
        }
    }
}

/// Repeats a question until its answer is `Some`; `None` as the result means that the time ran out.
pub async fn until<T>(
    cx: &Context,
    text: &'static str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, AwsError>,
) -> Result<Option<T>, AwsError> {
    let mut pauses = Pauses::new(cx);
    loop {
        let answer = ask().await?;
        if answer.is_some() || !pauses.pause(text, limit).await {
            return Ok(answer);
        }
    }
}

/// Waits until a deleted resource is gone; `what` says what AWS did not do when the time runs out.
pub async fn until_gone(
    cx: &Context,
    text: &'static str,
    what: &'static str,
    limit: Duration,
    mut is_gone: impl AsyncFnMut() -> Result<bool, AwsError>,
) -> Result<(), StepError> {
    let gone = until(cx, text, limit, async || Ok(is_gone().await?.then_some(()))).await?;
    gone.ok_or_else(|| StepError::NotReady {
        what,
        seconds: limit.as_secs(),
        state: "it is still there".to_owned(),
    })
}

/// Pauses that grow, each between half and all of its length so that parallel steps do not knock in step.
struct Pauses<'a> {
    cx: &'a Context,
    started: Instant,
    next: Duration,
}

impl<'a> Pauses<'a> {
    fn new(cx: &'a Context) -> Self {
        Self { cx, started: Instant::now(), next: FIRST_PAUSE }
    }

    /// Sleeps and says so; `false` once the limit has passed.
    async fn pause(&mut self, reason: &'static str, limit: Duration) -> bool {
        let waited = self.started.elapsed();
        if waited >= limit {
            return false;
        }
        self.cx.tell(|resource| Event::Waiting { resource, reason, waited });
        sleep(self.next.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}

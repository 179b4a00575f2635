//! What both Lambda functions wire the same way: settings, clock, logging, the EC2 client, and how a run ends.
//!
//! A function is a type of settings, a type of report, and an async function from [`Invocation`] to that report.
//! [`run`] does the rest, so that both refuse, log and fail alike.

mod client;
mod clock;
mod deadline;
pub mod ec2;
mod ending;
mod hand_on;
pub mod inventory;
mod log;
mod meter;
mod notification;
mod pace;
pub mod presign;
pub mod roles;
mod settings;
pub mod sharing;

use std::num::NonZeroU16;
use std::time::SystemTime;

use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::de::DeserializeOwned;
use serde_json::Value;
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::event::{Clock, Event};
use snapwarden_domain::report::{Effort, Failure, Report};
use snapwarden_domain::settings::Settings;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::notification::Notifier;

pub use crate::deadline::Deadline;
pub use crate::ec2::Ec2;
pub use crate::pace::{Api, Pace};
pub use crate::roles::Roles;

/// Everything that one invocation works with.
#[derive(Debug)]
pub struct Invocation<S> {
    /// The function's settings.
    pub settings: S,
    /// What it was invoked with.
    pub event: Event,
    /// The run's clock, checked against the real one.
    pub clock: Clock,
    /// The real time when the invocation started, whatever the run's clock says.
    pub real_now: Timestamp,
    /// EC2.
    pub ec2: Ec2,
    /// Whose rights it has, and can have.
    pub roles: Roles,
    /// Whether an emulator on this host answers in EC2's place.
    pub is_emulated: bool,
    /// When to stop starting anything.
    pub deadline: Deadline,
    /// When the invocation started.
    pub started: Instant,
    /// Whether the rest of the run can be handed on, should the time not do.
    pub may_hand_on: bool,
}

impl<S> Invocation<S> {
    /// What the run took so far, with its earlier hops, for its report.
    pub fn effort(&self) -> Effort {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.event.continuation.as_ref();
        let sum = |of: fn(&Continuation) -> u64, now: u64| before.map_or(0, of).saturating_add(now);
        Effort {
            hops: self.event.hop(),
            handed_on: false,
            api_calls: sum(|before| before.api_calls, self.ec2.calls()),
            throttles: sum(|before| before.throttles, self.ec2.throttles()),
            duration_ms: sum(|before| before.duration_ms, elapsed),
        }
    }
}

/// How far an invocation got.
#[derive(Debug)]
pub enum Ended<R> {
    /// The run is over, or another invocation sees to it: then the report says that it is handed on.
    Finished(R),
    /// There is work left for another hop. Only where [`Invocation::may_hand_on`].
    Unfinished {
        /// The report so far.
        report: R,
        /// What the next hop is told.
        next: Continuation,
    },
}

impl<R> Ended<R> {
    /// The same with another form of the report.
    pub fn map<T>(self, form: impl FnOnce(R) -> T) -> Ended<T> {
        match self {
            Self::Finished(report) => Ended::Finished(form(report)),
            Self::Unfinished { report, next } => Ended::Unfinished { report: form(report), next },
        }
    }

    /// The report of the run, or of its part so far.
    pub fn into_report(self) -> R {
        match self {
            Self::Finished(report) | Self::Unfinished { report, .. } => report,
        }
    }
}

/// Serves a function's invocations until Lambda ends the process.
///
/// `work` returns an error where there is nothing to report on. Such a run, and a run whose report has failures,
/// ends as a function error of the type `failed`, since that is what Lambda retries and alarms see. A run that goes on
/// in another hop ends as a success whatever failed so far: Lambda would repeat a hop that ended as a failure, beside
/// the one it handed on to. The last hop answers for all.
pub async fn run<S, R, F, Fut>(failed: &'static str, work: F) -> Result<(), lambda_runtime::Error>
where
    S: DeserializeOwned + Settings,
    R: Report,
    F: Fn(Invocation<S>) -> Fut,
    Fut: Future<Output = Result<Ended<R>, Failure>>,
{
    log::init();
    let configuration = client::configuration().await;
    let function = Function {
        failed,
        ec2: aws_sdk_ec2::Client::new(&configuration),
        roles: Roles::of(&configuration),
        lambda: aws_sdk_lambda::Client::new(&configuration),
        work,
    };
    let sns = aws_sdk_sns::Client::new(&configuration);
    let notifier = &Notifier::new(sns, |name| std::env::var(name).ok());
    let function = &function;
    lambda_runtime::run(service_fn(move |request: LambdaEvent<Value>| async move {
        let (event, context) = request.into_parts();
        let deadline = Deadline::of(context.deadline(), SystemTime::now());
        let started = Timestamp::now();
        let (arn, id) = (context.invoked_function_arn.clone(), context.request_id.clone());
        let call = Call { event: event.clone(), arn, id, deadline };
        let result = function.serve(call).await.inspect_err(ending::log);
        if let Err(error) = &result {
            notifier.tell(&event, &context, started, error).await;
        }
        result
    }))
    .await
}

/// The error type of a sealing pass that failed.
const SEALING_FAILED: &str = "SealingFailed";

/// What Lambda hands over.
struct Call {
    event: Value,
    /// What was invoked: the ARN of the alias, or of a version.
    arn: String,
    /// The same for Lambda's repetitions.
    id: String,
    deadline: Deadline,
}

struct Function<F> {
    failed: &'static str,
    ec2: aws_sdk_ec2::Client,
    roles: Roles,
    lambda: aws_sdk_lambda::Client,
    work: F,
}

impl<F> Function<F> {
    async fn serve<S, R, Fut>(&self, call: Call) -> Result<R, Diagnostic>
    where
        S: DeserializeOwned + Settings,
        R: Report,
        F: Fn(Invocation<S>) -> Fut,
        Fut: Future<Output = Result<Ended<R>, Failure>>,
    {
        let variable = |name: &str| std::env::var(name).ok();
        // Settings are read here rather than at start, where Lambda would report only that the process exited.
        let settings: S =
            settings::read(variable).map_err(|error| ending::refused("InvalidSettings", error))?;
        let invalid_event = |error| ending::refused("InvalidEvent", error);
        let event = Event::from_json(call.event).map_err(invalid_event)?;
        let endpoint = clock::ec2_endpoint(variable);
        let real_now = Timestamp::now();
        let clock = clock::of(&event, real_now, endpoint.as_deref()).map_err(invalid_event)?;

        let (run, hop) = (event.run(), event.hop());
        // Apart from cleanups in the log: a pass that failed says nothing of the last cleanup.
        let failed = if event.seal { SEALING_FAILED } else { self.failed };
        let span = tracing::info_span!("run", %run, hop, request = call.id);
        let alias_arn = settings.alias_arn().to_owned();
        let invocation = Invocation {
            may_hand_on: hand_on::is_possible(&event, &call.arn, &alias_arn),
            // What the hop before has used up, this one cannot use again.
            ec2: Ec2::new(&self.ec2, hop == 0, event.pace.unwrap_or(NonZeroU16::MIN)),
            roles: self.roles.clone(),
            settings,
            event: event.clone(),
            clock,
            is_emulated: endpoint.as_deref().is_some_and(clock::is_loopback),
            real_now,
            deadline: call.deadline,
            started: Instant::now(),
        };
        let serve = async {
            tracing::info!(dry_run = event.dry_run, "run started");
            match (self.work)(invocation).await {
                Ok(Ended::Finished(report)) => ending::judge(failed, report),
                Ok(Ended::Unfinished { report, next }) => {
                    let next = Continuation { handed_on_at: Some(Timestamp::now()), ..next };
                    let event = Event { continuation: Some(next), ..event };
                    let handing_on = hand_on::to_next(&self.lambda, &alias_arn, &event);
                    let handed_on = call.deadline.to_hand_on(handing_on).await;
                    let handed_on = handed_on.unwrap_or_else(|| Err(hand_on::out_of_time()));
                    ending::judge_hop(failed, report, event.hop(), handed_on)
                }
                Err(failure) => Err(ending::aborted(failed, &run, &failure)),
            }
        };
        serve.instrument(span).await
    }
}

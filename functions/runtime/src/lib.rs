//! What both Lambda functions wire the same way: settings, clock, logging, the EC2 client, and how a run ends.
//!
//! A function is a type of settings, a type of report, and an async function from [`Invocation`] to that report.
//! [`run`] does the rest, so that both refuse, log and fail alike.

mod client;
mod clock;
mod deadline;
pub mod ec2;
mod ending;
pub mod inventory;
mod log;
mod pace;
mod settings;

use std::time::SystemTime;

use aws_sdk_ec2::Client;
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::de::DeserializeOwned;
use serde_json::Value;
use snapwarden_domain::event::{Clock, Event};
use snapwarden_domain::report::{Failure, Report};
use tokio::time::Instant;

pub use crate::deadline::Deadline;
pub use crate::pace::Pace;

/// Everything that one invocation works with.
pub struct Invocation<S> {
    /// The function's settings.
    pub settings: S,
    /// What it was invoked with.
    pub event: Event,
    /// The run's clock, checked against the real one.
    pub clock: Clock,
    /// EC2.
    pub ec2: Client,
    /// Whether an emulator on this host answers in EC2's place.
    pub is_emulated: bool,
    /// When to stop starting anything.
    pub deadline: Deadline,
    /// When the invocation started.
    pub started: Instant,
}

impl<S> Invocation<S> {
    /// How long the invocation has been going, for its report.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Serves a function's invocations until Lambda ends the process.
///
/// `work` returns an error where there is nothing to report on. Such a run, and a run whose report has failures,
/// ends as a function error of the type `failed`, since that is what Lambda retries and alarms see.
pub async fn run<S, R, F, Fut>(failed: &'static str, work: F) -> Result<(), lambda_runtime::Error>
where
    S: DeserializeOwned,
    R: Report,
    F: Fn(Invocation<S>) -> Fut,
    Fut: Future<Output = Result<R, Failure>>,
{
    log::init();
    let ec2 = client::ec2().await;
    let (ec2, work) = (&ec2, &work);
    lambda_runtime::run(service_fn(move |request: LambdaEvent<Value>| async move {
        let (event, context) = request.into_parts();
        let deadline = Deadline::of(context.deadline(), SystemTime::now());
        serve(failed, event, deadline, ec2.clone(), work).await.inspect_err(ending::log)
    }))
    .await
}

async fn serve<S, R, F, Fut>(
    failed: &'static str,
    event: Value,
    deadline: Deadline,
    ec2: Client,
    work: F,
) -> Result<R, Diagnostic>
where
    S: DeserializeOwned,
    R: Report,
    F: Fn(Invocation<S>) -> Fut,
    Fut: Future<Output = Result<R, Failure>>,
{
    let variable = |name: &str| std::env::var(name).ok();
    // Settings are read here rather than at start, where Lambda would report only that the process exited.
    let settings = settings::read(variable).map_err(|error| ending::refused("InvalidSettings", error))?;
    let event = Event::from_json(event).map_err(|error| ending::refused("InvalidEvent", error))?;
    let endpoint = clock::ec2_endpoint(variable);
    let is_emulated = endpoint.as_deref().is_some_and(clock::is_loopback);
    let clock = clock::of(&event, Timestamp::now(), endpoint.as_deref())
        .map_err(|error| ending::refused("InvalidEvent", error))?;

    let run = event.run();
    tracing::info!(%run, dry_run = event.dry_run, "run started");
    let invocation =
        Invocation { settings, event, clock, ec2, is_emulated, deadline, started: Instant::now() };
    match work(invocation).await {
        Ok(report) => ending::judge(failed, report),
        Err(failure) => Err(ending::aborted(failed, &run, &failure)),
    }
}

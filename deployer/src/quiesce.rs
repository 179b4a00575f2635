//! Keeps new runs from starting, and waits for those in flight: what a run makes while everything is being deleted
//! would be left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::apply::Guard;
use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};
use crate::kinds::{Alias, Kind, LambdaFunction, Schedule, StepError, alias_name, read};
use crate::rights::{Resources, Right};
use crate::scope::{Function, Scope};
use crate::world::{Desired, Observed, ResourceId};

/// Everything as it is, but without schedules, and with functions that do not start: no retry of Lambda's either.
/// Deleting a schedule takes less than disabling it, which EventBridge Scheduler refuses where anything about it is
/// wrong.
pub fn halted(observed: &Observed) -> Desired {
    let stays = observed.iter().filter(|(id, _)| id.kind != Schedule::NAME);
    let mut desired: Desired = stays.map(|(id, found)| (id.clone(), found.properties.clone())).collect();
    for (_, wanted) in desired.iter_mut().filter(|(id, _)| id.kind == LambdaFunction::NAME) {
        wanted["reserved_concurrency"] = 0.into();
    }
    desired
}

/// What it takes to see runs end.
pub const RIGHTS: &[Right] = &[Right::on(Resources::LogGroupContents, "logs:FilterLogEvents")];

/// How long CloudWatch Logs may take to show that a run has begun.
const LOG_LAG: Duration = Duration::from_secs(10);

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// Waits until no invocation is in flight, as the functions' logs tell, or none can be any more since its time is over.
/// What one of them hands on to another invocation does not start any more.
///
/// Returns how many it saw end. `guard` may end the waiting; `tell` hears how many are still in flight, with the time
/// waited so far.
pub async fn wait_for_runs(
    aws: &Aws,
    scope: &Scope,
    observed: &Observed,
    now: Timestamp,
    guard: &dyn Guard,
    tell: &dyn Fn(Option<usize>, Duration),
) -> Result<usize, StepError> {
    let started = Instant::now();
    let mut seen = BTreeSet::new();
    for function in Function::ALL {
        let Some(timeout) = timeout_of(observed, scope, function) else { continue };
        let since = now.checked_sub(timeout).unwrap_or(now);
        loop {
            guard.check().await.map_err(|halt| StepError::Halted(halt.0))?;
            let open = in_flight(aws, &scope.log_group(function), since).await?;
            let waited = started.elapsed();
            let none = open.as_ref().is_some_and(BTreeSet::is_empty);
            if waited >= timeout + LOG_LAG || (none && waited >= LOG_LAG) {
                break;
            }
            tell(open.as_ref().map(BTreeSet::len), waited);
            seen.extend(open.into_iter().flatten());
            sleep(LOOK).await;
        }
    }
    Ok(seen.len())
}

/// How long an invocation of a function may take, the released version or another; `None` where there is no function.
fn timeout_of(observed: &Observed, scope: &Scope, function: Function) -> Option<Duration> {
    let id = ResourceId::new(LambdaFunction::NAME, scope.function(function));
    let latest = read::<LambdaFunction>(observed.get(&id)?).ok()?.properties.timeout();
    let alias = observed.get(&ResourceId::new(Alias::NAME, alias_name(scope, function)));
    let released = alias.and_then(|alias| Some(read::<Alias>(alias).ok()?.properties.serves.timeout()));
    Some(released.map_or(latest, |released| released.max(latest)))
}

/// The invocations that have begun since then and not ended; `None` where there is no log to tell.
async fn in_flight(
    aws: &Aws,
    log_group: &str,
    since: Timestamp,
) -> Result<Option<BTreeSet<String>>, AwsError> {
    let call = aws.logs.filter_log_events().log_group_name(log_group).start_time(since.as_millisecond());
    let mut pages = call.filter_pattern(PATTERN).into_paginator().send();
    let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
    while let Some(page) = pages.next().await {
        let Some(page) = page.call("logs:FilterLogEvents").or_absent()? else { return Ok(None) };
        for event in page.events.unwrap_or_default() {
            match event.message.as_deref().and_then(lifecycle) {
                Some(Lifecycle::Begun(id)) => drop(begun.insert(id)),
                Some(Lifecycle::Ended(id)) => drop(ended.insert(id)),
                None => {}
            }
        }
    }
    Ok(Some(begun.difference(&ended).cloned().collect()))
}

/// Lines of Lambda itself in both of its log formats.
const PATTERN: &str = r#"?"platform.start" ?"platform.report" ?"START RequestId" ?"REPORT RequestId""#;

#[derive(Debug, PartialEq, Eq)]
enum Lifecycle {
    Begun(String),
    Ended(String),
}

/// What a line of Lambda's says about an invocation (source: AWS Lambda Developer Guide, "Log formats").
fn lifecycle(line: &str) -> Option<Lifecycle> {
    if let Ok(json) = serde_json::from_str::<Value>(line) {
        let id = json.get("record")?.get("requestId")?.as_str()?.to_owned();
        return match json.get("type")?.as_str()? {
            "platform.start" => Some(Lifecycle::Begun(id)),
            "platform.report" => Some(Lifecycle::Ended(id)),
            _ => None,
        };
    }
    let id = |rest: &str| rest.split_whitespace().next().map(str::to_owned);
    if let Some(rest) = line.strip_prefix("START RequestId: ") {
        return id(rest).map(Lifecycle::Begun);
    }
    line.strip_prefix("REPORT RequestId: ").and_then(id).map(Lifecycle::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that is taken for over makes a snapshot that nobody deletes.
    #[test]
    fn both_of_lambdas_log_formats_tell_when_a_run_begins_and_ends() {
        let begun = Some(Lifecycle::Begun("a-1".to_owned()));
        let ended = Some(Lifecycle::Ended("a-1".to_owned()));
        for (line, says) in [
            (r#"{"time":"t","type":"platform.start","record":{"requestId":"a-1","version":"1"}}"#, &begun),
            (
                r#"{"time":"t","type":"platform.report","record":{"requestId":"a-1","status":"success"}}"#,
                &ended,
            ),
            ("START RequestId: a-1 Version: 1\n", &begun),
            ("REPORT RequestId: a-1\tDuration: 3 ms", &ended),
            (r#"{"level":"INFO","message":"platform.start"}"#, &None),
            ("anything else", &None),
        ] {
            assert_eq!(lifecycle(line), *says, "{line}");
        }
    }
}

//! Follows what CloudFormation does with a stack: its events are our progress, and its end is our result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudformation::types::StackEvent;
use tokio::time::{Instant, sleep};

use super::change_set::named;
use super::stack::{self, LIMIT, Stack, State};
use crate::apply::{Guard, Halt};
use crate::error::{AwsError, Call};
use crate::event::Event;
use crate::kinds::Context;
use crate::plan::Verb;
use crate::world::ResourceId;

/// How a change of a stack ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The stack afterwards; `None` where it is gone.
    pub stack: Option<Stack>,
    /// What failed, in the order in which it did, and why. What failed only because something else did is left out.
    pub failures: Vec<(ResourceId, String)>,
    /// Why nobody waited for the end: CloudFormation goes on.
    pub halted: Option<String>,
}

/// What one event says, as far as people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Started(Verb),
    Done(Verb),
    Failed(Verb, String),
}

/// For a while after it was told to change a stack, CloudFormation may still show it as it was: only an event of this very
/// change says that it has begun.
const UNTIL_BEGUN: Duration = Duration::from_mins(2);

/// Between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tells of everything that happens to the stack because of `token`, until nothing happens any more.
pub async fn follow(
    cx: &Context,
    stack: &str,
    token: &str,
    names: &BTreeMap<String, ResourceId>,
    guard: &dyn Guard,
) -> Result<Ended, AwsError> {
    let asked = Instant::now();
    let mut begun = false;
    let mut pause = FIRST_PAUSE;
    let mut watch = Watch { names, seen: BTreeSet::new(), running: BTreeMap::new(), failures: Vec::new() };
    loop {
        let now = stack::describe(cx, stack).await?;
        // After the state, so that its last event is among them.
        for event in events(cx, stack, token).await? {
            begun = true;
            watch.take(cx, &event);
        }
        let stands_still = |stack: &Stack| begun && !matches!(stack.state(), State::Busy | State::InReview);
        let over = now.as_ref().is_none_or(stands_still);
        let halted = if over { None } else { guard.check().await.err().map(|Halt(why)| why) };
        let late = match asked.elapsed() {
            elapsed if elapsed > LIMIT => Some("CloudFormation takes more than an hour"),
            elapsed if elapsed > UNTIL_BEGUN && !begun => {
                Some("CloudFormation shows no sign of having begun")
            }
            _ => None,
        };
        let halted = halted.or(late.filter(|_| !over).map(str::to_owned));
        if over || halted.is_some() {
            let stack = now.filter(|stack| stack.state() != State::Gone);
            return Ok(Ended { stack, failures: watch.failures, halted });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The events of one operation, the oldest first.
async fn events(cx: &Context, stack: &str, token: &str) -> Result<Vec<StackEvent>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call = cx.aws.cloudformation.describe_stack_events().stack_name(stack).set_next_token(next);
        let page = match call.send().await.call("cloudformation:DescribeStackEvents") {
            Err(error) if stack::is_absent(&error) => break,
            answer => answer?,
        };
        let events = page.stack_events.unwrap_or_default();
        // The newest come first: what is older than the operation is another's.
        let ours = events.iter().take_while(|event| event.client_request_token() == Some(token)).count();
        let whole = ours == events.len();
        all.extend(events.into_iter().take(ours));
        next = page.next_token.filter(|token| !token.is_empty() && whole);
        if next.is_none() {
            break;
        }
    }
    all.reverse();
    Ok(all)
}

struct Watch<'a> {
    names: &'a BTreeMap<String, ResourceId>,
    seen: BTreeSet<String>,
    running: BTreeMap<ResourceId, (Verb, Instant)>,
    failures: Vec<(ResourceId, String)>,
}

impl Watch<'_> {
    fn take(&mut self, cx: &Context, event: &StackEvent) {
        let is_the_stack = event.physical_resource_id() == event.stack_id();
        if is_the_stack || !self.seen.insert(event.event_id().unwrap_or_default().to_owned()) {
            return;
        }
        let logical = event.logical_resource_id().unwrap_or_default();
        let resource = named(self.names, logical, event.resource_type(), event.physical_resource_id());
        let status = event.resource_status().map_or("", |status| status.as_str());
        let of_resource = cx.for_resource(&resource);
        match told(status, event.resource_status_reason().unwrap_or_default()) {
            Some(Told::Started(verb)) => {
                let before = self.running.insert(resource, (verb, Instant::now()));
                // CloudFormation says it twice: when it begins, and when it knows what it has begun.
                if before.is_none() {
                    of_resource.tell(|resource| Event::Started { resource, verb });
                }
            }
            Some(Told::Done(verb)) => {
                let took =
                    self.running.remove(&resource).map(|(_, since)| since.elapsed()).unwrap_or_default();
                of_resource.tell(|resource| Event::Done { resource, verb, took });
            }
            Some(Told::Failed(verb, error)) => {
                self.running.remove(&resource);
                if !is_cancelled(&error) {
                    self.failures.push((resource, error.clone()));
                }
                of_resource.tell(|resource| Event::Failed { resource, verb, error });
            }
            None => {}
        }
    }
}

/// What a resource's status means (source: CloudFormation User Guide, "Stack event status codes"). Pure.
fn told(status: &str, reason: &str) -> Option<Told> {
    let (what, how) = [("_IN_PROGRESS", 0), ("_COMPLETE", 1), ("_FAILED", 2)]
        .into_iter()
        .find_map(|(end, how)| Some((status.strip_suffix(end)?, how)))?;
    let verb = match what {
        "CREATE" => Verb::Create,
        "DELETE" => Verb::Delete,
        _ => Verb::Update,
    };
    Some(match how {
        0 => Told::Started(verb),
        1 => Told::Done(verb),
        _ => Told::Failed(
            verb,
            if reason.is_empty() { "CloudFormation gives no reason" } else { reason }.to_owned(),
        ),
    })
}

/// What CloudFormation stopped because something else had failed explains nothing.
fn is_cancelled(reason: &str) -> bool {
    reason.contains("cancelled")
}

//! Does what a plan says, and nothing else.
//!
//! Steps run side by side as far as [`Kind::needs`](crate::kinds::Kind::needs) allows. What a release needs and what
//! makes it live have a part that comes first: rights are widened and versions tried before any alias moves, and rights
//! narrowed after. After a failure nothing new
//! begins, what runs is waited for, and the report says of every step whether it was done, failed or not attempted.
//! All steps can be repeated, so the way out of any failure is to run the command again.

use std::cmp::Reverse;
use std::fmt;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use crate::error::ErrorClass;
use crate::event::Event;
use crate::kinds::{AnyKind, Context, Registry, StepError};
use crate::plan::{Order, Plan, Step, Verb};
use crate::property::compare;
use crate::release::canary::Canary;
use crate::world::{Found, ResourceId};

/// What became of a plan.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every step that was to do something, in the order of the plan.
    pub steps: Vec<StepReport>,
    /// Why nothing new was begun, where no step's failure is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
}

/// What became of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its resource.
    #[serde(flatten)]
    pub resource: ResourceId,
    /// What it was to do.
    pub verb: Verb,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How the version did that it makes live, where it makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// AWS has confirmed it.
    Done,
    /// It failed.
    Failed {
        /// Why, for people.
        error: String,
        /// What to do about it, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// What has to come before the release goes live was done, and the rest not begun, because another step had failed.
    Prepared,
    /// It was not begun, because another step had failed.
    NotAttempted,
}

impl Report {
    /// Whether every step was done.
    pub fn succeeded(&self) -> bool {
        self.steps.iter().all(|step| step.outcome == Outcome::Done)
    }
}

/// Asked before every step whether it may still begin.
#[async_trait(?Send)]
pub trait Guard {
    /// An error ends the work: nothing new begins.
    async fn check(&self) -> Result<(), Halt>;
}

/// Why nothing new may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt(pub String);

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many steps run at once: IAM takes few changes a second.
const PARALLEL: usize = 8;

/// Carries out a plan: first what is made and changed, then what is deleted, each as soon as what it needs, or what
/// needs it, is done.
pub async fn apply(registry: Registry, cx: &Context, plan: &Plan, guard: &dyn Guard) -> Report {
    let tasks = tasks(registry, plan);
    let after = predecessors(registry, cx, plan, &tasks);
    let mut done = vec![false; tasks.len()];
    let mut outcomes: Vec<Option<Outcome>> = vec![None; plan.steps.len()];
    let mut canaries: Vec<Option<Canary>> = vec![None; plan.steps.len()];
    let mut halted = None;
    let mut waiting: Vec<usize> = (0..tasks.len()).collect();
    let hanging = hanging(&after);
    waiting.sort_by_key(|task| Reverse(hanging[*task]));
    let mut running = FuturesUnordered::new();
    loop {
        let is_ready = |task: &usize| after[*task].iter().all(|before| done[*before]);
        let ready: Vec<usize> =
            waiting.iter().copied().filter(is_ready).take(PARALLEL.saturating_sub(running.len())).collect();
        for task in ready {
            waiting.retain(|other| *other != task);
            let Task { step, part } = tasks[task];
            let of_plan = &plan.steps[step];
            running.push(async move {
                match guard.check().await {
                    Ok(()) => {
                        (task, run(registry, &cx.for_resource(&of_plan.resource), of_plan, part).await, None)
                    }
                    Err(halt) => (task, (Outcome::NotAttempted, None), Some(halt.0)),
                }
            });
        }
        let Some((task, (outcome, canary), halt)) = running.next().await else { break };
        let Task { step, part } = tasks[task];
        done[task] = outcome == Outcome::Done;
        if !done[task] {
            waiting.clear();
        }
        halted = halted.or(halt);
        canaries[step] = canaries[step].take().or(canary);
        outcomes[step] = match (outcome, part) {
            (Outcome::Done, Part::First) => Some(Outcome::Prepared),
            // What was prepared is not undone by its second part not having begun.
            (Outcome::NotAttempted, Part::Whole) => outcomes[step].take(),
            (outcome, _) => Some(outcome),
        };
    }
    drop(running);
    let steps = plan.steps.iter().zip(outcomes).zip(canaries);
    let steps = steps.filter(|((step, _), _)| step.verb != Verb::Keep);
    let steps = steps.map(|((step, outcome), canary)| StepReport {
        resource: step.resource.clone(),
        verb: step.verb,
        outcome: outcome.unwrap_or(Outcome::NotAttempted),
        canary,
    });
    Report { steps: steps.collect(), halted }
}

/// A piece of work: a step of the plan, or the part of it that comes before the release goes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    step: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// To the interim state, or the rehearsal.
    First,
    /// All of it, or what remains.
    Whole,
}

fn tasks(registry: Registry, plan: &Plan) -> Vec<Task> {
    let pending = (0..plan.steps.len()).filter(|step| plan.steps[*step].verb != Verb::Keep);
    pending
        .flat_map(|step| {
            let first = plan.steps[step].interim.is_some() || is_rehearsed(registry, &plan.steps[step]);
            let first = first.then_some(Task { step, part: Part::First });
            first.into_iter().chain([Task { step, part: Part::Whole }])
        })
        .collect()
}

fn is_rehearsed(registry: Registry, step: &Step) -> bool {
    let kind = registry.get(&step.resource.kind);
    step.verb != Verb::Delete && kind.is_some_and(AnyKind::is_rehearsed)
}

/// For each task the indices of those that must be done before it. A change waits for what it needs, or for that to be
/// in its interim state, and what is rehearsed for all rehearsals. What leaves an interim state waits for the release,
/// and a deletion for all changes and for the deletion of what needs it.
fn predecessors(registry: Registry, cx: &Context, plan: &Plan, tasks: &[Task]) -> Vec<Vec<usize>> {
    let deletes = |step: &Step| step.verb == Verb::Delete;
    let needs: Vec<_> = plan.steps.iter().map(|step| registry.needs(&step.resource, &cx.scope)).collect();
    let released_with = |step: &Step| registry.released_with(&step.resource, &cx.scope);
    let precedes = |task: Task, other: Task| {
        let (step, before) = (&plan.steps[task.step], &plan.steps[other.step]);
        if task.step == other.step {
            return (task.part, other.part) == (Part::Whole, Part::First);
        }
        match (deletes(step), deletes(before)) {
            (false, false) => {
                // What is in its interim state serves both releases.
                let enough = if before.interim.is_some() { Part::First } else { Part::Whole };
                let needed = needs[task.step].contains(&before.resource)
                    // Also where what stands between the two is kept, as in a return to an earlier release.
                    || released_with(before).as_ref() == Some(&step.resource);
                let rehearsal = (task.part, other.part) == (Part::Whole, Part::First)
                    && is_rehearsed(registry, step)
                    && is_rehearsed(registry, before);
                let release = (task.part, other.part) == (Part::Whole, Part::Whole)
                    && step.interim.is_some()
                    && released_with(step).as_ref() == Some(&before.resource);
                needed && other.part == enough || rehearsal || release
            }
            (true, false) => true,
            (true, true) => needs[other.step].contains(&step.resource),
            (false, true) => false,
        }
    };
    let of = |task: Task| (0..tasks.len()).filter(|other| precedes(task, tasks[*other])).collect();
    tasks.iter().map(|task| of(*task)).collect()
}

/// For each task how many come after it, one after the other: what most hangs on begins first.
fn hanging(after: &[Vec<usize>]) -> Vec<usize> {
    let mut hanging = vec![0; after.len()];
    // No chain has more links than there are tasks.
    for _ in after {
        let before = hanging.clone();
        for (task, predecessors) in after.iter().enumerate() {
            for predecessor in predecessors {
                hanging[*predecessor] = hanging[*predecessor].max(hanging[task] + 1);
            }
        }
        if hanging == before {
            break;
        }
    }
    hanging
}

async fn run(registry: Registry, cx: &Context, step: &Step, part: Part) -> (Outcome, Option<Canary>) {
    let verb = step.verb;
    let started = Instant::now();
    cx.tell(|resource| Event::Started { resource, verb });
    let result = match (registry.get(&step.resource.kind), part) {
        (Some(kind), Part::First) => prepare(kind, cx, step).await,
        (Some(kind), Part::Whole) => carry_out(kind, cx, step).await.map(|()| None),
        (None, _) => Err(StepError::Malformed(format!("there is no kind `{}`", step.resource.kind))),
    };
    match result {
        Ok(canary) => {
            let took = started.elapsed();
            cx.tell(|resource| match part {
                Part::First => Event::Prepared { resource, verb, canary: canary.clone() },
                Part::Whole => Event::Done { resource, verb, took },
            });
            (Outcome::Done, canary)
        }
        Err(error) => {
            let hint =
                if let StepError::Aws(error) = &error { error.hint().map(str::to_owned) } else { None };
            cx.tell(|resource| Event::Failed { resource, verb, error: error.to_string() });
            (Outcome::Failed { error: error.to_string(), hint }, None)
        }
    }
}

/// What has to be done before the release goes live.
async fn prepare(kind: &dyn AnyKind, cx: &Context, step: &Step) -> Result<Option<Canary>, StepError> {
    let (name, found) = (&step.resource.name, step.found.as_ref());
    if let (Some(interim), Some(found)) = (&step.interim, found)
        // After an interruption it is in that state already.
        && !compare(interim, &found.properties).is_empty()
    {
        kind.update(cx, name, found, interim).await?;
    }
    match &step.wanted {
        Some(wanted) if kind.is_rehearsed() => kind.rehearse(cx, name, found, wanted).await,
        _ => Ok(None),
    }
}

async fn carry_out(kind: &dyn AnyKind, cx: &Context, step: &Step) -> Result<(), StepError> {
    let name = &step.resource.name;
    match (step.verb, &step.wanted, &step.found) {
        (Verb::Create, Some(wanted), _) => create(kind, cx, name, wanted).await,
        (Verb::Update, Some(wanted), Some(found)) => {
            let now =
                step.interim.as_ref().map(|interim| Found { properties: interim.clone(), ..found.clone() });
            kind.update(cx, name, now.as_ref().unwrap_or(found), wanted).await
        }
        (Verb::Replace, Some(wanted), Some(found)) => {
            kind.delete(cx, name, found).await?;
            create(kind, cx, name, wanted).await
        }
        (Verb::Delete, _, Some(found)) => kind.delete(cx, name, found).await,
        (Verb::Keep, _, _) => Ok(()),
        _ => Err(StepError::Malformed(format!("the step for {} lacks what it should do", step.resource))),
    }
}

async fn create(
    kind: &dyn AnyKind,
    cx: &Context,
    name: &str,
    wanted: &serde_json::Value,
) -> Result<(), StepError> {
    match kind.create(cx, name, wanted).await {
        Err(StepError::Aws(error)) if error.class == ErrorClass::AlreadyExists => {
            // The SDK repeats a call whose answer was lost, so this may be what we just made.
            finish_creation(kind, cx, name, wanted).await?.ok_or(StepError::Aws(error))
        }
        result => result,
    }
}

/// Brings a resource that exists after all to what is wanted; `None` when it is not ours.
async fn finish_creation(
    kind: &dyn AnyKind,
    cx: &Context,
    name: &str,
    wanted: &serde_json::Value,
) -> Result<Option<()>, StepError> {
    let found = kind.observe(cx).await?.into_iter().find(|(found, _)| found == name);
    let Some((_, found)) = found else { return Ok(None) };
    // What carries no tags belongs to its parent, which is made or checked before it.
    if !found.tags.as_ref().is_none_or(|tags| cx.scope.owns(tags)) {
        return Ok(None);
    }
    if !compare(wanted, &found.properties).is_empty() {
        kind.update(cx, name, &found, wanted).await?;
    }
    Ok(Some(()))
}

#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod tests;

//! Does what a plan says, and nothing else.
//!
//! Steps run side by side as far as [`Kind::needs`](crate::kinds::Kind::needs) allows. After a failure nothing new
//! begins, what runs is waited for, and the report says of every step whether it was done, failed or not attempted.
//! All steps can be repeated, so the way out of any failure is to run the command again.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use crate::error::ErrorClass;
use crate::event::Event;
use crate::kinds::{AnyKind, Context, Registry, StepError};
use crate::plan::{Plan, Step, Verb};
use crate::property::compare;
use crate::world::ResourceId;

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
    let mut outcomes: Vec<Option<Outcome>> = vec![None; plan.steps.len()];
    let mut halted = None;
    let after = predecessors(registry, cx, plan);
    let mut waiting: BTreeSet<usize> =
        (0..plan.steps.len()).filter(|index| plan.steps[*index].verb != Verb::Keep).collect();
    let mut running = FuturesUnordered::new();
    loop {
        let is_ready = |index: &usize| after[*index].iter().all(|before| outcomes[*before].is_some());
        let ready: Vec<usize> =
            waiting.iter().copied().filter(is_ready).take(PARALLEL.saturating_sub(running.len())).collect();
        for index in ready {
            waiting.remove(&index);
            let step = &plan.steps[index];
            running.push(async move {
                match guard.check().await {
                    Ok(()) => (index, run(registry, &cx.for_resource(&step.resource), step).await, None),
                    Err(halt) => (index, Outcome::NotAttempted, Some(halt.0)),
                }
            });
        }
        let Some((index, outcome, halt)) = running.next().await else { break };
        if outcome != Outcome::Done {
            waiting.clear();
        }
        halted = halted.or(halt);
        outcomes[index] = Some(outcome);
    }
    drop(running);
    let steps = plan.steps.iter().zip(outcomes).filter(|(step, _)| step.verb != Verb::Keep);
    let steps = steps.map(|(step, outcome)| StepReport {
        resource: step.resource.clone(),
        verb: step.verb,
        outcome: outcome.unwrap_or(Outcome::NotAttempted),
    });
    Report { steps: steps.collect(), halted }
}

/// For each step the indices of those that must be done before it: a change waits for what it needs, a deletion for
/// all changes and for the deletion of what needs it.
fn predecessors(registry: Registry, cx: &Context, plan: &Plan) -> Vec<Vec<usize>> {
    let deletes = |step: &Step| step.verb == Verb::Delete;
    let needs: Vec<_> = plan.steps.iter().map(|step| registry.needs(&step.resource, &cx.scope)).collect();
    let precedes = |index: usize, other: usize| {
        let (step, before) = (&plan.steps[index], &plan.steps[other]);
        match (deletes(step), deletes(before)) {
            (false, false) => needs[index].contains(&before.resource),
            (true, false) => true,
            (true, true) => needs[other].contains(&step.resource),
            (false, true) => false,
        }
    };
    let pending = |index: &usize| plan.steps[*index].verb != Verb::Keep;
    let all = 0..plan.steps.len();
    all.clone()
        .map(|index| all.clone().filter(pending).filter(|other| precedes(index, *other)).collect())
        .collect()
}

async fn run(registry: Registry, cx: &Context, step: &Step) -> Outcome {
    let verb = step.verb;
    let started = Instant::now();
    cx.tell(|resource| Event::Started { resource, verb });
    let result = match registry.get(&step.resource.kind) {
        Some(kind) => carry_out(kind, cx, step).await,
        None => Err(StepError::Malformed(format!("there is no kind `{}`", step.resource.kind))),
    };
    match result {
        Ok(()) => {
            cx.tell(|resource| Event::Done { resource, verb, took: started.elapsed() });
            Outcome::Done
        }
        Err(error) => {
            let hint =
                if let StepError::Aws(error) = &error { error.hint().map(str::to_owned) } else { None };
            cx.tell(|resource| Event::Failed { resource, verb, error: error.to_string() });
            Outcome::Failed { error: error.to_string(), hint }
        }
    }
}

async fn carry_out(kind: &dyn AnyKind, cx: &Context, step: &Step) -> Result<(), StepError> {
    let name = &step.resource.name;
    match (step.verb, &step.wanted, &step.found) {
        (Verb::Create, Some(wanted), _) => create(kind, cx, name, wanted).await,
        (Verb::Update, Some(wanted), Some(found)) => kind.update(cx, name, found, wanted).await,
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
mod tests;

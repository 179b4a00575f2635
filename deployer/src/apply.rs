//! Does what a plan says, and nothing else.
//!
//! Steps of one tier run side by side. After a failure nothing new begins, what runs is waited for, and the report
//! says of every step whether it was done, failed or not attempted. All steps can be repeated, so the way out of any
//! failure is to run the command again.

use futures::stream::{self, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use crate::error::ErrorClass;
use crate::event::Event;
use crate::kinds::{AnyKind, Context, Registry, StepError};
use crate::plan::{Plan, Step, Verb};
use crate::property::compare;
use crate::world::ResourceId;

/// What became of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every step that was to do something, in the order of the plan.
    pub steps: Vec<StepReport>,
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

/// How many steps of a tier run at once; a tier holds a handful.
const PARALLEL: usize = 8;

/// Carries out a plan: first what is made and changed, parents before children; then what is deleted, children first.
pub async fn apply(registry: Registry, cx: &Context, plan: &Plan) -> Report {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; plan.steps.len()];
    let mut failed = false;
    for wave in waves(registry, plan) {
        let running = stream::iter(wave).map(|index| async move {
            let step = &plan.steps[index];
            (index, run(registry, &cx.for_resource(&step.resource), step).await)
        });
        let mut running = running.buffer_unordered(PARALLEL);
        while let Some((index, outcome)) = running.next().await {
            failed |= outcome != Outcome::Done;
            outcomes[index] = Some(outcome);
        }
        if failed {
            break;
        }
    }
    let steps = plan.steps.iter().zip(outcomes).filter(|(step, _)| step.verb != Verb::Keep);
    let steps = steps.map(|(step, outcome)| StepReport {
        resource: step.resource.clone(),
        verb: step.verb,
        outcome: outcome.unwrap_or(Outcome::NotAttempted),
    });
    Report { steps: steps.collect() }
}

/// The steps' indices, grouped by what may run side by side.
fn waves(registry: Registry, plan: &Plan) -> Vec<Vec<usize>> {
    let tier_of =
        |step: &Step| registry.0.iter().position(|tier| tier.iter().any(|k| k.name() == step.resource.kind));
    let wave = |tier: usize, deletes: bool| -> Vec<usize> {
        let steps = plan.steps.iter().enumerate();
        steps
            .filter(|(_, step)| step.verb != Verb::Keep && (step.verb == Verb::Delete) == deletes)
            .filter(|(_, step)| tier_of(step) == Some(tier))
            .map(|(index, _)| index)
            .collect()
    };
    let tiers = 0..registry.0.len();
    let changes = tiers.clone().map(|tier| wave(tier, false));
    let deletions = tiers.rev().map(|tier| wave(tier, true));
    changes.chain(deletions).filter(|wave| !wave.is_empty()).collect()
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
        (Verb::Create, Some(wanted), _) => match kind.create(cx, name, wanted).await {
            Err(StepError::Aws(error)) if error.class == ErrorClass::AlreadyExists => {
                // The SDK repeats a call whose answer was lost, so this may be what we just made.
                finish_creation(kind, cx, name, wanted).await?.ok_or(StepError::Aws(error))
            }
            result => result,
        },
        (Verb::Update, Some(wanted), Some(found)) => kind.update(cx, name, found, wanted).await,
        (Verb::Delete, _, Some(found)) => kind.delete(cx, name, found).await,
        (Verb::Keep, _, _) => Ok(()),
        _ => Err(StepError::Malformed(format!("the step for {} lacks what it should do", step.resource))),
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
    // What carries no tags belongs to its parent, which an earlier tier has made or checked.
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

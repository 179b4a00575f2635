//! A plan being applied: its events as progress, and its outcome.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use snapwarden_deployer::apply::{Outcome, Report};
use snapwarden_deployer::event::{Event, Listener};
use snapwarden_deployer::plan::Verb;
use snapwarden_deployer::world::ResourceId;

use crate::progress::{Progress, Task};

/// Shows each step as a piece of work or, for programs, as lines of JSON.
pub(crate) fn listener(progress: &Progress) -> Listener {
    let progress = progress.clone();
    if progress.is_json() {
        return Arc::new(move |event| progress.event(&json_of(&event)));
    }
    let running: Mutex<BTreeMap<String, Task>> = Mutex::default();
    Arc::new(move |event| {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { resource, verb } => {
                let task = progress.start(format!("{} {resource}", doing(verb)));
                running.insert(resource.to_string(), task);
            }
            Event::Waiting { resource, reason, waited } => {
                if let Some(task) = running.get_mut(&resource.to_string()) {
                    task.wait(&format!("waiting for {reason}"), waited);
                }
            }
            Event::Prepared { resource, canary, .. } => {
                if let Some(task) = running.remove(&resource.to_string()) {
                    task.done(
                        &canary.map_or_else(
                            || "prepared for the release".to_owned(),
                            |canary| canary.to_string(),
                        ),
                    );
                }
            }
            Event::Done { resource, .. } => {
                if let Some(task) = running.remove(&resource.to_string()) {
                    task.done("");
                }
            }
            Event::Failed { resource, error, .. } => {
                if let Some(task) = running.remove(&resource.to_string()) {
                    task.done(&format!("FAILED: {error}"));
                }
            }
        }
    })
}

/// One line for a program: the step by its resource, and what became of it.
fn json_of(event: &Event) -> Value {
    let step = |state: &str, resource: &ResourceId, verb: Verb| json!({ "event": "step", "state": state, "kind": resource.kind, "name": resource.name, "verb": verb });
    let with = |mut line: Value, key: &str, value: Value| {
        line[key] = value;
        line
    };
    match event {
        Event::Started { resource, verb } => step("started", resource, *verb),
        Event::Waiting { resource, reason, waited } => json!({
            "event": "step", "state": "waiting", "kind": resource.kind, "name": resource.name,
            "reason": reason, "waited_seconds": waited.as_secs(),
        }),
        Event::Prepared { resource, verb, canary } => {
            with(step("prepared", resource, *verb), "canary", json!(canary))
        }
        Event::Done { resource, verb, took } => with(
            step("done", resource, *verb),
            "took_ms",
            json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        ),
        Event::Failed { resource, verb, error } => {
            with(step("failed", resource, *verb), "error", json!(error))
        }
    }
}

/// What was done, what failed and why, and what was not attempted.
pub(crate) fn failed(report: &Report) -> String {
    let count =
        |outcome: fn(&Outcome) -> bool| report.steps.iter().filter(|step| outcome(&step.outcome)).count();
    let done = count(|outcome| *outcome == Outcome::Done);
    let mut lines = Vec::new();
    for step in &report.steps {
        match &step.outcome {
            Outcome::Failed { error, hint } => {
                lines.push(format!("  failed: {} {}: {error}", infinitive(step.verb), step.resource));
                lines.extend(hint.iter().map(|hint| format!("    ({hint})")));
            }
            Outcome::NotAttempted => {
                lines.push(format!("  not attempted: {} {}", infinitive(step.verb), step.resource));
            }
            Outcome::Prepared => {
                lines.push(format!("  prepared only: {} {}", infinitive(step.verb), step.resource));
            }
            Outcome::Done => {}
        }
    }
    lines.extend(report.halted.iter().map(|halt| format!("  stopped: {halt}")));
    format!("{done} of {} steps were done\n{}", report.steps.len(), lines.join("\n"))
}

fn doing(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "creating",
        Verb::Update => "changing",
        Verb::Replace => "replacing",
        Verb::Delete => "deleting",
        Verb::Keep => "keeping",
    }
}

fn infinitive(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Update => "change",
        Verb::Replace => "replace",
        Verb::Delete => "delete",
        Verb::Keep => "keep",
    }
}

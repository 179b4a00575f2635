//! What is no longer as the stack's template says, in the form of our own plans.
//!
//! CloudFormation compares only what a template declares: a policy that somebody attached is seen, since the template says
//! that there is none, and a subnet that somebody tied a function to is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudformation::types::{
    StackDriftDetectionStatus, StackResourceDrift, StackResourceDriftStatus as Status,
};
use serde_json::Value;

use super::change_set::named;
use crate::error::{AwsError, Call};
use crate::kinds::{Context, Kind, Schedule, StepError};
use crate::plan::{Plan, Step, Verb};
use crate::property::compare;
use crate::wait;
use crate::world::{Observed, ResourceId};

/// What CloudFormation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// What would have to happen so that everything is as the template says.
    pub plan: Plan,
    /// What could not be looked at, and why; nothing is known of it.
    pub unknown: Vec<String>,
    /// Why CloudFormation did not look at everything that it could compare.
    pub failed: Option<String>,
}

/// How long CloudFormation may take to look at every resource.
const LIMIT: Duration = Duration::from_mins(15);

/// Has CloudFormation compare the stack with its template. Changes nothing.
///
/// `observed` is what there is: CloudFormation knows a schedule by its name alone and looks for it in the default group, so
/// that it takes for deleted what is in another one.
pub async fn detect(
    cx: &Context,
    names: &BTreeMap<String, ResourceId>,
    observed: &Observed,
) -> Result<Drift, StepError> {
    let stack = cx.scope.stack();
    let call = cx.aws.cloudformation.detect_stack_drift().stack_name(&stack);
    let answer = call.send().await.call("cloudformation:DetectStackDrift")?;
    let id = answer.stack_drift_detection_id.unwrap_or_default();
    let done = wait::until(cx, "CloudFormation to look at every resource", LIMIT, async || {
        let call = cx.aws.cloudformation.describe_stack_drift_detection_status();
        let answer = call.stack_drift_detection_id(&id).send().await;
        let answer = answer.call("cloudformation:DescribeStackDriftDetectionStatus")?;
        let runs = answer.detection_status == Some(StackDriftDetectionStatus::DetectionInProgress);
        Ok((!runs).then_some((answer.detection_status, answer.detection_status_reason)))
    })
    .await?;
    let Some((status, reason)) = done else {
        return Err(StepError::NotReady {
            what: "CloudFormation did not look at every resource",
            seconds: LIMIT.as_secs(),
            state: "it is still looking".to_owned(),
        });
    };
    let mut drift = of(&resources(cx, &stack).await?, names, observed);
    // What it could look at is worth showing all the same.
    if status == Some(StackDriftDetectionStatus::DetectionFailed) {
        drift.failed = Some(reason.unwrap_or_else(|| "CloudFormation gives no reason".to_owned()));
    }
    Ok(drift)
}

async fn resources(cx: &Context, stack: &str) -> Result<Vec<StackResourceDrift>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call =
            cx.aws.cloudformation.describe_stack_resource_drifts().stack_name(stack).set_next_token(next);
        let page = call.send().await.call("cloudformation:DescribeStackResourceDrifts")?;
        all.extend(page.stack_resource_drifts.unwrap_or_default());
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(all);
        }
    }
}

/// Pure.
fn of(resources: &[StackResourceDrift], names: &BTreeMap<String, ResourceId>, observed: &Observed) -> Drift {
    let mut drift = Drift::default();
    for resource in resources {
        let logical = resource.logical_resource_id().unwrap_or_default();
        let name = named(names, logical, resource.resource_type(), resource.physical_resource_id());
        let read = |text: Option<&str>| {
            text.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default()
        };
        let (expected, actual) = (read(resource.expected_properties()), read(resource.actual_properties()));
        match resource.stack_resource_drift_status() {
            Some(Status::Modified) => drift.plan.steps.push(Step {
                resource: name,
                verb: Verb::Update,
                changes: compare(&expected, &actual),
                wanted: None,
                interim: None,
                found: None,
            }),
            Some(Status::Deleted) if name.kind == Schedule::NAME && observed.contains_key(&name) => {
                drift.unknown.push(format!("{name}: CloudFormation looks for it in the default group"));
            }
            Some(Status::Deleted) => drift.plan.steps.push(Step {
                resource: name,
                verb: Verb::Create,
                changes: compare(&expected, &Value::Null),
                wanted: None,
                interim: None,
                found: None,
            }),
            Some(Status::InSync) => drift.plan.steps.push(Step {
                resource: name,
                verb: Verb::Keep,
                changes: Vec::new(),
                wanted: None,
                interim: None,
                found: None,
            }),
            _ => {
                let reason =
                    resource.drift_status_reason().unwrap_or("CloudFormation does not compare this type");
                drift.unknown.push(format!("{name}: {reason}"));
            }
        }
    }
    let looked_at: BTreeSet<&str> =
        resources.iter().map(|resource| resource.logical_resource_id().unwrap_or_default()).collect();
    let left_out = names.iter().filter(|(logical, _)| !looked_at.contains(logical.as_str()));
    drift.unknown.extend(left_out.map(|(_, name)| format!("{name}: CloudFormation did not look at it")));
    drift.plan.steps.sort_by(|a, b| a.resource.cmp(&b.resource));
    drift.unknown.sort();
    drift
}

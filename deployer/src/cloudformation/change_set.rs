//! A change set as a plan: made, read in our own form, executed exactly, or discarded.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_cloudformation::types::{
    Capability, ChangeAction, ChangeSetStatus, ChangeSetType, DeploymentMode, ExecutionStatus,
    OnStackFailure, Parameter, PolicyAction, Replacement, ResourceChange, ResourceToImport, Tag,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::Source;
use super::stack::{self, Stack, State, is_absent};
use super::template::Names;
use crate::error::{AwsError, Call, ErrorClass};
use crate::kinds::{Context, StepError};
use crate::plan::{Plan, Step, Verb};
use crate::property::{Change, compare};
use crate::wait;
use crate::world::ResourceId;

/// What a change set is made of.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What the template's resources are called.
    pub names: &'a Names,
    /// Where CloudFormation finds the template's text.
    pub source: Source,
    /// What the template's parameters are.
    pub parameters: Parameters,
    /// The tags of the stack itself.
    pub tags: BTreeMap<String, String>,
    /// The role that CloudFormation acts as.
    pub role: Option<String>,
    /// Take resources of those names into the stack instead of failing because they exist.
    pub adopt: bool,
    /// What comes into the stack as it is; then the template holds nothing else.
    pub import: Vec<ResourceToImport>,
    /// Put back what somebody changed by hand, where there is a stack (source: CloudFormation User Guide, "Using
    /// drift-aware change sets").
    pub reverts_drift: bool,
}

/// What the parameters of a template are.
#[derive(Clone, Debug)]
pub enum Parameters {
    /// These values.
    Given(BTreeMap<String, String>),
    /// What they are already: all that the template of the stack has.
    AsBefore(Vec<String>),
}

impl Parameters {
    fn all(self) -> Vec<Parameter> {
        let parameter = |name| Parameter::builder().parameter_key(name);
        match self {
            Self::Given(values) => {
                let given = |(name, value)| parameter(name).parameter_value(value).build();
                values.into_iter().map(given).collect()
            }
            Self::AsBefore(names) => {
                let before = |name| parameter(name).use_previous_value(true).build();
                names.into_iter().map(before).collect()
            }
        }
    }
}

/// A change set that can be executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeSet {
    /// Its ARN.
    pub id: String,
    /// The ARN of the stack that it changes.
    pub stack: String,
    /// Whether it makes the stack.
    pub creates: bool,
    /// Whether it leads to the last template, or to the one before the canaries; see [`super::stages`].
    pub is_last: bool,
    /// What it does, and what follows on it, in our own form.
    pub plan: Plan,
}

/// How long CloudFormation may take to work a change set out.
const LIMIT: Duration = Duration::from_mins(10);

/// Has CloudFormation work out what the template changes; `None` where it changes nothing.
pub async fn create(
    cx: &Context,
    request: Request<'_>,
    stack: Option<&Stack>,
) -> Result<Option<ChangeSet>, StepError> {
    let creates = stack.is_none_or(|stack| stack.state() == State::InReview);
    let name = format!("snapwarden-{:016x}", fastrand::u64(..));
    let call = cx.aws.cloudformation.create_change_set().stack_name(cx.scope.stack()).change_set_name(&name);
    let call = call.set_description(cx.release_note()).client_token(&name);
    let imports = !request.import.is_empty();
    let call = call.change_set_type(match creates {
        _ if imports => ChangeSetType::Import,
        true => ChangeSetType::Create,
        false => ChangeSetType::Update,
    });
    let call = call.set_resources_to_import(imports.then_some(request.import));
    let reverts = request.reverts_drift && !creates && !request.adopt && !imports;
    let call = call.set_deployment_mode(reverts.then_some(DeploymentMode::RevertDrift));
    // A stack that could not be made is of no use; but what was taken over must not go with it.
    let failure = if request.adopt { OnStackFailure::DoNothing } else { OnStackFailure::Delete };
    let call = call.set_on_stack_failure((creates && !imports).then_some(failure));
    let call = call
        .set_import_existing_resources(request.adopt.then_some(true))
        .capabilities(Capability::CapabilityNamedIam);
    let call = call.set_parameters(Some(request.parameters.all()));
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    // An import is refused that sets the stack's tags: the deploy that follows does it.
    let tags = (!imports).then(|| request.tags.into_iter().map(tag).collect());
    let call = call.set_tags(tags).set_role_arn(request.role);
    let call = match request.source {
        Source::Body(text) => call.template_body(text),
        Source::Url(url) => call.template_url(url),
    };
    let made = call.send().await.call("cloudformation:CreateChangeSet")?;
    let (id, stack) = (made.id.unwrap_or(name), made.stack_id.unwrap_or_default());
    let (status, reason) = until_worked_out(cx, &id).await?;
    if status == ChangeSetStatus::CreateComplete {
        let changes = changes(cx, &id).await?;
        let plan = plan(&changes, request.names);
        return Ok(Some(ChangeSet { id, stack, creates, is_last: true, plan }));
    }
    discard(cx, &id, creates.then_some(stack.as_str())).await?;
    if changes_nothing(&reason) { Ok(None) } else { Err(refused(reason)) }
}

/// A change set that was made before, if it can still be executed.
pub async fn is_executable(cx: &Context, id: &str) -> Result<bool, AwsError> {
    let answer = cx.aws.cloudformation.describe_change_set().change_set_name(id).send().await;
    match answer.call("cloudformation:DescribeChangeSet") {
        Err(error) if error.code.starts_with("ChangeSetNotFound") || is_absent(&error) => Ok(false),
        answer => Ok(answer?.execution_status == Some(ExecutionStatus::Available)),
    }
}

/// Begins to do exactly what the change set says; `token` marks what happens because of it.
pub async fn execute(cx: &Context, id: &str, token: &str) -> Result<(), AwsError> {
    let call = cx.aws.cloudformation.execute_change_set().change_set_name(id).client_request_token(token);
    call.send().await.call("cloudformation:ExecuteChangeSet").map(drop)
}

/// Deletes a change set that nobody wants to execute and, with `review`, the stack that was only made to hold it.
pub async fn discard(cx: &Context, id: &str, review: Option<&str>) -> Result<(), AwsError> {
    let call = cx.aws.cloudformation.delete_change_set().change_set_name(id);
    let deleted = call.send().await.call("cloudformation:DeleteChangeSet").map(drop);
    match deleted {
        Err(error) if error.class != ErrorClass::NotFound && !error.code.starts_with("ChangeSetNotFound") => {
            return Err(error);
        }
        _ => {}
    }
    // Without this, the next one would find a stack that never was. It may hold another's change set.
    let Some(stack) = review else { return Ok(()) };
    let others = cx.aws.cloudformation.list_change_sets().stack_name(cx.scope.stack()).send().await;
    let others = others.call("cloudformation:ListChangeSets")?.summaries.unwrap_or_default();
    // Once somebody has executed theirs it is a stack like any other, and their change set is listed no more.
    let holds_nothing =
        stack::describe(cx, stack).await?.is_some_and(|stack| stack.state() == State::InReview);
    if holds_nothing && others.iter().all(|other| other.change_set_id() == Some(id)) {
        let call = cx.aws.cloudformation.delete_stack().stack_name(stack);
        call.send().await.call("cloudformation:DeleteStack")?;
    }
    Ok(())
}

async fn until_worked_out(cx: &Context, id: &str) -> Result<(ChangeSetStatus, String), StepError> {
    let done = wait::until(cx, "CloudFormation to work out the changes", LIMIT, async || {
        let answer = cx.aws.cloudformation.describe_change_set().change_set_name(id).send().await;
        let answer = answer.call("cloudformation:DescribeChangeSet")?;
        let status = answer.status.unwrap_or(ChangeSetStatus::CreatePending);
        let pends = matches!(status, ChangeSetStatus::CreatePending | ChangeSetStatus::CreateInProgress);
        Ok((!pends).then(|| (status, answer.status_reason.unwrap_or_default())))
    })
    .await?;
    done.ok_or_else(|| StepError::NotReady {
        what: "CloudFormation did not work out the changes",
        seconds: LIMIT.as_secs(),
        state: "the change set is still being made".to_owned(),
    })
}

async fn changes(cx: &Context, id: &str) -> Result<Vec<ResourceChange>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call =
            cx.aws.cloudformation.describe_change_set().change_set_name(id).include_property_values(true);
        let page = call.set_next_token(next).send().await.call("cloudformation:DescribeChangeSet")?;
        all.extend(page.changes.unwrap_or_default().into_iter().filter_map(|change| change.resource_change));
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(all);
        }
    }
}

/// CloudFormation calls it a failure when there is nothing to do.
fn changes_nothing(reason: &str) -> bool {
    ["didn't contain changes", "No updates are to be performed"].iter().any(|text| reason.contains(text))
}

fn refused(reason: String) -> StepError {
    StepError::Failed { what: "CloudFormation cannot make these changes", state: reason }
}

/// The changes in the form of our own plans, in the order of the resources. Pure.
fn plan(changes: &[ResourceChange], names: &Names) -> Plan {
    let mut steps: Vec<Step> = changes.iter().map(|change| step(change, names)).collect();
    steps.sort_by(|a, b| a.resource.cmp(&b.resource));
    Plan { steps, left_alone: Vec::new() }
}

fn step(change: &ResourceChange, names: &Names) -> Step {
    let verb = match (change.action(), change.replacement()) {
        (Some(ChangeAction::Add), _) => Verb::Create,
        // It leaves the template and stays, as its deletion policy says.
        (Some(ChangeAction::Remove), _) if change.policy_action() == Some(&PolicyAction::Retain) => {
            Verb::Keep
        }
        (Some(ChangeAction::Remove), _) => Verb::Delete,
        (Some(ChangeAction::Modify), Some(Replacement::True)) => Verb::Replace,
        // Among them `Import`: taking a resource into the stack leaves it as it is, but changes whose it is.
        _ => Verb::Update,
    };
    let (before, after) = (properties(change.before_context()), properties(change.after_context()));
    let mut changes = match (before, after) {
        (None, None) => listed(change),
        (before, after) => compare(&after.unwrap_or_default(), &before.unwrap_or_default()),
    };
    if matches!(verb, Verb::Delete | Verb::Keep) {
        changes.clear();
    }
    if change.action() == Some(&ChangeAction::Import) {
        changes.push(Change {
            property: "stack".to_owned(),
            from: None,
            to: Some("taken over".to_owned()),
            why: Some("it exists, and CloudFormation takes it as it is".to_owned()),
        });
    }
    Step { resource: name(change, names), verb, changes, wanted: None, interim: None, found: None }
}

/// What we call a resource of the stack; what only an earlier template had goes by its physical ID.
fn name(change: &ResourceChange, names: &Names) -> ResourceId {
    let logical = change.logical_resource_id().unwrap_or_default();
    named(names, logical, change.resource_type(), change.physical_resource_id())
}

/// What we call a resource that CloudFormation names by its logical ID, its type and its physical ID.
pub(super) fn named(names: &Names, logical: &str, kind: Option<&str>, physical: Option<&str>) -> ResourceId {
    names.get(logical).cloned().unwrap_or_else(|| {
        let physical = physical.filter(|id| !id.is_empty());
        ResourceId::new(kind.unwrap_or("resource"), physical.unwrap_or(logical))
    })
}

/// The properties in what CloudFormation calls a resource's context.
fn properties(context: Option<&str>) -> Option<Value> {
    let context: Value = serde_json::from_str(context.filter(|text| !text.is_empty())?).ok()?;
    Some(context.get("Properties").cloned().unwrap_or(context))
}

/// The names of what changes, where CloudFormation gives no values.
fn listed(change: &ResourceChange) -> Vec<Change> {
    let mut all: Vec<Change> = change
        .details()
        .iter()
        .filter_map(|detail| detail.target())
        .map(|target| Change {
            property: target
                .path()
                .map(|path| path.trim_start_matches("/Properties/").replace('/', "."))
                .or_else(|| target.name().map(str::to_owned))
                .or_else(|| target.attribute().map(|attribute| attribute.as_str().to_owned()))
                .unwrap_or_default(),
            from: target.before_value().map(str::to_owned),
            to: target.after_value().map(str::to_owned),
            why: None,
        })
        .collect();
    all.sort_by(|a, b| a.property.cmp(&b.property));
    all.dedup();
    all
}

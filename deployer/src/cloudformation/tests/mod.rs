//! What the emulators cannot show: CloudFormation's answers to changes, failures and drift, with the SDK's own clients and
//! no network.

mod artifacts;
mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_cloudformation::operation::create_change_set::CreateChangeSetOutput;
use aws_sdk_cloudformation::operation::delete_change_set::DeleteChangeSetOutput;
use aws_sdk_cloudformation::operation::delete_stack::DeleteStackOutput;
use aws_sdk_cloudformation::operation::describe_change_set::DescribeChangeSetOutput;
use aws_sdk_cloudformation::operation::describe_stack_drift_detection_status::DescribeStackDriftDetectionStatusOutput;
use aws_sdk_cloudformation::operation::describe_stack_events::DescribeStackEventsOutput;
use aws_sdk_cloudformation::operation::describe_stack_resource_drifts::DescribeStackResourceDriftsOutput;
use aws_sdk_cloudformation::operation::describe_stacks::DescribeStacksOutput;
use aws_sdk_cloudformation::operation::detect_stack_drift::DetectStackDriftOutput;
use aws_sdk_cloudformation::operation::get_template::GetTemplateOutput;
use aws_sdk_cloudformation::operation::list_change_sets::ListChangeSetsOutput;
use aws_sdk_cloudformation::types::{
    Change, ChangeAction, ChangeSetStatus, ChangeSetSummary, ChangeSetType, DeploymentMode, OnStackFailure,
    Replacement, ResourceChange, ResourceStatus, ResourceToImport, StackDriftDetectionStatus,
    StackDriftStatus, StackEvent, StackResourceDrift, StackResourceDriftStatus, StackStatus, TemplateStage,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use serde_json::json;

use super::artifacts::Source;
use super::change_set::{self, Parameters, Request};
use super::stack::Stack;
use super::*;
use crate::apply::{Guard, Halt};
use crate::aws::{Aws, LocalEndpoints};
use crate::bundle::tests::good;
use crate::environment::{Environment, parse};
use crate::event::{Event, Listener};
use crate::kinds::{Context, Kind, Schedule};
use crate::plan::Verb;
use crate::scope::{Function, Scope};
use crate::world::{Found, Observed, ResourceId};

fn environment() -> Environment {
    parse(Path::new("local.yaml"), include_str!("../../../../environments/local.yaml")).unwrap()
}

pub(crate) fn scope() -> Scope {
    Scope::of(&environment())
}

fn a_template() -> Template {
    let code = Function::ALL.map(|function| (function, "code".to_owned()));
    template(&environment(), &code.into(), None).unwrap()
}

/// Clients that reach nothing, but for these answers of CloudFormation.
fn aws(rules: &[&Rule]) -> Aws {
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    let aws = Aws::local(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere);
    Aws { cloudformation: mock_client!(aws_sdk_cloudformation, RuleMode::MatchAny, rules), ..aws }
}

/// A context, and the events that it is told.
fn context(aws: Aws) -> (Context, Arc<Mutex<Vec<String>>>) {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = told.clone();
    let listener: Listener = Arc::new(move |event| {
        let line = match event {
            Event::Started { resource, verb } => format!("{verb:?} {resource} began"),
            Event::Done { resource, verb, .. } => format!("{verb:?} {resource} done"),
            Event::Failed { resource, error, .. } => format!("{resource} failed: {error}"),
            Event::Waiting { .. } | Event::Prepared { .. } => return,
        };
        heard.lock().unwrap().push(line);
    });
    (Context::new(aws, scope(), Some(Arc::new(good())), listener), told)
}

fn request(template: &Template) -> Request<'_> {
    Request {
        names: &template.names,
        source: Source::Body(template.body()),
        parameters: Parameters::Given([(ARTIFACT_BUCKET.to_owned(), "bucket".to_owned())].into()),
        tags: scope().tags(&environment()),
        role: None,
        adopt: false,
        import: Vec::new(),
        reverts_drift: true,
    }
}

fn there() -> Stack {
    Stack {
        id: "arn:stack".to_owned(),
        status: "UPDATE_COMPLETE".to_owned(),
        reason: None,
        protected: false,
        tags: BTreeMap::new(),
    }
}

fn change(action: ChangeAction, logical: &str, before: Option<&str>, after: Option<&str>) -> Change {
    let change =
        ResourceChange::builder().action(action).logical_resource_id(logical).resource_type("AWS::X::Y");
    let change =
        change.set_before_context(before.map(str::to_owned)).set_after_context(after.map(str::to_owned));
    let change = match logical {
        "BackupRole" => change.replacement(Replacement::True),
        _ => change.replacement(Replacement::False).physical_resource_id("physical"),
    };
    Change::builder().resource_change(change.build()).build()
}

fn made() -> Rule {
    mock!(aws_sdk_cloudformation::Client::create_change_set)
        .then_output(|| CreateChangeSetOutput::builder().id("arn:change-set").stack_id("arn:stack").build())
}

fn failed(reason: &'static str) -> Rule {
    mock!(aws_sdk_cloudformation::Client::describe_change_set).then_output(move || {
        DescribeChangeSetOutput::builder().status(ChangeSetStatus::Failed).status_reason(reason).build()
    })
}

fn discarded() -> Rule {
    mock!(aws_sdk_cloudformation::Client::delete_change_set)
        .then_output(|| DeleteChangeSetOutput::builder().build())
}

/// What people approve is what CloudFormation is going to do, all pages of it, in the words that they know.
#[tokio::test(start_paused = true)]
async fn a_change_set_reads_like_our_own_plan() {
    let create = mock!(aws_sdk_cloudformation::Client::create_change_set)
        .match_requests(|request| {
            request.deployment_mode() == Some(&DeploymentMode::RevertDrift)
                && request.on_stack_failure().is_none()
        })
        .then_output(|| CreateChangeSetOutput::builder().id("arn:change-set").stack_id("arn:stack").build());
    let pending = || DescribeChangeSetOutput::builder().status(ChangeSetStatus::CreateInProgress).build();
    let complete = || DescribeChangeSetOutput::builder().status(ChangeSetStatus::CreateComplete);
    let settings = |days: u32| {
        let settings = json!({ "daily_days": days }).to_string();
        json!({ "Properties": { "MemorySize": 256, "Environment": { "Variables": { "S": settings } } } })
            .to_string()
    };
    let describe = mock!(aws_sdk_cloudformation::Client::describe_change_set)
        .sequence()
        .output(pending)
        .output(move || complete().build())
        .output(move || {
            let (before, after) = (settings(7), settings(8));
            let modify = change(ChangeAction::Modify, "BackupFunction", Some(&before), Some(&after));
            let remove = change(ChangeAction::Remove, "BackupVersionOld", Some("{\"Properties\":{}}"), None);
            complete().changes(modify).changes(remove).next_token("more").build()
        })
        .output(move || {
            let before = "{\"Properties\":{\"Path\":\"/\"}}";
            let after = "{\"Properties\":{\"Path\":\"/backup/\"}}";
            let replace = change(ChangeAction::Modify, "BackupRole", Some(before), Some(after));
            complete().changes(replace).changes(change(ChangeAction::Add, "Topic", None, Some(after))).build()
        })
        .build();
    let (cx, _) = context(aws(&[&create, &describe]));
    let template = a_template();
    let change_set = change_set::create(&cx, request(&template), Some(&there())).await.unwrap().unwrap();
    let steps = change_set.plan.steps.iter().map(|step| {
        let changes = step.changes.iter().map(|change| {
            let value = |value: &Option<String>| value.clone().unwrap_or_default();
            format!("{}: {} -> {}", change.property, value(&change.from), value(&change.to))
        });
        format!("{:?} {} {}", step.verb, step.resource, changes.collect::<Vec<_>>().join(", "))
    });
    assert_eq!(
        steps.collect::<Vec<_>>(),
        [
            "Delete AWS::X::Y physical ",
            "Update function snapwarden-local-backup Environment.Variables.S.daily_days: 7 -> 8",
            "Replace role snapwarden-local-eu-central-1-backup Path: / -> /backup/",
            "Create topic snapwarden-local-notifications Path:  -> /backup/",
        ]
    );
    assert!(!change_set.creates);
}

/// CloudFormation calls "nothing to do" a failure, and keeps the failed change set until somebody deletes it.
#[tokio::test(start_paused = true)]
async fn a_template_that_changes_nothing_is_no_failure_and_leaves_nothing_behind() {
    for reason in [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ] {
        let (create, describe, delete) = (made(), failed(reason), discarded());
        let (cx, _) = context(aws(&[&create, &describe, &delete]));
        let template = a_template();
        assert_eq!(change_set::create(&cx, request(&template), Some(&there())).await.unwrap(), None);
        assert_eq!(delete.num_calls(), 1);
    }
}

/// A first deploy that is refused must not leave a stack that holds nothing and is in the way of the next.
#[tokio::test(start_paused = true)]
async fn a_refused_first_change_set_takes_its_empty_stack_along_unless_it_is_another_s() {
    for (others, status, deletions) in [
        (vec!["arn:change-set"], StackStatus::ReviewInProgress, 1),
        (vec!["arn:change-set", "arn:another"], StackStatus::ReviewInProgress, 0),
        // Somebody executed theirs meanwhile, and CloudFormation lists only what could still be executed.
        (vec![], StackStatus::CreateComplete, 0),
        (vec![], StackStatus::CreateInProgress, 0),
    ] {
        let create = mock!(aws_sdk_cloudformation::Client::create_change_set)
            .match_requests(|request| {
                request.on_stack_failure() == Some(&OnStackFailure::Delete)
                    && request.deployment_mode().is_none()
            })
            .then_output(|| {
                CreateChangeSetOutput::builder().id("arn:change-set").stack_id("arn:stack").build()
            });
        let list = mock!(aws_sdk_cloudformation::Client::list_change_sets).then_output(move || {
            let summaries = others.iter().map(|id| ChangeSetSummary::builder().change_set_id(*id).build());
            ListChangeSetsOutput::builder().set_summaries(Some(summaries.collect())).build()
        });
        let gone = mock!(aws_sdk_cloudformation::Client::delete_stack)
            .then_output(|| DeleteStackOutput::builder().build());
        let now =
            mock!(aws_sdk_cloudformation::Client::describe_stacks).then_output(move || state(status.clone()));
        let (describe, delete) = (failed("Template error: no such bucket"), discarded());
        let (cx, _) = context(aws(&[&create, &describe, &delete, &list, &now, &gone]));
        let template = a_template();
        let error = change_set::create(&cx, request(&template), None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "CloudFormation cannot make these changes: Template error: no such bucket"
        );
        assert_eq!(gone.num_calls(), deletions);
    }
}

/// An import that says anything else is refused as a whole, and one that fails must not take along what it imported.
#[tokio::test(start_paused = true)]
async fn an_import_names_each_resource_and_changes_nothing() {
    let create = mock!(aws_sdk_cloudformation::Client::create_change_set)
        .match_requests(|request| {
            let [resource] = request.resources_to_import() else { return false };
            let identifier = resource.resource_identifier();
            request.change_set_type() == Some(&ChangeSetType::Import)
                && request.on_stack_failure().is_none()
                && request.deployment_mode().is_none()
                && request.import_existing_resources().is_none()
                && request.tags().is_empty()
                && resource.logical_resource_id() == Some("BackupRole")
                && identifier.is_some_and(|identifier| identifier["RoleName"] == "r")
        })
        .then_output(|| CreateChangeSetOutput::builder().id("arn:change-set").stack_id("arn:stack").build());
    let describe = mock!(aws_sdk_cloudformation::Client::describe_change_set).then_output(|| {
        let imported =
            ResourceChange::builder().action(ChangeAction::Import).logical_resource_id("BackupRole");
        let imported = Change::builder().resource_change(imported.build()).build();
        DescribeChangeSetOutput::builder().status(ChangeSetStatus::CreateComplete).changes(imported).build()
    });
    let (cx, _) = context(aws(&[&create, &describe]));
    let template = a_template();
    let role = ResourceToImport::builder().logical_resource_id("BackupRole").resource_type("AWS::IAM::Role");
    let import = vec![role.resource_identifier("RoleName", "r").build()];
    let request = Request { import, ..request(&template) };
    let change_set = change_set::create(&cx, request, None).await.unwrap().unwrap();
    let step = &change_set.plan.steps[0];
    assert_eq!((step.verb, step.resource.kind.as_str()), (Verb::Update, "role"));
    assert_eq!(step.changes[0].to.as_deref(), Some("taken over"));
}

/// A rollback puts a change into the template that the stack has; one that something else wrote it must not touch.
#[tokio::test(start_paused = true)]
async fn the_stacks_own_template_is_read_back_or_refused() {
    for (body, good) in [("{\"Resources\":{}}", true), ("Resources: {}", false)] {
        let get = mock!(aws_sdk_cloudformation::Client::get_template)
            .match_requests(|request| request.template_stage() == Some(&TemplateStage::Original))
            .then_output(move || GetTemplateOutput::builder().template_body(body).build());
        let (cx, _) = context(aws(&[&get]));
        let read = stack::template(&cx).await;
        assert_eq!(read.is_ok(), good, "{read:?}");
        if let Err(error) = read {
            assert!(error.to_string().contains("none of Snapwarden's"), "{error}");
        }
    }
}

fn event(id: u32, token: &str, logical: &str, status: ResourceStatus, reason: &str) -> StackEvent {
    let physical = if logical == "snapwarden-local" { "arn:stack" } else { "physical" };
    let event =
        StackEvent::builder().event_id(id.to_string()).client_request_token(token).stack_id("arn:stack");
    let event = event.logical_resource_id(logical).physical_resource_id(physical).resource_status(status);
    event.resource_status_reason(reason).build()
}

pub(super) struct Free;

#[async_trait(?Send)]
impl Guard for Free {
    async fn check(&self) -> Result<(), Halt> {
        Ok(())
    }
}

pub(super) struct Interrupted;

#[async_trait(?Send)]
impl Guard for Interrupted {
    async fn check(&self) -> Result<(), Halt> {
        Err(Halt("interrupted".to_owned()))
    }
}

fn state(status: StackStatus) -> DescribeStacksOutput {
    let stack =
        aws_sdk_cloudformation::types::Stack::builder().stack_id("arn:stack").stack_name("snapwarden-local");
    let stack =
        stack.stack_status(status).creation_time(aws_sdk_cloudformation::primitives::DateTime::from_secs(0));
    DescribeStacksOutput::builder().stacks(stack.build()).build()
}

/// Of a change that fails people see what failed and why, once, and nothing of an earlier change; what CloudFormation
/// stopped because of it explains nothing.
#[tokio::test(start_paused = true)]
async fn a_change_is_followed_to_its_end_and_says_what_failed() {
    let states = mock!(aws_sdk_cloudformation::Client::describe_stacks)
        .sequence()
        .output(|| state(StackStatus::UpdateInProgress))
        .output(|| state(StackStatus::UpdateRollbackComplete))
        .build();
    let first = || {
        vec![
            event(2, "t", "BackupRole", ResourceStatus::UpdateInProgress, ""),
            event(1, "t", "snapwarden-local", ResourceStatus::UpdateInProgress, "User Initiated"),
            event(0, "earlier", "Topic", ResourceStatus::CreateFailed, "long ago"),
        ]
    };
    let then = move || {
        let mut all = vec![
            event(6, "t", "BackupRole", ResourceStatus::UpdateComplete, ""),
            event(5, "t", "Topic", ResourceStatus::CreateFailed, "Resource creation cancelled"),
            event(4, "t", "BackupFunction", ResourceStatus::UpdateFailed, "memory is too small"),
            event(3, "t", "BackupFunction", ResourceStatus::UpdateInProgress, ""),
        ];
        all.extend(first());
        all
    };
    let events = mock!(aws_sdk_cloudformation::Client::describe_stack_events)
        .sequence()
        .output(move || DescribeStackEventsOutput::builder().set_stack_events(Some(first())).build())
        .output(move || DescribeStackEventsOutput::builder().set_stack_events(Some(then())).build())
        .build();
    let (cx, told) = context(aws(&[&states, &events]));
    let ended = follow::follow(&cx, "arn:stack", "t", &a_template().names, &Free).await.unwrap();
    assert_eq!(ended.stack.unwrap().status, "UPDATE_ROLLBACK_COMPLETE");
    let failures: Vec<_> =
        ended.failures.iter().map(|(resource, why)| format!("{resource}: {why}")).collect();
    assert_eq!(failures, ["function snapwarden-local-backup: memory is too small"]);
    assert_eq!(
        *told.lock().unwrap(),
        [
            "Update role snapwarden-local-eu-central-1-backup began",
            "Update function snapwarden-local-backup began",
            "function snapwarden-local-backup failed: memory is too small",
            "topic snapwarden-local-notifications failed: Resource creation cancelled",
            "Update role snapwarden-local-eu-central-1-backup done",
        ]
    );
}

/// CloudFormation may show a stack as it was for some seconds after it was told to change it: canaries would try versions
/// that do not exist, and a deletion be reported as failed.
#[tokio::test(start_paused = true)]
async fn a_change_is_over_only_once_it_has_been_seen_to_begin() {
    let states = mock!(aws_sdk_cloudformation::Client::describe_stacks)
        .sequence()
        .output(|| state(StackStatus::ReviewInProgress))
        .output(|| state(StackStatus::UpdateComplete))
        .output(|| state(StackStatus::UpdateComplete))
        .build();
    let began = || vec![event(1, "t", "snapwarden-local", ResourceStatus::UpdateInProgress, "")];
    let events = mock!(aws_sdk_cloudformation::Client::describe_stack_events)
        .sequence()
        .output(|| DescribeStackEventsOutput::builder().build())
        .output(|| DescribeStackEventsOutput::builder().build())
        .output(move || DescribeStackEventsOutput::builder().set_stack_events(Some(began())).build())
        .build();
    let (cx, _) = context(aws(&[&states, &events]));
    let ended = follow::follow(&cx, "arn:stack", "t", &BTreeMap::new(), &Free).await.unwrap();
    assert_eq!((ended.halted, states.num_calls()), (None, 3));

    let states = mock!(aws_sdk_cloudformation::Client::describe_stacks)
        .then_output(|| state(StackStatus::UpdateComplete));
    let events = mock!(aws_sdk_cloudformation::Client::describe_stack_events)
        .then_output(|| DescribeStackEventsOutput::builder().build());
    let (cx, _) = context(aws(&[&states, &events]));
    let ended = follow::follow(&cx, "arn:stack", "t", &BTreeMap::new(), &Free).await.unwrap();
    assert_eq!(ended.halted.as_deref(), Some("CloudFormation shows no sign of having begun"));
}

/// Ctrl-C does not stop CloudFormation: to report the change as stopped would be wrong, and to wait on would be deaf.
#[tokio::test(start_paused = true)]
async fn an_interrupted_wait_says_that_cloudformation_goes_on() {
    let states = mock!(aws_sdk_cloudformation::Client::describe_stacks)
        .then_output(|| state(StackStatus::UpdateInProgress));
    let events = mock!(aws_sdk_cloudformation::Client::describe_stack_events)
        .then_output(|| DescribeStackEventsOutput::builder().build());
    let (cx, _) = context(aws(&[&states, &events]));
    let ended = follow::follow(&cx, "arn:stack", "t", &BTreeMap::new(), &Interrupted).await.unwrap();
    assert_eq!(ended.halted.as_deref(), Some("interrupted"));
}

/// What CloudFormation could not look at is not "as it should be", and what it could is worth showing all the same.
#[tokio::test(start_paused = true)]
async fn drift_reads_like_our_own_plan_and_says_of_what_nothing_is_known() {
    let detect = mock!(aws_sdk_cloudformation::Client::detect_stack_drift)
        .then_output(|| DetectStackDriftOutput::builder().stack_drift_detection_id("id").build());
    let status = |status, reason: Option<&str>| {
        DescribeStackDriftDetectionStatusOutput::builder()
            .stack_id("arn:stack")
            .stack_drift_detection_id("id")
            .detection_status(status)
            .stack_drift_status(StackDriftStatus::Drifted)
            .set_detection_status_reason(reason.map(str::to_owned))
            .timestamp(aws_sdk_cloudformation::primitives::DateTime::from_secs(0))
            .build()
    };
    let statuses = mock!(aws_sdk_cloudformation::Client::describe_stack_drift_detection_status)
        .sequence()
        .output(move || status(StackDriftDetectionStatus::DetectionInProgress, None))
        .output(move || status(StackDriftDetectionStatus::DetectionFailed, Some("1 of 4 resources")))
        .build();
    let drifts = mock!(aws_sdk_cloudformation::Client::describe_stack_resource_drifts).then_output(|| {
        let drift = |logical: &str, status, expected: &str, actual: &str| {
            StackResourceDrift::builder()
                .stack_id("arn:stack")
                .logical_resource_id(logical)
                .resource_type("AWS::X::Y")
                .stack_resource_drift_status(status)
                .expected_properties(expected)
                .actual_properties(actual)
                .timestamp(aws_sdk_cloudformation::primitives::DateTime::from_secs(0))
                .build()
        };
        DescribeStackResourceDriftsOutput::builder()
            .stack_resource_drifts(drift(
                "BackupSchedule",
                StackResourceDriftStatus::Modified,
                "{\"State\":\"ENABLED\"}",
                "{\"State\":\"DISABLED\"}",
            ))
            .stack_resource_drifts(drift(
                "Topic",
                StackResourceDriftStatus::Deleted,
                "{\"TopicName\":\"t\"}",
                "",
            ))
            .stack_resource_drifts(drift("CleanupSchedule", StackResourceDriftStatus::Deleted, "{}", ""))
            .stack_resource_drifts(drift("BackupRole", StackResourceDriftStatus::InSync, "{}", "{}"))
            .stack_resource_drifts(drift("Dashboard", StackResourceDriftStatus::NotChecked, "", ""))
            .build()
    });
    let (cx, _) = context(aws(&[&detect, &statuses, &drifts]));
    let schedule = ResourceId::new(Schedule::NAME, "cleanup");
    let nothing = serde_json::Value::Null;
    let there = Found { properties: nothing.clone(), handle: nothing, tags: None, revision: None };
    let observed = Observed::from([(schedule, there)]);
    let found = drift::detect(&cx, &a_template().names, &observed).await.unwrap();
    let steps: Vec<_> = found.plan.steps.iter().map(|step| (step.verb, step.resource.to_string())).collect();
    assert_eq!(
        steps,
        [
            (Verb::Keep, "role snapwarden-local-eu-central-1-backup".to_owned()),
            (Verb::Update, "schedule backup".to_owned()),
            (Verb::Create, "topic snapwarden-local-notifications".to_owned()),
        ]
    );
    let schedule = &found.plan.steps[1].changes[0];
    assert_eq!((schedule.from.as_deref(), schedule.to.as_deref()), (Some("DISABLED"), Some("ENABLED")));
    let unknown = |line: &str| found.unknown.iter().any(|unknown| unknown == line);
    assert!(unknown("dashboard snapwarden-local-eu-central-1: CloudFormation does not compare this type"));
    assert!(
        unknown("schedule cleanup: CloudFormation looks for it in the default group"),
        "it is not gone because CloudFormation looks elsewhere"
    );
    assert!(
        unknown("queue snapwarden-local-dead-letters: CloudFormation did not look at it")
            || unknown("dead-letter queue snapwarden-local-dead-letters: CloudFormation did not look at it"),
        "{:?}",
        found.unknown
    );
    assert_eq!(found.failed.as_deref(), Some("1 of 4 resources"));
}

//! What the emulators do not know: IAM's policy simulator.

use aws_sdk_iam::operation::get_role::GetRoleOutput;
use aws_sdk_iam::operation::simulate_principal_policy::{
    SimulatePrincipalPolicyError, SimulatePrincipalPolicyOutput,
};
use aws_sdk_iam::types::{PolicyEvaluationDecisionType as Decision, Role};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use aws_smithy_types::DateTime;
use aws_smithy_types::error::ErrorMetadata;

use super::*;
use crate::aws::LocalEndpoints;
use crate::environment::{Encryption, Iam};
use crate::kinds::registry;
use crate::plan::Step;
use crate::world::ResourceId;

const CALLER: &str = "arn:aws:sts::123456789012:assumed-role/ci/run-7";
const ROLE: &str = "arn:aws:iam::123456789012:role/pipelines/ci";

fn scope() -> Scope {
    Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "test".parse().unwrap(),
        iam: Iam::default(),
        encryption: Encryption::default(),
    }
}

fn aws(iam: aws_sdk_iam::Client) -> Aws {
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    Aws { iam, ..Aws::local(&scope().region, &nowhere) }
}

fn plan(kind: &str, verb: Verb) -> Plan {
    let resource = ResourceId::new(kind, "it");
    let step = Step { resource, verb, changes: Vec::new(), wanted: None, interim: None, found: None };
    Plan { steps: vec![step], left_alone: Vec::new() }
}

fn ci() -> GetRoleOutput {
    let role = Role::builder().arn(ROLE).path("/pipelines/").role_name("ci").role_id("A");
    GetRoleOutput::builder().role(role.create_date(DateTime::from_secs(0)).build().unwrap()).build()
}

/// An answer that decides like this on some actions, and allows the others.
fn answer(action: &str, decision: Decision, unknown: Option<&str>) -> SimulatePrincipalPolicyOutput {
    let result = EvaluationResult::builder().eval_action_name(action).eval_decision(decision);
    let result = result
        .eval_resource_name("arn:of:it")
        .set_missing_context_values(unknown.map(|key| vec![key.to_owned()]));
    SimulatePrincipalPolicyOutput::builder().evaluation_results(result.build().unwrap()).build()
}

async fn asked(
    decision: Decision,
    unknown: Option<&'static str>,
    plan: &Plan,
    action: &'static str,
) -> Missing {
    let role = mock!(aws_sdk_iam::Client::get_role).then_output(ci);
    let simulate = mock!(aws_sdk_iam::Client::simulate_principal_policy)
        .match_requests(|request| request.policy_source_arn() == Some(ROLE))
        .then_output(move || answer(action, decision.clone(), unknown));
    let iam = mock_client!(aws_sdk_iam, RuleMode::MatchAny, [&role, &simulate]);
    missing(&aws(iam), &scope(), registry(), plan, CALLER).await
}

/// Else a deploy stops halfway, at the first call that is denied.
#[tokio::test]
async fn a_right_that_making_a_resource_takes_is_named() {
    let plan = plan("dead-letter queue", Verb::Create);
    for decision in [Decision::ImplicitDeny, Decision::ExplicitDeny] {
        let found = asked(decision, None, &plan, "sqs:CreateQueue").await;
        let queue = BTreeSet::from(["arn:of:it".to_owned()]);
        assert_eq!(found.certainly, BTreeMap::from([("sqs:CreateQueue".to_owned(), queue)]));
    }
}

/// A caller with a narrower policy than ours can do this very change: nobody may stop him.
#[tokio::test]
async fn a_right_that_only_some_changes_take_does_not_stop_a_deploy() {
    let plan = plan("dead-letter queue", Verb::Update);
    let found = asked(Decision::ImplicitDeny, None, &plan, "sqs:UntagQueue").await;
    assert!(found.certainly.is_empty(), "{found:?}");
    assert_eq!(found.possibly.into_keys().collect::<Vec<_>>(), ["sqs:UntagQueue"]);
}

#[tokio::test]
async fn what_is_allowed_or_unclear_is_not_missing() {
    let plan = plan("dead-letter queue", Verb::Create);
    for (decision, unknown) in [(Decision::Allowed, None), (Decision::ImplicitDeny, Some("aws:SourceIp"))] {
        assert_eq!(asked(decision, unknown, &plan, "sqs:CreateQueue").await, Missing::default());
    }
}

/// Most callers may not ask IAM this; it must not cost them their deploy.
#[tokio::test]
async fn who_may_not_ask_goes_on() {
    let denied = || {
        let error = ErrorMetadata::builder().code("AccessDenied").message("not authorized").build();
        SimulatePrincipalPolicyError::generic(error)
    };
    let role = mock!(aws_sdk_iam::Client::get_role).then_output(ci);
    let simulate = mock!(aws_sdk_iam::Client::simulate_principal_policy).then_error(denied);
    let iam = mock_client!(aws_sdk_iam, RuleMode::MatchAny, [&role, &simulate]);
    let plan = plan("dead-letter queue", Verb::Create);
    let found = missing(&aws(iam.clone()), &scope(), registry(), &plan, CALLER).await;
    assert!(found.certainly.is_empty() && found.possibly.is_empty(), "{found:?}");
    assert!(found.unasked.unwrap().contains("iam:SimulatePrincipalPolicy: AccessDenied"));
    assert_eq!(simulate.num_calls(), 1);
    // The root user and federated ones have no policies that could be asked about.
    for (caller, lacks_nothing) in [
        ("arn:aws:iam::123456789012:root", true),
        ("arn:aws:sts::123456789012:federated-user/x", false),
        ("", false),
    ] {
        let found = missing(&aws(iam.clone()), &scope(), registry(), &plan, caller).await;
        assert!(
            found.certainly.is_empty() && found.unasked.is_none() == lacks_nothing,
            "{caller}: {found:?}"
        );
    }
    assert_eq!(simulate.num_calls(), 1);
}

/// One question that IAM does not understand must not hide what the others would have found.
#[tokio::test]
async fn what_iam_does_not_take_together_is_asked_singly() {
    let role = mock!(aws_sdk_iam::Client::get_role).then_output(ci);
    let together = mock!(aws_sdk_iam::Client::simulate_principal_policy)
        .match_requests(|request| request.action_names().len() > 1)
        .then_error(|| {
            let error = ErrorMetadata::builder().code("InvalidInput").message("not together").build();
            SimulatePrincipalPolicyError::generic(error)
        });
    let alone = mock!(aws_sdk_iam::Client::simulate_principal_policy)
        .match_requests(|request| request.action_names() == ["sqs:CreateQueue"])
        .then_output(|| answer("sqs:CreateQueue", Decision::ImplicitDeny, None));
    let other = mock!(aws_sdk_iam::Client::simulate_principal_policy)
        .match_requests(|request| request.action_names() == ["sqs:TagQueue"])
        .then_output(|| answer("sqs:TagQueue", Decision::Allowed, None));
    let iam = mock_client!(aws_sdk_iam, RuleMode::MatchAny, [&role, &together, &alone, &other]);
    let plan = plan("dead-letter queue", Verb::Create);
    let found = missing(&aws(iam), &scope(), registry(), &plan, CALLER).await;
    assert_eq!(found.certainly.into_keys().collect::<Vec<_>>(), ["sqs:CreateQueue"]);
    assert_eq!(found.unasked, None);
}

/// Without these an allowed `iam:PassRole` would look denied, and the deploy would be refused.
#[test]
fn a_schedules_role_is_asked_about_with_the_service_that_gets_it() {
    let needed = needed(&scope(), registry(), &plan("schedule", Verb::Create));
    let conditions: Vec<_> = questions(&needed).into_keys().collect();
    let passed = (Resources::SchedulerRole, Condition::PassedTo("scheduler.amazonaws.com"));
    assert!(conditions.contains(&passed), "{conditions:?}");
    assert!(needed.iter().all(|(_, certain)| *certain));
}

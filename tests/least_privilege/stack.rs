//! The policy of whoever deploys through a stack, held against the calls of all commands.

use serde_json::Value;
use snapwarden_deployer::policy::deployer::Access;
use snapwarden_deployer::policy::stack::stack_deployer_policy;
use snapwarden_deployer::scope::Scope;

use crate::authorization::requests;
use crate::evaluator::{Context, Policy, Request};
use crate::minimality::{denied, unused};
use crate::recording::{Run, STACK};

fn recorded(run: &Run) -> Vec<(String, Request)> {
    let requests = run.calls.iter().flat_map(|call| requests(call, &run.world));
    requests.map(|request| (run.of.clone(), request)).collect()
}

fn policy(run: &Run, access: Access) -> Value {
    stack_deployer_policy(&run.environment, &Scope::of(&run.environment), access)
}

/// A pipeline that is denied a call leaves a stack half way between two releases.
#[test]
fn every_recorded_call_of_a_command_on_a_stack_is_allowed() {
    for run in STACK.iter() {
        let looks = run.of == "status" || run.of.starts_with("plan --drift");
        let access = if looks { Access::READ_ONLY } else { Access::DEPLOY };
        let recorded = recorded(run);
        let denied = denied(&policy(run, access), &recorded);
        assert!(denied.is_empty() && !recorded.is_empty(), "{}: {denied:?}", run.of);
    }
}

/// What a pipeline may do with stacks and never does only serves somebody who took it over.
#[test]
fn every_right_on_stacks_and_artifacts_is_needed() {
    let all: Vec<_> = STACK.iter().flat_map(recorded).collect();
    let policy = policy(&STACK[0], Access::DEPLOY);
    // What it reads and records is what the direct engine does, whose policy is held against those calls.
    let ours = |unused: &String| {
        ["cloudformation:", "s3:", "iam:PassRole"].iter().any(|action| unused.contains(action))
    };
    let unused = unused(&policy, &all);
    // AWS does not say which calls take it; it would be one whose tags leave some out.
    let known = |unused: &String| unused.contains("cloudformation:UntagResource");
    let unused: Vec<_> = unused.into_iter().filter(|unused| ours(unused) && !known(unused)).collect();
    assert_eq!(unused, Vec::<String>::new());
}

/// What a pipeline that was taken over tries: with a role of the stack's own, it has only the stack.
#[test]
fn a_pipeline_cannot_leave_its_stack() {
    let run = &STACK[0];
    let policy = Policy::read(&policy(run, Access::DEPLOY)).unwrap();
    let regional =
        |service: &str, resource: &str| format!("arn:aws:{service}:eu-central-1:123456789012:{resource}");
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let passed = |service: &str| Context::default().with("iam:PassedToService", service);
    for (action, resource, context) in [
        ("cloudformation:ExecuteChangeSet", regional("cloudformation", "stack/snapwarden-prod/1"), None),
        ("cloudformation:DeleteStack", regional("cloudformation", "stack/snapwarden-local-2/1"), None),
        ("cloudformation:CreateStack", regional("cloudformation", "stack/snapwarden-local/1"), None),
        ("cloudformation:UpdateStack", regional("cloudformation", "stack/snapwarden-local/1"), None),
        ("s3:PutObject", "arn:aws:s3:::acme/snapwarden/a.zip".to_owned(), None),
        (
            "s3:DeleteObject",
            "arn:aws:s3:::snapwarden-artifacts-123456789012-eu-central-1/snapwarden/a.zip".to_owned(),
            None,
        ),
        ("iam:PassRole", role("admin"), Some(passed("cloudformation.amazonaws.com"))),
        ("iam:PassRole", role("cloudformation"), Some(passed("lambda.amazonaws.com"))),
        ("iam:PassRole", role("cloudformation"), None),
        ("iam:PutRolePolicy", role("snapwarden-local-eu-central-1-backup"), None),
        ("lambda:UpdateFunctionCode", regional("lambda", "function:snapwarden-local-backup"), None),
        ("lambda:UpdateAlias", regional("lambda", "function:snapwarden-local-backup"), None),
        ("scheduler:DeleteSchedule", regional("scheduler", "schedule/snapwarden-local/backup"), None),
        ("sns:Publish", regional("sns", "snapwarden-local-notifications"), None),
    ] {
        let request = Request { action: action.to_owned(), resource, context: context.unwrap_or_default() };
        assert!(!policy.evaluate(&request).is_allowed(), "{request:?}");
    }
}

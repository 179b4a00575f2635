//! A fleet's operations, as CloudFormation answers where the emulator has no organization and no failures.

use aws_sdk_cloudformation::operation::create_stack_instances::{
    CreateStackInstancesError, CreateStackInstancesOutput,
};
use aws_sdk_cloudformation::operation::create_stack_set::CreateStackSetOutput;
use aws_sdk_cloudformation::operation::delete_stack_instances::DeleteStackInstancesOutput;
use aws_sdk_cloudformation::operation::delete_stack_set::DeleteStackSetOutput;
use aws_sdk_cloudformation::operation::describe_stack_set_operation::DescribeStackSetOperationOutput;
use aws_sdk_cloudformation::operation::list_stack_set_operation_results::ListStackSetOperationResultsOutput;
use aws_sdk_cloudformation::operation::update_stack_set::UpdateStackSetOutput;
use aws_sdk_cloudformation::types::{
    AutoDeployment, ConcurrencyMode, PermissionModels, StackSetOperation, StackSetOperationResultStatus,
    StackSetOperationResultSummary, StackSetOperationStatus,
};
use aws_smithy_mocks::{Rule, mock};
use aws_smithy_types::error::ErrorMetadata;
use serde_json::{Value, json};

use super::{Free, Interrupted, aws, context};
use crate::cloudformation::artifacts::Source;
use crate::cloudformation::fleet::{Found, Instance, Wanted, deploy, destroy};
use crate::kinds::StepError;

fn wanted(fleet: Value) -> Wanted {
    Wanted {
        fleet: serde_json::from_value(fleet).unwrap(),
        body: "{}".to_owned(),
        parameters: [("ArtifactBucket".to_owned(), "b".to_owned())].into(),
        tags: [("team".to_owned(), "x".to_owned())].into(),
    }
}

fn of_units(auto_deploy: bool) -> Wanted {
    wanted(json!({
        "organization": "o-a1b2c3d4e5", "organizational_units": ["ou-ab12-11111111"],
        "regions": ["eu-west-1", "eu-central-1"], "auto_deploy": auto_deploy,
    }))
}

fn of_accounts() -> Wanted {
    wanted(json!({
        "accounts": ["111122223333", "444455556666"], "regions": ["eu-central-1"],
        "max_concurrent_percent": 30,
    }))
}

fn operation(status: StackSetOperationStatus) -> Rule {
    mock!(aws_sdk_cloudformation::Client::describe_stack_set_operation).then_output(move || {
        let operation = StackSetOperation::builder().operation_id("op").status(status.clone()).build();
        DescribeStackSetOperationOutput::builder().stack_set_operation(operation).build()
    })
}

fn instances_made() -> Rule {
    mock!(aws_sdk_cloudformation::Client::create_stack_instances)
        .then_output(|| CreateStackInstancesOutput::builder().operation_id("op").build())
}

fn set_made() -> Rule {
    mock!(aws_sdk_cloudformation::Client::create_stack_set)
        .then_output(|| CreateStackSetOutput::builder().stack_set_id("set").build())
}

fn body() -> Source {
    Source::Body("{}".to_owned())
}

/// Accounts that join a unit get backups without anybody thinking of it, or the file says that they do not.
#[tokio::test(start_paused = true)]
async fn a_fleet_of_units_is_the_organizations_and_takes_new_accounts_along() {
    for automatic in [true, false] {
        let create = mock!(aws_sdk_cloudformation::Client::create_stack_set)
            .match_requests(move |request| {
                let deployment = request.auto_deployment();
                request.permission_model() == Some(&PermissionModels::ServiceManaged)
                    && deployment.and_then(AutoDeployment::enabled) == Some(automatic)
                    // CloudFormation refuses the one without the other.
                    && deployment.and_then(AutoDeployment::retain_stacks_on_account_removal)
                        == automatic.then_some(false)
            })
            .then_output(|| CreateStackSetOutput::builder().stack_set_id("set").build());
        let make = mock!(aws_sdk_cloudformation::Client::create_stack_instances)
            .match_requests(|request| {
                let targets = request.deployment_targets();
                let preferences = request.operation_preferences();
                request.accounts().is_empty()
                    && targets
                        .is_some_and(|targets| targets.organizational_unit_ids() == ["ou-ab12-11111111"])
                    && preferences.is_some_and(|preferences| {
                        // In the order of the file, and as many at a time as it says.
                        preferences.region_order() == ["eu-west-1", "eu-central-1"]
                            && preferences.concurrency_mode() == Some(&ConcurrencyMode::SoftFailureTolerance)
                            && preferences.max_concurrent_percentage() == Some(25)
                    })
            })
            .then_output(|| CreateStackInstancesOutput::builder().operation_id("op").build());
        let done = operation(StackSetOperationStatus::Succeeded);
        let (cx, _) = context(aws(&[&create, &make, &done]));
        let failures = deploy(&cx, &of_units(automatic), &body(), None, &Free).await.unwrap();
        assert_eq!((failures.len(), make.num_calls()), (0, 1));
    }
}

/// Of a hundred accounts the three that have no backups are what somebody has to know.
#[tokio::test(start_paused = true)]
async fn what_failed_is_named_with_account_region_and_reason() {
    let (create, make) = (set_made(), instances_made());
    let failed = operation(StackSetOperationStatus::Failed);
    let result = |account: &str, status, reason: Option<&str>| {
        StackSetOperationResultSummary::builder()
            .account(account)
            .region("eu-central-1")
            .status(status)
            .set_status_reason(reason.map(str::to_owned))
            .build()
    };
    let results = mock!(aws_sdk_cloudformation::Client::list_stack_set_operation_results)
        .sequence()
        .output(move || {
            let succeeded = result("111122223333", StackSetOperationResultStatus::Succeeded, None);
            ListStackSetOperationResultsOutput::builder().summaries(succeeded).next_token("more").build()
        })
        .output(move || {
            let why = Some("Account 444455556666 should have 'AWSCloudFormationStackSetExecutionRole' role");
            let failed = result("444455556666", StackSetOperationResultStatus::Failed, why);
            let cancelled = result("777788889999", StackSetOperationResultStatus::Cancelled, None);
            ListStackSetOperationResultsOutput::builder().summaries(failed).summaries(cancelled).build()
        })
        .build();
    let (cx, _) = context(aws(&[&create, &make, &failed, &results]));
    let failures = deploy(&cx, &of_accounts(), &body(), None, &Free).await.unwrap();
    let lines: Vec<_> = failures
        .iter()
        .map(|failed| format!("{} in {}: {}", failed.account, failed.region, failed.reason))
        .collect();
    assert_eq!(
        lines,
        [
            "444455556666 in eu-central-1: Account 444455556666 should have 'AWSCloudFormationStackSetExecutionRole' role",
            "777788889999 in eu-central-1: CANCELLED",
        ]
    );
}

fn found(wanted: &Wanted, statuses: &[(&str, &str)]) -> Found {
    let instance = |(account, status): &(&str, &str)| Instance {
        account: (*account).to_owned(),
        region: "eu-central-1".to_owned(),
        unit: None,
        status: (*status).to_owned(),
        reason: None,
    };
    Found { properties: wanted.properties(), instances: statuses.iter().map(instance).collect() }
}

/// A command that died after the StackSet was made, and beside an operation that goes on, is taken up where it stopped.
#[tokio::test(start_paused = true)]
async fn the_same_command_makes_only_what_is_missing_and_waits_for_what_is_under_way() {
    let wanted = of_accounts();
    let make = mock!(aws_sdk_cloudformation::Client::create_stack_instances)
        .match_requests(|request| request.accounts() == ["444455556666"])
        .sequence()
        .error(|| {
            let busy = ErrorMetadata::builder().code("OperationInProgressException").message("busy").build();
            CreateStackInstancesError::generic(busy)
        })
        .output(|| CreateStackInstancesOutput::builder().operation_id("op").build())
        .build();
    let done = operation(StackSetOperationStatus::Succeeded);
    let (cx, _) = context(aws(&[&make, &done]));
    let there = found(&wanted, &[("111122223333", "CURRENT")]);
    let failures = deploy(&cx, &wanted, &body(), Some(&there), &Free).await.unwrap();
    assert_eq!((failures.len(), make.num_calls()), (0, 2));
}

/// A changed template goes everywhere in one operation; what is too much goes after it.
#[tokio::test(start_paused = true)]
async fn a_change_is_one_operation_for_all_that_there_is() {
    let (before, wanted) = (of_accounts(), Wanted { body: "{\"a\":1}".to_owned(), ..of_accounts() });
    let update = mock!(aws_sdk_cloudformation::Client::update_stack_set)
        .match_requests(|request| {
            let preferences = request.operation_preferences();
            preferences.is_some_and(|preferences| {
                preferences.max_concurrent_percentage() == Some(30)
                    && preferences.failure_tolerance_percentage() == Some(0)
            })
        })
        .then_output(|| UpdateStackSetOutput::builder().operation_id("op").build());
    let delete = mock!(aws_sdk_cloudformation::Client::delete_stack_instances)
        .match_requests(|request| {
            request.accounts() == ["777788889999"] && request.retain_stacks() == Some(false)
        })
        .then_output(|| DeleteStackInstancesOutput::builder().operation_id("op").build());
    let done = operation(StackSetOperationStatus::Succeeded);
    let (cx, _) = context(aws(&[&update, &delete, &done]));
    let there = found(
        &before,
        &[("111122223333", "CURRENT"), ("444455556666", "OUTDATED"), ("777788889999", "CURRENT")],
    );
    let failures = deploy(&cx, &wanted, &body(), Some(&there), &Free).await.unwrap();
    assert_eq!((failures.len(), update.num_calls(), delete.num_calls()), (0, 1, 1));
}

/// A StackSet that is deleted over stacks that could not be leaves stacks that nobody lists any more.
#[tokio::test(start_paused = true)]
async fn the_stack_set_goes_only_after_all_of_its_stacks() {
    for (status, deletions) in [(StackSetOperationStatus::Succeeded, 1), (StackSetOperationStatus::Failed, 0)]
    {
        let delete = mock!(aws_sdk_cloudformation::Client::delete_stack_instances)
            .then_output(|| DeleteStackInstancesOutput::builder().operation_id("op").build());
        let results =
            mock!(aws_sdk_cloudformation::Client::list_stack_set_operation_results).then_output(|| {
                let failed = StackSetOperationResultSummary::builder().account("111122223333").region("r");
                let failed = failed.status(StackSetOperationResultStatus::Failed).status_reason("protected");
                ListStackSetOperationResultsOutput::builder().summaries(failed.build()).build()
            });
        let set = mock!(aws_sdk_cloudformation::Client::delete_stack_set)
            .then_output(|| DeleteStackSetOutput::builder().build());
        let ended = operation(status);
        let (cx, _) = context(aws(&[&delete, &results, &set, &ended]));
        let wanted = of_accounts();
        let there = found(&wanted, &[("111122223333", "CURRENT")]);
        let failures = destroy(&cx, &there, &wanted.fleet, &Free).await.unwrap();
        assert_eq!((failures.len(), set.num_calls()), (1 - deletions, deletions));
    }
}

/// A fleet takes hours: whoever waits sees how far it is, account by account.
#[tokio::test(start_paused = true)]
async fn an_operation_tells_how_far_it_is_in_each_account() {
    use StackSetOperationResultStatus::{Failed, Pending, Running, Succeeded};
    let (create, make) = (set_made(), instances_made());
    let operation = |status: StackSetOperationStatus| {
        let operation = StackSetOperation::builder().operation_id("op").status(status).build();
        DescribeStackSetOperationOutput::builder().stack_set_operation(operation).build()
    };
    let looks = mock!(aws_sdk_cloudformation::Client::describe_stack_set_operation)
        .sequence()
        .output(move || operation(StackSetOperationStatus::Running))
        .times(4)
        .output(move || operation(StackSetOperationStatus::Failed))
        .build();
    let list = |statuses: [StackSetOperationResultStatus; 3]| {
        let result = |(account, status): (&str, StackSetOperationResultStatus)| {
            let reason = (status == StackSetOperationResultStatus::Failed).then(|| "no role".to_owned());
            let result = StackSetOperationResultSummary::builder().account(account).region("r");
            result.status(status).set_status_reason(reason).build()
        };
        let results = ["1", "2", "3"].into_iter().zip(statuses).map(result).collect();
        ListStackSetOperationResultsOutput::builder().set_summaries(Some(results)).build()
    };
    let lists = mock!(aws_sdk_cloudformation::Client::list_stack_set_operation_results)
        .sequence()
        .output(move || list([Running, Pending, Pending]))
        .output(move || list([Succeeded, Running, Pending]))
        .output(move || list([Succeeded, Failed, Succeeded]))
        .build();
    let (cx, told) = context(aws(&[&create, &make, &looks, &lists]));
    let failures = deploy(&cx, &of_accounts(), &body(), None, &Free).await.unwrap();
    assert_eq!((failures.len(), failures[0].account.as_str()), (1, "2"));
    assert_eq!(
        *told.lock().unwrap(),
        [
            "Create stack instance 1 in r began",
            "Create stack instance 1 in r done",
            "Create stack instance 2 in r began",
            "stack instance 2 in r failed: no role",
            "Create stack instance 3 in r began",
            "Create stack instance 3 in r done",
        ]
    );
}

/// What may fail somewhere has failed there all the same: those accounts have no backups, and a StackSet that still has their
/// stacks cannot be deleted.
#[tokio::test(start_paused = true)]
async fn what_fails_within_the_tolerance_is_named_as_well() {
    let mut wanted = of_accounts();
    wanted.fleet = serde_json::from_value(json!({
        "accounts": ["111122223333"], "regions": ["eu-central-1"], "failure_tolerance_percent": 5,
    }))
    .unwrap();
    let (create, make) = (set_made(), instances_made());
    let ended = operation(StackSetOperationStatus::Succeeded);
    let results = mock!(aws_sdk_cloudformation::Client::list_stack_set_operation_results).then_output(|| {
        let failed = StackSetOperationResultSummary::builder().account("111122223333").region("r");
        let failed = failed.status(StackSetOperationResultStatus::Failed).status_reason("no role");
        ListStackSetOperationResultsOutput::builder().summaries(failed.build()).build()
    });
    let (cx, _) = context(aws(&[&create, &make, &ended, &results]));
    let failures = deploy(&cx, &wanted, &body(), None, &Free).await.unwrap();
    assert_eq!(failures[0].reason, "no role");
}

/// CloudFormation leaves such a stack out of whatever it does next; to run the command again helps nobody.
#[tokio::test(start_paused = true)]
async fn a_stack_that_could_not_be_deleted_takes_a_person_and_the_command_says_how() {
    let wanted = of_accounts();
    let (cx, _) = context(aws(&[]));
    let there = found(&wanted, &[("111122223333", "CURRENT"), ("444455556666", "INOPERABLE")]);
    let failures = deploy(&cx, &wanted, &body(), Some(&there), &Free).await.unwrap();
    assert_eq!((failures.len(), failures[0].account.as_str()), (1, "444455556666"));
    assert!(failures[0].reason.contains("--retain-stacks"), "{failures:?}");
}

/// Ctrl-C is not answered after twelve hours, and does not say that CloudFormation has stopped.
#[tokio::test(start_paused = true)]
async fn an_interrupted_fleet_says_that_cloudformation_goes_on() {
    let (create, make) = (set_made(), instances_made());
    let running = operation(StackSetOperationStatus::Running);
    let (cx, _) = context(aws(&[&create, &make, &running]));
    let error = deploy(&cx, &of_accounts(), &body(), None, &Interrupted).await.unwrap_err();
    assert_eq!(error, StepError::Halted("interrupted; CloudFormation goes on by itself".to_owned()));
}

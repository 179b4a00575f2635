//! What the emulators cannot show: AWS's races and refusals, with the SDK's own clients and no network.

mod changes;
mod key;
mod notifications;

use std::sync::{Arc, Mutex};

use aws_sdk_lambda::error::ErrorMetadata;
use aws_sdk_lambda::operation::create_function::{CreateFunctionError, CreateFunctionOutput};
use aws_sdk_lambda::operation::get_function::GetFunctionOutput;
use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::operation::put_function_recursion_config::PutFunctionRecursionConfigOutput;
use aws_sdk_lambda::types::{LastUpdateStatus, State, TagsError};
use aws_sdk_scheduler::operation::create_schedule::{CreateScheduleError, CreateScheduleOutput};
use aws_sdk_sqs::operation::create_queue::{CreateQueueError, CreateQueueOutput};
use aws_sdk_sqs::operation::delete_queue::DeleteQueueOutput;
use aws_sdk_sqs::operation::get_queue_url::{GetQueueUrlError, GetQueueUrlOutput};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use serde_json::json;

use super::*;
use crate::aws::LocalEndpoints;
use crate::bundle::tests::good;
use crate::error::ErrorClass;

fn refusal(code: &str, message: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message(message).build()
}

/// Clients that reach nothing; a test puts in the one it is about.
fn aws() -> Aws {
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    Aws::local(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere)
}

/// A context, and the reasons for waiting that it is told.
fn context(aws: Aws) -> (Context, Arc<Mutex<Vec<&'static str>>>) {
    let scope = Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "test".parse().unwrap(),
        iam: crate::environment::Iam::default(),
        encryption: crate::environment::Encryption::default(),
    };
    let waits: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let heard = waits.clone();
    let listener: Listener = Arc::new(move |event| {
        if let Event::Waiting { reason, .. } = event {
            heard.lock().unwrap().push(reason);
        }
    });
    let cx = Context::new(aws, scope, Some(Arc::new(good())), listener);
    (cx.for_resource(&ResourceId::new("kind", "name")), waits)
}

fn wanted<K: Kind>(properties: serde_json::Value) -> K::Properties {
    serde_json::from_value(properties).unwrap()
}

fn function(cx: &Context) -> <LambdaFunction as Kind>::Properties {
    let code = cx.bundle.as_ref().unwrap().manifest.functions.backup.code_sha256.clone();
    wanted::<LambdaFunction>(json!({
        "version": {
            "code_sha256": code, "role": "arn:aws:iam::123456789012:role/r", "runtime": "provided.al2023",
            "architecture": "arm64", "handler": "bootstrap", "memory_mb": 256, "timeout_seconds": 900,
            "environment": {}, "log_group": "/aws/lambda/f", "log_format": "JSON",
            "application_log_level": "INFO", "system_log_level": "INFO", "layers": [], "subnets": [],
        },
        "last_change_succeeded": true, "reserved_concurrency": null, "recursive_loop": "Allow",
        "package_type": "Zip", "permissions": {}, "tags": {},
    }))
}

/// The first deploy of everybody meets this: a role takes seconds to reach Lambda.
#[tokio::test(start_paused = true)]
async fn a_role_that_lambda_cannot_assume_yet_is_waited_for() {
    let not_yet = || {
        CreateFunctionError::generic(refusal(
            "InvalidParameterValueException",
            "The role defined for the function cannot be assumed by Lambda.",
        ))
    };
    let create = mock!(aws_sdk_lambda::Client::create_function)
        .sequence()
        .error(not_yet)
        .times(3)
        .output(|| CreateFunctionOutput::builder().build())
        .build();
    let ready = mock!(aws_sdk_lambda::Client::get_function_configuration).then_output(|| {
        let status = GetFunctionConfigurationOutput::builder().state(State::Active);
        status.last_update_status(LastUpdateStatus::Successful).build()
    });
    let recursion = mock!(aws_sdk_lambda::Client::put_function_recursion_config)
        .then_output(|| PutFunctionRecursionConfigOutput::builder().build());
    let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&create, &ready, &recursion]);
    let (cx, waits) = context(Aws { lambda, ..aws() });
    LambdaFunction::create(&cx, "f", &function(&cx)).await.unwrap();
    assert_eq!(create.num_calls(), 4);
    assert_eq!(*waits.lock().unwrap(), ["IAM to let Lambda assume the role"; 3]);
}

/// A guard that retries everything hides the real error for five minutes; one that gives up must show AWS's own.
#[tokio::test(start_paused = true)]
async fn other_refusals_are_not_waited_for_and_the_wait_ends_with_awss_own_words() {
    for (code, message, calls) in [
        ("InvalidParameterValueException", "Unzipped size must be smaller than 262144000 bytes", 1..2),
        ("AccessDeniedException", "not authorized to perform: lambda:CreateFunction", 1..2),
        (
            "InvalidParameterValueException",
            "The role defined for the function cannot be assumed by Lambda.",
            20..200,
        ),
    ] {
        let create = mock!(aws_sdk_lambda::Client::create_function)
            .then_error(move || CreateFunctionError::generic(refusal(code, message)));
        let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&create]);
        let (cx, _) = context(Aws { lambda, ..aws() });
        let error = LambdaFunction::create(&cx, "f", &function(&cx)).await.unwrap_err();
        assert!(calls.contains(&create.num_calls()), "{code}: {} calls", create.num_calls());
        assert_eq!(error.to_string(), format!("lambda:CreateFunction: {code}: {message}"));
    }
}

/// Without the right to see tags, our own function must not look like a stranger's: a destroy would leave it behind.
#[tokio::test]
async fn tags_that_may_not_be_seen_are_not_taken_for_no_tags() {
    let get = mock!(aws_sdk_lambda::Client::get_function).then_output(|| {
        let denied =
            TagsError::builder().error_code("AccessDeniedException").message("not authorized").build();
        GetFunctionOutput::builder().tags_error(denied.unwrap()).build()
    });
    let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&get]);
    let (cx, _) = context(Aws { lambda, ..aws() });
    let Err(error) = LambdaFunction::observe(&cx).await else { panic!("it was taken for no tags") };
    assert_eq!((error.call, error.class), ("lambda:ListTags", ErrorClass::AccessDenied));
}

/// EventBridge Scheduler checks the role when a schedule is made, some seconds before IAM has told it everything.
#[tokio::test(start_paused = true)]
async fn a_role_that_the_scheduler_cannot_assume_yet_is_waited_for() {
    let not_yet = || {
        CreateScheduleError::generic(refusal(
            "ValidationException",
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.",
        ))
    };
    let create = mock!(aws_sdk_scheduler::Client::create_schedule)
        .sequence()
        .error(not_yet)
        .times(2)
        .output(|| CreateScheduleOutput::builder().schedule_arn("arn").build().unwrap())
        .build();
    let scheduler = mock_client!(aws_sdk_scheduler, RuleMode::MatchAny, [&create]);
    let (cx, waits) = context(Aws { scheduler, ..aws() });
    let schedule = wanted::<Schedule>(json!({
        "expression": "cron(0 2 * * ? *)", "timezone": "UTC", "flexible_minutes": 0, "enabled": true, "starts": null,
        "ends": null, "target": "arn", "role": "arn", "input": "{}", "retry_attempts": 5,
        "retry_max_age_seconds": 3600, "dead_letter_queue": "arn",
    }));
    Schedule::create(&cx, "backup", &schedule).await.unwrap();
    assert_eq!(*waits.lock().unwrap(), ["IAM to let EventBridge Scheduler assume the role"; 2]);
}

fn queue() -> <DeadLetterQueue as Kind>::Properties {
    wanted::<DeadLetterQueue>(json!({ "retention_seconds": 60, "sqs_managed_encryption": true, "tags": {} }))
}

/// Destroy and deploy in one pipeline: the name of a deleted queue is taken for a minute.
#[tokio::test(start_paused = true)]
async fn the_name_of_a_deleted_queue_is_waited_for() {
    let taken = || {
        let code = "AWS.SimpleQueueService.QueueDeletedRecently";
        CreateQueueError::generic(refusal(code, "You must wait 60 seconds after deleting a queue."))
    };
    let create = mock!(aws_sdk_sqs::Client::create_queue)
        .sequence()
        .error(taken)
        .times(5)
        .output(|| CreateQueueOutput::builder().build())
        .build();
    let sqs = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&create]);
    let (cx, waits) = context(Aws { sqs, ..aws() });
    DeadLetterQueue::create(&cx, "q", &queue()).await.unwrap();
    assert_eq!(waits.lock().unwrap().len(), 5);
}

/// A queue that still answers while it is deleted would be kept by the next deploy, and then be gone.
#[tokio::test(start_paused = true)]
async fn a_queue_counts_as_deleted_only_when_it_stays_away() {
    let delete =
        mock!(aws_sdk_sqs::Client::delete_queue).then_output(|| DeleteQueueOutput::builder().build());
    let there = || GetQueueUrlOutput::builder().queue_url("url").build();
    let gone = || GetQueueUrlError::generic(refusal("AWS.SimpleQueueService.NonExistentQueue", "gone"));
    let look = mock!(aws_sdk_sqs::Client::get_queue_url)
        .sequence()
        .output(there)
        .error(gone)
        .output(there)
        .error(gone)
        .times(3)
        .build();
    let sqs = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&delete, &look]);
    let (cx, _) = context(Aws { sqs, ..aws() });
    let handle = serde_json::from_value(json!({ "url": "http://q" })).unwrap();
    DeadLetterQueue::delete(&cx, "q", &Found { properties: queue(), handle, tags: None, revision: None })
        .await
        .unwrap();
    assert_eq!(look.num_calls(), 6);
}

/// Whoever may not read one thing, or meets one service that is down, still wants to see how last night went.
#[tokio::test(start_paused = true)]
async fn a_look_goes_on_without_what_cannot_be_read() {
    let gone = || GetQueueUrlError::generic(refusal("AWS.SimpleQueueService.NonExistentQueue", "gone"));
    let look = mock!(aws_sdk_sqs::Client::get_queue_url).then_error(gone);
    let sqs = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&look]);
    let (cx, _) = context(Aws { sqs, ..aws() });
    let (observed, unreadable) = registry().observe_readable(&cx).await;
    assert_eq!(observed, BTreeMap::new());
    let readable: Vec<_> =
        KINDS.iter().map(|kind| kind.name()).filter(|kind| !unreadable.contains_key(kind)).collect();
    // No key is asked for, so that KMS is not asked either.
    assert_eq!(readable, [Key::NAME, DeadLetterQueue::NAME]);
    assert!(registry().observe(&cx).await.is_err(), "nothing may be changed by half a look");
}

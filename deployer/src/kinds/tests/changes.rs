//! Every kind's changes, against services that throttle them, deny them, are busy, or say that it exists already.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_lambda::operation::delete_function::{DeleteFunctionError, DeleteFunctionOutput};
use aws_sdk_lambda::operation::update_function_configuration::{
    UpdateFunctionConfigurationError, UpdateFunctionConfigurationOutput,
};
use aws_sdk_lambda::types::FunctionConfiguration;
use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde_json::Value;

use super::*;
use crate::environment::{Environment, parse};
use crate::kinds::bad_answers::refusal as answer;
use crate::plan::Verb;
use crate::policy::role_policies;

/// One resource of a kind, as production wants it.
struct Sample {
    kind: &'static dyn AnyKind,
    name: String,
    wanted: Value,
}

fn production() -> Environment {
    let notify = "notify: { emails: [ops@example.org] }\n";
    let encryption = "encryption: { kms_key: { create: true }, at_rest: true }\n";
    let text = format!("{}{notify}{encryption}", include_str!("../../../../environments/prod.yaml"));
    parse(Path::new("prod.yaml"), &text).unwrap()
}

fn samples() -> Vec<Sample> {
    let environment = production();
    let scope = Scope::of(&environment);
    let code = good().manifest.functions.backup.code_sha256;
    let blueprint = Blueprint {
        environment: &environment,
        scope: &scope,
        policies: &role_policies(&environment, &scope).unwrap(),
        code: &Function::ALL.map(|function| (function, code.clone())).into(),
        draining: None,
    };
    let sample = |kind: &&'static dyn AnyKind| {
        let (name, wanted) = kind.declare(&blueprint).into_iter().next().unwrap();
        Sample { kind: *kind, name, wanted }
    };
    KINDS.iter().map(sample).collect()
}

/// How many Regions were used. The SDK's clients of one service and Region share what they may spend on retries, and
/// what one test has spent must not be missing in another.
static REGIONS: AtomicUsize = AtomicUsize::new(0);

fn context_through(http: &SharedHttpClient) -> Context {
    let environment = production();
    let scope = Scope::of(&environment);
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    let letters = ('a'..='z').flat_map(|first| ('a'..='z').map(move |second| format!("{first}{second}")));
    let region = letters.map(|name| format!("eu-{name}-1")).nth(REGIONS.fetch_add(1, Ordering::Relaxed));
    let aws = Aws::local_through(&region.unwrap().try_into().unwrap(), &nowhere, http);
    let cx = Context::new(aws, scope, Some(Arc::new(good())), Arc::new(|_| ()));
    cx.with_endpoints(endpoints(&environment.notify))
}

impl Sample {
    /// What is there, so that a change has something to do.
    fn found(&self) -> Found {
        let handle = match self.kind.name() {
            DeadLetterQueue::NAME => json!({ "url": "http://127.0.0.1:9/q" }),
            Alias::NAME => json!({ "version": "1" }),
            Key::NAME => json!({ "id": "k", "arn": "arn:aws:kms:eu-central-1:123456789012:key/k" }),
            Schedule::NAME => json!({ "created": null }),
            Subscription::NAME => {
                json!({ "arn": "arn:aws:sns:eu-central-1:123456789012:t:1", "pending": false })
            }
            _ => Value::Null,
        };
        let mut properties = self.wanted.clone();
        if let Some(tags) = properties.get_mut("tags") {
            *tags = json!({});
        }
        if let Some(serves) = properties.get_mut("serves") {
            serves["memory_mb"] = 1.into();
        }
        Found { properties, handle, tags: None, revision: None }
    }

    async fn attempt(&self, cx: &Context, verb: Verb) -> AwsError {
        let Self { kind, name, wanted } = self;
        let result = match verb {
            Verb::Create => kind.create(cx, name, wanted).await,
            Verb::Update => kind.update(cx, name, &self.found(), wanted).await,
            _ => kind.delete(cx, name, &self.found()).await,
        };
        match result {
            Err(StepError::Aws(error)) => error,
            other => panic!("{} {verb:?}: {other:?}", kind.name()),
        }
    }
}

const VERBS: [Verb; 3] = [Verb::Create, Verb::Update, Verb::Delete];

/// A busy minute of AWS's must not leave an environment half deployed, and one that lasts must be called by its name.
#[tokio::test(start_paused = true)]
async fn every_change_that_is_throttled_is_tried_again() {
    for sample in samples() {
        for verb in VERBS {
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = calls.clone();
            let http = infallible_client_fn(move |request| {
                counted.fetch_add(1, Ordering::Relaxed);
                answer(&request, 400, "ThrottlingException")
            });
            let error = sample.attempt(&context_through(&http), verb).await;
            let what = format!("{} {verb:?}: {error}", sample.kind.name());
            assert_eq!(error.class, ErrorClass::Throttled, "{what}");
            assert!(calls.load(Ordering::Relaxed) >= 5, "{what}");
        }
    }
}

/// A step that lacks a right fails at once, by the right's name.
#[tokio::test(start_paused = true)]
async fn every_change_that_is_denied_names_the_right() {
    for sample in samples() {
        for verb in VERBS {
            let http = infallible_client_fn(|request| answer(&request, 403, "AccessDenied"));
            let error = sample.attempt(&context_through(&http), verb).await;
            let what = format!("{} {verb:?}: {error}", sample.kind.name());
            assert!(error.class == ErrorClass::AccessDenied && error.hint().is_some(), "{what}");
            assert!(error.call.contains(':'), "{what}");
        }
    }
}

/// The SDK repeats a call whose answer was lost. Where "it exists already" is not understood, the deploy fails over
/// what it has just made.
#[tokio::test(start_paused = true)]
async fn what_exists_already_is_understood_in_every_services_words() {
    for (kind, code) in [
        (LogGroup::NAME, "ResourceAlreadyExistsException"),
        (DeadLetterQueue::NAME, "QueueAlreadyExists"),
        (DeadLetterQueue::NAME, "QueueNameExists"),
        (Role::NAME, "EntityAlreadyExists"),
        (Schedule::NAME, "ConflictException"),
    ] {
        let samples = samples();
        let sample = samples.iter().find(|sample| sample.kind.name() == kind).unwrap();
        let http = infallible_client_fn(move |request| answer(&request, 409, code));
        let error = sample.attempt(&context_through(&http), Verb::Create).await;
        assert_eq!(error.class, ErrorClass::AlreadyExists, "{kind}: {error}");
    }
    let exists = || {
        let code = "ResourceConflictException";
        CreateFunctionError::generic(refusal(code, "Function already exist: f"))
    };
    let create = mock!(aws_sdk_lambda::Client::create_function).then_error(exists);
    let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&create]);
    let (cx, waits) = context(Aws { lambda, ..aws() });
    let Err(StepError::Aws(error)) = LambdaFunction::create(&cx, "f", &function(&cx)).await else { panic!() };
    assert_eq!((error.class, create.num_calls()), (ErrorClass::AlreadyExists, 1));
    assert!(waits.lock().unwrap().is_empty(), "to wait for it would be in vain");
}

/// Lambda refuses a deletion while an earlier change is under way: a destroy right after a deploy meets it.
#[tokio::test(start_paused = true)]
async fn a_function_that_is_busy_is_waited_for() {
    let busy = || {
        let message = "An update is in progress for resource: f";
        DeleteFunctionError::generic(refusal("ResourceConflictException", message))
    };
    let delete = mock!(aws_sdk_lambda::Client::delete_function)
        .sequence()
        .error(busy)
        .times(3)
        .output(|| DeleteFunctionOutput::builder().build())
        .build();
    let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&delete]);
    let (cx, waits) = context(Aws { lambda, ..aws() });
    let found = Found { properties: function(&cx), handle: (), tags: None, revision: None };
    LambdaFunction::delete(&cx, "f", &found).await.unwrap();
    assert_eq!(*waits.lock().unwrap(), ["Lambda to finish an earlier change of the function"; 3]);
}

/// Changes the memory of a function whose revision is not the one that was observed; `now` is what Lambda says its
/// memory is. Answers the result with the revisions that were tried.
async fn update_of_another_revision(now: i32) -> (Result<(), StepError>, usize) {
    let refused = || {
        let code = "PreconditionFailedException";
        UpdateFunctionConfigurationError::generic(refusal(code, "The Revision Id provided does not match"))
    };
    let stale = mock!(aws_sdk_lambda::Client::update_function_configuration)
        .match_requests(|request| request.revision_id() == Some("old"))
        .then_error(refused);
    let fresh = mock!(aws_sdk_lambda::Client::update_function_configuration)
        .match_requests(|request| request.revision_id() == Some("new"))
        .then_output(|| UpdateFunctionConfigurationOutput::builder().build());
    let (cx, _) = context(aws());
    let wanted = function(&cx);
    let with_memory = |memory: i32| -> <LambdaFunction as Kind>::Properties {
        let mut properties = serde_json::to_value(&wanted).unwrap();
        properties["version"]["memory_mb"] = memory.into();
        serde_json::from_value(properties).unwrap()
    };
    let code = cx.bundle.as_ref().unwrap().manifest.functions.backup.code_sha256.clone();
    let look = mock!(aws_sdk_lambda::Client::get_function).then_output(move || {
        let logging = aws_sdk_lambda::types::LoggingConfig::builder()
            .log_format(aws_sdk_lambda::types::LogFormat::Json)
            .log_group("/aws/lambda/f");
        let configuration = FunctionConfiguration::builder()
            .code_sha256(&code)
            .role("arn:aws:iam::123456789012:role/r")
            .runtime(aws_sdk_lambda::types::Runtime::Providedal2023)
            .architectures(aws_sdk_lambda::types::Architecture::Arm64)
            .handler("bootstrap")
            .memory_size(now)
            .timeout(900)
            .logging_config(logging.build())
            .revision_id("new");
        GetFunctionOutput::builder().configuration(configuration.build()).build()
    });
    let ready = mock!(aws_sdk_lambda::Client::get_function_configuration).then_output(|| {
        let status = GetFunctionConfigurationOutput::builder().state(State::Active);
        status.last_update_status(LastUpdateStatus::Successful).build()
    });
    let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, [&stale, &fresh, &look, &ready]);
    let (cx, _) = context(Aws { lambda, ..aws() });
    let found =
        Found { properties: with_memory(128), handle: (), tags: None, revision: Some("old".to_owned()) };
    let result = LambdaFunction::update(&cx, "f", &found, &with_memory(256)).await;
    (result, stale.num_calls() + fresh.num_calls())
}

/// Whoever changed the function since it was looked at must not have that undone unseen; and a revision that only
/// Lambda itself has moved on must not fail a deploy.
#[tokio::test(start_paused = true)]
async fn a_function_that_somebody_else_changed_is_not_changed_over() {
    let (same_state, calls) = update_of_another_revision(128).await;
    assert_eq!((same_state, calls), (Ok(()), 2));
    let (already_done, calls) = update_of_another_revision(256).await;
    assert_eq!((already_done, calls), (Ok(()), 1));
    let (somebody_elses, calls) = update_of_another_revision(512).await;
    assert!(matches!(somebody_elses, Err(StepError::Changed { .. })), "{somebody_elses:?}");
    assert_eq!(calls, 1);
}

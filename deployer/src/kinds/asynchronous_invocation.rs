//! What Lambda does with an event whose run failed: how often it tries again, and where the event goes in the end.
//!
//! EventBridge Scheduler hands its events to Lambda and is done. Without a destination, an event whose last try failed
//! would be gone without a trace.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_lambda::types::{DestinationConfig, OnFailure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::alias::function_of;
use super::{
    Alias, Blueprint, Context, DeadLetterQueue, FoundOf, Kind, StepError, alias_name, last_word, under_names,
};
use crate::cloudformation::{Resource, logical_id};
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::scope::{ALIAS, Function, Scope};
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct AsynchronousInvocation;

/// What is wanted of the alias's settings; Lambda sets all of them in one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// How often a failed run is tried again, after one and then two minutes.
    retry_attempts: i32,
    /// How old an event may become that waits for its turn, in seconds.
    max_age_seconds: i32,
    /// ARNs of where events go: those given up, and those that succeeded. We want none of the latter.
    destinations: BTreeMap<String, String>,
}

/// The most that Lambda allows, and its default.
const RETRY_ATTEMPTS: i32 = 2;

/// How often a run is tried in all, unless it succeeds before.
pub(super) const ATTEMPTS: u32 = RETRY_ATTEMPTS.unsigned_abs() + 1;

/// Six hours: the most that Lambda allows, and its default.
const MAX_AGE_SECONDS: i32 = 6 * 60 * 60;

#[async_trait(?Send)]
impl Kind for AsynchronousInvocation {
    const NAME: &'static str = "asynchronous invocation";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let destination = blueprint.scope.dead_letter_queue_arn();
        Function::ALL
            .map(|function| {
                let properties = Properties {
                    retry_attempts: RETRY_ATTEMPTS,
                    max_age_seconds: MAX_AGE_SECONDS,
                    destinations: BTreeMap::from([("on_failure".to_owned(), destination.clone())]),
                };
                (alias_name(blueprint.scope, function), properties)
            })
            .into()
    }

    fn parent(name: &str, _: &Scope) -> Option<ResourceId> {
        Some(ResourceId::new(Alias::NAME, name))
    }

    fn needs(name: &str, scope: &Scope) -> Vec<ResourceId> {
        vec![
            ResourceId::new(Alias::NAME, name),
            ResourceId::new(DeadLetterQueue::NAME, scope.dead_letter_queue()),
        ]
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "retry_attempts" => "how often Lambda tries a failed run again",
            "max_age_seconds" => "how long Lambda keeps an event that it cannot start a run for",
            "destinations.on_failure" => "else an event whose last try failed is lost without a trace",
            "destinations.on_success" => "a destination that Snapwarden does not set",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let Properties { retry_attempts, max_age_seconds, .. } = found.properties;
        format!("tried {} times within {} h", retry_attempts + 1, max_age_seconds / 3600)
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let function = function_of(name);
        let to = |when: &str| wanted.destinations.get(when).map(|arn| json!({ "Destination": arn }));
        let properties = json!({
            "FunctionName": function,
            "Qualifier": ALIAS,
            "MaximumRetryAttempts": wanted.retry_attempts,
            "MaximumEventAgeInSeconds": wanted.max_age_seconds,
            "DestinationConfig": { "OnFailure": to("on_failure") },
        });
        let id = logical_id(last_word(function), "AsynchronousInvocation");
        vec![Resource::new(id, "AWS::Lambda::EventInvokeConfig", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const { &[Right::on(Resources::FunctionVersions, "lambda:GetFunctionEventInvokeConfig")] }
            }
            Purpose::Create | Purpose::Update => {
                const { &[Right::on(Resources::FunctionVersions, "lambda:PutFunctionEventInvokeConfig")] }
            }
            Purpose::Delete => {
                const { &[Right::on(Resources::FunctionVersions, "lambda:DeleteFunctionEventInvokeConfig")] }
            }
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        under_names(Function::ALL.map(|function| alias_name(&cx.scope, function)), async |name| {
            let call = cx.aws.lambda.get_function_event_invoke_config();
            let call = call.function_name(function_of(name)).qualifier(ALIAS);
            let answer = call.send().await.call("lambda:GetFunctionEventInvokeConfig").or_absent()?;
            let Some(settings) = answer else { return Ok(None) };
            let destinations = settings.destination_config;
            let failure = destinations.as_ref().and_then(|to| to.on_failure.as_ref()?.destination.clone());
            let success = destinations.as_ref().and_then(|to| to.on_success.as_ref()?.destination.clone());
            let named = [("on_failure", failure), ("on_success", success)];
            let named = named.into_iter().filter_map(|(when, arn)| Some((when.to_owned(), arn?)));
            let properties = Properties {
                // Lambda's defaults, where nothing is set.
                retry_attempts: settings.maximum_retry_attempts.unwrap_or(RETRY_ATTEMPTS),
                max_age_seconds: settings.maximum_event_age_in_seconds.unwrap_or(MAX_AGE_SECONDS),
                destinations: named.collect(),
            };
            Ok(Some(Found { properties, handle: (), tags: None, revision: None }))
        })
        .await
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let call = cx.aws.lambda.put_function_event_invoke_config();
        let call = call.function_name(function_of(name)).qualifier(ALIAS);
        let call = call.maximum_retry_attempts(wanted.retry_attempts);
        let call = call.maximum_event_age_in_seconds(wanted.max_age_seconds);
        let on_failure = OnFailure::builder().set_destination(wanted.destinations.get("on_failure").cloned());
        let destinations = DestinationConfig::builder().on_failure(on_failure.build()).build();
        // Lambda checks that the role may write to the destination, a new role's policy takes some seconds to arrive.
        wait::retry(cx, &[wait::ROLE_FOR_DESTINATION, wait::FUNCTION_BUSY], async || {
            let call = call.clone().destination_config(destinations.clone());
            call.send().await.call("lambda:PutFunctionEventInvokeConfig")
        })
        .await?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        name: &str,
        _: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        Self::create(cx, name, wanted).await
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        let call = cx.aws.lambda.delete_function_event_invoke_config();
        let call = call.function_name(function_of(name)).qualifier(ALIAS);
        call.send().await.call("lambda:DeleteFunctionEventInvokeConfig").or_absent()?;
        Ok(())
    }
}

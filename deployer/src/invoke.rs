//! Invokes a deployed function and waits for its answer.

use std::time::Duration;

use aws_sdk_lambda::config::Builder;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use snapwarden_domain::event::Event;

use crate::aws::Aws;
use crate::error::{AwsError, Call};
use crate::rights::{Resources, Right};

/// What it takes to invoke the functions.
pub const RIGHTS: &[Right] = &[Right::on(Resources::FunctionVersions, "lambda:InvokeFunction")];

/// What a function answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The version that ran.
    pub version: Option<String>,
    /// Whether the function failed.
    pub failed: bool,
    /// The function's report, or Lambda's error object.
    pub payload: Value,
    /// The last 4 KB of the invocation's log.
    #[serde(skip)]
    pub log_tail: String,
}

impl Answer {
    /// The error's message, where the function failed.
    pub fn error_message(&self) -> Option<&str> {
        self.failed.then(|| self.payload.get("errorMessage").and_then(Value::as_str).unwrap_or("no message"))
    }
}

/// A run lasts up to 900 s without a byte on the connection. Where that breaks, the run goes on: asking again would
/// start a second one beside it.
fn once() -> Builder {
    let patience = TimeoutConfig::builder().read_timeout(Duration::from_secs(930)).build();
    Builder::new().retry_config(RetryConfig::disabled()).timeout_config(patience)
}

/// Invokes `target`, the ARN of a function or of an alias, and waits until the run has ended.
pub async fn invoke(aws: &Aws, target: &str, event: &Event) -> Result<Answer, AwsError> {
    let payload = serde_json::json!(event).to_string();
    let call = aws.lambda.invoke().function_name(target).invocation_type(InvocationType::RequestResponse);
    let call = call.log_type(LogType::Tail).payload(Blob::new(payload)).customize().config_override(once());
    let answer = call.send().await.call("lambda:InvokeFunction")?;
    let bytes = answer.payload.map(Blob::into_inner).unwrap_or_default();
    let payload = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    let log_tail = answer.log_result.and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap_or_default();
    Ok(Answer {
        version: answer.executed_version,
        failed: answer.function_error.is_some(),
        payload,
        log_tail: String::from_utf8_lossy(&log_tail).into_owned(),
    })
}

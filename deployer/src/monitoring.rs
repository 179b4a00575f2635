//! How the alarms stand. Only looked at.

use jiff::Timestamp;
use serde::Serialize;

use crate::alarms;
use crate::aws::Aws;
use crate::error::{AwsError, Call};
use crate::scope::Scope;

/// An alarm and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlarmState {
    /// Its name.
    pub alarm: String,
    /// How it stands.
    pub state: State,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why, in CloudWatch's words.
    pub reason: String,
}

/// How an alarm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It rings.
    Ringing,
    /// All is well.
    Quiet,
    /// CloudWatch cannot tell: it has no data yet.
    Unknown,
}

/// The environment's alarms, those that ring first.
pub async fn alarm_states(aws: &Aws, scope: &Scope) -> Result<Vec<AlarmState>, AwsError> {
    let mut pages =
        aws.cloudwatch.describe_alarms().alarm_name_prefix(scope.alarm("")).into_paginator().send();
    let mut states = Vec::new();
    while let Some(page) = pages.next().await {
        for alarm in page.call("cloudwatch:DescribeAlarms")?.metric_alarms.unwrap_or_default() {
            let name = alarm.alarm_name.unwrap_or_default();
            // Somebody else's may begin like ours.
            if !alarms::all().any(|what| scope.alarm(&what) == name) {
                continue;
            }
            let state = match alarm.state_value.as_ref().map(aws_sdk_cloudwatch::types::StateValue::as_str) {
                Some("ALARM") => State::Ringing,
                Some("OK") => State::Quiet,
                _ => State::Unknown,
            };
            let since = alarm.state_updated_timestamp.and_then(|at| Timestamp::from_second(at.secs()).ok());
            states.push(AlarmState {
                alarm: name,
                state,
                since,
                reason: alarm.state_reason.unwrap_or_default(),
            });
        }
    }
    states.sort_by_key(|alarm| (alarm.state != State::Ringing, alarm.alarm.clone()));
    Ok(states)
}

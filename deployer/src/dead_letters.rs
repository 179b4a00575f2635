//! The events in the dead-letter queue: runs that were given up. Looked at, and taken out by whoever has seen to them.

use std::collections::BTreeMap;

use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName as SystemAttribute,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use snapwarden_domain::run::{RunId, ScheduleName};

use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Resources, Right};
use crate::scope::{Function, Scope};

/// What it takes to read the queue and to empty it.
pub const RIGHTS: &[Right] = &[
    Right::on(Resources::DeadLetterQueue, "sqs:ReceiveMessage"),
    Right::on(Resources::DeadLetterQueue, "sqs:DeleteMessage"),
];

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// When it came into the queue.
    pub at: Option<Timestamp>,
    /// Who gave it up.
    pub from: Sender,
    /// The function that it was for, where that can be told.
    pub function: Option<Function>,
    /// The run that was missed, where that can be told.
    pub run: Option<RunId>,
    /// Why it was given up, in the sender's words.
    pub reason: String,
    /// SQS's id of the message.
    pub message: String,
    /// By which SQS deletes it.
    #[serde(skip)]
    receipt: String,
}

/// Who gave an event up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// EventBridge Scheduler could not hand it to Lambda.
    Scheduler,
    /// The function failed, or never ran, in all of Lambda's attempts.
    Lambda,
    /// Somebody else put it there.
    Unknown,
}

/// SQS hands out and deletes at most so many at a time (source: SQS API, `ReceiveMessage`, `DeleteMessageBatch`).
const BATCH: i32 = 10;

/// More than this nobody reads one by one.
const MOST: usize = 1_000;

/// How long nobody else gets what was just read, in seconds: long enough to list all, and to answer a question.
const HIDDEN_SECONDS: i32 = 60;

/// SQS asks only some of its servers unless it is told to wait, and may miss messages (source: SQS developer guide,
/// "Amazon SQS short and long polling").
const WAIT_SECONDS: i32 = 1;

/// The events in the queue, the oldest first; `None` where there is no queue.
pub async fn list(aws: &Aws, scope: &Scope) -> Result<Option<Vec<DeadLetter>>, AwsError> {
    let Some(queue) = queue(aws, scope).await? else { return Ok(None) };
    let mut found = BTreeMap::new();
    loop {
        let before = found.len();
        let call = aws.sqs.receive_message().queue_url(&queue).max_number_of_messages(BATCH);
        let call = call.visibility_timeout(HIDDEN_SECONDS).wait_time_seconds(WAIT_SECONDS);
        let call = call.message_attribute_names("All").message_system_attribute_names(SystemAttribute::All);
        let answer = call.send().await.call("sqs:ReceiveMessage")?;
        let messages = answer.messages.unwrap_or_default();
        // At least once: one may come again, and then only its last receipt deletes it.
        found.extend(messages.iter().map(|message| {
            let letter = read(message, scope);
            (letter.message.clone(), letter)
        }));
        if found.len() == before || found.len() >= MOST {
            break;
        }
    }
    let mut letters: Vec<_> = found.into_values().collect();
    letters.sort_by(|a, b| (a.at, &a.message).cmp(&(b.at, &b.message)));
    Ok(Some(letters))
}

/// Deletes these events and no others: what came after they were listed has been seen by nobody. Returns the ids of
/// those that SQS did not delete, each with the reason.
pub async fn delete(
    aws: &Aws,
    scope: &Scope,
    letters: &[DeadLetter],
) -> Result<BTreeMap<String, String>, AwsError> {
    let mut failed = BTreeMap::new();
    let Some(queue) = queue(aws, scope).await? else { return Ok(failed) };
    for batch in letters.chunks(BATCH.unsigned_abs() as usize) {
        let entry = |(index, letter): (usize, &DeadLetter)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(&letter.receipt).build()
        };
        let entries = batch.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>();
        let entries = entries
            .map_err(|error| AwsError::answered("sqs:DeleteMessage", None, Some(error.to_string())))?;
        let call = aws.sqs.delete_message_batch().queue_url(&queue).set_entries(Some(entries));
        let answer = call.send().await.call("sqs:DeleteMessage")?;
        for refused in answer.failed() {
            let letter = refused.id().parse::<usize>().ok().and_then(|index| batch.get(index));
            let reason = refused.message().unwrap_or_else(|| refused.code()).to_owned();
            failed.extend(letter.map(|letter| (letter.message.clone(), reason)));
        }
    }
    Ok(failed)
}

async fn queue(aws: &Aws, scope: &Scope) -> Result<Option<String>, AwsError> {
    let queue = aws.sqs.get_queue_url().queue_name(scope.dead_letter_queue()).send().await;
    Ok(queue.call("sqs:GetQueueUrl").or_absent()?.and_then(|queue| queue.queue_url))
}

fn read(message: &Message, scope: &Scope) -> DeadLetter {
    let attributes = message.message_attributes.iter().flatten();
    let attributes: BTreeMap<&str, &str> =
        attributes.filter_map(|(name, value)| Some((name.as_str(), value.string_value()?))).collect();
    let sent = message.attributes().and_then(|attributes| attributes.get(&SystemAttribute::SentTimestamp));
    let body = serde_json::from_str(message.body().unwrap_or_default()).unwrap_or(Value::Null);
    let letter = DeadLetter {
        at: sent.and_then(|sent| Timestamp::from_millisecond(sent.parse().ok()?).ok()),
        from: Sender::Unknown,
        function: None,
        run: None,
        reason: "nobody knows why".to_owned(),
        message: message.message_id().unwrap_or_default().to_owned(),
        receipt: message.receipt_handle().unwrap_or_default().to_owned(),
    };
    of_scheduler(&letter, &attributes, &body, scope)
        .or_else(|| of_lambda(&letter, &body, scope))
        .unwrap_or(letter)
}

/// Source: EventBridge Scheduler user guide, "Configuring a dead-letter queue", message attributes.
fn of_scheduler(
    letter: &DeadLetter,
    attributes: &BTreeMap<&str, &str>,
    event: &Value,
    scope: &Scope,
) -> Option<DeadLetter> {
    let code = attributes.get("ERROR_CODE")?;
    let attribute = |name: &str| attributes.get(name).copied();
    let run = attribute("SCHEDULE_ARN")
        .zip(attribute("SCHEDULED_TIME"))
        .and_then(|(schedule, at)| run_of(schedule, at));
    let reason = match attribute("ERROR_MESSAGE") {
        Some(message) => format!("{code}: {message}"),
        None => (*code).to_owned(),
    };
    Some(DeadLetter {
        from: Sender::Scheduler,
        function: function_of(attribute("TARGET_ARN").unwrap_or_default(), scope),
        run: run.or_else(|| run_in(event)),
        reason,
        ..letter.clone()
    })
}

/// Source: Lambda developer guide, "Capturing records of Lambda asynchronous invocations".
fn of_lambda(letter: &DeadLetter, record: &Value, scope: &Scope) -> Option<DeadLetter> {
    let text = |path: &str| record.pointer(path).and_then(Value::as_str);
    let condition = text("/requestContext/condition")?;
    let reason = match text("/responsePayload/errorMessage") {
        Some(message) => format!("{condition}: {}", message.lines().next().unwrap_or_default()),
        None => condition.to_owned(),
    };
    Some(DeadLetter {
        from: Sender::Lambda,
        function: function_of(text("/requestContext/functionArn").unwrap_or_default(), scope),
        run: record.get("requestPayload").and_then(run_in),
        reason,
        ..letter.clone()
    })
}

/// The run of an event, as far as it is one of ours.
fn run_in(event: &Value) -> Option<RunId> {
    run_of(event.get("schedule")?.as_str()?, event.get("scheduled_at")?.as_str()?)
}

fn run_of(schedule: &str, at: &str) -> Option<RunId> {
    Some(RunId::new(schedule.parse::<ScheduleName>().ok()?, at.parse().ok()?))
}

fn function_of(arn: &str, scope: &Scope) -> Option<Function> {
    Function::ALL.into_iter().find(|function| {
        arn.strip_prefix(&scope.function_arn(*function))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    })
}

#[cfg(test)]
mod tests;

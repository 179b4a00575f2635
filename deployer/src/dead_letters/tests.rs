use aws_sdk_sqs::operation::delete_message_batch::DeleteMessageBatchOutput;
use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlOutput;
use aws_sdk_sqs::operation::receive_message::ReceiveMessageOutput;
use aws_sdk_sqs::types::{BatchResultErrorEntry, MessageAttributeValue};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use serde_json::json;

use super::*;
use crate::aws::LocalEndpoints;

fn scope() -> Scope {
    crate::scope::tests::scope("prod")
}

fn message(id: &str, body: &str, attributes: &[(&str, &str)]) -> Message {
    let message = Message::builder().message_id(id).receipt_handle(format!("receipt of {id}")).body(body);
    let text = |value: &str| {
        MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
    };
    attributes
        .iter()
        .fold(message, |message, (name, value)| message.message_attributes(*name, text(value)))
        .attributes(SystemAttribute::SentTimestamp, "1795572000000")
        .build()
}

const SCHEDULE: &str = "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-prod/backup";
const TARGET: &str = "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-backup:live";

/// Whoever finds a lost night in the queue has to know which one it was, to run it again.
#[test]
fn a_lost_run_is_named_with_the_reason_whoever_gave_it_up() {
    let event = json!({ "scheduled_at": "2026-11-22T02:00:00Z", "schedule": SCHEDULE, "dry_run": false });
    let run: RunId = "snapwarden-prod/backup@2026-11-22T02:00:00Z".parse().unwrap();
    let of_lambda = json!({
        "requestContext": { "functionArn": TARGET, "condition": "RetriesExhausted" },
        "requestPayload": event,
        "responsePayload": { "errorType": "BackupFailed", "errorMessage": "run x: 1 FAILED\n- i-1: no" },
    });
    let attributes = [
        ("ERROR_CODE", "AccessDenied"),
        ("ERROR_MESSAGE", "not authorized to invoke"),
        ("SCHEDULE_ARN", SCHEDULE),
        ("SCHEDULED_TIME", "2026-11-22T02:00:00Z"),
        ("TARGET_ARN", TARGET),
    ];
    for (body, attributes, from, reason) in [
        (
            "<aws.scheduler.scheduled-time>",
            &attributes[..],
            Sender::Scheduler,
            "AccessDenied: not authorized to invoke",
        ),
        (&event.to_string(), &[attributes[0], attributes[4]], Sender::Scheduler, "AccessDenied"),
        (&of_lambda.to_string(), &[], Sender::Lambda, "RetriesExhausted: run x: 1 FAILED"),
    ] {
        let letter = read(&message("m", body, attributes), &scope());
        assert_eq!((letter.from, letter.reason.as_str()), (from, reason));
        assert_eq!((letter.function, letter.run.as_ref()), (Some(Function::Backup), Some(&run)), "{body}");
        assert_eq!(letter.at.unwrap().to_string(), "2026-11-25T02:00:00Z");
    }
}

/// The queue takes whatever somebody puts there.
#[test]
fn what_is_no_event_is_listed_all_the_same() {
    for body in ["", "no JSON", "[]", r#"{"requestContext":{"condition":7}}"#, r#"{"scheduled_at":"soon"}"#] {
        let letter = read(&message("m", body, &[]), &scope());
        assert_eq!((letter.from, letter.function, letter.run), (Sender::Unknown, None, None), "{body}");
    }
    let other = "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-backup-2";
    assert_eq!(function_of(other, &scope()), None);
}

/// What comes in while a person reads the list has been seen by nobody, and must not go with it.
#[tokio::test]
async fn only_what_was_listed_is_deleted_and_a_refusal_is_told() {
    let url = mock!(aws_sdk_sqs::Client::get_queue_url)
        .then_output(|| GetQueueUrlOutput::builder().queue_url("url").build());
    let receive = mock!(aws_sdk_sqs::Client::receive_message)
        .sequence()
        .output(|| {
            ReceiveMessageOutput::builder()
                .messages(message("a", "", &[]))
                .messages(message("b", "", &[]))
                .build()
        })
        .output(|| ReceiveMessageOutput::builder().messages(message("a", "", &[])).build())
        .build();
    let delete_batch = mock!(aws_sdk_sqs::Client::delete_message_batch)
        .match_requests(|request| {
            let receipts: Vec<_> = request.entries().iter().map(|entry| entry.receipt_handle()).collect();
            receipts == ["receipt of a", "receipt of b"]
        })
        .then_output(|| {
            let refused =
                BatchResultErrorEntry::builder().id("1").code("ReceiptHandleIsInvalid").sender_fault(true);
            let answer = DeleteMessageBatchOutput::builder().set_successful(Some(Vec::new()));
            answer.failed(refused.build().unwrap()).build().unwrap()
        });
    let sqs = mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&url, &receive, &delete_batch]);
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    let aws = Aws { sqs, ..Aws::local(&scope().region, &nowhere) };
    let letters = list(&aws, &scope()).await.unwrap().unwrap();
    assert_eq!(letters.len(), 2);
    let failed = delete(&aws, &scope(), &letters).await.unwrap();
    assert_eq!(failed, BTreeMap::from([("b".to_owned(), "ReceiptHandleIsInvalid".to_owned())]));
}

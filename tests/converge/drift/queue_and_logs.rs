//! The dead-letter queue and the log groups.

use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use snapwarden_deployer::aws::Aws;
use snapwarden_tests::block_on;

use super::{Drift, drift};

const LOGS: &str = "/aws/lambda/snapwarden-local-backup";

pub(super) fn drifts() -> Vec<Drift> {
    vec![
        drift(
            "queue: events kept shorter",
            |aws| set(aws, Attribute::MessageRetentionPeriod, "60"),
            &["~ dead-letter queue snapwarden-local-dead-letters", "retention_seconds: 60 → 1209600"],
        ),
        drift(
            "queue: encryption switched off",
            |aws| set(aws, Attribute::SqsManagedSseEnabled, "false"),
            &["sqs_managed_encryption: false → true"],
        ),
        drift(
            "queue: tag changed",
            |aws| tag_queue(aws, "project", "other"),
            &["tags.project: other → snapwarden"],
        ),
        drift("queue: tag added", |aws| tag_queue(aws, "owner", "eve"), &["tags.owner: eve (goes away)"]),
        drift(
            "queue: tag removed",
            |aws| {
                block_on(aws.sqs.untag_queue().queue_url(url(aws)).tag_keys("project").send()).unwrap();
            },
            &["tags.project: snapwarden (not set now)"],
        ),
        drift(
            "queue deleted",
            |aws| {
                block_on(aws.sqs.delete_queue().queue_url(url(aws)).send()).unwrap();
            },
            &["+ dead-letter queue snapwarden-local-dead-letters"],
        ),
        drift(
            "log retention removed",
            |aws| {
                block_on(aws.logs.delete_retention_policy().log_group_name(LOGS).send()).unwrap();
            },
            &["~ log group /aws/lambda/snapwarden-local-backup", "retention_days: 30 (not set now)"],
        ),
        drift(
            "log retention changed",
            |aws| {
                let call = aws.logs.put_retention_policy().log_group_name(LOGS).retention_in_days(1);
                block_on(call.send()).unwrap();
            },
            &["retention_days: 1 → 30"],
        ),
        drift(
            "log group: tag changed",
            |aws| tag_logs(aws, "project", "other"),
            &["tags.project: other → snapwarden"],
        ),
        drift("log group: tag added", |aws| tag_logs(aws, "owner", "eve"), &["tags.owner: eve (goes away)"]),
        drift(
            "log group: tag removed",
            |aws| {
                let call = aws.logs.untag_resource().resource_arn(logs_arn()).tag_keys("project");
                block_on(call.send()).unwrap();
            },
            &["tags.project: snapwarden (not set now)"],
        ),
        drift(
            "log group deleted",
            |aws| {
                block_on(aws.logs.delete_log_group().log_group_name(LOGS).send()).unwrap();
            },
            &["+ log group /aws/lambda/snapwarden-local-backup"],
        ),
    ]
}

fn url(aws: &Aws) -> String {
    let found = block_on(aws.sqs.get_queue_url().queue_name("snapwarden-local-dead-letters").send()).unwrap();
    found.queue_url.unwrap()
}

fn set(aws: &Aws, attribute: Attribute, value: &str) {
    let call = aws.sqs.set_queue_attributes().queue_url(url(aws)).attributes(attribute, value);
    block_on(call.send()).unwrap();
}

fn tag_queue(aws: &Aws, key: &str, value: &str) {
    block_on(aws.sqs.tag_queue().queue_url(url(aws)).tags(key, value).send()).unwrap();
}

fn logs_arn() -> String {
    format!("arn:aws:logs:eu-central-1:123456789012:log-group:{LOGS}")
}

fn tag_logs(aws: &Aws, key: &str, value: &str) {
    block_on(aws.logs.tag_resource().resource_arn(logs_arn()).tags(key, value).send()).unwrap();
}

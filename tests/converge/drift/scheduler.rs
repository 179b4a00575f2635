//! Schedules and their group.

use aws_sdk_scheduler::operation::update_schedule::builders::UpdateScheduleFluentBuilder as Update;
use aws_sdk_scheduler::primitives::DateTime;
use aws_sdk_scheduler::types::{RetryPolicy, ScheduleState, Tag, Target};
use snapwarden_deployer::aws::Aws;
use snapwarden_tests::block_on;

use super::{Drift, drift};

const GROUP: &str = "snapwarden-local";

pub(super) fn drifts() -> Vec<Drift> {
    vec![
        drift(
            "schedule disabled",
            |aws| edit(aws, |call| call.state(ScheduleState::Disabled)),
            &["~ schedule backup", "enabled: false → true"],
        ),
        drift(
            "cron edited",
            |aws| edit(aws, |call| call.schedule_expression("cron(0 2 1 * ? *)")),
            &["expression: cron(0 2 1 * ? *) → cron(0 2 * * ? *)"],
        ),
        drift(
            "zone edited",
            |aws| edit(aws, |call| call.schedule_expression_timezone("Asia/Tokyo")),
            &["timezone: Asia/Tokyo → UTC"],
        ),
        drift(
            "an end set",
            |aws| edit(aws, |call| call.end_date(DateTime::from_secs(1_900_000_000))),
            &["ends: 2030-03-17T17:46:40Z (goes away)"],
        ),
        drift(
            "target changed",
            |aws| edit_target(aws, |target| target.arn = target.arn.replace("backup", "cleanup")),
            &["target: arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-local-cleanup:live → \
               arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-local-backup:live"],
        ),
        drift(
            "a schedule that only pretends",
            |aws| {
                edit_target(aws, |target| {
                    target.input = target.input.take().map(|input| input.replace(":false", ":true"));
                });
            },
            &["input.dry_run: true → false"],
        ),
        drift(
            "retries switched off",
            |aws| {
                edit_target(aws, |target| {
                    target.retry_policy = Some(RetryPolicy::builder().maximum_retry_attempts(0).build());
                });
            },
            &["retry_attempts: 0 → 5"],
        ),
        drift(
            "dead-letter queue taken away",
            |aws| edit_target(aws, |target| target.dead_letter_config = None),
            &["dead_letter_queue: ", "arn:aws:sqs:eu-central-1:123456789012:snapwarden-local-dead-letters"],
        ),
        drift(
            "schedule deleted",
            |aws| {
                block_on(aws.scheduler.delete_schedule().group_name(GROUP).name("backup").send()).unwrap();
            },
            &["+ schedule backup"],
        ),
        drift("a schedule added", add_schedule, &["- schedule weekly"]),
        drift(
            "group: tag changed",
            |aws| tag(aws, "project", "other"),
            &["tags.project: other → snapwarden"],
        ),
        drift("group: tag added", |aws| tag(aws, "owner", "eve"), &["tags.owner: eve (goes away)"]),
        drift(
            "group: tag removed",
            |aws| {
                block_on(aws.scheduler.untag_resource().resource_arn(arn()).tag_keys("project").send())
                    .unwrap();
            },
            &["~ schedule group snapwarden-local", "tags.project: snapwarden (not set now)"],
        ),
        drift(
            "group deleted",
            |aws| {
                block_on(aws.scheduler.delete_schedule_group().name(GROUP).send()).unwrap();
            },
            &["+ schedule group snapwarden-local", "+ schedule backup", "+ schedule cleanup"],
        ),
    ]
}

fn arn() -> String {
    format!("arn:aws:scheduler:eu-central-1:123456789012:schedule-group/{GROUP}")
}

fn tag(aws: &Aws, key: &str, value: &str) {
    let tag = Tag::builder().key(key).value(value).build().unwrap();
    block_on(aws.scheduler.tag_resource().resource_arn(arn()).tags(tag).send()).unwrap();
}

/// What the console does: the backup schedule as it is, but for one change.
fn edit(aws: &Aws, change: impl FnOnce(Update) -> Update) {
    let now = block_on(aws.scheduler.get_schedule().group_name(GROUP).name("backup").send()).unwrap();
    let call = aws.scheduler.update_schedule().group_name(GROUP).name("backup");
    let call = call.set_schedule_expression(now.schedule_expression).set_target(now.target);
    let call = call.set_schedule_expression_timezone(now.schedule_expression_timezone);
    let call = call.set_flexible_time_window(now.flexible_time_window).set_state(now.state);
    block_on(change(call).send()).unwrap();
}

fn edit_target(aws: &Aws, change: impl FnOnce(&mut Target)) {
    edit(aws, |call| {
        let mut target = call.get_target().clone().unwrap();
        change(&mut target);
        call.target(target)
    });
}

fn add_schedule(aws: &Aws) {
    let now = block_on(aws.scheduler.get_schedule().group_name(GROUP).name("backup").send()).unwrap();
    let call = aws.scheduler.create_schedule().group_name(GROUP).name("weekly").set_target(now.target);
    let call = call.schedule_expression("rate(7 days)").set_flexible_time_window(now.flexible_time_window);
    block_on(call.send()).unwrap();
}

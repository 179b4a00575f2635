//! Who is told, by what, and what they look at.

use snapwarden_deployer::aws::Aws;
use snapwarden_tests::block_on;

use super::{Drift, drift};

const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:snapwarden-local-notifications";
const ALARM: &str = "snapwarden-local.stale-backup";
const ALARM_ARN: &str = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:snapwarden-local.stale-backup";
const DASHBOARD: &str = "snapwarden-local-eu-central-1";

pub(super) fn drifts() -> Vec<Drift> {
    topic().into_iter().chain(alarm()).chain(dashboard()).collect()
}

fn topic() -> Vec<Drift> {
    vec![
        drift(
            "topic: renamed",
            |aws| set(aws, "DisplayName", "mine"),
            &["~ topic snapwarden-local-notifications", "display_name: mine → Snapwarden local"],
        ),
        drift(
            "topic: everybody may publish",
            |aws| {
                let policy = format!(
                    r#"{{"Version":"2012-10-17","Statement":[{{"Sid":"Eve","Effect":"Allow","Principal":"*",
                    "Action":"sns:Publish","Resource":"{TOPIC}"}}]}}"#
                );
                set(aws, "Policy", &policy);
            },
            &["policy.Statement[Eve].Action: sns:Publish (goes away)", "policy.Statement[AlarmsPublish]"],
        ),
        drift(
            "topic: tag changed",
            |aws| {
                let tag = aws_sdk_sns::types::Tag::builder().key("project").value("other").build().unwrap();
                block_on(aws.sns.tag_resource().resource_arn(TOPIC).tags(tag).send()).unwrap();
            },
            &["tags.project: other → snapwarden"],
        ),
        drift(
            "topic: somebody else listens",
            |aws| {
                let call = aws.sns.subscribe().topic_arn(TOPIC).protocol("email");
                block_on(call.endpoint("eve@example.org").send()).unwrap();
            },
            &["- subscription email:eve@example.org"],
        ),
        drift(
            "topic deleted",
            |aws| {
                block_on(aws.sns.delete_topic().topic_arn(TOPIC).send()).unwrap();
            },
            &["+ topic snapwarden-local-notifications"],
        ),
    ]
}

fn alarm() -> Vec<Drift> {
    vec![
        drift(
            "alarm: switched off",
            |aws| {
                block_on(aws.cloudwatch.disable_alarm_actions().alarm_names(ALARM).send()).unwrap();
            },
            &["~ alarm snapwarden-local.stale-backup", "actions_enabled: false → true"],
        ),
        drift(
            "alarm: tells nobody, and later",
            |aws| {
                let call = aws.cloudwatch.put_metric_alarm().alarm_name(ALARM).namespace("Snapwarden");
                let call = call.metric_name("OldestBackupAgeHours").statistic("Maximum".into());
                let call = call.period(3600).evaluation_periods(1).threshold(1000.0);
                block_on(call.comparison_operator("GreaterThanThreshold".into()).send()).unwrap();
            },
            &[
                "condition.threshold: 1000.0 → 36.0",
                "alarm_actions: arn:aws:sns:eu-central-1:123456789012:snapwarden-local-notifications (not set now)",
                "condition.missing_data: missing → ignore",
            ],
        ),
        drift(
            "alarm: tag removed",
            |aws| {
                let call = aws.cloudwatch.untag_resource().resource_arn(ALARM_ARN).tag_keys("project");
                block_on(call.send()).unwrap();
            },
            &["tags.project: snapwarden (not set now)"],
        ),
        drift(
            "alarm deleted",
            |aws| {
                block_on(aws.cloudwatch.delete_alarms().alarm_names(ALARM).send()).unwrap();
            },
            &["+ alarm snapwarden-local.stale-backup"],
        ),
    ]
}

fn dashboard() -> Vec<Drift> {
    vec![
        drift(
            "dashboard: a chart removed",
            |aws| {
                let found =
                    block_on(aws.cloudwatch.get_dashboard().dashboard_name(DASHBOARD).send()).unwrap();
                let mut body: serde_json::Value =
                    serde_json::from_str(&found.dashboard_body.unwrap()).unwrap();
                body["widgets"].as_array_mut().unwrap().pop();
                let call = aws.cloudwatch.put_dashboard().dashboard_name(DASHBOARD);
                block_on(call.dashboard_body(body.to_string()).send()).unwrap();
            },
            &["~ dashboard snapwarden-local-eu-central-1", "Lost runs (not set now)"],
        ),
        drift(
            "dashboard deleted",
            |aws| {
                block_on(aws.cloudwatch.delete_dashboards().dashboard_names(DASHBOARD).send()).unwrap();
            },
            &["+ dashboard snapwarden-local-eu-central-1"],
        ),
    ]
}

fn set(aws: &Aws, attribute: &str, value: &str) {
    let call = aws.sns.set_topic_attributes().topic_arn(TOPIC);
    block_on(call.attribute_name(attribute).attribute_value(value).send()).unwrap();
}

//! Topic, subscriptions, alarms and dashboard, where the emulators are kinder than AWS.

use aws_sdk_cloudwatch::operation::delete_alarms::DeleteAlarmsOutput;
use aws_sdk_cloudwatch::operation::describe_alarms::DescribeAlarmsOutput;
use aws_sdk_cloudwatch::operation::get_dashboard::GetDashboardOutput;
use aws_sdk_cloudwatch::operation::list_tags_for_resource::{
    ListTagsForResourceError, ListTagsForResourceOutput,
};
use aws_sdk_cloudwatch::operation::put_dashboard::PutDashboardOutput;
use aws_sdk_cloudwatch::operation::put_metric_alarm::PutMetricAlarmOutput;
use aws_sdk_cloudwatch::types::{DashboardValidationMessage, MetricAlarm, Tag};
use aws_sdk_sns::operation::list_subscriptions_by_topic::ListSubscriptionsByTopicOutput;
use aws_sdk_sns::operation::set_topic_attributes::SetTopicAttributesOutput;
use aws_sdk_sns::types::Subscription as Subscribed;

use super::*;

fn condition(missing_data: &str) -> serde_json::Value {
    json!({
        "metric": { "namespace": "Snapwarden", "name": "BackupRuns", "dimensions": { "Environment": "test" } },
        "statistic": "Sum", "period_seconds": 3600, "evaluation_periods": 26, "datapoints_to_alarm": 26,
        "comparison": "LessThanThreshold", "threshold": 1.0, "missing_data": missing_data,
    })
}

fn alarm(missing_data: &str, tags: &serde_json::Value) -> <Alarm as Kind>::Properties {
    wanted::<Alarm>(json!({
        "description": "d", "condition": condition(missing_data), "actions_enabled": true,
        "alarm_actions": ["arn"], "ok_actions": [], "insufficient_data_actions": [], "tags": tags,
    }))
}

/// A heartbeat that is armed at once rings in the first hour of every new environment, and is then ignored.
#[tokio::test]
async fn an_alarm_that_takes_silence_for_trouble_waits_for_the_first_run() {
    for (missing_data, minutes) in [("breaching", Some(26 * 60)), ("notBreaching", None)] {
        let put = mock!(aws_sdk_cloudwatch::Client::put_metric_alarm)
            .match_requests(move |request| {
                let warm_up = request.warm_up_configuration();
                warm_up.and_then(|warm_up| warm_up.warm_up_period_duration_in_minutes()) == minutes
            })
            .then_output(|| PutMetricAlarmOutput::builder().build());
        let cloudwatch = mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&put]);
        let (cx, _) = context(Aws { cloudwatch, ..aws() });
        Alarm::create(&cx, "a", &alarm(missing_data, &json!({}))).await.unwrap();
        assert_eq!(put.num_calls(), 1, "{missing_data}");
    }
}

/// CloudWatch refuses tags for an alarm that exists, so an alarm could never be repaired.
#[tokio::test]
async fn an_alarm_that_exists_is_written_without_tags() {
    let put = mock!(aws_sdk_cloudwatch::Client::put_metric_alarm)
        .match_requests(|request| request.tags().is_empty())
        .then_output(|| PutMetricAlarmOutput::builder().build());
    let cloudwatch = mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&put]);
    let (cx, _) = context(Aws { cloudwatch, ..aws() });
    let tags = json!({ "snapwarden:environment": "test" });
    let found = Found {
        properties: alarm("missing", &tags),
        handle: (),
        tags: Some(BTreeMap::new()),
        revision: None,
    };
    Alarm::update(&cx, "a", &found, &alarm("breaching", &tags)).await.unwrap();
    assert_eq!(put.num_calls(), 1);
}

/// `test` must not delete the alarms of `test-eu`, whose names begin alike, nor stumble over one that just went.
#[tokio::test]
async fn only_alarms_of_this_environment_are_seen() {
    let named = |name: &str| MetricAlarm::builder().alarm_name(name).build();
    let list = mock!(aws_sdk_cloudwatch::Client::describe_alarms).then_output(move || {
        let answer = DescribeAlarmsOutput::builder().metric_alarms(named("snapwarden-test-eu-backup-errors"));
        let answer = answer.metric_alarms(named("snapwarden-test-formerly"));
        answer.metric_alarms(named("snapwarden-test.backup-errors")).build()
    });
    let tagged = |environment: &'static str| {
        move || {
            let tag = Tag::builder().key("snapwarden:environment").value(environment).build();
            ListTagsForResourceOutput::builder().tags(tag).build()
        }
    };
    let of = |name: &'static str| {
        mock!(aws_sdk_cloudwatch::Client::list_tags_for_resource).match_requests(move |request| {
            request.resource_arn().is_some_and(|arn| arn.ends_with(&format!(":alarm:{name}")))
        })
    };
    let neighbour = of("snapwarden-test-eu-backup-errors").then_output(tagged("test-eu"));
    let former = of("snapwarden-test-formerly").then_output(tagged("test"));
    let gone = of("snapwarden-test.backup-errors")
        .then_error(|| ListTagsForResourceError::generic(refusal("ResourceNotFoundException", "gone")));
    let cloudwatch =
        mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&list, &neighbour, &former, &gone]);
    let (cx, _) = context(Aws { cloudwatch, ..aws() });
    let found = Alarm::observe(&cx).await.unwrap();
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["snapwarden-test-formerly"]);
}

/// An alarm that somebody else deleted meanwhile must not fail a destroy.
#[tokio::test]
async fn what_is_gone_already_is_deleted() {
    let delete = mock!(aws_sdk_cloudwatch::Client::delete_alarms)
        .then_output(|| DeleteAlarmsOutput::builder().build());
    let cloudwatch = mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&delete]);
    let (cx, _) = context(Aws { cloudwatch, ..aws() });
    let found = Found { properties: alarm("missing", &json!({})), handle: (), tags: None, revision: None };
    Alarm::delete(&cx, "a", &found).await.unwrap();
    assert_eq!(delete.num_calls(), 1);
}

/// CloudWatch accepts a dashboard whose charts it does not understand, and shows empty boxes.
#[tokio::test]
async fn a_dashboard_that_cloudwatch_complains_about_is_a_failure() {
    let put = mock!(aws_sdk_cloudwatch::Client::put_dashboard).then_output(|| {
        let complaint = DashboardValidationMessage::builder().message("Invalid metric field").build();
        PutDashboardOutput::builder().dashboard_validation_messages(complaint).build()
    });
    let cloudwatch = mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&put]);
    let (cx, _) = context(Aws { cloudwatch, ..aws() });
    let dashboard = wanted::<Dashboard>(json!({ "body": { "widgets": [] } }));
    let error = Dashboard::create(&cx, "d", &dashboard).await.unwrap_err();
    assert_eq!(error.to_string(), "CloudWatch does not understand the dashboard: Invalid metric field");
}

/// Somebody else's dashboard of the same name must not be overwritten.
#[tokio::test]
async fn a_dashboard_that_does_not_say_whose_it_is_belongs_to_nobody() {
    let header = |text: &str| json!({ "widgets": [{ "properties": { "markdown": text } }] }).to_string();
    for (body, owner) in [
        (header("# Ours\nsnapwarden:environment=test"), Some("test")),
        (header("# Theirs\nsnapwarden:environment=test-eu"), Some("test-eu")),
        (header("# Mine"), None),
        ("no JSON".to_owned(), None),
    ] {
        let get = mock!(aws_sdk_cloudwatch::Client::get_dashboard)
            .then_output(move || GetDashboardOutput::builder().dashboard_body(body.clone()).build());
        let cloudwatch = mock_client!(aws_sdk_cloudwatch, RuleMode::MatchAny, [&get]);
        let (cx, _) = context(Aws { cloudwatch, ..aws() });
        let found = Dashboard::observe(&cx).await.unwrap();
        let tags = found[0].1.tags.clone().unwrap();
        assert_eq!(tags.get("snapwarden:environment").map(String::as_str), owner);
    }
}

/// Each attribute takes a call; and a key that is taken out of the file must not go on encrypting.
#[tokio::test]
async fn only_what_differs_of_a_topic_is_written() {
    let topic = |name: &str, key: Option<&str>| {
        wanted::<Topic>(json!({ "display_name": name, "policy": {}, "kms_key": key, "tags": {} }))
    };
    let set = mock!(aws_sdk_sns::Client::set_topic_attributes)
        .match_requests(|request| {
            request.attribute_name() == Some("KmsMasterKeyId") && request.attribute_value() == Some("")
        })
        .then_output(|| SetTopicAttributesOutput::builder().build());
    let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&set]);
    let (cx, _) = context(Aws { sns, ..aws() });
    let found =
        Found { properties: topic("same", Some("alias/mine")), handle: (), tags: None, revision: None };
    Topic::update(&cx, "t", &found, &topic("same", None)).await.unwrap();
    assert_eq!(set.num_calls(), 1);
}

/// SNS gives an unconfirmed subscription no ARN: taken for one, every plan and destroy would fail on it.
#[tokio::test]
async fn a_subscription_that_nobody_confirmed_is_pending_and_is_let_be() {
    let list = mock!(aws_sdk_sns::Client::list_subscriptions_by_topic).then_output(|| {
        let pending = Subscribed::builder().protocol("email").endpoint("ops@example.org");
        let pending = pending.subscription_arn("PendingConfirmation").build();
        ListSubscriptionsByTopicOutput::builder().subscriptions(pending).build()
    });
    let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&list]);
    let (cx, _) = context(Aws { sns, ..aws() });
    let found = Subscription::observe(&cx).await.unwrap();
    let [(name, pending)] = found.as_slice() else { panic!("{} found", found.len()) };
    assert_eq!(name, "email:ops@example.org");
    assert!(Subscription::goes_by_itself(pending));
    assert_eq!(Subscription::describe(pending), "waits for its owner to confirm it");
    // No rule answers `Unsubscribe`: a call would fail.
    Subscription::delete(&cx, name, pending).await.unwrap();
}

//! CloudWatch alarms; [`crate::alarms`] says which.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_cloudwatch::types::{
    ComparisonOperator, Dimension, MetricAlarm, Statistic, Tag, WarmUpConfiguration,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Blueprint, Context, FoundOf, Kind, StepError, Topic, tags};
use crate::alarms::{self, Condition};
use crate::cloudformation::{self, Resource, logical_id};
use crate::error::{AwsError, Call, OrAbsent};
use crate::metrics::Metric;
use crate::rights::{Purpose, Resources, Right};
use crate::scope::Scope;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Alarm;

/// What is wanted of an alarm. `PutMetricAlarm` resets what it is not told, so all of it is always written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    description: String,
    condition: Condition,
    /// Whether it tells anybody; the console switches that off.
    actions_enabled: bool,
    /// ARNs of what is told when it rings, when it is over, and when CloudWatch cannot tell.
    alarm_actions: Vec<String>,
    ok_actions: Vec<String>,
    insufficient_data_actions: Vec<String>,
    tags: BTreeMap<String, String>,
}

/// How many alarms' tags are asked for at a time.
const PARALLEL: usize = 4;

#[async_trait(?Send)]
impl Kind for Alarm {
    const NAME: &'static str = "alarm";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let topic = blueprint.scope.topic_arn();
        let properties = |alarm: alarms::Alarm| Properties {
            description: alarm.description,
            condition: alarm.condition,
            actions_enabled: true,
            alarm_actions: vec![topic.clone()],
            ok_actions: if alarm.lasts { vec![topic.clone()] } else { Vec::new() },
            insufficient_data_actions: Vec::new(),
            tags: blueprint.tags(),
        };
        let alarms = alarms::alarms(blueprint).into_iter();
        alarms.map(|alarm| (blueprint.scope.alarm(&alarm.what), properties(alarm))).collect()
    }

    fn needs(_: &str, scope: &Scope) -> Vec<ResourceId> {
        vec![ResourceId::new(Topic::NAME, scope.topic())]
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "actions_enabled" => "an alarm that tells nobody",
            "alarm_actions" | "ok_actions" => "who is told: the environment's topic",
            "condition.evaluation_periods" | "condition.datapoints_to_alarm" => {
                "from the schedule's longest gap"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let Condition { metric, statistic, comparison, threshold, .. } = &found.properties.condition;
        let sign = match comparison.as_str() {
            "GreaterThanOrEqualToThreshold" => "≥",
            "GreaterThanThreshold" => ">",
            "LessThanThreshold" => "<",
            other => other,
        };
        format!("{} {} {sign} {threshold}", statistic.to_lowercase(), metric.name)
    }

    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let Condition { metric, .. } = &wanted.condition;
        let dimensions =
            metric.dimensions.iter().map(|(name, value)| json!({ "Name": name, "Value": value }));
        let properties = json!({
            "AlarmName": name,
            "AlarmDescription": wanted.description,
            "Namespace": metric.namespace,
            "MetricName": metric.name,
            "Dimensions": dimensions.collect::<Vec<_>>(),
            "Statistic": wanted.condition.statistic,
            "Period": wanted.condition.period_seconds,
            "EvaluationPeriods": wanted.condition.evaluation_periods,
            "DatapointsToAlarm": wanted.condition.datapoints_to_alarm,
            "ComparisonOperator": wanted.condition.comparison,
            "Threshold": wanted.condition.threshold,
            "TreatMissingData": wanted.condition.missing_data,
            "ActionsEnabled": wanted.actions_enabled,
            "AlarmActions": wanted.alarm_actions,
            "OKActions": wanted.ok_actions,
            "InsufficientDataActions": wanted.insufficient_data_actions,
            "WarmUpConfiguration": warm_up_minutes(&wanted.condition).map(|minutes| json!({
                "WarmUpPeriodDurationInMinutes": minutes,
                "OnlyStartEvaluatingAfterWarmUpPeriodEnds": true,
            })),
            "Tags": cloudformation::tags(&wanted.tags),
        });
        let what = name.strip_prefix(&blueprint.scope.alarm("")).unwrap_or(name);
        vec![Resource::new(logical_id(what, "Alarm"), "AWS::CloudWatch::Alarm", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::AllAlarms, "cloudwatch:DescribeAlarms"),
                        Right::on(Resources::Alarms, "cloudwatch:ListTagsForResource"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Alarms, "cloudwatch:PutMetricAlarm"),
                        Right::on(Resources::Alarms, "cloudwatch:TagResource"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Alarms, "cloudwatch:PutMetricAlarm"),
                        Right::on(Resources::Alarms, "cloudwatch:TagResource"),
                        Right::on(Resources::Alarms, "cloudwatch:UntagResource"),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::Alarms, "cloudwatch:DeleteAlarms")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let prefix = cx.scope.alarm("");
        let pages = cx.aws.cloudwatch.describe_alarms().alarm_name_prefix(&prefix).into_paginator();
        let mut pages = pages.send();
        let mut alarms = Vec::new();
        while let Some(page) = pages.next().await {
            alarms.extend(page.call("cloudwatch:DescribeAlarms")?.metric_alarms.unwrap_or_default());
        }
        let found = stream::iter(alarms).map(|alarm| async move {
            let name = alarm.alarm_name().unwrap_or_default().to_owned();
            let arn = cx.scope.alarm_arn(&name);
            let listed = cx.aws.cloudwatch.list_tags_for_resource().resource_arn(arn).send().await;
            let listed = listed.call("cloudwatch:ListTagsForResource").or_absent()?;
            // Deleted since it was listed.
            let Some(listed) = listed else { return Ok(None) };
            let listed = listed.tags.unwrap_or_default().into_iter();
            let tags = tags::without_reserved(
                listed.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())),
            );
            // Somebody else's may begin like ours.
            let is_named = alarms::all().any(|what| cx.scope.alarm(&what) == name);
            if !is_named && !cx.scope.owns(&tags) {
                return Ok(None);
            }
            let properties = properties(alarm, tags.clone());
            Ok(Some((name, Found { properties, handle: (), tags: Some(tags), revision: None })))
        });
        let found: Vec<Option<_>> = found.buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        put(cx, name, wanted, true).await
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let without_tags =
            |properties: &Properties| Properties { tags: BTreeMap::new(), ..properties.clone() };
        if without_tags(&found.properties) != without_tags(wanted) {
            put(cx, name, wanted, false).await?;
        }
        let arn = cx.scope.alarm_arn(name);
        let write = tags::to_write(&wanted.tags, &found.properties.tags);
        if !write.is_empty() {
            let call =
                cx.aws.cloudwatch.tag_resource().resource_arn(&arn).set_tags(Some(cloudwatch_tags(&write)));
            call.send().await.call("cloudwatch:TagResource")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.properties.tags);
        if !remove.is_empty() {
            let call = cx.aws.cloudwatch.untag_resource().resource_arn(&arn).set_tag_keys(Some(remove));
            call.send().await.call("cloudwatch:UntagResource")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        let call = cx.aws.cloudwatch.delete_alarms().alarm_names(name);
        call.send().await.call("cloudwatch:DeleteAlarms").or_absent()?;
        Ok(())
    }
}

/// The longest warm-up that CloudWatch knows: two days (source: CloudWatch user guide, "Alarm warm-up periods").
const LONGEST_WARM_UP_MINUTES: i32 = 2 * 24 * 60;

/// Writes the whole alarm. CloudWatch takes tags only when it makes one.
async fn put(cx: &Context, name: &str, wanted: &Properties, is_new: bool) -> Result<(), StepError> {
    let Condition { metric, statistic, comparison, .. } = &wanted.condition;
    let Condition { period_seconds, evaluation_periods, datapoints_to_alarm, .. } = wanted.condition;
    let dimension = |(name, value)| Dimension::builder().name(name).value(value).build();
    let call = cx.aws.cloudwatch.put_metric_alarm().alarm_name(name).alarm_description(&wanted.description);
    let call = call.namespace(&metric.namespace).metric_name(&metric.name);
    let call = call.set_dimensions(Some(metric.dimensions.iter().map(dimension).collect()));
    let call = call.statistic(Statistic::from(statistic.as_str())).period(period_seconds);
    let call = call.evaluation_periods(evaluation_periods).datapoints_to_alarm(datapoints_to_alarm);
    let call = call.comparison_operator(ComparisonOperator::from(comparison.as_str()));
    let call = call.threshold(wanted.condition.threshold).treat_missing_data(&wanted.condition.missing_data);
    let call = call.actions_enabled(wanted.actions_enabled);
    let call = call.set_alarm_actions(Some(wanted.alarm_actions.clone()));
    let call = call.set_ok_actions(Some(wanted.ok_actions.clone()));
    let call = call.set_insufficient_data_actions(Some(wanted.insufficient_data_actions.clone()));
    let warm_up = warm_up_minutes(&wanted.condition).map(|minutes| {
        let whole = WarmUpConfiguration::builder().only_start_evaluating_after_warm_up_period_ends(true);
        whole.warm_up_period_duration_in_minutes(minutes).build()
    });
    let call = call.set_warm_up_configuration(warm_up);
    let call = call.set_tags(is_new.then(|| cloudwatch_tags(&wanted.tags)));
    call.send().await.call("cloudwatch:PutMetricAlarm")?;
    Ok(())
}

/// What keeps an alarm silent that takes silence for trouble, until the first run is overdue.
///
/// CloudWatch heeds it when an alarm is made, so it is no property: a later change of it would change nothing.
fn warm_up_minutes(condition: &Condition) -> Option<i32> {
    let minutes = condition.evaluation_periods.saturating_mul(condition.period_seconds) / 60;
    (condition.missing_data == "breaching").then(|| minutes.clamp(1, LONGEST_WARM_UP_MINUTES))
}

fn properties(alarm: MetricAlarm, tags: BTreeMap<String, String>) -> Properties {
    let dimensions = alarm.dimensions.unwrap_or_default().into_iter();
    let periods = alarm.evaluation_periods.unwrap_or_default();
    let condition = Condition {
        metric: Metric {
            namespace: alarm.namespace.unwrap_or_default(),
            name: alarm.metric_name.unwrap_or_default(),
            dimensions: dimensions
                .filter_map(|dimension| Some((dimension.name?, dimension.value?)))
                .collect(),
        },
        statistic: alarm.statistic.map(|statistic| statistic.as_str().to_owned()).unwrap_or_default(),
        period_seconds: alarm.period.unwrap_or_default(),
        evaluation_periods: periods,
        // As many as it looks at, where nothing is set.
        datapoints_to_alarm: alarm.datapoints_to_alarm.unwrap_or(periods),
        comparison: alarm
            .comparison_operator
            .map(|operator| operator.as_str().to_owned())
            .unwrap_or_default(),
        threshold: alarm.threshold.unwrap_or_default(),
        // CloudWatch's default.
        missing_data: alarm.treat_missing_data.unwrap_or_else(|| "missing".to_owned()),
    };
    Properties {
        description: alarm.alarm_description.unwrap_or_default(),
        condition,
        actions_enabled: alarm.actions_enabled.unwrap_or(true),
        alarm_actions: alarm.alarm_actions.unwrap_or_default(),
        ok_actions: alarm.ok_actions.unwrap_or_default(),
        insufficient_data_actions: alarm.insufficient_data_actions.unwrap_or_default(),
        tags,
    }
}

fn cloudwatch_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

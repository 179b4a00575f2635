//! Everything that an account holds, asked for directly and not through the deployer, which could overlook the same
//! thing twice.

use snapwarden_deployer::aws::Aws;
use snapwarden_tests::block_on;

/// Names of all that there is, by kind. Snapshots are not part of it.
pub(crate) fn inventory(aws: &Aws) -> Vec<String> {
    block_on(async {
        let mut all = Vec::new();
        let mut add = |kind: &str, names: Vec<String>| {
            all.extend(names.into_iter().map(|name| format!("{kind} {name}")));
        };
        let found = aws.lambda.list_functions().send().await.unwrap().functions.unwrap_or_default();
        add("function", found.into_iter().filter_map(|function| function.function_name).collect());
        let found = aws.iam.list_roles().send().await.unwrap().roles;
        add("role", found.into_iter().map(|role| role.role_name).collect());
        let found = aws.iam.list_policies().scope(aws_sdk_iam::types::PolicyScopeType::Local).send().await;
        let found = found.unwrap().policies.unwrap_or_default();
        add("policy", found.into_iter().filter_map(|policy| policy.policy_name).collect());
        let found = aws.logs.describe_log_groups().send().await.unwrap().log_groups.unwrap_or_default();
        add("log group", found.into_iter().filter_map(|group| group.log_group_name).collect());
        let found = aws.scheduler.list_schedule_groups().send().await.unwrap().schedule_groups;
        add("schedule group", found.into_iter().filter_map(|group| group.name).collect());
        let found = aws.scheduler.list_schedules().send().await.unwrap().schedules;
        add("schedule", found.into_iter().filter_map(|schedule| schedule.name).collect());
        let found = aws.sqs.list_queues().send().await.unwrap().queue_urls.unwrap_or_default();
        add("queue", found);
        let found = aws.ssm.describe_parameters().send().await.unwrap().parameters.unwrap_or_default();
        add("parameter", found.into_iter().filter_map(|parameter| parameter.name).collect());
        let found = aws.sns.list_topics().send().await.unwrap().topics.unwrap_or_default();
        add("topic", found.into_iter().filter_map(|topic| topic.topic_arn).collect());
        let found = aws.sns.list_subscriptions().send().await.unwrap().subscriptions.unwrap_or_default();
        add("subscription", found.into_iter().filter_map(|subscription| subscription.endpoint).collect());
        let found = aws.cloudwatch.describe_alarms().send().await.unwrap().metric_alarms.unwrap_or_default();
        add("alarm", found.into_iter().filter_map(|alarm| alarm.alarm_name).collect());
        let found = aws.cloudwatch.list_dashboards().send().await.unwrap().dashboard_entries;
        let found = found.unwrap_or_default().into_iter();
        add("dashboard", found.filter_map(|dashboard| dashboard.dashboard_name).collect());
        all.sort();
        all
    })
}

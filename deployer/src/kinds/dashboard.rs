//! The CloudWatch dashboard; [`crate::dashboard`] says what it shows.
//!
//! Not all of CloudWatch lets a dashboard carry tags yet, so its own text says whose it is.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use snapwarden_domain::tags;

use super::{Blueprint, Context, FoundOf, Kind, StepError};
use crate::cloudformation::Resource;
use crate::dashboard;
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::world::Found;

/// The kind.
#[derive(Debug)]
pub struct Dashboard;

/// What is wanted of the dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// What it shows. A body that is no JSON is a text.
    body: Value,
}

#[async_trait(?Send)]
impl Kind for Dashboard {
    const NAME: &'static str = "dashboard";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        vec![(blueprint.scope.dashboard(), Properties { body: dashboard::body(blueprint) })]
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let widgets = found.properties.body.get("widgets").and_then(Value::as_array).map_or(0, Vec::len);
        format!("{widgets} widgets")
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let properties = json!({ "DashboardName": name, "DashboardBody": wanted.body.to_string() });
        vec![Resource::new("Dashboard", "AWS::CloudWatch::Dashboard", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => const { &[Right::on(Resources::Dashboard, "cloudwatch:GetDashboard")] },
            Purpose::Create | Purpose::Update => {
                const { &[Right::on(Resources::Dashboard, "cloudwatch:PutDashboard")] }
            }
            Purpose::Delete => const { &[Right::on(Resources::Dashboard, "cloudwatch:DeleteDashboards")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let name = cx.scope.dashboard();
        let answer = cx.aws.cloudwatch.get_dashboard().dashboard_name(&name).send().await;
        let answer = answer.call("cloudwatch:GetDashboard").or_absent()?;
        let Some(text) = answer.and_then(|answer| answer.dashboard_body) else { return Ok(Vec::new()) };
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let owner = dashboard::owner(&body).map(|owner| (tags::ENVIRONMENT.to_owned(), owner.to_owned()));
        let tags: BTreeMap<String, String> = owner.into_iter().collect();
        let properties = Properties { body };
        Ok(vec![(name, Found { properties, handle: (), tags: Some(tags), revision: None })])
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let call = cx.aws.cloudwatch.put_dashboard().dashboard_name(name);
        let answer =
            call.dashboard_body(wanted.body.to_string()).send().await.call("cloudwatch:PutDashboard")?;
        // CloudWatch writes what it understands and complains about the rest.
        match answer.dashboard_validation_messages().first() {
            Some(complaint) => Err(StepError::Failed {
                what: "CloudWatch does not understand the dashboard",
                state: complaint.message().unwrap_or("it gave no reason").to_owned(),
            }),
            None => Ok(()),
        }
    }

    async fn update(
        cx: &Context,
        name: &str,
        _: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        Self::create(cx, name, wanted).await
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        let call = cx.aws.cloudwatch.delete_dashboards().dashboard_names(name);
        call.send().await.call("cloudwatch:DeleteDashboards").or_absent()?;
        Ok(())
    }
}

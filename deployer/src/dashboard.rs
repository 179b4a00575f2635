//! The CloudWatch dashboard's body: how the nights went, at a glance. Pure.
//!
//! Source: CloudWatch API, "Dashboard body structure and syntax". The grid has 24 columns.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use snapwarden_domain::metrics::{DIMENSION, NAMESPACE};

use crate::alarms;
use crate::environment::Requirement;
use crate::heartbeat;
use crate::kinds::Blueprint;
use crate::metrics::{Metric, names};
use crate::scope::{Function, Scope};

const WIDTH: u32 = 24;
const DAY: u32 = 24 * 60 * 60;

/// The whole body.
pub fn body(blueprint: &Blueprint<'_>) -> Value {
    let scope = blueprint.scope;
    let mut charts = vec![
        snapshots(scope),
        ages(blueprint),
        volumes(scope),
        runs(scope),
        durations(blueprint),
        queue(scope),
    ];
    charts.extend(encryption(blueprint));
    let mut widgets = vec![
        placed(0, 0, WIDTH, 3, "text", &json!({ "markdown": header(scope) })),
        placed(0, 3, WIDTH, 4, "alarm", &alarm_states(blueprint)),
    ];
    for (index, chart) in (0..).zip(&charts) {
        let (column, row) = (index % 2, index / 2);
        widgets.push(placed(column * WIDTH / 2, 7 + row * 6, WIDTH / 2, 6, "metric", chart));
    }
    json!({ "widgets": widgets })
}

/// What says whose the dashboard is; [`owner`] reads it.
const MARK: &str = "snapwarden:environment=";

/// The environment that a body belongs to: as it says or, where somebody has taken that out, as what it shows tells.
pub fn owner(body: &Value) -> Option<&str> {
    let widgets = body.get("widgets")?.as_array()?;
    let texts = widgets.iter().filter_map(|widget| widget.pointer("/properties/markdown")?.as_str());
    let after = texts.filter_map(|text| text.split_once(MARK)).map(|(_, after)| after).next();
    let marked = after.and_then(|after| after.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next());
    marked.or_else(|| shown(widgets))
}

/// So many of our metrics nobody puts on a dashboard of that name by hand.
const UNMISTAKABLE: usize = 5;

/// The environment whose metrics the widgets show, where they are many and of no other environment.
fn shown(widgets: &[Value]) -> Option<&str> {
    let charts = widgets.iter().filter_map(|widget| widget.pointer("/properties/metrics")?.as_array());
    let lines = charts.flatten().filter_map(|line| match line.as_array()?.as_slice() {
        [namespace, name, dimension, environment, ..] if namespace == NAMESPACE && dimension == DIMENSION => {
            Some((name.as_str()?, environment.as_str()?))
        }
        _ => None,
    });
    let (names, environments): (BTreeSet<_>, BTreeSet<_>) = lines.unzip();
    let only = environments.first().copied().filter(|_| environments.len() == 1);
    only.filter(|_| names.len() >= UNMISTAKABLE)
}

/// Links that start with `#` stay within the console of the partition and Region.
fn header(scope: &Scope) -> String {
    let Scope { environment, account, region, .. } = scope;
    let logs = Function::ALL.map(|function| {
        // The console wants the name encoded, and the percent signs of that encoded as `$25`.
        let group = scope.log_group(function).replace('/', "$252F");
        format!("[{} logs](#logsV2:log-groups/log-group/{group})", function.as_str())
    });
    format!(
        "# Snapwarden {environment}\n{} · [alarms](#alarmsV2:?search={}) · account {account}, {region} · in a terminal: \
         `cargo xtask status --env {environment}` · {MARK}{environment}",
        logs.join(" · "),
        scope.alarm(""),
    )
}

fn alarm_states(blueprint: &Blueprint<'_>) -> Value {
    let scope = blueprint.scope;
    let arns = alarms::alarms(blueprint).into_iter().map(|alarm| scope.alarm_arn(&scope.alarm(&alarm.what)));
    json!({ "title": "Alarms", "alarms": arns.collect::<Vec<_>>() })
}

/// Takes alarms that are deleted out of a body, whose other parts may be those of an earlier version.
pub(crate) fn forget_alarms(body: &mut Value, is_gone: impl Fn(&str) -> bool) {
    let widgets = body.get_mut("widgets").and_then(Value::as_array_mut).into_iter().flatten();
    for alarms in widgets.filter_map(|widget| widget.pointer_mut("/properties/alarms")?.as_array_mut()) {
        alarms.retain(|arn| !arn.as_str().is_some_and(&is_gone));
    }
}

fn snapshots(scope: &Scope) -> Value {
    let own = |name: &str, stat: &str, label: &str| line(&Metric::own(scope, name), stat, label);
    let lines = vec![
        own(names::SNAPSHOTS_CREATED, "Sum", "made"),
        own(names::SNAPSHOTS_DELETED, "Sum", "deleted"),
        own(names::SNAPSHOTS_HELD, "Maximum", "due, but held"),
        own(names::SNAPSHOTS_MANAGED, "Maximum", "in all"),
    ];
    chart(scope, "Snapshots per day", DAY, &lines)
}

fn ages(blueprint: &Blueprint<'_>) -> Value {
    let scope = blueprint.scope;
    let metric = Metric::own(scope, names::OLDEST_BACKUP_AGE_HOURS);
    let lines = vec![line(&metric, "Maximum", "the volume whose newest backup is oldest")];
    let mut chart = chart(scope, "Age of the newest backup, hours", 3600, &lines);
    let configured = blueprint.environment.notify.stale_after_hours.map(|hours| i64::from(hours.get()));
    if let Some(hours) = configured.or_else(|| heartbeat::stale_hours(blueprint.environment)) {
        chart["annotations"] = json!({ "horizontal": [{ "label": "stale", "value": hours }] });
    }
    chart
}

fn volumes(scope: &Scope) -> Value {
    let mut selected = line(&Metric::own(scope, names::VOLUMES_SELECTED), "Maximum", "selected");
    let mut unprotected = line(&Metric::own(scope, names::UNPROTECTED_VOLUMES), "Maximum", "unprotected");
    for (line, id, visible) in [(&mut selected, "selected", false), (&mut unprotected, "unprotected", true)] {
        if let Some(options) = line.as_array_mut().and_then(|line| line.last_mut()) {
            options["id"] = json!(id);
            options["visible"] = json!(visible);
        }
    }
    let protected =
        json!([{ "expression": "selected - unprotected", "label": "protected", "id": "protected" }]);
    chart(scope, "Selected volumes", DAY, &[protected, selected, unprotected])
}

/// What is in clear text and what is copied, where anybody minds.
fn encryption(blueprint: &Blueprint<'_>) -> Option<Value> {
    let (scope, environment) = (blueprint.scope, blueprint.environment);
    let own = |name: &str, stat: &str, label: &str| line(&Metric::own(scope, name), stat, label);
    let mut lines = Vec::new();
    if environment.encryption.require != Requirement::Off {
        lines.push(own(names::UNENCRYPTED_SNAPSHOTS, "Maximum", "in clear text"));
    }
    if environment.has_passes() {
        lines.push(own(names::COPIES_BEGUN, "Sum", "encrypted copies begun"));
    }
    if environment.encryption.sealing_key(&environment.environment).is_some() {
        lines.push(own(names::SNAPSHOTS_SEALED, "Sum", "replaced by their copies"));
    }
    if environment.has_passes() {
        lines.push(own(names::COPIES_FAILED, "Maximum", "copies failed"));
    }
    (!lines.is_empty()).then(|| chart(scope, "Encryption", 3600, &lines))
}

fn runs(scope: &Scope) -> Value {
    let mut lines = Vec::new();
    for function in Function::ALL {
        let name = function.as_str();
        let (ended, failed) = (format!("{name} ended"), format!("{name} failed attempts"));
        lines.push(line(&Metric::own(scope, crate::metrics::runs(function)), "Sum", &ended));
        lines.push(line(&Metric::lambda(scope, function, "Errors"), "Sum", &failed));
    }
    lines.push(line(&Metric::own(scope, names::INSTANCES_FAILED), "Sum", "instances not backed up"));
    chart(scope, "Runs and failures per day", DAY, &lines)
}

fn durations(blueprint: &Blueprint<'_>) -> Value {
    let scope = blueprint.scope;
    let lines = Function::ALL
        .map(|function| line(&Metric::lambda(scope, function, "Duration"), "Maximum", function.as_str()));
    let mut chart = chart(scope, "Longest invocation, milliseconds", 3600, &lines);
    let timeout = blueprint.environment.functions.timeout_seconds.get();
    chart["annotations"] = json!({ "horizontal": [
        { "label": "timeout", "value": timeout * 1000 },
        { "label": "too close", "value": alarms::too_long_ms(timeout) },
    ] });
    chart
}

fn queue(scope: &Scope) -> Value {
    let lines = vec![
        line(&Metric::queue(scope, "ApproximateNumberOfMessagesVisible"), "Maximum", "events of lost runs"),
        line(&Metric::queue(scope, "NumberOfMessagesSent"), "Sum", "new ones"),
        line(&Metric::scheduler(scope, "InvocationDroppedCount"), "Sum", "given up by EventBridge Scheduler"),
    ];
    chart(scope, "Lost runs", 3600, &lines)
}

fn line(metric: &Metric, stat: &str, label: &str) -> Value {
    let names = [&metric.namespace, &metric.name].into_iter();
    let dimensions = metric.dimensions.iter().flat_map(|(name, value)| [name, value]);
    let mut line: Vec<Value> = names.chain(dimensions).map(|text| json!(text)).collect();
    line.push(json!({ "stat": stat, "label": label }));
    Value::Array(line)
}

fn chart(scope: &Scope, title: &str, period: u32, lines: &[Value]) -> Value {
    json!({
        "title": title,
        "region": scope.region,
        "view": "timeSeries",
        "stacked": false,
        "period": period,
        "yAxis": { "left": { "min": 0 } },
        "metrics": lines,
    })
}

fn placed(x: u32, y: u32, width: u32, height: u32, kind: &str, properties: &Value) -> Value {
    json!({ "type": kind, "x": x, "y": y, "width": width, "height": height, "properties": properties })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::environment::parse;
    use crate::policy::role_policies;

    /// Whoever tidies the dashboard up by hand must not block the next deploy, nor lose a dashboard of their own.
    #[test]
    fn a_dashboard_without_its_header_is_still_known_by_what_it_shows() {
        let environment =
            parse(Path::new("prod.yaml"), include_str!("../../environments/prod.yaml")).unwrap();
        let scope = Scope::of(&environment);
        let blueprint = Blueprint {
            environment: &environment,
            scope: &scope,
            policies: &role_policies(&environment, &scope).unwrap(),
            code: &BTreeMap::new(),
            draining: None,
        };
        let whole = body(&blueprint);
        assert_eq!(owner(&whole), Some("prod"));
        let mut tidied = whole.clone();
        tidied["widgets"].as_array_mut().unwrap().remove(0);
        assert_eq!(owner(&tidied), Some("prod"));
        let mut mixed = tidied.clone();
        mixed["widgets"][1]["properties"]["metrics"][0][3] = "dev".into();
        assert_eq!(owner(&mixed), None, "it shows two environments");
        let one_chart = json!({ "widgets": [tidied["widgets"][1].clone()] });
        assert_eq!(owner(&one_chart), None, "somebody else's, with one of our charts");
        assert_eq!(owner(&json!({ "widgets": [] })), None);
    }
}

//! AWS's limits that a deploy can know beforehand: better refused before the first change than halfway through.

use std::fmt;

use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::kinds::{
    Alarm, Alias, AsynchronousInvocation, Dashboard, DeadLetterQueue, Kind, LambdaFunction, LogGroup, Role,
    Schedule, ScheduleGroup, Topic,
};
use crate::world::{Desired, ResourceId};

/// Something that AWS would refuse for its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What is too large.
    pub what: String,
    /// How large it is.
    pub is: usize,
    /// How large it may be.
    pub most: usize,
    /// In what it is counted.
    pub unit: &'static str,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, is, most, unit } = self;
        write!(f, "{what} has {is} {unit}, and AWS takes {most}")
    }
}

/// All environment variables of a function together (source: AWS Lambda Developer Guide, "Lambda quotas").
const VARIABLES: usize = 4 * 1024;

/// A zip that is uploaded directly (source: the same).
const ZIP: usize = 50 * 1000 * 1000;

/// All inline policies of a role together (source: IAM User Guide, "IAM and AWS STS quotas"); white space is not
/// counted, and ours have none.
const INLINE_POLICIES: usize = 10_240;

/// A role's description (source: IAM API, `CreateRole`).
const ROLE_DESCRIPTION: usize = 1_000;

/// An alarm's description (source: CloudWatch API, `PutMetricAlarm`).
const ALARM_DESCRIPTION: usize = 1_024;

/// The name that a topic's emails come from (source: SNS API, `SetTopicAttributes`).
const DISPLAY_NAME: usize = 100;

/// A dashboard's widgets (source: CloudWatch User Guide, "CloudWatch service quotas").
const WIDGETS: usize = 500;

/// Tags of a resource (source: AWS General Reference, "Tag naming limits and requirements").
const TAGS: usize = 50;

/// A role's trust policy, as long as nobody has had the quota raised (source: the same).
const TRUST_POLICY: usize = 2_048;

/// Everything that exceeds a limit. Pure.
pub fn exceeded(desired: &Desired, bundle: &Bundle) -> Vec<Exceeded> {
    let mut all = Vec::new();
    let mut check = |what: String, is: usize, most: usize, unit: &'static str| {
        if is > most {
            all.push(Exceeded { what, is, most, unit });
        }
    };
    for (id, wanted) in desired {
        check(format!("the name of {id}"), id.name.chars().count(), longest_name(id), "characters");
        let tags = wanted["tags"].as_object().map_or(0, Map::len);
        check(format!("{id}"), tags, TAGS, "tags");
        match id.kind.as_str() {
            Alarm::NAME => {
                check(describing(id), text(&wanted["description"]), ALARM_DESCRIPTION, "characters");
            }
            Topic::NAME => {
                check(
                    format!("the display name of {id}"),
                    text(&wanted["display_name"]),
                    DISPLAY_NAME,
                    "characters",
                );
            }
            Dashboard::NAME => {
                let widgets = wanted["body"]["widgets"].as_array().map_or(0, Vec::len);
                check(format!("{id}"), widgets, WIDGETS, "widgets");
            }
            LambdaFunction::NAME => {
                let variables = wanted["version"]["environment"].as_object().into_iter().flatten();
                let size =
                    variables.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
                check(format!("the environment of {id}"), size, VARIABLES, "bytes");
            }
            Role::NAME => {
                check(describing(id), text(&wanted["description"]), ROLE_DESCRIPTION, "characters");
                let policies =
                    wanted["policies"].as_object().into_iter().flat_map(|policies| policies.values());
                let size = policies.map(|policy| policy.to_string().len()).sum();
                check(format!("the policy of {id}"), size, INLINE_POLICIES, "characters");
                check(
                    format!("the trust policy of {id}"),
                    length(&wanted["trust"]),
                    TRUST_POLICY,
                    "characters",
                );
            }
            _ => {}
        }
    }
    for (name, zip) in [("backup", &bundle.backup), ("cleanup", &bundle.cleanup)] {
        check(format!("{name}.zip"), zip.len(), ZIP, "bytes");
    }
    all
}

fn describing(id: &ResourceId) -> String {
    format!("the description of {id}")
}

fn text(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

fn length(document: &Value) -> usize {
    document.to_string().len()
}

/// The longest name of a kind (source: each service's API reference).
fn longest_name(id: &ResourceId) -> usize {
    match id.kind.as_str() {
        LogGroup::NAME => 512,
        DeadLetterQueue::NAME => 80,
        LambdaFunction::NAME | Role::NAME | Schedule::NAME | ScheduleGroup::NAME => 64,
        // The function's name, which is checked by itself, and the alias's.
        Alias::NAME | AsynchronousInvocation::NAME => 64 + 1 + 128,
        Alarm::NAME | Dashboard::NAME => 255,
        _ => 256,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::tests::good;

    /// Found out halfway, a limit leaves an environment that is neither the old one nor the new one.
    #[test]
    fn what_aws_would_refuse_for_its_size_is_known_before() {
        let function = |name: &str, variable: usize| {
            let wanted = json!({ "version": { "environment": { "X": "x".repeat(variable) } } });
            (ResourceId::new(LambdaFunction::NAME, name), wanted)
        };
        let role = |policy: usize| {
            let wanted = json!({ "policies": { "p": { "Statement": "x".repeat(policy) } }, "trust": {} });
            (ResourceId::new(Role::NAME, "r"), wanted)
        };
        let texts = |desired: Vec<(ResourceId, Value)>| -> Vec<String> {
            let all = exceeded(&desired.into_iter().collect(), &good());
            all.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(vec![function("f", 4_000), role(10_000)]), Vec::<String>::new());
        let long = "f".repeat(65);
        assert_eq!(
            texts(vec![function(&long, 5_000), role(10_300)]),
            [
                format!("the name of function {long} has 65 characters, and AWS takes 64"),
                format!("the environment of function {long} has 5001 bytes, and AWS takes 4096"),
                "the policy of role r has 10316 characters, and AWS takes 10240".to_owned(),
            ]
        );
        let alarm = json!({ "description": "d".repeat(1_025) });
        let tags: Map<String, Value> = (0..51).map(|key| (key.to_string(), "v".into())).collect();
        let widgets = json!({ "body": { "widgets": vec![0; 501] } });
        assert_eq!(
            texts(vec![
                (ResourceId::new(Alarm::NAME, "a"), alarm),
                (ResourceId::new(Dashboard::NAME, "d"), widgets),
                (ResourceId::new(Topic::NAME, "t"), json!({ "tags": tags })),
            ]),
            [
                "the description of alarm a has 1025 characters, and AWS takes 1024",
                "dashboard d has 501 widgets, and AWS takes 500",
                "topic t has 51 tags, and AWS takes 50",
            ]
        );
    }
}

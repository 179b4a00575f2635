//! Reads a template back into what the kinds declare: what a stack of it would hold.
//!
//! Written apart from what renders, so that a mistake would have to be made twice; and whatever stands in a template has
//! to be read, so that nothing is asked for that the direct engine does not know.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use snapwarden_deployer::cloudformation::{Template, artifact_key};
use snapwarden_deployer::kinds::subscription_name;
use snapwarden_deployer::scope::Scope;
use snapwarden_deployer::world::{Desired, ResourceId};

use super::value;

/// A stack that was made of a template, in the environment's account and Region.
pub(crate) struct Stack {
    scope: Scope,
    template: Value,
}

/// A resource's properties, each of which has to be read.
struct Properties {
    id: String,
    left: Map<String, Value>,
}

impl Properties {
    fn take(&mut self, name: &str) -> Value {
        self.left.remove(name).unwrap_or_default()
    }

    fn text(&mut self, name: &str) -> String {
        let value = self.take(name);
        value.as_str().unwrap_or_else(|| panic!("{}: {name} is {value}", self.id)).to_owned()
    }

    fn inner(&mut self, name: &str) -> Self {
        match self.take(name) {
            Value::Object(left) => Self { id: format!("{} {name}", self.id), left },
            other => panic!("{}: {name} is {other}", self.id),
        }
    }

    fn tags(&mut self) -> Value {
        let tags = self.take("Tags");
        let pair = |tag: &Value| (tag["Key"].as_str().unwrap().to_owned(), tag["Value"].clone());
        tags.as_array().unwrap().iter().map(pair).collect::<Map<_, _>>().into()
    }

    fn done(self) {
        assert!(self.left.is_empty(), "{} also asks for {:?}", self.id, self.left);
    }
}

impl Stack {
    pub(crate) fn of(template: &Template, scope: &Scope) -> Self {
        Self { scope: scope.clone(), template: value(template) }
    }

    /// What it holds, as the kinds declare it.
    pub(crate) fn read_back(&self) -> Desired {
        let resources = self.template["Resources"].as_object().unwrap();
        let mut all = Desired::new();
        for id in resources.keys() {
            let (kind, mut properties) = self.properties(id);
            let Some((name, value)) = self.read(&kind, &mut properties) else { continue };
            properties.done();
            let (kind, _) = KINDS.into_iter().find(|(_, of)| *of == kind).unwrap();
            assert_eq!(all.insert(ResourceId::new(kind, name), value), None, "{id} is there twice");
        }
        all
    }

    /// Whether CloudFormation makes `resource` only when `need` is there.
    pub(crate) fn depends(&self, resource: &ResourceId, need: &ResourceId) -> bool {
        let resources = self.template["Resources"].as_object().unwrap();
        let id_of = |wanted: &ResourceId| {
            let is_it = |id: &&String| {
                let (kind, mut properties) = self.properties(id);
                KINDS.contains(&(wanted.kind.as_str(), kind.as_str()))
                    && self.read(&kind, &mut properties).is_some_and(|(name, _)| name == wanted.name)
            };
            resources.keys().find(is_it).unwrap_or_else(|| panic!("{wanted} is not in the template"))
        };
        let after = resources[id_of(resource)]["DependsOn"].as_array();
        after.is_some_and(|after| after.contains(&json!(id_of(need))))
    }

    fn properties(&self, id: &str) -> (String, Properties) {
        let resource = &self.template["Resources"][id];
        let Value::Object(left) = self.resolved(&resource["Properties"]) else { panic!("{resource}") };
        (resource["Type"].as_str().unwrap().to_owned(), Properties { id: id.to_owned(), left })
    }

    /// A resource's name and properties in the words of its kind; nothing of what only belongs to another one.
    fn read(&self, kind: &str, p: &mut Properties) -> Option<(String, Value)> {
        Some(match kind {
            "AWS::Logs::LogGroup" => {
                let wanted = json!({
                    "retention_days": p.take("RetentionInDays"),
                    "kms_key": p.take("KmsKeyId"),
                    "tags": p.tags(),
                });
                (p.text("LogGroupName"), wanted)
            }
            "AWS::SQS::Queue" => {
                let wanted = json!({
                    "retention_seconds": p.take("MessageRetentionPeriod"),
                    "sqs_managed_encryption": p.take("SqsManagedSseEnabled"),
                    "kms_key": p.take("KmsMasterKeyId"),
                    "tags": p.tags(),
                });
                (p.text("QueueName"), wanted)
            }
            "AWS::Scheduler::ScheduleGroup" => (p.text("Name"), json!({ "tags": p.tags() })),
            "AWS::Scheduler::Schedule" => self.schedule(p),
            "AWS::IAM::Role" => role(p),
            "AWS::Lambda::Function" => {
                let name = p.text("FunctionName");
                (name.clone(), self.function(&name, p))
            }
            "AWS::Lambda::Alias" => self.alias(p),
            "AWS::Lambda::EventInvokeConfig" => {
                let mut destinations = p.inner("DestinationConfig");
                let wanted = json!({
                    "retry_attempts": p.take("MaximumRetryAttempts"),
                    "max_age_seconds": p.take("MaximumEventAgeInSeconds"),
                    "destinations": { "on_failure": destinations.inner("OnFailure").text("Destination") },
                });
                destinations.done();
                (format!("{}:{}", p.text("FunctionName"), p.text("Qualifier")), wanted)
            }
            "AWS::SNS::Topic" => {
                let name = p.text("TopicName");
                let policy = self.only("AWS::SNS::TopicPolicy");
                let (_, mut policy) = self.properties(&policy);
                assert_eq!(policy.take("Topics"), json!([self.scope.topic_arn()]));
                let wanted = json!({
                    "display_name": p.text("DisplayName"),
                    "policy": policy.take("PolicyDocument"),
                    "kms_key": p.take("KmsMasterKeyId"),
                    "tags": p.tags(),
                });
                policy.done();
                (name, wanted)
            }
            "AWS::SNS::Subscription" => {
                assert_eq!(p.text("TopicArn"), self.scope.topic_arn());
                let (protocol, endpoint) = (p.text("Protocol"), p.text("Endpoint"));
                let name = subscription_name(&protocol, &endpoint);
                (name, json!({ "filter": p.take("FilterPolicy") }))
            }
            "AWS::CloudWatch::Alarm" => alarm(p),
            "AWS::CloudWatch::Dashboard" => {
                let body: Value = serde_json::from_str(&p.text("DashboardBody")).unwrap();
                (p.text("DashboardName"), json!({ "body": body }))
            }
            "AWS::KMS::Alias" => {
                let name = p.text("AliasName");
                let key = self.only("AWS::KMS::Key");
                assert_eq!(p.text("TargetKeyId"), format!("id of {key}"));
                (name, self.key(&key))
            }
            // Read with the alias, the topic and the aliases of functions.
            "AWS::KMS::Key" | "AWS::SNS::TopicPolicy" | "AWS::Lambda::Version" => return None,
            other => panic!("nobody reads {other} back: say here what the direct engine calls it"),
        })
    }

    fn key(&self, id: &str) -> Value {
        let (_, mut p) = self.properties(id);
        assert!((7..=30).contains(&p.take("PendingWindowInDays").as_u64().unwrap()));
        let state = if p.take("Enabled") == true { "Enabled" } else { "Disabled" };
        let wanted = json!({
            "description": p.text("Description"),
            "state": state,
            "rotation": p.take("EnableKeyRotation"),
            "policy": p.take("KeyPolicy"),
            "aliased": true,
            "tags": p.tags(),
        });
        p.done();
        wanted
    }

    fn schedule(&self, p: &mut Properties) -> (String, Value) {
        let group = self.scope.schedule_group();
        assert_eq!(p.text("GroupName"), group);
        // The one difference, which AWS makes: CloudFormation knows a schedule without its group.
        let name = p.text("Name").strip_prefix(&format!("{group}-")).unwrap().to_owned();
        let mut window = p.inner("FlexibleTimeWindow");
        let flexible_minutes = match window.text("Mode").as_str() {
            "OFF" => json!(0),
            _ => window.take("MaximumWindowInMinutes"),
        };
        window.done();
        let mut target = p.inner("Target");
        let mut retry = target.inner("RetryPolicy");
        let wanted = json!({
            "expression": p.text("ScheduleExpression"),
            "timezone": p.text("ScheduleExpressionTimezone"),
            "flexible_minutes": flexible_minutes,
            "enabled": p.text("State") == "ENABLED",
            "target": target.text("Arn"),
            "role": target.text("RoleArn"),
            "input": target.text("Input"),
            "retry_attempts": retry.take("MaximumRetryAttempts"),
            "retry_max_age_seconds": retry.take("MaximumEventAgeInSeconds"),
            "dead_letter_queue": target.inner("DeadLetterConfig").text("Arn"),
        });
        retry.done();
        target.done();
        (name, wanted)
    }

    /// A function with nobody else's permission: no `AWS::Lambda::Permission` is ever read.
    fn function(&self, name: &str, p: &mut Properties) -> Value {
        let mut code = p.inner("Code");
        let key = code.text("S3Key");
        assert_eq!(code.text("S3Bucket"), "the bucket");
        code.done();
        // The zip is named after its content, and the version checks it.
        let version = self.version_of(name);
        let (_, mut version) = self.properties(&version);
        let code_sha256 = version.text("CodeSha256");
        assert_eq!(artifact_key(&code_sha256), key);
        assert_eq!(version.text("FunctionName"), name);
        version.done();
        let mut logging = p.inner("LoggingConfig");
        let architectures = p.take("Architectures");
        let variables = p.inner("Environment").take("Variables");
        let wanted = json!({
            "version": {
                "code_sha256": code_sha256,
                "role": p.text("Role"),
                "runtime": p.text("Runtime"),
                "architecture": architectures[0],
                "handler": p.text("Handler"),
                "memory_mb": p.take("MemorySize"),
                "timeout_seconds": p.take("Timeout"),
                "environment": variables,
                "kms_key": p.take("KmsKeyArn"),
                "log_group": logging.text("LogGroup"),
                "log_format": logging.text("LogFormat"),
                "application_log_level": logging.text("ApplicationLogLevel"),
                "system_log_level": logging.text("SystemLogLevel"),
                "layers": p.take("Layers"),
            },
            "last_change_succeeded": true,
            "reserved_concurrency": p.take("ReservedConcurrentExecutions"),
            "recursive_loop": p.text("RecursiveLoop"),
            "package_type": p.text("PackageType"),
            "tags": p.tags(),
        });
        logging.done();
        assert_eq!(architectures.as_array().map(Vec::len), Some(1));
        wanted
    }

    /// The alias serves what the function is when its version is published.
    fn alias(&self, p: &mut Properties) -> (String, Value) {
        let function = p.text("FunctionName");
        let version = self.version_of(&function);
        assert_eq!(p.text("FunctionVersion"), format!("version of {version}"));
        let resources = self.template["Resources"].as_object().unwrap();
        let is_function = |id: &&String| {
            let (kind, mut properties) = self.properties(id);
            kind == "AWS::Lambda::Function" && properties.text("FunctionName") == function
        };
        let id = resources.keys().find(is_function).unwrap();
        let waits = resources[&version]["DependsOn"].as_array().is_some_and(|on| on.contains(&json!(id)));
        assert!(waits, "{version} may be published before {id} has changed");
        let (_, mut properties) = self.properties(id);
        properties.take("FunctionName");
        let serves = self.function(&function, &mut properties)["version"].clone();
        let name = format!("{function}:{}", p.text("Name"));
        (name, json!({ "serves": serves, "published": true }))
    }

    fn version_of(&self, function: &str) -> String {
        let resources = self.template["Resources"].as_object().unwrap();
        let versions = resources.keys().filter(|id| {
            let (kind, mut properties) = self.properties(id);
            kind == "AWS::Lambda::Version" && properties.text("FunctionName") == function
        });
        let versions: Vec<&String> = versions.collect();
        assert_eq!(versions.len(), 1, "{function}");
        versions[0].clone()
    }

    fn only(&self, kind: &str) -> String {
        let resources = self.template["Resources"].as_object().unwrap().iter();
        let ids: Vec<&String> =
            resources.filter(|(_, resource)| resource["Type"] == kind).map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 1, "{kind}");
        ids[0].clone()
    }

    /// CloudFormation's functions, as it would answer them in the environment's account and Region.
    fn resolved(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.resolved(item)).collect::<Vec<_>>().into(),
            Value::Object(fields) => {
                let function = (fields.len() == 1).then(|| fields.iter().next()).flatten();
                match function.map(|(name, argument)| (name.as_str(), argument)) {
                    Some(("Ref", name)) => self.reference(name.as_str().unwrap()).into(),
                    Some(("Fn::Sub", text)) => self.substituted(text.as_str().unwrap()).into(),
                    Some(("Fn::Join", argument)) => {
                        let parts = self.resolved(&argument[1]);
                        let parts: Vec<&str> =
                            parts.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
                        parts.join(argument[0].as_str().unwrap()).into()
                    }
                    Some(("Fn::GetAtt", argument)) => {
                        if argument[1] == "Arn" {
                            // What the direct engine asks KMS for.
                            assert_eq!(argument[0], json!(self.only("AWS::KMS::Key")));
                            return self.scope.key_alias().into();
                        }
                        assert_eq!(argument[1], "Version");
                        format!("version of {}", argument[0].as_str().unwrap()).into()
                    }
                    _ => fields
                        .iter()
                        .map(|(name, value)| (name.clone(), self.resolved(value)))
                        .collect::<Map<_, _>>()
                        .into(),
                }
            }
            plain => plain.clone(),
        }
    }

    fn reference(&self, name: &str) -> String {
        match name {
            "AWS::AccountId" => self.scope.account.to_string(),
            "AWS::Region" => self.scope.region.to_string(),
            "AWS::Partition" => self.scope.partition().to_owned(),
            "ArtifactBucket" => "the bucket".to_owned(),
            "Topic" => self.scope.topic_arn(),
            "Key" => "id of Key".to_owned(),
            other => {
                let default = &self.template["Parameters"][other]["Default"];
                default.as_str().unwrap_or_else(|| panic!("what is {other}?")).to_owned()
            }
        }
    }

    fn substituted(&self, text: &str) -> String {
        let mut parts = text.split("${");
        let mut all = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap();
            all += &self.reference(name);
            all += rest;
        }
        all
    }
}

/// What the direct engine calls a resource.
const KINDS: [(&str, &str); 13] = [
    ("key", "AWS::KMS::Alias"),
    ("log group", "AWS::Logs::LogGroup"),
    ("dead-letter queue", "AWS::SQS::Queue"),
    ("schedule group", "AWS::Scheduler::ScheduleGroup"),
    ("role", "AWS::IAM::Role"),
    ("function", "AWS::Lambda::Function"),
    ("alias", "AWS::Lambda::Alias"),
    ("asynchronous invocation", "AWS::Lambda::EventInvokeConfig"),
    ("schedule", "AWS::Scheduler::Schedule"),
    ("topic", "AWS::SNS::Topic"),
    ("subscription", "AWS::SNS::Subscription"),
    ("alarm", "AWS::CloudWatch::Alarm"),
    ("dashboard", "AWS::CloudWatch::Dashboard"),
];

fn role(p: &mut Properties) -> (String, Value) {
    let policies = p.take("Policies");
    let policies: BTreeMap<String, Value> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| (policy["PolicyName"].as_str().unwrap().to_owned(), policy["PolicyDocument"].clone()))
        .collect();
    let wanted = json!({
        "description": p.text("Description"),
        "path": p.text("Path"),
        "permissions_boundary": p.take("PermissionsBoundary"),
        "trust": p.take("AssumeRolePolicyDocument"),
        "policies": policies,
        "attached": p.take("ManagedPolicyArns"),
        "tags": p.tags(),
    });
    (p.text("RoleName"), wanted)
}

fn alarm(p: &mut Properties) -> (String, Value) {
    // No property: it is heeded only when the alarm is made. What takes silence for trouble rings without it at once.
    let waits = p.take("WarmUpConfiguration")["OnlyStartEvaluatingAfterWarmUpPeriodEnds"] == true;
    let missing_data = p.text("TreatMissingData");
    assert_eq!(waits, missing_data == "breaching", "{}", p.id);
    let dimensions = p.take("Dimensions");
    let dimensions: BTreeMap<String, Value> = dimensions
        .as_array()
        .unwrap()
        .iter()
        .map(|dimension| (dimension["Name"].as_str().unwrap().to_owned(), dimension["Value"].clone()))
        .collect();
    let wanted = json!({
        "description": p.text("AlarmDescription"),
        "condition": {
            "metric": {
                "namespace": p.text("Namespace"),
                "name": p.text("MetricName"),
                "dimensions": dimensions,
            },
            "statistic": p.text("Statistic"),
            "period_seconds": p.take("Period"),
            "evaluation_periods": p.take("EvaluationPeriods"),
            "datapoints_to_alarm": p.take("DatapointsToAlarm"),
            "comparison": p.text("ComparisonOperator"),
            "threshold": p.take("Threshold"),
            "missing_data": missing_data,
        },
        "actions_enabled": p.take("ActionsEnabled"),
        "alarm_actions": p.take("AlarmActions"),
        "ok_actions": p.take("OKActions"),
        "insufficient_data_actions": p.take("InsufficientDataActions"),
        "tags": p.tags(),
    });
    (p.text("AlarmName"), wanted)
}

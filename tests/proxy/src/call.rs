//! A call as AWS's access control would name it, whatever protocol its service speaks.
//!
//! The service is the one that the request is signed for. Sources: the services' API references and Smithy's
//! specifications of the AWS protocols.

use std::time::Duration;

use hyper::Method;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// One call of the AWS API.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name in IAM, such as `lambda:CreateFunction`; an unknown one is named by method and path.
    pub action: String,
    /// The Region that it is signed for; empty where it is not signed.
    pub region: String,
    /// The id of the access key that it is signed with; empty where it is not signed.
    pub access_key: String,
    /// Whether it may change something. An unknown call may.
    pub mutating: bool,
    /// How it is written down.
    pub protocol: Protocol,
    /// What it asks for: labels of the path, the query, and the body's fields.
    pub parameters: Value,
    /// The answer's HTTP status; `None` where none came back.
    pub status: Option<u16>,
    /// When it came and when it was answered, after the proxy's start; zero and `None` where no proxy has seen it.
    pub came: Duration,
    /// See `came`.
    pub ended: Option<Duration>,
}

/// How a call is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The action is in the header `X-Amz-Target`, the body is JSON: SQS, SSM, CloudWatch Logs.
    AwsJson,
    /// The action is in the form that is the body; answers are XML: IAM, STS, SNS.
    Query,
    /// EC2's variety of it.
    Ec2Query,
    /// Method and path say what to do, the body is JSON: Lambda, EventBridge Scheduler.
    RestJson,
    /// The action is in the path, the body is CBOR: CloudWatch.
    RpcCbor,
}

impl Call {
    /// Understands a request.
    pub fn of(head: &Parts, body: &[u8]) -> Self {
        let service = signed_for(head);
        let path = head.uri.path();
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let (protocol, operation, mut parameters) = if let Some(target) = target {
            let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
            (Protocol::AwsJson, Some(operation), Map::new())
        } else if let Some((_, operation)) = path.split_once("/operation/") {
            (Protocol::RpcCbor, Some(operation.to_owned()), Map::new())
        } else if path == "/" {
            let form = form(&String::from_utf8_lossy(body));
            let operation = form.get("Action").and_then(Value::as_str).map(str::to_owned);
            (if service == "ec2" { Protocol::Ec2Query } else { Protocol::Query }, operation, form)
        } else {
            let routed = match service.as_str() {
                "s3" => s3(&head.method, path, head.uri.query().unwrap_or_default()),
                _ => route(&service, &head.method, path),
            };
            let (operation, labels) = routed.unzip();
            (Protocol::RestJson, operation, labels.unwrap_or_default())
        };
        if matches!(protocol, Protocol::AwsJson | Protocol::RestJson) {
            parameters.extend(form(head.uri.query().unwrap_or_default()));
            if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
                parameters.extend(fields);
            }
        }
        if protocol == Protocol::RpcCbor {
            parameters.extend(cbor(body));
        }
        if let Some(zip) = parameters.get_mut("Code").and_then(|code| code.get_mut("ZipFile")) {
            *zip = Value::Null;
        }
        if parameters.contains_key("ZipFile") {
            parameters.insert("ZipFile".to_owned(), Value::Null);
        }
        let known = operation.is_some();
        let operation = operation.unwrap_or_else(|| format!("{} {path}", head.method));
        Self {
            mutating: !known || !READS.iter().any(|read| operation.starts_with(read)),
            action: format!("{service}:{}", name_in_iam(&service, &operation)),
            region: signature_scope(head).nth(2).unwrap_or_default().to_owned(),
            access_key: signature_scope(head).next().unwrap_or_default().to_owned(),
            protocol,
            parameters: Value::Object(parameters),
            status: None,
            came: Duration::ZERO,
            ended: None,
        }
    }

    /// The name of the resource that it is about; of an ARN or a URL the last part.
    pub fn resource(&self) -> &str {
        let named = NAMES.iter().find_map(|name| self.parameters.get(*name)?.as_str()).unwrap_or_default();
        match named {
            url if url.starts_with("http") => url.rsplit('/').next().unwrap_or(url),
            // Of `log-group:NAME` and `schedule-group/NAME` the name, which may contain slashes.
            arn if arn.starts_with("arn:") => {
                let resource = arn.splitn(6, ':').nth(5).unwrap_or(arn);
                resource.split_once([':', '/']).map_or(resource, |(_, name)| name)
            }
            name => name,
        }
    }
}

/// The parameters that name what a call is about, the more telling ones first.
const NAMES: [&str; 13] = [
    "RoleName",
    "FunctionName",
    "QueueName",
    "QueueUrl",
    "logGroupName",
    "resourceArn",
    "ResourceArn",
    "ResourceARN",
    "Resource",
    "AlarmName",
    "DashboardName",
    "TopicArn",
    "Name",
];

/// How the names of operations begin that change nothing.
const READS: [&str; 7] = ["Get", "List", "Describe", "Filter", "Simulate", "Decode", "AssumeRole"];

/// IAM's name for an operation, where it is not the operation's own.
fn name_in_iam<'a>(service: &str, operation: &'a str) -> &'a str {
    match (service, operation) {
        ("lambda", "Invoke") => "InvokeFunction",
        // Source: SQS developer guide, "Amazon SQS API permissions": batches take the right of the single call.
        ("sqs", "DeleteMessageBatch") => "DeleteMessage",
        _ => operation,
    }
}

/// The parts of the signature's scope: `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn signature_scope(head: &Parts) -> impl Iterator<Item = &str> {
    let header =
        head.headers.get("authorization").and_then(|header| header.to_str().ok()).unwrap_or_default();
    header.split_once("Credential=").map_or("", |(_, rest)| rest).split('/')
}

/// The service in it.
fn signed_for(head: &Parts) -> String {
    match signature_scope(head).nth(3).unwrap_or("unsigned") {
        "monitoring" => "cloudwatch",
        service => service,
    }
    .to_owned()
}

/// Operations of the services that speak REST: method, path with labels, name. Lambda's paths begin with a date, which
/// is left out here.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("lambda", "GET", "functions", "ListFunctions"),
    ("lambda", "POST", "functions", "CreateFunction"),
    ("lambda", "GET", "functions/{FunctionName}", "GetFunction"),
    ("lambda", "DELETE", "functions/{FunctionName}", "DeleteFunction"),
    ("lambda", "GET", "functions/{FunctionName}/configuration", "GetFunctionConfiguration"),
    ("lambda", "PUT", "functions/{FunctionName}/configuration", "UpdateFunctionConfiguration"),
    ("lambda", "PUT", "functions/{FunctionName}/code", "UpdateFunctionCode"),
    ("lambda", "GET", "functions/{FunctionName}/versions", "ListVersionsByFunction"),
    ("lambda", "POST", "functions/{FunctionName}/versions", "PublishVersion"),
    ("lambda", "GET", "functions/{FunctionName}/aliases", "ListAliases"),
    ("lambda", "POST", "functions/{FunctionName}/aliases", "CreateAlias"),
    ("lambda", "GET", "functions/{FunctionName}/aliases/{Name}", "GetAlias"),
    ("lambda", "PUT", "functions/{FunctionName}/aliases/{Name}", "UpdateAlias"),
    ("lambda", "DELETE", "functions/{FunctionName}/aliases/{Name}", "DeleteAlias"),
    ("lambda", "GET", "functions/{FunctionName}/policy", "GetPolicy"),
    ("lambda", "POST", "functions/{FunctionName}/policy", "AddPermission"),
    ("lambda", "DELETE", "functions/{FunctionName}/policy/{StatementId}", "RemovePermission"),
    ("lambda", "GET", "functions/{FunctionName}/concurrency", "GetFunctionConcurrency"),
    ("lambda", "PUT", "functions/{FunctionName}/concurrency", "PutFunctionConcurrency"),
    ("lambda", "DELETE", "functions/{FunctionName}/concurrency", "DeleteFunctionConcurrency"),
    ("lambda", "GET", "functions/{FunctionName}/event-invoke-config", "GetFunctionEventInvokeConfig"),
    ("lambda", "PUT", "functions/{FunctionName}/event-invoke-config", "PutFunctionEventInvokeConfig"),
    ("lambda", "POST", "functions/{FunctionName}/event-invoke-config", "UpdateFunctionEventInvokeConfig"),
    ("lambda", "DELETE", "functions/{FunctionName}/event-invoke-config", "DeleteFunctionEventInvokeConfig"),
    ("lambda", "GET", "functions/{FunctionName}/event-invoke-config/list", "ListFunctionEventInvokeConfigs"),
    ("lambda", "GET", "functions/{FunctionName}/recursion-config", "GetFunctionRecursionConfig"),
    ("lambda", "PUT", "functions/{FunctionName}/recursion-config", "PutFunctionRecursionConfig"),
    ("lambda", "POST", "functions/{FunctionName}/invocations", "Invoke"),
    ("lambda", "GET", "account-settings", "GetAccountSettings"),
    ("lambda", "GET", "tags/{Resource}", "ListTags"),
    ("lambda", "POST", "tags/{Resource}", "TagResource"),
    ("lambda", "DELETE", "tags/{Resource}", "UntagResource"),
    ("scheduler", "GET", "schedules", "ListSchedules"),
    ("scheduler", "GET", "schedules/{Name}", "GetSchedule"),
    ("scheduler", "POST", "schedules/{Name}", "CreateSchedule"),
    ("scheduler", "PUT", "schedules/{Name}", "UpdateSchedule"),
    ("scheduler", "DELETE", "schedules/{Name}", "DeleteSchedule"),
    ("scheduler", "GET", "schedule-groups", "ListScheduleGroups"),
    ("scheduler", "GET", "schedule-groups/{Name}", "GetScheduleGroup"),
    ("scheduler", "POST", "schedule-groups/{Name}", "CreateScheduleGroup"),
    ("scheduler", "DELETE", "schedule-groups/{Name}", "DeleteScheduleGroup"),
    ("scheduler", "GET", "tags/{ResourceArn}", "ListTagsForResource"),
    ("scheduler", "POST", "tags/{ResourceArn}", "TagResource"),
    ("scheduler", "DELETE", "tags/{ResourceArn}", "UntagResource"),
];

/// The operation that method and path stand for, with the path's labels.
fn route(service: &str, method: &Method, path: &str) -> Option<(String, Map<String, Value>)> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let parts = if service == "lambda" { parts.get(1..)? } else { &parts[..] };
    ROUTES.iter().filter(|route| route.0 == service && route.1 == method.as_str()).find_map(|route| {
        let pattern: Vec<&str> = route.2.split('/').collect();
        if pattern.len() != parts.len() {
            return None;
        }
        let mut labels = Map::new();
        for (wanted, part) in pattern.iter().zip(parts) {
            match wanted.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
                Some(label) => drop(labels.insert(label.to_owned(), Value::String(decoded(part)))),
                None if wanted == part => {}
                None => return None,
            }
        }
        Some((route.3.to_owned(), labels))
    })
}

/// The right that a call of S3 takes: its path is the bucket and the key, and its query says which part of a bucket is
/// meant (source: S3 User Guide, "Required permissions for Amazon S3 API operations"). Its answers, which are XML, are
/// not disturbed.
fn s3(method: &Method, path: &str, query: &str) -> Option<(String, Map<String, Value>)> {
    let (bucket, key) = path.trim_matches('/').split_once('/').unwrap_or((path.trim_matches('/'), ""));
    let part = |name: &str| query.split('&').any(|field| field.split('=').next() == Some(name));
    let action = match (method.as_str(), key.is_empty()) {
        ("GET" | "HEAD", false) => "GetObject",
        ("PUT", false) => "PutObject",
        ("HEAD", true) => "ListBucket",
        ("GET", true) if part("versioning") => "GetBucketVersioning",
        ("GET", true) if part("policy") => "GetBucketPolicy",
        ("PUT", true) if part("versioning") => "PutBucketVersioning",
        ("PUT", true) if part("policy") => "PutBucketPolicy",
        ("PUT", true) if part("encryption") => "PutEncryptionConfiguration",
        ("PUT", true) if part("publicAccessBlock") => "PutBucketPublicAccessBlock",
        ("PUT", true) => "CreateBucket",
        _ => return None,
    };
    let labels = [("Bucket", bucket), ("Key", key)];
    let labels = labels.map(|(name, value)| (name.to_owned(), Value::String(decoded(value))));
    Some((action.to_owned(), labels.into_iter().collect()))
}

/// The fields of `a=b&c=d`; a key that comes more than once becomes a list.
fn form(text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::String(decoded(&value.replace('+', " ")));
        let key = decoded(key);
        match fields.remove(&key) {
            None => fields.insert(key, value),
            Some(Value::Array(mut values)) => {
                values.push(value);
                fields.insert(key, Value::Array(values))
            }
            Some(first) => fields.insert(key, json!([first, value])),
        };
    }
    fields
}

/// The fields of a map in CBOR.
fn cbor(body: &[u8]) -> Map<String, Value> {
    match ciborium::from_reader(body).map(json_of) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The same in JSON. What JSON has no form for, such as bytes, is left out.
fn json_of(value: ciborium::Value) -> Value {
    match value {
        ciborium::Value::Text(text) => Value::String(text),
        ciborium::Value::Bool(flag) => Value::Bool(flag),
        ciborium::Value::Integer(number) => i64::try_from(number).map_or(Value::Null, Value::from),
        ciborium::Value::Float(number) => Value::from(number),
        ciborium::Value::Array(items) => items.into_iter().map(json_of).collect(),
        ciborium::Value::Map(fields) => {
            let named = |(name, value): (ciborium::Value, _)| Some((name.into_text().ok()?, json_of(value)));
            Value::Object(fields.into_iter().filter_map(named).collect())
        }
        // A time is a number with a tag.
        ciborium::Value::Tag(_, value) => json_of(*value),
        _ => Value::Null,
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn call(request: hyper::http::request::Builder, service: &str, body: &str) -> Call {
        let scope =
            format!("AWS4-HMAC-SHA256 Credential=key/20261124/eu-central-1/{service}/aws4_request, …");
        let request = request.header("authorization", scope.replace('…', "x")).body(()).unwrap();
        Call::of(&request.into_parts().0, body.as_bytes())
    }

    /// A call that is not recognised would be counted wrongly by every proof.
    #[test]
    fn every_protocol_is_understood() {
        let post = |uri: &str| Request::post(uri);
        let target = |target: &str| Request::post("/").header("x-amz-target", target);
        let queue = r#"{"QueueName":"q"}"#;
        let permission = "/2015-03-31/functions/f/policy/s?Qualifier=live";
        let group = Request::delete("/schedule-groups/g?clientToken=1");
        for (found, action, mutating, parameter, value) in [
            (call(target("AmazonSQS.CreateQueue"), "sqs", queue), "sqs:CreateQueue", true, "QueueName", "q"),
            (
                call(target("Logs_20140328.DescribeLogGroups"), "logs", "{}"),
                "logs:DescribeLogGroups",
                false,
                "",
                "",
            ),
            (
                call(post("/"), "iam", "Action=CreateRole&RoleName=a%2Bb+c"),
                "iam:CreateRole",
                true,
                "RoleName",
                "a+b c",
            ),
            (call(post("/"), "ec2", "Action=DescribeSnapshots"), "ec2:DescribeSnapshots", false, "", ""),
            (
                call(Request::delete(permission), "lambda", ""),
                "lambda:RemovePermission",
                true,
                "Qualifier",
                "live",
            ),
            (
                call(Request::get("/2015-03-31/functions/f"), "lambda", ""),
                "lambda:GetFunction",
                false,
                "FunctionName",
                "f",
            ),
            (
                call(Request::get("/2017-03-31/tags/arn%3Aaws"), "lambda", ""),
                "lambda:ListTags",
                false,
                "Resource",
                "arn:aws",
            ),
            (
                call(post("/2015-03-31/functions/f/invocations"), "lambda", ""),
                "lambda:InvokeFunction",
                true,
                "",
                "",
            ),
            (call(group, "scheduler", ""), "scheduler:DeleteScheduleGroup", true, "Name", "g"),
            (call(Request::head("/b"), "s3", ""), "s3:ListBucket", false, "Bucket", "b"),
            (
                call(Request::put("/b?versioning"), "s3", "<a/>"),
                "s3:PutBucketVersioning",
                true,
                "Bucket",
                "b",
            ),
            (
                call(Request::put("/b/c/d.zip?x-id=PutObject"), "s3", "PK"),
                "s3:PutObject",
                true,
                "Key",
                "c/d.zip",
            ),
            (
                call(post("/service/Granite/operation/PutMetricAlarm"), "monitoring", ""),
                "cloudwatch:PutMetricAlarm",
                true,
                "",
                "",
            ),
            (
                call(post("/2030-01-01/novelties"), "lambda", ""),
                "lambda:POST /2030-01-01/novelties",
                true,
                "",
                "",
            ),
        ] {
            assert_eq!((found.action.as_str(), found.mutating), (action, mutating), "{found:?}");
            assert_eq!(
                found.parameters.get(parameter).and_then(Value::as_str).unwrap_or_default(),
                value,
                "{found:?}"
            );
        }
    }
}

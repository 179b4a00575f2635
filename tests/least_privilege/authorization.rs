//! What AWS asks IAM for each call: the action, or several, on which resources, with which condition keys.
//!
//! An emulator is no authority on this. Actions, types of resources and condition keys are checked against AWS's
//! Service Authorization Reference; what it leaves out is from the pages that are named here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use snapwarden_deployer::policy::reference::Reference;
use snapwarden_deployer::scope::Scope;
use snapwarden_tests::proxy::Call;

use crate::evaluator::{Context, Pattern, Request};

/// What IAM knows of the resources when a call comes.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) scope: Scope,
    /// The tags of instances, volumes and snapshots by id.
    pub(crate) tags: BTreeMap<String, BTreeMap<String, String>>,
    /// The volumes of each instance.
    pub(crate) volumes: BTreeMap<String, Vec<String>>,
    /// What says on restored volumes whose they are.
    pub(crate) restored_by: String,
}

/// The requests for IAM that a call makes; all of them must be allowed.
///
/// # Panics
///
/// On a call that is not in the table, and on a request that AWS's reference does not know.
pub(crate) fn requests(call: &Call, world: &World) -> Vec<Request> {
    let asked = Asked { call, world, scope: &world.scope };
    let requests = match call.action.split_once(':') {
        // "No permissions are required to perform this operation" (source: STS API, `GetCallerIdentity`).
        Some(("sts", "GetCallerIdentity")) => Vec::new(),
        Some(("sts", "AssumeRole")) => vec![asked.plain(asked.text("RoleArn"), Context::default())],
        Some(("ec2", operation)) => asked.ec2(operation),
        Some(("lambda", operation)) => asked.lambda(operation),
        Some(("scheduler", operation)) => asked.scheduler(operation),
        Some(("iam", _)) => asked.iam(),
        Some(("kms", operation)) => asked.kms(operation),
        Some(("logs", operation)) => asked.logs(operation),
        Some(("sqs", operation)) => asked.sqs(operation),
        Some(("ssm", operation)) => asked.ssm(operation),
        Some(("sns", operation)) => asked.sns(operation),
        Some(("cloudwatch", operation)) => asked.cloudwatch(operation),
        Some(("cloudformation", operation)) => asked.cloudformation(operation),
        Some(("s3", _)) => asked.s3(),
        _ => panic!("{} is not in the table of what calls are authorised for", call.action),
    };
    for request in &requests {
        check(request);
    }
    check_completeness(&requests);
    requests
}

pub(crate) struct Asked<'a> {
    call: &'a Call,
    world: &'a World,
    scope: &'a Scope,
}

impl Asked<'_> {
    fn ec2(&self, operation: &str) -> Vec<Request> {
        let region = || Context::default().with("ec2:Region", self.region());
        let tagged = |id: &str| {
            let tags = self.world.tags.get(id).into_iter().flatten();
            tags.fold(region(), |context, (key, value)| {
                context.with(&format!("aws:ResourceTag/{key}"), value)
            })
        };
        let own = |of: &str, id: &str| {
            let (partition, account) = (self.partition(), &self.scope.account);
            format!("arn:{partition}:ec2:{}:{account}:{of}/{id}", self.region())
        };
        let snapshot = |id: &str| format!("arn:{}:ec2:{}::snapshot/{id}", self.partition(), self.region());
        match operation {
            _ if operation.starts_with("Describe") => vec![self.plain("*", region())],
            // The instance, each of its volumes, and the snapshots to come; their tags are set by CreateTags, which
            // is authorised by itself (source: EC2 User Guide, "Grant permission to tag resources on creation").
            "CreateSnapshots" => {
                let instance = self.text("InstanceSpecification.InstanceId");
                let volumes = self.world.volumes.get(instance).map(Vec::as_slice).unwrap_or_default();
                let requested = self.tagging(region());
                let mut requests = vec![self.plain(&own("instance", instance), tagged(instance))];
                requests.extend(volumes.iter().map(|id| self.plain(&own("volume", id), tagged(id))));
                for id in volumes {
                    let context = requested.clone().with("ec2:ParentVolume", &own("volume", id));
                    requests.push(self.plain(&snapshot("*"), context));
                }
                let context = requested.with("ec2:CreateAction", "CreateSnapshots");
                requests.push(Self::other("ec2:CreateTags", &snapshot("*"), context));
                requests
            }
            // The source, and the copy to come (source: AWS storage blog, "Enhancing resource-level permissions for
            // copying Amazon EBS snapshots"); then the key, in the name of whoever copies (source: EBS user guide,
            // "Requirements for Amazon EBS encryption").
            "CopySnapshot" => {
                let owned = region().with("ec2:Owner", self.scope.account.as_str());
                let requested = self.tagging(region());
                let from = self.text("SourceRegion");
                let id = self.text("SourceSnapshotId");
                let source = format!("arn:{}:ec2:{from}::snapshot/{id}", self.partition());
                let mut requests =
                    vec![self.plain(&source, owned), self.plain(&snapshot("*"), requested.clone())];
                let context = requested.with("ec2:CreateAction", "CopySnapshot");
                requests.push(Self::other("ec2:CreateTags", &snapshot("*"), context));
                requests.extend(self.key_through_ec2(self.text("KmsKeyId")));
                // From another Region, also by the signed address there; and with the source's key.
                if from != self.region() {
                    let there = Context::default().with("ec2:Region", from);
                    let owned = there.with("ec2:Owner", self.scope.account.as_str());
                    requests.push(self.plain(&source, owned));
                }
                // In another account as well.
                if from != self.region() || !self.text("KmsKeyId").contains(self.scope.account.as_str()) {
                    requests.extend(Self::reading(crate::recording::KEY, from));
                }
                requests
            }
            // The snapshot and the volume to come, its tags, and the snapshot's key, whichever that is.
            "CreateVolume" => {
                let requested = self.tagging(region());
                let source = self.text("SnapshotId");
                let mut requests = vec![
                    self.plain(&snapshot(source), tagged(source)),
                    self.plain(&own("volume", "*"), requested.clone()),
                ];
                let context = requested.with("ec2:CreateAction", "CreateVolume");
                requests.push(Self::other("ec2:CreateTags", &own("volume", "*"), context));
                let key = crate::recording::KEY.replace("eu-central-1", self.region());
                let key = key.replace("123456789012", self.scope.account.as_str());
                requests.extend(self.key_through_ec2(&key));
                requests
            }
            // A drill deletes what it made a moment ago: its tags are those that it made it with.
            "DeleteVolume" => {
                let context = region()
                    .with("aws:ResourceTag/snapwarden:restored-by", &self.world.restored_by)
                    .with("aws:ResourceTag/snapwarden:drill", "1795348800");
                vec![self.plain(&own("volume", self.text("VolumeId")), context)]
            }
            "DeleteSnapshot" => {
                let id = self.text("SnapshotId");
                vec![self.plain(&snapshot(id), tagged(id))]
            }
            "ModifySnapshotAttribute" => {
                let id = self.text("SnapshotId");
                let key =
                    if self.text("OperationType") == "add" { "ec2:Add/userId" } else { "ec2:Remove/userId" };
                vec![self.plain(&snapshot(id), tagged(id).with(key, self.text("UserId.1")))]
            }
            _ => self.unknown(),
        }
    }

    fn lambda(&self, operation: &str) -> Vec<Request> {
        // A function may be named by its name or by its ARN, with or without an alias.
        let function = if self.has("Resource") {
            self.text("Resource").to_owned()
        } else {
            let name = self.text("FunctionName").rsplit(":function:").next().unwrap_or_default();
            self.arn("lambda", &format!("function:{name}"))
        };
        // Aliases themselves are no resources; what is done to one through its function is (source: Lambda Developer
        // Guide, "Resources and conditions for Lambda actions").
        let qualified = match self.call.parameters["Qualifier"].as_str() {
            Some(qualifier) => format!("{function}:{qualifier}"),
            None => function.clone(),
        };
        let on_function = |context| vec![self.plain(&qualified, context)];
        match operation {
            "CreateFunction" => {
                let mut requests = on_function(self.tagging(Context::default()));
                requests.push(Self::pass_role(self.text("Role"), "lambda.amazonaws.com", &function));
                requests.extend(self.also_tags("lambda:TagResource", &function));
                requests.extend(self.key_of_settings(&["kms:CreateGrant", "kms:Encrypt"]));
                requests
            }
            "UpdateFunctionConfiguration" => {
                let mut requests = on_function(Context::default());
                if self.has("Role") {
                    requests.push(Self::pass_role(self.text("Role"), "lambda.amazonaws.com", &function));
                }
                requests.extend(self.key_of_settings(&["kms:CreateGrant", "kms:Encrypt"]));
                requests
            }
            // It shows tags only to who may list them (source: Lambda API, `GetFunction`, `TagsError`). Versions and
            // aliases have none.
            "GetFunction" if !self.has("Qualifier") => {
                let mut requests = on_function(Context::default());
                requests.push(Self::other("lambda:ListTags", &function, Context::default()));
                requests.extend(self.key_of_settings(&["kms:Decrypt"]));
                requests
            }
            "TagResource" | "UntagResource" => on_function(self.tagging(Context::default())),
            _ => on_function(Context::default()),
        }
    }

    fn scheduler(&self, operation: &str) -> Vec<Request> {
        let schedule = || {
            let group =
                ["GroupName", "groupName"].into_iter().find(|name| self.has(name)).unwrap_or_default();
            self.arn("scheduler", &format!("schedule/{}/{}", self.text(group), self.text("Name")))
        };
        let group = || self.arn("scheduler", &format!("schedule-group/{}", self.text("Name")));
        match operation {
            "ListSchedules" => vec![self.plain("*", Context::default())],
            "CreateSchedule" | "UpdateSchedule" => {
                let role = self.call.parameters["Target"]["RoleArn"].as_str().unwrap_or_default();
                vec![
                    self.plain(&schedule(), Context::default()),
                    Self::pass_role(role, "scheduler.amazonaws.com", &schedule()),
                ]
            }
            "GetSchedule" | "DeleteSchedule" => vec![self.plain(&schedule(), Context::default())],
            "CreateScheduleGroup" => {
                let mut requests = vec![self.plain(&group(), self.tagging(Context::default()))];
                requests.extend(self.also_tags("scheduler:TagResource", &group()));
                requests
            }
            "GetScheduleGroup" | "DeleteScheduleGroup" => vec![self.plain(&group(), Context::default())],
            "TagResource" | "UntagResource" | "ListTagsForResource" => {
                vec![self.plain(self.text("ResourceArn"), self.tagging(Context::default()))]
            }
            _ => self.unknown(),
        }
    }

    fn iam(&self) -> Vec<Request> {
        let path = &self.scope.iam.role_path;
        let (partition, account) = (self.partition(), &self.scope.account);
        let role = format!("arn:{partition}:iam::{account}:role{path}{}", self.text("RoleName"));
        let mut context = self.tagging(Context::default());
        if let Some(boundary) = &self.scope.iam.permissions_boundary {
            context = context.with("iam:PermissionsBoundary", boundary.as_str());
        }
        if self.has("PolicyArn") {
            context = context.with("iam:PolicyARN", self.text("PolicyArn"));
        }
        let known = |key: &str| knows(&self.call.action, "role", key);
        let unknown: Vec<_> = context.keys().filter(|key| !known(key)).map(str::to_owned).collect();
        context = unknown.iter().fold(context, |context, key| context.without(key));
        let mut requests = vec![self.plain(&role, context)];
        if self.call.action == "iam:CreateRole" {
            requests.extend(self.also_tags("iam:TagRole", &role));
        }
        requests
    }

    /// Keys. What nobody has made yet has an id that nobody knows; what is there carries the environment's tag.
    fn kms(&self, operation: &str) -> Vec<Request> {
        let key = |id: &str| {
            let id = id.rsplit(['/', ':']).next().unwrap_or_default();
            self.arn("kms", &format!("key/{id}"))
        };
        let owned = || Self::owned_key(self.scope);
        match operation {
            "ListAliases" | "ListKeys" => vec![self.plain("*", Context::default())],
            // Source: KMS API, `CreateKey`, "Required permissions".
            "CreateKey" => {
                let tagging = self.tagging(Context::default());
                vec![self.plain("*", tagging.clone()), Self::other("kms:TagResource", &key("new"), tagging)]
            }
            // For the alias and for the key (source: KMS developer guide, "Controlling access to aliases").
            "CreateAlias" => vec![
                self.plain(&self.arn("kms", self.text("AliasName")), Context::default()),
                self.plain(&key(self.text("TargetKeyId")), owned()),
            ],
            _ => vec![self.plain(&key(self.text("KeyId")), self.tagging(owned()))],
        }
    }

    /// What Lambda does with the key of a function's settings, in the name of whoever calls it (source: Lambda
    /// Developer Guide, "Securing Lambda environment variables").
    fn key_of_settings(&self, actions: &[&str]) -> Vec<Request> {
        let Some(key) = self.scope.at_rest_key() else { return Vec::new() };
        let (key, context) = match self.scope.encryption.made() {
            Some(_) => (self.arn("kms", "key/1234abcd"), Self::owned_key(self.scope)),
            None => (key, Context::default()),
        };
        let through = format!("lambda.{}.amazonaws.com", self.scope.region);
        let context = context.with("kms:ViaService", &through);
        actions.iter().map(|action| Self::other(action, &key, context.clone())).collect()
    }

    fn owned_key(scope: &Scope) -> Context {
        Context::default().with("aws:ResourceTag/snapwarden:environment", scope.environment.as_str())
    }

    /// What SNS does with the key of a topic, and SQS with that of a queue, in the name of whoever sends (source: SNS
    /// Developer Guide, "Key management", and SQS Developer Guide, "Key management").
    pub(crate) fn key_through(scope: &Scope, service: &str) -> Vec<Request> {
        let Some(key) = scope.at_rest_key().filter(|key| key.starts_with("arn:")) else { return Vec::new() };
        let through = format!("{service}.{}.amazonaws.com", scope.region);
        let context = Context::default().with("kms:ViaService", &through);
        let actions = ["kms:GenerateDataKey", "kms:Decrypt"];
        actions.iter().map(|action| Self::other(action, &key, context.clone())).collect()
    }

    /// Log groups are named without `:*` where they are tagged, and with it everywhere else (source: CloudWatch Logs
    /// User Guide, "Overview of managing access permissions").
    fn logs(&self, operation: &str) -> Vec<Request> {
        match operation {
            "DescribeLogGroups" => vec![self.plain("*", Context::default())],
            "TagResource" | "UntagResource" | "ListTagsForResource" => {
                vec![self.plain(self.text("resourceArn"), self.tagging(Context::default()))]
            }
            _ => {
                let group = self.arn("logs", &format!("log-group:{}", self.text("logGroupName")));
                let mut requests = vec![self.plain(&format!("{group}:*"), self.tagging(Context::default()))];
                if operation == "CreateLogGroup" {
                    requests.extend(self.also_tags("logs:TagResource", &group));
                }
                requests
            }
        }
    }

    fn sqs(&self, operation: &str) -> Vec<Request> {
        let name = if self.has("QueueName") { "QueueName" } else { "QueueUrl" };
        let queue = self.arn("sqs", self.text(name).rsplit('/').next().unwrap_or_default());
        let mut requests = vec![self.plain(&queue, self.tagging(Context::default()))];
        // Source: SQS API, `CreateQueue`, `tags`.
        if operation == "CreateQueue" {
            requests.extend(self.also_tags("sqs:TagQueue", &queue));
        }
        requests
    }

    fn ssm(&self, operation: &str) -> Vec<Request> {
        let parameter = self.arn("ssm", &format!("parameter{}", self.text("Name")));
        let mut requests = vec![self.plain(&parameter, self.tagging(Context::default()))];
        // Source: SSM API, `PutParameter`, `Tags`, and its user guide, "Tagging parameters".
        if operation == "PutParameter" {
            requests.extend(self.also_tags("ssm:AddTagsToResource", &parameter));
        }
        requests
    }

    fn sns(&self, operation: &str) -> Vec<Request> {
        let topic = self.scope.topic_arn();
        match operation {
            // Source: SNS API, `CreateTopic`, `Tags`.
            "CreateTopic" => {
                let tags = self.also_tags("sns:TagResource", &topic);
                [self.plain(&topic, self.tagging(Context::default()))].into_iter().chain(tags).collect()
            }
            // IAM knows no resources for subscriptions.
            "GetSubscriptionAttributes" | "SetSubscriptionAttributes" | "Unsubscribe" => {
                vec![self.plain("*", Context::default())]
            }
            "TagResource" => vec![self.plain(self.text("ResourceArn"), self.tagging(Context::default()))],
            "ListTagsForResource" | "UntagResource" => {
                vec![self.plain(self.text("ResourceArn"), Context::default())]
            }
            "Publish" => {
                let publish = self.plain(self.text("TopicArn"), Context::default());
                std::iter::once(publish).chain(Self::key_through(self.scope, "sns")).collect()
            }
            _ => vec![self.plain(self.text("TopicArn"), Context::default())],
        }
    }

    fn cloudwatch(&self, operation: &str) -> Vec<Request> {
        let first = |list: &str| self.call.parameters[list][0].as_str().unwrap_or_default();
        let dashboard = |name: &str| {
            let Scope { account, .. } = self.scope;
            format!("arn:{}:cloudwatch::{account}:dashboard/{name}", self.partition())
        };
        match operation {
            "DescribeAlarms" => vec![self.plain(&self.scope.alarm_arn("*"), Context::default())],
            "GetDashboard" | "PutDashboard" => {
                vec![self.plain(&dashboard(self.text("DashboardName")), Context::default())]
            }
            "PutMetricData" => {
                let namespace = self.text("Namespace");
                vec![self.plain("*", Context::default().with("cloudwatch:namespace", namespace))]
            }
            "DeleteDashboards" => vec![self.plain(&dashboard(first("DashboardNames")), Context::default())],
            "PutMetricAlarm" => {
                let alarm = self.scope.alarm_arn(self.text("AlarmName"));
                // Source: CloudWatch API, `PutMetricAlarm`, `Tags`.
                let tags = self.also_tags("cloudwatch:TagResource", &alarm);
                let context = self.tagging(Context::default());
                [self.plain(&alarm, context)].into_iter().chain(tags).collect()
            }
            "DeleteAlarms" => {
                vec![self.plain(&self.scope.alarm_arn(first("AlarmNames")), Context::default())]
            }
            "TagResource" => vec![self.plain(self.text("ResourceARN"), self.tagging(Context::default()))],
            "ListTagsForResource" | "UntagResource" => {
                vec![self.plain(self.text("ResourceARN"), Context::default())]
            }
            _ => self.unknown(),
        }
    }

    /// Change sets are authorised as their stack, and a stack's ARN ends in what CloudFormation makes.
    fn cloudformation(&self, operation: &str) -> Vec<Request> {
        if operation == "DescribeStackDriftDetectionStatus" {
            return vec![self.plain("*", Context::default())];
        }
        let stack = self.arn("cloudformation", &format!("stack/{}/1a2b", self.scope.stack()));
        let mut requests = vec![self.plain(&stack, self.tagging(Context::default()))];
        requests.extend(self.also_tags("cloudformation:TagResource", &stack));
        // Source: CloudFormation User Guide, "CloudFormation service role".
        if self.has("RoleARN") {
            let context = Context::default().with("iam:PassedToService", "cloudformation.amazonaws.com");
            requests.push(Self::other("iam:PassRole", self.text("RoleARN"), context));
        }
        requests
    }

    fn s3(&self) -> Vec<Request> {
        let bucket = format!("arn:{}:s3:::{}", self.partition(), self.text("Bucket"));
        let resource = if self.has("Key") { format!("{bucket}/{}", self.text("Key")) } else { bucket };
        vec![self.plain(&resource, Context::default())]
    }

    /// The call's own action.
    fn plain(&self, resource: &str, context: Context) -> Request {
        Self::other(&self.call.action, resource, context)
    }

    /// Another action that the call takes as well.
    fn other(action: &str, resource: &str, context: Context) -> Request {
        Request { action: action.to_owned(), resource: resource.to_owned(), context }
    }

    /// The Region that is called.
    fn region(&self) -> &str {
        if self.call.region.is_empty() { self.scope.region.as_str() } else { &self.call.region }
    }

    /// What EBS does with a key of another Region when it reads a snapshot there.
    fn reading(key: &str, region: &str) -> Vec<Request> {
        let through = Context::default().with("kms:ViaService", &format!("ec2.{region}.amazonaws.com"));
        let uses = ["Decrypt", "DescribeKey", "ReEncryptFrom"];
        let mut requests: Vec<_> =
            uses.iter().map(|action| Self::other(&format!("kms:{action}"), key, through.clone())).collect();
        requests.push(Self::other("kms:CreateGrant", key, through.with("kms:GrantIsForAWSResource", "true")));
        requests
    }

    /// What EBS does with a key when it encrypts.
    fn key_through_ec2(&self, key: &str) -> Vec<Request> {
        let through = format!("ec2.{}.amazonaws.com", self.region());
        let through = Context::default().with("kms:ViaService", &through);
        let uses =
            ["Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"];
        let mut requests: Vec<_> =
            uses.iter().map(|action| Self::other(&format!("kms:{action}"), key, through.clone())).collect();
        requests.push(Self::other("kms:CreateGrant", key, through.with("kms:GrantIsForAWSResource", "true")));
        requests
    }

    fn pass_role(role: &str, service: &str, to: &str) -> Request {
        let context = Context::default().with("iam:PassedToService", service);
        Self::other("iam:PassRole", role, context.with("iam:AssociatedResourceArn", to))
    }

    /// The right to tag that a call with tags takes beside its own.
    fn also_tags(&self, action: &str, resource: &str) -> Option<Request> {
        let tagged = !tags(&self.call.parameters).is_empty();
        tagged.then(|| Self::other(action, resource, self.tagging(Context::default())))
    }

    /// The keys of the tags that the call asks for.
    fn tagging(&self, context: Context) -> Context {
        tags(&self.call.parameters).iter().fold(context, |context, (key, value)| {
            context.with(&format!("aws:RequestTag/{key}"), value).with("aws:TagKeys", key)
        })
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let Scope { region, account, .. } = self.scope;
        format!("arn:{}:{service}:{region}:{account}:{resource}", self.partition())
    }

    fn partition(&self) -> &'static str {
        self.scope.partition()
    }

    fn has(&self, parameter: &str) -> bool {
        self.call.parameters[parameter].as_str().is_some_and(|text| !text.is_empty())
    }

    fn text(&self, parameter: &str) -> &str {
        let text = self.call.parameters[parameter].as_str();
        text.unwrap_or_else(|| panic!("{} names no {parameter}: {}", self.call.action, self.call.parameters))
    }

    fn unknown(&self) -> ! {
        panic!("{} is not in the table of what calls are authorised for", self.call.action)
    }
}

/// The tags that a call asks for, in whichever of AWS's ways to write them.
fn tags(parameters: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for name in ["Tags", "tags"] {
        match &parameters[name] {
            Value::Object(tags) => {
                return tags.iter().map(|(key, value)| (key.clone(), text(value))).collect();
            }
            Value::Array(tags) => {
                // KMS has names of its own.
                let either = |tag: &Value, name: &str| {
                    let of_kms = tag.get(format!("Tag{name}"));
                    text(of_kms.unwrap_or(&tag[name]))
                };
                return tags.iter().map(|tag| (either(tag, "Key"), either(tag, "Value"))).collect();
            }
            _ => {}
        }
    }
    // `Tags.member.1.Key=…` in IAM, `TagSpecification.1.Tag.1.Key=…` in EC2.
    let fields = parameters.as_object().into_iter().flatten();
    fields
        .filter_map(|(name, key)| {
            let tag = name.strip_suffix(".Key").filter(|name| name.contains("Tag"))?;
            Some((text(key), text(&parameters[format!("{tag}.Value")])))
        })
        .collect()
}

/// A request that AWS does not know proves nothing.
fn check(request: &Request) {
    let Request { action, resource, context } = request;
    let of_type = type_of(action, resource);
    let of_type = of_type.unwrap_or_else(|| panic!("{action} is not authorised for {resource}"));
    for key in context.keys() {
        assert!(knows(action, of_type, key), "IAM knows no {key} for {action} on {resource}");
    }
}

/// A type of resource that is left out could be the one that is denied.
fn check_completeness(requests: &[Request]) {
    let mut covered = BTreeMap::<&str, BTreeSet<&str>>::new();
    for Request { action, resource, .. } in requests {
        covered.entry(action).or_default().extend(type_of(action, resource));
    }
    for (action, types) in covered {
        for (name, row) in Reference::pinned().action(action).into_iter().flatten() {
            assert!(
                !row.required || types.contains(name.as_str()),
                "{action} takes a right to a {name}, too"
            );
        }
    }
}

/// The type of resource that an ARN is of, among those of an action; `""` for `*`.
pub(crate) fn type_of(action: &str, arn: &str) -> Option<&'static str> {
    let reference = Reference::pinned();
    let types = reference.action(action).unwrap_or_else(|| {
        panic!("{action} is not in policies/reference/: if AWS has it, add it to DETAILS in extract.py there")
    });
    if arn == "*" {
        return types.contains_key("").then_some("");
    }
    // The longer form first: a log stream's ARN is also like a log group's.
    let mut forms: Vec<(&str, &str)> =
        types.keys().filter_map(|name| Some((name.as_str(), reference.arn_form(action, name)?))).collect();
    forms.sort_by_key(|(_, form)| std::cmp::Reverse(form.len()));
    forms.into_iter().find(|(_, form)| Pattern::form(form).matches_arn(arn)).map(|(name, _)| name)
}

/// Whether IAM knows a condition key when it authorises an action for a resource of a type.
pub(crate) fn knows(action: &str, of_type: &str, key: &str) -> bool {
    let types = Reference::pinned().action(action);
    let rows = [of_type, ""].into_iter().filter_map(|row| types?.get(row));
    rows.into_iter().any(|row| row.knows(key)) || GLOBAL.iter().any(|global| global.eq_ignore_ascii_case(key))
}

/// Keys of every request, or of every one that a service of AWS's makes (source: IAM User Guide, "AWS global condition
/// context keys").
const GLOBAL: [&str; 2] = ["aws:SourceAccount", "aws:SourceArn"];

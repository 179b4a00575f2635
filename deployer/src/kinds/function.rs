//! The Lambda functions: configuration, code and tags of the unpublished version `$LATEST`.
//!
//! What schedules invoke is the alias; see [`super::Alias`].

mod settings;
mod version;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_lambda::types::{
    Architecture, FunctionCode, FunctionConfiguration, LastUpdateStatus, PackageType, RecursiveLoop, Runtime,
    State, VpcConfig,
};
use futures::future::try_join;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::settings::cleanup_settings;
pub(crate) use self::version::{Version, is_ours};
use super::invoke_permissions::{self, Permissions};
use super::key::{self, OwnKey};
use super::{
    Blueprint, Context, FoundOf, Kind, LogGroup, Role, StepError, last_word, revision, tags, under_names,
};
use crate::cloudformation::{self, Resource, logical_id};
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Condition, Purpose, Resources, Right};
use crate::scope::{Function, Scope};
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct LambdaFunction;

/// What is wanted of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// What a published version would freeze.
    version: Version,
    /// Whether Lambda could make the last change effective; one that failed has to be made again.
    last_change_succeeded: bool,
    /// A limit of invocations at the same time. We set none; the console's "Throttle" button sets 0, and every
    /// scheduled run is lost.
    reserved_concurrency: Option<i32>,
    /// Whether Lambda lets the function invoke itself time and again, as a run does that takes many invocations.
    recursive_loop: String,
    /// `Zip` or `Image`.
    package_type: String,
    /// Who else may invoke it. We let nobody: EventBridge Scheduler comes with a role.
    permissions: Permissions,
    tags: BTreeMap<String, String>,
}

/// How long Lambda may take to make a change effective before we call it stuck.
const READY_LIMIT: Duration = Duration::from_mins(5);

#[async_trait(?Send)]
impl Kind for LambdaFunction {
    const NAME: &'static str = "function";
    type Properties = Properties;
    type Handle = ();
    const FIXED: &'static [&'static str] = &["package_type"];

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        Function::ALL
            .map(|function| {
                let properties = Properties {
                    version: Version::declare(blueprint, function),
                    last_change_succeeded: true,
                    reserved_concurrency: None,
                    recursive_loop: RecursiveLoop::Allow.as_str().to_owned(),
                    package_type: PackageType::Zip.as_str().to_owned(),
                    permissions: Permissions::new(),
                    tags: blueprint.tags(),
                };
                (blueprint.scope.function(function), properties)
            })
            .into()
    }

    fn needs(name: &str, scope: &Scope) -> Vec<ResourceId> {
        let function = Function::ALL.into_iter().find(|function| scope.function(*function) == name);
        let log_group = |function| ResourceId::new(LogGroup::NAME, scope.log_group(function));
        let role = |function: Function| ResourceId::new(Role::NAME, scope.role(function.as_str()));
        let needs = function.into_iter().flat_map(|function| [log_group(function), role(function)]);
        needs.chain(key::needed(scope)).collect()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        if let Some(property) = property.strip_prefix("version.") {
            return Version::why(property);
        }
        let why = match property {
            "last_change_succeeded" => "Lambda could not make the last change effective",
            "reserved_concurrency" => "a limit can keep a run from starting; with 0 none ever does",
            "recursive_loop" => {
                "a run of many invocations hands on to itself, which Lambda would otherwise stop"
            }
            "package_type" => "Snapwarden's functions are zips",
            _ if property.starts_with("permissions.") => invoke_permissions::WHY,
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let version = &found.properties.version;
        let (runtime, architecture) = (&version.runtime, &version.architecture);
        format!("{runtime} {architecture}, {} MB, {} s", version.memory_mb, version.timeout_seconds)
    }

    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let word = last_word(name);
        let function = Function::ALL.into_iter().find(|function| function.as_str() == word);
        let Version { role, runtime, architecture, handler, memory_mb, timeout_seconds, .. } =
            &wanted.version;
        let Version { environment, log_group, log_format, layers, .. } = &wanted.version;
        let Version { application_log_level, system_log_level, .. } = &wanted.version;
        let properties = json!({
            "FunctionName": name,
            "Code": {
                "S3Bucket": { "Ref": cloudformation::ARTIFACT_BUCKET },
                "S3Key": { "Ref": function.map(cloudformation::key_parameter) },
            },
            "Role": role,
            "Runtime": runtime,
            "Architectures": [architecture],
            "Handler": handler,
            "MemorySize": memory_mb,
            "Timeout": timeout_seconds,
            "Environment": { "Variables": environment },
            "KmsKeyArn": key::rendered(blueprint.scope, wanted.version.kms_key.as_deref()),
            "LoggingConfig": {
                "LogGroup": log_group,
                "LogFormat": log_format,
                "ApplicationLogLevel": application_log_level,
                "SystemLogLevel": system_log_level,
            },
            "Layers": layers,
            "PackageType": wanted.package_type,
            "RecursiveLoop": wanted.recursive_loop,
            "ReservedConcurrentExecutions": wanted.reserved_concurrency,
            "Tags": cloudformation::tags(&wanted.tags),
        });
        vec![Resource::new(logical_id(word, "Function"), "AWS::Lambda::Function", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        // Lambda uses the key of the settings in the caller's name (source: Lambda Developer Guide, "Securing Lambda
        // environment variables").
        const fn through_lambda(action: &'static str) -> Right {
            Right::on(Resources::SettingsKey, action).when(Condition::ThroughLambda)
        }
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:GetFunction"),
                        Right::on(Resources::Functions, "lambda:ListTags"),
                        Right::on(Resources::Functions, "lambda:GetFunctionRecursionConfig"),
                        Right::on(Resources::Functions, "lambda:GetPolicy"),
                        through_lambda("kms:Decrypt"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:CreateFunction"),
                        Right::on(Resources::Functions, "lambda:TagResource"),
                        Right::on(Resources::Functions, "lambda:GetFunctionConfiguration"),
                        Right::on(Resources::Functions, "lambda:PutFunctionRecursionConfig"),
                        Right::on(Resources::FunctionRoles, "iam:PassRole")
                            .when(Condition::PassedTo("lambda.amazonaws.com")),
                        through_lambda("kms:CreateGrant"),
                        through_lambda("kms:Encrypt"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:UpdateFunctionCode"),
                        Right::on(Resources::Functions, "lambda:UpdateFunctionConfiguration"),
                        Right::on(Resources::FunctionRoles, "iam:PassRole")
                            .when(Condition::PassedTo("lambda.amazonaws.com")),
                        Right::on(Resources::Functions, "lambda:GetFunctionConfiguration"),
                        Right::on(Resources::Functions, "lambda:PutFunctionRecursionConfig"),
                        through_lambda("kms:CreateGrant"),
                        through_lambda("kms:Encrypt"),
                        Right::on(Resources::Functions, "lambda:RemovePermission"),
                        Right::on(Resources::Functions, "lambda:PutFunctionConcurrency"),
                        Right::on(Resources::Functions, "lambda:DeleteFunctionConcurrency"),
                        Right::on(Resources::Functions, "lambda:TagResource"),
                        Right::on(Resources::Functions, "lambda:UntagResource"),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::Functions, "lambda:DeleteFunction")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
        under_names(Function::ALL.map(|function| cx.scope.function(function)), async |name| {
            let answer = cx.aws.lambda.get_function().function_name(name).send().await;
            let Some(answer) = answer.call("lambda:GetFunction").or_absent()? else { return Ok(None) };
            if let Some(error) = answer.tags_error {
                // Not "no tags": that would make our own function look like a stranger's.
                return Err(AwsError::answered(
                    "lambda:ListTags",
                    Some(error.error_code),
                    Some(error.message),
                ));
            }
            let tags = tags::without_reserved(answer.tags.unwrap_or_default());
            let configuration =
                answer.configuration.unwrap_or_else(|| FunctionConfiguration::builder().build());
            let recursion = cx.aws.lambda.get_function_recursion_config().function_name(name).send();
            let recursion = async { recursion.await.call("lambda:GetFunctionRecursionConfig").or_absent() };
            let permissions = invoke_permissions::observe(cx, name, None);
            let (recursion, permissions) = try_join(recursion, permissions).await?;
            let recursive_loop = recursion.and_then(|recursion| recursion.recursive_loop);
            let properties = Properties {
                version: Version::found(&configuration, &own_key)?,
                last_change_succeeded: configuration.last_update_status() != Some(&LastUpdateStatus::Failed),
                reserved_concurrency: answer
                    .concurrency
                    .and_then(|limit| limit.reserved_concurrent_executions),
                // Lambda's default.
                recursive_loop: recursive_loop.unwrap_or(RecursiveLoop::Terminate).as_str().to_owned(),
                package_type: configuration.package_type().unwrap_or(&PackageType::Zip).as_str().to_owned(),
                permissions,
                tags: tags.clone(),
            };
            let revision = configuration.revision_id;
            Ok(Some(Found { properties, handle: (), tags: Some(tags), revision }))
        })
        .await
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let version = &wanted.version;
        let zip = cx.zip(&version.code_sha256)?;
        let kms_key = version.named_key(cx).await?;
        wait::retry(cx, &[wait::ROLE_FOR_LAMBDA, wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.create_function().function_name(name).role(&version.role);
            let call = call.runtime(Runtime::from(version.runtime.as_str())).handler(&version.handler);
            let call = call.architectures(Architecture::from(version.architecture.as_str()));
            let call = call.memory_size(version.memory_mb).timeout(version.timeout_seconds);
            let call = call.environment(version.variables()).logging_config(version.logging());
            let call = call.set_kms_key_arn(kms_key.clone());
            let call = call.code(FunctionCode::builder().zip_file(zip.clone().into()).build());
            call.set_tags(Some(wanted.tags.clone().into_iter().collect()))
                .send()
                .await
                .call("lambda:CreateFunction")
        })
        .await?;
        wait_until_ready(cx, name).await?;
        put_recursive_loop(cx, name, &wanted.recursive_loop).await
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let (now, then) = (&found.properties.version, &wanted.version);
        let mut revision = found.revision.clone();
        let new_code = Version {
            code_sha256: then.code_sha256.clone(),
            architecture: then.architecture.clone(),
            ..now.clone()
        };
        if *now != new_code {
            revision = update_code(cx, name, (now, &new_code), revision).await?;
        }
        let repeats = wanted.last_change_succeeded && !found.properties.last_change_succeeded;
        if new_code != *then || repeats {
            update_configuration(cx, name, (&new_code, then), revision).await?;
        }
        if found.properties.recursive_loop != wanted.recursive_loop {
            put_recursive_loop(cx, name, &wanted.recursive_loop).await?;
        }
        let unwanted = invoke_permissions::unwanted(&found.properties.permissions, &wanted.permissions);
        invoke_permissions::remove(cx, name, None, &unwanted).await?;
        if found.properties.reserved_concurrency != wanted.reserved_concurrency {
            limit_concurrency(cx, name, wanted.reserved_concurrency).await?;
        }
        update_tags(cx, name, &found.properties.tags, &wanted.tags).await
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            cx.aws
                .lambda
                .delete_function()
                .function_name(name)
                .send()
                .await
                .call("lambda:DeleteFunction")
                .or_absent()
        })
        .await?;
        Ok(())
    }
}

impl Properties {
    /// How long one invocation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.version.timeout()
    }
}

/// Changes the code, unless somebody else changed the function since `revision`; returns the revision after that.
async fn update_code(
    cx: &Context,
    name: &str,
    (found, wanted): (&Version, &Version),
    revision: Option<String>,
) -> Result<Option<String>, StepError> {
    let zip = cx.zip(&wanted.code_sha256)?;
    revision::change_function(cx, name, (found, wanted), revision, async |revision| {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.update_function_code().function_name(name);
            let call = call.architectures(Architecture::from(wanted.architecture.as_str()));
            let call = call.zip_file(zip.clone().into()).set_revision_id(revision.clone());
            call.send().await.call("lambda:UpdateFunctionCode").map(drop)
        })
        .await
    })
    .await?;
    wait_until_ready(cx, name).await
}

async fn update_configuration(
    cx: &Context,
    name: &str,
    (found, wanted): (&Version, &Version),
    revision: Option<String>,
) -> Result<(), StepError> {
    // An empty text is how Lambda takes a key away.
    let kms_key = match wanted.named_key(cx).await? {
        None => found.kms_key.as_ref().map(|_| String::new()),
        key => key,
    };
    revision::change_function(cx, name, (found, wanted), revision, async |revision| {
        wait::retry(cx, &[wait::FUNCTION_BUSY, wait::ROLE_FOR_LAMBDA], async || {
            let call = cx.aws.lambda.update_function_configuration().function_name(name).role(&wanted.role);
            let call = call.runtime(Runtime::from(wanted.runtime.as_str())).handler(&wanted.handler);
            let call = call.memory_size(wanted.memory_mb).timeout(wanted.timeout_seconds);
            let call = call.environment(wanted.variables()).logging_config(wanted.logging());
            let call = call.set_kms_key_arn(kms_key.clone());
            // Empty lists are how Lambda takes these away.
            let nowhere = VpcConfig::builder().set_subnet_ids(Some(Vec::new()));
            let call = call.vpc_config(nowhere.set_security_group_ids(Some(Vec::new())).build());
            let call = call.set_layers(Some(wanted.layers.clone())).set_revision_id(revision.clone());
            call.send().await.call("lambda:UpdateFunctionConfiguration").map(drop)
        })
        .await
    })
    .await?;
    wait_until_ready(cx, name).await.map(drop)
}

async fn limit_concurrency(cx: &Context, name: &str, limit: Option<i32>) -> Result<(), StepError> {
    wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
        if let Some(limit) = limit {
            let call = cx.aws.lambda.put_function_concurrency().function_name(name);
            let call = call.reserved_concurrent_executions(limit);
            call.send().await.call("lambda:PutFunctionConcurrency").map(drop)
        } else {
            let call = cx.aws.lambda.delete_function_concurrency().function_name(name);
            call.send().await.call("lambda:DeleteFunctionConcurrency").map(drop)
        }
    })
    .await?;
    Ok(())
}

async fn put_recursive_loop(cx: &Context, name: &str, wanted: &str) -> Result<(), StepError> {
    wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
        let call = cx.aws.lambda.put_function_recursion_config().function_name(name);
        let call = call.recursive_loop(RecursiveLoop::from(wanted));
        call.send().await.call("lambda:PutFunctionRecursionConfig").map(drop)
    })
    .await?;
    Ok(())
}

async fn update_tags(
    cx: &Context,
    name: &str,
    found: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Result<(), StepError> {
    let arn = cx.scope.arn("lambda", &format!("function:{name}"));
    let write = tags::to_write(wanted, found);
    if !write.is_empty() {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let tags = write.clone().into_iter().collect();
            let call = cx.aws.lambda.tag_resource().resource(&arn).set_tags(Some(tags));
            call.send().await.call("lambda:TagResource")
        })
        .await?;
    }
    let remove = tags::to_remove(wanted, found);
    if !remove.is_empty() {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.untag_resource().resource(&arn).set_tag_keys(Some(remove.clone()));
            call.send().await.call("lambda:UntagResource")
        })
        .await?;
    }
    Ok(())
}

/// Waits until the last change of `$LATEST` is effective: before that, Lambda refuses further changes. Returns the
/// revision that it has then.
pub(super) async fn wait_until_ready(cx: &Context, name: &str) -> Result<Option<String>, StepError> {
    let mut state = String::new();
    let mut revision = None;
    let ready = wait::until(cx, "Lambda to make the function ready", READY_LIMIT, async || {
        let call = cx.aws.lambda.get_function_configuration().function_name(name);
        let answer = call.send().await.call("lambda:GetFunctionConfiguration")?;
        state = format!(
            "state {} {}, last update {} {}",
            answer.state().map_or("unknown", State::as_str),
            answer.state_reason().unwrap_or_default(),
            answer.last_update_status().map_or("unknown", LastUpdateStatus::as_str),
            answer.last_update_status_reason().unwrap_or_default(),
        );
        revision = answer.revision_id().map(str::to_owned);
        let failed = answer.state() == Some(&State::Failed)
            || answer.last_update_status() == Some(&LastUpdateStatus::Failed);
        // Lambda puts a function that has not been invoked for weeks to sleep; it can be changed all the same.
        let active = matches!(answer.state(), Some(State::Active | State::Inactive));
        let settled = answer.last_update_status() == Some(&LastUpdateStatus::Successful);
        Ok(if failed { Some(false) } else { (active && settled).then_some(true) })
    })
    .await?;
    let what = "Lambda did not make the function ready";
    match ready {
        Some(true) => Ok(revision),
        Some(false) => Err(StepError::Failed { what, state }),
        None => Err(StepError::NotReady { what, seconds: READY_LIMIT.as_secs(), state }),
    }
}

//! The alias `live` of each function: the release that schedules and people invoke.
//!
//! Version numbers are not known beforehand, so what is wanted is "a published version that behaves like this".
//! When the alias serves another one, a version that is like it is looked for or published from `$LATEST` (Lambda makes
//! none when nothing changed since the last), and tried in a dry run; the alias moves when that went well, for both
//! functions.

use async_trait::async_trait;
use aws_sdk_lambda::types::{AliasRoutingConfiguration, FunctionConfiguration};
use futures::future::try_join;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::function::{Version, wait_until_ready};
use super::invoke_permissions::{self, Permissions};
use super::key::OwnKey;
use super::{Blueprint, Context, FoundOf, Kind, LambdaFunction, StepError, last_word, revision, under_names};
use crate::cloudformation::{Resource, logical_id};
use crate::error::{AwsError, Call, OrAbsent};
use crate::release;
use crate::release::canary::{self, Canary};
use crate::rights::{Purpose, Resources, Right};
use crate::scope::{ALIAS, Function, Scope};
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Alias;

/// What is wanted of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// What the version that the alias serves is like.
    pub serves: Version,
    /// Whether that version is published; `$LATEST` would change under the schedules' feet.
    published: bool,
    /// Versions that get a share of the traffic beside it. We want none.
    also_serves: Vec<String>,
    /// Who else may invoke it. We let nobody: EventBridge Scheduler comes with a role.
    permissions: Permissions,
}

/// The version's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// The number that Lambda gave the served version.
    pub version: String,
    /// Who released it, and from which commit.
    #[serde(default)]
    pub note: Option<String>,
    /// When it was published.
    #[serde(default)]
    pub published_at: Option<Timestamp>,
}

#[async_trait(?Send)]
impl Kind for Alias {
    const NAME: &'static str = "alias";
    type Properties = Properties;
    type Handle = Handle;
    const REHEARSED: bool = true;

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        Function::ALL
            .map(|function| {
                let serves = Version::declare(blueprint, function);
                (
                    alias_name(blueprint.scope, function),
                    Properties {
                        serves,
                        published: true,
                        also_serves: Vec::new(),
                        permissions: Permissions::new(),
                    },
                )
            })
            .into()
    }

    fn parent(name: &str, _: &Scope) -> Option<ResourceId> {
        Some(ResourceId::new(LambdaFunction::NAME, function_of(name)))
    }

    fn why(_: &str, property: &str) -> Option<String> {
        if let Some(property) = property.strip_prefix("serves.") {
            return Version::why(property);
        }
        let why = match property {
            "published" => "an unpublished version changes under the schedules' feet",
            "also_serves" => "a share of the runs would go to another version",
            _ if property.starts_with("permissions.") => invoke_permissions::WHY,
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        format!("version {}", found.handle.version)
    }

    /// A version cannot be changed: whatever it freezes names it, so that another version is another resource. Those that
    /// came before stay, since runs may be under way on them; they go with their function.
    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let function = function_of(name);
        let word = last_word(function);
        let frozen = hex::encode(Sha256::digest(at_home(blueprint, &json!(wanted.serves).to_string())));
        let version = logical_id(&format!("{word}-version-{}", &frozen[..12]), "");
        let properties = json!({
            "FunctionName": function,
            "Name": ALIAS,
            "FunctionVersion": { "Fn::GetAtt": [version, "Version"] },
        });
        let frozen = json!({ "FunctionName": function, "CodeSha256": wanted.serves.code_sha256 });
        vec![
            Resource::new(logical_id(word, "Alias"), "AWS::Lambda::Alias", properties),
            // A version that a failed change had published would keep the next attempt from publishing it: Lambda
            // publishes nothing twice, and CloudFormation takes no version for its own that it did not publish.
            Resource::new(version, "AWS::Lambda::Version", frozen)
                .when_it_goes("RetainExceptOnCreate", "Retain"),
        ]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:GetAlias"),
                        Right::on(Resources::FunctionVersions, "lambda:GetFunction"),
                        Right::on(Resources::FunctionVersions, "lambda:GetPolicy"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:ListVersionsByFunction"),
                        Right::on(Resources::Functions, "lambda:GetFunctionConfiguration"),
                        Right::on(Resources::Functions, "lambda:PublishVersion"),
                        Right::on(Resources::FunctionVersions, "lambda:GetFunction"),
                        Right::on(Resources::FunctionVersions, "lambda:InvokeFunction"),
                        Right::on(Resources::Functions, "lambda:CreateAlias"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Functions, "lambda:ListVersionsByFunction"),
                        Right::on(Resources::Functions, "lambda:GetFunctionConfiguration"),
                        Right::on(Resources::Functions, "lambda:PublishVersion"),
                        Right::on(Resources::FunctionVersions, "lambda:GetFunction"),
                        Right::on(Resources::FunctionVersions, "lambda:InvokeFunction"),
                        Right::on(Resources::Functions, "lambda:UpdateAlias"),
                        Right::on(Resources::FunctionVersions, "lambda:RemovePermission"),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::Functions, "lambda:DeleteAlias")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
        under_names(Function::ALL.map(|function| alias_name(&cx.scope, function)), async |name| {
            let name = function_of(name);
            let alias = cx.aws.lambda.get_alias().function_name(name).name(ALIAS).send().await;
            let Some(alias) = alias.call("lambda:GetAlias").or_absent()? else { return Ok(None) };
            let version = alias.function_version.unwrap_or_default();
            let served = cx.aws.lambda.get_function().function_name(name).qualifier(&version).send();
            let served = async { served.await.call("lambda:GetFunction").or_absent() };
            let permissions = invoke_permissions::observe(cx, name, Some(ALIAS));
            let (Some(answer), permissions) = try_join(served, permissions).await? else { return Ok(None) };
            let configuration =
                answer.configuration.unwrap_or_else(|| FunctionConfiguration::builder().build());
            let weights = alias.routing_config.and_then(|routing| routing.additional_version_weights);
            let mut also_serves: Vec<String> = weights.unwrap_or_default().into_keys().collect();
            also_serves.sort();
            let published = version != "$LATEST";
            let behaves = Version::found(&configuration, &own_key)?;
            let properties = Properties { serves: behaves, published, also_serves, permissions };
            let published_at = configuration.last_modified().and_then(lambda_time);
            let note = configuration.description().filter(|note| !note.is_empty()).map(str::to_owned);
            let (handle, revision) = (Handle { version, note, published_at }, alias.revision_id);
            Ok(Some(Found { properties, handle, tags: None, revision }))
        })
        .await
    }

    async fn rehearse(
        cx: &Context,
        name: &str,
        found: Option<&FoundOf<Self>>,
        wanted: &Properties,
    ) -> Result<Option<Canary>, StepError> {
        if found.is_some_and(|found| found.properties.is_release(&wanted.serves)) {
            return Ok(None);
        }
        let function = function_of(name);
        let version = published(cx, function, &wanted.serves).await?;
        try_out(cx, function, version).await.map(Some)
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let function = function_of(name);
        let version = published(cx, function, &wanted.serves).await?;
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.create_alias().function_name(function).name(ALIAS);
            call.function_version(&version).send().await.call("lambda:CreateAlias").map(drop)
        })
        .await?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let function = function_of(name);
        let is_release = found.properties.is_release(&wanted.serves);
        if !is_release || found.properties.also_serves != wanted.also_serves {
            let version = if is_release {
                found.handle.version.clone()
            } else {
                published(cx, function, &wanted.serves).await?
            };
            let versions = (found.handle.version.as_str(), version.as_str());
            revision::move_alias(cx, (function, ALIAS), versions, found.revision.clone(), async |revision| {
                wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
                    let call = cx.aws.lambda.update_alias().function_name(function).name(ALIAS);
                    let call = call.function_version(&version).set_revision_id(revision.clone());
                    // An empty routing configuration is how Lambda takes the shares of other versions away.
                    let call = call.routing_config(AliasRoutingConfiguration::builder().build());
                    call.send().await.call("lambda:UpdateAlias").map(drop)
                })
                .await
            })
            .await?;
        }
        let unwanted = invoke_permissions::unwanted(&found.properties.permissions, &wanted.permissions);
        invoke_permissions::remove(cx, function, Some(ALIAS), &unwanted).await
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.delete_alias().function_name(function_of(name)).name(ALIAS);
            call.send().await.call("lambda:DeleteAlias").or_absent()
        })
        .await?;
        Ok(())
    }
}

impl Alias {
    /// The newest published version that is what is wanted of an alias; publishes none.
    pub async fn version_like(cx: &Context, name: &str, wanted: &Value) -> Result<Option<String>, StepError> {
        let wanted =
            Properties::deserialize(wanted).map_err(|error| StepError::Malformed(error.to_string()))?;
        let versions = release::versions(&cx.aws, function_of(name)).await?;
        let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
        Ok(newest_like(&versions, &own_key, &wanted.serves))
    }

    /// Has the version do a dry run that a stack has published for an alias, before the alias moves to it.
    pub async fn try_published(cx: &Context, name: &str, wanted: &Value) -> Result<Canary, StepError> {
        let Some(version) = Self::version_like(cx, name, wanted).await? else {
            return Err(StepError::Changed { what: format!("what CloudFormation published for {name}") });
        };
        try_out(cx, function_of(name), version).await
    }

    /// Whether the alias serves, in one of these, what it does not serve in the other.
    pub(crate) fn serves_another(found: &Value, wanted: &Value) -> bool {
        ["serves", "published"].iter().any(|property| found[property] != wanted[property])
    }

    /// What is wanted of an alias that serves this published version.
    pub(crate) fn serving(
        configuration: &FunctionConfiguration,
        own_key: &OwnKey,
    ) -> Result<Value, AwsError> {
        Ok(json!(Properties {
            serves: Version::found(configuration, own_key)?,
            published: true,
            also_serves: Vec::new(),
            permissions: Permissions::new(),
        }))
    }
}

impl Properties {
    /// Whether the alias serves a published version that is like this.
    fn is_release(&self, version: &Version) -> bool {
        self.serves == *version && self.published
    }
}

/// The newest published version that is what is wanted, or a new one: what an interrupted deploy has published is used,
/// and a release before is still there.
async fn published(cx: &Context, function: &str, wanted: &Version) -> Result<String, StepError> {
    let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
    match newest_like(&release::versions(&cx.aws, function).await?, &own_key, wanted) {
        Some(version) => Ok(version),
        None => publish(cx, function, wanted).await,
    }
}

/// Of versions in their order, the last one that is what is wanted. Pure.
fn newest_like(versions: &[FunctionConfiguration], own_key: &OwnKey, wanted: &Version) -> Option<String> {
    let like = |configuration: &&FunctionConfiguration| {
        // One whose settings nobody can read any more is not what is wanted.
        Version::found(configuration, own_key).is_ok_and(|found| found == *wanted)
    };
    versions.iter().rev().find(like)?.version().map(str::to_owned)
}

/// Has a version do a dry run, unless nobody wants one. One that fails does not go live.
async fn try_out(cx: &Context, function: &str, version: String) -> Result<Canary, StepError> {
    if !cx.with_canary {
        return Ok(Canary::skipped(&version));
    }
    let canary = canary::fly(cx, function, &version).await?;
    if canary.outcome != canary::Outcome::Failed {
        return Ok(canary);
    }
    Err(StepError::Canary { function: function.to_owned(), version, why: canary.summary })
}

/// Publishes `$LATEST` and makes sure that what was published is what is wanted.
async fn publish(cx: &Context, function: &str, wanted: &Version) -> Result<String, StepError> {
    wait_until_ready(cx, function).await?;
    let published = wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
        // The digest makes Lambda refuse when somebody replaced the code in between.
        let call = cx.aws.lambda.publish_version().function_name(function).code_sha256(&wanted.code_sha256);
        let call = call.set_description(cx.release_note());
        call.send().await.call("lambda:PublishVersion")
    })
    .await?;
    let version = published.version.unwrap_or_default();
    let call = cx.aws.lambda.get_function().function_name(function).qualifier(&version);
    let answer = call.send().await.call("lambda:GetFunction")?;
    let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
    let found = answer.configuration.map(|configuration| Version::found(&configuration, &own_key));
    if found.transpose()?.as_ref() == Some(wanted) {
        Ok(version)
    } else {
        Err(StepError::Changed { what: format!("version {version} of {function}") })
    }
}

/// What names a version must name it wherever it is rendered for: for a template that holds in any account, and for one
/// that is patched with what is found in the environment's own.
fn at_home(blueprint: &Blueprint<'_>, text: &str) -> String {
    let (there, home) = (blueprint.scope, Scope::of(blueprint.environment));
    let arns = [there.partition(), home.partition()].map(|partition| format!("arn:{partition}:"));
    text.replace(there.account.as_str(), home.account.as_str())
        .replace(there.region.as_str(), home.region.as_str())
        .replace(&arns[0], &arns[1])
}

/// Lambda's own form of a time: `2026-11-24T18:00:00.000+0000`.
fn lambda_time(text: &str) -> Option<Timestamp> {
    Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()
}

/// The name of a function's alias: `function:live`.
pub fn alias_name(scope: &Scope, function: Function) -> String {
    format!("{}:{ALIAS}", scope.function(function))
}

/// The function that an alias belongs to.
pub(super) fn function_of(name: &str) -> &str {
    name.split_once(':').map_or(name, |(function, _)| function)
}

//! CloudWatch Logs log groups, one for each function.
//!
//! They are made before the functions, with retention, so that Lambda never makes one that keeps logs for ever.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::key::{self, OwnKey};
use super::{Blueprint, Context, FoundOf, Kind, StepError, last_word, tags, under_names};
use crate::cloudformation::{self, Resource, logical_id};
use crate::environment::LogsOnDestroy;
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::scope::{Function, Scope};
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct LogGroup;

/// What is wanted of a log group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// How long logs are kept; absent means for ever.
    retention_days: Option<i32>,
    /// The key that encrypts what is logged from now on; without one, a key of CloudWatch Logs' own does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
    tags: BTreeMap<String, String>,
}

#[async_trait(?Send)]
impl Kind for LogGroup {
    const NAME: &'static str = "log group";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let retention_days = Some(blueprint.environment.functions.log_retention_days.get());
        let kms_key = blueprint.scope.at_rest_key();
        let properties = || Properties { retention_days, kms_key: kms_key.clone(), tags: blueprint.tags() };
        Function::ALL.map(|function| (blueprint.scope.log_group(function), properties())).into()
    }

    fn needs(_: &str, scope: &Scope) -> Vec<ResourceId> {
        key::needed(scope).into_iter().collect()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "retention_days" => {
                "functions.log_retention_days in the environment file; without it logs are kept, and paid, for ever"
            }
            "kms_key" => key::WHY_AT_REST,
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        match found.properties.retention_days {
            Some(days) => format!("kept {days} days"),
            None => "kept for ever".to_owned(),
        }
    }

    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let properties = json!({
            "LogGroupName": name,
            "RetentionInDays": wanted.retention_days,
            "KmsKeyId": key::rendered(blueprint.scope, wanted.kms_key.as_deref()),
            "Tags": cloudformation::tags(&wanted.tags),
        });
        let group = Resource::new(logical_id(last_word(name), "LogGroup"), "AWS::Logs::LogGroup", properties);
        vec![match blueprint.environment.logs {
            LogsOnDestroy::Delete => group.when_it_goes("Delete", "Retain"),
            // A stack whose creation failed would otherwise find the group in its own way the next time.
            LogsOnDestroy::Keep => group.when_it_goes("RetainExceptOnCreate", "Retain"),
        }]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Everything, "logs:DescribeLogGroups"),
                        Right::on(Resources::LogGroups, "logs:ListTagsForResource"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::LogGroupContents, "logs:CreateLogGroup"),
                        Right::on(Resources::LogGroupContents, "logs:PutRetentionPolicy"),
                        Right::on(Resources::LogGroups, "logs:TagResource"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::LogGroupContents, "logs:PutRetentionPolicy"),
                        Right::on(Resources::LogGroupContents, "logs:AssociateKmsKey"),
                        Right::on(Resources::LogGroupContents, "logs:DisassociateKmsKey"),
                        Right::on(Resources::LogGroups, "logs:TagResource"),
                        Right::on(Resources::LogGroups, "logs:UntagResource"),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::LogGroupContents, "logs:DeleteLogGroup")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
        under_names(Function::ALL.map(|function| cx.scope.log_group(function)), async |name| {
            let page = cx.aws.logs.describe_log_groups().log_group_name_prefix(name).send().await;
            // Names are sorted, so the group itself comes before all that only begin like it.
            let group = page
                .call("logs:DescribeLogGroups")?
                .log_groups
                .unwrap_or_default()
                .into_iter()
                .find(|group| group.log_group_name.as_deref() == Some(name));
            let Some(group) = group else { return Ok(None) };
            let listed =
                cx.aws.logs.list_tags_for_resource().resource_arn(cx.scope.log_group_arn(name)).send().await;
            // Deleted since it was listed.
            let Some(listed) = listed.call("logs:ListTagsForResource").or_absent()? else { return Ok(None) };
            let tags = tags::without_reserved(listed.tags.unwrap_or_default());
            let kms_key = own_key.shown(group.kms_key_id());
            let properties =
                Properties { retention_days: group.retention_in_days, kms_key, tags: tags.clone() };
            Ok(Some(Found { properties, handle: (), tags: Some(tags), revision: None }))
        })
        .await
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let tags: HashMap<_, _> = wanted.tags.clone().into_iter().collect();
        let kms_key = named(cx, wanted).await?;
        wait::retry(cx, &[wait::LOG_GROUP_BUSY, wait::KEY_FOR_LOGS], async || {
            let call = cx.aws.logs.create_log_group().log_group_name(name).set_tags(Some(tags.clone()));
            call.set_kms_key_id(kms_key.clone()).send().await.call("logs:CreateLogGroup")
        })
        .await?;
        set_retention(cx, name, wanted.retention_days).await
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        if found.properties.retention_days != wanted.retention_days {
            set_retention(cx, name, wanted.retention_days).await?;
        }
        if found.properties.kms_key != wanted.kms_key {
            set_key(cx, name, wanted).await?;
        }
        let arn = cx.scope.log_group_arn(name);
        let write = tags::to_write(&wanted.tags, &found.properties.tags);
        if !write.is_empty() {
            let call =
                cx.aws.logs.tag_resource().resource_arn(&arn).set_tags(Some(write.into_iter().collect()));
            call.send().await.call("logs:TagResource")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.properties.tags);
        if !remove.is_empty() {
            let call = cx.aws.logs.untag_resource().resource_arn(&arn).set_tag_keys(Some(remove));
            call.send().await.call("logs:UntagResource")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        wait::retry(cx, &[wait::LOG_GROUP_BUSY], async || {
            let call = cx.aws.logs.delete_log_group().log_group_name(name);
            call.send().await.call("logs:DeleteLogGroup").or_absent()
        })
        .await?;
        Ok(())
    }
}

/// The key as CloudWatch Logs takes it, which wants ARNs.
async fn named(cx: &Context, wanted: &Properties) -> Result<Option<String>, AwsError> {
    match wanted.kms_key.as_deref() {
        Some(key) => OwnKey::of(&cx.aws, &cx.scope).await?.named(Some(key)),
        None => Ok(None),
    }
}

/// What was logged before stays as it was encrypted then.
async fn set_key(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
    let kms_key = named(cx, wanted).await?;
    wait::retry(cx, &[wait::LOG_GROUP_BUSY, wait::KEY_FOR_LOGS], async || {
        if let Some(key) = &kms_key {
            let call = cx.aws.logs.associate_kms_key().log_group_name(name).kms_key_id(key);
            call.send().await.call("logs:AssociateKmsKey").map(drop)
        } else {
            let call = cx.aws.logs.disassociate_kms_key().log_group_name(name);
            call.send().await.call("logs:DisassociateKmsKey").map(drop)
        }
    })
    .await?;
    Ok(())
}

async fn set_retention(cx: &Context, name: &str, days: Option<i32>) -> Result<(), StepError> {
    wait::retry(cx, &[wait::LOG_GROUP_BUSY], async || {
        if let Some(days) = days {
            let call = cx.aws.logs.put_retention_policy().log_group_name(name).retention_in_days(days);
            call.send().await.call("logs:PutRetentionPolicy").map(drop)
        } else {
            let call = cx.aws.logs.delete_retention_policy().log_group_name(name);
            call.send().await.call("logs:DeleteRetentionPolicy").map(drop)
        }
    })
    .await?;
    Ok(())
}

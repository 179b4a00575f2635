//! The KMS key of an environment that asks for one of its own: it encrypts the copies of snapshots in clear text, and
//! where that is asked for, whatever else the environment has.
//!
//! KMS makes up a key's id, so the key is known by its alias, and where that is missing yet, by its tags. A key outlives
//! its environment: without it, nothing that it encrypted could ever be read again. Only a purge ends it, and only when
//! nothing in the account needs it any more.

mod in_use;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kms::config::Config;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::types::{KeyMetadata, KeyState, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Blueprint, Context, FoundOf, Kind, StepError, tags};
use crate::aws::Aws;
use crate::cloudformation::{self, Resource};
use crate::environment::MadeKey;
use crate::error::{AwsError, Call, ErrorClass, OrAbsent};
use crate::policy::PolicyDocument;
use crate::rights::{Condition, Purpose, Resources, Right};
use crate::scope::Scope;
use crate::wait;
use crate::world::{Found, ResourceId};

pub use in_use::{Needing, Whose, is_named, needing};
pub use policy::for_services;

/// The kind.
#[derive(Debug)]
pub struct Key;

/// What is wanted of the key. It is symmetric, as all services want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    description: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, …
    state: String,
    /// Whether KMS makes new key material every year; what the former encrypted can still be read.
    rotation: bool,
    /// Who may use it.
    policy: PolicyDocument,
    /// Whether it has its alias; else another key may have it, or none.
    aliased: bool,
    tags: BTreeMap<String, String>,
}

impl Properties {
    /// `Enabled`, `Disabled`, `PendingDeletion`, …
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// What KMS calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Its id.
    pub id: String,
    /// Its ARN, by which other services name it.
    pub arn: String,
}

/// What it takes to end it.
pub const ENDING: &[Right] =
    &[Right::on(Resources::OwnKey, "kms:ScheduleKeyDeletion").when(Condition::Owned)];

#[async_trait(?Send)]
impl Kind for Key {
    const NAME: &'static str = "key";
    type Properties = Properties;
    type Handle = Handle;

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let scope = blueprint.scope;
        let properties = |_: &MadeKey| Properties {
            description: format!("Snapwarden {}: snapshots cannot be read without it", scope.environment),
            state: KeyState::Enabled.as_str().to_owned(),
            rotation: true,
            policy: policy::policy(blueprint.environment, scope),
            aliased: true,
            tags: blueprint.tags(),
        };
        let made = scope.encryption.made().map(properties);
        made.into_iter().map(|properties| (scope.key_alias(), properties)).collect()
    }

    fn goes_by_itself(found: &FoundOf<Self>) -> bool {
        found.properties.state == KeyState::PendingDeletion.as_str()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "state" => "no backup that it encrypted can be read without it",
            "rotation" => "new key material every year; what the former encrypted can still be read",
            "aliased" => "the alias is how everything else names the key",
            _ if property.starts_with("policy.") => "IAM decides, and AWS's services get what they need",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let Properties { state, rotation, .. } = &found.properties;
        format!("{state}, {}", if *rotation { "rotated every year" } else { "not rotated" })
    }

    /// The key stays when its stack goes; its alias goes along, or the next stack could not be made.
    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let window = blueprint.scope.encryption.made().map(|made| made.deletion_window_days);
        let key = json!({
            "Description": wanted.description,
            "Enabled": wanted.state == KeyState::Enabled.as_str(),
            "EnableKeyRotation": wanted.rotation,
            "KeyPolicy": Value::from(wanted.policy.clone()),
            "PendingWindowInDays": window,
            "Tags": cloudformation::tags(&wanted.tags),
        });
        let alias = json!({ "AliasName": name, "TargetKeyId": { "Ref": LOGICAL_ID } });
        vec![
            Resource::new("KeyAlias", "AWS::KMS::Alias", alias),
            Resource::new(LOGICAL_ID, "AWS::KMS::Key", key).when_it_goes("RetainExceptOnCreate", "Retain"),
        ]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        const fn own(action: &'static str) -> Right {
            Right::on(Resources::OwnKey, action).when(Condition::Owned)
        }
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::AnyKeyForOwn, "kms:ListAliases"),
                        Right::on(Resources::AnyKeyForOwn, "kms:ListKeys"),
                        own("kms:DescribeKey"),
                        own("kms:GetKeyPolicy"),
                        own("kms:GetKeyRotationStatus"),
                        own("kms:ListResourceTags"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::AnyKeyForOwn, "kms:CreateKey").when(Condition::Requested),
                        Right::on(Resources::OwnKey, "kms:TagResource").when(Condition::Requested),
                        Right::on(Resources::OwnKeyAlias, "kms:CreateAlias"),
                        own("kms:CreateAlias"),
                        own("kms:EnableKeyRotation"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        own("kms:CancelKeyDeletion"),
                        own("kms:EnableKey"),
                        own("kms:PutKeyPolicy"),
                        own("kms:EnableKeyRotation"),
                        own("kms:UpdateKeyDescription"),
                        own("kms:TagResource"),
                        own("kms:UntagResource"),
                        Right::on(Resources::OwnKeyAlias, "kms:CreateAlias"),
                        own("kms:CreateAlias"),
                    ]
                }
            }
            // Only a purge ends it, with a right of its own.
            Purpose::Delete => &[],
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        if cx.scope.encryption.made().is_none() {
            return Ok(Vec::new());
        }
        let name = cx.scope.key_alias();
        let targets = targets(&cx.aws).await?;
        let (id, aliased) = match targets.get(&name) {
            Some(id) => (Some(id.clone()), true),
            // An interruption between the making of a key and of its alias must not lead to a second key.
            None => (without_alias(&cx.aws, &cx.scope, &targets).await?, false),
        };
        let Some(id) = id else { return Ok(Vec::new()) };
        let Some(key) = describe(&cx.aws, &id).await? else { return Ok(Vec::new()) };
        let policy = cx.aws.kms.get_key_policy().key_id(&id).policy_name(POLICY_NAME).send().await;
        let Some(policy) = policy.call("kms:GetKeyPolicy").or_absent()? else { return Ok(Vec::new()) };
        let rotation = cx.aws.kms.get_key_rotation_status().key_id(&id).send().await;
        let Some(rotation) = rotation.call("kms:GetKeyRotationStatus").or_absent()? else {
            return Ok(Vec::new());
        };
        let Some(tags) = tags_of(&cx.aws, &id).await? else { return Ok(Vec::new()) };
        let properties = Properties {
            description: key.description.clone().unwrap_or_default(),
            state: key.key_state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
            rotation: rotation.key_rotation_enabled,
            policy: PolicyDocument::from_iam(&policy.policy.unwrap_or_default()),
            aliased,
            tags: tags.clone(),
        };
        let handle = Handle { arn: key.arn.unwrap_or_default(), id };
        Ok(vec![(name, Found { properties, handle, tags: Some(tags), revision: None })])
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let id = create_key(cx, wanted).await?;
        set_alias(cx, name, &id).await?;
        cx.aws.kms.enable_key_rotation().key_id(&id).send().await.call("kms:EnableKeyRotation")?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let (kms, id, now) = (&cx.aws.kms, &found.handle.id, &found.properties);
        if now.state != wanted.state {
            if now.state == KeyState::PendingDeletion.as_str() {
                kms.cancel_key_deletion().key_id(id).send().await.call("kms:CancelKeyDeletion")?;
            }
            // A key whose deletion was called off is disabled.
            kms.enable_key().key_id(id).send().await.call("kms:EnableKey")?;
        }
        if now.policy != wanted.policy {
            let call = kms.put_key_policy().key_id(id).policy_name(POLICY_NAME);
            call.policy(wanted.policy.to_json()).send().await.call("kms:PutKeyPolicy")?;
        }
        // KMS says of a key that is to be deleted that it is not rotated, whatever it will do afterwards.
        if now.rotation != wanted.rotation {
            kms.enable_key_rotation().key_id(id).send().await.call("kms:EnableKeyRotation")?;
        }
        if now.description != wanted.description {
            let call = kms.update_key_description().key_id(id).description(&wanted.description);
            call.send().await.call("kms:UpdateKeyDescription")?;
        }
        let write = tags::to_write(&wanted.tags, &now.tags);
        if !write.is_empty() {
            let call = kms.tag_resource().key_id(id).set_tags(Some(kms_tags(&write)?));
            call.send().await.call("kms:TagResource")?;
        }
        let remove = tags::to_remove(&wanted.tags, &now.tags);
        if !remove.is_empty() {
            let call = kms.untag_resource().key_id(id).set_tag_keys(Some(remove));
            call.send().await.call("kms:UntagResource")?;
        }
        if now.aliased != wanted.aliased {
            set_alias(cx, name, id).await?;
        }
        Ok(())
    }

    /// Begins the time after which KMS deletes the key, unless something still needs it: what nobody looked at since the
    /// plan was made counts as well.
    async fn delete(cx: &Context, name: &str, found: &FoundOf<Self>) -> Result<(), StepError> {
        let needing = needing(&cx.aws, &cx.scope, &found.handle, Whose::Anybodys).await?;
        if !needing.is_empty() {
            return Err(StepError::Needed {
                what: format!("{} {name}", Self::NAME),
                by: needing.to_string(),
            });
        }
        let window = cx.scope.encryption.made().map(|made| made.deletion_window_days.as_i32());
        let call = cx.aws.kms.schedule_key_deletion().key_id(&found.handle.id);
        let call = call.set_pending_window_in_days(window);
        call.send().await.call("kms:ScheduleKeyDeletion").or_absent()?;
        Ok(())
    }
}

/// The key's name in a template; its alias is what others wait for.
const LOGICAL_ID: &str = "Key";

/// The only name that a key's policy may have (source: KMS API, `GetKeyPolicy`).
const POLICY_NAME: &str = "default";

/// How long a key that was made a moment ago may not be listed yet.
const LISTING_LIMIT: Duration = Duration::from_secs(15);

/// Makes a key, once. `CreateKey` takes no token, so the SDK must not repeat a call whose answer was lost; whether it
/// was carried out shows in the tags of the keys.
async fn create_key(cx: &Context, wanted: &Properties) -> Result<String, StepError> {
    let tags = kms_tags(&wanted.tags)?;
    let once = || Config::builder().retry_config(RetryConfig::disabled());
    let made = wait::retry(cx, &[wait::KMS_THROTTLES], async || {
        let call = cx.aws.kms.create_key().description(&wanted.description).policy(wanted.policy.to_json());
        let call = call.set_tags(Some(tags.clone())).customize().config_override(once());
        call.send().await.call("kms:CreateKey")
    })
    .await;
    let error = match made.map(|made| made.key_metadata.map(|key| key.key_id)) {
        Ok(Some(id)) => return Ok(id),
        Ok(None) => AwsError::answered("kms:CreateKey", None, Some("KMS does not say which key".to_owned())),
        // A clear refusal: nothing was made.
        Err(error) if ![ErrorClass::NoAnswer, ErrorClass::Other].contains(&error.class) => {
            return Err(error.into());
        }
        Err(error) => error,
    };
    let found = wait::until(cx, "KMS to list the key that it may have made", LISTING_LIMIT, async || {
        let targets = targets(&cx.aws).await?;
        without_alias(&cx.aws, &cx.scope, &targets).await
    });
    match found.await {
        Ok(Some(id)) => Ok(id),
        // What is listed later than this is found by the next command.
        Ok(None) | Err(_) => Err(error.into()),
    }
}

/// Gives the key its alias. Where the SDK repeats a call whose answer was lost, the alias is there already.
async fn set_alias(cx: &Context, name: &str, id: &str) -> Result<(), StepError> {
    let answer = cx.aws.kms.create_alias().alias_name(name).target_key_id(id).send().await;
    match answer.call("kms:CreateAlias") {
        Err(error) if error.class == ErrorClass::AlreadyExists => {
            let is_ours = targets(&cx.aws).await?.get(name).is_some_and(|target| target == id);
            if is_ours { Ok(()) } else { Err(error.into()) }
        }
        result => Ok(result.map(drop)?),
    }
}

/// The id of the key behind every alias of the account and Region.
async fn targets(aws: &Aws) -> Result<BTreeMap<String, String>, AwsError> {
    let mut pages = aws.kms.list_aliases().limit(100).into_paginator().send();
    let mut targets = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let aliases = page.call("kms:ListAliases")?.aliases.unwrap_or_default();
        targets
            .extend(aliases.into_iter().filter_map(|alias| Some((alias.alias_name?, alias.target_key_id?))));
    }
    Ok(targets)
}

/// The key that carries the environment's tag and has no alias: what an interruption left. Of several, always the same.
async fn without_alias(
    aws: &Aws,
    scope: &Scope,
    targets: &BTreeMap<String, String>,
) -> Result<Option<String>, AwsError> {
    let aliased: BTreeSet<&str> = targets.values().map(String::as_str).collect();
    let mut pages = aws.kms.list_keys().into_paginator().send();
    let mut ids = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let keys = page.call("kms:ListKeys")?.keys.unwrap_or_default();
        ids.extend(keys.into_iter().filter_map(|key| key.key_id));
    }
    for id in ids.into_iter().filter(|id| !aliased.contains(id.as_str())) {
        match tags_of(aws, &id).await {
            Ok(tags) if tags.as_ref().is_some_and(|tags| scope.owns(tags)) => return Ok(Some(id)),
            Ok(_) => {}
            // Keys have policies of their own, and some let nobody else look. Ours lets IAM decide.
            Err(error) if error.class == ErrorClass::AccessDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn describe(aws: &Aws, key: &str) -> Result<Option<KeyMetadata>, AwsError> {
    let answer = aws.kms.describe_key().key_id(key).send().await.call("kms:DescribeKey").or_absent()?;
    Ok(answer.and_then(|answer| answer.key_metadata))
}

async fn tags_of(aws: &Aws, id: &str) -> Result<Option<BTreeMap<String, String>>, AwsError> {
    let mut pages = aws.kms.list_resource_tags().key_id(id).into_paginator().send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.call("kms:ListResourceTags").or_absent()? else { return Ok(None) };
        let tags = page.tags.unwrap_or_default();
        found.extend(tags::without_reserved(tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value))));
    }
    Ok(Some(found))
}

fn kms_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, StepError> {
    let tag = |(key, value)| {
        let tag = Tag::builder().tag_key(key).tag_value(value).build();
        tag.map_err(|error| StepError::Malformed(error.to_string()))
    };
    tags.iter().map(tag).collect()
}

/// Why something is encrypted with a key, for plans.
pub(super) const WHY_AT_REST: &str = "encryption.at_rest in the environment file";

/// What has to be there before what the environment's own key encrypts.
pub(super) fn needed(scope: &Scope) -> Option<ResourceId> {
    let own = scope.encryption.made().filter(|_| scope.encryption.at_rest);
    own.map(|_| ResourceId::new(Key::NAME, scope.key_alias()))
}

/// A key as a template names it to a service that takes ARNs only.
pub(super) fn rendered(scope: &Scope, key: Option<&str>) -> Value {
    match key {
        Some(key) if key == scope.key_alias() => json!({ "Fn::GetAtt": [LOGICAL_ID, "Arn"] }),
        key => json!(key),
    }
}

/// The environment's own key as services know it that take ARNs only. What is wanted of them is the key by its alias,
/// and what they say is turned back into that.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnKey {
    arn: Option<String>,
    alias: String,
}

impl OwnKey {
    /// Asks KMS, where the environment has a key of its own.
    pub(crate) async fn of(aws: &Aws, scope: &Scope) -> Result<Self, AwsError> {
        let alias = scope.key_alias();
        let mut id = None;
        if scope.encryption.made().is_some() {
            let mut targets = targets(aws).await?;
            id = targets.remove(&alias);
            if id.is_none() {
                // Whoever takes the alias away leaves everything encrypted with the very key that gets it back.
                id = without_alias(aws, scope, &targets).await?;
            }
        }
        // An alias is of a key of its own account and Region.
        Ok(Self { arn: id.map(|id| scope.arn("kms", &format!("key/{id}"))), alias })
    }

    /// A key that a service names, as it would be wanted.
    pub(crate) fn shown(&self, found: Option<&str>) -> Option<String> {
        let found = found.filter(|found| !found.is_empty())?;
        let is_own = self.arn.as_deref() == Some(found);
        Some(if is_own { self.alias.clone() } else { found.to_owned() })
    }

    /// A key that is wanted, as a service takes it.
    pub(crate) fn named(&self, wanted: Option<&str>) -> Result<Option<String>, AwsError> {
        match wanted {
            Some(wanted) if wanted == self.alias => match &self.arn {
                Some(arn) => Ok(Some(arn.clone())),
                None => Err(AwsError::answered(
                    "kms:ListAliases",
                    Some("NotFoundException".to_owned()),
                    Some(format!("{wanted} is not there (yet)")),
                )),
            },
            wanted => Ok(wanted.map(str::to_owned)),
        }
    }
}

//! The SQS queue that keeps the events EventBridge Scheduler could not deliver, and those whose last try failed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Blueprint, Context, FoundOf, Kind, StepError, key, tags};
use crate::cloudformation::{self, Resource};
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::scope::Scope;
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct DeadLetterQueue;

/// What is wanted of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// How long an event is kept, in seconds.
    retention_seconds: u32,
    /// Whether SQS encrypts the events with a key of its own.
    sqs_managed_encryption: bool,
    /// The key that does it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kms_key: Option<String>,
    tags: BTreeMap<String, String>,
}

/// What later calls name the queue by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    url: String,
}

/// The longest that SQS keeps a message: 14 days, so that nobody misses one over a holiday.
const LONGEST_RETENTION: u32 = 14 * 24 * 60 * 60;

/// Twice as long as SQS says that a deletion may take.
const DELETION_LIMIT: Duration = Duration::from_mins(2);

/// How many times in a row a queue must not be found to count as gone.
const CONVINCING: u32 = 3;

#[async_trait(?Send)]
impl Kind for DeadLetterQueue {
    const NAME: &'static str = "dead-letter queue";
    type Properties = Properties;
    type Handle = Handle;

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let kms_key = blueprint.scope.at_rest_key();
        let properties = Properties {
            retention_seconds: LONGEST_RETENTION,
            // SQS takes one of the two.
            sqs_managed_encryption: kms_key.is_none(),
            kms_key,
            tags: blueprint.tags(),
        };
        vec![(blueprint.scope.dead_letter_queue(), properties)]
    }

    fn needs(_: &str, scope: &Scope) -> Vec<ResourceId> {
        key::needed(scope).into_iter().collect()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "retention_seconds" => "as long as SQS keeps messages, so that nobody misses one over a holiday",
            "sqs_managed_encryption" => "events lie encrypted",
            "kms_key" => key::WHY_AT_REST,
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        format!("keeps events {} days", found.properties.retention_seconds / (24 * 60 * 60))
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let properties = json!({
            "QueueName": name,
            "MessageRetentionPeriod": wanted.retention_seconds,
            "SqsManagedSseEnabled": wanted.sqs_managed_encryption,
            "KmsMasterKeyId": wanted.kms_key,
            "Tags": cloudformation::tags(&wanted.tags),
        });
        vec![Resource::new("DeadLetterQueue", "AWS::SQS::Queue", properties).when_it_goes("Delete", "Retain")]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::DeadLetterQueue, "sqs:GetQueueUrl"),
                        Right::on(Resources::DeadLetterQueue, "sqs:GetQueueAttributes"),
                        Right::on(Resources::DeadLetterQueue, "sqs:ListQueueTags"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::DeadLetterQueue, "sqs:CreateQueue"),
                        Right::on(Resources::DeadLetterQueue, "sqs:TagQueue"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::DeadLetterQueue, "sqs:SetQueueAttributes"),
                        Right::on(Resources::DeadLetterQueue, "sqs:TagQueue"),
                        Right::on(Resources::DeadLetterQueue, "sqs:UntagQueue"),
                    ]
                }
            }
            Purpose::Delete => {
                const {
                    &[
                        Right::on(Resources::DeadLetterQueue, "sqs:DeleteQueue"),
                        Right::on(Resources::DeadLetterQueue, "sqs:GetQueueUrl"),
                    ]
                }
            }
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let name = cx.scope.dead_letter_queue();
        let answer =
            cx.aws.sqs.get_queue_url().queue_name(&name).send().await.call("sqs:GetQueueUrl").or_absent()?;
        let Some(url) = answer.and_then(|answer| answer.queue_url) else { return Ok(Vec::new()) };
        let asked =
            [Attribute::MessageRetentionPeriod, Attribute::SqsManagedSseEnabled, Attribute::KmsMasterKeyId];
        let call = cx.aws.sqs.get_queue_attributes().queue_url(&url).set_attribute_names(Some(asked.into()));
        let Some(answer) = call.send().await.call("sqs:GetQueueAttributes").or_absent()? else {
            return Ok(Vec::new());
        };
        let attributes = answer.attributes.unwrap_or_default();
        let listed = cx
            .aws
            .sqs
            .list_queue_tags()
            .queue_url(&url)
            .send()
            .await
            .call("sqs:ListQueueTags")
            .or_absent()?;
        let tags = tags::without_reserved(listed.and_then(|listed| listed.tags).unwrap_or_default());
        let properties = Properties {
            retention_seconds: attributes
                .get(&Attribute::MessageRetentionPeriod)
                .and_then(|seconds| seconds.parse().ok())
                .unwrap_or_default(),
            sqs_managed_encryption: attributes
                .get(&Attribute::SqsManagedSseEnabled)
                .is_some_and(|on| on == "true"),
            kms_key: attributes.get(&Attribute::KmsMasterKeyId).filter(|key| !key.is_empty()).cloned(),
            tags: tags.clone(),
        };
        Ok(vec![(name, Found { properties, handle: Handle { url }, tags: Some(tags), revision: None })])
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        wait::retry(cx, &[wait::QUEUE_NAME], async || {
            let call = cx.aws.sqs.create_queue().queue_name(name).set_attributes(Some(attributes(wanted)));
            call.set_tags(Some(wanted.tags.clone().into_iter().collect()))
                .send()
                .await
                .call("sqs:CreateQueue")
        })
        .await?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        _: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let url = &found.handle.url;
        let (now, mut then) = (attributes(&found.properties), attributes(wanted));
        if found.properties.kms_key.is_some() {
            // How SQS is told to encrypt with no key of KMS's.
            then.entry(Attribute::KmsMasterKeyId).or_default();
        }
        if now != then {
            let call = cx.aws.sqs.set_queue_attributes().queue_url(url).set_attributes(Some(then));
            call.send().await.call("sqs:SetQueueAttributes")?;
        }
        let write = tags::to_write(&wanted.tags, &found.properties.tags);
        if !write.is_empty() {
            let call = cx.aws.sqs.tag_queue().queue_url(url).set_tags(Some(write.into_iter().collect()));
            call.send().await.call("sqs:TagQueue")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.properties.tags);
        if !remove.is_empty() {
            let call = cx.aws.sqs.untag_queue().queue_url(url).set_tag_keys(Some(remove));
            call.send().await.call("sqs:UntagQueue")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, found: &FoundOf<Self>) -> Result<(), StepError> {
        let call = cx.aws.sqs.delete_queue().queue_url(&found.handle.url);
        call.send().await.call("sqs:DeleteQueue").or_absent()?;
        // For up to 60 s SQS may still answer for the queue. A deploy in that time would find it and keep it, and
        // then it would be gone. One "not found" is not enough: its servers do not all know at once.
        let mut absent = 0;
        let (text, what) = ("SQS to finish deleting the queue", "SQS did not delete the queue");
        wait::until_gone(cx, text, what, DELETION_LIMIT, async || {
            let queue = cx.aws.sqs.get_queue_url().queue_name(name).send().await;
            absent = if queue.call("sqs:GetQueueUrl").or_absent()?.is_some() { 0 } else { absent + 1 };
            Ok(absent >= CONVINCING)
        })
        .await
    }
}

fn attributes(properties: &Properties) -> HashMap<Attribute, String> {
    let always = [
        (Attribute::MessageRetentionPeriod, properties.retention_seconds.to_string()),
        (Attribute::SqsManagedSseEnabled, properties.sqs_managed_encryption.to_string()),
    ];
    let key = properties.kms_key.clone().map(|key| (Attribute::KmsMasterKeyId, key));
    always.into_iter().chain(key).collect()
}

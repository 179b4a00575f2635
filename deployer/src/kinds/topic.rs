//! The SNS topic through which alarms and failing runs tell people.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Blueprint, Context, FoundOf, Kind, StepError, key, tags};
use crate::cloudformation::{self, Resource};
use crate::error::{AwsError, Call, OrAbsent};
use crate::policy::PolicyDocument;
use crate::rights::{Purpose, Resources, Right};
use crate::scope::Scope;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Topic;

/// What is wanted of the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// What emails come from.
    display_name: String,
    /// Who may publish besides those whose own policies let them.
    policy: PolicyDocument,
    /// The key that encrypts messages while they lie; none where they lie in plain.
    kms_key: Option<String>,
    tags: BTreeMap<String, String>,
}

const DISPLAY_NAME: &str = "DisplayName";
const POLICY: &str = "Policy";
const KMS_KEY: &str = "KmsMasterKeyId";

#[async_trait(?Send)]
impl Kind for Topic {
    const NAME: &'static str = "topic";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let scope = blueprint.scope;
        let properties = Properties {
            display_name: format!("Snapwarden {}", scope.environment),
            policy: policy(scope),
            // A key for the topic alone comes first.
            kms_key: blueprint.environment.topic_key(),
            tags: blueprint.tags(),
        };
        vec![(scope.topic(), properties)]
    }

    fn needs(_: &str, scope: &Scope) -> Vec<ResourceId> {
        key::needed(scope).into_iter().collect()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = match property {
            "kms_key" => "notify.kms_key or encryption.at_rest in the environment file",
            _ if property.starts_with("policy.") => "only this environment's alarms may publish",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        match found.properties.kms_key {
            Some(_) => "told by alarms and failing runs, encrypted".to_owned(),
            None => "told by alarms and failing runs".to_owned(),
        }
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let properties = json!({
            "TopicName": name,
            "DisplayName": wanted.display_name,
            "KmsMasterKeyId": wanted.kms_key,
            "Tags": cloudformation::tags(&wanted.tags),
        });
        // To CloudFormation a topic's policy is a resource of its own.
        let policy =
            json!({ "Topics": [{ "Ref": "Topic" }], "PolicyDocument": Value::from(wanted.policy.clone()) });
        vec![
            Resource::new("Topic", "AWS::SNS::Topic", properties),
            Resource::new("TopicPolicy", "AWS::SNS::TopicPolicy", policy),
        ]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Topic, "sns:GetTopicAttributes"),
                        Right::on(Resources::Topic, "sns:ListTagsForResource"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Topic, "sns:CreateTopic"),
                        Right::on(Resources::Topic, "sns:TagResource"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Topic, "sns:SetTopicAttributes"),
                        Right::on(Resources::Topic, "sns:TagResource"),
                        Right::on(Resources::Topic, "sns:UntagResource"),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::Topic, "sns:DeleteTopic")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let arn = cx.scope.topic_arn();
        let answer = cx.aws.sns.get_topic_attributes().topic_arn(&arn).send().await;
        let Some(answer) = answer.call("sns:GetTopicAttributes").or_absent()? else { return Ok(Vec::new()) };
        let attributes = answer.attributes.unwrap_or_default();
        let listed = cx.aws.sns.list_tags_for_resource().resource_arn(&arn).send().await;
        // Deleted since its attributes were read.
        let Some(listed) = listed.call("sns:ListTagsForResource").or_absent()? else { return Ok(Vec::new()) };
        let listed = listed.tags.unwrap_or_default();
        let tags = tags::without_reserved(listed.into_iter().map(|tag| (tag.key, tag.value)));
        let text = |name: &str| attributes.get(name).cloned().unwrap_or_default();
        let properties = Properties {
            display_name: text(DISPLAY_NAME),
            policy: PolicyDocument::from_iam(&text(POLICY)),
            kms_key: attributes.get(KMS_KEY).filter(|key| !key.is_empty()).cloned(),
            tags: tags.clone(),
        };
        Ok(vec![(cx.scope.topic(), Found { properties, handle: (), tags: Some(tags), revision: None })])
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let mut call = cx.aws.sns.create_topic().name(name).set_tags(Some(sns_tags(&wanted.tags)?));
        for (attribute, value) in attributes(wanted) {
            call = call.attributes(attribute, value);
        }
        call.send().await.call("sns:CreateTopic")?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        _: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let arn = cx.scope.topic_arn();
        let now = attributes(&found.properties);
        for (attribute, value) in attributes(wanted).into_iter().filter(|wanted| !now.contains(wanted)) {
            let call = cx.aws.sns.set_topic_attributes().topic_arn(&arn);
            let call = call.attribute_name(attribute).attribute_value(value);
            call.send().await.call("sns:SetTopicAttributes")?;
        }
        let write = tags::to_write(&wanted.tags, &found.properties.tags);
        if !write.is_empty() {
            let call = cx.aws.sns.tag_resource().resource_arn(&arn).set_tags(Some(sns_tags(&write)?));
            call.send().await.call("sns:TagResource")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.properties.tags);
        if !remove.is_empty() {
            let call = cx.aws.sns.untag_resource().resource_arn(&arn).set_tag_keys(Some(remove));
            call.send().await.call("sns:UntagResource")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, _: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        let call = cx.aws.sns.delete_topic().topic_arn(cx.scope.topic_arn());
        call.send().await.call("sns:DeleteTopic").or_absent()?;
        Ok(())
    }
}

/// In the order in which they are written. An empty key is how SNS switches encryption off.
fn attributes(properties: &Properties) -> [(&'static str, String); 3] {
    [
        (DISPLAY_NAME, properties.display_name.clone()),
        (POLICY, properties.policy.to_json()),
        (KMS_KEY, properties.kms_key.clone().unwrap_or_default()),
    ]
}

/// Alarms publish as a service, which only the topic's own policy can let them. The functions publish with their
/// roles, whose policies do.
fn policy(scope: &Scope) -> PolicyDocument {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "AlarmsPublish",
            "Effect": "Allow",
            "Principal": { "Service": "cloudwatch.amazonaws.com" },
            "Action": "sns:Publish",
            "Resource": scope.topic_arn(),
            "Condition": {
                "StringEquals": { "aws:SourceAccount": scope.account },
                "ArnLike": { "aws:SourceArn": scope.alarm_arn(&scope.alarm("*")) },
            },
        }],
    })
    .into()
}

fn sns_tags(tags: &BTreeMap<String, String>) -> Result<Vec<aws_sdk_sns::types::Tag>, StepError> {
    let tag = |(key, value)| {
        let tag = aws_sdk_sns::types::Tag::builder().key(key).value(value).build();
        tag.map_err(|error| StepError::Malformed(error.to_string()))
    };
    tags.iter().map(tag).collect()
}

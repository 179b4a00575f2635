//! Who the topic tells: email addresses and HTTPS endpoints.
//!
//! Until its owner confirms a subscription, SNS sends it nothing, gives it no ARN, lets nobody delete it, and forgets
//! it after 48 hours. So a pending one is as it should be, and one that is not wanted any more goes by itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Blueprint, Context, FoundOf, Kind, StepError, Topic};
use crate::cloudformation::{Resource, logical_id};
use crate::environment::{HttpsUrl, Notify};
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::scope::Scope;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Subscription;

/// What is wanted of a subscription; its name is its protocol and its endpoint, as far as everybody may see that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// Which messages it gets. We set none: all of them.
    filter: Option<Value>,
}

/// What SNS says of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Its ARN; none before it is confirmed.
    pub arn: Option<String>,
    /// Whether its owner has yet to confirm it.
    pub pending: bool,
}

const FILTER: &str = "FilterPolicy";

#[async_trait(?Send)]
impl Kind for Subscription {
    const NAME: &'static str = "subscription";
    type Properties = Properties;
    type Handle = Handle;

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let notify = &blueprint.environment.notify;
        endpoints(notify).into_keys().map(|name| (name, Properties { filter: None })).collect()
    }

    fn parent(_: &str, scope: &Scope) -> Option<ResourceId> {
        Some(ResourceId::new(Topic::NAME, scope.topic()))
    }

    fn goes_by_itself(found: &FoundOf<Self>) -> bool {
        found.handle.arn.is_none()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let why = "with a filter, messages do not arrive";
        (property == "filter" || property.starts_with("filter.")).then(|| why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        if found.handle.pending {
            return "waits for its owner to confirm it".to_owned();
        }
        "confirmed".to_owned()
    }

    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let protocol = name.split_once(':').map_or(name, |(protocol, _)| protocol);
        let endpoint = endpoints(&blueprint.environment.notify).remove(name).unwrap_or_default();
        let properties = json!({
            "TopicArn": blueprint.scope.topic_arn(),
            "Protocol": protocol,
            "Endpoint": endpoint,
            "FilterPolicy": wanted.filter,
        });
        // Endpoints that differ only in their punctuation are two.
        let digest = hex::encode(Sha256::digest(&endpoint));
        let id = logical_id(&format!("{protocol}-{}", &digest[..12]), "Subscription");
        vec![Resource::new(id, "AWS::SNS::Subscription", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Topic, "sns:ListSubscriptionsByTopic"),
                        Right::on(Resources::Everything, "sns:GetSubscriptionAttributes"),
                    ]
                }
            }
            Purpose::Create => const { &[Right::on(Resources::Topic, "sns:Subscribe")] },
            Purpose::Update => const { &[Right::on(Resources::Everything, "sns:SetSubscriptionAttributes")] },
            Purpose::Delete => const { &[Right::on(Resources::Everything, "sns:Unsubscribe")] },
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let call = cx.aws.sns.list_subscriptions_by_topic().topic_arn(cx.scope.topic_arn());
        let mut pages = call.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let Some(page) = page.call("sns:ListSubscriptionsByTopic").or_absent()? else { break };
            for subscription in page.subscriptions.unwrap_or_default() {
                let (protocol, endpoint) = (subscription.protocol, subscription.endpoint);
                let name = name(&protocol.unwrap_or_default(), &endpoint.unwrap_or_default());
                // In place of an ARN stands `PendingConfirmation`.
                let arn = subscription.subscription_arn.filter(|arn| arn.starts_with("arn:"));
                let Some(arn) = arn else {
                    let handle = Handle { arn: None, pending: true };
                    let properties = Properties { filter: None };
                    found.push((name, Found { properties, handle, tags: None, revision: None }));
                    continue;
                };
                let call = cx.aws.sns.get_subscription_attributes().subscription_arn(&arn);
                let answer = call.send().await.call("sns:GetSubscriptionAttributes").or_absent()?;
                // Somebody left since the list was made.
                let Some(answer) = answer else { continue };
                let attributes = answer.attributes.unwrap_or_default();
                let filter = attributes.get(FILTER).map(|filter| {
                    serde_json::from_str(filter).unwrap_or_else(|_| Value::String(filter.clone()))
                });
                // An empty filter lets everything pass.
                let filter =
                    filter.filter(|filter| !matches!(filter, Value::Object(keys) if keys.is_empty()));
                let pending = attributes.get("PendingConfirmation").is_some_and(|pending| pending == "true");
                let (properties, handle) = (Properties { filter }, Handle { arn: Some(arn), pending });
                found.push((name, Found { properties, handle, tags: None, revision: None }));
            }
        }
        Ok(found)
    }

    async fn create(cx: &Context, name: &str, _: &Properties) -> Result<(), StepError> {
        let protocol = name.split_once(':').map_or(name, |(protocol, _)| protocol);
        let endpoint = cx.endpoints.get(name).ok_or_else(|| {
            StepError::Malformed(format!("the environment's file names no endpoint for {name}"))
        })?;
        // SNS answers for an endpoint that is subscribed already with the subscription there is.
        let call = cx.aws.sns.subscribe().topic_arn(cx.scope.topic_arn());
        call.protocol(protocol).endpoint(endpoint).send().await.call("sns:Subscribe")?;
        Ok(())
    }

    async fn update(cx: &Context, _: &str, found: &FoundOf<Self>, _: &Properties) -> Result<(), StepError> {
        let Some(arn) = &found.handle.arn else { return Ok(()) };
        let call = cx.aws.sns.set_subscription_attributes().subscription_arn(arn);
        // The empty filter is how SNS takes one away.
        let call = call.attribute_name(FILTER).attribute_value("{}");
        call.send().await.call("sns:SetSubscriptionAttributes")?;
        Ok(())
    }

    async fn delete(cx: &Context, _: &str, found: &FoundOf<Self>) -> Result<(), StepError> {
        let Some(arn) = &found.handle.arn else { return Ok(()) };
        cx.aws.sns.unsubscribe().subscription_arn(arn).send().await.call("sns:Unsubscribe").or_absent()?;
        Ok(())
    }
}

/// A subscription's name. What follows an address's host is often the secret that lets somebody write there, and names
/// are in plans, in files and on screens.
pub fn name(protocol: &str, endpoint: &str) -> String {
    match protocol {
        "https" => format!("https:{}", HttpsUrl::shown(endpoint)),
        _ => format!("{protocol}:{endpoint}"),
    }
}

/// The endpoints to subscribe, by the names of their subscriptions.
pub fn endpoints(notify: &Notify) -> BTreeMap<String, String> {
    let emails = notify.emails.iter().map(|email| ("email", email.to_string()));
    let https = notify.https.iter().map(|url| ("https", url.to_string()));
    emails.chain(https).map(|(protocol, endpoint)| (name(protocol, &endpoint), endpoint)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A webhook's address is a password: in a plan that a pipeline prints, everybody could write to the channel.
    #[test]
    fn no_name_holds_what_follows_the_host() {
        let secret = "https://hooks.example.org/T000/B000/s3cr3t";
        let shown = name("https", secret);
        assert!(shown.starts_with("https:hooks.example.org/…#") && !shown.contains("s3cr3t"), "{shown}");
        assert_ne!(shown, name("https", "https://hooks.example.org/T000/B000/other"));
        assert_eq!(name("email", "ops@example.org"), "email:ops@example.org");
        let https = vec![secret.to_owned().try_into().unwrap()];
        let endpoints = endpoints(&Notify { https, ..Notify::default() });
        assert_eq!(endpoints.get(&shown).map(String::as_str), Some(secret));
    }
}

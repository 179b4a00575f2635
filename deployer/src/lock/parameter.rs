//! The SSM parameter that holds a lock.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::config::Config;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::types::{ParameterType, Tag};
use snapwarden_domain::tags;

use super::{Holder, Lease, Slot};
use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};
use crate::scope::Scope;

/// How long a write may take that takes a lock over, and a deletion, well below what its taker then waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// The parameter of one environment.
#[derive(Clone, Debug)]
pub struct Parameter {
    ssm: aws_sdk_ssm::Client,
    name: String,
    environment: String,
    lease: Lease,
}

impl Parameter {
    /// The parameter of `scope`'s environment.
    pub fn of(aws: &Aws, scope: &Scope) -> Self {
        let environment = scope.environment.to_string();
        Self { ssm: aws.ssm.clone(), name: scope.lock_parameter(), environment, lease: aws.lease.clone() }
    }
}

#[async_trait(?Send)]
impl Slot for Parameter {
    async fn create(&self, holder: &Holder) -> Result<(), AwsError> {
        let call = self.ssm.put_parameter().name(&self.name).r#type(ParameterType::String).overwrite(false);
        let tag = Tag::builder().key(tags::ENVIRONMENT).value(&self.environment).build();
        // Both parts are given.
        let call = call.set_tags(tag.ok().map(|tag| vec![tag]));
        let call = call.description("Held while a command of Snapwarden changes the environment");
        call.value(text(holder)).send().await.call("ssm:PutParameter").map(drop)
    }

    async fn overwrite(&self, holder: &Holder) -> Result<i64, AwsError> {
        let call = self.ssm.put_parameter().name(&self.name).r#type(ParameterType::String).overwrite(true);
        let answer = call.value(text(holder)).customize().config_override(once()).send().await;
        Ok(answer.call("ssm:PutParameter")?.version)
    }

    async fn read(&self) -> Result<Option<(Option<Holder>, i64)>, AwsError> {
        let answer = self.ssm.get_parameter().name(&self.name).send().await;
        let found = answer.call("ssm:GetParameter").or_absent()?.and_then(|answer| answer.parameter);
        Ok(found.map(|parameter| {
            let value = parameter.value.unwrap_or_default();
            (serde_json::from_str(&value).ok(), parameter.version)
        }))
    }

    async fn delete(&self) -> Result<(), AwsError> {
        let call = self.ssm.delete_parameter().name(&self.name);
        let answer = call.customize().config_override(once()).send().await;
        answer.call("ssm:DeleteParameter").or_absent().map(drop)
    }

    fn lease(&self) -> Lease {
        self.lease.clone()
    }
}

/// A repetition could land seconds later, when somebody else has made sure that the lock is theirs.
fn once() -> aws_sdk_ssm::config::Builder {
    let timeouts = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
    Config::builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts)
}

fn text(holder: &Holder) -> String {
    serde_json::json!(holder).to_string()
}

//! The one place where names and ARNs come from.
//!
//! All derive from partition, account, Region and environment, so nothing has to be remembered between two runs and
//! two environments never meet, not even in one account and Region.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::tags;

use crate::environment::{AccountId, CopyPlace, Encryption, Environment, Iam, Identity, Region, made_alias};
use crate::role_prefix;

/// The tag that remembers on AWS that an environment is protected, whatever its file says later.
pub const PROTECTED_TAG: &str = "snapwarden:protected";

/// Where an environment's resources are, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The AWS account.
    pub account: AccountId,
    /// The AWS Region.
    pub region: Region,
    /// The environment's name.
    pub environment: EnvironmentName,
    /// Where the roles are in IAM, and what limits them.
    pub iam: Iam,
    /// What key there is, and what it encrypts.
    pub encryption: Encryption,
}

/// The two Lambda functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Makes snapshots.
    Backup,
    /// Deletes expired snapshots.
    Cleanup,
}

impl Function {
    /// Both functions, in the order in which they run at night.
    pub const ALL: [Self; 2] = [Self::Backup, Self::Cleanup];

    /// `backup` or `cleanup`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Cleanup => "cleanup",
        }
    }
}

/// The alias that schedules and people invoke: the released version.
pub const ALIAS: &str = "live";

impl Scope {
    /// The scope of an environment.
    pub fn of(environment: &Environment) -> Self {
        Self {
            account: environment.account.clone(),
            region: environment.region.clone(),
            environment: environment.environment.clone(),
            iam: environment.iam.clone(),
            encryption: environment.encryption.clone(),
        }
    }

    /// The same, of an environment of whose file no more could be read.
    pub fn identified_by(identity: &Identity) -> Self {
        Self {
            account: identity.account.clone(),
            region: identity.region.clone(),
            environment: identity.environment.clone(),
            iam: identity.iam.clone(),
            encryption: identity.encryption.clone(),
        }
    }

    /// Whose the copies in a place are.
    pub fn owner_of_copies(&self, place: &CopyPlace) -> Owner {
        let (environment, region) = (&self.environment, self.region.as_str());
        match place.role {
            None => Owner::of_copies(environment, region),
            Some(_) => Owner::of_copies_in_another_account(environment, region, self.account.as_str()),
        }
    }

    /// The AWS partition that the Region belongs to (source: AWS General Reference, "Amazon Resource Names").
    pub fn partition(&self) -> &'static str {
        match self.region.as_str() {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            region if region.starts_with("us-isob-") => "aws-iso-b",
            region if region.starts_with("us-isof-") => "aws-iso-f",
            region if region.starts_with("us-iso-") => "aws-iso",
            region if region.starts_with("eu-isoe-") => "aws-iso-e",
            region if region.starts_with("eusc-") => "aws-eusc",
            _ => "aws",
        }
    }

    /// `snapwarden-prod`: the schedule group, and the beginning of every other name.
    pub fn schedule_group(&self) -> String {
        format!("snapwarden-{}", self.environment)
    }

    /// The environment's stack, where CloudFormation is the engine.
    pub fn stack(&self) -> String {
        format!("snapwarden-{}", self.environment)
    }

    /// A function's name.
    pub fn function(&self, function: Function) -> String {
        format!("snapwarden-{}-{}", self.environment, function.as_str())
    }

    /// A function's log group.
    pub fn log_group(&self, function: Function) -> String {
        format!("/aws/lambda/{}", self.function(function))
    }

    /// A role's name. IAM is global, so the Region is part of it.
    pub fn role(&self, purpose: &str) -> String {
        format!("{}snapwarden-{}-{}-{purpose}", self.iam.role_name_prefix, self.environment, self.region)
    }

    /// The dead-letter queue of both schedules.
    pub fn dead_letter_queue(&self) -> String {
        format!("snapwarden-{}-dead-letters", self.environment)
    }

    /// The SNS topic that everybody is told through.
    pub fn topic(&self) -> String {
        format!("snapwarden-{}-notifications", self.environment)
    }

    /// The ARN of the topic.
    pub fn topic_arn(&self) -> String {
        self.arn("sns", &self.topic())
    }

    /// An alarm's name; `what` it watches ends it. There are many, so policies name them by how they begin: after the
    /// point, which no environment's name holds, or `snapwarden-prod-*` would also be the alarms of `prod-eu`.
    pub fn alarm(&self, what: &str) -> String {
        format!("snapwarden-{}.{what}", self.environment)
    }

    /// The ARN of an alarm.
    pub fn alarm_arn(&self, name: &str) -> String {
        self.arn("cloudwatch", &format!("alarm:{name}"))
    }

    /// The CloudWatch dashboard's name. Dashboards are an account's, so the Region is part of it.
    pub fn dashboard(&self) -> String {
        format!("snapwarden-{}-{}", self.environment, self.region)
    }

    /// The ARN of the dashboard; dashboards belong to no Region.
    pub fn dashboard_arn(&self) -> String {
        format!("arn:{}:cloudwatch::{}:dashboard/{}", self.partition(), self.account, self.dashboard())
    }

    /// The name of the schedule of sealing passes.
    pub const SEALING_SCHEDULE: &str = "seal";

    /// The name of a function's own schedule inside the schedule group.
    pub fn schedule(function: Function) -> &'static str {
        function.as_str()
    }

    /// The same schedule's name where CloudFormation makes it. There a schedule is known by its name alone, without its
    /// group, so that two environments of one account and Region must not have one of the same name.
    pub fn schedule_of_a_stack(&self, name: &str) -> String {
        format!("{}-{name}", self.schedule_group())
    }

    /// The ARN of a function without version or alias.
    pub fn function_arn(&self, function: Function) -> String {
        self.arn("lambda", &format!("function:{}", self.function(function)))
    }

    /// The ARN of a function's alias.
    pub fn alias_arn(&self, function: Function) -> String {
        format!("{}:{ALIAS}", self.function_arn(function))
    }

    /// The ARN of a role.
    pub fn role_arn(&self, purpose: &str) -> String {
        let (path, name) = (&self.iam.role_path, self.role(purpose));
        format!("arn:{}:iam::{}:role{path}{name}", self.partition(), self.account)
    }

    /// The ARN of a log group, without the `:*` that policies add.
    pub fn log_group_arn(&self, name: &str) -> String {
        self.arn("logs", &format!("log-group:{name}"))
    }

    /// The ARN of the dead-letter queue.
    pub fn dead_letter_queue_arn(&self) -> String {
        self.arn("sqs", &self.dead_letter_queue())
    }

    /// The alias of the key that a deploy makes, by which the key is known: KMS makes up its ARN.
    pub fn key_alias(&self) -> String {
        made_alias(&self.environment)
    }

    /// The key that encrypts the topic, the dead-letter queue, the log groups and the functions' settings, where one
    /// does: an ARN, or the alias of the key that a deploy makes.
    pub fn at_rest_key(&self) -> Option<String> {
        self.encryption.at_rest_key(&self.environment).map(String::from)
    }

    /// The SSM parameter that one command at a time holds.
    pub fn lock_parameter(&self) -> String {
        format!("/snapwarden/{}/lock", self.environment)
    }

    /// The SSM parameter whose history is that of the releases.
    pub fn releases_parameter(&self) -> String {
        format!("/snapwarden/{}/releases", self.environment)
    }

    /// The ARN of the schedule group.
    pub fn schedule_group_arn(&self) -> String {
        self.arn("scheduler", &format!("schedule-group/{}", self.schedule_group()))
    }

    /// The ARN of a resource of this account and Region.
    pub(crate) fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition(), self.region, self.account)
    }

    /// The ARN of a schedule in our group.
    pub fn schedule_arn(&self, name: &str) -> String {
        self.arn("scheduler", &format!("schedule/{}/{name}", self.schedule_group()))
    }

    /// The tags of every resource: the user's and our own.
    pub fn tags(&self, environment: &Environment) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            environment.tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        all.insert(tags::ENVIRONMENT.to_owned(), self.environment.to_string());
        let prefix = &self.iam.role_name_prefix;
        if !prefix.as_str().is_empty() {
            all.insert(role_prefix::TAG.to_owned(), prefix.to_string());
        }
        if environment.protect {
            all.insert(PROTECTED_TAG.to_owned(), "true".to_owned());
        }
        all
    }

    /// Whether tags say that a resource belongs to this environment.
    pub fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(tags::ENVIRONMENT).is_some_and(|owner| owner == self.environment.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The scope of an environment in no particular place.
    pub(crate) fn scope(environment: &str) -> Scope {
        Scope {
            account: "123456789012".to_owned().try_into().unwrap(),
            region: "eu-central-1".to_owned().try_into().unwrap(),
            environment: environment.parse().unwrap(),
            iam: Iam::default(),
            encryption: Encryption::default(),
        }
    }
}

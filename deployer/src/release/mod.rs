//! Releases: what an environment's aliases serve and its functions may do, with who brought it there and what proved
//! it.
//!
//! A release is a published version of each function, which freezes code and settings, together with the policies of
//! the roles, which IAM does not version. Each is recorded when it is live ([`history`]), so that it can be told from
//! another one, promoted to another environment ([`promotion`]) and returned to.

pub mod canary;
pub mod history;
pub mod promotion;
pub mod prune;

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_lambda::types::FunctionConfiguration;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::canary::Canary;
use crate::aws::Aws;
use crate::bundle::Git;
use crate::error::{AwsError, Call, OrAbsent};
use crate::kinds::key::OwnKey;
use crate::kinds::{Alias, Kind, LambdaFunction, Role, alias_name, function, read};
use crate::policy::{PolicyDocument, purposes};
use crate::rights::{Resources, Right};
use crate::scope::{Function, Scope};
use crate::world::{Desired, Observed, ResourceId};

/// What it takes to read the records.
pub const READING: &[Right] = &[Right::on(Resources::Releases, "ssm:GetParameterHistory")];

/// What it takes to write one, and to delete the versions that no kept release serves.
pub const RECORDING: &[Right] = &[
    Right::on(Resources::Releases, "ssm:PutParameter"),
    Right::on(Resources::Releases, "ssm:AddTagsToResource"),
    Right::on(Resources::Functions, "lambda:ListVersionsByFunction"),
    Right::on(Resources::FunctionVersions, "lambda:DeleteFunction"),
    Right::on(Resources::FunctionVersions, "lambda:InvokeFunction"),
];

/// What it takes to delete the records with their environment.
pub const FORGETTING: &[Right] = &[Right::on(Resources::Releases, "ssm:DeleteParameter")];

/// What is live: equal contents do the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What each alias serves.
    pub functions: BTreeMap<Function, Served>,
    /// What each role may do, by its purpose.
    pub policies: BTreeMap<String, PolicyDocument>,
}

/// A published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// The number that Lambda gave it.
    pub version: String,
    /// The digest of its code, as Lambda's `CodeSha256`.
    pub code_sha256: String,
}

impl Content {
    /// What is live now; nothing where not both functions are.
    pub fn of(observed: &Observed, scope: &Scope) -> Option<Self> {
        let served = |function: Function| {
            let alias = observed.get(&ResourceId::new(Alias::NAME, alias_name(scope, function)))?;
            let alias = read::<Alias>(alias).ok()?;
            let code_sha256 = alias.properties.serves.code_sha256;
            Some((function, Served { version: alias.handle.version, code_sha256 }))
        };
        let functions: Option<BTreeMap<_, _>> = Function::ALL.into_iter().map(served).collect();
        let policy = |purpose: &'static str| {
            let role = observed.get(&ResourceId::new(Role::NAME, scope.role(purpose)))?;
            Some((purpose.to_owned(), read::<Role>(role).ok()?.properties.policy()?.clone()))
        };
        Some(Self { functions: functions?, policies: purposes().filter_map(policy).collect() })
    }

    /// The digests of the code, which are the same wherever the same bundle is live.
    pub fn code(&self) -> BTreeMap<Function, String> {
        self.functions.iter().map(|(function, served)| (*function, served.code_sha256.clone())).collect()
    }
}

/// A release that is or was live, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its number, counted from 1: the version of the SSM parameter that records it.
    #[serde(default)]
    pub number: i64,
    /// Who brought it here, such as `assumed-role/ci/run-7`.
    pub by: String,
    /// When it was live.
    pub at: Timestamp,
    /// How it came here.
    pub how: How,
    /// What it was built from; absent where that is not known.
    pub git: Option<Git>,
    /// What is live.
    #[serde(flatten)]
    pub content: Content,
    /// The digest of the plan that brought it; absent where a deploy was interrupted and the next one found it live.
    pub plan: Option<String>,
    /// How each new version did before it went live.
    pub canary: BTreeMap<Function, Canary>,
    /// The release that was live before.
    pub previous: Option<i64>,
}

/// How a release came to be live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By a deploy.
    Deployed,
    /// From another environment, whose release it is.
    Promoted(Origin),
    /// By a return to an earlier release of this environment.
    RolledBackTo(i64),
    /// A deploy was interrupted after it was live and before it was recorded; the next command found it.
    FoundLive,
}

/// A release of another environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The environment.
    pub environment: String,
    /// The release's number there.
    pub release: i64,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployed => f.write_str("deployed"),
            Self::Promoted(Origin { environment, release }) => {
                write!(f, "promoted from {environment}, release {release}")
            }
            Self::RolledBackTo(release) => write!(f, "rolled back to release {release}"),
            Self::FoundLive => f.write_str("found live after an interruption"),
        }
    }
}

impl Release {
    /// Whether every version of it did its dry run well; one that went live untried has not.
    pub fn is_proven(&self) -> bool {
        let passed = |function: &Function| {
            self.canary.get(function).is_some_and(|canary| canary.outcome == canary::Outcome::Passed)
        };
        self.content.functions.keys().all(passed)
    }

    /// Everything as it is, but with what this release serves and may do: the way back to it takes no file and no
    /// build. Fails with what AWS does not have any more.
    pub async fn desired(&self, aws: &Aws, scope: &Scope, observed: &Observed) -> Result<Desired, Gone> {
        let mut desired: Desired =
            observed.iter().map(|(id, found)| (id.clone(), found.properties.clone())).collect();
        let own_key = OwnKey::of(aws, scope).await?;
        for (function, served) in &self.content.functions {
            let name = scope.function(*function);
            let gone = || Gone::Version { function: name.clone(), version: served.version.clone() };
            let call = aws.lambda.get_function().function_name(&name).qualifier(&served.version);
            let found = call.send().await.call("lambda:GetFunction").or_absent()?;
            let configuration = found.and_then(|found| found.configuration).ok_or_else(gone)?;
            let id = ResourceId::new(Alias::NAME, alias_name(scope, *function));
            let alias = desired.get_mut(&id).ok_or_else(|| Gone::Alias(id.name.clone()))?;
            *alias = Alias::serving(&configuration, &own_key)?;
            let serves = alias["serves"].clone();
            // What is not published follows where that takes no upload; nothing invokes it.
            let id = ResourceId::new(LambdaFunction::NAME, name.as_str());
            let latest = desired.get_mut(&id).map(|latest| &mut latest["version"]);
            if let Some(latest) = latest
                && latest["code_sha256"] == serves["code_sha256"]
                && is_known(latest)
                && is_known(&serves)
            {
                *latest = serves;
            }
        }
        for (purpose, policy) in &self.content.policies {
            let id = ResourceId::new(Role::NAME, scope.role(purpose));
            let role = desired.get_mut(&id).ok_or_else(|| Gone::Role(id.name.clone()))?;
            Role::set_policy(role, policy);
        }
        Ok(desired)
    }
}

/// Whether all variables of a version are ours: of any other only a checksum was read, which is nothing to write.
fn is_known(version: &Value) -> bool {
    let mut variables = version["environment"].as_object().into_iter().flatten();
    variables.all(|(name, _)| function::is_ours(name))
}

/// What a release needs and AWS does not have any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// A version was deleted, as all are that are older than the kept releases.
    #[error("version {version} of {function} was deleted")]
    Version {
        /// The function's name.
        function: String,
        /// The version's number.
        version: String,
    },
    /// An alias is missing.
    #[error("alias {0} is missing")]
    Alias(String),
    /// A role is missing.
    #[error("role {0} is missing")]
    Role(String),
    /// AWS did not say.
    #[error(transparent)]
    Aws(#[from] AwsError),
}

/// Where the code of a published version can be fetched from, without credentials and for ten minutes (source: AWS
/// Lambda API, `GetFunction`, `Code.Location`).
pub async fn location(aws: &Aws, function: &str, version: &str) -> Result<String, AwsError> {
    let call = aws.lambda.get_function().function_name(function).qualifier(version);
    let answer = call.send().await.call("lambda:GetFunction")?;
    Ok(answer.code.and_then(|code| code.location).unwrap_or_default())
}

/// The published versions of a function, the oldest first.
pub async fn versions(aws: &Aws, function: &str) -> Result<Vec<FunctionConfiguration>, AwsError> {
    let call = aws.lambda.list_versions_by_function().function_name(function);
    let mut pages = call.into_paginator().send();
    let mut versions = Vec::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.call("lambda:ListVersionsByFunction").or_absent()? else { break };
        versions.extend(page.versions.unwrap_or_default());
    }
    let number =
        |version: &FunctionConfiguration| version.version().and_then(|number| number.parse::<u64>().ok());
    // `$LATEST` has no number.
    versions.retain(|version| number(version).is_some());
    versions.sort_by_key(number);
    Ok(versions)
}

#[cfg(test)]
mod tests;

//! Who may assume the role that deploys: a pipeline, by the identity that its platform vouches for.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::scope::Scope;

/// A job of GitHub Actions that runs in one environment of one repository, written `github:OWNER/REPO:ENVIRONMENT`.
///
/// The environment is GitHub's, whose protection rules say who may run there, and from which branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    repository: String,
    environment: String,
}

/// A text that names no pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no pipeline: write github:OWNER/REPO:ENVIRONMENT, with letters, digits and -._ in the names \
     and nothing left open"
)]
pub struct InvalidPipeline(String);

/// Where GitHub's tokens come from (source: GitHub, "Configuring `OpenID` Connect in Amazon Web Services").
const ISSUER: &str = "token.actions.githubusercontent.com";

impl Pipeline {
    /// The trust policy of the role, for the account's OIDC provider of GitHub.
    ///
    /// Both conditions are exact: with a wildcard in the subject, every repository that it matches could deploy.
    pub fn trust_policy(&self, scope: &Scope) -> Value {
        let provider = format!("arn:{}:iam::{}:oidc-provider/{ISSUER}", scope.partition(), scope.account);
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Sid": "PipelineAssumes",
                "Effect": "Allow",
                "Principal": { "Federated": provider },
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": { "StringEquals": {
                    format!("{ISSUER}:aud"): "sts.amazonaws.com",
                    format!("{ISSUER}:sub"): self.to_string(),
                } },
            }],
        })
    }
}

/// As GitHub writes it into the token's subject.
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repo:{}:environment:{}", self.repository, self.environment)
    }
}

impl FromStr for Pipeline {
    type Err = InvalidPipeline;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPipeline(text.to_owned());
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        };
        let (repository, environment) =
            text.strip_prefix("github:").and_then(|rest| rest.split_once(':')).ok_or_else(invalid)?;
        let (owner, name) = repository.split_once('/').ok_or_else(invalid)?;
        if ![owner, name, environment].into_iter().all(is_name) {
            return Err(invalid());
        }
        Ok(Self { repository: repository.to_owned(), environment: environment.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subject that is left open lets strangers' repositories deploy.
    #[test]
    fn a_pipeline_is_named_completely() {
        let pipeline: Pipeline = "github:acme/backups:production".parse().unwrap();
        assert_eq!(pipeline.to_string(), "repo:acme/backups:environment:production");
        for text in [
            "acme/backups:production",
            "github:acme/backups",
            "github:acme/backups:",
            "github:acme:production",
            "github:acme/*:production",
            "github:acme/backups:*",
            "github:/backups:production",
            "github:acme/backups:a:b",
            "github:acme/backups/x:production",
            "gitlab:acme/backups:production",
            "",
        ] {
            assert!(text.parse::<Pipeline>().is_err(), "{text}");
        }
    }
}

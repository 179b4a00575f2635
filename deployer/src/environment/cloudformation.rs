//! Which engine makes an environment, and what CloudFormation is given.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;

use super::{RoleArn, checked_text};

/// What makes an environment what its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Snapwarden itself, through the APIs of AWS's services.
    #[default]
    Direct,
    /// CloudFormation: the environment is a stack, and every change a change set.
    Cloudformation,
}

/// What CloudFormation is given, where it is the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cloudformation {
    /// The S3 bucket for the functions' zips, in the environment's Region; unless given,
    /// `snapwarden-artifacts-ACCOUNT-REGION`, which a deploy makes.
    pub artifact_bucket: Option<BucketName>,
    /// The ARN of the role that CloudFormation acts as; unless given, it acts with the caller's rights.
    pub role: Option<RoleArn>,
}

checked_text!(
    /// The name of an S3 bucket (source: S3 User Guide, "General purpose bucket naming rules").
    BucketName,
    |text| (3..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric()),
    "is not the name of an S3 bucket: use 3 to 63 lower-case letters, digits, hyphens and dots",
    schema { "type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$" }
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that S3 refuses shows in the middle of a deploy.
    #[test]
    fn names_and_arns_that_aws_would_refuse_are_refused_first() {
        let read = |text: &str| serde_yaml::from_str::<Cloudformation>(text);
        for good in [
            "{}",
            "artifact_bucket: acme.artifacts-1",
            "role: arn:aws-us-gov:iam::123456789012:role/ops/cloudformation",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "artifact_bucket: Acme",
            "artifact_bucket: ab",
            "artifact_bucket: -acme",
            "artifact_bucket: s3://acme",
            "role: cloudformation",
            "role: arn:aws:iam::123456789012:user/cloudformation",
            "role: arn:aws:iam::1234:role/cloudformation",
            "role: arn:aws:iam::123456789012:role/*",
            "bucket: acme",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

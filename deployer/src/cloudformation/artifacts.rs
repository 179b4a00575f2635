//! The S3 bucket that CloudFormation takes the functions' zips and large templates from.
//!
//! What lies there is named by its content and never changes, so that nothing is uploaded twice and a plan that was saved
//! means the same when it is executed.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
    PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, VersioningConfiguration,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::template::{artifact_key, logical_id};
use crate::bundle::Bundle;
use crate::environment::Environment;
use crate::error::{AwsError, Call, OrAbsent};
use crate::kinds::{Context, StepError};
use crate::scope::Scope;

/// Where CloudFormation finds a template's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the call itself.
    Body(String),
    /// In the bucket.
    Url(String),
}

/// The longest template that a call may hold, in bytes (source: CloudFormation User Guide, "Understand CloudFormation
/// quotas").
pub const LONGEST_BODY: usize = 51_200;

/// The longest template of all, in bytes, which has to be in a bucket (source: the same).
pub const LONGEST_TEMPLATE: usize = 1_000_000;

/// The bucket of an environment, and whether it is ours to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// Its name.
    pub bucket: String,
    /// Whether the environment's file names it: then it is somebody else's to make and to set up.
    pub is_given: bool,
}

/// Who else reads a bucket's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Every account of the organization with this id.
    Organization(String),
    /// These accounts.
    Accounts(Vec<String>),
}

impl Artifacts {
    /// The bucket that the file names, or the one that all environments of an account and Region share.
    pub fn of(environment: &Environment, scope: &Scope) -> Self {
        match &environment.cloudformation.artifact_bucket {
            Some(bucket) => Self { bucket: bucket.to_string(), is_given: true },
            None => Self {
                bucket: format!("snapwarden-artifacts-{}-{}", scope.account, scope.region),
                is_given: false,
            },
        }
    }

    /// Whether it is there, and the account's own: others may have taken the name.
    pub async fn exists(&self, cx: &Context) -> Result<bool, AwsError> {
        let call =
            cx.aws.s3.head_bucket().bucket(&self.bucket).expected_bucket_owner(cx.scope.account.as_str());
        Ok(call.send().await.call("s3:ListBucket").or_absent()?.is_some())
    }

    /// Makes the bucket where it is ours to make, private, encrypted and versioned.
    pub async fn ensure(&self, cx: &Context) -> Result<(), StepError> {
        let exists = self.exists(cx).await?;
        if self.is_given {
            if exists {
                return Ok(());
            }
            return Err(StepError::Failed {
                what: "the artifact bucket that the environment's file names is not there",
                state: format!("{} in account {}", self.bucket, cx.scope.account),
            });
        }
        if !exists {
            self.create(cx).await?;
        } else if self.is_set_up(cx).await? {
            return Ok(());
        }
        self.set_up(cx).await
    }

    async fn create(&self, cx: &Context) -> Result<(), AwsError> {
        let s3 = &cx.aws.s3;
        let region = cx.scope.region.as_str();
        // The first Region ever is the one that must not be named.
        let place = (region != "us-east-1").then(|| {
            let constraint = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(constraint).build()
        });
        let call = s3.create_bucket().bucket(&self.bucket).set_create_bucket_configuration(place);
        match call.send().await.call("s3:CreateBucket") {
            // Another environment's deploy was quicker, or the answer to the first attempt was lost.
            Err(error) if error.code == "BucketAlreadyOwnedByYou" => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Whether everything was set that is to be, of which versioning is the last: a deploy may have died before it.
    async fn is_set_up(&self, cx: &Context) -> Result<bool, AwsError> {
        let call = cx.aws.s3.get_bucket_versioning().bucket(&self.bucket);
        let call = call.expected_bucket_owner(cx.scope.account.as_str());
        let versioning = call.send().await.call("s3:GetBucketVersioning")?;
        Ok(versioning.status == Some(BucketVersioningStatus::Enabled))
    }

    async fn set_up(&self, cx: &Context) -> Result<(), StepError> {
        let (s3, owner) = (&cx.aws.s3, cx.scope.account.as_str());
        let malformed = |error: aws_sdk_s3::error::BuildError| StepError::Malformed(error.to_string());
        let closed = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let call = s3.put_public_access_block().bucket(&self.bucket).expected_bucket_owner(owner);
        call.public_access_block_configuration(closed).send().await.call("s3:PutBucketPublicAccessBlock")?;
        let aes = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
        let rule = ServerSideEncryptionRule::builder();
        let rule = rule.apply_server_side_encryption_by_default(aes.build().map_err(malformed)?).build();
        let encrypted =
            ServerSideEncryptionConfiguration::builder().rules(rule).build().map_err(malformed)?;
        let call = s3.put_bucket_encryption().bucket(&self.bucket).expected_bucket_owner(owner);
        call.server_side_encryption_configuration(encrypted)
            .send()
            .await
            .call("s3:PutEncryptionConfiguration")?;
        self.put_policy(cx, json!([self.encrypted_only(&cx.scope)])).await?;
        let versioned = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = s3.put_bucket_versioning().bucket(&self.bucket).expected_bucket_owner(owner);
        call.versioning_configuration(versioned).send().await.call("s3:PutBucketVersioning")?;
        Ok(())
    }

    /// Lets the accounts of a fleet read the code; those of other environments' fleets go on to.
    pub async fn share(&self, cx: &Context, readers: &Readers) -> Result<(), AwsError> {
        let wanted = self.reading(&cx.scope, readers);
        let call = cx.aws.s3.get_bucket_policy().bucket(&self.bucket);
        let answer = call.expected_bucket_owner(cx.scope.account.as_str()).send().await;
        let present = match answer.call("s3:GetBucketPolicy") {
            Err(error) if error.code == "NoSuchBucketPolicy" => None,
            answer => answer?.policy,
        };
        let present = present.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let statements = present.as_ref().and_then(|policy| policy["Statement"].as_array());
        let mut statements = statements.cloned().unwrap_or_else(|| vec![self.encrypted_only(&cx.scope)]);
        if statements.contains(&wanted) {
            return Ok(());
        }
        statements.retain(|statement| statement["Sid"] != wanted["Sid"]);
        statements.push(wanted);
        self.put_policy(cx, statements.into()).await
    }

    async fn put_policy(&self, cx: &Context, statements: Value) -> Result<(), AwsError> {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let call = cx.aws.s3.put_bucket_policy().bucket(&self.bucket).policy(policy);
        let call = call.expected_bucket_owner(cx.scope.account.as_str());
        call.send().await.call("s3:PutBucketPolicy").map(drop)
    }

    /// Nobody reads or writes in plain.
    fn encrypted_only(&self, scope: &Scope) -> Value {
        let arn = self.arn(scope);
        json!({
            "Sid": "OnlyEncryptedConnections",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        })
    }

    /// A fleet's accounts read the code, which is all that they may.
    fn reading(&self, scope: &Scope, readers: &Readers) -> Value {
        let mut statement = json!({
            // All environments of the account and Region share the bucket.
            "Sid": logical_id(scope.environment.as_str(), "FleetReadsCode"),
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": format!("{}/snapwarden/*", self.arn(scope)),
        });
        match readers {
            Readers::Organization(id) => {
                statement["Condition"] = json!({ "StringEquals": { "aws:PrincipalOrgID": id } });
            }
            Readers::Accounts(accounts) => {
                let root = |account| format!("arn:{}:iam::{account}:root", scope.partition());
                statement["Principal"] = json!({ "AWS": accounts.iter().map(root).collect::<Vec<_>>() });
            }
        }
        statement
    }

    fn arn(&self, scope: &Scope) -> String {
        format!("arn:{}:s3:::{}", scope.partition(), self.bucket)
    }

    /// Puts both functions' zips where the template's parameters say they are; how many had not been there.
    pub async fn upload_code(&self, cx: &Context, bundle: &Bundle) -> Result<usize, StepError> {
        let functions = &bundle.manifest.functions;
        let mut uploaded = 0;
        for (artifact, zip) in [(&functions.backup, &bundle.backup), (&functions.cleanup, &bundle.cleanup)] {
            let key = artifact_key(&artifact.code_sha256);
            uploaded += usize::from(self.upload(cx, &key, zip, &artifact.code_sha256).await?);
        }
        Ok(uploaded)
    }

    /// Puts a template that is too long for a call into the bucket.
    pub async fn source(&self, cx: &Context, text: String) -> Result<Source, StepError> {
        if text.len() <= LONGEST_BODY {
            return Ok(Source::Body(text));
        }
        if text.len() > LONGEST_TEMPLATE {
            let state = format!("it has {} bytes, and {LONGEST_TEMPLATE} is the most", text.len());
            return Err(StepError::Failed { what: "CloudFormation takes no template of this length", state });
        }
        self.ensure(cx).await?;
        let digest = Sha256::digest(&text);
        let key = format!("snapwarden/{}.template", hex::encode(digest));
        self.upload(cx, &key, text.as_bytes(), &STANDARD.encode(digest)).await?;
        let suffix = if cx.scope.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(Source::Url(format!("https://{}.s3.{}.{suffix}/{key}", self.bucket, cx.scope.region)))
    }

    /// Uploads what is not there yet. S3 checks the digest, and refuses what arrives damaged.
    async fn upload(&self, cx: &Context, key: &str, bytes: &[u8], sha256: &str) -> Result<bool, AwsError> {
        let owner = cx.scope.account.as_str();
        let call = cx.aws.s3.head_object().bucket(&self.bucket).key(key).expected_bucket_owner(owner);
        let there = call.send().await.call("s3:GetObject").or_absent()?;
        if there.is_some_and(|object| object.content_length == i64::try_from(bytes.len()).ok()) {
            return Ok(false);
        }
        let call = cx.aws.s3.put_object().bucket(&self.bucket).key(key).expected_bucket_owner(owner);
        let call = call.checksum_sha256(sha256).body(ByteStream::from(bytes.to_vec()));
        call.send().await.call("s3:PutObject")?;
        Ok(true)
    }
}

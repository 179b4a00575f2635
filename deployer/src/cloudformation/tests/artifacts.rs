//! The artifact bucket, as S3 answers.

use aws_sdk_s3::error::ErrorMetadata;
use aws_sdk_s3::operation::create_bucket::{CreateBucketError, CreateBucketOutput};
use aws_sdk_s3::operation::get_bucket_policy::{GetBucketPolicyError, GetBucketPolicyOutput};
use aws_sdk_s3::operation::get_bucket_versioning::GetBucketVersioningOutput;
use aws_sdk_s3::operation::head_bucket::{HeadBucketError, HeadBucketOutput};
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::operation::put_bucket_encryption::PutBucketEncryptionOutput;
use aws_sdk_s3::operation::put_bucket_policy::PutBucketPolicyOutput;
use aws_sdk_s3::operation::put_bucket_versioning::PutBucketVersioningOutput;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::operation::put_public_access_block::PutPublicAccessBlockOutput;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, ServerSideEncryption, ServerSideEncryptionConfiguration,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use serde_json::Value;

use super::{aws, context, environment, scope};
use crate::aws::Aws;
use crate::bundle::tests::good;
use crate::cloudformation::artifact_key;
use crate::cloudformation::artifacts::{Artifacts, Readers};
use crate::kinds::Context;

fn versioning(status: Option<BucketVersioningStatus>) -> Rule {
    mock!(aws_sdk_s3::Client::get_bucket_versioning)
        .then_output(move || GetBucketVersioningOutput::builder().set_status(status.clone()).build())
}

/// What makes a bucket private, encrypted, closed to plain connections and versioned, where it says just that.
fn set_up() -> [Rule; 4] {
    const OWNER: Option<&str> = Some("123456789012");
    [
        mock!(aws_sdk_s3::Client::put_public_access_block)
            .match_requests(|request| {
                let block = request.public_access_block_configuration();
                request.expected_bucket_owner() == OWNER
                    && block.is_some_and(|block| {
                        block.block_public_acls() == Some(true)
                            && block.ignore_public_acls() == Some(true)
                            && block.block_public_policy() == Some(true)
                            && block.restrict_public_buckets() == Some(true)
                    })
            })
            .then_output(|| PutPublicAccessBlockOutput::builder().build()),
        mock!(aws_sdk_s3::Client::put_bucket_encryption)
            .match_requests(|request| {
                let rules = request
                    .server_side_encryption_configuration()
                    .map(ServerSideEncryptionConfiguration::rules);
                let rule = rules.and_then(|rules| rules.first()?.apply_server_side_encryption_by_default());
                request.expected_bucket_owner() == OWNER
                    && rule.is_some_and(|rule| *rule.sse_algorithm() == ServerSideEncryption::Aes256)
            })
            .then_output(|| PutBucketEncryptionOutput::builder().build()),
        mock!(aws_sdk_s3::Client::put_bucket_policy)
            .match_requests(|request| {
                let policy = request.policy().unwrap_or_default();
                request.expected_bucket_owner() == OWNER
                    && policy.contains("\"aws:SecureTransport\":\"false\"")
                    && !policy.contains("\"Allow\"")
            })
            .then_output(|| PutBucketPolicyOutput::builder().build()),
        mock!(aws_sdk_s3::Client::put_bucket_versioning)
            .match_requests(|request| {
                let versioning = request.versioning_configuration();
                request.expected_bucket_owner() == OWNER
                    && versioning.and_then(|versioning| versioning.status())
                        == Some(&BucketVersioningStatus::Enabled)
            })
            .then_output(|| PutBucketVersioningOutput::builder().build()),
    ]
}

/// Code that anybody can read or replace is code that anybody runs with our roles. A deploy that died before all of this
/// was set must not leave it so, nor must one whose first answer was lost.
#[tokio::test(start_paused = true)]
async fn a_bucket_is_private_encrypted_and_versioned_whenever_a_deploy_died() {
    for (exists, created) in [(false, true), (false, false), (true, true)] {
        let head = if exists {
            mock!(aws_sdk_s3::Client::head_bucket).then_output(|| HeadBucketOutput::builder().build())
        } else {
            mock!(aws_sdk_s3::Client::head_bucket)
                .then_error(|| HeadBucketError::generic(refusal("NotFound")))
        };
        let create = if created {
            mock!(aws_sdk_s3::Client::create_bucket)
                .match_requests(|request| {
                    let place = request.create_bucket_configuration();
                    place.and_then(|place| place.location_constraint()).map(BucketLocationConstraint::as_str)
                        == Some("eu-central-1")
                })
                .then_output(|| CreateBucketOutput::builder().build())
        } else {
            mock!(aws_sdk_s3::Client::create_bucket)
                .then_error(|| CreateBucketError::generic(refusal("BucketAlreadyOwnedByYou")))
        };
        let (unversioned, set_up) = (versioning(None), set_up());
        let [private, encrypted, policy, versioned] = &set_up;
        let cx = s3(&[&head, &create, &unversioned, private, encrypted, policy, versioned]);
        Artifacts::of(&environment(), &scope()).ensure(&cx).await.unwrap();
        for rule in &set_up {
            assert_eq!(rule.num_calls(), 1);
        }
        assert_eq!(create.num_calls(), usize::from(!exists));
    }
}

/// All environments of an account and Region share the bucket: one fleet's deploy must not take the code away from
/// another's accounts, where it shows when the next account joins.
#[tokio::test(start_paused = true)]
async fn a_fleet_is_let_in_beside_those_that_are() {
    let present = r#"{"Version":"2012-10-17","Statement":[
        {"Sid":"OnlyEncryptedConnections","Effect":"Deny"},
        {"Sid":"ProdFleetReadsCode","Effect":"Allow"},
        {"Sid":"LocalFleetReadsCode","Effect":"Allow"}]}"#;
    for (present, others) in [
        (Some(present), vec!["OnlyEncryptedConnections", "ProdFleetReadsCode"]),
        (None, vec!["OnlyEncryptedConnections"]),
    ] {
        let get = match present {
            Some(text) => mock!(aws_sdk_s3::Client::get_bucket_policy)
                .then_output(move || GetBucketPolicyOutput::builder().policy(text).build()),
            None => mock!(aws_sdk_s3::Client::get_bucket_policy)
                .then_error(|| GetBucketPolicyError::generic(refusal("NoSuchBucketPolicy"))),
        };
        let put = mock!(aws_sdk_s3::Client::put_bucket_policy)
            .match_requests(move |request| {
                let policy: Value = serde_json::from_str(request.policy().unwrap_or_default()).unwrap();
                let statements = policy["Statement"].as_array().unwrap();
                let sids: Vec<_> =
                    statements.iter().filter_map(|statement| statement["Sid"].as_str()).collect();
                let ours = &statements[statements.len() - 1];
                sids == [&others[..], &["LocalFleetReadsCode"]].concat()
                    && ours["Action"] == "s3:GetObject"
                    && ours["Condition"]["StringEquals"]["aws:PrincipalOrgID"] == "o-a1b2c3d4e5"
            })
            .then_output(|| PutBucketPolicyOutput::builder().build());
        let cx = s3(&[&get, &put]);
        let artifacts = Artifacts::of(&environment(), &scope());
        artifacts.share(&cx, &Readers::Organization("o-a1b2c3d4e5".to_owned())).await.unwrap();
        assert_eq!(put.num_calls(), 1);
    }
}

fn s3(rules: &[&Rule]) -> Context {
    let client = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
    context(Aws { s3: client, ..aws(&[]) }).0
}

fn refusal(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).build()
}

/// Names of buckets are everybody's: somebody else may have taken ours and wait for our code to overwrite it.
#[tokio::test(start_paused = true)]
async fn a_bucket_of_somebody_else_is_never_used() {
    let head = mock!(aws_sdk_s3::Client::head_bucket)
        .match_requests(|request| request.expected_bucket_owner() == Some("123456789012"))
        .then_error(|| HeadBucketError::generic(refusal("Forbidden")));
    let create =
        mock!(aws_sdk_s3::Client::create_bucket).then_output(|| CreateBucketOutput::builder().build());
    let cx = s3(&[&head, &create]);
    let artifacts = Artifacts::of(&environment(), &scope());
    assert_eq!(artifacts.bucket, "snapwarden-artifacts-123456789012-eu-central-1");
    assert!(artifacts.ensure(&cx).await.is_err());
    assert_eq!(create.num_calls(), 0);
}

/// A bucket that the file names is set up by somebody, and not behind their back by us.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_the_file_names_is_never_made() {
    let head =
        mock!(aws_sdk_s3::Client::head_bucket).then_error(|| HeadBucketError::generic(refusal("NotFound")));
    let create =
        mock!(aws_sdk_s3::Client::create_bucket).then_output(|| CreateBucketOutput::builder().build());
    let cx = s3(&[&head, &create]);
    let artifacts = Artifacts { bucket: "acme".to_owned(), is_given: true };
    let error = artifacts.ensure(&cx).await.unwrap_err();
    assert!(error.to_string().contains("acme in account 123456789012"), "{error}");
    assert_eq!(create.num_calls(), 0);
}

/// What a stack runs is what was built: S3 is told the digest, and what lies there under it is not sent again.
#[tokio::test(start_paused = true)]
async fn code_is_uploaded_once_under_its_digest() {
    let bundle = good();
    let code = bundle.manifest.functions.backup.code_sha256.clone();
    let length = i64::try_from(bundle.cleanup.len()).unwrap();
    let there = artifact_key(&bundle.manifest.functions.cleanup.code_sha256);
    let head = mock!(aws_sdk_s3::Client::head_object)
        .match_requests(move |request| request.key() == Some(&there))
        .then_output(move || HeadObjectOutput::builder().content_length(length).build());
    let absent =
        mock!(aws_sdk_s3::Client::head_object).then_error(|| HeadObjectError::generic(refusal("NotFound")));
    let bucket = mock!(aws_sdk_s3::Client::head_bucket).then_output(|| HeadBucketOutput::builder().build());
    let versioned = versioning(Some(BucketVersioningStatus::Enabled));
    let put = mock!(aws_sdk_s3::Client::put_object)
        .match_requests(move |request| request.checksum_sha256() == Some(&code))
        .then_output(|| PutObjectOutput::builder().build());
    let cx = s3(&[&head, &absent, &bucket, &versioned, &put]);
    let artifacts = Artifacts::of(&environment(), &scope());
    artifacts.ensure(&cx).await.unwrap();
    assert_eq!(artifacts.upload_code(&cx, &bundle).await.unwrap(), 1);
    assert_eq!(put.num_calls(), 1);
}

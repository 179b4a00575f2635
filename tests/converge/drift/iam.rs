//! Roles and whatever hangs on them.

use aws_sdk_iam::types::Tag;
use snapwarden_deployer::aws::Aws;
use snapwarden_deployer::policy::PolicyDocument;
use snapwarden_tests::block_on;

use super::{Drift, drift};

const ROLE: &str = "snapwarden-local-eu-central-1-backup";
const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"All","Effect":"Allow","Action":"*","Resource":"*"}]}"#;

pub(super) fn drifts() -> Vec<Drift> {
    vec![
        drift(
            "policy edited",
            |aws| put_policy(aws, "snapwarden", &policy(aws).replace("ec2:CreateSnapshots", "ec2:*")),
            &[
                "~ role snapwarden-local-eu-central-1-backup",
                "policies.snapwarden.Statement[",
                "ec2:* → ec2:CreateSnapshots",
            ],
        ),
        drift(
            "extra inline policy",
            |aws| put_policy(aws, "extra", EVERYTHING),
            &["policies.extra.Statement[All].Action: * (goes away)"],
        ),
        drift(
            "inline policy deleted",
            |aws| {
                let call = aws.iam.delete_role_policy().role_name(ROLE).policy_name("snapwarden");
                block_on(call.send()).unwrap();
            },
            &["policies.snapwarden.Statement[", "ec2:CreateSnapshots (not set now)"],
        ),
        drift(
            "extra attached policy",
            |aws| {
                block_on(aws.iam.attach_role_policy().role_name(ROLE).policy_arn(ADMIN).send()).unwrap();
            },
            &["attached: arn:aws:iam::aws:policy/AdministratorAccess (goes away)"],
        ),
        drift(
            "a permissions boundary",
            |aws| {
                let boundary = "arn:aws:iam::aws:policy/ReadOnlyAccess";
                let call =
                    aws.iam.put_role_permissions_boundary().role_name(ROLE).permissions_boundary(boundary);
                block_on(call.send()).unwrap();
            },
            &["permissions_boundary: arn:aws:iam::aws:policy/ReadOnlyAccess (goes away)"],
        ),
        drift(
            "trust edited",
            |aws| {
                let trust = r#"{"Version":"2012-10-17","Statement":[{"Sid":"Eve","Effect":"Allow","Action":"sts:AssumeRole",
                    "Principal":{"AWS":"arn:aws:iam::666666666666:root"}}]}"#;
                let call = aws.iam.update_assume_role_policy().role_name(ROLE).policy_document(trust);
                block_on(call.send()).unwrap();
            },
            &["trust.Statement[Eve].Principal.AWS: arn:aws:iam::666666666666:root (goes away)"],
        ),
        drift(
            "description edited",
            |aws| {
                block_on(aws.iam.update_role().role_name(ROLE).description("mine").send()).unwrap();
            },
            &["description: mine → Lets Snapwarden's backup function"],
        ),
        drift("role: tag changed", |aws| tag(aws, "project", "other"), &["tags.project: other → snapwarden"]),
        drift("role: tag added", |aws| tag(aws, "owner", "eve"), &["tags.owner: eve (goes away)"]),
        drift(
            "role: tag removed",
            |aws| {
                block_on(aws.iam.untag_role().role_name(ROLE).tag_keys("project").send()).unwrap();
            },
            &["tags.project: snapwarden (not set now)"],
        ),
        drift("role deleted", delete_role, &["+ role snapwarden-local-eu-central-1-backup"]),
    ]
}

fn tag(aws: &Aws, key: &str, value: &str) {
    let tag = Tag::builder().key(key).value(value).build().unwrap();
    block_on(aws.iam.tag_role().role_name(ROLE).tags(tag).send()).unwrap();
}

/// Our policy, as JSON.
fn policy(aws: &Aws) -> String {
    let call = aws.iam.get_role_policy().role_name(ROLE).policy_name("snapwarden");
    PolicyDocument::from_iam(&block_on(call.send()).unwrap().policy_document).to_json()
}

fn put_policy(aws: &Aws, name: &str, document: &str) {
    let call = aws.iam.put_role_policy().role_name(ROLE).policy_name(name).policy_document(document);
    block_on(call.send()).unwrap();
}

fn delete_role(aws: &Aws) {
    block_on(aws.iam.delete_role_policy().role_name(ROLE).policy_name("snapwarden").send()).unwrap();
    block_on(aws.iam.delete_role().role_name(ROLE).send()).unwrap();
}

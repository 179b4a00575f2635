//! The policies where CloudFormation is the engine: of whoever deploys, and of what CloudFormation does for them.
//!
//! They are two, since IAM limits the length of each, and since the second is best that of a role which CloudFormation
//! alone assumes: then whoever deploys can change the environment through its stack and in no other way.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::deployer::{Access, KeyRights, deployer_statements, policy_of, statements_of};
use super::lint::{Finding, Use, lint};
use crate::cloudformation::artifacts::Artifacts;
use crate::environment::{Engine, Environment};
use crate::rights::{Purpose, Resources, Right, of_kinds};
use crate::scope::Scope;

/// What `plan --drift` takes.
const LOOKING: &[Right] = &[
    Right::on(Resources::Stack, "cloudformation:DescribeStacks"),
    Right::on(Resources::Stack, "cloudformation:GetTemplate"),
    Right::on(Resources::Stack, "cloudformation:DetectStackDrift"),
    Right::on(Resources::Stack, "cloudformation:DescribeStackResourceDrifts"),
    Right::on(Resources::Everything, "cloudformation:DescribeStackDriftDetectionStatus"),
];

/// What a plan takes, which is a change set, and what it takes to execute and to delete.
const CHANGING: &[Right] = &[
    Right::on(Resources::Stack, "cloudformation:CreateChangeSet"),
    Right::on(Resources::Stack, "cloudformation:DescribeChangeSet"),
    Right::on(Resources::Stack, "cloudformation:DeleteChangeSet"),
    Right::on(Resources::Stack, "cloudformation:ListChangeSets"),
    Right::on(Resources::Stack, "cloudformation:ExecuteChangeSet"),
    Right::on(Resources::Stack, "cloudformation:DescribeStackEvents"),
    Right::on(Resources::Stack, "cloudformation:UpdateTerminationProtection"),
    Right::on(Resources::Stack, "cloudformation:DeleteStack"),
    Right::on(Resources::Stack, "cloudformation:TagResource"),
    Right::on(Resources::Stack, "cloudformation:UntagResource"),
];

/// What CloudFormation does beyond what the direct engine does with the same resources (source: the handlers'
/// permissions in the schemas of the resource types, which `tests/cloudformation` holds this against).
const HANDLERS: &[Right] = &[
    Right::on(Resources::Roles, "iam:UpdateRoleDescription"),
    Right::on(Resources::Functions, "lambda:GetFunctionCodeSigningConfig"),
    Right::on(Resources::Functions, "lambda:GetRuntimeManagementConfig"),
    Right::on(Resources::FunctionVersions, "lambda:GetRuntimeManagementConfig"),
    Right::on(Resources::FunctionVersions, "lambda:GetProvisionedConcurrencyConfig"),
    Right::on(Resources::FunctionVersions, "lambda:GetFunctionConfiguration"),
    Right::on(Resources::FunctionVersions, "lambda:UpdateFunctionEventInvokeConfig"),
    Right::on(Resources::FunctionVersions, "lambda:DeleteFunction"),
    Right::on(Resources::LogGroupContents, "logs:GetDataProtectionPolicy"),
    Right::on(Resources::Everything, "logs:DescribeIndexPolicies"),
    Right::on(Resources::Everything, "logs:DescribeResourcePolicies"),
    Right::on(Resources::Topic, "sns:GetDataProtectionPolicy"),
];

/// The policy of whoever deploys through a stack.
pub fn stack_deployer_policy(environment: &Environment, scope: &Scope, access: Access) -> Value {
    policy_of(stack_deployer_statements(environment, scope, access))
}

/// The policy of what CloudFormation does: of the role that it acts as or, where it acts with the caller's rights, one
/// beside the caller's other.
pub fn stack_policy(environment: &Environment, scope: &Scope, key: KeyRights) -> Value {
    policy_of(stack_statements(environment, scope, key))
}

/// Who may assume that role: whether CloudFormation names the account that it acts for when it assumes one, AWS does not
/// say, and a condition on a key that is absent denies. Who may hand the role to CloudFormation is what limits it.
pub fn stack_trust() -> Value {
    let statement = json!({
        "Sid": "CloudFormation",
        "Effect": "Allow",
        "Principal": { "Service": "cloudformation.amazonaws.com" },
        "Action": "sts:AssumeRole",
    });
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

/// What is wrong with these documents.
pub fn lint_stack(environment: &Environment, scope: &Scope) -> Vec<Finding> {
    let mut findings = Vec::new();
    // With what is about the key, the second may be longer than IAM takes; then that is one of its own.
    let parts: &[KeyRights] = match scope.encryption.key(&scope.environment) {
        Some(_) => &[KeyRights::Without, KeyRights::Only],
        None => &[KeyRights::With],
    };
    let done = parts.iter().map(|key| stack_statements(environment, scope, *key));
    let done = done.map(|statements| ("the policy of what CloudFormation does", statements));
    let looked_at = [
        (
            "the policy of whoever looks at a stack",
            stack_deployer_statements(environment, scope, Access::READ_ONLY),
        ),
        (
            "the policy of whoever deploys a stack",
            stack_deployer_statements(environment, scope, Access::DEPLOY),
        ),
    ];
    for (name, statements) in looked_at.into_iter().chain(done) {
        let reason = |sid: &str| {
            let (reason, _) = statements.iter().find(|(_, statement)| statement["Sid"] == sid)?;
            Some((*reason).to_owned())
        };
        findings.extend(lint(name, &policy_of(statements.clone()), Use::Managed, reason));
    }
    findings
}

/// Statements, each with the reason for its wildcards.
type Statements = Vec<(&'static str, Value)>;

const NAMED: &str = "these resources by name";

fn stack_deployer_statements(environment: &Environment, scope: &Scope, access: Access) -> Statements {
    let rights: Vec<Right> =
        LOOKING.iter().chain(CHANGING.iter().filter(|_| access.deploy)).copied().collect();
    let access = Access { engine: Engine::Cloudformation, ..access };
    let mut statements = deployer_statements(scope, access, &rights);
    if !access.deploy {
        return statements;
    }
    let artifacts = Artifacts::of(environment, scope);
    let bucket = format!("arn:{}:s3:::{}", scope.partition(), artifacts.bucket);
    let mut on_bucket = vec!["s3:ListBucket"];
    if !artifacts.is_given {
        on_bucket.extend([
            "s3:CreateBucket",
            "s3:GetBucketVersioning",
            "s3:PutBucketPolicy",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketVersioning",
            "s3:PutEncryptionConfiguration",
        ]);
    }
    statements.push((NAMED, allow("ArtifactBucket", &on_bucket, &bucket)));
    let objects = format!("{bucket}/snapwarden/*");
    statements.push((ARTIFACTS, allow("Artifacts", &["s3:GetObject", "s3:PutObject"], &objects)));
    if let Some(role) = &environment.cloudformation.role {
        let mut pass = allow("StackRolePassed", &["iam:PassRole"], role.as_str());
        pass["Condition"] =
            json!({ "StringEquals": { "iam:PassedToService": "cloudformation.amazonaws.com" } });
        statements.push((NAMED, pass));
    }
    statements
}

const ARTIFACTS: &str = "what lies there is named by its content";

fn stack_statements(environment: &Environment, scope: &Scope, key: KeyRights) -> Statements {
    let rights: BTreeSet<Right> =
        of_kinds(&Purpose::ALL).chain(HANDLERS.iter().copied()).filter(|right| key.grants(right)).collect();
    let mut statements = statements_of(scope, rights);
    if key == KeyRights::Only {
        return statements;
    }
    let bucket = Artifacts::of(environment, scope).bucket;
    let objects = format!("arn:{}:s3:::{bucket}/snapwarden/*", scope.partition());
    statements.push((ARTIFACTS, allow("Artifacts", &["s3:GetObject"], &objects)));
    statements
}

fn allow(sid: &str, actions: &[&str], resource: &str) -> Value {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": [resource] })
}

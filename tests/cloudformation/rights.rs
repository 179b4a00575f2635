//! What CloudFormation may do for a stack, against what AWS's own schemas of the resource types say that it does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use snapwarden_deployer::environment::Engine;
use snapwarden_deployer::policy::deployer::{Access, KeyRights};
use snapwarden_deployer::policy::stack::{lint_stack, stack_deployer_policy, stack_policy};
use snapwarden_deployer::scope::Scope;

use super::{cfn_lint, code, environments, template};

/// What the handlers of the types may do and never do for what our templates say, each with the reason.
const UNUSED: &[(&str, &str)] = &[
    ("codedeploy:", "no alias of ours is moved by CodeDeploy"),
    ("ec2:", "no function of ours is in a VPC"),
    ("elasticfilesystem:", "nor has it a file system"),
    ("s3files:", "nor has it a file system"),
    ("kms:", "topic, queue, log groups and settings are encrypted with AWS's keys"),
    ("firehose:", "no log group of ours has a delivery"),
    ("iam:AttachRolePolicy", "roles have inline policies only"),
    ("iam:DeleteRolePermissionsBoundary", "a boundary that the file names is not taken away"),
    ("iam:PutRolePermissionsBoundary", "taken only where the file names a boundary"),
    ("lambda:AssociateRuntimeAlias", "the runtime's version is AWS's choice"),
    ("lambda:DeleteFunctionCodeSigningConfig", "code is not signed"),
    ("lambda:DeleteProvisionedConcurrencyConfig", "nothing is provisioned"),
    ("lambda:GetCodeSigningConfig", "code is not signed"),
    ("lambda:GetFunctionScalingConfig", "no function has a capacity provider"),
    ("lambda:GetLayerVersion", "no function has layers"),
    ("lambda:PassCapacityProvider", "no function has a capacity provider"),
    ("lambda:PutFunctionCodeSigningConfig", "code is not signed"),
    ("lambda:PutFunctionScalingConfig", "no function has a capacity provider"),
    ("lambda:PutProvisionedConcurrencyConfig", "nothing is provisioned"),
    ("lambda:PutRuntimeManagementConfig", "the runtime's version is AWS's choice"),
    ("logs:AssociateKmsKey", "log groups are encrypted with AWS's keys, where no other is asked for"),
    ("logs:CreateLogDelivery", "no log group of ours has a delivery"),
    ("logs:DeleteDataProtectionPolicy", "log groups have no such policies"),
    ("logs:DeleteIndexPolicy", "log groups have no such policies"),
    ("logs:DeleteResourcePolicy", "log groups have no such policies"),
    ("logs:DeleteRetentionPolicy", "a retention is always set"),
    ("logs:DisassociateKmsKey", "log groups are encrypted with AWS's keys, where no other is asked for"),
    ("logs:PutBearerTokenAuthentication", "log groups are read with IAM only"),
    ("logs:PutDataProtectionPolicy", "log groups have no such policies"),
    ("logs:PutIndexPolicy", "log groups have no such policies"),
    ("logs:PutLogGroupDeletionProtection", "log groups are not protected so"),
    ("logs:PutResourcePolicy", "log groups have no such policies"),
    ("s3:GetObjectVersion", "zips are named by their content, and not by a version"),
    ("s3:REST.PUT.OBJECT", "it is no action of IAM's"),
    ("sns:PutDataProtectionPolicy", "the topic has no such policy"),
];

/// What the handlers of each type may do (source: the schemas that AWS publishes, as cfn-lint ships them).
fn handlers() -> BTreeMap<String, BTreeSet<String>> {
    let script = "import json, glob, os, cfnlint\n\
        base = os.path.join(os.path.dirname(cfnlint.__file__), 'data/schemas/resources/*.json')\n\
        read = {}\n\
        for path in glob.glob(base):\n  \
        schema = json.load(open(path))\n  \
        handlers = schema.get('handlers', {})\n  \
        known = read.setdefault(schema['typeName'], set())\n  \
        for name in ('create', 'read', 'update', 'delete'): known.update(handlers.get(name, {}).get('permissions', []))\n\
        print(json.dumps({name: sorted(actions) for name, actions in read.items()}))";
    let python = cfn_lint().with_file_name("python");
    let output = std::process::Command::new(python).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().unwrap().iter();
    statements
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

/// A right that CloudFormation lacks shows in the middle of a change, and undoing the change may lack it, too.
#[test]
fn cloudformation_may_do_what_the_types_of_our_templates_take() {
    let handlers = handlers();
    let mut unused: BTreeSet<&str> = UNUSED.iter().map(|(action, _)| *action).collect();
    for (name, environment) in environments() {
        let allowed = actions(&stack_policy(&environment, &Scope::of(&environment), KeyRights::With));
        let template = json!(template(&environment, &code(), None).unwrap());
        for resource in template["Resources"].as_object().unwrap().values() {
            let kind = resource["Type"].as_str().unwrap();
            let takes = handlers.get(kind).unwrap_or_else(|| panic!("{kind} has no schema"));
            for action in takes.iter().filter(|action| !allowed.contains(*action)) {
                let known = UNUSED.iter().find(|(unused, _)| action.starts_with(unused));
                let (known, _) = known.unwrap_or_else(|| panic!("{name}: {kind} takes {action}"));
                unused.remove(known);
            }
        }
    }
    assert_eq!(unused, BTreeSet::new(), "no type takes these any more");
}

/// Whoever deploys by a stack that acts as a role of its own must have no way around the stack.
#[test]
fn who_deploys_a_stack_changes_nothing_but_the_stack() {
    for (name, mut environment) in environments() {
        environment.engine = Engine::Cloudformation;
        let role = "arn:aws:iam::123456789012:role/cloudformation".to_owned();
        environment.cloudformation.role = Some(role.try_into().unwrap());
        let scope = Scope::of(&environment);
        let policy = stack_deployer_policy(&environment, &scope, Access::DEPLOY);
        let looks = |action: &str| {
            ["Get", "List", "Describe", "Detect", "Filter", "Decrypt"]
                .iter()
                .any(|read| action.starts_with(read))
        };
        let changing: Vec<_> = actions(&policy)
            .into_iter()
            .filter(|action| action.split_once(':').is_some_and(|(_, operation)| !looks(operation)))
            .filter(|action| {
                !["cloudformation:", "s3:", "ssm:"].iter().any(|service| action.starts_with(service))
            })
            .collect();
        // The canary, old versions that no release serves, and the stack's role.
        assert_eq!(changing, ["iam:PassRole", "lambda:DeleteFunction", "lambda:InvokeFunction"], "{name}");
        let findings: Vec<_> = lint_stack(&environment, &scope).iter().map(ToString::to_string).collect();
        assert_eq!(findings, Vec::<String>::new(), "{name}");
    }
}

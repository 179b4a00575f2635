//! The policy of the key that a deploy makes: IAM decides, and two services come in by name, for this environment only.

use std::collections::BTreeMap;

use serde_json::Value;
use snapwarden_deployer::environment::{Environment, parse};
use snapwarden_deployer::kinds::{Blueprint, registry};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::scope::Scope;
use snapwarden_deployer::world::ResourceId;
use snapwarden_tests::checkout;

use crate::evaluator::{Context, Policy, Request};

fn environment() -> Environment {
    let path = checkout().join("tests/configs/valid/own-key.yaml");
    parse(&path, &std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn policy(environment: &Environment) -> Value {
    let scope = Scope::of(environment);
    let policies = role_policies(environment, &scope).unwrap();
    let blueprint =
        Blueprint { environment, scope: &scope, policies: &policies, code: &BTreeMap::new(), draining: None };
    let desired = registry().declare(&blueprint);
    desired[&ResourceId::new("key", scope.key_alias())]["policy"].clone()
}

const ROOT: &str = "arn:aws:iam::123456789012:root";
const CLOUDWATCH: &str = "cloudwatch.amazonaws.com";
const LOGS: &str = "logs.eu-central-1.amazonaws.com";

/// An alarm that cannot use the key reaches nobody, and a log group that cannot is not written; whoever else can might
/// read what is encrypted.
#[test]
fn services_use_the_key_for_this_environment_only() {
    let policy = Policy::read(&policy(&environment())).unwrap();
    let allows = |principal: &str, action: &str, keys: &[(&str, &str)]| {
        let context = keys.iter().fold(Context::default(), |context, (key, value)| context.with(key, value));
        let resource = "arn:aws:kms:eu-central-1:123456789012:key/k".to_owned();
        policy.trusts(principal, &Request { action: action.to_owned(), resource, context }).is_allowed()
    };
    let account = ("aws:SourceAccount", "123456789012");
    let alarm = |name: &str| format!("arn:aws:cloudwatch:eu-central-1:123456789012:alarm:{name}");
    let group = |name: &str| format!("arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/{name}");
    let log = "kms:EncryptionContext:aws:logs:arn";
    let (ours, theirs) = (alarm("snapwarden-own-key.backup-errors"), alarm("payments"));
    for action in ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"] {
        assert!(allows(CLOUDWATCH, action, &[account, ("aws:SourceArn", &ours)]), "{action}");
        // Where CloudWatch does not say for whom it publishes, an alarm must not be lost.
        assert!(allows(CLOUDWATCH, action, &[]), "{action}");
        assert!(!allows(CLOUDWATCH, action, &[account, ("aws:SourceArn", &theirs)]), "{action}");
        assert!(!allows(CLOUDWATCH, action, &[("aws:SourceAccount", "666666666666")]), "{action}");
        assert!(!allows("events.amazonaws.com", action, &[account]), "{action}");
    }
    assert!(!allows(CLOUDWATCH, "kms:ScheduleKeyDeletion", &[account]));
    for function in ["backup", "cleanup"] {
        let (ours, theirs) = (group(&format!("snapwarden-own-key-{function}")), group("payments"));
        for action in
            ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:GenerateDataKey", "kms:DescribeKey"]
        {
            assert!(allows(LOGS, action, &[(log, &ours)]), "{action}");
            assert!(!allows(LOGS, action, &[(log, &theirs)]), "{action}");
            assert!(!allows(LOGS, action, &[]), "{action}");
            assert!(!allows("logs.us-east-1.amazonaws.com", action, &[(log, &ours)]), "{action}");
        }
    }
    // Without this nobody could change the key any more, nor restore without changing it.
    assert!(allows(ROOT, "kms:PutKeyPolicy", &[]) && allows(ROOT, "kms:Decrypt", &[]));
    assert!(!allows("arn:aws:iam::666666666666:root", "kms:Decrypt", &[]));
}

/// What encrypts snapshots only lets no service in.
#[test]
fn a_key_for_copies_only_is_used_by_no_service_by_name() {
    let mut environment = environment();
    environment.encryption.at_rest = false;
    let policy = policy(&environment);
    assert_eq!(policy["Statement"].as_array().map(Vec::len), Some(1), "{policy}");
}

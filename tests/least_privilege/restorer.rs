//! The policy that `cargo xtask policies restorer` writes, held against the calls of restores and drills.

use serde_json::json;
use snapwarden_deployer::policy::restorer_policy;
use snapwarden_deployer::scope::Scope;

use crate::authorization::requests;
use crate::evaluator::{Context, Policy, Request};
use crate::minimality::{denied, unused};
use crate::recording::RECORDING;

fn policy() -> serde_json::Value {
    let run = &RECORDING.restores[0];
    json!(restorer_policy(&run.environment, &Scope::of(&run.environment)).unwrap())
}

fn recorded() -> Vec<(String, Request)> {
    let of_run = |run: &'static crate::recording::Run| {
        let calls = run.calls.iter().flat_map(|call| requests(call, &run.world));
        calls.map(|request| (run.of.clone(), request))
    };
    RECORDING.restores.iter().flat_map(of_run).collect()
}

/// A right that is missing at three in the morning is missing when it counts.
#[test]
fn every_call_of_a_restore_and_of_a_drill_is_allowed_and_nothing_else_is() {
    let recorded = recorded();
    assert!(recorded.iter().any(|(_, request)| request.action == "ec2:DeleteVolume"), "{recorded:?}");
    let denied = denied(&policy(), &recorded);
    assert!(denied.is_empty(), "{denied:?}");
    let unused = unused(&policy(), &recorded);
    assert!(unused.is_empty(), "no recorded call takes:\n{}", unused.join("\n"));
}

/// Whoever may restore gets no hold of other disks, nor of other environments' backups.
#[test]
fn a_restorer_cannot_leave_its_environment() {
    let snapshot = "arn:aws:ec2:eu-central-1::snapshot/snap-1";
    let volume = "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1";
    let new = "arn:aws:ec2:eu-central-1:123456789012:volume/*";
    let key = "arn:aws:kms:eu-central-1:123456789012:key/1";
    let by = |environment| ("aws:ResourceTag/snapwarden:restored-by", environment);
    let attacks: [(&str, &str, &[(&str, &str)]); 11] = [
        ("ec2:CreateVolume", snapshot, &[("aws:ResourceTag/snapwarden:environment", "prod")]),
        ("ec2:CreateVolume", snapshot, &[]),
        ("ec2:CreateVolume", new, &[]),
        ("ec2:CreateTags", volume, &[("aws:RequestTag/snapwarden:drill", "1")]),
        ("ec2:DeleteVolume", volume, &[]),
        ("ec2:DeleteVolume", volume, &[by("local")]),
        ("ec2:DeleteVolume", volume, &[by("prod"), ("aws:ResourceTag/snapwarden:drill", "1")]),
        ("ec2:DeleteSnapshot", snapshot, &[("aws:ResourceTag/snapwarden:environment", "local")]),
        ("kms:Decrypt", key, &[]),
        ("kms:CreateGrant", key, &[("kms:ViaService", "ec2.eu-central-1.amazonaws.com")]),
        ("cloudwatch:PutMetricData", "*", &[("cloudwatch:namespace", "AWS/EC2")]),
    ];
    let policy = Policy::read(&policy()).unwrap();
    for (action, resource, keys) in attacks {
        let context = keys.iter().fold(Context::default(), |context, (key, value)| context.with(key, value));
        let request = Request { action: action.to_owned(), resource: resource.to_owned(), context };
        assert!(!policy.evaluate(&request).is_allowed(), "{request:?}");
    }
}

//! Documents that reviewers approve: a change of one must show in a diff.

#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

use std::collections::BTreeMap;
use std::path::Path;

use snapwarden_deployer::environment::{Environment, Requirement, parse};
use snapwarden_deployer::kinds::{Blueprint, registry};
use snapwarden_deployer::plan::{Options, plan};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::{Desired, Found, Observed};
use snapwarden_tests::checkout;

fn environment(path: &str) -> Environment {
    let path = checkout().join(path);
    parse(Path::new(&path), &std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn desired(environment: &Environment) -> (Scope, Desired) {
    let scope = Scope::of(environment);
    let policies = role_policies(environment, &scope).unwrap();
    let code =
        BTreeMap::from(Function::ALL.map(|function| (function, format!("code of {}", function.as_str()))));
    let desired = registry().declare(&Blueprint {
        environment,
        scope: &scope,
        policies: &policies,
        code: &code,
        draining: None,
    });
    (scope, desired)
}

fn golden(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A right that slips into a role unseen is how a backup tool becomes an attack.
#[test]
fn the_rights_of_every_role() {
    let environment = environment("environments/prod.yaml");
    let policies = role_policies(&environment, &Scope::of(&environment)).unwrap();
    golden("policies-prod", &serde_json::to_string_pretty(&policies).unwrap());
}

/// Everything that a deploy makes, with every property.
#[test]
fn the_resources_of_an_environment() {
    let (_, desired) = desired(&environment("environments/prod.yaml"));
    let lines: Vec<String> = desired
        .iter()
        .map(|(id, wanted)| format!("{id}\n{}", serde_json::to_string_pretty(wanted).unwrap()))
        .collect();
    golden("resources-prod", &lines.join("\n\n"));
}

/// What nobody switched on costs nothing, and cannot break.
#[test]
fn what_encryption_adds_to_an_environment() {
    let file = environment("tests/configs/valid/encrypted.yaml");
    let added = |require: Requirement| {
        let mut environment = file.clone();
        environment.encryption.require = Requirement::Off;
        let (_, without) = desired(&environment);
        environment.encryption.require = require;
        let (_, with) = desired(&environment);
        let new = with.keys().filter(|id| !without.contains_key(*id));
        new.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(added(Requirement::Report), ["alarm snapwarden-encrypted.unencrypted-snapshots"]);
    assert_eq!(
        added(Requirement::Enforce),
        [
            "alarm snapwarden-encrypted.copies-failed",
            "alarm snapwarden-encrypted.seal-heartbeat",
            "alarm snapwarden-encrypted.unencrypted-snapshots",
            "schedule seal"
        ]
    );
}

/// No role may do everything, and none may act on everything but where EC2 leaves no choice.
#[test]
fn no_role_has_a_wildcard_action_and_only_describe_calls_have_a_wildcard_resource() {
    let environment = environment("environments/prod.yaml");
    for (role, policies) in role_policies(&environment, &Scope::of(&environment)).unwrap() {
        let document: serde_json::Value = policies.permissions.into();
        for statement in document["Statement"].as_array().unwrap() {
            let actions: Vec<&str> =
                statement["Action"].as_array().unwrap().iter().filter_map(|action| action.as_str()).collect();
            assert!(actions.iter().all(|action| !action.contains('*')), "{role}: {actions:?}");
            let everything = statement["Resource"].as_array().unwrap().iter().any(|resource| resource == "*");
            assert!(
                !everything || actions.iter().all(|action| action.starts_with("ec2:Describe")),
                "{role}: {actions:?}"
            );
        }
    }
}

/// A plan that finds something to do where nothing is to be done erodes the trust in all of them.
#[test]
fn planning_what_is_there_already_makes_no_changes() {
    for file in [
        "environments/local.yaml",
        "environments/prod.yaml",
        "tests/configs/valid/least.yaml",
        "tests/configs/valid/encrypted.yaml",
        "tests/configs/valid/own-key.yaml",
    ] {
        let (scope, desired) = desired(&environment(file));
        let observed: Observed = desired
            .iter()
            .map(|(id, wanted)| {
                let tags = wanted.get("tags").and_then(|tags| serde_json::from_value(tags.clone()).ok());
                // A dashboard's own text says whose it is.
                let tags = tags.or_else(|| (id.kind == "dashboard").then(|| scope.tags(&environment(file))));
                (
                    id.clone(),
                    Found {
                        properties: wanted.clone(),
                        handle: serde_json::Value::Null,
                        tags,
                        revision: None,
                    },
                )
            })
            .collect();
        let plan = plan(&registry(), &scope, &desired, &observed, &Options::default()).unwrap();
        assert!(plan.is_empty(), "{file}: {plan:?}");
        assert_eq!(plan.steps.len(), desired.len());
    }
}

//! The roles of the functions and of EventBridge Scheduler.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use snapwarden_deployer::environment::{Encryption, Requirement};
use snapwarden_deployer::policy::{RolePolicies, role_policies};
use snapwarden_deployer::scope::Scope;

use crate::authorization::{Asked, requests};
use crate::evaluator::{Context, Decision, Policy, Request};
use crate::minimality::{denied, unused};
use crate::recording::{RECORDING, Run};

/// The policies of all roles, as they were deployed when a run was recorded.
pub(crate) fn policies(run: &Run) -> BTreeMap<&'static str, RolePolicies> {
    role_policies(&run.environment, &Scope::of(&run.environment)).unwrap()
}

/// Everything that a role was used for, each with where that was recorded.
pub(crate) fn recorded(role: &str) -> Vec<(String, Request)> {
    let mut all = Vec::new();
    for run in RECORDING.functions.iter().filter(|run| run.of == role) {
        for (number, call) in run.calls.iter().enumerate() {
            let place = format!("call {} of the {role} function", number + 1);
            all.extend(requests(call, &run.world).into_iter().map(|request| (place.clone(), request)));
        }
    }
    all.extend(
        by_aws().into_iter().filter(|(of, _, _)| of == role).map(|(_, place, request)| (place, request)),
    );
    all
}

/// What AWS's services do with the roles when nobody calls them, as the recorded deploy told them: Lambda writes the
/// log and hands on what failed, EventBridge Scheduler invokes and hands on what it could not deliver.
fn by_aws() -> Vec<(String, String, Request)> {
    let deploy = deploy();
    let scope = &deploy.world.scope;
    let all = RefCell::new(Vec::new());
    let add = |role: &str, place: &str, action: &str, resource: &str| {
        let (action, resource) = (action.to_owned(), resource.to_owned());
        let request = Request { action, resource, context: Context::default() };
        all.borrow_mut().push((role.to_owned(), place.to_owned(), request));
    };
    let through_queue = |role: &str| {
        let requests = Asked::key_through(scope, "sqs").into_iter();
        let place = "an event lies encrypted";
        all.borrow_mut().extend(requests.map(|request| (role.to_owned(), place.to_owned(), request)));
    };
    for call in &deploy.calls {
        let text =
            |pointer: &str| call.parameters.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let function = text("/FunctionName").rsplit('-').next().unwrap_or_default();
        match call.action.as_str() {
            "lambda:CreateFunction" => {
                let group = scope.log_group_arn(text("/LoggingConfig/LogGroup"));
                let stream = format!("{group}:log-stream:2026/11/24/snapwarden[1]0123456789abcdef");
                for action in ["logs:CreateLogStream", "logs:PutLogEvents"] {
                    add(function, "Lambda writes the log", action, &stream);
                }
            }
            "lambda:PutFunctionEventInvokeConfig" => {
                let queue = text("/DestinationConfig/OnFailure/Destination");
                add(function, "Lambda hands on what failed", "sqs:SendMessage", queue);
                through_queue(function);
            }
            "scheduler:CreateSchedule" => {
                add("scheduler", "a schedule fires", "lambda:InvokeFunction", text("/Target/Arn"));
                let queue = text("/Target/DeadLetterConfig/Arn");
                add("scheduler", "an event cannot be delivered", "sqs:SendMessage", queue);
                through_queue("scheduler");
            }
            _ => {}
        }
    }
    all.into_inner()
}

/// The deploy that made everything.
fn deploy() -> &'static Run {
    RECORDING.commands.iter().find(|run| run.of.starts_with("deploy")).expect("a deploy is recorded")
}

/// A run that is denied a call makes no backup.
#[test]
fn every_recorded_call_of_a_role_is_allowed() {
    for (role, policies) in policies(deploy()) {
        let recorded = recorded(role);
        assert!(recorded.len() > 3, "{role}: {recorded:?}");
        let denied = denied(&policies.permissions.into(), &recorded);
        let lines: Vec<String> = denied
            .iter()
            .map(|(place, request)| {
                let Request { action, resource, context } = request;
                format!(
                    "policies/{role}.yaml does not allow {action} on {resource}: {place}, with {context:?}"
                )
            })
            .collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}

/// What a role may do and never does only serves somebody who stole it.
#[test]
fn every_statement_action_and_resource_of_a_role_is_needed() {
    for (role, policies) in policies(deploy()) {
        let unused = unused(&policies.permissions.into(), &recorded(role));
        assert!(
            unused.is_empty(),
            "policies/{role}.yaml grants what no recorded call takes:\n{}",
            unused.join("\n")
        );
    }
}

/// A condition that is not needed to let the calls pass is a fence; each must keep something out.
#[test]
fn every_condition_of_a_role_denies_something() {
    let attacks = crate::attacks::table();
    for (role, policies) in policies(deploy()) {
        let document: Value = policies.permissions.into();
        for (index, statement) in document["Statement"].as_array().unwrap().iter().enumerate() {
            for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
                for key in keys.as_object().unwrap().keys() {
                    let mut without = document.clone();
                    let condition = &mut without["Statement"][index]["Condition"][operator];
                    condition.as_object_mut().unwrap().remove(key);
                    let without = Policy::read(&without).unwrap();
                    let mut of_role = attacks.iter().filter(|attack| attack.role == role);
                    assert!(
                        of_role.any(|attack| without.evaluate(&attack.request).is_allowed()),
                        "policies/{role}.yaml: {}: no attack in the table passes without {key}",
                        statement["Sid"]
                    );
                }
            }
        }
    }
}

/// Where a key of the user's encrypts the topic, a function may have SNS use it, and can do nothing else with it.
#[test]
fn the_key_of_an_encrypted_topic_serves_notifications_only() {
    const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd";
    const OTHER: &str = "arn:aws:kms:eu-central-1:123456789012:key/payments";
    const SNS: &str = "sns.eu-central-1.amazonaws.com";
    let run = deploy();
    let mut environment = run.environment.clone();
    environment.notify.kms_key = Some(KEY.to_owned().try_into().unwrap());
    environment.encryption.at_rest = false;
    let request = |action: &str, resource: &str, via: &str| {
        let context = Context::default();
        let context = if via.is_empty() { context } else { context.with("kms:ViaService", via) };
        Request { action: action.to_owned(), resource: resource.to_owned(), context }
    };
    for (role, policies) in role_policies(&environment, &run.world.scope).unwrap() {
        let document: Value = policies.permissions.into();
        let mut recorded = recorded(role);
        // As it was recorded, another key encrypts topic and queue.
        let of_another = ["sns", "sqs"].map(|service| format!("{service}.eu-central-1.amazonaws.com"));
        recorded.retain(|(_, request)| {
            request
                .context
                .get("kms:ViaService")
                .is_none_or(|via| !via.iter().any(|via| of_another.contains(via)))
        });
        if role == "scheduler" {
            assert!(!document.to_string().contains("kms:"), "{document}");
        } else {
            // SNS asks for these with the caller's role (source: SNS Developer Guide, "Key management").
            for action in ["kms:GenerateDataKey", "kms:Decrypt"] {
                recorded.push(("SNS encrypts a message".to_owned(), request(action, KEY, SNS)));
            }
        }
        assert!(denied(&document, &recorded).is_empty(), "{role}: {:?}", denied(&document, &recorded));
        assert!(unused(&document, &recorded).is_empty(), "{role}: {:?}", unused(&document, &recorded));
        let policy = Policy::read(&document).unwrap();
        for (action, resource, via) in [
            ("kms:Decrypt", KEY, ""),
            ("kms:Decrypt", KEY, "s3.eu-central-1.amazonaws.com"),
            ("kms:Decrypt", KEY, "sns.us-east-1.amazonaws.com"),
            ("kms:GenerateDataKey", KEY, ""),
            ("kms:Decrypt", OTHER, SNS),
            ("kms:Encrypt", KEY, SNS),
            ("kms:CreateGrant", KEY, SNS),
            ("kms:ScheduleKeyDeletion", KEY, ""),
        ] {
            let attack = request(action, resource, via);
            assert!(!policy.evaluate(&attack).is_allowed(), "{role} may {action} on {resource} via `{via}`");
        }
    }
}

/// An alias may be moved to another key; only the one that has it now is used.
#[test]
fn a_key_by_its_alias_is_allowed_the_same_and_no_other_key_is() {
    let mut environment = deploy().environment.clone();
    environment.encryption.kms_key = Encryption::with_own_key().kms_key;
    let policies = role_policies(&environment, &Scope::of(&environment)).unwrap();
    let mut of_key: Vec<(&str, (String, Request))> = Vec::new();
    for role in ["backup", "cleanup", "scheduler"] {
        let recorded = recorded(role).into_iter();
        let recorded = recorded.filter(|(_, request)| request.action.starts_with("kms:"));
        of_key.extend(recorded.map(|recorded| (role, recorded)));
    }
    assert!(of_key.len() > 9, "{of_key:?}");
    for (role, (place, request)) in of_key {
        let policy = Policy::read(&json!(policies[role].permissions)).unwrap();
        let aliased = |aliases: &[&str]| {
            let context = request.context.clone();
            let with = |context: Context, alias: &&str| context.with("kms:ResourceAliases", alias);
            let context = aliases.iter().fold(context, with);
            policy.evaluate(&Request { context, ..request.clone() }).is_allowed()
        };
        assert!(aliased(&["alias/other", "alias/snapwarden-local"]), "{place}: {}", request.action);
        assert!(!aliased(&["alias/other"]) && !aliased(&[]), "{place}: {}", request.action);
    }
}

/// Rights that nobody switched on are nobody's.
#[test]
fn without_sealing_there_is_no_right_to_copy_or_to_any_key() {
    let mut environment = deploy().environment.clone();
    environment.encryption.at_rest = false;
    for require in [Requirement::Off, Requirement::Report] {
        environment.encryption.require = require;
        for (role, policies) in role_policies(&environment, &Scope::of(&environment)).unwrap() {
            let text = json!(policies.permissions).to_string();
            assert!(!text.contains("kms:") && !text.contains("CopySnapshot"), "{role}: {text}");
        }
    }
}

/// The service that a role is for gets it, and nobody else does, not even the same service for another account.
#[test]
fn roles_are_assumed_by_their_service_for_this_environment_only() {
    let policies = policies(deploy());
    let scope = &deploy().world.scope;
    let trusts = |role: &str, principal: &str, context: Context| {
        let trust = Policy::read(&json!(policies[role].trust)).unwrap();
        let request =
            Request { action: "sts:AssumeRole".to_owned(), resource: scope.role_arn(role), context };
        trust.trusts(principal, &request).is_allowed()
    };
    let fired = |account: &str, group: &str| {
        let arn = scope.schedule_group_arn().replace("/snapwarden-local", group);
        Context::default().with("aws:SourceAccount", account).with("aws:SourceArn", &arn)
    };
    let ours = || fired("123456789012", "/snapwarden-local");
    for role in ["backup", "cleanup"] {
        assert!(trusts(role, "lambda.amazonaws.com", Context::default()));
        assert!(!trusts(role, "scheduler.amazonaws.com", ours()));
        assert!(!trusts(role, "ec2.amazonaws.com", Context::default()));
        assert!(!trusts(role, "666666666666", Context::default()));
    }
    assert!(trusts("scheduler", "scheduler.amazonaws.com", ours()));
    assert!(!trusts("scheduler", "scheduler.amazonaws.com", fired("666666666666", "/snapwarden-local")));
    assert!(!trusts("scheduler", "scheduler.amazonaws.com", fired("123456789012", "/default")));
    assert!(!trusts("scheduler", "scheduler.amazonaws.com", Context::default()));
    assert!(!trusts("scheduler", "lambda.amazonaws.com", ours()));
}

/// The table must name what a role is used for, or "allowed" says nothing.
#[test]
fn the_recording_holds_what_the_functions_are_for() {
    let actions = |role: &str| -> BTreeSet<String> {
        recorded(role).into_iter().map(|(_, request)| request.action).collect()
    };
    for (role, action) in [
        ("backup", "ec2:CreateSnapshots"),
        ("backup", "ec2:CreateTags"),
        ("cleanup", "ec2:DeleteSnapshot"),
        ("cleanup", "ec2:CopySnapshot"),
        ("cleanup", "kms:CreateGrant"),
        ("cleanup", "logs:PutLogEvents"),
        ("scheduler", "lambda:InvokeFunction"),
    ] {
        assert!(actions(role).contains(action), "{role}: {:?}", actions(role));
    }
    let allowed = Policy::read(&json!(policies(deploy())["cleanup"].permissions)).unwrap();
    let (_, deletion) =
        recorded("cleanup").into_iter().find(|(_, r)| r.action == "ec2:DeleteSnapshot").unwrap();
    assert_eq!(allowed.evaluate(&deletion), Decision::Allowed("DeleteOwnSnapshots".to_owned()));
}

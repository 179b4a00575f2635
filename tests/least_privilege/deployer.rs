//! The policy that `cargo xtask policies deployer` writes, held against the calls of all commands.

use serde_json::{Value, json};
use snapwarden_deployer::policy::deployer::{Access, deployer_policy};
use snapwarden_deployer::scope::Scope;

use crate::authorization::requests;
use crate::evaluator::{Context, Policy, Request};
use crate::minimality::{denied, unused};
use crate::recording::{RECORDING, Run};

/// What some runs asked IAM for, each with where.
fn recorded<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<(String, Request)> {
    let requests = runs.flat_map(|run| {
        run.calls.iter().flat_map(move |call| {
            let of = run.of.clone();
            requests(call, &run.world).into_iter().map(move |request| (of.clone(), request))
        })
    });
    requests.collect()
}

/// `plan` and `status`, which only look.
fn looks(run: &&Run) -> bool {
    let looking = ["plan", "status", "report", "releases"];
    looking.iter().any(|command| run.of.starts_with(command))
}

/// What a command needs, and no more.
fn access(run: &Run) -> Access {
    let operate = run.of.starts_with("invoke") || run.of.starts_with("dead-letters");
    let purge = run.of.contains("purge") && !operate;
    Access { deploy: !looks(&run) && !operate, purge, operate, ..Access::READ_ONLY }
}

fn bounded(run: &&Run) -> bool {
    run.environment.iam.permissions_boundary.is_some()
}

fn all() -> impl Iterator<Item = &'static Run> {
    RECORDING.commands.iter()
}

fn policy(run: &Run, access: Access) -> Value {
    deployer_policy(&Scope::of(&run.environment), access)
}

/// A pipeline that is denied a call leaves an environment half deployed.
#[test]
fn every_recorded_call_of_a_command_is_allowed() {
    let mut missing = Vec::new();
    for run in all() {
        for access in [access(run), Access::ALL] {
            let recorded = recorded(std::iter::once(run));
            assert!(!recorded.is_empty(), "{}: {recorded:?}", run.of);
            missing.extend(denied(&policy(run, access), &recorded).into_iter().map(|(place, request)| {
                let Request { action, resource, context } = request;
                format!(
                    "`{place}` needs {action} on {resource} ({context:?}), which no kind states as a right, \
                     see Kind::rights; {access:?}"
                )
            }));
        }
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What log groups are asked that are there when a key comes or goes, which the emulator does not know; see the tests
/// of the kind.
fn beyond_the_emulators() -> Vec<(String, Request)> {
    let scope = &RECORDING.commands[0].world.scope;
    let groups = snapwarden_deployer::scope::Function::ALL.map(|function| scope.log_group(function));
    let request = |action: &str, group: &String| {
        let resource = format!("{}:*", scope.log_group_arn(group));
        let request = Request { action: action.to_owned(), resource, context: Context::default() };
        ("a key that comes or goes".to_owned(), request)
    };
    let actions = ["logs:AssociateKmsKey", "logs:DisassociateKmsKey"];
    actions.iter().flat_map(|action| groups.iter().map(|group| request(action, group))).collect()
}

/// What a pipeline may do and never does only serves somebody who took it over.
#[test]
fn every_right_of_the_deployers_policies_is_needed() {
    let looking = recorded(all().filter(looks));
    let unbounded = recorded(all().filter(|run| !bounded(run)));
    for (access, recorded) in [(Access::READ_ONLY, &looking), (Access::ALL, &unbounded)] {
        let recorded = &[recorded.as_slice(), &beyond_the_emulators()].concat();
        let unused = unused(&policy(&RECORDING.commands[0], access), recorded);
        assert!(
            unused.is_empty(),
            "{access:?}: kinds state rights that no recorded call takes:\n{}",
            unused.join("\n")
        );
    }
    // With a key of its own, only what the key takes is new.
    let own_key = |run: &&Run| run.environment.encryption.made().is_some();
    let run = all().find(own_key).expect("a deploy with a key of its own is recorded");
    let unused_of_key: Vec<_> = unused(&policy(run, Access::ALL), &recorded(all().filter(own_key)))
        .into_iter()
        .filter(|unused| unused.contains("Key"))
        .filter(|unused| !unused.contains("KmsKey"))
        .collect();
    assert!(unused_of_key.is_empty(), "{}", unused_of_key.join("\n"));
    let text = policy(&RECORDING.commands[0], Access::ALL).to_string();
    assert!(!text.contains("kms:CreateKey") && !text.contains("kms:ScheduleKeyDeletion"), "{text}");
    // With a boundary, only what the boundary itself takes is new.
    let run = all().find(bounded).expect("a deploy with a boundary is recorded");
    let bounded = recorded(all().filter(bounded));
    let unused = unused(&policy(run, Access::DEPLOY), &bounded);
    assert!(!unused.iter().any(|unused| unused.contains("Boundary\"")), "{unused:?}");
}

/// Nothing in the read-only policy changes anything.
#[test]
fn the_read_only_policy_allows_no_recorded_mutation() {
    let mutations = all().flat_map(|run| {
        let calls = run.calls.iter().filter(|call| call.mutating);
        calls.flat_map(|call| requests(call, &run.world))
    });
    let policy = Policy::read(&policy(&RECORDING.commands[0], Access::READ_ONLY)).unwrap();
    let mut count = 0;
    for request in mutations {
        assert!(!policy.evaluate(&request).is_allowed(), "{request:?}");
        count += 1;
    }
    assert!(count > 50, "{count} mutations");
}

/// What a pipeline that was taken over tries.
#[test]
fn a_pipeline_cannot_leave_its_environment() {
    const ACCOUNT: &str = "123456789012";
    let iam = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/{name}");
    let ours = iam("backups/acme-snapwarden-local-eu-central-1-backup");
    let scheduler = iam("backups/acme-snapwarden-local-eu-central-1-scheduler");
    let regional =
        |service: &str, resource: &str| format!("arn:aws:{service}:eu-central-1:{ACCOUNT}:{resource}");
    let lambda = ("iam:PassedToService", "lambda.amazonaws.com");
    let limits = ("iam:PermissionsBoundary", "arn:aws:iam::123456789012:policy/limits");
    let snapshot = "arn:aws:ec2:eu-central-1::snapshot/snap-1".to_owned();
    let always: Vec<(&str, String, Vec<(&str, &str)>)> = vec![
        ("iam:PassRole", iam("admin"), vec![lambda]),
        ("iam:PassRole", ours.clone(), vec![("iam:PassedToService", "ec2.amazonaws.com")]),
        ("iam:PassRole", ours.clone(), vec![("iam:PassedToService", "scheduler.amazonaws.com")]),
        ("iam:PassRole", scheduler, vec![lambda]),
        ("iam:PassRole", ours.clone(), vec![]),
        ("iam:CreateRole", iam("admin"), vec![limits]),
        ("iam:CreateRole", iam("acme-snapwarden-local-eu-central-1-backup"), vec![limits]),
        ("iam:CreateRole", iam("backups/acme-snapwarden-prod-eu-central-1-backup"), vec![limits]),
        ("iam:PutRolePolicy", iam("admin"), vec![limits]),
        (
            "iam:AttachRolePolicy",
            ours.clone(),
            vec![limits, ("iam:PolicyARN", "arn:aws:iam::aws:policy/AdministratorAccess")],
        ),
        ("iam:CreateUser", format!("arn:aws:iam::{ACCOUNT}:user/eve"), vec![]),
        ("sts:AssumeRole", ours.clone(), vec![]),
        ("lambda:CreateFunction", regional("lambda", "function:miner"), vec![]),
        ("lambda:UpdateFunctionCode", regional("lambda", "function:snapwarden-prod-backup"), vec![]),
        ("lambda:AddPermission", regional("lambda", "function:snapwarden-local-backup"), vec![]),
        ("lambda:InvokeFunction", regional("lambda", "function:payments"), vec![]),
        ("scheduler:DeleteSchedule", regional("scheduler", "schedule/snapwarden-prod/backup"), vec![]),
        ("scheduler:DeleteScheduleGroup", regional("scheduler", "schedule-group/default"), vec![]),
        ("logs:DeleteLogGroup", regional("logs", "log-group:/aws/lambda/payments:*"), vec![]),
        (
            "logs:FilterLogEvents",
            regional("logs", "log-group:/aws/lambda/snapwarden-local-backup-2:*"),
            vec![],
        ),
        ("sqs:DeleteQueue", regional("sqs", "snapwarden-prod-dead-letters"), vec![]),
        ("ssm:GetParameter", regional("ssm", "parameter/payments/password"), vec![]),
        ("ssm:DeleteParameter", regional("ssm", "parameter/snapwarden/prod/lock"), vec![]),
        ("ec2:DeleteSnapshot", snapshot.clone(), vec![]),
        ("ec2:DeleteSnapshot", snapshot.clone(), vec![("aws:ResourceTag/snapwarden:environment", "prod")]),
        ("ec2:CreateTags", snapshot, vec![("aws:RequestTag/snapwarden:environment", "local")]),
        ("ec2:TerminateInstances", regional("ec2", "instance/i-1"), vec![]),
    ];
    let only_bounded: Vec<(&str, String, Vec<(&str, &str)>)> = vec![
        ("iam:CreateRole", ours.clone(), vec![]),
        (
            "iam:CreateRole",
            ours.clone(),
            vec![("iam:PermissionsBoundary", "arn:aws:iam::123456789012:policy/other")],
        ),
        ("iam:PutRolePolicy", ours.clone(), vec![]),
        ("iam:DeleteRolePermissionsBoundary", ours.clone(), vec![limits]),
        (
            "iam:PutRolePermissionsBoundary",
            ours,
            vec![("iam:PermissionsBoundary", "arn:aws:iam::aws:policy/AdministratorAccess")],
        ),
    ];
    // What only the options `--purge` and `--operate` give.
    let deploying: Vec<(&str, String, Vec<(&str, &str)>)> = vec![
        ("sqs:ReceiveMessage", regional("sqs", "snapwarden-local-dead-letters"), vec![]),
        ("sqs:DeleteMessage", regional("sqs", "snapwarden-local-dead-letters"), vec![]),
        (
            "ec2:DeleteSnapshot",
            "arn:aws:ec2:eu-central-1::snapshot/snap-1".to_owned(),
            vec![("aws:ResourceTag/snapwarden:environment", "local")],
        ),
    ];
    // With a key of its own, the same, and nothing of anybody else's keys.
    let key = |id: &str| regional("kms", &format!("key/{id}"));
    let ours_by_tag = ("aws:ResourceTag/snapwarden:environment", "local");
    let claimed = ("aws:RequestTag/snapwarden:environment", "local");
    let with_key: Vec<(&str, String, Vec<(&str, &str)>)> = vec![
        ("kms:ScheduleKeyDeletion", key("payments"), vec![]),
        (
            "kms:ScheduleKeyDeletion",
            key("payments"),
            vec![("aws:ResourceTag/snapwarden:environment", "prod")],
        ),
        ("kms:PutKeyPolicy", key("payments"), vec![]),
        ("kms:DisableKey", key("ours"), vec![ours_by_tag]),
        ("kms:Decrypt", key("ours"), vec![ours_by_tag]),
        ("kms:Decrypt", key("payments"), vec![("kms:ViaService", "lambda.eu-central-1.amazonaws.com")]),
        ("kms:CreateGrant", key("ours"), vec![ours_by_tag]),
        ("kms:CreateKey", "*".to_owned(), vec![]),
        ("kms:TagResource", key("payments"), vec![claimed, ("kms:ResourceAliases", "alias/payments")]),
        ("kms:TagResource", key("payments"), vec![]),
        ("kms:CreateAlias", regional("kms", "alias/payments"), vec![]),
        ("kms:CreateAlias", regional("kms", "alias/snapwarden-local-2"), vec![]),
        ("kms:CreateAlias", key("payments"), vec![]),
        ("kms:DeleteAlias", regional("kms", "alias/snapwarden-local"), vec![]),
    ];
    let without_purge = vec![("kms:ScheduleKeyDeletion", key("ours"), vec![ours_by_tag])];
    let own_key = all()
        .find(|run| run.environment.encryption.made().is_some())
        .expect("a deploy with a key of its own is recorded");
    let unbounded = &RECORDING.commands[0];
    let bounded = all().find(bounded).expect("a deploy with a boundary is recorded");
    for (run, access, attacks) in [
        (unbounded, Access::ALL, always.clone()),
        (unbounded, Access::DEPLOY, deploying),
        (own_key, Access::ALL, [always.clone(), with_key].concat()),
        (own_key, Access::DEPLOY, without_purge),
        (bounded, Access::ALL, [always, only_bounded].concat()),
    ] {
        let policy = Policy::read(&policy(run, access)).unwrap();
        for (action, resource, keys) in attacks {
            let context =
                keys.iter().fold(Context::default(), |context, (key, value)| context.with(key, value));
            let request = Request { action: action.to_owned(), resource, context };
            assert!(!policy.evaluate(&request).is_allowed(), "{request:?}");
        }
    }
}

/// A job of another repository, branch or environment must not become the deployer.
#[test]
fn only_the_named_pipeline_is_trusted() {
    let scope = &RECORDING.commands[0].world.scope;
    let pipeline: snapwarden_deployer::policy::trust::Pipeline =
        "github:acme/backups:production".parse().unwrap();
    let trust = Policy::read(&pipeline.trust_policy(scope)).unwrap();
    let provider = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com";
    let allows = |provider: &str, audience: &str, subject: &str| {
        let context = Context::default()
            .with("token.actions.githubusercontent.com:aud", audience)
            .with("token.actions.githubusercontent.com:sub", subject);
        let action = "sts:AssumeRoleWithWebIdentity".to_owned();
        let request = Request { action, resource: json!(scope.role_arn("deployer")).to_string(), context };
        trust.trusts(provider, &request).is_allowed()
    };
    let sts = "sts.amazonaws.com";
    assert!(allows(provider, sts, "repo:acme/backups:environment:production"));
    for subject in [
        "repo:acme/backups:environment:staging",
        "repo:acme/backups:ref:refs/heads/main",
        "repo:acme/backups:pull_request",
        "repo:acme/backups2:environment:production",
        "repo:eve/backups:environment:production",
        "",
    ] {
        assert!(!allows(provider, sts, subject), "{subject}");
    }
    assert!(!allows(provider, "eve", "repo:acme/backups:environment:production"));
    let other = "arn:aws:iam::666666666666:oidc-provider/token.actions.githubusercontent.com";
    assert!(!allows(other, sts, "repo:acme/backups:environment:production"));
}

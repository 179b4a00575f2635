//! What somebody tries who has got hold of a function's credentials, or has made a mistake: all of it is denied.

use serde_json::json;

use crate::evaluator::{Context, Policy, Request};
use crate::recording::{KEY, RECORDING};
use crate::roles;

/// Something that must not be allowed.
pub(crate) struct Attack {
    /// Whose credentials are used.
    pub(crate) role: &'static str,
    what: &'static str,
    pub(crate) request: Request,
}

const ALL: [&str; 3] = ["backup", "cleanup", "scheduler"];
const HOME: &str = "eu-central-1";

/// The attacks.
pub(crate) fn table() -> Vec<Attack> {
    let mut table = Vec::new();
    table.extend(on_snapshots());
    table.extend(on_instances_and_their_disks());
    table.extend(on_neighbours());
    table.extend(on_the_account());
    table
}

/// A request in our Region. `keys` are condition keys with their values.
fn to(action: &str, resource: &str, keys: &[(&str, &str)]) -> Request {
    let context = Context::default().with("ec2:Region", HOME);
    let context = keys.iter().fold(context, |context, (key, value)| context.with(key, value));
    Request { action: action.to_owned(), resource: resource.to_owned(), context }
}

fn by<'a>(
    roles: &'a [&'static str],
    what: &'static str,
    request: &'a Request,
) -> impl Iterator<Item = Attack> + 'a {
    roles.iter().map(move |role| Attack { role, what, request: request.clone() })
}

fn on_snapshots() -> Vec<Attack> {
    let snapshot = "arn:aws:ec2:eu-central-1::snapshot/snap-1";
    let elsewhere = "arn:aws:ec2:us-east-1::snapshot/snap-1";
    let new = "arn:aws:ec2:eu-central-1::snapshot/*";
    let ours = ("aws:ResourceTag/snapwarden:environment", "local");
    let making = ("ec2:CreateAction", "CreateSnapshots");
    let requested = ("aws:RequestTag/snapwarden:environment", "local");
    let prod = ("aws:RequestTag/snapwarden:environment", "prod");
    let day = ("aws:RequestTag/DeleteOn", "2026-12-01");
    let source = ("aws:RequestTag/snapwarden:source-snapshot", "snap-1");
    let other_key = "arn:aws:kms:eu-central-1:123456789012:key/ffffffff-12ab-34cd-56ef-1234567890ab";
    let through_ec2 = ("kms:ViaService", "ec2.eu-central-1.amazonaws.com");
    let through_s3 = ("kms:ViaService", "s3.eu-central-1.amazonaws.com");
    let to_service = ("kms:GrantIsForAWSResource", "true");
    let to_people = ("kms:GrantIsForAWSResource", "false");
    let mut table = Vec::new();
    for (roles, what, request) in [
        (
            &ALL[..],
            "delete another environment's snapshot",
            to("ec2:DeleteSnapshot", snapshot, &[("aws:ResourceTag/snapwarden:environment", "prod")]),
        ),
        (&ALL, "delete a snapshot without tags", to("ec2:DeleteSnapshot", snapshot, &[])),
        (
            &ALL,
            "delete a snapshot with somebody else's tag",
            to("ec2:DeleteSnapshot", snapshot, &[("aws:ResourceTag/environment", "local")]),
        ),
        (
            &ALL,
            "delete a snapshot whose tag only looks like ours",
            to("ec2:DeleteSnapshot", snapshot, &[("aws:ResourceTag/snapwarden:environment", "local ")]),
        ),
        (
            &ALL,
            "delete a snapshot whose tag is a wildcard",
            to("ec2:DeleteSnapshot", snapshot, &[("aws:ResourceTag/snapwarden:environment", "*")]),
        ),
        (
            &ALL,
            "delete a snapshot by a tag that the request brings along",
            to("ec2:DeleteSnapshot", snapshot, &[("aws:RequestTag/snapwarden:environment", "local")]),
        ),
        (
            &ALL,
            "delete our snapshot in another Region",
            to("ec2:DeleteSnapshot", elsewhere, &[ours, ("aws:ResourceTag/DeleteOn", "2026-12-01")]),
        ),
        (
            &ALL,
            "delete our snapshot whose day somebody took away, to keep it",
            to("ec2:DeleteSnapshot", snapshot, &[ours]),
        ),
        (
            &["backup", "scheduler"],
            "delete our snapshot, which only cleanup may",
            to("ec2:DeleteSnapshot", snapshot, &[ours, ("aws:ResourceTag/DeleteOn", "2026-12-01")]),
        ),
        (
            &ALL,
            "make a snapshot without our tag",
            to("ec2:CreateSnapshots", new, &[("aws:RequestTag/DeleteOn", "2026-12-01")]),
        ),
        (
            &ALL,
            "make a snapshot that never goes",
            to("ec2:CreateSnapshots", new, &[("aws:RequestTag/snapwarden:environment", "local")]),
        ),
        (
            &ALL,
            "make a snapshot for another environment",
            to(
                "ec2:CreateSnapshots",
                new,
                &[
                    ("aws:RequestTag/snapwarden:environment", "prod"),
                    ("aws:RequestTag/DeleteOn", "2026-12-01"),
                ],
            ),
        ),
        (
            &ALL,
            "make a snapshot in another Region",
            to(
                "ec2:CreateSnapshots",
                "arn:aws:ec2:us-east-1::snapshot/*",
                &[
                    ("aws:RequestTag/snapwarden:environment", "local"),
                    ("aws:RequestTag/DeleteOn", "2026-12-01"),
                ],
            ),
        ),
        (
            &["cleanup", "scheduler"],
            "make a snapshot, which only backup may",
            to("ec2:CreateSnapshots", new, &[("aws:RequestTag/snapwarden:environment", "local")]),
        ),
        (
            &ALL,
            "make a snapshot of one volume",
            to("ec2:CreateSnapshot", new, &[("aws:RequestTag/snapwarden:environment", "local")]),
        ),
        (
            &ALL,
            "tag a snapshot that is there, to have it deleted",
            to("ec2:CreateTags", snapshot, &[("aws:RequestTag/DeleteOn", "2020-01-01")]),
        ),
        (
            &ALL,
            "tag a foreign snapshot as ours",
            to("ec2:CreateTags", snapshot, &[("aws:RequestTag/snapwarden:environment", "local")]),
        ),
        (
            &["backup", "scheduler"],
            "tag a copy while it is made, which only cleanup may",
            to("ec2:CreateTags", snapshot, &[("ec2:CreateAction", "CopySnapshot")]),
        ),
        (
            &ALL,
            "tag a single snapshot while it is made",
            to("ec2:CreateTags", snapshot, &[("ec2:CreateAction", "CreateSnapshot")]),
        ),
        (&ALL, "take the tags off a snapshot", to("ec2:DeleteTags", snapshot, &[ours])),
        (
            &ALL,
            "share a snapshot with another account",
            to("ec2:ModifySnapshotAttribute", snapshot, &[ours, ("ec2:Add/userId", "666666666666")]),
        ),
        (&ALL, "copy a snapshot away", to("ec2:CopySnapshot", snapshot, &[ours])),
        (
            &ALL,
            "copy a snapshot that another account shares",
            to("ec2:CopySnapshot", snapshot, &[("ec2:Owner", "666666666666")]),
        ),
        (
            &["backup", "scheduler"],
            "copy a snapshot, which only cleanup may",
            to("ec2:CopySnapshot", snapshot, &[("ec2:Owner", "123456789012")]),
        ),
        (&ALL, "make a copy for another environment", to("ec2:CopySnapshot", new, &[prod, day, source])),
        (&ALL, "make a copy that never goes", to("ec2:CopySnapshot", new, &[requested, source])),
        (&ALL, "make a copy that does not say of what", to("ec2:CopySnapshot", new, &[requested, day])),
        (
            &ALL,
            "make a copy in another Region",
            to("ec2:CopySnapshot", "arn:aws:ec2:us-east-1::snapshot/*", &[requested, day, source]),
        ),
        (&ALL, "decrypt with the key", to("kms:Decrypt", KEY, &[])),
        (&ALL, "decrypt with the key through another service", to("kms:Decrypt", KEY, &[through_s3])),
        (&ALL, "decrypt with another key", to("kms:Decrypt", other_key, &[through_ec2])),
        (&ALL, "give oneself a grant on the key", to("kms:CreateGrant", KEY, &[through_ec2, to_people])),
        (&ALL, "give oneself a grant without EC2", to("kms:CreateGrant", KEY, &[to_service])),
        (&ALL, "change who may use the key", to("kms:PutKeyPolicy", KEY, &[through_ec2])),
        (&ALL, "delete the key", to("kms:ScheduleKeyDeletion", KEY, &[through_ec2])),
        (
            &ALL,
            "tag a volume while snapshots are made",
            to("ec2:CreateTags", "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1", &[making]),
        ),
    ] {
        table.extend(by(roles, what, &request));
    }
    table
}

fn on_instances_and_their_disks() -> Vec<Attack> {
    let instance = "arn:aws:ec2:eu-central-1:123456789012:instance/i-1";
    let selected = ("aws:ResourceTag/Backup", "true");
    let mut table = Vec::new();
    for (roles, what, request) in [
        (&ALL[..], "snapshot an instance that nobody selected", to("ec2:CreateSnapshots", instance, &[])),
        (
            &ALL,
            "snapshot an instance whose owner said no",
            to("ec2:CreateSnapshots", instance, &[("aws:ResourceTag/Backup", "false")]),
        ),
        (
            &ALL,
            "snapshot an instance by the tag's value in capitals",
            to("ec2:CreateSnapshots", instance, &[("aws:ResourceTag/Backup", "TRUE")]),
        ),
        (
            &ALL,
            "snapshot an instance of another account",
            to("ec2:CreateSnapshots", "arn:aws:ec2:eu-central-1:666666666666:instance/i-1", &[selected]),
        ),
        (
            &ALL,
            "snapshot an instance in another Region",
            to("ec2:CreateSnapshots", "arn:aws:ec2:us-east-1:123456789012:instance/i-1", &[selected]),
        ),
        (
            &ALL,
            "snapshot a volume of another account",
            to("ec2:CreateSnapshots", "arn:aws:ec2:eu-central-1:666666666666:volume/vol-1", &[]),
        ),
        (
            &ALL,
            "tag an instance, so that it is selected",
            to("ec2:CreateTags", instance, &[("aws:RequestTag/Backup", "true")]),
        ),
        (
            &ALL,
            "tag an instance under cover of making snapshots",
            to("ec2:CreateTags", instance, &[("ec2:CreateAction", "CreateSnapshots")]),
        ),
        (&ALL, "take the tag off an instance", to("ec2:DeleteTags", instance, &[selected])),
        (&ALL, "terminate an instance", to("ec2:TerminateInstances", instance, &[selected])),
        (
            &ALL,
            "read who may use a snapshot",
            to("ec2:DescribeSnapshotAttribute", "arn:aws:ec2:eu-central-1::snapshot/snap-1", &[]),
        ),
    ] {
        table.extend(by(roles, what, &request));
    }
    for action in [
        "ec2:DescribeInstances",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVolumes",
        "ec2:DescribeImages",
        "ec2:DescribeLockedSnapshots",
    ] {
        let mut request = to(action, "*", &[]);
        request.context = Context::default().with("ec2:Region", "us-east-1");
        table.extend(by(&ALL, "look around in another Region", &request));
        request.context = Context::default();
        table.extend(by(&ALL, "look around where no Region is told", &request));
    }
    table
}

fn on_neighbours() -> Vec<Attack> {
    let logs = |group: &str| format!("arn:aws:logs:eu-central-1:123456789012:log-group:{group}:log-stream:s");
    let lambda = |name: &str| format!("arn:aws:lambda:eu-central-1:123456789012:function:{name}");
    let queue = |name: &str| format!("arn:aws:sqs:eu-central-1:123456789012:{name}");
    let mut table = Vec::new();
    for (roles, what, request) in [
        (
            &["cleanup", "scheduler"][..],
            "write into the backup function's log",
            to("logs:PutLogEvents", &logs("/aws/lambda/snapwarden-local-backup"), &[]),
        ),
        (
            &["backup", "scheduler"],
            "write into the cleanup function's log",
            to("logs:PutLogEvents", &logs("/aws/lambda/snapwarden-local-cleanup"), &[]),
        ),
        (
            &ALL,
            "write into a log group whose name goes on",
            to("logs:PutLogEvents", &logs("/aws/lambda/snapwarden-local-backup-2"), &[]),
        ),
        (
            &ALL,
            "write into another environment's log",
            to("logs:PutLogEvents", &logs("/aws/lambda/snapwarden-prod-backup"), &[]),
        ),
        (&ALL, "write into a stranger's log", to("logs:CreateLogStream", &logs("/aws/lambda/payments"), &[])),
        (
            &ALL,
            "make a log group",
            to(
                "logs:CreateLogGroup",
                "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/snapwarden-local-backup:*",
                &[],
            ),
        ),
        (
            &ALL,
            "delete a log, and the traces in it",
            to(
                "logs:DeleteLogGroup",
                "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/snapwarden-local-backup:*",
                &[],
            ),
        ),
        (
            &ALL,
            "read a log",
            to(
                "logs:FilterLogEvents",
                "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/snapwarden-local-backup:*",
                &[],
            ),
        ),
        (
            &ALL,
            "write to another environment's queue",
            to("sqs:SendMessage", &queue("snapwarden-prod-dead-letters"), &[]),
        ),
        (&ALL, "write to a stranger's queue", to("sqs:SendMessage", &queue("payments"), &[])),
        (
            &ALL,
            "write to a namesake queue of another account",
            to("sqs:SendMessage", "arn:aws:sqs:eu-central-1:666666666666:snapwarden-local-dead-letters", &[]),
        ),
        (
            &ALL,
            "read the dead letters",
            to("sqs:ReceiveMessage", &queue("snapwarden-local-dead-letters"), &[]),
        ),
        (&ALL, "empty the dead letters", to("sqs:PurgeQueue", &queue("snapwarden-local-dead-letters"), &[])),
        (
            &ALL,
            "invoke another environment's function",
            to("lambda:InvokeFunction", &lambda("snapwarden-prod-backup:live"), &[]),
        ),
        (&ALL, "invoke a stranger's function", to("lambda:InvokeFunction", &lambda("payments"), &[])),
        (
            &ALL,
            "invoke code that is not released",
            to("lambda:InvokeFunction", &lambda("snapwarden-local-backup:$LATEST"), &[]),
        ),
        (
            &ALL,
            "invoke a version that is not released any more",
            to("lambda:InvokeFunction", &lambda("snapwarden-local-cleanup:1"), &[]),
        ),
        (
            &ALL,
            "invoke a function without naming an alias",
            to("lambda:InvokeFunction", &lambda("snapwarden-local-cleanup"), &[]),
        ),
        (
            &["backup"],
            "invoke cleanup with backup's role",
            to("lambda:InvokeFunction", &lambda("snapwarden-local-cleanup:live"), &[]),
        ),
        (
            &["cleanup"],
            "invoke backup with cleanup's role",
            to("lambda:InvokeFunction", &lambda("snapwarden-local-backup:live"), &[]),
        ),
    ] {
        table.extend(by(roles, what, &request));
    }
    table
}

fn on_the_account() -> Vec<Attack> {
    let role = "arn:aws:iam::123456789012:role/backups/acme-snapwarden-local-eu-central-1-backup";
    let function = "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-local-backup";
    let mut table = Vec::new();
    for (what, request) in [
        (
            "pass another role to a function",
            to(
                "iam:PassRole",
                "arn:aws:iam::123456789012:role/admin",
                &[("iam:PassedToService", "lambda.amazonaws.com")],
            ),
        ),
        (
            "pass its own role to an instance",
            to("iam:PassRole", role, &[("iam:PassedToService", "ec2.amazonaws.com")]),
        ),
        ("assume another role", to("sts:AssumeRole", "arn:aws:iam::123456789012:role/admin", &[])),
        ("widen its own policy", to("iam:PutRolePolicy", role, &[])),
        (
            "attach a policy to itself",
            to(
                "iam:AttachRolePolicy",
                role,
                &[("iam:PolicyARN", "arn:aws:iam::aws:policy/AdministratorAccess")],
            ),
        ),
        ("let somebody else assume its role", to("iam:UpdateAssumeRolePolicy", role, &[])),
        ("take away its permissions boundary", to("iam:DeleteRolePermissionsBoundary", role, &[])),
        ("make a user", to("iam:CreateUser", "arn:aws:iam::123456789012:user/eve", &[])),
        ("replace its own code", to("lambda:UpdateFunctionCode", function, &[])),
        ("change its own settings", to("lambda:UpdateFunctionConfiguration", function, &[])),
        ("move the alias", to("lambda:UpdateAlias", function, &[])),
        (
            "let another account invoke it",
            to("lambda:AddPermission", function, &[("lambda:Principal", "666666666666")]),
        ),
        (
            "disable a schedule",
            to(
                "scheduler:UpdateSchedule",
                "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-local/backup",
                &[],
            ),
        ),
        (
            "delete the schedules",
            to(
                "scheduler:DeleteScheduleGroup",
                "arn:aws:scheduler:eu-central-1:123456789012:schedule-group/snapwarden-local",
                &[],
            ),
        ),
        (
            "take the deployer's lock",
            to(
                "ssm:PutParameter",
                "arn:aws:ssm:eu-central-1:123456789012:parameter/snapwarden/local/lock",
                &[],
            ),
        ),
        (
            "read parameters",
            to("ssm:GetParameter", "arn:aws:ssm:eu-central-1:123456789012:parameter/payments/password", &[]),
        ),
        ("decrypt with a key", to("kms:Decrypt", "arn:aws:kms:eu-central-1:123456789012:key/1", &[])),
        ("fake a metric", to("cloudwatch:PutMetricData", "*", &[("cloudwatch:namespace", "Snapwarden")])),
        (
            "switch an alarm off",
            to(
                "cloudwatch:DeleteAlarms",
                "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:snapwarden-local",
                &[],
            ),
        ),
        (
            "publish to a stranger's topic",
            to("sns:Publish", "arn:aws:sns:eu-central-1:123456789012:payments", &[]),
        ),
    ] {
        table.extend(by(&ALL, what, &request));
    }
    table
}

/// Each of these is a way in which a backup tool destroys backups, or becomes a way into an account.
#[test]
fn every_attack_is_denied() {
    let table = table();
    let kinds: std::collections::BTreeSet<_> = table.iter().map(|attack| attack.what).collect();
    assert!(kinds.len() >= 40, "{} kinds of attacks", kinds.len());
    let policies = roles::policies(&RECORDING.commands[0]);
    let mut passed = Vec::new();
    for Attack { role, what, request } in &table {
        let policy = Policy::read(&json!(policies[role].permissions)).unwrap();
        if policy.evaluate(request).is_allowed() {
            passed.push(format!("{role} may {what}: {request:?}"));
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    println!("{} kinds of attacks, {} requests, all denied", kinds.len(), table.len());
}

/// An attack on an action, a resource or a key that IAM does not know is denied whatever the policy says.
#[test]
fn every_attack_is_a_request_that_aws_knows() {
    for Attack { what, request, .. } in table() {
        let of_type = crate::authorization::type_of(&request.action, &request.resource);
        assert!(of_type.is_some(), "{what}: {} on {}", request.action, request.resource);
    }
}

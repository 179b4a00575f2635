//! How little a deploy does: nothing where nothing is to be done, and no call more than AWS asks for where something is.

use snapwarden_tests::bundle;
use snapwarden_tests::proxy::{Call, Proxy};

use super::deployed;

/// A pipeline deploys at every push; a call that changes something each time is a risk each time.
#[test]
fn planning_and_a_deploy_of_no_changes_make_no_mutating_call() {
    let local = deployed();
    let proxy = Proxy::of(&local);
    let bundle = bundle();
    let saved = local.path("saved.plan").display().to_string();
    let looking = [
        &["plan", "--bundle", &bundle][..],
        &["plan", "--bundle", &bundle, "--exit-code", "--out", &saved],
        &["status"],
    ];
    for arguments in [&looking[..], &[&["deploy", "--bundle", &bundle]]].concat() {
        let ran = proxy.run(&local, arguments, Vec::new());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(proxy.calls().len() > 10, "the proxy saw nothing: {:?}", proxy.calls());
        assert_eq!(named(&proxy.mutations()), Vec::<String>::new(), "{arguments:?}");
    }
    // A plan with much to do is only a plan all the same.
    local.edit("memory_mb: 256", "memory_mb: 512");
    local.edit("environment: local", "environment: other");
    local
        .write_environment("other", &std::fs::read_to_string(local.path("environments/local.yaml")).unwrap());
    let plan = proxy.run(&local, &["plan", "--bundle", &bundle, "--env", "other"], Vec::new());
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.stdout.contains("+ function snapwarden-other-backup"), "{plan:?}");
    assert_eq!(named(&proxy.mutations()), Vec::<String>::new());
}

/// What changes one property, and every mutating call that it takes. Tags are the worst: AWS wants one call for each
/// resource. A change of what a version freezes takes three: the change, a version, and the alias.
const TABLE: [(&str, &str, &str, &[&str]); 9] = [
    (
        "memory",
        "memory_mb: 256",
        "memory_mb: 512",
        &[
            "lambda:PublishVersion snapwarden-local-backup",
            "lambda:PublishVersion snapwarden-local-cleanup",
            "lambda:UpdateAlias snapwarden-local-backup",
            "lambda:UpdateAlias snapwarden-local-cleanup",
            "lambda:UpdateFunctionConfiguration snapwarden-local-backup",
            "lambda:UpdateFunctionConfiguration snapwarden-local-cleanup",
        ],
    ),
    (
        "one function's settings",
        "floor: 1 ",
        "floor: 2 ",
        &[
            "lambda:PublishVersion snapwarden-local-cleanup",
            "lambda:UpdateAlias snapwarden-local-cleanup",
            "lambda:UpdateFunctionConfiguration snapwarden-local-cleanup",
        ],
    ),
    ("one cron expression", "cron(0 2 * * ? *)", "cron(0 1 * * ? *)", &["scheduler:UpdateSchedule backup"]),
    (
        "both windows",
        "flexible_minutes: 15",
        "flexible_minutes: 10",
        &["scheduler:UpdateSchedule backup", "scheduler:UpdateSchedule cleanup"],
    ),
    (
        "log retention",
        "log_retention_days: 30",
        "log_retention_days: 90",
        &[
            "logs:PutRetentionPolicy /aws/lambda/snapwarden-local-backup",
            "logs:PutRetentionPolicy /aws/lambda/snapwarden-local-cleanup",
        ],
    ),
    (
        "the value of a tag",
        "project: snapwarden",
        "project: backups",
        &[
            "cloudwatch:TagResource snapwarden-local.backup-duration",
            "cloudwatch:TagResource snapwarden-local.backup-errors",
            "cloudwatch:TagResource snapwarden-local.backup-heartbeat",
            "cloudwatch:TagResource snapwarden-local.backup-throttles",
            "cloudwatch:TagResource snapwarden-local.cleanup-backlog",
            "cloudwatch:TagResource snapwarden-local.cleanup-duration",
            "cloudwatch:TagResource snapwarden-local.cleanup-errors",
            "cloudwatch:TagResource snapwarden-local.cleanup-heartbeat",
            "cloudwatch:TagResource snapwarden-local.cleanup-throttles",
            "cloudwatch:TagResource snapwarden-local.dead-letters",
            "cloudwatch:TagResource snapwarden-local.dead-letters-sent",
            "cloudwatch:TagResource snapwarden-local.schedules-dropped",
            "cloudwatch:TagResource snapwarden-local.stale-backup",
            "cloudwatch:TagResource snapwarden-local.unprotected-volumes",
            "iam:TagRole snapwarden-local-eu-central-1-backup",
            "iam:TagRole snapwarden-local-eu-central-1-cleanup",
            "iam:TagRole snapwarden-local-eu-central-1-scheduler",
            "lambda:TagResource snapwarden-local-backup",
            "lambda:TagResource snapwarden-local-cleanup",
            "logs:TagResource /aws/lambda/snapwarden-local-backup",
            "logs:TagResource /aws/lambda/snapwarden-local-cleanup",
            "scheduler:TagResource snapwarden-local",
            "sns:TagResource snapwarden-local-notifications",
            "sqs:TagQueue snapwarden-local-dead-letters",
        ],
    ),
    (
        "a tag that goes away",
        "tags: { project: backups }",
        "tags: {}",
        &[
            "cloudwatch:UntagResource snapwarden-local.backup-duration",
            "cloudwatch:UntagResource snapwarden-local.backup-errors",
            "cloudwatch:UntagResource snapwarden-local.backup-heartbeat",
            "cloudwatch:UntagResource snapwarden-local.backup-throttles",
            "cloudwatch:UntagResource snapwarden-local.cleanup-backlog",
            "cloudwatch:UntagResource snapwarden-local.cleanup-duration",
            "cloudwatch:UntagResource snapwarden-local.cleanup-errors",
            "cloudwatch:UntagResource snapwarden-local.cleanup-heartbeat",
            "cloudwatch:UntagResource snapwarden-local.cleanup-throttles",
            "cloudwatch:UntagResource snapwarden-local.dead-letters",
            "cloudwatch:UntagResource snapwarden-local.dead-letters-sent",
            "cloudwatch:UntagResource snapwarden-local.schedules-dropped",
            "cloudwatch:UntagResource snapwarden-local.stale-backup",
            "cloudwatch:UntagResource snapwarden-local.unprotected-volumes",
            "iam:UntagRole snapwarden-local-eu-central-1-backup",
            "iam:UntagRole snapwarden-local-eu-central-1-cleanup",
            "iam:UntagRole snapwarden-local-eu-central-1-scheduler",
            "lambda:UntagResource snapwarden-local-backup",
            "lambda:UntagResource snapwarden-local-cleanup",
            "logs:UntagResource /aws/lambda/snapwarden-local-backup",
            "logs:UntagResource /aws/lambda/snapwarden-local-cleanup",
            "scheduler:UntagResource snapwarden-local",
            "sns:UntagResource snapwarden-local-notifications",
            "sqs:UntagQueue snapwarden-local-dead-letters",
        ],
    ),
    // The tag is a condition of the backup role's policy, and a setting of both functions: cleanup audits the backups.
    (
        "the selecting tag",
        "tag: Backup",
        "tag: Nightly",
        &[
            // Widened before the alias moves, and narrowed after.
            "iam:PutRolePolicy snapwarden-local-eu-central-1-backup",
            "iam:PutRolePolicy snapwarden-local-eu-central-1-backup",
            "lambda:PublishVersion snapwarden-local-backup",
            "lambda:PublishVersion snapwarden-local-cleanup",
            "lambda:UpdateAlias snapwarden-local-backup",
            "lambda:UpdateAlias snapwarden-local-cleanup",
            "lambda:UpdateFunctionConfiguration snapwarden-local-backup",
            "lambda:UpdateFunctionConfiguration snapwarden-local-cleanup",
        ],
    ),
    ("what AWS does not know of", "logs: delete", "logs: keep", &[]),
];

/// Whoever approves one changed line approves what follows from it, and nothing else.
#[test]
fn a_change_of_one_property_makes_the_fewest_calls_and_touches_nothing_else() {
    let local = deployed();
    let proxy = Proxy::of(&local);
    for (what, from, to, expected) in TABLE {
        local.edit(from, to);
        let ran = proxy.run(&local, &["deploy", "--bundle", &bundle()], Vec::new());
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        assert_eq!(named(&proxy.mutations()), expected, "{what}");
    }
}

/// `action resource` of each call, sorted. The lock that keeps two deploys apart is not counted, nor is the release's
/// record, nor its canary, which is a dry run.
fn named(calls: &[Call]) -> Vec<String> {
    let counted = |action: &str| !action.starts_with("ssm:") && action != "lambda:InvokeFunction";
    let calls = calls.iter().filter(|call| counted(&call.action));
    let mut named: Vec<String> = calls.map(|call| format!("{} {}", call.action, call.resource())).collect();
    named.sort();
    named
}

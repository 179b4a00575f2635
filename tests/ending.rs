//! The ends of an environment: draining it, purging it, and coming back.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::time::Duration;

use serde_json::Value;
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, bundle};

/// A deployed environment with one night's snapshots, one instance's worth of them.
fn with_snapshots() -> Local {
    let local = Local::new();
    local.deploy();
    local.ok(&["local", "seed"]);
    local.ok(&["local", "night"]);
    assert_eq!(local.snapshots().len(), 3);
    local
}

fn schedules(status: &Value) -> Vec<&str> {
    status["schedules"].as_array().unwrap().iter().filter_map(|firing| firing["schedule"].as_str()).collect()
}

/// A pipeline that deploys every day must not start the backups of an environment again that is being given up.
#[test]
fn a_drained_environment_stays_so_through_deploys_until_it_is_resumed() {
    let local = with_snapshots();
    let drained = local.ok(&["destroy", "--drain"]);
    assert!(
        drained.stdout.contains("backups have stopped") && drained.stdout.contains("--lift-floor"),
        "{drained:?}"
    );
    let again = local.run(&["deploy", "--bundle", &bundle()]);
    assert!(again.code == 0 && again.stderr.contains("no changes"), "{again:?}");
    assert!(again.stderr.contains("this environment drains since"), "{again:?}");
    // Nights without backups are what a drain is for: status calls nobody, and names what waits for its day.
    local.ok(&["local", "night", "--nights", "3"]);
    let status = local.json(&["status"]);
    assert_eq!(schedules(&status), ["cleanup"]);
    assert_eq!(status["draining"]["floor_holds"], true);

    local.ok(&["deploy", "--resume", "--bundle", &bundle()]);
    // From now on three nights without backups are what somebody has to know.
    let resumed = local.run(&["status", "--json"]);
    assert!(
        resumed.code == 5 && resumed.stdout.contains("the newest backup of some volume is"),
        "{resumed:?}"
    );
    let status: Value = serde_json::from_str(&resumed.stdout).unwrap();
    assert_eq!(schedules(&status), ["backup", "cleanup"]);
    assert!(status.get("draining").is_none(), "{status}");
}

/// Draining ends with an empty environment only when the floor goes too, and somebody has to be told when it has.
#[test]
fn a_drain_without_floor_ends_empty_and_says_that_it_has_ended() {
    let local = with_snapshots();
    local.ok(&["destroy", "--drain", "--lift-floor"]);
    // The first of these nights is over when the last DeleteOn has come.
    local.ok(&["local", "night", "--nights", "8"]);
    assert_eq!(local.snapshots(), []);
    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stdout.contains("drained") && status.stdout.contains("cargo xtask destroy"), "{status:?}");
    local.ok(&["destroy"]);
    let left = local.run(&["status"]);
    assert!(left.stdout.contains("nothing is deployed"), "{left:?}");
}

/// What is purged is gone for good: nothing of anybody else's may go with it.
#[test]
fn a_purge_deletes_our_snapshots_and_no_other() {
    let local = with_snapshots();
    let foreign = local.foreign_snapshot();
    let destroyed = local.json(&["destroy", "--snapshots", "purge"]);
    assert_eq!(destroyed["purged"]["deleted"].as_array().unwrap().len(), 3, "{destroyed}");
    let left: Vec<_> = local.snapshots().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [foreign]);
}

/// Deterministic names and snapshots that stay must not keep anybody from starting again.
#[test]
fn a_deploy_after_a_destroy_takes_care_of_the_snapshots_that_stayed() {
    let local = with_snapshots();
    let destroyed = local.ok(&["destroy"]);
    assert!(destroyed.stdout.contains("3 snapshots remain"), "{destroyed:?}");
    local.deploy();
    assert_eq!(local.json(&["status"])["snapshots"], 3);
    local.ok(&["local", "night", "--nights", "8"]);
    let nights = local
        .snapshots()
        .iter()
        .map(|snapshot| snapshot.tag("snapwarden:run").to_owned())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(nights.len(), 7, "the first night's are gone: {nights:?}");
}

/// A run that is making snapshots while somebody purges leaves some that nobody would ever delete.
#[test]
fn a_purge_waits_for_a_run_in_flight_and_leaves_nothing() {
    let local = Local::new();
    let functions = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    let late = Effect::Delay(Duration::from_secs(6));
    functions.rule(vec![Rule::first(100, Calls::Action("ec2:CreateSnapshots"), late)]);
    std::thread::scope(|threads| {
        // Where it ends in the middle of the purge, it fails: that is no matter here.
        threads.spawn(|| local.run(&["invoke", "backup"]));
        functions.wait_for("ec2:DescribeInstances");
        local.ok(&["destroy", "--snapshots", "purge"]);
    });
    assert_eq!(local.snapshots(), []);
}

/// A mistyped retention must not keep an environment alive that costs money.
#[test]
fn a_broken_environment_file_does_not_stop_a_destroy() {
    let local = Local::with("logs: delete", "iam: { role_name_prefix: acme- }\nlogs: delete");
    let made = local.deploy()["steps"].as_array().unwrap().len();
    // Under other names, the roles would be left behind with the right to delete snapshots.
    local.edit("role_name_prefix: acme-", "role_name_prefix: other-");
    let renamed = local.run(&["plan", "--bundle", &bundle()]);
    assert!(renamed.code == 4 && renamed.stderr.contains("begin with `acme-`"), "{renamed:?}");
    local.edit("iam: { role_name_prefix: other- }\n", "");
    local.edit("daily_days: 7", "daily_days: seven");
    assert_eq!(local.run(&["deploy", "--bundle", &bundle()]).code, 2);
    // Half of it is gone already, by somebody's hand.
    let aws = local.aws();
    block_on(async {
        aws.lambda.delete_function().function_name("snapwarden-local-backup").send().await.unwrap();
        let queue = aws.sqs.get_queue_url().queue_name("snapwarden-local-dead-letters").send().await.unwrap();
        aws.sqs.delete_queue().set_queue_url(queue.queue_url).send().await.unwrap();
        let group = aws.scheduler.delete_schedule_group().name("snapwarden-local");
        group.send().await.unwrap();
    });
    local.ok(&["destroy"]);
    let roles = block_on(local.aws().iam.list_roles().send()).unwrap().roles;
    assert!(!roles.iter().any(|role| role.role_name.contains("snapwarden")), "{roles:?}");
    local.edit("daily_days: seven", "daily_days: 7");
    assert_eq!(local.json(&["deploy", "--bundle", &bundle()])["steps"].as_array().unwrap().len(), made);
}

//! Deploying, changing and destroying through the command line, against the emulators.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use aws_sdk_scheduler::types::ScheduleState;
use serde_json::{Value, json};
use snapwarden_deployer::aws::Aws;
use snapwarden_deployer::scope::Function;
use snapwarden_tests::{Local, block_on, bundle};

fn steps(result: &Value) -> usize {
    result["steps"].as_array().map_or(0, Vec::len)
}

/// A second deploy that changes anything makes every pipeline run a risk.
#[test]
fn a_second_deploy_changes_nothing() {
    let local = Local::new();
    assert_eq!(steps(&local.deploy()), 31);
    let before = local.json(&["status"]);
    let again = local.run(&["deploy", "--bundle", &bundle()]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("no changes"), "{again:?}");
    assert_eq!(steps(&local.deploy()), 0);
    assert_eq!(local.run(&["plan", "--bundle", &bundle(), "--exit-code"]).code, 0);
    assert_eq!(local.json(&["status"]), before);
}

/// What AWS runs at night must be what the file says, to the letter.
#[test]
fn what_is_deployed_is_what_the_file_says() {
    let local = Local::with("flexible_minutes: 15 }\n  retention", "flexible_minutes: 30 }\n  retention");
    local.deploy();
    let aws = local.aws();
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{}/bundle.json", bundle())).unwrap()).unwrap();

    for function in Function::ALL.map(Function::as_str) {
        let name = format!("snapwarden-local-{function}");
        let call = aws.lambda.get_function_configuration().function_name(&name).qualifier("live");
        let live = block_on(call.send()).unwrap();
        assert_eq!(live.memory_size(), Some(256));
        assert_eq!(live.runtime().map(AsRef::as_ref), Some("provided.al2023"));
        assert_eq!(live.architectures().first().map(AsRef::as_ref), Some("arm64"));
        assert_eq!(live.code_sha256(), manifest["functions"][function]["code_sha256"].as_str());
        assert_ne!(live.version(), Some("$LATEST"), "the alias serves a published version");
    }
    for (name, cron, window) in [("backup", "cron(0 2 * * ? *)", 30), ("cleanup", "cron(0 3 * * ? *)", 15)] {
        let call = aws.scheduler.get_schedule().group_name("snapwarden-local").name(name);
        let schedule = block_on(call.send()).unwrap();
        assert_eq!(schedule.schedule_expression(), Some(cron));
        assert_eq!(schedule.schedule_expression_timezone(), Some("UTC"));
        let flexible = schedule.flexible_time_window().unwrap();
        assert_eq!(flexible.maximum_window_in_minutes(), Some(window));
        let target = schedule.target().unwrap();
        assert!(target.arn().ends_with(&format!("function:snapwarden-local-{name}:live")), "{target:?}");
        assert!(target.role_arn().ends_with("role/snapwarden-local-eu-central-1-scheduler"), "{target:?}");
        let queue = target.dead_letter_config().and_then(|config| config.arn()).unwrap_or_default();
        assert!(queue.ends_with(":snapwarden-local-dead-letters"), "{target:?}");
        let input: Value = serde_json::from_str(target.input().unwrap_or_default()).unwrap();
        assert_eq!(input["scheduled_at"], json!("<aws.scheduler.scheduled-time>"));
    }
}

/// One edited line must change that, and nothing around it.
#[test]
fn a_changed_file_is_planned_property_by_property_and_then_done() {
    let local = Local::new();
    local.deploy();
    local.edit("memory_mb: 256", "memory_mb: 512");
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    assert_eq!(plan.code, 3, "{plan:?}");
    for line in [
        "~ function snapwarden-local-backup",
        "    version.memory_mb: 256 → 512",
        "~ alias snapwarden-local-cleanup:live",
        "    serves.memory_mb: 256 → 512",
        "0 to create, 4 to change, 0 to delete, 27 to keep",
    ] {
        assert!(plan.stdout.contains(line), "no `{line}`: {plan:?}");
    }
    assert_eq!(steps(&local.deploy()), 4);
    assert_eq!(local.run(&["plan", "--bundle", &bundle(), "--exit-code"]).code, 0);
}

/// A schedule that somebody switched off in the console is a night without backups.
#[test]
fn what_was_changed_behind_our_back_shows_and_is_repaired() {
    let local = Local::new();
    local.deploy();
    let aws = local.aws();
    let role = "snapwarden-local-eu-central-1-backup";
    let admin =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"}]}"#;
    let call = aws.iam.put_role_policy().role_name(role).policy_name("extra").policy_document(admin);
    block_on(call.send()).unwrap();
    let call = aws.logs.delete_retention_policy().log_group_name("/aws/lambda/snapwarden-local-cleanup");
    block_on(call.send()).unwrap();
    block_on(aws.scheduler.delete_schedule().group_name("snapwarden-local").name("backup").send()).unwrap();
    switch_off(&aws, "cleanup");
    let call = aws.lambda.put_function_concurrency().function_name("snapwarden-local-backup");
    block_on(call.reserved_concurrent_executions(0).send()).unwrap();

    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    for line in ["attention: schedule backup is missing", "attention: the cleanup schedule does not fire"] {
        assert!(status.stdout.contains(line), "no `{line}`: {status:?}");
    }
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    assert_eq!(plan.code, 3, "{plan:?}");
    for line in [
        "+ schedule backup",
        "enabled: false → true",
        "reserved_concurrency: 0 (goes away)",
        "policies.extra.Statement[0].Action: ec2:* (goes away)",
        "retention_days: 30 (not set now)",
    ] {
        assert!(plan.stdout.contains(line), "no `{line}`: {plan:?}");
    }
    local.deploy();
    assert_eq!(local.run(&["status"]).code, 0);
}

/// An event that EventBridge Scheduler gave up is a night without a backup.
#[test]
fn an_undelivered_event_needs_a_person() {
    let local = Local::new();
    local.deploy();
    assert_eq!(local.run(&["status"]).code, 0);
    let sqs = local.aws().sqs;
    let queue = block_on(sqs.get_queue_url().queue_name("snapwarden-local-dead-letters").send()).unwrap();
    block_on(sqs.send_message().set_queue_url(queue.queue_url).message_body("{}").send()).unwrap();
    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stdout.contains("dead-letters holds 1: events that could not be delivered"), "{status:?}");
}

/// What the console's "Disable" does: the same schedule, but for its state.
fn switch_off(aws: &Aws, name: &str) {
    let group = "snapwarden-local";
    let now = block_on(aws.scheduler.get_schedule().group_name(group).name(name).send()).unwrap();
    let call = aws.scheduler.update_schedule().group_name(group).name(name).state(ScheduleState::Disabled);
    let call = call.set_schedule_expression(now.schedule_expression).set_target(now.target);
    block_on(call.set_flexible_time_window(now.flexible_time_window).send()).unwrap();
}

/// What is left behind after a destroy is billed, or blocks the next deploy.
#[test]
fn destroy_leaves_nothing_but_snapshots_and_says_so() {
    let local = Local::new();
    local.json(&["local", "seed"]);
    let but_for_snapshots = || {
        let mut status: Value = serde_json::from_str(&local.run(&["status", "--json"]).stdout).unwrap();
        let fields = status.as_object_mut().unwrap();
        assert!(fields.remove("snapshots").is_some() && fields.remove("expiry").is_some());
        status
    };
    let before = but_for_snapshots();
    local.deploy();
    local.json(&["invoke", "backup"]);
    let destroyed = local.ok(&["destroy", "--yes"]);
    assert!(
        destroyed.stdout.contains("3 snapshots remain, and nobody enforces their DeleteOn now"),
        "{destroyed:?}"
    );
    assert_eq!(but_for_snapshots(), before, "the inventory is as before the deploy, but for the snapshots");
    assert_eq!(local.snapshots().len(), 3);
    assert_eq!(
        local.ok(&["destroy", "--yes"]).stdout.lines().next(),
        Some("environment local: there was nothing to delete")
    );

    // What was kept must not be in the way.
    assert_eq!(steps(&local.deploy()), 31);
}

/// Logs are what an auditor asks for after the environment is gone.
#[test]
fn destroy_keeps_the_log_groups_where_the_file_says_so() {
    let local = Local::with("logs: delete", "logs: keep\nprotect: true");
    local.deploy();
    local.ok(&["destroy", "--yes", "--confirm", "local"]);
    let again = local.ok(&["destroy", "--yes"]);
    assert!(again.stdout.contains("there was nothing to delete"), "nobody is asked for nothing: {again:?}");
    let status: Value = serde_json::from_str(&local.run(&["status", "--json"]).stdout).unwrap();
    let kinds: Vec<_> = status["resources"].as_array().unwrap().iter().map(|r| r["kind"].clone()).collect();
    assert_eq!(kinds, ["log group", "log group"]);
    assert_eq!(steps(&local.deploy()), 29, "the kept log groups are taken up again");
}

/// Protection that goes away with an edit of a file protects nobody.
#[test]
fn a_protected_environment_needs_its_name_even_after_the_file_was_edited() {
    let local = Local::with("region: eu-central-1", "region: eu-central-1\nprotect: true");
    local.deploy();
    for flags in [&[][..], &["--drain"], &["--snapshots", "purge"]] {
        let refused = local.run(&[&["destroy", "--yes"], flags].concat());
        assert_eq!(refused.code, 4, "{refused:?}");
    }
    local.edit("protect: true", "protect: false");
    let refused = local.run(&["destroy", "--yes"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("--confirm local"), "{refused:?}");
    assert_eq!(local.run(&["destroy", "--yes", "--confirm", "prod"]).code, 4);
    let lifting = local.run(&["deploy", "--yes", "--bundle", &bundle()]);
    assert!(lifting.code == 4 && lifting.stderr.contains("--confirm local"), "{lifting:?}");
    let lines = local.ok(&["plan", "--bundle", &bundle()]).stdout;
    assert!(lines.contains("what is protected is destroyed only by name"), "{lines}");
    local.ok(&["destroy", "--yes", "--drain", "--confirm", "local"]);
    local.ok(&["destroy", "--yes", "--snapshots", "purge", "--confirm", "local"]);
}

/// A namesake that is not ours may be somebody's production.
#[test]
fn an_unowned_namesake_is_refused_until_it_is_adopted() {
    let local = Local::new();
    local.ok(&["local", "up"]);
    let aws = local.aws();
    let name = "/aws/lambda/snapwarden-local-backup";
    block_on(aws.logs.create_log_group().log_group_name(name).send()).unwrap();
    let refused = local.run(&["deploy", "--bundle", &bundle()]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains(name) && refused.stderr.contains("--adopt"), "{refused:?}");
    let status: Value = serde_json::from_str(&local.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["resources"].as_array().map(Vec::len), Some(1), "nothing was made: {status}");
    // A destroy must not take it along either.
    local.ok(&["destroy", "--yes"]);
    assert_eq!(local.run(&["deploy", "--bundle", &bundle(), "--adopt"]).code, 0);
    assert_eq!(local.run(&["status"]).code, 0);
}

/// A pipeline approves a plan and executes it later: what runs must be what was approved.
#[test]
fn a_saved_plan_is_executed_exactly_or_refused() {
    let local = Local::new();
    let file = local.path("plan.json").display().to_string();
    local.ok(&["plan", "--bundle", &bundle(), "--out", &file]);
    let saved = std::fs::read_to_string(&file).unwrap();
    let deploy = |local: &Local| local.run(&["deploy", "--plan", &file, "--bundle", &bundle()]);

    std::fs::write(&file, saved.replacen("256", "512", 1)).unwrap();
    let edited = deploy(&local);
    assert_eq!((edited.code, edited.stderr.contains("changed after it was made")), (4, true), "{edited:?}");
    std::fs::write(&file, &saved[..saved.len() / 2]).unwrap();
    assert_eq!(deploy(&local).code, 4, "a plan that was cut");
    std::fs::write(&file, saved.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    assert_eq!(deploy(&local).code, 4, "a plan of another version");

    std::fs::write(&file, &saved).unwrap();
    assert_eq!(deploy(&local).code, 0);
    let stale = deploy(&local);
    assert_eq!(stale.code, 4, "{stale:?}");
    assert!(
        stale.stderr.contains("stale") && stale.stderr.contains("schedule backup"),
        "it names what changed: {stale:?}"
    );
}

/// Whoever stops for the night finds everything as it was.
#[test]
fn the_local_environment_survives_down_and_up() {
    let local = Local::new();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    let before = local.snapshots();
    local.ok(&["local", "down"]);
    assert_eq!(local.json(&["local", "status"])["running"], json!(false));
    local.ok(&["local", "up"]);
    assert_eq!(local.snapshots(), before);
    assert_eq!(steps(&local.deploy()), 0, "nothing to deploy again");
    local.json(&["invoke", "backup"]);
    local.ok(&["local", "reset"]);
    assert_eq!(local.snapshots(), []);
}

//! Whoever operates an environment: told when something goes wrong, and able to see what.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use snapwarden_tests::{Local, block_on, bundle};

fn deployed() -> Local {
    let local = Local::new();
    local.deploy();
    local
}

const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:snapwarden-local-notifications";

/// A night without backups that nobody hears of is what all of this is against.
#[test]
fn a_run_that_failed_for_good_is_told_in_plain_text_and_shows_in_status() {
    let local = deployed();
    let aws = local.aws();
    let queue = block_on(aws.sqs.create_queue().queue_name("inbox").send()).unwrap().queue_url.unwrap();
    let inbox = "arn:aws:sqs:eu-central-1:123456789012:inbox";
    block_on(aws.sns.subscribe().topic_arn(TOPIC).protocol("sqs").endpoint(inbox).send()).unwrap();
    // Nothing is tagged, so that there is nothing to back up.
    let night = local.run(&["local", "night"]);
    assert_eq!(night.code, 1, "{night:?}");

    let received = block_on(aws.sqs.receive_message().queue_url(&queue).max_number_of_messages(10).send());
    let messages = received.unwrap().messages.unwrap_or_default();
    assert_eq!(
        messages.len(),
        1,
        "one message for one failed run, none for the cleanup that was fine: {messages:?}"
    );
    let envelope: Value = serde_json::from_str(messages[0].body().unwrap()).unwrap();
    assert_eq!(envelope["Subject"], "Snapwarden local: backup failed");
    let text = envelope["Message"].as_str().unwrap();
    for part in [
        "A backup run of environment local failed",
        "no instance carries the tag Backup=true",
        "cargo xtask invoke backup --env local",
        "cargo xtask logs backup --env local",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }

    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stdout.contains("attention: the last backup run failed"), "{status:?}");
    assert!(status.stdout.contains("last cleanup: "), "{status:?}");
    // A person who tries by hand sees it fail, and needs no email.
    assert_eq!(local.run(&["invoke", "backup"]).code, 1);
    let again = block_on(aws.sqs.receive_message().queue_url(&queue).send()).unwrap();
    assert_eq!(again.messages.unwrap_or_default(), []);
}

/// The first morning: everything that somebody wants to know, on one screen.
#[test]
fn status_tells_the_last_runs_the_release_and_the_coverage() {
    let local = deployed();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "cleanup"]);
    let status = local.run(&["status", "--json"]);
    let value: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status.code, 0, "{status:?}");
    for (index, (function, summary)) in
        [("backup", "3 snapshots made"), ("cleanup", "3 not due")].iter().enumerate()
    {
        let run = &value["runs"][index];
        assert_eq!(run["function"], *function);
        assert_eq!(run["ended"]["failed"], false, "{value}");
        assert!(run["ended"]["summary"].as_str().unwrap().contains(summary), "{run}");
        assert!(value["releases"][index]["note"].as_str().unwrap().contains("by "), "{value}");
    }
    assert_eq!(value["undelivered"], 0);
    assert_eq!(value["alarms"].as_array().unwrap().len(), 17);
    let text = local.ok(&["status"]).stdout;
    assert!(text.lines().count() <= 24, "it fits one screen: {text}");
    for part in ["last backup: ", "last cleanup: ", "next backup: ", "alarms: 0 ringing", "nobody is told"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }

    // What cannot be read hides nothing else.
    let without_ec2 =
        local.command(&["status"]).env("SNAPWARDEN_LOCAL_ENDPOINT_EC2", "http://127.0.0.1:9").output();
    let without_ec2 = without_ec2.unwrap();
    let text = String::from_utf8_lossy(&without_ec2.stdout);
    assert_eq!(without_ec2.status.code(), Some(5), "{without_ec2:?}");
    for part in ["attention: the snapshots cannot be read", "last backup: ", "as the environment file says"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

/// A look must not start what somebody has stopped.
#[test]
fn status_leaves_a_stopped_environment_stopped_and_says_so() {
    let local = deployed();
    local.ok(&["local", "down"]);
    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stderr.contains("not running") && status.stderr.contains("local up"), "{status:?}");
    assert_eq!(local.json(&["local", "status"])["running"], false);
}

/// Somebody who has not confirmed is told nothing: that is no drift, and no secret either.
#[test]
fn a_subscription_that_waits_for_its_owner_is_shown_and_is_no_drift() {
    let notify = "logs: delete\nnotify: { emails: [ops@example.org], https: [\"https://127.0.0.1:9/hook\"] }";
    let local = Local::with("logs: delete", notify);
    local.deploy();
    assert_eq!(local.run(&["plan", "--bundle", &bundle(), "--exit-code"]).code, 0);
    let status = local.ok(&["status"]);
    let waiting = "https:127.0.0.1:9/…#dc222e8f is told nothing before its owner confirms the subscription";
    assert!(status.stdout.contains(waiting), "{status:?}");
    local.edit("emails: [ops@example.org]", "emails: [dev@example.org]");
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    for line in ["+ subscription email:dev@example.org", "- subscription email:ops@example.org"] {
        assert!(plan.stdout.contains(line), "no `{line}` in {plan:?}");
    }
    local.deploy();
    assert_eq!(local.run(&["plan", "--bundle", &bundle(), "--exit-code"]).code, 0);
}

/// What `logs --follow` shows while a backup runs, until it is interrupted.
fn followed_backup(local: &Local) -> Vec<String> {
    let mut command = local.command(&["logs", "backup", "--follow", "--since", "1m"]);
    let mut following = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    local.json(&["invoke", "backup"]);
    let patience = Duration::from_secs(60);
    let mut shown = Vec::new();
    while !shown.iter().any(|line: &String| line.contains("3 snapshots made")) {
        let Ok(line) = told.recv_timeout(patience) else { break };
        shown.push(line);
    }
    assert!(following.try_wait().unwrap().is_none(), "it has stopped following: {shown:?}");
    Command::new("kill").args(["-INT", &following.id().to_string()]).status().unwrap();
    let ended = (0..100).find_map(|_| {
        thread::sleep(Duration::from_millis(100));
        following.try_wait().unwrap()
    });
    following.kill().unwrap();
    assert_eq!(ended.and_then(|ended| ended.signal()), Some(2), "Ctrl-C ends it: {ended:?}");
    shown
}

/// What a function wrote, without the console.
#[test]
fn logs_show_what_the_functions_wrote() {
    let local = deployed();
    local.json(&["local", "seed"]);
    let followed = followed_backup(&local);
    assert!(followed.iter().any(|line| line.contains("3 snapshots made")), "{followed:?}");
    let text = local.ok(&["logs", "backup"]).stdout;
    assert!(text.contains("INFO  run started") && text.contains("3 snapshots made"), "{text}");
    assert!(!text.contains("_aws"), "metrics are for machines: {text}");
    let json = local.ok(&["logs", "backup", "--since", "1h", "--json"]).stdout;
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{json}");
    assert_eq!(local.ok(&["logs", "cleanup", "--since", "2099-01-01T00:00:00Z"]).stdout, "");
    assert_eq!(local.run(&["logs", "backup", "--since", "yesterday"]).code, 2);
}

/// A metric that was renamed leaves alarms that never ring and charts that stay empty.
#[test]
fn alarms_and_dashboard_look_only_at_what_the_functions_write() {
    let local = deployed();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "cleanup"]);
    let aws = local.aws();
    let mut written = BTreeSet::new();
    for function in ["backup", "cleanup"] {
        let call =
            aws.logs.filter_log_events().log_group_name(format!("/aws/lambda/snapwarden-local-{function}"));
        for event in block_on(call.send()).unwrap().events.unwrap_or_default() {
            let Ok(line) = serde_json::from_str::<Value>(event.message().unwrap_or_default()) else {
                continue;
            };
            for directive in line["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten() {
                assert_eq!(directive["Namespace"], "Snapwarden");
                assert_eq!(directive["Dimensions"], serde_json::json!([["Environment"]]));
                assert_eq!(line["Environment"], "local");
                let names =
                    directive["Metrics"].as_array().unwrap().iter().map(|metric| metric["Name"].clone());
                written.extend(names.filter_map(|name| name.as_str().map(str::to_owned)));
            }
        }
    }
    let mut looked_at = BTreeSet::new();
    let alarms = block_on(aws.cloudwatch.describe_alarms().send()).unwrap().metric_alarms.unwrap_or_default();
    for alarm in alarms.iter().filter(|alarm| alarm.namespace() == Some("Snapwarden")) {
        looked_at.extend(alarm.metric_name().map(str::to_owned));
    }
    let call = aws.cloudwatch.get_dashboard().dashboard_name("snapwarden-local-eu-central-1");
    let body: Value = serde_json::from_str(&block_on(call.send()).unwrap().dashboard_body.unwrap()).unwrap();
    for widget in body["widgets"].as_array().unwrap() {
        for line in widget["properties"]["metrics"].as_array().into_iter().flatten() {
            if line[0] == "Snapwarden" {
                looked_at.extend(line[1].as_str().map(str::to_owned));
            }
        }
    }
    assert!(looked_at.len() >= 8, "{looked_at:?}");
    let missing: Vec<_> = looked_at.difference(&written).collect();
    assert!(missing.is_empty(), "nobody writes {missing:?}; written are {written:?}");
}

/// "Empty the queue" is no help without a way to see what is in it, and to lose only what was seen.
#[test]
fn a_lost_run_is_listed_with_the_way_to_make_up_for_it() {
    let local = deployed();
    assert!(local.ok(&["dead-letters"]).stdout.contains("snapwarden-local-dead-letters is empty"));
    let aws = local.aws();
    let queue = aws.sqs.get_queue_url().queue_name("snapwarden-local-dead-letters");
    let url = block_on(queue.send()).unwrap().queue_url.unwrap();
    let schedule = "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-local/backup";
    let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let body = serde_json::json!({
        "requestContext": {
            "condition": "RetriesExhausted",
            "functionArn": "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-local-backup:live",
        },
        "requestPayload": { "schedule": schedule, "scheduled_at": hour_ago.to_string(), "dry_run": false },
        "responsePayload": { "errorMessage": "run x: 2 FAILED" },
    });
    block_on(aws.sqs.send_message().queue_url(url).message_body(body.to_string()).send()).unwrap();

    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stdout.contains("see `cargo xtask dead-letters`"), "{status:?}");
    let purged = local.ok(&["dead-letters", "--purge"]);
    for part in ["snapwarden-local/backup@", "Lambda", "RetriesExhausted: run x: 2 FAILED", "1 deleted"] {
        assert!(purged.stdout.contains(part), "no `{part}` in {purged:?}");
    }
    assert_eq!(local.json(&["dead-letters"])["events"], serde_json::json!([]));
    assert_eq!(local.run(&["dead-letters", "--yes"]).code, 2, "--yes to what?");
}

/// The page for those who do not use a terminal.
#[test]
fn the_report_is_one_page_with_a_command_for_every_snapshot() {
    let local = deployed();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    let path = local.path("backups.html");
    local.ok(&["report", "--out", &path.display().to_string()]);
    let page = fs::read_to_string(path).unwrap();
    for snapshot in local.snapshots() {
        assert!(page.contains(&format!("--snapshot-id {} --volume-type", snapshot.id)), "{}", snapshot.id);
    }
}

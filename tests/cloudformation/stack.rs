//! An environment whose engine is CloudFormation, from its first plan to its end, through the real command line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_sdk_lambda::types::RecursiveLoop;
use serde_json::{Value, json};
use snapwarden_deployer::aws::Aws;
use snapwarden_tests::{Local, block_on, bundle};

/// The emulator's CloudFormation does not hand `RecursiveLoop` on to Lambda, as AWS's does. This does it in its place.
struct RecursiveLoops {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RecursiveLoops {
    fn of(local: &Local) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (end, aws) = (over.clone(), local.aws());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                block_on(allow(&aws));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for RecursiveLoops {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn allow(aws: &Aws) {
    for function in ["snapwarden-local-backup", "snapwarden-local-cleanup"] {
        let call = aws.lambda.put_function_recursion_config().function_name(function);
        // Before and after its time the function is not there.
        drop(call.recursive_loop(RecursiveLoop::Allow).send().await);
    }
}

/// What the environment holds and what differs, whether or not it takes a person.
fn status(local: &Local) -> Value {
    let ran = local.run(&["status", "--json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Whoever may use nothing but CloudFormation gets the same backups by the same commands.
#[test]
fn a_stack_is_planned_made_changed_and_deleted_like_any_environment() {
    let local = Local::with("cloud: local", "cloud: local\nengine: cloudformation");
    local.ok(&["local", "up"]);
    let bundle = bundle();
    let with_bundle = |command: &[&str]| -> Vec<String> {
        command.iter().copied().chain(["--bundle", &bundle]).map(str::to_owned).collect()
    };
    let run = |command: &[&str]| {
        let command = with_bundle(command);
        local.run(&command.iter().map(String::as_str).collect::<Vec<_>>())
    };

    // A look changes nothing, and leaves nothing behind.
    let planned = run(&["plan", "--exit-code", "--json"]);
    assert_eq!(planned.code, 3, "{planned:?}");
    assert!(planned.stdout.contains("\"snapwarden-local-eu-central-1-backup\""), "{planned:?}");
    let stacks = || {
        block_on(async {
            let answer = local.aws().cloudformation.list_stacks().send().await.unwrap();
            let stacks = answer.stack_summaries.unwrap_or_default().into_iter();
            let statuses = stacks.filter_map(|stack| stack.stack_status);
            let statuses = statuses.map(|status| status.as_str().to_owned());
            statuses.filter(|status| status != "DELETE_COMPLETE").collect::<Vec<_>>()
        })
    };
    assert_eq!(stacks(), Vec::<String>::new());

    // What was approved is what is made, and the result is what the direct engine would have made.
    let file = local.path("plan").to_string_lossy().into_owned();
    let saved = run(&["plan", "--out", &file]);
    assert_eq!(saved.code, 0, "{saved:?}");
    let loops = RecursiveLoops::of(&local);
    let deployed = run(&["deploy", "--plan", &file, "--json"]);
    drop(loops);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(deployed.stderr.contains("snapwarden-local-backup:live"), "{deployed:?}");
    assert_eq!(stacks(), ["CREATE_COMPLETE"]);
    let status = self::status(&local);
    assert_eq!(status["drift"], json!([]), "{status:#}");
    let names: Vec<_> =
        status["schedules"].as_array().unwrap().iter().map(|schedule| schedule["schedule"].clone()).collect();
    assert_eq!(names, ["backup", "cleanup"]);

    // The same plan is not executed twice, and another one finds nothing to do.
    let again = run(&["deploy", "--plan", &file]);
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("the plan is stale"), "{again:?}");
    let quiet = run(&["plan", "--exit-code"]);
    assert_eq!(quiet.code, 0, "{quiet:?}");

    // It backs up.
    local.ok(&["local", "seed"]);
    let backup = local.json(&["invoke", "backup"]);
    assert_eq!(backup["snapshots_created"], 3, "{backup:#}");

    // A change reaches the released function.
    local.edit("memory_mb: 256", "memory_mb: 512");
    let loops = RecursiveLoops::of(&local);
    let changed = run(&["deploy"]);
    drop(loops);
    assert_eq!(changed.code, 0, "{changed:?}");
    assert!(changed.stderr.contains("function snapwarden-local-backup"), "{changed:?}");
    let status = self::status(&local);
    assert_eq!(status["drift"], json!([]), "{status:#}");

    // What somebody changes by hand shows.
    block_on(async {
        let call =
            local.aws().lambda.update_function_configuration().function_name("snapwarden-local-cleanup");
        call.timeout(60).send().await.unwrap();
    });
    let drift = run(&["plan", "--drift", "--exit-code"]);
    assert_eq!(drift.code, 3, "{drift:?}");
    assert!(drift.stdout.contains("Timeout: 60 → 900"), "{drift:?}");

    let destroyed = local.ok(&["destroy"]);
    assert!(destroyed.stdout.contains("3 snapshots remain"), "{destroyed:?}");
    assert_eq!(stacks(), Vec::<String>::new());
    let nothing = local.json(&["destroy"]);
    assert_eq!(nothing["steps"], json!([]), "{nothing:#}");
}

/// Two engines at one set of resources would undo each other's work, half of it each.
#[test]
fn a_stack_is_not_made_over_what_the_direct_engine_has_made() {
    let local = Local::new();
    local.deploy();
    local.edit("cloud: local", "cloud: local\nengine: cloudformation");
    let refused = local.run(&["deploy", "--bundle", &bundle()]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("resources already that are in no stack"), "{refused:?}");
    // With the file changed already, a destroy still finds what is there.
    let destroyed = local.ok(&["destroy"]);
    assert!(!destroyed.stdout.contains("nothing to delete"), "{destroyed:?}");
}

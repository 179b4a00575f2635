//! An environment whose engine is CloudFormation, from its first plan to its end, through the real command line.

use serde_json::{Value, json};
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, broken_bundle, bundle};

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
    let deployed = run(&["deploy", "--plan", &file, "--json"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(deployed.stderr.contains("snapwarden-local-backup:live"), "{deployed:?}");
    // Made without anything that could invoke a function, and completed when both had proven themselves.
    assert_eq!(stacks(), ["UPDATE_COMPLETE"]);
    let status = self::status(&local);
    assert_eq!(status["drift"], json!([]), "{status:#}");
    let names: Vec<_> =
        status["schedules"].as_array().unwrap().iter().map(|schedule| schedule["schedule"].clone()).collect();
    assert_eq!(names, ["backup", "cleanup"]);

    // The same plan is not executed twice, and another one finds nothing to do.
    let again = run(&["deploy", "--plan", &file]);
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("the plan is stale"), "{again:?}");
    let quiet = run(&["plan", "--exit-code", "--out", &file]);
    assert_eq!(quiet.code, 0, "{quiet:?}");
    let nothing = run(&["deploy", "--plan", &file]);
    assert_eq!(
        nothing.code, 0,
        "a pipeline plans and deploys, whether or not there is something to do: {nothing:?}"
    );
    local.edit("memory_mb: 256", "memory_mb: 320");
    let stale = run(&["deploy", "--plan", &file]);
    assert_eq!(stale.code, 4, "{stale:?}");
    local.edit("memory_mb: 320", "memory_mb: 256");

    // It backs up.
    local.ok(&["local", "seed"]);
    let backup = local.json(&["invoke", "backup"]);
    assert_eq!(backup["snapshots_created"], 3, "{backup:#}");
    // Whatever looks finds the same under a stack.
    assert!(local.ok(&["logs", "backup"]).stdout.contains("snap-"));
    assert!(local.ok(&["dead-letters"]).stdout.contains("snapwarden-local-dead-letters is empty"));
    let page = local.path("backups.html").display().to_string();
    local.ok(&["report", "--out", &page]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("snap-"));
    let night = local.json(&["local", "night"]);
    let fired: Vec<_> =
        night[0]["firings"].as_array().unwrap().iter().map(|firing| &firing["schedule"]).collect();
    assert_eq!(fired.len(), 2, "{night:#}");

    // A change reaches the released function.
    local.edit("memory_mb: 256", "memory_mb: 512");
    let changed = run(&["deploy"]);
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
    // The emulator's CloudFormation takes no drift back: then a deploy is no success.
    let left = run(&["deploy"]);
    assert!(left.code == 1 && left.stderr.contains("snapwarden-local-cleanup differs"), "{left:?}");

    // A line that got lost must not tear the stack's resources from under it.
    local.edit("engine: cloudformation", "engine: direct");
    for command in ["plan", "deploy"] {
        let refused = run(&[command]);
        assert!(refused.code == 4 && refused.stderr.contains("is a CloudFormation stack"), "{refused:?}");
    }

    let destroyed = local.ok(&["destroy"]);
    assert!(destroyed.stdout.contains("6 snapshots remain"), "{destroyed:?}");
    assert_eq!(stacks(), Vec::<String>::new());
    let nothing = local.json(&["destroy"]);
    assert_eq!(nothing["steps"], json!([]), "{nothing:#}");
}

/// The records, the newest first.
fn releases(local: &Local, environment: &str) -> Vec<Value> {
    local.json(&["releases", "--env", environment])["releases"].as_array().unwrap().clone()
}

fn served(local: &Local, function: &str) -> String {
    let call = local.aws().lambda.get_alias().function_name(format!("snapwarden-local-{function}"));
    block_on(call.name("live").send()).unwrap().function_version.unwrap()
}

fn policy(local: &Local) -> String {
    let role = local.aws().iam.get_role_policy().role_name("snapwarden-local-eu-central-1-backup");
    let document = block_on(role.policy_name("snapwarden").send()).unwrap().policy_document;
    percent_encoding::percent_decode_str(&document).decode_utf8_lossy().into_owned()
}

/// Whoever is called at night finds the same records, the same way back and the same end, whatever the engine is.
#[test]
fn releases_of_a_stack_are_tried_recorded_returned_to_and_promoted_and_it_drains() {
    let local = Local::with("value: \"true\" }", "value: \"true\" }\n  allow_no_instances: true");
    local.edit("cloud: local", "cloud: local\nengine: cloudformation");
    let file = std::fs::read_to_string(local.path("environments/local.yaml")).unwrap();
    local.write_environment("local-next", &file.replace("environment: local", "environment: local-next"));
    local.ok(&["local", "up"]);
    local.ok(&["deploy", "--bundle", &bundle()]);
    let first = releases(&local, "local");
    assert_eq!((first.len(), &first[0]["how"]), (1, &json!("deployed")));
    for function in ["backup", "cleanup"] {
        let canary = &first[0]["canary"][function];
        assert_eq!((&canary["outcome"], &canary["version"]), (&json!("passed"), &json!("1")), "{first:?}");
    }

    // A version that cannot do its work is never what the schedules invoke, and a bundle that can is the way out.
    let failed = local.run(&["deploy", "--bundle", &broken_bundle(&local)]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("version 2 of snapwarden-local-backup failed its canary"), "{failed:?}");
    assert_eq!((served(&local, "backup"), served(&local, "cleanup")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(releases(&local, "local").len(), 1, "what is not live is not recorded");
    local.json(&["invoke", "backup"]);
    local.ok(&["deploy", "--bundle", &bundle()]);
    assert_eq!(status(&local)["drift"], json!([]));

    // The tag is a condition of the backup role's policy, and in both functions' settings.
    let (before, old_policy) = (served(&local, "backup"), policy(&local));
    local.edit("tag: Backup, value: \"true\"", "tag: Nightly, value: \"yes\"");
    let plan = local.run(&["plan", "--bundle", &bundle()]);
    assert!(plan.stdout.contains("~ alias snapwarden-local-backup:live"), "{plan:?}");
    local.ok(&["deploy", "--bundle", &bundle()]);
    let new_policy = policy(&local);
    assert!(
        new_policy.contains("ResourceTag/Nightly") && !new_policy.contains("ResourceTag/Backup"),
        "{new_policy}"
    );
    let after = served(&local, "backup");
    assert_ne!(after, before);

    // Back, without a build, and with the rights of the release; and forward again by the file.
    let back = local.ok(&["rollback"]);
    assert!(back.stdout.contains("is back at release"), "{back:?}");
    assert_eq!((served(&local, "backup"), policy(&local)), (before, old_policy));
    let number = releases(&local, "local")[1]["previous"].clone();
    assert_eq!(releases(&local, "local")[0]["how"], json!({ "rolled_back_to": number }));
    local.ok(&["deploy", "--bundle", &bundle()]);
    assert_eq!((served(&local, "backup"), policy(&local)), (after, new_policy));

    // To another stack, with what the functions hold.
    let promote = ["promote", "--from", "local", "--to", "local-next"];
    let proxy = Proxy::of(&local);
    let shown = proxy.run(&local, &[&promote[..], &["--dry-run"]].concat(), vec![]);
    assert!(
        shown.code == 0 && shown.stdout.contains("+ alias snapwarden-local-next-backup:live"),
        "{shown:?}"
    );
    let calls: Vec<String> = proxy.mutations().into_iter().map(|call| call.action).collect();
    let and_gone =
        ["cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet", "cloudformation:DeleteStack"];
    assert_eq!(calls, and_gone, "what is shown is CloudFormation's plan, and nothing of it stays");
    let promoted = local.run(&promote);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    let there = releases(&local, "local-next");
    assert_eq!(there[0]["how"]["promoted"]["environment"], json!("local"), "{there:?}");
    local.ok(&["destroy", "--env", "local-next"]);

    // Backups end, and cleanup goes on, through the deploys of a pipeline that knows nothing of it.
    let drained = local.ok(&["destroy", "--drain"]);
    assert!(drained.stdout.contains("drained"), "{drained:?}");
    let schedules = |status: &Value| {
        let firings = status["schedules"].as_array().unwrap().iter();
        firings.filter_map(|firing| firing["schedule"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(schedules(&status(&local)), ["cleanup"]);
    let again = local.run(&["deploy", "--bundle", &bundle()]);
    assert!(again.code == 0 && again.stderr.contains("this environment drains since"), "{again:?}");
    assert_eq!(schedules(&status(&local)), ["cleanup"]);
    local.ok(&["deploy", "--resume", "--bundle", &bundle()]);
    assert_eq!(schedules(&status(&local)), ["backup", "cleanup"]);
    local.ok(&["destroy"]);
}

/// A power cut between the two change sets, or between them and the record, must leave nothing that takes a person.
#[test]
fn wherever_a_deploy_of_a_stack_dies_the_same_command_goes_on_from_there() {
    let local = Local::with("cloud: local", "cloud: local\nengine: cloudformation");
    local.ok(&["local", "up"]);
    let proxy = Proxy::of(&local);
    let deploy = ["deploy", "--bundle", &bundle()];
    let mut memory = 256;
    for (action, nth, when) in [
        ("cloudformation:ExecuteChangeSet", 1, "with a stack that nothing can invoke yet"),
        ("cloudformation:CreateChangeSet", 1, "before anything"),
        ("cloudformation:ExecuteChangeSet", 1, "between the versions and the aliases"),
        ("cloudformation:ExecuteChangeSet", 2, "between the aliases and the record"),
    ] {
        let killed =
            proxy.run(&local, &deploy, vec![Rule::nth(nth, Calls::Action(action), Effect::KillAfter)]);
        assert_eq!(killed.code, -1, "{when}: {killed:?}");
        let again = local.run(&deploy);
        assert_eq!(again.code, 0, "{when}: {again:?}");
        let newest = &releases(&local, "local")[0];
        assert_eq!(newest["live"], json!(true), "{when}: {newest}");
        for function in ["backup", "cleanup"] {
            let canary = &newest["canary"][function];
            let expected = (&json!("passed"), &json!(served(&local, function)));
            assert_eq!((&canary["outcome"], &canary["version"]), expected, "{when}: {newest}");
        }
        assert_eq!(status(&local)["drift"], json!([]), "{when}");
        local.edit(&format!("memory_mb: {memory}"), &format!("memory_mb: {}", memory + 64));
        memory += 64;
    }
    local.ok(&["destroy"]);
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

//! Releases through the command line, against the emulators: recorded, tried before they are live, returned to, and
//! promoted from one environment to the next.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::fs;

use serde_json::{Value, json};
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, broken_bundle, bundle};

/// The records, the newest first.
fn releases(local: &Local, environment: &str) -> Vec<Value> {
    let listed = local.json(&["releases", "--env", environment]);
    listed["releases"].as_array().unwrap().clone()
}

fn served(local: &Local, environment: &str, function: &str) -> String {
    let name = format!("snapwarden-{environment}-{function}");
    let call = local.aws().lambda.get_alias().function_name(name).name("live");
    block_on(call.send()).unwrap().function_version.unwrap()
}

fn policy(local: &Local, role: &str) -> String {
    let role = format!("snapwarden-local-eu-central-1-{role}");
    let call = local.aws().iam.get_role_policy().role_name(role).policy_name("snapwarden");
    let document = block_on(call.send()).unwrap().policy_document;
    percent_encoding::percent_decode_str(&document).decode_utf8_lossy().into_owned()
}

const SELECT: (&str, &str) = ("tag: Backup, value: \"true\"", "tag: Nightly, value: \"yes\"");

/// Whoever is called at night must see what is live, and be back at what worked within seconds.
#[test]
fn releases_are_recorded_and_every_one_can_be_returned_to() {
    let local = Local::new();
    local.deploy();
    let first = releases(&local, "local");
    assert_eq!(first.len(), 1);
    assert_eq!(
        (&first[0]["number"], &first[0]["how"], &first[0]["live"]),
        (&json!(1), &json!("deployed"), &json!(true))
    );
    for function in ["backup", "cleanup"] {
        let canary = &first[0]["canary"][function];
        assert_eq!((&canary["outcome"], &canary["version"]), (&json!("passed"), &json!("1")), "{first:?}");
    }
    local.deploy();
    assert_eq!(releases(&local, "local").len(), 1, "nothing changed, so nothing was released");

    // The tag is a condition of the backup role's policy, and in both functions' settings.
    let old_policy = policy(&local, "backup");
    local.edit(SELECT.0, SELECT.1);
    let proxy = Proxy::of(&local);
    let ran = proxy.run(&local, &["deploy", "--bundle", &bundle()], Vec::new());
    assert_eq!(ran.code, 0, "{ran:?}");
    let order: Vec<String> = proxy.mutations().iter().map(|call| call.action.clone()).collect();
    let position = |action: &str| order.iter().position(|found| found == action).unwrap();
    let last = |action: &str| order.iter().rposition(|found| found == action).unwrap();
    assert!(position("iam:PutRolePolicy") < position("lambda:PublishVersion"), "widened first: {order:?}");
    assert!(
        last("lambda:InvokeFunction") < position("lambda:UpdateAlias"),
        "both tried before any moves: {order:?}"
    );
    assert!(last("lambda:UpdateAlias") < last("iam:PutRolePolicy"), "narrowed last: {order:?}");
    let new_policy = policy(&local, "backup");
    assert!(
        new_policy.contains("ResourceTag/Nightly") && !new_policy.contains("ResourceTag/Backup"),
        "{new_policy}"
    );
    let second = releases(&local, "local");
    assert_eq!((&second[0]["number"], &second[0]["previous"]), (&json!(2), &json!(1)));
    assert_eq!(served(&local, "local", "backup"), "2");

    // Back, without a build; what is no part of a release stays.
    let back = local.ok(&["rollback"]);
    assert!(back.stdout.contains("environment local is back at release 1"), "{back:?}");
    assert_eq!(
        (served(&local, "local", "backup"), served(&local, "local", "cleanup")),
        ("1".to_owned(), "1".to_owned())
    );
    assert_eq!(policy(&local, "backup"), old_policy, "the rights of the release came back with it");
    let third = releases(&local, "local");
    assert_eq!(third[0]["how"], json!({ "rolled_back_to": 1 }));
    let status = local.run(&["status"]);
    assert_eq!(status.code, 0, "an environment that was rolled back is as it should be: {status:?}");
    assert!(status.stdout.contains("release 3: rolled back to release 1"), "{status:?}");
    assert!(status.stdout.contains("may say otherwise"), "{status:?}");

    // And forward again, by number and by the file; no version is made twice.
    local.ok(&["rollback", "--to", "2"]);
    assert_eq!((served(&local, "local", "backup"), policy(&local, "backup")), ("2".to_owned(), new_policy));
    local.ok(&["rollback", "--to", "1"]);
    let deployed = local.deploy();
    assert_eq!(deployed["release"]["number"], json!(6), "{deployed}");
    assert_eq!(served(&local, "local", "backup"), "2");

    let unknown = local.run(&["rollback", "--to", "99"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("no release 99 is recorded"), "{unknown:?}");
    local.ok(&["destroy", "--yes"]);
    assert_eq!(releases(&local, "local").len(), 0, "the records go with the environment");
    let nothing = local.run(&["rollback"]);
    assert_eq!(nothing.code, 4, "{nothing:?}");
}

/// A version that cannot do its work must never be what the schedules invoke.
#[test]
fn a_failing_canary_leaves_the_alias_where_it_was_and_says_why() {
    let local = Local::with("value: \"true\" }", "value: \"true\" }\n  allow_no_instances: true");
    local.deploy();
    let broken = broken_bundle(&local);
    let failed = local.run(&["deploy", "--bundle", &broken]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("version 2 of snapwarden-local-backup failed its canary"), "{failed:?}");
    assert!(failed.stderr.contains("snapwarden-local-backup:live is left as it was"), "{failed:?}");
    assert_eq!(served(&local, "local", "backup"), "1");
    assert_eq!(served(&local, "local", "cleanup"), "1");
    assert_eq!(releases(&local, "local").len(), 1, "what is not live is not recorded");
    local.json(&["invoke", "backup"]);
    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "an unfinished release needs a person: {status:?}");

    // The way out is a bundle that works, or the release that is live.
    local.ok(&["deploy", "--bundle", &bundle()]);
    assert_eq!(local.run(&["status"]).code, 0);
    assert_eq!(releases(&local, "local").len(), 1);

    // Who knows better can go ahead, which is remembered.
    local.ok(&["deploy", "--bundle", &broken, "--no-canary"]);
    let untried = releases(&local, "local");
    assert_eq!(untried[0]["canary"]["backup"]["outcome"], json!("skipped"), "{untried:?}");
    let ran = local.run(&["invoke", "backup"]);
    assert_eq!(ran.code, 1, "it does not work indeed: {ran:?}");
    local.ok(&["rollback"]);
    local.json(&["invoke", "backup"]);
}

/// A power cut between the alias and its record must not leave a release that nobody knows of.
#[test]
fn a_deploy_that_died_before_its_record_is_recorded_by_the_next_one() {
    let local = Local::new();
    local.deploy();
    let proxy = Proxy::of(&local);
    let mut memory = 256;
    let kills = [
        (Calls::Action("lambda:PublishVersion"), 2, "between the versions and the aliases"),
        (Calls::Action("lambda:UpdateAlias"), 1, "between the two aliases"),
        (Calls::Action("lambda:UpdateAlias"), 2, "between the aliases and the record"),
        // The first is the lock.
        (Calls::Action("ssm:PutParameter"), 2, "within the record"),
    ];
    for (calls, nth, when) in kills {
        local.edit(&format!("memory_mb: {memory}"), &format!("memory_mb: {}", memory + 64));
        memory += 64;
        let deploy = ["deploy", "--bundle", &bundle()];
        let killed = proxy.run(&local, &deploy, vec![Rule::nth(nth, calls, Effect::KillAfter)]);
        assert_eq!(killed.code, -1, "{when}: {killed:?}");
        let again = local.run(&deploy);
        assert_eq!(again.code, 0, "{when}: {again:?}");
        let newest = &releases(&local, "local")[0];
        assert_eq!(newest["live"], json!(true), "{when}: {newest}");
        for function in ["backup", "cleanup"] {
            let version = served(&local, "local", function);
            assert_eq!(newest["functions"][function]["version"], json!(version), "{when}: {newest}");
            let canary = &newest["canary"][function];
            assert_eq!(
                (&canary["outcome"], &canary["version"]),
                (&json!("passed"), &json!(version)),
                "{when}: {newest}"
            );
        }
        assert_eq!(local.run(&["status"]).code, 0, "{when}");
    }
    let how: Vec<Value> = releases(&local, "local").iter().map(|release| release["how"].clone()).collect();
    assert!(how.contains(&json!("found_live")), "{how:?}");
}

/// Versions that nobody can return to cost money for ever; one that is deleted too early is a release that is lost.
#[test]
fn versions_of_releases_that_are_not_kept_are_deleted() {
    let local = Local::with("logs: delete", "releases: { keep: 2 }\nlogs: delete");
    local.deploy();
    for (from, to) in [("memory_mb: 256", "memory_mb: 320"), ("memory_mb: 320", "memory_mb: 384")] {
        local.edit(from, to);
        local.deploy();
    }
    let call = local.aws().lambda.list_versions_by_function().function_name("snapwarden-local-backup");
    let versions: Vec<String> =
        block_on(call.send()).unwrap().versions.unwrap().into_iter().filter_map(|v| v.version).collect();
    assert_eq!(versions, ["$LATEST", "2", "3"]);
    let gone = local.run(&["rollback", "--to", "1"]);
    assert_eq!(gone.code, 4, "{gone:?}");
    assert!(gone.stderr.contains("version 1 of snapwarden-local-backup was deleted"), "{gone:?}");
    local.ok(&["rollback"]);
    assert_eq!(served(&local, "local", "backup"), "2");
}

/// What prod runs must be what staging proved, to the byte.
#[test]
fn what_staging_proved_goes_to_prod_and_nothing_else_does() {
    let local = Local::new();
    let file = fs::read_to_string(local.path("environments/local.yaml")).unwrap();
    for name in ["dev", "staging", "prod"] {
        let environment = file.replace("environment: local", &format!("environment: local-{name}"));
        local.write_environment(&format!("local-{name}"), &environment);
    }
    let write = |name: &str, from: &str, to: &str| {
        let path = local.path(&format!("environments/local-{name}.yaml"));
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{name}: no {from}");
        local.write_environment(&format!("local-{name}"), &text.replace(from, to));
    };
    let promote = |from: &str, to: &str, more: &[&str]| {
        let (from, to) = (format!("local-{from}"), format!("local-{to}"));
        local.run(&[&["promote", "--from", &from, "--to", &to][..], more].concat())
    };
    let refused = |from: &str, to: &str, more: &[&str], why: &str| {
        let ran = promote(from, to, more);
        assert_eq!((ran.code, ran.stderr.contains(why)), (4, true), "no `{why}`: {ran:?}");
    };
    local.ok(&["local", "up", "--env", "local-dev"]);
    refused("dev", "staging", &[], "nothing is deployed there");

    // Two environments in one account do not meet.
    local.ok(&["deploy", "--bundle", &bundle(), "--env", "local-dev"]);
    let passed = promote("dev", "staging", &[]);
    assert_eq!(passed.code, 0, "{passed:?}");
    assert_eq!(promote("staging", "prod", &["--dry-run"]).code, 0);
    assert_eq!(releases(&local, "local-prod").len(), 0, "a dry run changes nothing");

    // Every refusal, each for its reason.
    write("prod", "logs: delete", "releases: { soak_minutes: 60 }\nlogs: delete");
    refused("staging", "prod", &[], "has to be for 1h");
    write("prod", "soak_minutes: 60", "soak_minutes: 0");
    let other = broken_bundle(&local);
    refused("staging", "prod", &["--bundle", &other], "it was rebuilt, or is of another commit");
    let limit =
        local.aws().lambda.put_function_concurrency().function_name("snapwarden-local-staging-backup");
    block_on(limit.reserved_concurrent_executions(0).send()).unwrap();
    refused(
        "staging",
        "prod",
        &[],
        "function snapwarden-local-staging-backup differs in reserved_concurrency",
    );
    local.ok(&["deploy", "--bundle", &bundle(), "--env", "local-staging"]);
    write("staging", "memory_mb: 256", "memory_mb: 320");
    local.ok(&["deploy", "--bundle", &bundle(), "--env", "local-staging", "--no-canary"]);
    refused("staging", "prod", &[], "goes live untried");
    write("staging", "memory_mb: 320", "memory_mb: 256");
    local.ok(&["deploy", "--bundle", &bundle(), "--env", "local-staging"]);

    // With the bundle at hand, and with what the functions hold.
    let passed = promote("staging", "prod", &["--bundle", &bundle()]);
    assert_eq!(passed.code, 0, "{passed:?}");
    let of = |name: &str| releases(&local, name).remove(0);
    let (dev, staging, prod) = (of("local-dev"), of("local-staging"), of("local-prod"));
    for function in ["backup", "cleanup"] {
        let digest = |release: &Value| release["functions"][function]["code_sha256"].clone();
        assert!(digest(&dev).is_string());
        assert_eq!((digest(&dev), digest(&dev)), (digest(&staging), digest(&prod)), "identical bytes");
    }
    assert_eq!(
        prod["how"]["promoted"],
        json!({ "environment": "local-staging", "release": staging["number"] })
    );
    let same = promote("staging", "prod", &[]);
    assert_eq!(same.code, 0, "promoting it again changes nothing: {same:?}");
    assert_eq!(releases(&local, "local-prod").len(), 1);

    // Prod moves on, and staging's older release would bring it back.
    local.ok(&["deploy", "--bundle", &other, "--no-canary", "--env", "local-prod"]);
    refused("staging", "prod", &[], "it replaced this very code, which was release 1");
    let downgraded = promote("staging", "prod", &["--allow-downgrade"]);
    assert_eq!(downgraded.code, 0, "{downgraded:?}");
    local.ok(&["rollback", "--env", "local-prod", "--to", "2", "--no-canary"]);
    local.ok(&["rollback", "--env", "local-prod"]);
    assert_eq!(
        of("local-prod")["functions"]["backup"]["code_sha256"],
        staging["functions"]["backup"]["code_sha256"]
    );
    assert_eq!(promote("prod", "prod", &[]).code, 2, "an environment has nothing to prove to itself");
}

/// A pipeline builds in one job and deploys in another: what arrives must be what was built, or be refused.
#[test]
fn a_bundle_travels_as_one_file_and_is_refused_when_it_is_not_whole() {
    let local = Local::new();
    let file = local.path("snapwarden.bundle").display().to_string();
    let packed = local.json(&["bundle", "pack", &file, "--bundle", &bundle()]);
    let digest = packed["digest"].as_str().unwrap();
    local.ok(&["bundle", "verify", &file, "--digest", digest]);
    assert!(local.ok(&["bundle", "show", &file]).stdout.contains(digest));
    local.ok(&["deploy", "--bundle", &file]);
    assert_eq!(
        local.run(&["plan", "--bundle", &bundle(), "--exit-code"]).code,
        0,
        "the same code either way"
    );

    let other = local.run(&["bundle", "verify", &file, "--digest", &"0".repeat(64)]);
    assert_eq!(other.code, 4, "{other:?}");
    assert_eq!(local.run(&["bundle", "show", "nowhere"]).code, 2);
    let bytes = fs::read(&file).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], b"no zip"] {
        fs::write(&file, damaged).unwrap();
        let refused = local.run(&["deploy", "--bundle", &file]);
        assert_eq!((refused.code, refused.stderr.contains(&file)), (1, true), "{refused:?}");
    }
}

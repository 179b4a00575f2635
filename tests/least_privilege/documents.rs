//! The documents that reviewers read: golden files, and the commands that print them.

use serde_json::Value;
use snapwarden_tests::{Local, checkout};

fn golden(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Production as in the example file, with an account and everything that an organisation may ask of roles.
fn production() -> Local {
    let local = Local::new();
    let file = std::fs::read_to_string(checkout().join("environments/prod.yaml")).unwrap();
    let file = file.replace("000000000000", "123456789012");
    local.write_environment("prod", &file);
    let boundary = "arn:aws:iam::123456789012:policy/limits";
    let iam = format!(
        "iam: {{ role_path: /backups/, role_name_prefix: acme-, permissions_boundary: {boundary} }}\n"
    );
    local.write_environment("bounded", &(file.replace("environment: prod", "environment: bounded") + &iam));
    local
}

/// Whoever lets a pipeline deploy has approved exactly this.
#[test]
fn the_deployers_policies() {
    let local = production();
    for (name, arguments) in [
        ("deployer-prod", &["--env", "prod"][..]),
        ("deployer-prod-read-only", &["--env", "prod", "--read-only"]),
        ("deployer-prod-purge", &["--env", "prod", "--purge"]),
        ("deployer-prod-operator", &["--env", "prod", "--read-only", "--operate"]),
        ("deployer-bounded-github", &["--env", "bounded", "--trust", "github:acme/backups:production"]),
    ] {
        let text = local.ok(&[&["policies", "deployer"], arguments].concat()).stdout;
        let json = local.json(&[&["policies", "deployer"], arguments].concat());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json, "the text is for IAM, too");
        golden(name, &text);
    }
    let ci = "arn:aws:iam::123456789012:role/pipelines/ci";
    let json = local.json(&["policies", "deployer", "--env", "prod", "--principal", ci]);
    let statement = json["Statement"].as_array().unwrap().last().unwrap();
    assert_eq!((&statement["Sid"], &statement["Resource"][0]), (&"AskAboutOneself".into(), &ci.into()));
    let anybody =
        local.run(&["policies", "deployer", "--env", "prod", "--principal", &ci.replace("ci", "*")]);
    assert_eq!(anybody.code, 2, "{anybody:?}");
    let open = local.run(&["policies", "deployer", "--env", "prod", "--trust", "github:acme/*:production"]);
    assert_eq!(open.code, 2, "{open:?}");
    assert!(open.stderr.contains("names no pipeline"), "{open:?}");
}

/// And whoever lets somebody restore, this.
#[test]
fn the_restorers_policy() {
    golden("restorer-prod", &production().ok(&["policies", "restorer", "--env", "prod"]).stdout);
}

/// What cleanup may do where it seals, with a key by its ARN and by an alias.
#[test]
fn the_rights_of_sealing() {
    let local = production();
    let file = std::fs::read_to_string(local.path("environments/prod.yaml")).unwrap();
    for (name, key) in [("arn", crate::recording::KEY), ("alias", "alias/backup")] {
        let encryption = format!("encryption: {{ require: enforce, kms_key: \"{key}\" }}\n");
        local.write_environment("prod", &(file.clone() + &encryption));
        golden(
            &format!("role-sealing-{name}"),
            &local.ok(&["policies", "show", "cleanup", "--env", "prod"]).stdout,
        );
        let lint = local.ok(&["policies", "lint", "--env", "prod"]);
        assert_eq!(lint.stdout.trim(), "nothing to object to", "{lint:?}");
    }
}

/// What copies in other Regions take: of cleanup, and of whoever restores from them.
#[test]
fn the_rights_of_copies() {
    let local = production();
    let file = std::fs::read_to_string(local.path("environments/prod.yaml")).unwrap();
    let retention = "retention: { daily_days: 14 }";
    let key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let copy_to = format!(
        "copy_to:\n  - {{ region: eu-west-1, kms_key: alias/backup, {retention} }}\n  \
         - {{ region: us-east-1, kms_key: \"{key}\", {retention} }}\n"
    );
    local.write_environment("prod", &(file + &copy_to));
    golden("role-copies", &local.ok(&["policies", "show", "cleanup", "--env", "prod"]).stdout);
    golden("restorer-copies", &local.ok(&["policies", "restorer", "--env", "prod"]).stdout);
    golden("deployer-copies", &local.ok(&["policies", "deployer", "--purge", "--env", "prod"]).stdout);
    let lint = local.ok(&["policies", "lint", "--env", "prod"]);
    assert_eq!(lint.stdout.trim(), "nothing to object to", "{lint:?}");
}

/// What copies in another account take: of cleanup, of the role there, of whoever restores there, and of the keys at home.
#[test]
fn the_rights_of_copies_in_another_account() {
    let local = production();
    let file = std::fs::read_to_string(local.path("environments/prod.yaml")).unwrap();
    let copy_to = "copy_to:\n  - region: eu-west-1\n    role: arn:aws:iam::210987654321:role/snapwarden-copies\n    \
                   kms_key: alias/backup\n    retention: { daily_days: 35 }\n";
    let refused = local.run(&["policies", "copies", "--env", "prod"]);
    assert!(refused.code == 2 && refused.stderr.contains("names no role in another account"), "{refused:?}");
    local.write_environment("prod", &(file + copy_to));
    let of = |what: &[&str]| local.ok(&[&["policies"], what, &["--env", "prod"]].concat()).stdout;
    golden("role-copies-account", &of(&["show", "cleanup"]));
    let ann = "arn:aws:iam::123456789012:role/ann";
    golden("copies-account", &of(&["copies", "--principal", ann]));
    golden("restorer-copies-account", &of(&["restorer", "--account", "210987654321"]));
    golden("key-copies-account", &of(&["key"]));
    let purging = of(&["deployer", "--purge"]);
    assert!(
        purging.contains("ActInOtherAccounts") && !of(&["deployer"]).contains("sts:AssumeRole"),
        "{purging}"
    );
    let stranger = local.run(&["policies", "restorer", "--account", "555555555555", "--env", "prod"]);
    assert!(
        stranger.code == 2 && stranger.stderr.contains("no role of account 555555555555"),
        "{stranger:?}"
    );
    let lint = local.ok(&["policies", "lint", "--env", "prod"]);
    assert_eq!(lint.stdout.trim(), "nothing to object to", "{lint:?}");
}

/// What a key of the environment's own adds: to the deployer's rights, to the roles', and what the policy of a key of
/// the user's has to say for the same.
#[test]
fn the_documents_of_a_key_of_its_own() {
    let local = production();
    let file = std::fs::read_to_string(local.path("environments/prod.yaml")).unwrap();
    let encryption = "encryption: { require: enforce, kms_key: { create: true }, at_rest: true }\n";
    local.write_environment("prod", &(file + encryption));
    let deployer = ["policies", "deployer", "--env", "prod", "--purge", "--key"];
    let of_key = local.ok(&[&deployer[..], &["only"]].concat()).stdout;
    golden("deployer-own-key", &of_key);
    let without = local.ok(&[&deployer[..], &["without"]].concat()).stdout;
    assert!(!without.contains("kms:") && of_key.contains("kms:CreateKey"), "{without}");
    for role in ["backup", "cleanup", "scheduler"] {
        let shown = local.ok(&["policies", "show", role, "--env", "prod"]).stdout;
        golden(&format!("role-own-key-{role}"), &shown);
    }
    golden("key-services", &local.ok(&["policies", "key", "--env", "prod"]).stdout);
    let lint = local.ok(&["policies", "lint", "--env", "prod"]);
    assert_eq!(lint.stdout.trim(), "nothing to object to", "{lint:?}");
}

/// What is shown is what is deployed, with no hole left.
#[test]
fn a_roles_documents_are_shown() {
    let local = production();
    for role in ["backup", "cleanup", "scheduler"] {
        let shown = local.ok(&["policies", "show", role, "--env", "bounded"]).stdout;
        let json: Value = serde_json::from_str(&shown).unwrap();
        assert!(
            json["permissions"]["Statement"].is_array() && json["trust"]["Statement"].is_array(),
            "{shown}"
        );
        assert!(!shown.contains("${"), "{shown}");
        golden(&format!("role-bounded-{role}"), &shown);
    }
    let unknown = local.run(&["policies", "show", "admin", "--env", "prod"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

/// The documents as they are have no wildcard without a reason, no unknown action, and fit into IAM.
#[test]
fn nothing_is_to_be_said_against_the_documents() {
    let local = production();
    for environment in ["prod", "bounded", "local"] {
        let lint = local.ok(&["policies", "lint", "--env", environment]);
        assert_eq!(lint.stdout.trim(), "nothing to object to", "{lint:?}");
        assert_eq!(
            local.json(&["policies", "lint", "--env", environment])["findings"],
            serde_json::json!([])
        );
    }
}

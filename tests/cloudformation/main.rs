//! The second engine says the same as the first: templates against what the kinds declare, and against CloudFormation's
//! own rules as cfn-lint knows them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what a test cannot do fails it")]

mod fleet;
mod import;
mod read_back;
mod rights;
mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, Format, Template, fleet_template, template};
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::{Environment, parse};
use snapwarden_deployer::kinds::{Blueprint, registry};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::property::compare;
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::Desired;
use snapwarden_tests::checkout;

use read_back::Stack;

/// Every environment file that there is and that is valid.
fn environments() -> Vec<(String, Environment)> {
    let mut all = Vec::new();
    for folder in ["environments", "tests/configs/valid"] {
        for entry in fs::read_dir(checkout().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let environment = parse(&path, &fs::read_to_string(&path).unwrap()).unwrap();
                all.push((environment.environment.to_string(), environment));
            }
        }
    }
    assert!(all.len() >= 4, "where are the environment files?");
    all
}

/// Digests as Lambda writes them, of nothing in particular.
fn code() -> BTreeMap<Function, String> {
    BTreeMap::from([
        (Function::Backup, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned()),
        (Function::Cleanup, "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=".to_owned()),
    ])
}

fn draining() -> [Option<Draining>; 2] {
    [None, Some("since 2026-11-24".parse().unwrap())]
}

/// What the direct engine makes.
fn desired(environment: &Environment, draining: Option<Draining>) -> Desired {
    let scope = Scope::of(environment);
    let policies = role_policies(environment, &scope).unwrap();
    let code = code();
    registry().declare(&Blueprint { environment, scope: &scope, policies: &policies, code: &code, draining })
}

/// A change that reaches only one of the two engines leaves whoever uses the other with another backup.
#[test]
fn a_template_asks_for_just_what_the_direct_engine_makes() {
    for (name, environment) in environments() {
        for draining in draining() {
            let template = template(&environment, &code(), draining).unwrap();
            let asked = Stack::of(&template, &Scope::of(&environment)).read_back();
            let desired = desired(&environment, draining);
            assert_eq!(asked.keys().collect::<Vec<_>>(), desired.keys().collect::<Vec<_>>(), "{name}");
            for (resource, wanted) in &desired {
                assert_eq!(compare(wanted, &asked[resource]), [], "{name}: {resource}");
            }
        }
    }
}

/// CloudFormation makes everything at once that does not say what it needs: a schedule without its role's policy.
#[test]
fn a_template_makes_things_in_the_order_of_the_direct_engine() {
    for (name, environment) in environments() {
        let scope = Scope::of(&environment);
        let template = template(&environment, &code(), None).unwrap();
        let stack = Stack::of(&template, &scope);
        let desired = desired(&environment, None);
        for resource in desired.keys() {
            for need in registry().needs(resource, &scope) {
                assert!(stack.depends(resource, &need), "{name}: {resource} does not wait for {need}");
            }
        }
    }
}

/// Roles and grants that name one account let nobody in, in another. What a user wrote is the user's.
#[test]
fn a_template_names_no_account_and_no_region_but_the_stacks() {
    for (name, mut environment) in environments() {
        // These are ARNs of the user's own.
        environment.iam.permissions_boundary = None;
        environment.notify.kms_key = None;
        if environment.encryption.made().is_none() {
            environment.encryption = snapwarden_deployer::environment::Encryption::default();
        }
        for target in &mut environment.copy_to {
            target.kms_key = "alias/backup".to_owned().try_into().unwrap();
            if target.role.is_some() {
                target.region = "eu-north-1".to_owned().try_into().unwrap();
            }
        }
        environment.tags.clear();
        let text = template(&environment, &code(), None).unwrap().text(Format::Json);
        for fixed in
            [environment.account.as_str(), environment.region.as_str(), "000000000000", "zz-anywhere"]
        {
            assert!(!text.contains(fixed), "{name}: {fixed}");
        }
    }
}

/// CloudFormation deletes what leaves a template, and a stack that is deleted takes everything along.
#[test]
fn logs_that_are_to_be_kept_and_versions_that_may_be_running_outlive_the_stack() {
    for (name, environment) in environments() {
        let keeps = format!("{:?}", environment.logs) == "Keep";
        let template = serde_json::to_value(template(&environment, &code(), None).unwrap()).unwrap();
        for (id, resource) in template["Resources"].as_object().unwrap() {
            let policy = resource["DeletionPolicy"].as_str();
            let wanted = match resource["Type"].as_str().unwrap() {
                "AWS::Logs::LogGroup" if keeps => Some("RetainExceptOnCreate"),
                "AWS::Logs::LogGroup" | "AWS::SQS::Queue" => Some("Delete"),
                // Without the key, nobody could read a backup again.
                "AWS::Lambda::Version" | "AWS::KMS::Key" => Some("RetainExceptOnCreate"),
                _ => None,
            };
            assert_eq!(policy, wanted, "{name}: {id}");
        }
    }
}

/// An alias that goes on serving the old code is a release that was reported and never happened. A version that is made
/// anew without need is refused by Lambda: it publishes nothing twice.
#[test]
fn whatever_a_version_freezes_makes_another_version_and_nothing_else_does() {
    let environment = |from: &str, to: &str| {
        let text = fs::read_to_string(checkout().join("environments/prod.yaml")).unwrap();
        assert!(text.contains(from), "{from}");
        parse(Path::new("prod.yaml"), &text.replacen(from, to, 1)).unwrap()
    };
    let versions = |environment: &Environment, code: &BTreeMap<Function, String>| {
        let template = template(environment, code, None).unwrap();
        let versions = template.resources.into_keys().filter(|id| id.contains("Version"));
        versions.collect::<Vec<_>>()
    };
    let before = versions(&environment("prod", "prod"), &code());
    for (from, to) in [("memory_mb: 256", "memory_mb: 512"), ("daily_days: 7", "daily_days: 8")] {
        let after = versions(&environment(from, to), &code());
        assert_ne!(after[0], before[0], "{to}");
    }
    let mut other = code();
    other.insert(Function::Backup, code()[&Function::Cleanup].clone());
    let after = versions(&environment("prod", "prod"), &other);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    for (from, to) in [("log_retention_days: 90", "log_retention_days: 30"), ("stage: prod", "stage: other")]
    {
        assert_eq!(versions(&environment(from, to), &code()), before, "{to}");
    }
}

/// What reviewers of a stack see first, and what must not change unseen.
#[test]
fn templates_as_people_read_them() {
    for (name, environment) in environments() {
        if ["prod", "fullest-1"].contains(&name.as_str()) {
            let text = template(&environment, &code(), None).unwrap().text(Format::Yaml);
            insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(format!("template-{name}"), text);
            });
        }
    }
}

/// A template that CloudFormation refuses is found out in the middle of somebody's change window. All rules of cfn-lint
/// count, those that only inform as well; none is switched off.
#[test]
fn cfn_lint_has_nothing_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let mut regions: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (name, environment) in environments() {
        for draining in draining().into_iter().filter(|draining| draining.is_none() || name == "prod") {
            let template = template(&environment, &code(), draining).unwrap();
            let [yaml, _] = written(folder.path(), &format!("{name}-{}", draining.is_some()), &template);
            regions.entry(environment.region.to_string()).or_default().push(yaml);
        }
    }
    for (region, files) in regions {
        let mut lint = Command::new(cfn_lint());
        lint.args(["--include-checks", "I", "--regions", &region, "--template"]).args(&files);
        let output = lint.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{region}: {said}");
    }
}

/// A StackSet gives one template to all of them: what it says of one account or Region is wrong in every other.
#[test]
fn a_fleets_template_holds_in_every_account_and_region() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut environment) = environments().into_iter().find(|(name, _)| name == "fullest-1").unwrap();
    environment.notify.kms_key = None;
    environment.tags.clear();
    let template = fleet_template(&environment, &code()).unwrap();
    let text = template.text(Format::Json);
    for fixed in [environment.account.as_str(), environment.region.as_str()] {
        assert!(!text.contains(fixed), "{fixed}");
    }
    assert!(text.contains("arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/backup-boundary"), "{text}");
    let bucket = &value(&template)["Resources"]["BackupFunction"]["Properties"]["Code"]["S3Bucket"];
    assert_eq!(*bucket, json!({ "Fn::Sub": "${ArtifactBucket}-${AWS::Region}" }));
    let [yaml, _] = written(folder.path(), "fleet", &template);
    let mut lint = Command::new(cfn_lint());
    lint.args(["--include-checks", "I", "--regions", "eu-central-1", "us-east-1", "--template"]).arg(yaml);
    let output = lint.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// In YAML `on` may be a truth value and `012` a number. Read as CloudFormation reads it, with YAML 1.1.
#[test]
fn a_template_means_the_same_in_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let read = "import json, sys\nfrom cfnlint.decode import cfn_yaml\n\
                for yaml, text in zip(sys.argv[1::2], sys.argv[2::2]):\n  \
                assert cfn_yaml.load(yaml) == json.load(open(text)), yaml";
    let mut python = Command::new(cfn_lint().with_file_name("python"));
    python.args(["-c", read]);
    for (name, environment) in environments() {
        python.args(written(folder.path(), &name, &template(&environment, &code(), None).unwrap()));
    }
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Nothing can be made of a template that does not say what it is to be given.
#[test]
fn only_the_bucket_has_to_be_said() {
    for (_, environment) in environments() {
        let template = template(&environment, &code(), None).unwrap();
        let open = template.parameters.iter().filter(|(_, parameter)| parameter.default.is_none());
        assert_eq!(open.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [ARTIFACT_BUCKET]);
    }
}

/// The template in both formats, YAML first.
fn written(folder: &Path, name: &str, template: &Template) -> [PathBuf; 2] {
    [(Format::Yaml, "yaml"), (Format::Json, "json")].map(|(format, extension)| {
        let path = folder.join(format!("{name}.{extension}"));
        fs::write(&path, template.text(format)).unwrap();
        path
    })
}

fn cfn_lint() -> PathBuf {
    let program = std::env::var_os("SNAPWARDEN_CFN_LINT").map(PathBuf::from);
    program.expect("run these tests with `cargo xtask test`, which prepares what they need")
}

/// A template as a program reads it.
fn value(template: &Template) -> Value {
    serde_json::from_str(&template.text(Format::Json)).unwrap()
}

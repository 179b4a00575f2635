//! The pipelines as users copy them: the shell of every step is run, one job after the other, on environments that live
//! on the emulators. What GitHub and AWS do in between is stood in for by files and small programs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use snapwarden_tests::{Local, bundle, checkout};

/// A runner of GitHub's: a folder with the programs that steps call.
struct Runner {
    local: Local,
    /// What expressions stand for.
    values: BTreeMap<&'static str, String>,
}

/// `cargo xtask` is the program under test. What compiles or tests is done by whoever runs this test.
const CARGO: &str = r#"#!/bin/sh
[ "$1" = xtask ] || exit 99
shift
case "$1 $2" in
    "bundle pack") exec "$XTASK" "$@" --bundle "$BUNDLE" ;;
    *) exec "$XTASK" "$@" ;;
esac
"#;

/// Writes down what it is asked for.
const RECORDER: &str = "#!/bin/sh\necho \"$(basename \"$0\") $*\" >> \"$RUNNER/calls\"\n";

impl Runner {
    fn new() -> Self {
        let local = Local::new();
        for name in ["dev", "staging", "prod"] {
            let file = fs::read_to_string(checkout().join(format!("environments/{name}.yaml"))).unwrap();
            let file =
                file.replace(&format!("environment: {name}"), &format!("environment: {name}\ncloud: local"));
            let file =
                file.replace("000000000000", "123456789012").replace("soak_minutes: 1440", "soak_minutes: 0");
            local.write_environment(name, &file);
        }
        let programs = local.path("bin");
        fs::create_dir(&programs).unwrap();
        for (name, text) in [("cargo", CARGO), ("gh", RECORDER), ("aws", RECORDER)] {
            let path = programs.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let values = [
            ("github.token", "token"),
            ("github.repository", "acme/backups"),
            ("github.event.pull_request.number", "7"),
            ("steps.source.outputs.aws-access-key-id", "id"),
            ("steps.source.outputs.aws-secret-access-key", "secret"),
            ("steps.source.outputs.aws-session-token", "session"),
        ];
        Self { local, values: values.map(|(name, value)| (name, value.to_owned())).into() }
    }

    /// Runs every step of a workflow that has a shell, in order; all jobs in one folder, as if each artifact had been
    /// carried over.
    fn run(&mut self, file: &str) {
        let workflow = workflow(file);
        let jobs = workflow["jobs"].as_object().unwrap();
        // `needs` is in the order of the file.
        for job in in_order(jobs) {
            for step in jobs[&job]["steps"].as_array().unwrap() {
                if let Some(shell) = step["run"].as_str() {
                    self.step(file, &job, step, shell, [&workflow["env"], &jobs[&job]["env"], &step["env"]]);
                }
            }
        }
    }

    fn step(&mut self, file: &str, job: &str, step: &Value, shell: &str, variables: [&Value; 3]) {
        let output = self.local.path("output");
        fs::write(&output, "").unwrap();
        let path =
            format!("{}:{}", self.local.path("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        // As GitHub runs it.
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", shell]);
        let like = self.local.command(&[]);
        command.current_dir(self.local.path("")).env("PATH", path);
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("XTASK", like.get_program()).env("BUNDLE", bundle());
        command.env("RUNNER", self.local.path("")).env("GITHUB_OUTPUT", &output);
        for (name, value) in variables.iter().filter_map(|all| all.as_object()).flatten() {
            command.env(name, self.evaluate(value.as_str().unwrap()));
        }
        let ran = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            ran.status.success(),
            "{file}, job {job}, step {}: {}\n{}\n{}",
            step["name"],
            ran.status,
            text(&ran.stdout),
            text(&ran.stderr)
        );
        for line in fs::read_to_string(&output).unwrap().lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert_eq!((job, name), ("build", "digest"), "the one output that another job needs");
            self.values.insert("needs.build.outputs.digest", value.to_owned());
        }
    }

    /// What a value stands for that is an expression, or has none.
    fn evaluate(&self, value: &str) -> String {
        let Some(expression) = value.strip_prefix("${{ ").and_then(|rest| rest.strip_suffix(" }}")) else {
            assert!(!value.contains("${{"), "an expression is a whole value: {value}");
            return value.to_owned();
        };
        let known = self.values.get(expression);
        known.unwrap_or_else(|| panic!("`{expression}` has no value in this test")).clone()
    }
}

fn workflow(file: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    checkout().join(".github/workflows")
}

/// Every workflow's file.
fn files() -> Vec<String> {
    let files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yml"))
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    files
}

/// The jobs, each after those that it needs.
fn in_order(jobs: &serde_json::Map<String, Value>) -> Vec<String> {
    let mut names: Vec<String> = jobs.keys().cloned().collect();
    names.sort_by_key(|name| jobs[name]["needs"].is_string());
    names
}

/// A pipeline that fails at its first real merge is worse than none.
#[test]
fn every_step_runs_from_the_pull_request_to_prod() {
    let mut runner = Runner::new();
    runner.local.ok(&["local", "up"]);
    runner.run("plan.yml");
    let comment = fs::read_to_string(runner.local.path("comment.md")).unwrap();
    assert!(
        comment.starts_with("### What this changes in `dev`")
            && comment.contains("+ function snapwarden-dev-backup")
    );
    let calls = fs::read_to_string(runner.local.path("calls")).unwrap();
    assert!(calls.contains("gh pr comment 7 --repo acme/backups --body-file comment.md"), "{calls}");

    runner.run("deploy.yml");
    for (from, to) in [("dev", "staging"), ("staging", "prod")] {
        runner.values.insert("inputs.to", to.to_owned());
        runner.values.insert("inputs.to == 'prod' && 'staging' || 'dev'", from.to_owned());
        runner.run("promote.yml");
    }
    let live = |environment: &str| {
        let releases = runner.local.json(&["releases", "--env", environment]);
        releases["releases"][0]["functions"]["backup"]["code_sha256"].clone()
    };
    assert!(live("dev").is_string());
    assert_eq!((live("dev"), live("dev")), (live("staging"), live("prod")), "the same bytes all the way");
}

/// GitHub tells of a misspelt key or an expression of another context only once somebody has pushed it.
#[test]
fn actionlint_has_nothing_to_say() {
    let program = std::env::var_os("SNAPWARDEN_ACTIONLINT");
    let program = program.expect("run these tests with `cargo xtask test`, which prepares what they need");
    let lint = |workflow: &Path| {
        // Which of these a machine happens to have must not decide what passes.
        let ran = Command::new(&program).args(["-shellcheck=", "-pyflakes="]).arg(workflow).output().unwrap();
        (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    for file in files() {
        assert_eq!(lint(&folder().join(&file)), (true, String::new()), "{file}");
    }
    let misspelt = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let text = fs::read_to_string(folder().join("plan.yml")).unwrap();
    fs::write(misspelt.path(), text.replace("runs-on:", "run-on:")).unwrap();
    let (passed, findings) = lint(misspelt.path());
    assert!(!passed && findings.contains("run-on"), "{findings}");
}

/// Nobody runs these here, but what is no YAML runs nowhere.
#[test]
fn the_pipeline_for_gitlab_is_yaml_with_the_same_commands() {
    let document = fs::read_to_string(checkout().join("docs/pipelines.md")).unwrap();
    let block = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let pipeline: Value = serde_yaml::from_str(block).unwrap();
    for stage in pipeline["stages"].as_array().unwrap() {
        let jobs = pipeline.as_object().unwrap().values();
        assert!(jobs.filter(|job| job["stage"] == *stage).count() > 0, "no job in {stage}");
    }
    let promotion = pipeline[".promote"]["script"].to_string();
    assert!(promotion.contains("cargo xtask promote --from \\\"$FROM\\\" --to \\\"$TO\\\""), "{promotion}");
}

/// A pull request's title, put into a shell, runs as the pipeline; a tag of an action can be moved to anything.
#[test]
fn no_expression_reaches_a_shell_and_every_action_is_pinned() {
    for file in files() {
        let workflow = workflow(&file);
        assert_eq!(
            workflow["permissions"],
            serde_json::json!({ "contents": "read" }),
            "{file}: least by default"
        );
        for (name, job) in workflow["jobs"].as_object().unwrap() {
            assert!(job["timeout-minutes"].is_u64(), "{file}: {name} could hang for six hours");
            for step in job["steps"].as_array().unwrap() {
                if let Some(shell) = step["run"].as_str() {
                    assert!(!shell.contains("${{"), "{file}: pass it through env: {shell}");
                }
                if let Some(action) = step["uses"].as_str() {
                    let (_, pin) = action.split_once('@').unwrap();
                    let is_commit = pin.len() == 40 && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
                    assert!(is_commit, "{file}: {action} is not pinned to a commit");
                }
                let text = step.to_string().to_lowercase();
                let secrets = ["secrets.aws", "akia", "aws_secret_access_key:"];
                assert!(
                    secrets.iter().all(|secret| !text.contains(secret)),
                    "{file}: a long-lived key: {text}"
                );
            }
        }
    }
}

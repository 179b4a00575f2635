//! Wrong input: a clear message, the documented exit code, and nothing changed.

#![allow(clippy::unwrap_used, reason = "what a test cannot read fails it")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use snapwarden_deployer::environment::parse;
use snapwarden_tests::{Local, bundle, checkout, copy_bundle};

/// Whoever mistypes a key must find it by its line, not by a night without backups.
#[test]
fn every_invalid_environment_file_says_where_and_what() {
    let folder = checkout().join("tests/configs/invalid");
    let errors = files(&folder).into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        parse(Path::new(&name), &text).map(|_| ()).expect_err(&name).to_string()
    });
    let report = errors.collect::<Vec<_>>().join("\n");
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("invalid-environments", report);
    });
}

#[test]
fn every_environment_file_of_the_checkout_is_valid() {
    for folder in ["environments", "tests/configs/valid"] {
        for path in files(&checkout().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            parse(&path, &text).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension() == Some("yaml".as_ref())).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

#[test]
fn an_unknown_environment_lists_those_there_are() {
    let local = Local::new();
    let ran = local.run(&["deploy", "--env", "prud"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(
        ran.stderr.contains("there is no environment `prud`") && ran.stderr.contains("there are: local"),
        "{ran:?}"
    );
    // A name is a name, not a path.
    let path = local.run(&["status", "--env", "../environments/local"]);
    assert_eq!((path.code, path.stderr.contains("is not an environment name")), (2, true), "{path:?}");
}

#[test]
fn an_invalid_environment_file_starts_nothing() {
    let local = Local::with("cron(0 2 * * ? *)", "cron(0 2 * * *)");
    let ran = local.run(&["deploy", "--bundle", &bundle()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains("local.yaml:10:") && ran.stderr.contains("6 fields"), "{ran:?}");
    assert!(!local.path("local").exists(), "nothing was started");
}

/// A schedule that never fires deploys as well as any other, and nobody misses it until a restore.
#[test]
fn a_schedule_that_never_fires_is_refused() {
    let local = Local::with("cron(0 2 * * ? *)", "cron(0 2 31 2 ? *)");
    for command in ["plan", "deploy"] {
        let ran = local.run(&[command, "--bundle", &bundle()]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(
            ran.stderr.contains("backup.schedule.expression") && ran.stderr.contains("never fires"),
            "{ran:?}"
        );
    }
}

/// What is hardly meant is said before it costs a night, on stderr and with its place, but stops nobody.
#[test]
fn what_is_hardly_meant_is_warned_about() {
    let local = Local::with("cron(0 3 * * ? *)", "cron(20 2 * * ? *)");
    let said = "local.yaml:13:27: cleanup.schedule.expression: on ";
    let bundle = bundle();
    for command in [&["plan", "--bundle", &bundle][..], &["deploy", "--bundle", &bundle], &["status"]] {
        let ran = local.run(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains("at 02:30 or later"), "{ran:?}");
        assert!(!ran.stdout.contains(said), "{ran:?}");
    }
    let status = local.json(&["status"]);
    assert_eq!(status["warnings"][0]["key"], "cleanup.schedule.expression", "{status}");
}

#[test]
fn wrong_flags_end_with_2() {
    let local = Local::new();
    for arguments in
        [&["deploy", "--nonsense"][..], &["invoke", "restore"], &["local", "night", "--nights", "0"], &[]]
    {
        assert_eq!(local.run(arguments).code, 2, "{arguments:?}");
    }
}

/// Code that was damaged on its way through a pipeline must not become tonight's backup.
#[test]
fn a_damaged_bundle_is_refused_before_anything_is_changed() {
    let local = Local::new();
    let copy = local.path("bundle");
    copy_bundle(&copy);
    let zip = copy.join("backup.zip");
    let mut bytes = fs::read(&zip).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&zip, bytes).unwrap();
    let ran = local.run(&["deploy", "--bundle", &copy.display().to_string()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("backup.zip") && ran.stderr.contains("cargo xtask build"), "{ran:?}");
    let missing = local.run(&["deploy", "--bundle", "nowhere"]);
    assert!(missing.code == 2 && missing.stderr.contains("nowhere"), "{missing:?}");
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_running() {
    let local = Local::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--port-ec2"] {
        let ran = local.run(&["local", "up", flag, &port]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(&port) && ran.stderr.contains("in use"), "{ran:?}");
        assert_eq!(local.json(&["local", "status"])["running"], false);
    }
}

/// The first thing that goes wrong on a bare machine must say what to install.
#[test]
fn without_python_it_says_what_to_install() {
    let local = Local::new();
    let mut command = local.command(&["local", "up"]);
    command.env("PATH", local.path("empty")).env("CARGO_TARGET_DIR", local.path("target"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("python3") && stderr.contains("hint:"), "{stderr}");
}

/// Another account's resources with the same names are not ours to touch.
#[test]
fn credentials_of_another_account_are_refused() {
    let local = Local::new();
    local.ok(&["local", "up"]);
    local.edit("123456789012", "210987654321");
    let ran = local.run(&["deploy", "--bundle", &bundle()]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("210987654321") && ran.stderr.contains("123456789012"), "{ran:?}");
}

/// Whoever forgot the account, or to sign in, must not learn it only after minutes of compiling.
#[test]
fn what_is_wrong_with_the_account_shows_before_the_code_is_looked_at() {
    let local = Local::new();
    let file = fs::read_to_string(checkout().join("environments/prod.yaml")).unwrap();
    local.write_environment("prod", &file);
    let ran = local.run(&["deploy", "--env", "prod", "--bundle", "nowhere"]);
    assert!(ran.code == 2 && ran.stderr.contains("placeholder"), "{ran:?}");
}

/// Piping results into other programs works only when nothing else is on stdout.
#[test]
fn without_a_deploy_invoke_and_night_say_what_to_do() {
    let local = Local::new();
    for arguments in [&["invoke", "backup"][..], &["local", "night"]] {
        let ran = local.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(ran.stderr.contains("cargo xtask deploy"), "{ran:?}");
    }
}

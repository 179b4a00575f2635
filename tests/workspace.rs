//! What the workspace promises its own developers.

#![allow(clippy::expect_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeMap;
use std::process::Command;

use snapwarden_tests::checkout;

/// Packages with the features that Cargo chooses for them.
fn features(arguments: &[&str]) -> BTreeMap<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(checkout())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{f}"])
        .args(arguments)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).replace(" (*)", "");
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    lines.map(|(package, features)| (package.to_owned(), features.to_owned())).collect()
}

/// Where they differ, `cargo xtask test` compiles the SDK crates a second time, which takes minutes. The end of
/// `xtask/Cargo.toml` keeps them equal.
#[test]
fn the_program_and_the_tests_share_one_build() {
    let tests = features(&["--workspace", "--edges", "normal,build,dev"]);
    for (package, chosen) in features(&["--package", "xtask", "--edges", "normal,build"]) {
        assert_eq!(tests.get(&package), Some(&chosen), "{package}");
    }
}

/// A licence that asks something of whoever deploys, or a crate from somewhere else, comes in unseen with an update.
#[test]
fn dependencies_are_what_deny_toml_allows() {
    let program = std::env::var_os("SNAPWARDEN_CARGO_DENY");
    let program = program.expect("run these tests with `cargo xtask test`, which prepares what they need");
    let checks = ["--locked", "--all-features", "check", "licenses", "bans", "sources"];
    let output =
        Command::new(program).current_dir(checkout()).args(checks).output().expect("cargo-deny starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! The functions as programs of this machine: what qemu takes for an arm64 program means nothing.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::{Outcome, Row, Scope};
use crate::bundle;
use crate::failure::{Exit, Failure};
use crate::tools::command::run_logged;

/// How the programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// As for Lambda, which takes minutes.
    Lambda,
    /// As for tests, which is there already. Waiting for EC2 takes it just as long.
    Dev,
}

/// Compiles both functions, and the least that a function can be, for this machine; answers the folder.
pub(super) fn programs(scope: Scope<'_>, profile: Profile) -> Result<PathBuf, Failure> {
    let workspace = scope.context.workspace();
    let task = scope.context.progress().start("compiling the functions for this machine");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace.root()).args(["build", "--locked"]);
    let folder = match profile {
        Profile::Lambda => {
            // As `bundle/cargo.rs` does it for Lambda, and for the same reasons.
            let folder = workspace.target().join("bench");
            for package in ["snapwarden-backup", "snapwarden-cleanup", "snapwarden-hello"] {
                cargo.args(["--package", package]);
            }
            cargo.args(["--profile", "lambda", "--target-dir"]).arg(&folder);
            cargo.args(["--config", "profile.lambda.package.aws-sdk-ec2.hint-mostly-unused=true"]);
            cargo.arg("-Zprofile-hint-mostly-unused").env("RUSTC_BOOTSTRAP", "1");
            folder.join("lambda")
        }
        Profile::Dev => {
            // All of it, so that Cargo chooses the features that it chose for the tests.
            cargo.args(["--workspace", "--bin", "snapwarden-backup", "--bin", "snapwarden-cleanup"]);
            workspace.target().join("debug")
        }
    };
    let log = workspace.tools().join("logs/bench-cargo.log");
    run_logged(&mut cargo, &log)
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot compile the functions"))?;
    task.done("");
    Ok(folder)
}

/// How long it takes to build the bundle: again without a change, and after one.
pub(super) fn build(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let (workspace, progress) = (scope.context.workspace(), scope.context.progress());
    let timed = || -> Result<f64, Failure> {
        let started = Instant::now();
        bundle::ensure_bundle(workspace, progress)?;
        Ok(started.elapsed().as_secs_f64())
    };
    // Whatever was to be done before.
    let built = bundle::ensure_bundle(workspace, progress)?;
    let mut rows = vec![Row::new("nothing changed").with("wall", timed()?, "s")];
    for (what, file) in [
        ("the backup function changed", "functions/backup/src/main.rs"),
        ("the runtime of both changed", "functions/runtime/src/lib.rs"),
    ] {
        let path = workspace.root().join(file);
        let now = std::time::SystemTime::now();
        let touched =
            std::fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(now));
        touched.map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot touch a file"))?;
        rows.push(Row::new(what).with("wall", timed()?, "s"));
    }
    let started = Instant::now();
    bundle::verify(workspace, progress, &built)?;
    let row = Row::new("from nothing, in another folder, to the same bytes");
    rows.push(row.with("wall", started.elapsed().as_secs_f64(), "s"));
    Ok(Outcome {
        name: "build",
        about: "The arm64 bundle. After a change what was compiled before is there, and linking with fat LTO dominates; \
                from nothing it is the crates of the AWS SDK.",
        rows,
    })
}

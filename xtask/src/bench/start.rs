//! Cold starts, and sizes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::fleet::write;
use super::lambda::cold_start;
use super::native::{self, Profile};
use super::{Outcome, Row, Scope, number};
use crate::failure::{Exit, Failure};
use crate::tools::venv;

/// How often each is started; the middle one counts.
const STARTS: usize = 21;

/// Starts our functions, the least that a Rust function can be, and a Python function that has boto3's EC2 client.
pub(super) fn run(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let (workspace, progress) = (scope.context.workspace(), scope.context.progress());
    let programs = native::programs(scope, Profile::Lambda)?;
    let peers = venv::ensure(workspace, &venv::PEERS, progress)?;
    let script = peers.folder().join("handler.py");
    write(&script, include_str!("peers/handler.py"))?;
    let program = |name: &str| {
        let mut command = Command::new(programs.join(name));
        command.env_clear();
        command
    };
    let python = || {
        let mut command = Command::new(peers.program("python"));
        command.env_clear().arg("-I").arg(&script).arg("backup");
        command
    };
    let task = progress.start("starting each function many times");
    let hello = median(|| program("snapwarden-hello"))?;
    let boto3 = median(python)?;
    let mut rows = vec![row("hello world (lambda_runtime)", hello, hello, boto3)];
    for name in ["snapwarden-backup", "snapwarden-cleanup"] {
        rows.push(row(name, median(|| program(name))?, hello, boto3));
    }
    rows.push(row("Python with boto3's EC2 client", boto3, hello, boto3));
    task.done("");
    let folder = scope.bundle()?;
    for name in ["backup", "cleanup"] {
        let binary =
            workspace.target().join(format!("lambda/aarch64-unknown-linux-musl/lambda/snapwarden-{name}"));
        let zip = folder.join(format!("{name}.zip"));
        let row = Row::new(format!("{name} for arm64")).with("program", megabytes(&binary)?, "MB");
        rows.push(row.with("zip", megabytes(&zip)?, "MB"));
    }
    Ok(Outcome {
        name: "start",
        about: "From the start of the process to its first question for an event: programs of this machine, compiled \
                as for Lambda, the median of 21. On Lambda, fetching the zip and starting the sandbox come first.",
        rows,
    })
}

fn row(what: &str, start: f64, hello: f64, boto3: f64) -> Row {
    let row = Row::new(what).with("start", start, "ms");
    row.with("by hello world", start / hello, "×").with("by boto3", start / boto3, "×")
}

/// Milliseconds.
fn median(command: impl Fn() -> Command) -> Result<f64, Failure> {
    let command = || {
        let mut command = command();
        command.envs([
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("LANG", "C.UTF-8"),
        ]);
        command
    };
    let mut times: Vec<Duration> = (0..STARTS)
        .map(|_| cold_start(command()))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot start a function"))?;
    times.sort();
    Ok(times[STARTS / 2].as_secs_f64() * 1_000.0)
}

fn megabytes(file: &Path) -> Result<f64, Failure> {
    let data = std::fs::metadata(file).map_err(|error| {
        Failure::caused_by(Exit::Failed, &error).context(&format!("cannot look at {}", file.display()))
    })?;
    Ok(number(data.len() / 1_000) / 1_000.0)
}

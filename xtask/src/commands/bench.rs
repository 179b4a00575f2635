//! `cargo xtask bench`: measures, beside what others take for the same.

use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

use crate::bench::{Benchmark, Outcome, Scope};
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;

/// Flags of `bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// What to measure [default: everything]
    #[arg(value_name = "NAME")]
    names: Vec<Benchmark>,
    /// Smaller fleets and development builds: two minutes instead of an hour, and coarser figures
    #[arg(long)]
    short: bool,
    /// Take the bundle in this folder instead of building it
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

/// Measures, and prints a table for each benchmark as soon as it is done; with `--json`, all of them at the end.
pub(crate) fn cmd_bench(context: &Context, args: &BenchArgs) -> CommandResult {
    let scope = Scope { context, is_short: args.short, bundle: args.bundle.as_deref() };
    // Those that compile for minutes are not for a short run, unless somebody asks for them.
    let is_quick =
        |benchmark: &Benchmark| !args.short || !matches!(benchmark, Benchmark::Start | Benchmark::Build);
    let all: Vec<Benchmark> = if args.names.is_empty() {
        Benchmark::value_variants().iter().copied().filter(is_quick).collect()
    } else {
        args.names.clone()
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    for benchmark in all {
        let outcome = scope.run(benchmark)?;
        if !context.json() {
            output::result(context, &outcome, format!("{outcome}\n"))?;
        }
        outcomes.push(outcome);
    }
    if context.json() {
        output::result(context, &outcomes, "")?;
    }
    match outcomes.iter().find(|outcome| outcome.rows.is_empty()) {
        Some(outcome) => Err(Failure::new(Exit::Failed, format!("{} measured nothing", outcome.name))),
        None => Ok(()),
    }
}

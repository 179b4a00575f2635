//! Snapwarden's command line. Here is only the dispatch; each command has a file in `commands/`.

mod bench;
mod bundle;
mod commands;
mod context;
mod elsewhere;
mod exclusive;
mod failure;
mod local;
mod output;
mod page;
mod process;
mod progress;
mod render;
mod session;
mod tools;
mod workspace;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{
    adopt_snapshots, bench as bench_command, build, bundle as bundle_command, cleanup_diff, dead_letters,
    deploy, destroy, fleet, invoke, local as local_command, logs, plan, policies, promote, releases, report,
    restore, rollback, status, synth, test,
};
use context::{Context, GlobalArgs};
use failure::CommandResult;

/// EC2 backups that prove themselves.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cross-compile both functions for Lambda and zip them
    Build(build::BuildArgs),
    /// A bundle as one file, which pipelines carry from job to job
    Bundle(bundle_command::BundleArgs),
    /// Show what a deploy would change, and change nothing
    Plan(plan::PlanArgs),
    /// Make the environment what its file says
    Deploy(deploy::DeployArgs),
    /// List what was live: since when, by whom, from which commit, and what proved it
    Releases(releases::ReleasesArgs),
    /// Deploy to one environment exactly what another one has proven
    Promote(promote::PromoteArgs),
    /// Go back to a release that was live before, without a build
    Rollback(rollback::RollbackArgs),
    /// Delete everything that a deploy made; the snapshots stay, unless they are purged
    Destroy(destroy::DestroyArgs),
    /// Show what an environment holds, what differs from its file, and when it runs next
    Status(status::StatusArgs),
    /// Take over snapshots that another program made, so that they expire
    AdoptSnapshots(adopt_snapshots::AdoptSnapshotsArgs),
    /// List the snapshots that a changed cleanup policy would delete, and the deployed one would not
    CleanupDiff(cleanup_diff::CleanupDiffArgs),
    /// Run a deployed function now and show its report
    Invoke(invoke::InvokeArgs),
    /// Show what a function wrote into its log
    Logs(logs::LogsArgs),
    /// List the runs that were given up, and how to make up for them
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Write a page about the backups: coverage, ages, what expires, restore commands
    Report(report::ReportArgs),
    /// Make new volumes of an instance's snapshots, or practise it
    Restore(restore::RestoreArgs),
    /// What the roles may do, and what whoever deploys has to be allowed
    Policies(policies::PoliciesArgs),
    /// The same environment in many accounts and Regions: a CloudFormation StackSet
    Fleet(fleet::FleetArgs),
    /// Write the environment as a CloudFormation template
    Synth(synth::SynthArgs),
    /// The local AWS environment: emulators on this machine
    Local(local_command::LocalArgs),
    /// Measure what runs and deploys take, beside what others take for the same
    Bench(bench_command::BenchArgs),
    /// Run every test, with all the set-up that they need
    Test(test::TestArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(&cli.global);
    match dispatch(&context, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_said() {
                // Nothing is left to be done when stderr itself is gone.
                drop(writeln!(anstream::stderr(), "{}", render::failure::text(&failure, context.json())));
            }
            ExitCode::from(failure.exit() as u8)
        }
    }
}

fn dispatch(context: &Context, command: Command) -> CommandResult {
    match command {
        Command::Build(args) => build::cmd_build(context, &args),
        Command::Bundle(args) => bundle_command::cmd_bundle(context, &args),
        Command::Plan(args) => plan::cmd_plan(context, &args),
        Command::Deploy(args) => deploy::cmd_deploy(context, &args),
        Command::Releases(args) => releases::cmd_releases(context, &args),
        Command::Promote(args) => promote::cmd_promote(context, &args),
        Command::Rollback(args) => rollback::cmd_rollback(context, &args),
        Command::Destroy(args) => destroy::cmd_destroy(context, &args),
        Command::Status(args) => status::cmd_status(context, &args),
        Command::AdoptSnapshots(args) => adopt_snapshots::cmd_adopt_snapshots(context, &args),
        Command::CleanupDiff(args) => cleanup_diff::cmd_cleanup_diff(context, &args),
        Command::Invoke(args) => invoke::cmd_invoke(context, &args),
        Command::Logs(args) => logs::cmd_logs(context, &args),
        Command::DeadLetters(args) => dead_letters::cmd_dead_letters(context, &args),
        Command::Report(args) => report::cmd_report(context, &args),
        Command::Restore(args) => restore::cmd_restore(context, &args),
        Command::Policies(args) => policies::cmd_policies(context, &args),
        Command::Fleet(args) => fleet::cmd_fleet(context, &args),
        Command::Synth(args) => synth::cmd_synth(context, &args),
        Command::Local(args) => local_command::cmd_local(context, args),
        Command::Bench(args) => bench_command::cmd_bench(context, &args),
        Command::Test(args) => test::cmd_test(context, &args),
    }
}

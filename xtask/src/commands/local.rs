//! `cargo xtask local`: the local AWS environment.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use snapwarden_deployer::environment::{Cloud, Environment, Identity};

use super::night::{self, NightArgs, cmd_night};
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::local::faults::{self, FaultProxyArgs};
use crate::local::{LocalCloud, Ports, seed};
use crate::output;
use crate::session::{self, Session};

/// Flags of `local`.
#[derive(Args, Debug)]
pub(crate) struct LocalArgs {
    #[command(subcommand)]
    command: LocalCommand,
}

#[derive(Debug, Subcommand)]
enum LocalCommand {
    /// Start the emulators, unless they run already
    Up(UpArgs),
    /// Stop the emulators; what they hold is kept for the next `up`
    Down,
    /// Remove everything that the emulators hold
    Reset,
    /// Show whether the emulators run, and how to reach them
    Status,
    /// Make instances to try the backups on, unless they are there already
    Seed,
    /// Fire the deployed schedules night by night on a simulated clock
    Night(NightArgs),
    /// Show how many calls of each action there were, and how many of them were disturbed
    Faults,
    /// The proxy itself, which `up --faults` starts
    #[command(hide = true)]
    FaultProxy(FaultProxyArgs),
}

/// Flags of `local up`.
#[derive(Args, Debug)]
struct UpArgs {
    /// Port of every service but EC2 [default: the last one, or any that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port of EC2 [default: the last one, or any that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port_ec2: Option<u16>,
    /// Disturb calls as this file says; again with another file, while it runs, to change it (docs/faults.md)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// Starts, stops, empties, shows or fills the local environment.
pub(crate) fn cmd_local(context: &Context, args: LocalArgs) -> CommandResult {
    // Whoever has started it has read the environment's file.
    if let LocalCommand::FaultProxy(args) = &args.command {
        return faults::serve(args);
    }
    let environment = local_environment(context)?;
    let cloud = session::local_cloud(context, &Identity::from(&environment));
    let progress = context.progress();
    match args.command {
        LocalCommand::Up(UpArgs { port, port_ec2, faults }) => {
            let ports = Ports { ministack: port, moto: port_ec2 };
            let scenario = faults.as_deref().map(faults::read).transpose()?;
            cloud.ensure_up(context.workspace(), progress, ports, scenario.as_deref())?;
            show(context, &cloud)
        }
        LocalCommand::Faults => {
            let counts = cloud.fault_counts()?;
            output::result(context, &counts, faults::text(&counts))
        }
        LocalCommand::FaultProxy(args) => faults::serve(&args),
        LocalCommand::Down => {
            let stopped = cloud.down(progress)?;
            let text = if stopped {
                "the local environment is stopped"
            } else {
                "the local environment was not running"
            };
            output::result(context, &cloud.status()?, text)
        }
        LocalCommand::Reset => {
            cloud.reset(progress)?;
            night::Clock::of(context).reset()?;
            output::result(context, &cloud.status()?, "the local environment is empty")
        }
        LocalCommand::Night(args) => cmd_night(context, &args),
        LocalCommand::Status => show(context, &cloud),
        LocalCommand::Seed => {
            let seeded = block_on(async {
                let session = Session::open(context).await?;
                Ok(seed::seed(&session.aws.ec2, &session.environment.backup.select).await?)
            })?;
            output::result(context, &seeded, &seeded)
        }
    }
}

/// The environment's file, if it is one of a local environment: there must be no way to fill or empty another one.
fn local_environment(context: &Context) -> Result<Environment, Failure> {
    let environment = context.environment()?;
    match environment.cloud {
        Cloud::Local => Ok(environment),
        Cloud::Aws => {
            let name = &environment.environment;
            Err(Failure::new(Exit::Usage, format!("environment `{name}` is on AWS, not on this machine"))
                .hint(
                    "leave --env (SNAPWARDEN_ENV) out, or name an environment whose file says `cloud: local`",
                ))
        }
    }
}

fn show(context: &Context, cloud: &LocalCloud) -> CommandResult {
    let status = cloud.status()?;
    output::result(context, &status, &status)
}

//! `cargo xtask restore`: new volumes of an instance's snapshots, for earnest or for practice. The original is never
//! touched.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use snapwarden_deployer::environment::{AccountId, CopyPlace, Region};
use snapwarden_deployer::restore::drill::{Drill, drill, record};
use snapwarden_deployer::restore::{self, Made, NothingToRestore, RestoreError, RestorePlan};

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    #[command(subcommand)]
    command: RestoreCommand,
}

#[derive(Debug, Subcommand)]
enum RestoreCommand {
    /// Show which snapshots would be restored, and change nothing
    Plan(WhatArgs),
    /// Make volumes of them, and show how to attach these; a second run finds what the first one made
    Run(RunArgs),
    /// Make volumes of the newest snapshots, check them, delete them again, and record the result as a metric
    Drill(DrillArgs),
}

#[derive(Args, Debug)]
struct WhatArgs {
    /// The instance whose volumes to restore, also one that is gone
    #[arg(long, value_name = "ID")]
    instance: String,
    /// The newest complete snapshot set at or before this time, such as 2026-11-24T02:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// The Availability Zone of the new volumes [default: that of the original ones]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Restore in this Region, from the copies that `copy_to` keeps there, also where the environment's own Region is lost
    #[arg(long, value_name = "REGION", requires = "zone", value_parser = region)]
    region: Option<Region>,
    /// Restore in this account, with credentials of it, from the copies that `copy_to` keeps there; with --region and --zone
    #[arg(long, value_name = "ACCOUNT", requires = "region", value_parser = account)]
    account: Option<AccountId>,
}

#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct DrillArgs {
    /// The instance [default: the one with the newest complete snapshot set]
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// The Availability Zone of the new volumes [default: that of the original ones]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Restore in this Region, from the copies that `copy_to` keeps there, also where the environment's own Region is lost
    #[arg(long, value_name = "REGION", requires = "zone", value_parser = region)]
    region: Option<Region>,
    /// Restore in this account, with credentials of it, from the copies that `copy_to` keeps there; with --region and --zone
    #[arg(long, value_name = "ACCOUNT", requires = "region", value_parser = account)]
    account: Option<AccountId>,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
}

fn region(text: &str) -> Result<Region, String> {
    text.to_owned().try_into()
}

fn account(text: &str) -> Result<AccountId, String> {
    text.to_owned().try_into().map_err(|_| format!("`{text}` is not an AWS account: write its 12 digits"))
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "use a time such as 2026-11-24T02:00:00Z".to_owned())
}

/// What a restore made.
#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    /// What was to be made.
    pub(crate) plan: RestorePlan,
    /// The volumes.
    pub(crate) volumes: Vec<Made>,
    /// What to type to put them in the place of the originals.
    pub(crate) commands: Vec<String>,
}

/// Plans, makes, or practises.
pub(crate) fn cmd_restore(context: &Context, args: &RestoreArgs) -> CommandResult {
    match &args.command {
        RestoreCommand::Plan(what) => {
            let plan = block_on(async {
                let (session, copies_in) = open(context, what.region.as_ref(), what.account.as_ref()).await?;
                let place = (what.zone.as_deref(), copies_in.as_ref());
                plan(&session, Some(&what.instance), what.at, place).await
            })?;
            output::result(context, &plan, render::restore::plan(&plan))
        }
        RestoreCommand::Run(args) => run(context, args),
        RestoreCommand::Drill(args) => practise(context, args),
    }
}

/// The environment, and where the copies are that are meant, unless its own snapshots are.
async fn open(
    context: &Context,
    region: Option<&Region>,
    account: Option<&AccountId>,
) -> Result<(Session, Option<CopyPlace>), Failure> {
    let session = match region {
        Some(region) => Session::open_running_in(context, region, account).await?.map(|(session, place)| {
            let is_at_home = place.role.is_none() && place.region == session.scope.region;
            (session, Some(place).filter(|_| !is_at_home))
        }),
        None => Session::open_running(context).await?.map(|session| (session, None)),
    };
    session.ok_or_else(|| {
        Failure::new(Exit::Failed, "the local environment is not running")
            .hint("start it with `cargo xtask local up`")
    })
}

async fn plan(
    session: &Session,
    instance: Option<&str>,
    at: Option<Timestamp>,
    (zone, copies_in): (Option<&str>, Option<&CopyPlace>),
) -> Result<RestorePlan, Failure> {
    let (snapshots, tags) = restore::snapshots(&session.aws, &session.scope, instance, copies_in).await?;
    let chosen = restore::choose(&snapshots, instance, at)?;
    // The originals are at home, where nothing may answer.
    let disks = match copies_in {
        Some(_) => BTreeMap::new(),
        None => restore::disks(&session.aws, &chosen).await?,
    };
    Ok(restore::plan(&chosen, &disks, &tags, zone, copies_in, &session.environment)?)
}

fn run(context: &Context, args: &RunArgs) -> CommandResult {
    let what = &args.what;
    let restored = block_on(async {
        let (session, copies_in) = open(context, what.region.as_ref(), what.account.as_ref()).await?;
        let place = (what.zone.as_deref(), copies_in.as_ref());
        let plan = plan(&session, Some(&what.instance), what.at, place).await?;
        say_yes(context, &plan, args.yes, "Make these volumes?")?;
        let task = context.progress().start(format!("making {} volumes", plan.volumes.len()));
        let volumes = restore::restore(&session.aws, &plan, &BTreeMap::new(), &|_| ()).await?;
        task.done("");
        let commands = render::restore::attach_commands(&plan, &volumes, session.scope.region.as_str());
        Ok(Restored { plan, volumes, commands })
    })?;
    output::result(context, &restored, render::restore::restored(&restored))
}

fn practise(context: &Context, args: &DrillArgs) -> CommandResult {
    let drill = block_on(async {
        let (session, copies_in) = open(context, args.region.as_ref(), args.account.as_ref()).await?;
        let place = (args.zone.as_deref(), copies_in.as_ref());
        let plan = plan(&session, args.instance.as_deref(), None, place).await?;
        say_yes(context, &plan, args.yes, "Make these volumes, and delete them again?")?;
        let task = context.progress().start(format!("restoring {} for practice", plan.instance));
        let drill = drill(&session.aws, plan, Timestamp::now(), &|_| ()).await;
        task.done(if succeeded(&drill) { "" } else { "FAILED" });
        record(&session.aws, &session.scope, &drill).await.map_err(|error| {
            Failure::from(error).context("the drill is over, but its result could not be recorded")
        })?;
        Ok(drill)
    })?;
    output::result(context, &drill, render::restore::drill(&drill))?;
    if succeeded(&drill) {
        return Ok(());
    }
    Err(Failure::said(Exit::Failed))
}

fn succeeded(drill: &Drill) -> bool {
    drill.problems.is_empty() && drill.left.is_empty()
}

/// Shows what is about to be made: it is billed.
fn say_yes(context: &Context, plan: &RestorePlan, yes: bool, question: &str) -> CommandResult {
    let preview = render::restore::plan(plan);
    if yes {
        context.progress().note(&preview);
        return Ok(());
    }
    output::confirm(context, &preview, question)
}

impl From<NothingToRestore> for Failure {
    fn from(error: NothingToRestore) -> Self {
        match &error {
            NothingToRestore::NoZone(_) => Self::caused_by(Exit::Usage, &error).hint("say it with --zone"),
            NothingToRestore::ForeignZone { region, .. } => {
                let hint = format!("write one such as {region}a");
                Self::caused_by(Exit::Usage, &error).hint(hint)
            }
            NothingToRestore::NoneSoEarly { .. } => Self::caused_by(Exit::Failed, &error).hint("take a later --at"),
            NothingToRestore::NoSnapshots(_) => Self::caused_by(Exit::Failed, &error)
                .hint("`cargo xtask report` lists what can be restored, by instance and volume"),
            NothingToRestore::NoCompleteSet { .. } => Self::caused_by(Exit::Failed, &error).hint(
                "`cargo xtask report` has a command for every single snapshot; the parts may not fit together",
            ),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Aws(error) => error.into(),
            RestoreError::NotAvailable { .. } => Self::caused_by(Exit::Failed, &error)
                .hint("run the command again: it goes on with what there is"),
            RestoreError::Failed { .. } => Self::caused_by(Exit::Failed, &error).hint(
                "mostly the key of an encrypted snapshot may not be used: see its key policy, and \
                 `cargo xtask policies restorer`; delete these volumes, then run the command again",
            ),
        }
    }
}

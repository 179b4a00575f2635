//! `cargo xtask fleet`: the same environment in many accounts and Regions, through a CloudFormation StackSet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::cloudformation::artifacts::{Artifacts, Readers, Source};
use snapwarden_deployer::cloudformation::fleet::{self, Failure as Failed, Found, Instance, Wanted};
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, fleet_template};
use snapwarden_deployer::environment::Fleet;
use snapwarden_deployer::kinds::Context as Cloudside;
use snapwarden_deployer::plan::Plan;
use snapwarden_domain::tags::ENVIRONMENT;

use crate::context::{Context, block_on};
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::render::table::table;
use crate::session::{CodeSource, Session, code_of};
use crate::{output, render};

/// Flags of `fleet`.
#[derive(Args, Debug)]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Show what a deploy would change, account by account, and change nothing
    Plan(PlanArgs),
    /// Bring the environment to every account and Region that its file names; goes on where an earlier one stopped
    Deploy(DeployArgs),
    /// Show every stack of the fleet, and why one is not current
    Status,
    /// Delete the environment's stacks in every account and Region; the snapshots stay
    Destroy(DestroyArgs),
}

#[derive(Args, Debug)]
struct PlanArgs {
    /// Deploy a bundle that was built before instead of building this checkout
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// End with exit code 3 when there are changes
    #[arg(long)]
    exit_code: bool,
}

#[derive(Args, Debug)]
struct DeployArgs {
    /// Deploy a bundle that was built before instead of building this checkout
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    /// Take the environment's lock from whoever holds it
    #[arg(long)]
    break_lock: bool,
}

#[derive(Args, Debug)]
struct DestroyArgs {
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    /// The environment's name, to destroy a protected one
    #[arg(long, value_name = "ENV")]
    confirm: Option<String>,
    /// Take the environment's lock from whoever holds it
    #[arg(long)]
    break_lock: bool,
}

/// Runs one of the commands.
pub(crate) fn cmd_fleet(context: &Context, args: &FleetArgs) -> CommandResult {
    block_on(async {
        match &args.command {
            FleetCommand::Plan(args) => plan(context, args).await,
            FleetCommand::Deploy(args) => deploy(context, args).await,
            FleetCommand::Status => status(context).await,
            FleetCommand::Destroy(args) => destroy(context, args).await,
        }
    })
}

/// What the fleet should be and what it is.
struct Stage {
    session: Session,
    bundle: Arc<Bundle>,
    wanted: Wanted,
    plan: Plan,
}

impl Stage {
    async fn set(context: &Context, bundle: Option<&PathBuf>) -> Result<Self, Failure> {
        // Before anything is built for it.
        fleet_of(context)?;
        let code = bundle.map_or(CodeSource::Build, |path| CodeSource::At(path));
        let (session, bundle) = Session::open_with_code(context, code).await?;
        let fleet = fleet_of(context)?;
        let template = fleet_template(&session.environment, &code_of(&bundle))?;
        let wanted = Wanted {
            fleet,
            body: template.body(),
            parameters: BTreeMap::from([(ARTIFACT_BUCKET.to_owned(), bucket_prefix(&session))]),
            tags: session.scope.tags(&session.environment),
        };
        let found = find(&session).await?;
        let plan = fleet::plan(&session.scope.stack(), Some(&wanted), found.as_ref());
        Ok(Self { session, bundle, wanted, plan })
    }

    /// Puts the code into the bucket of every Region, where the accounts of the fleet may read it.
    async fn upload(&self, context: &Context) -> Result<Source, Failure> {
        let readers = match &self.wanted.fleet.organization {
            Some(organization) => Readers::Organization(organization.to_string()),
            None => Readers::Accounts(self.wanted.fleet.accounts.iter().map(ToString::to_string).collect()),
        };
        for region in &self.wanted.fleet.regions {
            let cx = self.session.in_region(context, region).await?;
            let artifacts = self.artifacts(region.as_str());
            let task = context.progress().start(format!("uploading the code to {}", artifacts.bucket));
            artifacts.ensure(&cx).await?;
            if !artifacts.is_given {
                artifacts.share(&cx, &readers).await?;
            }
            let uploaded = artifacts.upload_code(&cx, &self.bundle).await?;
            task.done(if uploaded == 0 { "it is there already" } else { "" });
        }
        let own = self.artifacts(self.session.scope.region.as_str());
        Ok(own.source(&cloudside(context, &self.session), self.wanted.body.clone()).await?)
    }

    fn artifacts(&self, region: &str) -> Artifacts {
        Artifacts {
            bucket: format!("{}-{region}", bucket_prefix(&self.session)),
            is_given: self.session.environment.cloudformation.artifact_bucket.is_some(),
        }
    }
}

/// What the buckets of all Regions begin with.
fn bucket_prefix(session: &Session) -> String {
    let given = session.environment.cloudformation.artifact_bucket.as_ref().map(ToString::to_string);
    given.unwrap_or_else(|| format!("snapwarden-artifacts-{}", session.scope.account))
}

fn fleet_of(context: &Context) -> Result<Fleet, Failure> {
    context.environment()?.fleet.ok_or_else(|| {
        Failure::new(Exit::Usage, "the environment's file names no fleet")
            .hint("add `fleet: { accounts: [\"111122223333\"], regions: [eu-central-1] }`; docs/scale.md explains it")
    })
}

fn cloudside(context: &Context, session: &Session) -> Cloudside {
    session.cloudside(None, render_apply::listener(context.progress()))
}

/// The fleet that there is, if it is the environment's.
async fn find(session: &Session) -> Result<Option<Found>, Failure> {
    let found = fleet::find(&session.cloudside(None, Arc::new(|_| ()))).await?;
    let owner =
        found.as_ref().map(|found| found.properties["tags"][ENVIRONMENT].as_str().unwrap_or_default());
    if owner.is_some_and(|owner| owner != session.scope.environment.as_str()) {
        let message = format!("the stack set {} is not this environment's", session.scope.stack());
        return Err(
            Failure::new(Exit::Refused, message).hint("rename the environment, or delete that stack set")
        );
    }
    Ok(found)
}

async fn plan(context: &Context, args: &PlanArgs) -> CommandResult {
    let stage = Stage::set(context, args.bundle.as_ref()).await?;
    let value = json!({ "environment": stage.session.scope.environment, "plan": stage.plan });
    output::result(context, &value, render::plan::text(&stage.plan, context.verbose()))?;
    if args.exit_code && !stage.plan.is_empty() {
        return Err(Failure::said(Exit::ChangesPending));
    }
    Ok(())
}

async fn deploy(context: &Context, args: &DeployArgs) -> CommandResult {
    let stage = Stage::set(context, args.bundle.as_ref()).await?;
    stage.session.approve(context, &stage.plan, "Apply this to the fleet of", args.yes)?;
    if !stage.plan.is_empty() {
        exclusively(context, &stage.session, "fleet deploy", args.break_lock, async |guard| {
            let source = stage.upload(context).await?;
            let found = find(&stage.session).await?;
            let task = context.progress().start("going through the accounts");
            let cx = cloudside(context, &stage.session);
            let failures = fleet::deploy(&cx, &stage.wanted, &source, found.as_ref(), guard).await?;
            task.done("");
            all_or_failure(context, &failures, "fleet deploy")
        })
        .await?;
    }
    // What was not seen is not reported as done.
    let found = find(&stage.session).await?.unwrap_or_default();
    let left = fleet::plan(&stage.session.scope.stack(), Some(&stage.wanted), Some(&found));
    if !left.is_empty() {
        let message = format!(
            "all was done, but CloudFormation shows something else:\n{}",
            render::plan::text(&left, context.verbose())
        );
        return Err(Failure::new(Exit::Failed, message)
            .hint(format!("run it again: {}", context.command_line("fleet deploy"))));
    }
    show(context, &stage.session, &found)
}

async fn status(context: &Context) -> CommandResult {
    fleet_of(context)?;
    let session = Session::open(context).await?;
    let Some(found) = find(&session).await? else {
        return Err(Failure::new(Exit::Attention, "there is no fleet yet")
            .hint(format!("deploy it: {}", context.command_line("fleet deploy"))));
    };
    show(context, &session, &found)?;
    if found.instances.iter().any(is_poor) {
        return Err(Failure::said(Exit::Attention));
    }
    Ok(())
}

async fn destroy(context: &Context, args: &DestroyArgs) -> CommandResult {
    let fleet = fleet_of(context)?;
    let session = Session::open(context).await?;
    let name = session.scope.environment.as_str();
    if session.environment.protect && args.confirm.as_deref() != Some(name) {
        return Err(Failure::new(Exit::Refused, format!("environment {name} is protected"))
            .hint(format!("if you mean it: cargo xtask fleet destroy --env {name} --confirm {name}")));
    }
    let found = find(&session).await?;
    let plan = fleet::plan(&session.scope.stack(), None, found.as_ref());
    session.approve(context, &plan, "Delete the fleet of", args.yes)?;
    if let Some(found) = &found {
        exclusively(context, &session, "fleet destroy", args.break_lock, async |guard| {
            let task = context.progress().start("going through the accounts");
            let cx = cloudside(context, &session);
            let failures = fleet::destroy(&cx, found, &fleet, guard).await?;
            task.done("");
            all_or_failure(context, &failures, "fleet destroy")
        })
        .await?;
    }
    let stacks = found.map_or(0, |found| found.instances.len());
    let value = json!({ "environment": session.scope.environment, "deleted": stacks });
    output::result(context, &value, format!("fleet of {name}: {stacks} stacks deleted; the snapshots stay"))
}

/// One line for every place where it failed.
fn all_or_failure(context: &Context, failures: &[Failed], command: &str) -> CommandResult {
    if failures.is_empty() {
        return Ok(());
    }
    let lines = failures
        .iter()
        .map(|failed| format!("\n  {} in {}: {}", failed.account, failed.region, failed.reason));
    let message = format!("{} stacks failed:{}", failures.len(), lines.collect::<String>());
    Err(Failure::new(Exit::Failed, message).hint(format!(
        "mend what failed, then: {}: it goes on where this one stopped",
        context.command_line(command)
    )))
}

fn is_poor(instance: &Instance) -> bool {
    instance.status != "CURRENT"
}

fn show(context: &Context, session: &Session, found: &Found) -> CommandResult {
    let value = json!({ "environment": session.scope.environment, "instances": found.instances });
    let rows = found.instances.iter().map(|instance| {
        let Instance { account, region, unit, status, reason } = instance;
        let (unit, reason) = (unit.as_deref().unwrap_or_default(), reason.as_deref().unwrap_or_default());
        [account.as_str(), region.as_str(), unit, status.as_str(), reason].map(str::to_owned)
    });
    let text = table(["ACCOUNT", "REGION", "UNIT", "STATUS", "REASON"], rows);
    let poor = found.instances.iter().filter(|instance| is_poor(instance)).count();
    output::result(context, &value, format!("{text}\n{} stacks, {poor} not current", found.instances.len()))
}

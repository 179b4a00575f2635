//! `cargo xtask fleet`: the same environment in many accounts and Regions, through a CloudFormation StackSet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::cloudformation::artifacts::{Artifacts, Readers, Source};
use snapwarden_deployer::cloudformation::fleet::{self, Failure as Failed, Found, Instance, Wanted};
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, Template, fleet_template};
use snapwarden_deployer::environment::Fleet;
use snapwarden_deployer::kinds::Context as Cloudside;
use snapwarden_deployer::plan::{Plan, Step, Verb};
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
            parameters: parameters(&template, bucket_prefix(&session)),
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

    /// Refuses what nobody has said yes to: another deploy may have come in between, with accounts that this file does not
    /// name and that would lose their stacks.
    fn refuse_more(&self, context: &Context, found: Option<&Found>) -> CommandResult {
        let now = fleet::plan(&self.session.scope.stack(), Some(&self.wanted), found);
        let approved = |step: &Step| {
            self.plan.pending().any(|seen| seen.resource == step.resource && seen.verb == step.verb)
        };
        let more: Vec<String> =
            now.pending().filter(|step| !approved(step)).map(|step| step.resource.to_string()).collect();
        if more.is_empty() {
            return Ok(());
        }
        let message = format!("the fleet changed since it was planned: {}", more.join(", "));
        Err(Failure::new(Exit::Refused, message)
            .hint(format!("plan anew: {}", context.command_line("fleet plan"))))
    }

    fn artifacts(&self, region: &str) -> Artifacts {
        Artifacts {
            bucket: format!("{}-{region}", bucket_prefix(&self.session)),
            is_given: self.session.environment.cloudformation.artifact_bucket.is_some(),
        }
    }
}

/// All of the template's parameters, also those that have a default: CloudFormation gives back all of them, and what it gives
/// back and nobody has asked for would be a change at every deploy.
fn parameters(template: &Template, bucket: String) -> BTreeMap<String, String> {
    let defaults = template.parameters.iter().filter_map(|(name, parameter)| {
        let default = parameter.default.clone()?;
        Some((name.clone(), default))
    });
    defaults.chain([(ARTIFACT_BUCKET.to_owned(), bucket)]).collect()
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
            stage.refuse_more(context, found.as_ref())?;
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
    let mut left = fleet::plan(&stage.session.scope.stack(), Some(&stage.wanted), Some(&found));
    // All operations have succeeded, so that there is no account in it.
    let is_empty_unit = |step: &Step| step.verb == Verb::Create && step.resource.name.starts_with("ou-");
    for empty in left.pending().filter(|step| is_empty_unit(step)) {
        context.progress().note(&format!("no account is in {}", empty.resource.name));
    }
    left.steps.retain(|step| !is_empty_unit(step));
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

/// The accounts, each with its Region, that the file names and that have no stack. What accounts are in a unit, only
/// Organizations knows.
fn missing(fleet: &Fleet, found: &Found) -> Vec<String> {
    let is_there = |account: &str, region: &str| {
        found.instances.iter().any(|instance| instance.account == account && instance.region == region)
    };
    let places = fleet
        .accounts
        .iter()
        .flat_map(|account| fleet.regions.iter().map(move |region| (account.as_str(), region.as_str())));
    let missing = places.filter(|(account, region)| !is_there(account, region));
    missing.map(|(account, region)| format!("{account} in {region}")).collect()
}

async fn status(context: &Context) -> CommandResult {
    let fleet = fleet_of(context)?;
    let session = Session::open(context).await?;
    let Some(found) = find(&session).await? else {
        return Err(Failure::new(Exit::Attention, "there is no fleet yet")
            .hint(format!("deploy it: {}", context.command_line("fleet deploy"))));
    };
    show(context, &session, &found)?;
    let missing = missing(&fleet, &found);
    if !missing.is_empty() {
        return Err(Failure::new(Exit::Attention, format!("there is no stack in {}", missing.join(", ")))
            .hint(format!("deploy there: {}", context.command_line("fleet deploy"))));
    }
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
    if found.is_some() {
        exclusively(context, &session, "fleet destroy", args.break_lock, async |guard| {
            // Whatever it has by now: there is no environment afterwards.
            let Some(found) = &find(&session).await? else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use snapwarden_deployer::scope::Function;

    use super::*;

    /// CloudFormation gives back what took its default as well: as a difference it would be a change of every account at every
    /// deploy, and no deploy would ever end well.
    #[test]
    fn a_stack_set_is_given_all_that_it_gives_back() {
        let text = include_str!("../../../environments/local.yaml");
        let environment =
            snapwarden_deployer::environment::parse(std::path::Path::new("local.yaml"), text).unwrap();
        let code = Function::ALL.map(|function| (function, "code".to_owned())).into();
        let template = fleet_template(&environment, &code).unwrap();
        let given = parameters(&template, "bucket".to_owned());
        assert!(template.parameters.len() > 1);
        assert!(given.keys().eq(template.parameters.keys()), "{given:?}");
        assert_eq!(given[ARTIFACT_BUCKET], "bucket");
    }

    #[test]
    fn an_account_of_the_file_without_a_stack_is_named() {
        let fleet = serde_json::from_value(json!({
            "accounts": ["111122223333", "444455556666"], "regions": ["eu-central-1"],
        }));
        let instance = Instance {
            account: "111122223333".to_owned(),
            region: "eu-central-1".to_owned(),
            unit: None,
            status: "CURRENT".to_owned(),
            reason: None,
        };
        let found = Found { instances: vec![instance], ..Found::default() };
        assert_eq!(missing(&fleet.unwrap(), &found), ["444455556666 in eu-central-1"]);
    }
}

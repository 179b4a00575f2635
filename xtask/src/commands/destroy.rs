//! `cargo xtask destroy`: deletes everything that a deploy made, except snapshots.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;
use snapwarden_deployer::apply::Report;
use snapwarden_deployer::environment::LogsOnDestroy;
use snapwarden_deployer::inventory;
use snapwarden_deployer::kinds::{Kind, LogGroup, registry};
use snapwarden_deployer::plan::{Options, Plan, Verb, plan};
use snapwarden_deployer::scope::PROTECTED_TAG;
use snapwarden_deployer::world::{Desired, Observed};

use super::deploy::apply_plan;
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::Session;

/// Flags of `destroy`.
#[derive(Args, Debug)]
pub(crate) struct DestroyArgs {
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    /// The environment's name, to destroy a protected one
    #[arg(long, value_name = "ENV")]
    confirm: Option<String>,
}

/// Plans the way to nothing, asks, applies, and says what remains.
pub(crate) fn cmd_destroy(context: &Context, args: &DestroyArgs) -> CommandResult {
    block_on(async {
        let session = Session::open(context).await?;
        let observed = session.observe().await?;
        check_protection(&session, &observed, args)?;
        let plan = plan_destroy(&session, &observed)?;
        let mut report = Report { steps: Vec::new() };
        if !plan.is_empty() {
            session.approve(context, &plan, "Delete", args.yes)?;
            report = apply_plan(context, &session, None, &plan).await?;
        }
        let snapshots = inventory::snapshots(&session.aws, &session.scope).await?;
        let kept = plan.steps.iter().filter(|step| step.verb == Verb::Keep);
        let kept: Vec<_> = kept.map(|step| step.resource.to_string()).collect();
        let value = json!({
            "environment": session.scope.environment,
            "steps": report.steps,
            "kept": kept,
            "left_alone": plan.left_alone,
            "snapshots": snapshots,
        });
        output::result(context, &value, text(&session, report.steps.len(), &kept, &plan, snapshots.len()))
    })
}

/// A plan whose desired state is nothing at all.
fn plan_destroy(session: &Session, observed: &Observed) -> Result<Plan, Failure> {
    let retain = match session.environment.logs {
        LogsOnDestroy::Keep => BTreeSet::from([LogGroup::NAME]),
        LogsOnDestroy::Delete => BTreeSet::new(),
    };
    let options = Options { retain, ..Options::default() };
    Ok(plan(&registry(), &session.scope, &Desired::new(), observed, &options)?)
}

/// Protection counts where the file says so, and where AWS remembers it: an edit of the file does not lift it.
fn check_protection(session: &Session, observed: &Observed, args: &DestroyArgs) -> CommandResult {
    let name = session.scope.environment.as_str();
    if let Some(confirmed) = args.confirm.as_deref().filter(|confirmed| *confirmed != name) {
        return Err(Failure::new(
            Exit::Refused,
            format!("--confirm names `{confirmed}`, but the environment is `{name}`"),
        ));
    }
    let remembered = observed
        .values()
        .filter_map(|found| found.tags.as_ref())
        .any(|tags| session.scope.owns(tags) && tags.get(PROTECTED_TAG).is_some_and(|value| value == "true"));
    if (session.environment.protect || remembered) && args.confirm.is_none() {
        return Err(Failure::new(Exit::Refused, format!("environment {name} is protected"))
            .hint(format!("if you mean it: cargo xtask destroy --env {name} --confirm {name}")));
    }
    Ok(())
}

fn text(session: &Session, deleted: usize, kept: &[String], plan: &Plan, snapshots: usize) -> String {
    let name = &session.scope.environment;
    let mut text = match deleted {
        0 => format!("environment {name}: there was nothing to delete\n"),
        _ => format!("environment {name}: {deleted} resources deleted\n"),
    };
    if !kept.is_empty() {
        text = format!("{text}kept: {}\n", kept.join(", "));
    }
    if !plan.left_alone.is_empty() {
        let strangers: Vec<_> = plan.left_alone.iter().map(ToString::to_string).collect();
        text =
            format!("{text}left alone, since they lack this environment's tag: {}\n", strangers.join(", "));
    }
    text + &match snapshots {
        0 => "no snapshots remain".to_owned(),
        1 => "1 snapshot remains, and nobody enforces its DeleteOn now".to_owned(),
        _ => format!("{snapshots} snapshots remain, and nobody enforces their DeleteOn now"),
    }
}

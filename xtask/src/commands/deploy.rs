//! `cargo xtask deploy`: makes the environment what its file says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use snapwarden_deployer::apply::{Report, apply};
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::Plan;
use snapwarden_deployer::saved_plan::SavedPlan;
use snapwarden_deployer::world::Observed;

use super::plan::{PlanScope, plan_deploy};
use super::status::{firings, resources};
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::{CodeSource, Session, code_of};
use crate::{output, render};

/// Flags of `deploy`.
#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    /// Execute a plan that `plan --out` wrote, exactly, or refuse
    #[arg(long, value_name = "FILE", conflicts_with = "adopt")]
    plan: Option<PathBuf>,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    scope: PlanScope,
}

/// Plans, asks, applies, and shows what exists now.
pub(crate) fn cmd_deploy(context: &Context, args: &DeployArgs) -> CommandResult {
    block_on(async {
        let Planned { session, bundle, mut observed, plan } = match &args.plan {
            Some(path) => saved(context, args, path).await?,
            None => fresh(context, args).await?,
        };
        session.approve(context, &plan, "Apply this to", args.yes)?;
        let mut report = Report { steps: Vec::new() };
        if !plan.is_empty() {
            report = apply_plan(context, &session, Some(bundle), &plan).await?;
            observed = see_it_done(context, &session, &plan).await?;
        }
        let firings = firings(&observed, Timestamp::now());
        let value = json!({
            "environment": session.scope.environment,
            "steps": report.steps,
            "resources": resources(&observed),
            "schedules": firings,
        });
        output::result(context, &value, render::status::inventory(&resources(&observed), &firings))
    })
}

/// Seconds between looks; about a minute in all.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 20, 30];

/// Looks whether AWS shows everything as it was planned: what was not seen is not reported as done.
async fn see_it_done(context: &Context, session: &Session, plan: &Plan) -> Result<Observed, Failure> {
    let task = context.progress().start("looking at the result");
    let mut pauses = PAUSES.into_iter();
    loop {
        let observed = session.observe().await?;
        let different = plan.steps.iter().filter(|step| !step.is_done(&observed));
        let different: Vec<_> = different.map(|step| step.resource.to_string()).collect();
        if different.is_empty() {
            task.done("all is as planned");
            return Ok(observed);
        }
        // AWS's services do not show at once what they have accepted.
        let Some(pause) = pauses.next() else {
            let message =
                format!("all steps were done, but AWS shows something else: {}", different.join(", "));
            return Err(Failure::new(Exit::Failed, message).hint("see what differs with `cargo xtask plan`"));
        };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

/// A plan with all it was made from.
struct Planned {
    session: Session,
    bundle: Arc<Bundle>,
    observed: Observed,
    plan: Plan,
}

/// A plan made now, for the bundle of this checkout or the one given.
async fn fresh(context: &Context, args: &DeployArgs) -> Result<Planned, Failure> {
    let (session, bundle) = Session::open_with_code(context, args.scope.code()).await?;
    let observed = session.observe().await?;
    let plan = plan_deploy(&session, &session.desired(&code_of(&bundle))?, &observed, args.scope.adopt)?;
    Ok(Planned { session, bundle, observed, plan })
}

/// A plan from a file, if everything is still as it was. Nothing is built: the plan names the bundle.
async fn saved(context: &Context, args: &DeployArgs, path: &std::path::Path) -> Result<Planned, Failure> {
    let saved = SavedPlan::read(path)?;
    let folder = args.scope.bundle.clone().unwrap_or_else(|| context.workspace().bundle());
    let (session, bundle) = Session::open_with_code(context, CodeSource::Folder(&folder)).await?;
    let observed = session.observe().await?;
    saved.check(&session.scope, &code_of(&bundle), &observed)?;
    Ok(Planned { session, bundle, observed, plan: saved.plan })
}

/// Applies a plan and turns anything but full success into a failure that says what was done and what was not.
pub(crate) async fn apply_plan(
    context: &Context,
    session: &Session,
    bundle: Option<Arc<Bundle>>,
    plan: &Plan,
) -> Result<Report, Failure> {
    let listener = render_apply::listener(context.progress());
    let report = apply(registry(), &session.cloudside(bundle, listener), plan).await;
    if report.succeeded() {
        return Ok(report);
    }
    if context.json() {
        output::result(
            context,
            &json!({ "environment": session.scope.environment, "steps": report.steps }),
            "",
        )?;
    }
    Err(Failure::new(Exit::Failed, render_apply::failed(&report))
        .hint("run the same command again: it goes on where this one stopped"))
}

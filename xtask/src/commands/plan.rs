//! `cargo xtask plan`: what a deploy would change.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::Engine;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, Plan, Unowned, plan};
use snapwarden_deployer::quota;
use snapwarden_deployer::saved_plan::{SavedPlan, SavedPlanError};
use snapwarden_deployer::world::{Desired, Observed};

use super::{cleanup_diff, stack};
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::{CodeSource, Session, code_of};
use crate::{output, render};

/// Flags of `plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Write the plan to a file that `deploy --plan` executes exactly
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// End with exit code 3 when there are changes
    #[arg(long)]
    pub(super) exit_code: bool,
    /// Where CloudFormation is the engine: show what differs from the stack's template, as CloudFormation sees it
    #[arg(long, conflicts_with = "out")]
    pub(super) drift: bool,
    #[command(flatten)]
    pub(super) scope: PlanScope,
}

/// What `plan` and `deploy` have in common.
#[derive(Args, Debug, Default)]
pub(crate) struct PlanScope {
    /// Deploy a bundle that was built before, a folder or a file, instead of building this checkout
    #[arg(long, value_name = "PATH")]
    pub(crate) bundle: Option<PathBuf>,
    /// Take over resources that have our names but belong to no environment
    #[arg(long)]
    pub(crate) adopt: bool,
    /// End the draining that `destroy --drain` began: backups are made again
    #[arg(long)]
    resume: bool,
}

impl PlanScope {
    /// Where the functions' code comes from.
    pub(crate) fn code(&self) -> CodeSource<'_> {
        self.bundle.as_deref().map_or(CodeSource::Build, CodeSource::At)
    }

    /// The flags as they were given.
    pub(crate) fn flags(&self) -> String {
        let mut flags = String::new();
        if let Some(folder) = &self.bundle {
            flags = format!(" --bundle {}", folder.display());
        }
        for (flag, given) in [(" --adopt", self.adopt), (" --resume", self.resume)] {
            if given {
                flags.push_str(flag);
            }
        }
        flags
    }

    /// Plans a deploy of the bundle. An environment that drains goes on draining, unless it is resumed.
    pub(crate) fn plan(
        &self,
        context: &Context,
        session: &Session,
        bundle: &Bundle,
        observed: &Observed,
    ) -> Result<Plan, Failure> {
        let options = Options { adopt: self.adopt, ..Options::default() };
        let desired = Self::desired(session, bundle, self.draining(context, session, observed))?;
        let plan = plan(&registry(), &session.scope, &desired, observed, &options)?;
        let both: Desired =
            plan.pending().filter_map(|step| Some((step.resource.clone(), step.interim.clone()?))).collect();
        let exceeded: Vec<_> = quota::exceeded(&both, bundle).iter().map(ToString::to_string).collect();
        if !exceeded.is_empty() {
            let message =
                format!("AWS would refuse the rights of both releases together: {}", exceeded.join("; "));
            return Err(Failure::new(Exit::Usage, message)
                .hint("deploy in two steps: first what takes rights away, then what needs new ones"));
        }
        Ok(plan)
    }

    /// Whether the environment drains, and goes on with it.
    pub(super) fn draining(
        &self,
        context: &Context,
        session: &Session,
        observed: &Observed,
    ) -> Option<Draining> {
        let draining = self.goes_on_draining(session, observed);
        if let Some(draining) = draining {
            let resume = context.command_line("deploy --resume");
            let note = format!("this environment drains {draining}: no backups; `{resume}` makes them again");
            context.progress().note(&note);
        }
        draining
    }

    /// The same, without a word.
    pub(super) fn goes_on_draining(&self, session: &Session, observed: &Observed) -> Option<Draining> {
        Draining::of(observed, &session.scope).filter(|_| !self.resume)
    }

    /// What a deploy should lead to, as far as AWS would take it.
    pub(super) fn desired(
        session: &Session,
        bundle: &Bundle,
        draining: Option<Draining>,
    ) -> Result<Desired, Failure> {
        let desired = session.desired(&code_of(bundle), draining)?;
        let exceeded: Vec<_> = quota::exceeded(&desired, bundle).iter().map(ToString::to_string).collect();
        if !exceeded.is_empty() {
            return Err(Failure::new(Exit::Usage, format!("AWS would refuse it: {}", exceeded.join("; ")))
                .hint("shorten what the environment's file says"));
        }
        Ok(desired)
    }
}

/// Shows the plan; makes no call that changes anything.
pub(crate) fn cmd_plan(context: &Context, args: &PlanArgs) -> CommandResult {
    if context.engine()? == Engine::Cloudformation {
        return block_on(stack::plan_stack(context, args));
    }
    if args.drift {
        return Err(Failure::new(Exit::Usage, "--drift is for environments whose engine is CloudFormation")
            .hint(format!("the plan itself shows all that differs: {}", context.command_line("plan"))));
    }
    let (session, plan, diff) = block_on(async {
        let (session, bundle) = Session::open_with_code(context, args.scope.code()).await?;
        let observed = session.observe().await?;
        session.refuse_orphans(context, &observed).await?;
        let plan = args.scope.plan(context, &session, &bundle, &observed)?;
        if let Some(path) = &args.out {
            SavedPlan::new(&session.scope, code_of(&bundle), &observed, plan.clone()).write(path)?;
        }
        let diff = cleanup_diff::preview(context, &session, &plan).await;
        Ok((session, plan, diff))
    })?;
    let value = json!({
        "environment": session.scope.environment,
        "plan": plan,
        "cleanup_diff": diff,
        "warnings": session.warnings,
    });
    let deletions = diff.filter(|diff| !diff.new_deletions.is_empty());
    let deletions = deletions.map(|diff| format!("\n\n{}", render::cleanup_diff::text(&diff)));
    let text = render::plan::text(&plan, context.verbose()) + &deletions.unwrap_or_default();
    output::result(context, &value, text)?;
    if args.exit_code && !plan.is_empty() {
        return Err(Failure::said(Exit::ChangesPending));
    }
    Ok(())
}

impl From<Unowned> for Failure {
    fn from(error: Unowned) -> Self {
        let hint = if error.foreign.is_empty() {
            "look at them, and if they are yours, take them over with --adopt; otherwise rename the environment"
        } else {
            "rename the environment"
        };
        Self::caused_by(Exit::Refused, &error).hint(hint)
    }
}

impl From<SavedPlanError> for Failure {
    fn from(error: SavedPlanError) -> Self {
        let exit = match error {
            SavedPlanError::File { action: "write", .. } => Exit::Failed,
            SavedPlanError::File { .. } => Exit::Usage,
            SavedPlanError::Damaged { .. } | SavedPlanError::Stale { .. } => Exit::Refused,
        };
        Self::caused_by(exit, &error)
    }
}

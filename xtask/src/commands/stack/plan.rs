//! `plan` of a stack: a change set in the form of all plans, or what somebody changed by hand.

use serde_json::json;
use snapwarden_deployer::cloudformation::change_set::{self, ChangeSet};
use snapwarden_deployer::cloudformation::drift;
use snapwarden_deployer::cloudformation::saved::SavedChangeSet;
use snapwarden_deployer::plan::Plan;

use super::deploy::Stage;
use super::settled;
use crate::commands::cleanup_diff;
use crate::commands::plan::PlanArgs;
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::code_of;
use crate::{output, render};

/// Shows what a deploy would do. Nothing changes, and unless it is saved nothing stays.
pub(in crate::commands) async fn plan_stack(context: &Context, args: &PlanArgs) -> CommandResult {
    let stage = Stage::set(context, &args.scope, args.scope.code()).await?;
    if args.drift {
        return show_drift(context, &stage, args).await;
    }
    let imported = stage.prepare_import(context).await?;
    let imports = imported.is_some();
    let change_set = match imported {
        Some(import) => Some(import),
        None => stage.prepare(context).await?,
    };
    if imports {
        context
            .progress()
            .note("this takes what there is into a stack, as it is; the deploy then plans the rest");
    }
    let shown = change_set.as_ref().map(|change_set| change_set.plan.clone()).unwrap_or_default();
    let diff = cleanup_diff::preview(context, &stage.session, &stage.direct).await;
    if let Some(path) = args.out.as_ref().filter(|_| !imports) {
        let (scope, code) = (&stage.session.scope, code_of(&stage.bundle));
        SavedChangeSet::new(scope, code, &stage.stages.last, change_set).write(path)?;
    } else if let Some(change_set) = change_set {
        stage.discard(context, &change_set).await?;
    }
    let value = json!({
        "environment": stage.session.scope.environment,
        "engine": "cloudformation",
        "plan": shown,
        "cleanup_diff": diff,
        "warnings": stage.session.warnings,
    });
    let deletions = diff.filter(|diff| !diff.new_deletions.is_empty());
    let deletions = deletions.map(|diff| format!("\n\n{}", render::cleanup_diff::text(&diff)));
    output::result(context, &value, text(&shown, context.verbose()) + &deletions.unwrap_or_default())?;
    if args.exit_code && !shown.is_empty() {
        return Err(Failure::said(Exit::ChangesPending));
    }
    Ok(())
}

impl Stage {
    /// What CloudFormation would do, by a change set that is gone afterwards.
    pub(in crate::commands) async fn preview(&self, context: &Context) -> Result<Plan, Failure> {
        let Some(change_set) = self.prepare(context).await? else { return Ok(Plan::default()) };
        self.discard(context, &change_set).await?;
        Ok(change_set.plan)
    }

    pub(super) async fn discard(&self, context: &Context, change_set: &ChangeSet) -> CommandResult {
        let review = change_set.creates.then_some(change_set.stack.as_str());
        Ok(change_set::discard(&self.cloudside(context), &change_set.id, review).await?)
    }
}

/// How many of what CloudFormation cannot tell of are named unasked.
const FEW: usize = 5;

async fn show_drift(context: &Context, stage: &Stage, args: &PlanArgs) -> CommandResult {
    let cx = stage.cloudside(context);
    if settled(context, &stage.session, &cx, args.scope.adopt).await?.is_none_or(|stack| stack.is_new()) {
        return Err(Failure::new(Exit::Failed, format!("there is no stack {}", stage.session.scope.stack()))
            .hint(format!("deploy first: {}", context.command_line("deploy"))));
    }
    let task = context.progress().start("asking CloudFormation what differs from the template");
    let drift = drift::detect(&cx, &stage.names, &stage.observed).await?;
    task.done("");
    let shown = if context.verbose() { drift.unknown.len() } else { FEW };
    for unknown in drift.unknown.iter().take(shown) {
        context.progress().note(&format!("CloudFormation cannot tell of {unknown}"));
    }
    if let Some(more @ 1..) = drift.unknown.len().checked_sub(shown) {
        context
            .progress()
            .note(&format!("nor of {more} more, which -v names; `status` looks at all of them"));
    }
    let value = json!({
        "environment": stage.session.scope.environment,
        "engine": "cloudformation",
        "drift": drift.plan,
        "unknown": drift.unknown,
        "failed": drift.failed,
    });
    output::result(context, &value, render::plan::text(&drift.plan, context.verbose()))?;
    if let Some(reason) = &drift.failed {
        let message = format!("CloudFormation did not look at everything, so there may be more: {reason}");
        return Err(Failure::new(Exit::Failed, message)
            .hint("it looks with the rights of whoever asks: `cargo xtask policies stack` lists them"));
    }
    if args.exit_code && !drift.plan.is_empty() {
        return Err(Failure::said(Exit::ChangesPending));
    }
    Ok(())
}

/// CloudFormation lists only what changes.
fn text(plan: &Plan, verbose: bool) -> String {
    if plan.is_empty() {
        "no changes: the stack is as it should be".to_owned()
    } else {
        render::plan::text(plan, verbose)
    }
}

//! `plan`, `deploy` and `destroy` where CloudFormation is the engine: the environment is a stack, and a plan is a change
//! set.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use snapwarden_deployer::apply::Guard;
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::cloudformation::artifacts::Artifacts;
use snapwarden_deployer::cloudformation::change_set::{self, ChangeSet, Request};
use snapwarden_deployer::cloudformation::follow::{Ended, follow};
use snapwarden_deployer::cloudformation::saved::SavedChangeSet;
use snapwarden_deployer::cloudformation::stack::{self, Stack, State};
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, Template, drift, template};
use snapwarden_deployer::environment::{Engine, Identity};
use snapwarden_deployer::kinds::{Context as Cloudside, StepError, registry};
use snapwarden_deployer::plan::{Options, Plan, owned, plan};
use snapwarden_deployer::world::{Desired, Observed};

use super::cleanup_diff;
use super::deploy::{DeployArgs, see_it_done};
use super::plan::{PlanArgs, PlanScope};
use super::status::{firings, resources};
use crate::context::Context;
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::{CodeSource, Session, code_of};
use crate::{output, render};

/// Everything that a deploy of a stack goes by.
struct Stage {
    session: Session,
    bundle: Arc<Bundle>,
    template: Template,
    desired: Desired,
    observed: Observed,
    artifacts: Artifacts,
}

impl Stage {
    /// Connects, and works out what the stack should be.
    async fn set(context: &Context, scope: &PlanScope, code: CodeSource<'_>) -> Result<Self, Failure> {
        let (session, bundle) = Session::open_with_code(context, code).await?;
        let observed = session.observe().await?;
        let draining = scope.draining(context, &session, &observed);
        let code = code_of(&bundle);
        let desired = scope.desired(&session, &bundle, draining)?;
        let template = template(&session.environment, &code, draining)?;
        let artifacts = Artifacts::of(&session.environment, &session.scope);
        Ok(Self { session, bundle, template, desired, observed, artifacts })
    }

    /// The same change as the direct engine would plan it: what the fences before a deploy go by.
    fn direct_plan(&self) -> Result<Plan, Failure> {
        let options = Options { adopt: true, ..Options::default() };
        Ok(plan(&registry(), &self.session.scope, &self.desired, &self.observed, &options)?)
    }

    /// What the deployer's effects need; nothing is told that `follow` does not tell.
    fn cloudside(&self, context: &Context) -> Cloudside {
        let listener = render_apply::listener(context.progress());
        self.session.cloudside(Some(self.bundle.clone()), listener)
    }

    /// Has CloudFormation work out what a deploy would change; `None` where it is nothing.
    async fn change_set(&self, context: &Context, adopt: bool) -> Result<Option<ChangeSet>, Failure> {
        let cx = self.cloudside(context);
        let stack = usable(context, &self.session, &cx).await?;
        if !adopt && stack.as_ref().is_none_or(|stack| stack.state() == State::InReview) {
            refuse_what_is_there(context, &self.session).await?;
        }
        let task = context.progress().start("asking CloudFormation what changes");
        let request = Request {
            template: &self.template,
            source: self.artifacts.source(&cx, self.template.body()).await?,
            parameters: [(ARTIFACT_BUCKET.to_owned(), self.artifacts.bucket.clone())].into(),
            tags: self.session.scope.tags(&self.session.environment),
            role: self.session.environment.cloudformation.role.as_ref().map(ToString::to_string),
            adopt,
        };
        let change_set = change_set::create(&cx, request, stack.as_ref()).await?;
        task.done("");
        Ok(change_set)
    }
}

/// The environment's stack, if it is ours and can be changed. What is under way is waited for: it may be what a command
/// began that was killed.
async fn usable<E>(
    context: &Context,
    session: &Session<E>,
    cx: &Cloudside,
) -> Result<Option<Stack>, Failure> {
    let Some(mut stack) = stack::find(cx).await? else { return Ok(None) };
    let name = session.scope.stack();
    if !stack.is_of(&session.scope) {
        let owner = stack.owner().map_or("no environment".to_owned(), |owner| format!("environment {owner}"));
        return Err(Failure::new(Exit::Refused, format!("the stack {name} belongs to {owner}"))
            .hint("rename the environment, or delete that stack"));
    }
    if stack.state() == State::Busy {
        let task = context.progress().start(format!("waiting for CloudFormation, which is busy with {name}"));
        let Some(settled) = stack::settled(cx, &stack.id).await? else { return Ok(None) };
        task.done(&settled.status);
        stack = settled;
    }
    if stack.state() == State::Gone {
        return Ok(None);
    }
    Ok(Some(stack))
}

/// CloudFormation fails over what exists already, halfway through.
async fn refuse_what_is_there(context: &Context, session: &Session) -> CommandResult {
    let observed = session.observe().await?;
    let ours = owned(&registry(), &session.scope, &observed);
    if ours.is_empty() {
        return Ok(());
    }
    let message = format!(
        "environment {} has {} resources already that are in no stack",
        session.scope.environment,
        ours.len()
    );
    Err(Failure::new(Exit::Refused, message).hint(format!(
        "docs/cloudformation.md says how an environment moves into a stack: {}",
        context.command_line("deploy --adopt")
    )))
}

/// Shows the change set in the form of our plans, or what somebody changed by hand. Nothing changes, and unless it is
/// saved nothing stays.
pub(super) async fn plan_stack(context: &Context, args: &PlanArgs) -> CommandResult {
    let stage = Stage::set(context, &args.scope, args.scope.code()).await?;
    if args.drift {
        return show_drift(context, &stage, args.exit_code).await;
    }
    refuse_broken(context, &stage).await?;
    let change_set = stage.change_set(context, args.scope.adopt).await?;
    let shown = change_set.as_ref().map(|change_set| change_set.plan.clone()).unwrap_or_default();
    let diff = cleanup_diff::preview(context, &stage.session, &stage.direct_plan()?).await;
    if let Some(change_set) = change_set {
        if let Some(path) = &args.out {
            SavedChangeSet::new(&stage.session.scope, code_of(&stage.bundle), change_set).write(path)?;
        } else {
            let review = change_set.creates.then_some(change_set.stack.as_str());
            change_set::discard(&stage.cloudside(context), &change_set.id, review).await?;
        }
    } else if args.out.is_some() {
        context.progress().note("nothing was saved: there is nothing to do");
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

async fn show_drift(context: &Context, stage: &Stage, exit_code: bool) -> CommandResult {
    let cx = stage.cloudside(context);
    if usable(context, &stage.session, &cx).await?.is_none() {
        return Err(Failure::new(Exit::Failed, format!("there is no stack {}", stage.session.scope.stack()))
            .hint(format!("deploy first: {}", context.command_line("deploy"))));
    }
    let task = context.progress().start("asking CloudFormation what differs from the template");
    let drift = drift::detect(&cx, &stage.template.names).await?;
    task.done("");
    for unknown in &drift.unknown {
        context.progress().note(&format!("CloudFormation cannot tell of {unknown}"));
    }
    let value = json!({
        "environment": stage.session.scope.environment,
        "engine": "cloudformation",
        "drift": drift.plan,
        "unknown": drift.unknown,
    });
    output::result(context, &value, render::plan::text(&drift.plan, context.verbose()))?;
    if exit_code && !drift.plan.is_empty() {
        return Err(Failure::said(Exit::ChangesPending));
    }
    Ok(())
}

/// Stops where the stack cannot be changed, and says how it gets out of that.
async fn refuse_broken(context: &Context, stage: &Stage) -> CommandResult {
    let cx = stage.cloudside(context);
    let Some(stack) = usable(context, &stage.session, &cx).await? else { return Ok(()) };
    match stack.way_out(&stage.session.scope) {
        None => Ok(()),
        Some(way_out) => {
            let reason = stack.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = format!("the stack {} is in {}{reason}", stage.session.scope.stack(), stack.status);
            Err(Failure::new(Exit::Refused, message).hint(way_out))
        }
    }
}

/// Uploads the code, executes just the change set that was shown, and follows it to its end.
pub(super) async fn deploy_stack(context: &Context, args: &DeployArgs) -> CommandResult {
    let saved = args.plan.as_deref().map(|path| read_saved(context, path)).transpose()?;
    let folder = args.scope.bundle.clone().unwrap_or_else(|| context.workspace().bundle());
    // A saved plan names the bundle: nothing is built for it.
    let code = if saved.is_some() { CodeSource::At(&folder) } else { args.scope.code() };
    let stage = Stage::set(context, &args.scope, code).await?;
    refuse_broken(context, &stage).await?;
    cleanup_diff::approve(context, &stage.session, &stage.direct_plan()?, args.accept_deletions).await?;
    let change_set = match saved {
        Some(saved) => {
            saved.check(&stage.session.scope, &code_of(&stage.bundle))?;
            Some(saved.change_set)
        }
        None => stage.change_set(context, args.scope.adopt).await?,
    };
    let shown = change_set.as_ref().map(|change_set| change_set.plan.clone()).unwrap_or_default();
    if let Err(failure) = stage.session.approve(context, &shown, "Apply this to", args.yes) {
        if let (Some(change_set), None) = (&change_set, &args.plan) {
            let review = change_set.creates.then_some(change_set.stack.as_str());
            change_set::discard(&stage.cloudside(context), &change_set.id, review).await?;
        }
        return Err(failure);
    }
    let observed = match &change_set {
        None => note_differences(context, &stage).await?,
        Some(change_set) => {
            exclusively(context, &stage.session, "deploy", args.break_lock, async |guard| {
                carry_out(context, &stage, change_set, guard).await
            })
            .await?
        }
    };
    let firings = firings(&observed, Timestamp::now());
    let value = json!({
        "environment": stage.session.scope.environment,
        "engine": "cloudformation",
        "plan": shown,
        "resources": resources(&observed),
        "schedules": firings,
        "warnings": stage.session.warnings,
    });
    output::result(context, &value, render::status::inventory(&resources(&observed), &firings))
}

async fn carry_out(
    context: &Context,
    stage: &Stage,
    change_set: &ChangeSet,
    guard: &dyn Guard,
) -> Result<Observed, Failure> {
    let cx = stage.cloudside(context);
    let task = context.progress().start(format!("uploading the code to {}", stage.artifacts.bucket));
    stage.artifacts.ensure(&cx).await?;
    let uploaded = stage.artifacts.upload_code(&cx, &stage.bundle).await?;
    task.done(if uploaded == 0 { "it is there already" } else { "" });
    if !change_set::is_executable(&cx, &change_set.id).await? {
        return Err(Failure::new(
            Exit::Refused,
            "the plan is stale: its change set cannot be executed any more",
        )
        .hint(format!("plan anew: {}", context.command_line("plan"))));
    }
    guard.check().await.map_err(|halt| Failure::new(Exit::Failed, halt.0))?;
    let token = token();
    change_set::execute(&cx, &change_set.id, &token).await?;
    let ended = follow(&cx, &change_set.stack, &token, &stage.template.names, guard).await?;
    check_ended(context, &stage.session, &ended)?;
    let protect = stage.session.environment.protect;
    if ended.stack.as_ref().is_some_and(|stack| stack.protected != protect) {
        stack::protect(&cx, protect).await?;
    }
    // By the same declarations and the same look as the direct engine.
    let observed = stage.session.observe().await?;
    let whole = plan(&registry(), &stage.session.scope, &stage.desired, &observed, &Options::default())?;
    see_it_done(context, &stage.session, &whole).await
}

/// What CloudFormation takes for unchanged may have been changed where it does not look.
async fn note_differences(context: &Context, stage: &Stage) -> Result<Observed, Failure> {
    let observed = stage.session.observe().await?;
    let plan = plan(&registry(), &stage.session.scope, &stage.desired, &observed, &Options::default())?;
    for step in plan.pending() {
        let properties: Vec<_> = step.changes.iter().map(|change| change.property.as_str()).collect();
        let text = format!(
            "{} differs, and CloudFormation does not see it: {}",
            step.resource,
            properties.join(", ")
        );
        context.progress().warn(&text);
    }
    Ok(observed)
}

/// Turns anything but full success into a failure that says what failed, what CloudFormation made of it, and what to do.
fn check_ended<E>(context: &Context, session: &Session<E>, ended: &Ended) -> CommandResult {
    if let Some(halted) = &ended.halted {
        let message = format!("{halted}; CloudFormation goes on by itself");
        return Err(Failure::new(Exit::Failed, message)
            .hint(format!("see how it ends, and go on from there: {}", context.command_line("deploy"))));
    }
    let failed = || ended.failures.iter().map(|(resource, why)| format!("\n  failed: {resource}: {why}"));
    let again = format!("mend what failed, then: {}", context.command_line("deploy"));
    let Some(stack) = &ended.stack else {
        let message =
            format!("the stack could not be made, and is gone again{}", failed().collect::<String>());
        return Err(Failure::new(Exit::Failed, message).hint(again));
    };
    if matches!(stack.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE") {
        return Ok(());
    }
    let undone = if stack.status == "UPDATE_ROLLBACK_COMPLETE" { ", and all is as before" } else { "" };
    let message = format!("the stack ended in {}{undone}{}", stack.status, failed().collect::<String>());
    Err(Failure::new(Exit::Failed, message).hint(stack.way_out(&session.scope).unwrap_or(again)))
}

/// Deletes the environment's stack, where there is one; whether there was.
pub(super) async fn delete_stack(
    context: &Context,
    session: &Session<Identity>,
    guard: &dyn Guard,
) -> Result<bool, Failure> {
    let cx = session.cloudside(None, render_apply::listener(context.progress()));
    let Some(stack) = usable(context, session, &cx).await? else { return Ok(false) };
    if stack.protected {
        stack::protect(&cx, false).await?;
    }
    guard.check().await.map_err(|halt| Failure::new(Exit::Failed, halt.0))?;
    let token = token();
    stack::delete(&cx, &stack.id, session.environment.stack_role.as_deref(), &token).await?;
    let ended = follow(&cx, &stack.id, &token, &std::collections::BTreeMap::new(), guard).await?;
    if ended.stack.is_none() && ended.halted.is_none() {
        return Ok(true);
    }
    let failed = ended.failures.iter().map(|(resource, why)| format!("\n  failed: {resource}: {why}"));
    let status = ended.stack.map_or_else(String::new, |stack| format!(": it is in {}", stack.status));
    let halted = ended.halted.map(|halted| format!("{halted}; CloudFormation goes on by itself"));
    let message =
        halted.unwrap_or_else(|| format!("the stack was not deleted{status}{}", failed.collect::<String>()));
    Err(Failure::new(Exit::Failed, message).hint("mend what failed, then run the command again"))
}

/// Whether the environment has a stack.
pub(super) async fn has_stack(session: &Session<Identity>) -> Result<bool, Failure> {
    let cx = session.cloudside(None, Arc::new(|_| ()));
    Ok(stack::find(&cx).await?.is_some_and(|stack| stack.is_of(&session.scope)))
}

/// Stops a command that would change what belongs to a stack behind CloudFormation's back.
pub(super) fn refuse(context: &Context, command: &str) -> CommandResult {
    if context.engine()? == Engine::Direct {
        return Ok(());
    }
    let message = format!("`{command}` does not work yet where CloudFormation is the engine");
    Err(Failure::new(Exit::Usage, message).hint(format!(
        "deploy the bundle that you want to be live: {}",
        context.command_line("deploy --bundle DIR")
    )))
}

fn read_saved(context: &Context, path: &Path) -> Result<SavedChangeSet, Failure> {
    SavedChangeSet::read(path).map_err(|error| {
        let failure = Failure::from(error);
        let out = format!("plan --out {}", path.display());
        if failure.exit() == Exit::Refused { failure.hint(context.command_line(&out)) } else { failure }
    })
}

/// Marks what CloudFormation does because of one command.
fn token() -> String {
    format!("snapwarden-{}-{}", std::process::id(), Timestamp::now().as_millisecond())
}

/// CloudFormation lists only what changes.
fn text(plan: &Plan, verbose: bool) -> String {
    if plan.is_empty() {
        "no changes: the stack is as it should be".to_owned()
    } else {
        render::plan::text(plan, verbose)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Aws(error) => Self::from(error),
            error => Self::caused_by(Exit::Failed, &error),
        }
    }
}

//! `deploy` of a stack: the change set that was shown, executed exactly, and recorded as a release.

use std::path::Path;
use std::sync::Arc;

use snapwarden_deployer::apply::{Guard, Report};
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::cloudformation::artifacts::Artifacts;
use snapwarden_deployer::cloudformation::change_set::{self, ChangeSet, Parameters};
use snapwarden_deployer::cloudformation::import::Import;
use snapwarden_deployer::cloudformation::saved::SavedChangeSet;
use snapwarden_deployer::cloudformation::stack::{self, Stack, State};
use snapwarden_deployer::cloudformation::stages::{Stages, keep_pinned};
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, Names, template};
use snapwarden_deployer::kinds::{
    Blueprint, Context as Cloudside, Key, Kind, LogGroup, Schedule, StepError, registry,
};
use snapwarden_deployer::plan::{Options, Plan, Step, owned, plan};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::release::How;
use snapwarden_deployer::saved_plan::SavedPlanError;
use snapwarden_deployer::scope::Scope;
use snapwarden_deployer::world::{Desired, Observed, ResourceId, fingerprint};

use super::change::{Change, report};
use super::{changeable, check_rights_by_engine};
use crate::commands::cleanup_diff;
use crate::commands::deploy::{DeployArgs, Released, changed_meanwhile, see_it_done};
use crate::commands::plan::PlanScope;
use crate::commands::release::{Provenance, Settled, history, is_unrecorded, settle};
use crate::context::Context;
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::{CodeSource, Session, code_of};

/// Everything that a deploy of a stack goes by.
pub(in crate::commands) struct Stage {
    pub(super) session: Session,
    pub(super) bundle: Arc<Bundle>,
    pub(super) observed: Observed,
    pub(super) names: Names,
    pub(super) stages: Stages,
    /// The same change as the direct engine plans it: what the fences before a deploy go by.
    pub(super) direct: Plan,
    desired: Desired,
    artifacts: Artifacts,
    adopt: bool,
    again: String,
}

impl Stage {
    /// Connects, and works out what the stack should be.
    pub(super) async fn set(
        context: &Context,
        scope: &PlanScope,
        code: CodeSource<'_>,
    ) -> Result<Self, Failure> {
        let (session, bundle) = Session::open_with_code(context, code).await?;
        Self::of(context, scope, session, bundle, "deploy".to_owned()).await
    }

    /// The same of an environment that is looked at already.
    pub(in crate::commands) async fn of(
        context: &Context,
        flags: &PlanScope,
        session: Session,
        bundle: Arc<Bundle>,
        again: String,
    ) -> Result<Self, Failure> {
        let observed = session.observe().await?;
        session.refuse_orphans(context, &observed).await?;
        let direct = flags.plan(context, &session, &bundle, &observed)?;
        let draining = flags.goes_on_draining(&session, &observed);
        let desired = PlanScope::desired(&session, &bundle, draining)?;
        let code = code_of(&bundle);
        let template = template(&session.environment, &code, draining)?;
        let policies = role_policies(&session.environment, &session.scope)?;
        let (environment, scope) = (&session.environment, &session.scope);
        let blueprint = Blueprint { environment, scope, policies: &policies, code: &code, draining };
        let mut last = template.document();
        let cx = session.cloudside(None, Arc::new(|_| ()));
        if stack::find(&cx).await?.is_some_and(|stack| stack.is_of(scope) && stack.state() == State::Ready) {
            match stack::template(&cx).await {
                Ok(present) => keep_pinned(&mut last, &present, &template.names, &direct),
                // Something else wrote it, and pins nothing.
                Err(StepError::Failed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let stages = Stages::of(last, &template.names, &direct, &blueprint);
        let artifacts = Artifacts::of(environment, scope);
        let (names, adopt) = (template.names, flags.adopt);
        Ok(Self { session, bundle, observed, names, stages, direct, desired, artifacts, adopt, again })
    }

    /// What the deployer's effects need.
    pub(super) fn cloudside(&self, context: &Context) -> Cloudside {
        let listener = render_apply::listener(context.progress());
        self.session.cloudside(Some(self.bundle.clone()), listener)
    }

    fn change<'a>(&'a self, context: &'a Context, cx: &'a Cloudside) -> Change<'a> {
        let bucket = self.artifacts.bucket.clone();
        Change {
            context,
            session: &self.session,
            cx,
            artifacts: &self.artifacts,
            names: &self.names,
            parameters: Parameters::Given([(ARTIFACT_BUCKET.to_owned(), bucket)].into()),
            stages: &self.stages,
            direct: &self.direct,
            is_approved: false,
            again: &self.again,
        }
    }

    /// Has CloudFormation work out what a deploy would change; `None` where it is nothing.
    pub(super) async fn prepare(&self, context: &Context) -> Result<Option<ChangeSet>, Failure> {
        let cx = self.cloudside(context);
        let stack = changeable(context, &self.session, &cx, self.adopt).await?;
        let adopt = is_new(stack.as_ref()) && self.takes_over(context)?;
        self.change(context, &cx).prepare(stack.as_ref(), adopt).await
    }

    /// Has CloudFormation work out how what the direct engine has made comes into a new stack; `None` where nobody wants
    /// that, or there is nothing of the kind.
    pub(super) async fn prepare_import(&self, context: &Context) -> Result<Option<ChangeSet>, Failure> {
        let cx = self.cloudside(context);
        let stack = changeable(context, &self.session, &cx, self.adopt).await?;
        if !self.adopt || !is_new(stack.as_ref()) || self.beside_logs().is_empty() {
            return Ok(None);
        }
        self.refuse_key(context)?;
        let import = Import::of(&self.stages, &self.names, &self.observed, &self.session.scope);
        self.change(context, &cx).prepare_import(stack.as_ref(), import).await
    }

    /// What of the environment there is, but for what a destroy of the stack may have kept: log groups, and a key, whose
    /// alias has gone with the stack.
    fn beside_logs(&self) -> Vec<ResourceId> {
        let ours = owned(&registry(), &self.session.scope, &self.observed);
        let is_kept =
            |id: &ResourceId| id.kind == LogGroup::NAME || id.kind == Key::NAME && !self.has_alias(id);
        ours.into_keys().filter(|id| !is_kept(id)).collect()
    }

    fn has_alias(&self, key: &ResourceId) -> bool {
        self.observed.get(key).is_some_and(|found| found.properties["aliased"] == true)
    }

    /// A key that the direct engine has made stays as it is: whatever comes into a stack can go with it.
    fn refuse_key(&self, context: &Context) -> CommandResult {
        let mut kept = self.observed.keys().filter(|id| id.kind == Key::NAME && self.has_alias(id));
        let Some(key) = kept.next() else { return Ok(()) };
        let message = format!("the key {} is not taken into a stack", key.name);
        Err(Failure::new(Exit::Refused, message).hint(format!(
            "name it in the file in place of `create: true`, as `kms_key: {}`, and look after it yourself; then `{}`",
            key.name,
            context.command_line("deploy --adopt")
        )))
    }

    /// Whether a new stack takes over what is there already: log groups that a destroy has kept, and whatever else
    /// somebody says. CloudFormation would fail over it, halfway through.
    fn takes_over(&self, context: &Context) -> Result<bool, Failure> {
        let others = self.beside_logs().len();
        if others == 0 {
            return Ok(self.adopt || self.observed.keys().any(|id| id.kind == LogGroup::NAME));
        }
        let environment = &self.session.scope.environment;
        let message =
            format!("environment {environment} has {others} resources already that are in no stack");
        Err(Failure::new(Exit::Refused, message).hint(format!(
            "`{}` takes them over; docs/cloudformation.md says how",
            context.command_line("deploy --adopt")
        )))
    }
}

/// Uploads the code, executes just the change set that was shown, and follows it to its end.
pub(in crate::commands) async fn deploy_stack(context: &Context, args: &DeployArgs) -> CommandResult {
    let saved = args.plan.as_deref().map(|path| read_saved(context, path)).transpose()?;
    let folder = args.scope.bundle.clone().unwrap_or_else(|| context.workspace().bundle());
    // A saved plan names the bundle: nothing is built for it.
    let code = if saved.is_some() { CodeSource::At(&folder) } else { args.scope.code() };
    let mut stage = Stage::set(context, &args.scope, code).await?;
    stage.again = args.again();
    if let Some(change_set) = stage.prepare_import(context).await? {
        import(context, &stage, &change_set, args).await?;
        let Stage { session, bundle, again, .. } = stage;
        stage = Stage::of(context, &args.scope, session, bundle, again).await?;
    }
    stage.session.with_canary &= !args.no_canary;
    release(context, stage, saved, args, &How::Deployed).await?.show(context)
}

fn is_new(stack: Option<&Stack>) -> bool {
    stack.is_none_or(Stack::is_new)
}

/// Takes what the direct engine has made into the stack, as it is. Its schedules go on firing meanwhile.
async fn import(
    context: &Context,
    stage: &Stage,
    change_set: &ChangeSet,
    args: &DeployArgs,
) -> CommandResult {
    let cx = stage.cloudside(context);
    if !change_set::is_executable(&cx, &change_set.id).await? {
        change_set::discard(&cx, &change_set.id, Some(&change_set.stack)).await?;
        let message = "CloudFormation cannot import all of this, and nothing was changed";
        return Err(Failure::new(Exit::Refused, message)
            .hint("docs/cloudformation.md says how an environment is made anew in a stack"));
    }
    let approved = stage.session.approve(context, &change_set.plan, "Take into a stack, as it is,", args.yes);
    if let Err(failure) = approved {
        change_set::discard(&cx, &change_set.id, Some(&change_set.stack)).await?;
        return Err(failure);
    }
    exclusively(context, &stage.session, "deploy --adopt", args.break_lock, async |guard| {
        stage.change(context, &cx).execute(change_set, guard).await
    })
    .await
}

/// Whether schedules of both engines are there: those of the direct one go when all else is done.
fn has_schedules_of_both(scope: &Scope, observed: &Observed) -> bool {
    let of_a_stack = scope.schedule_of_a_stack("");
    observed.keys().any(|id| id.kind == Schedule::NAME && id.name.starts_with(&of_a_stack))
}

/// Asks, executes, and records what is live then.
pub(in crate::commands) async fn release(
    context: &Context,
    stage: Stage,
    saved: Option<SavedChangeSet>,
    args: &DeployArgs,
    how: &How,
) -> Result<Released, Failure> {
    let Stage { session, direct, observed, .. } = &stage;
    args.check_protection(session, direct)?;
    cleanup_diff::approve(context, session, direct, args.accept_deletions).await?;
    let change_set = match saved {
        Some(saved) => {
            changeable(context, session, &stage.cloudside(context), true).await?;
            saved
                .check(&session.scope, &code_of(&stage.bundle), &stage.stages.last)
                .map_err(|error| anew(context, args.plan.as_deref(), error.into()))?;
            if saved.change_set.is_none() && !stage.preview(context).await?.is_empty() {
                let error = SavedPlanError::Stale { what: "there is something to do by now".to_owned() };
                return Err(anew(context, args.plan.as_deref(), error.into()));
            }
            saved.change_set
        }
        None => stage.prepare(context).await?,
    };
    let shown = change_set.as_ref().map(|change_set| change_set.plan.clone()).unwrap_or_default();
    if let Err(failure) = session.approve(context, &shown, "Apply this to", args.yes) {
        if let (Some(change_set), None) = (&change_set, &args.plan) {
            stage.discard(context, change_set).await?;
        }
        return Err(failure);
    }
    let history = history(session).await?;
    let moves = has_schedules_of_both(&session.scope, observed);
    let guarded = is_guarded(&stage.cloudside(context), session).await?;
    if change_set.is_none() && !moves && guarded && !is_unrecorded(session, &history, observed) {
        refuse_differences(context, direct)?;
        let settled = Settled { release: history.newest().cloned(), ..Settled::default() };
        return Ok(Released::new(stage.session, Report::default(), stage.observed, settled));
    }
    check_rights_by_engine(context, session, direct).await?;
    let (report, observed, settled) =
        exclusively(context, session, "deploy", args.break_lock, async |guard| {
            let now = session.observe().await?;
            if fingerprint(&now) != fingerprint(observed) {
                return Err(changed_meanwhile(context, observed, &now));
            }
            let report = match &change_set {
                Some(change_set) => carry_out(context, &stage, change_set, guard).await?,
                None => report(&Plan::default(), &std::collections::BTreeMap::new()),
            };
            // By the same declarations and the same look as the direct engine.
            let mut now = session.observe().await?;
            if has_schedules_of_both(&session.scope, &now) {
                let left = Schedule::leave_to_stack(&stage.cloudside(context)).await?;
                context
                    .progress()
                    .note(&format!("the stack has schedules of its own instead of: {}", left.join(", ")));
                now = session.observe().await?;
            }
            guard_stack(&stage.cloudside(context), &stage).await?;
            let whole = plan(&registry(), &session.scope, &stage.desired, &now, &Options::default())?;
            let now = see_it_done(context, session, &now, &whole, &stage.again).await?;
            let (how, git) = (how.clone(), stage.bundle.manifest.git.clone());
            let provenance = Provenance { how, git, plan: &shown, report: &report };
            let settled = settle(context, session, &now, provenance).await?;
            Ok((report, now, settled))
        })
        .await?;
    Ok(Released::new(stage.session, report, observed, settled))
}

/// Whether CloudFormation itself refuses to delete the stack, where the file asks for that.
async fn is_guarded(cx: &Cloudside, session: &Session) -> Result<bool, Failure> {
    Ok(!session.environment.protect || stack::find(cx).await?.is_none_or(|stack| stack.protected))
}

/// Has CloudFormation guard the stack as the file says. An edit of the file alone lifts no protection: the deploy's plan
/// does, to which somebody has said yes by the environment's name.
async fn guard_stack(cx: &Cloudside, stage: &Stage) -> CommandResult {
    let protect = stage.session.environment.protect;
    let differs = stack::find(cx).await?.is_some_and(|stack| stack.protected != protect);
    if differs && (protect || stage.direct.lifts_protection()) {
        stack::protect(cx, protect).await?;
    }
    Ok(())
}

async fn carry_out(
    context: &Context,
    stage: &Stage,
    change_set: &ChangeSet,
    guard: &dyn Guard,
) -> Result<Report, Failure> {
    let cx = stage.cloudside(context);
    let task = context.progress().start(format!("uploading the code to {}", stage.artifacts.bucket));
    stage.artifacts.ensure(&cx).await?;
    let uploaded = stage.artifacts.upload_code(&cx, &stage.bundle).await?;
    task.done(if uploaded == 0 { "it is there already" } else { "" });
    stage.change(context, &cx).carry_out(change_set, guard).await
}

/// What CloudFormation takes for unchanged may have been changed where it does not look, or by somebody whose change it does
/// not take back: that is not as the file says, whatever CloudFormation says.
fn refuse_differences(context: &Context, direct: &Plan) -> CommandResult {
    if direct.is_empty() {
        return Ok(());
    }
    let line = |step: &Step| {
        let properties: Vec<_> = step.changes.iter().map(|change| change.property.as_str()).collect();
        format!("\n  {} differs: {}", step.resource, properties.join(", "))
    };
    let lines: String = direct.pending().map(line).collect();
    let message =
        format!("CloudFormation changes nothing, but AWS shows something else than the file says:{lines}");
    Err(Failure::new(Exit::Failed, message).hint(format!(
        "somebody changed it by hand: change it back, then look with `{}`",
        context.command_line("status")
    )))
}

fn read_saved(context: &Context, path: &Path) -> Result<SavedChangeSet, Failure> {
    SavedChangeSet::read(path).map_err(|error| anew(context, Some(path), error.into()))
}

/// A saved plan that cannot be executed says how to make another.
fn anew(context: &Context, path: Option<&Path>, failure: Failure) -> Failure {
    match path.filter(|_| failure.exit() == Exit::Refused) {
        Some(path) => failure.hint(context.command_line(&format!("plan --out {}", path.display()))),
        None => failure,
    }
}

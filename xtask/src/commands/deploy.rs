//! `cargo xtask deploy`: makes the environment what its file says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use snapwarden_deployer::apply::{Guard, Report, apply};
use snapwarden_deployer::bundle::Bundle;
use snapwarden_deployer::environment::Engine;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Order, Plan, Step, Verb};
use snapwarden_deployer::release::How;
use snapwarden_deployer::rights::simulation;
use snapwarden_deployer::saved_plan::SavedPlan;
use snapwarden_deployer::world::{Observed, differences, fingerprint};

use super::plan::PlanScope;
use super::release::{Provenance, Settled, history, is_unrecorded, settle};
use super::releases::Shown;
use super::status::{firings, resources};
use super::{cleanup_diff, stack};
use crate::context::{Context, block_on};
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::{Approval, CodeSource, Session, code_of};
use crate::{output, render};

/// Flags of `deploy`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct DeployArgs {
    /// Execute a plan that `plan --out` wrote, exactly, or refuse
    #[arg(long, value_name = "FILE", conflicts_with_all = ["adopt", "resume"])]
    pub(super) plan: Option<PathBuf>,
    /// Go ahead without a question
    #[arg(long)]
    pub(super) yes: bool,
    /// Make new versions live without a dry run before; such a release cannot be promoted
    #[arg(long)]
    pub(super) no_canary: bool,
    /// Take the environment's lock from whoever holds it
    #[arg(long)]
    pub(super) break_lock: bool,
    /// Let a changed cleanup policy delete snapshots that the deployed one would not
    #[arg(long)]
    pub(super) accept_deletions: bool,
    /// The environment's name, to lift its protection
    #[arg(long, value_name = "ENV")]
    confirm: Option<String>,
    #[command(flatten)]
    pub(super) scope: PlanScope,
}

impl DeployArgs {
    /// What a promotion leaves to choose.
    pub(super) fn of_promotion(yes: bool, break_lock: bool, accept_deletions: bool) -> Self {
        let scope = PlanScope::default();
        Self { plan: None, yes, no_canary: false, break_lock, accept_deletions, confirm: None, scope }
    }

    /// What `plan` has in common with it.
    pub(super) fn scope(&self) -> &PlanScope {
        &self.scope
    }

    /// The command that goes on where this one stopped, without the environment. A saved plan is not what there is to do
    /// any more.
    pub(super) fn again(&self) -> String {
        let mut command = "deploy".to_owned();
        for (flag, given) in [
            ("--no-canary", self.no_canary),
            ("--accept-deletions", self.accept_deletions),
            ("--yes", self.yes),
        ] {
            if given {
                command = format!("{command} {flag}");
            }
        }
        if let Some(name) = &self.confirm {
            command = format!("{command} --confirm {name}");
        }
        command + &self.scope.flags()
    }

    /// Refuses to lift the protection that AWS remembers without the environment's name: an edit of the file must not.
    pub(super) fn check_protection(&self, session: &Session, plan: &Plan) -> CommandResult {
        let name = session.scope.environment.as_str();
        if !plan.lifts_protection() || self.confirm.as_deref() == Some(name) {
            return Ok(());
        }
        let message = format!("environment {name} is protected, and its file does not say so any more");
        let again = self.again();
        Err(Failure::new(Exit::Refused, message).hint(format!(
            "put `protect: true` back or, to lift the protection: cargo xtask {again} --env {name} --confirm {name}"
        )))
    }
}

/// Plans, asks, applies, and shows what exists now.
pub(crate) fn cmd_deploy(context: &Context, args: &DeployArgs) -> CommandResult {
    if context.engine()? == Engine::Cloudformation {
        return block_on(stack::deploy_stack(context, args));
    }
    block_on(async {
        let mut planned = match &args.plan {
            Some(path) => saved(context, args, path).await?,
            None => fresh(context, args).await?,
        };
        planned.session.with_canary &= !args.no_canary;
        let released = release(context, planned, args, &How::Deployed, &args.again()).await?;
        released.show(context)
    })
}

/// What a deploy came to.
pub(super) struct Released {
    session: Session,
    report: Report,
    observed: Observed,
    settled: Settled,
}

impl Released {
    /// What an engine has done.
    pub(super) fn new(session: Session, report: Report, observed: Observed, settled: Settled) -> Self {
        Self { session, report, observed, settled }
    }

    /// Shows what exists now.
    pub(super) fn show(&self, context: &Context) -> CommandResult {
        let Self { session, report, observed, settled } = self;
        let firings = firings(observed, Timestamp::now());
        let value = json!({
            "environment": session.scope.environment,
            "steps": report.steps,
            "release": settled.release.as_ref().map(|release| Shown::of(release, true)),
            "pruned": settled.pruned,
            "resources": resources(observed),
            "schedules": firings,
            "warnings": session.warnings,
        });
        output::result(context, &value, render::status::inventory(&resources(observed), &firings))
    }
}

/// Asks, applies, and records what is live then.
pub(super) async fn release(
    context: &Context,
    planned: Planned,
    args: &DeployArgs,
    how: &How,
    again: &str,
) -> Result<Released, Failure> {
    let Planned { session, bundle, observed, plan } = planned;
    args.check_protection(&session, &plan)?;
    cleanup_diff::approve(context, &session, &plan, args.accept_deletions).await?;
    let mut approval = session.approve(context, &plan, "Apply this to", args.yes)?;
    if args.plan.is_some() {
        approval = Approval::JustThis;
    }
    let history = history(&session).await?;
    if plan.is_empty() && !is_unrecorded(&session, &history, &observed) {
        let settled = Settled { release: history.newest().cloned(), ..Settled::default() };
        return Ok(Released { session, report: Report::default(), observed, settled });
    }
    check_rights(context, &session, &plan).await?;
    let (report, observed, settled) =
        exclusively(context, &session, "deploy", args.break_lock, async |guard| {
            let now = session.observe().await?;
            let plan = match approval {
                _ if fingerprint(&now) == fingerprint(&observed) => plan.with_revisions_of(&now),
                Approval::JustThis => return Err(changed_meanwhile(context, &observed, &now)),
                Approval::Whatever => {
                    let plan = args.scope.plan(context, &session, &bundle, &now)?;
                    args.check_protection(&session, &plan)?;
                    context.progress().note("the environment changed since it was planned; now it is");
                    context.progress().note(&render::plan::text(&plan, context.verbose()));
                    cleanup_diff::approve(context, &session, &plan, args.accept_deletions).await?;
                    check_rights(context, &session, &plan).await?;
                    plan
                }
            };
            let report = apply_plan(context, &session, Some(bundle.clone()), &plan, guard, again).await?;
            let now = see_it_done(context, &session, &now, &plan, again).await?;
            let (how, git) = (how.clone(), bundle.manifest.git.clone());
            let provenance = Provenance { how, git, plan: &plan, report: &report };
            let settled = settle(context, &session, &now, provenance).await?;
            Ok((report, now, settled))
        })
        .await?;
    Ok(Released { session, report, observed, settled })
}

/// Stops before the first change where IAM says that the caller lacks a right that the plan takes.
pub(super) async fn check_rights<E>(context: &Context, session: &Session<E>, plan: &Plan) -> CommandResult {
    let missing =
        simulation::missing(&session.aws, &session.scope, registry(), plan, &session.caller_arn).await;
    if let (Some(why), true) = (missing.unasked, session.is_on_aws()) {
        let text = format!(
            "rights are not checked beforehand, and one that is missing shows when it is needed: {why} (`{}` lets IAM be \
             asked)",
            context.command_line("policies deployer --principal ARN")
        );
        context.progress().note(&text);
    }
    if !missing.possibly.is_empty() {
        let actions: Vec<&str> = missing.possibly.keys().map(String::as_str).collect();
        let text = format!("IAM does not allow {}, which this may take", actions.join(", "));
        context.progress().note(&text);
    }
    if missing.certainly.is_empty() {
        return Ok(());
    }
    let lines = missing.certainly.iter().flat_map(|(action, resources)| {
        resources.iter().map(move |resource| format!("\n  {action} on {resource}"))
    });
    let message = format!(
        "nothing was changed: IAM does not allow {} what this takes:{}",
        session.caller,
        lines.collect::<String>()
    );
    Err(Failure::new(Exit::Refused, message).hint(format!(
        "`{}` writes a policy that allows all of it",
        context.command_line("policies deployer")
    )))
}

/// Somebody changed the environment between the plan and the yes.
pub(super) fn changed_meanwhile(context: &Context, before: &Observed, now: &Observed) -> Failure {
    let list = differences(before, now).join("\n  ");
    Failure::new(Exit::Refused, format!("the environment changed since it was planned:\n  {list}"))
        .hint(format!("plan anew: {}", context.command_line("plan")))
}

/// Seconds between looks; about a minute in all.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 20, 30];

/// Looks whether AWS shows everything as it was planned: what was not seen is not reported as done. `before` is what the
/// plan was carried out on, and `again` the command that goes on from there.
pub(super) async fn see_it_done<E>(
    context: &Context,
    session: &Session<E>,
    before: &Observed,
    plan: &Plan,
    again: &str,
) -> Result<Observed, Failure> {
    let task = context.progress().start("looking at the result");
    let mut pauses = PAUSES.into_iter();
    loop {
        let seen = session.observe_after(before, plan).await;
        let different: Vec<_> = match &seen {
            Ok(observed) => {
                // Such as a key, which KMS deletes some weeks later.
                let goes = |step: &Step| {
                    let found = observed.get(&step.resource).filter(|_| step.verb == Verb::Delete);
                    found.is_some_and(|found| registry().goes_by_itself(&step.resource, found))
                };
                let different = plan.steps.iter().filter(|step| !step.is_done(observed) && !goes(step));
                different.map(|step| step.resource.to_string()).collect()
            }
            Err(error) => vec![error.to_string()],
        };
        if let (true, Ok(observed)) = (different.is_empty(), seen) {
            task.done("all is as planned");
            return Ok(observed);
        }
        // AWS's services do not show at once what they have accepted.
        let Some(pause) = pauses.next() else {
            let message =
                format!("all steps were done, but AWS shows something else: {}", different.join(", "));
            let status = context.command_line("status");
            let again = context.command_line(again);
            return Err(Failure::new(Exit::Failed, message)
                .hint(format!("look with `{status}`, then: {again}: it goes on where this one stopped")));
        };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

/// A plan with all it was made from.
pub(super) struct Planned {
    pub(super) session: Session,
    pub(super) bundle: Arc<Bundle>,
    pub(super) observed: Observed,
    pub(super) plan: Plan,
}

/// A plan made now, for the bundle of this checkout or the one given.
async fn fresh(context: &Context, args: &DeployArgs) -> Result<Planned, Failure> {
    let (session, bundle) = Session::open_with_code(context, args.scope.code()).await?;
    let observed = session.observe().await?;
    session.refuse_orphans(context, &observed).await?;
    let plan = args.scope.plan(context, &session, &bundle, &observed)?;
    Ok(Planned { session, bundle, observed, plan })
}

/// A plan from a file, if everything is still as it was. Nothing is built: the plan names the bundle.
async fn saved(context: &Context, args: &DeployArgs, path: &std::path::Path) -> Result<Planned, Failure> {
    let anew = |error| {
        let failure = Failure::from(error);
        let out = format!("plan --out {}", path.display());
        if failure.exit() == Exit::Refused { failure.hint(context.command_line(&out)) } else { failure }
    };
    let saved = SavedPlan::read(path).map_err(anew)?;
    let folder = args.scope.bundle.clone().unwrap_or_else(|| context.workspace().bundle());
    let (session, bundle) = Session::open_with_code(context, CodeSource::At(&folder)).await?;
    let observed = session.observe().await?;
    saved.check(&session.scope, &code_of(&bundle), &observed).map_err(anew)?;
    session.refuse_orphans(context, &observed).await?;
    Ok(Planned { session, bundle, observed, plan: saved.plan })
}

/// Applies a plan and turns anything but full success into a failure that says what was done and what was not.
pub(crate) async fn apply_plan<E>(
    context: &Context,
    session: &Session<E>,
    bundle: Option<Arc<Bundle>>,
    plan: &Plan,
    guard: &dyn Guard,
    command: &str,
) -> Result<Report, Failure> {
    let listener = render_apply::listener(context.progress());
    let report = apply(registry(), &session.cloudside(bundle, listener), plan, guard).await;
    if report.succeeded() {
        return Ok(report);
    }
    if context.json() {
        let value = json!({
            "environment": session.scope.environment,
            "steps": report.steps,
            "halted": report.halted,
        });
        output::result(context, &value, "")?;
    }
    Err(Failure::new(Exit::Failed, render_apply::failed(&report))
        .hint(format!("{}: it goes on where this one stopped", context.command_line(command))))
}

//! A stack brought to a template: prepared as change sets that people see first, then carried out, with the canaries in
//! between.

use std::collections::BTreeMap;

use serde_json::Value;
use snapwarden_deployer::apply::{Guard, Outcome, Report, StepReport};
use snapwarden_deployer::cloudformation::Names;
use snapwarden_deployer::cloudformation::artifacts::Artifacts;
use snapwarden_deployer::cloudformation::change_set::{self, ChangeSet, Parameters, Request};
use snapwarden_deployer::cloudformation::follow::follow;
use snapwarden_deployer::cloudformation::import::{Import, ResourceToImport};
use snapwarden_deployer::cloudformation::stack::{self, Stack};
use snapwarden_deployer::cloudformation::stages::{Patched, Stages};
use snapwarden_deployer::kinds::{Alias, Blueprint, Context as Cloudside, Kind};
use snapwarden_deployer::plan::{Plan, Step, Verb};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::release::canary::Canary;

use super::{changeable, check_ended, token};
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::Session;

/// Everything that a change of a stack goes by.
pub(super) struct Change<'a> {
    pub(super) context: &'a Context,
    pub(super) session: &'a Session,
    pub(super) cx: &'a Cloudside,
    pub(super) artifacts: &'a Artifacts,
    pub(super) names: &'a Names,
    pub(super) parameters: Parameters,
    pub(super) stages: &'a Stages,
    /// The same change as the direct engine plans it.
    pub(super) direct: &'a Plan,
    /// Whether that is what people have said yes to.
    pub(super) is_approved: bool,
    /// The command that goes on where this one stopped.
    pub(super) again: &'a str,
}

impl Change<'_> {
    /// Has CloudFormation work out what comes next; `None` where there is nothing to do.
    pub(super) async fn prepare(
        &self,
        stack: Option<&Stack>,
        adopt: bool,
    ) -> Result<Option<ChangeSet>, Failure> {
        let task = self.context.progress().start("asking CloudFormation what changes");
        let mut prepared = None;
        if let Some(first) = &self.stages.first {
            prepared = self.shown(first, stack, adopt).await?.map(|first| {
                let plan = self.stages.whole(first.plan, self.direct, self.names);
                ChangeSet { is_last: false, plan, ..first }
            });
        }
        if prepared.is_none() {
            // What comes first has been done before, or there is nothing that would have to.
            prepared = if self.stages.first.is_none() {
                self.shown(&self.stages.last, stack, adopt).await?
            } else {
                self.create(&self.stages.last, stack, adopt, false, Vec::new()).await?
            };
        }
        task.done("");
        Ok(prepared)
    }

    /// What people are shown first: it takes back what was changed by hand, unless that is more than it should.
    async fn shown(
        &self,
        template: &Value,
        stack: Option<&Stack>,
        adopt: bool,
    ) -> Result<Option<ChangeSet>, Failure> {
        let Some(change_set) = self.create(template, stack, adopt, true, Vec::new()).await? else {
            return Ok(None);
        };
        if !self.does_more(&change_set.plan) {
            return Ok(Some(change_set));
        }
        let review = change_set.creates.then_some(change_set.stack.as_str());
        change_set::discard(self.cx, &change_set.id, review).await?;
        self.create(template, stack, adopt, false, Vec::new()).await
    }

    /// Whether a change set would make again what is there, as CloudFormation may want with a schedule, which it looks for in
    /// the default group; or, where people have seen the direct engine's plan, touch what that keeps.
    fn does_more(&self, plan: &Plan) -> bool {
        plan.pending().any(|step| {
            let direct = self.direct.steps.iter().find(|direct| direct.resource == step.resource);
            direct.is_some_and(|direct| match direct.verb {
                Verb::Create => false,
                Verb::Keep => step.verb == Verb::Create || self.is_approved,
                _ => step.verb == Verb::Create,
            })
        })
    }

    /// Executes what was prepared and what follows on it; what became of every step.
    pub(super) async fn carry_out(
        &self,
        change_set: &ChangeSet,
        guard: &dyn Guard,
    ) -> Result<Report, Failure> {
        if !change_set::is_executable(self.cx, &change_set.id).await? {
            return Err(Failure::new(
                Exit::Refused,
                "the plan is stale: its change set cannot be executed any more",
            )
            .hint(format!("plan anew: {}", self.context.command_line("plan"))));
        }
        if !change_set.is_last {
            self.execute(change_set, guard).await?;
        }
        let canaries = self.try_out(guard).await?;
        if change_set.is_last {
            self.execute(change_set, guard).await?;
        } else {
            self.finish(change_set, guard).await?;
        }
        Ok(report(&change_set.plan, &canaries))
    }

    /// What the first change has left, which is no more than what was shown.
    async fn finish(&self, first: &ChangeSet, guard: &dyn Guard) -> CommandResult {
        let stack = changeable(self.context, self.session, self.cx, false).await?;
        let Some(last) = self.create(&self.stages.last, stack.as_ref(), false, false, Vec::new()).await?
        else {
            return Ok(());
        };
        let is_strange = |step: &&Step| !self.stages.held.contains(&step.resource);
        let strange: Vec<_> =
            last.plan.pending().filter(is_strange).map(|step| step.resource.to_string()).collect();
        if !strange.is_empty() || last.stack != first.stack {
            change_set::discard(self.cx, &last.id, None).await?;
            let message = format!("the environment changed since it was planned: {}", strange.join(", "));
            return Err(Failure::new(Exit::Refused, message)
                .hint(format!("plan anew: {}", self.context.command_line("plan"))));
        }
        self.execute(&last, guard).await
    }

    pub(super) async fn execute(&self, change_set: &ChangeSet, guard: &dyn Guard) -> CommandResult {
        guard.check().await.map_err(|halt| Failure::new(Exit::Failed, halt.0))?;
        let token = token();
        change_set::execute(self.cx, &change_set.id, &token).await?;
        let ended = follow(self.cx, &change_set.stack, &token, self.names, guard).await?;
        check_ended(self.context, self.session, &ended, self.again)
    }

    /// The dry runs of the versions that are about to go live. All of them are tried: whoever mends one wants to know of
    /// the other.
    async fn try_out(&self, guard: &dyn Guard) -> Result<BTreeMap<String, Canary>, Failure> {
        let (mut canaries, mut failed) = (BTreeMap::new(), Vec::new());
        for (alias, wanted) in &self.stages.moving {
            guard.check().await.map_err(|halt| Failure::new(Exit::Failed, halt.0))?;
            let task = self.context.progress().start(format!("trying what {alias} is to serve in a dry run"));
            match Alias::try_published(self.cx, alias, wanted).await {
                Ok(canary) => {
                    task.done(&canary.to_string());
                    canaries.insert(alias.clone(), canary);
                }
                Err(error) => failed.push(error.to_string()),
            }
        }
        if failed.is_empty() {
            return Ok(canaries);
        }
        Err(Failure::new(Exit::Failed, failed.join("\n"))
            .hint(format!("mend what failed, then: {}", self.context.command_line(self.again))))
    }

    /// Has CloudFormation work out how what there is comes into the stack.
    pub(super) async fn prepare_import(
        &self,
        stack: Option<&Stack>,
        import: Import,
    ) -> Result<Option<ChangeSet>, Failure> {
        self.create(&import.template, stack, false, false, import.resources).await
    }

    async fn create(
        &self,
        template: &Value,
        stack: Option<&Stack>,
        adopt: bool,
        reverts_drift: bool,
        import: Vec<ResourceToImport>,
    ) -> Result<Option<ChangeSet>, Failure> {
        let environment = &self.session.environment;
        let request = Request {
            names: self.names,
            source: self.artifacts.source(self.cx, template.to_string()).await?,
            parameters: self.parameters.clone(),
            tags: self.session.scope.tags(environment),
            role: environment.cloudformation.role.as_ref().map(ToString::to_string),
            adopt,
            import,
            reverts_drift,
        };
        Ok(change_set::create(self.cx, request, stack).await?)
    }
}

/// Applies a plan of the direct engine's to the stack: its template as it is, with just these changes.
pub(super) async fn apply(
    context: &Context,
    session: &Session,
    plan: &Plan,
    guard: &dyn Guard,
    again: &str,
) -> Result<Report, Failure> {
    let cx = session.cloudside(None, render_apply::listener(context.progress()));
    let Some(stack) = changeable(context, session, &cx, false).await? else {
        let message = format!("there is no stack {}", session.scope.stack());
        return Err(Failure::new(Exit::Refused, message)
            .hint("the direct engine made this environment; docs/cloudformation.md says how it moves"));
    };
    let policies = role_policies(&session.environment, &session.scope)?;
    let code = BTreeMap::new();
    let blueprint = Blueprint {
        environment: &session.environment,
        scope: &session.scope,
        policies: &policies,
        code: &code,
        draining: None,
    };
    let mut published = BTreeMap::new();
    for step in plan.pending().filter(|step| step.resource.kind == Alias::NAME) {
        let Some(wanted) = &step.wanted else { continue };
        if let Some(number) = Alias::version_like(&cx, &step.resource.name, wanted).await? {
            published.insert(step.resource.name.clone(), number);
        }
    }
    let present = stack::template(&cx).await?;
    let parameters = present["Parameters"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let parameters = Parameters::AsBefore(parameters.collect());
    let Patched { template, names } = Patched::of(present, plan, &published, &blueprint);
    let stages = Stages::of(template, &names, plan, &blueprint);
    let artifacts = Artifacts::of(&session.environment, &session.scope);
    let change = Change {
        context,
        session,
        cx: &cx,
        artifacts: &artifacts,
        names: &names,
        parameters,
        stages: &stages,
        direct: plan,
        is_approved: true,
        again,
    };
    match change.prepare(Some(&stack), false).await? {
        Some(change_set) => change.carry_out(&change_set, guard).await,
        None => Ok(Report::default()),
    }
}

/// Every step was done: of anything else CloudFormation makes a failure of the whole.
pub(super) fn report(plan: &Plan, canaries: &BTreeMap<String, Canary>) -> Report {
    let steps = plan.pending().map(|step| StepReport {
        resource: step.resource.clone(),
        verb: step.verb,
        outcome: Outcome::Done,
        canary: canaries.get(&step.resource.name).filter(|_| step.resource.kind == Alias::NAME).cloned(),
    });
    Report { steps: steps.collect(), halted: None }
}

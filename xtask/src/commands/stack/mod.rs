//! What commands do otherwise where CloudFormation is the engine: the environment is a stack, and a plan is a change set.

mod change;
mod deploy;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use snapwarden_deployer::apply::{Guard, Report};
use snapwarden_deployer::cloudformation::follow::{Ended, follow};
use snapwarden_deployer::cloudformation::stack::{self, Stack, State};
use snapwarden_deployer::environment::{Engine, Identity};
use snapwarden_deployer::kinds::{Context as Cloudside, StepError};
use snapwarden_deployer::plan::Plan;

use super::deploy::{apply_plan, check_rights};
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::apply as render_apply;
use crate::session::Session;

pub(super) use deploy::{Stage, deploy_stack, release};
pub(super) use plan::plan_stack;

/// Applies a plan of the direct engine's, by the engine that the environment has.
pub(super) async fn apply_by_engine(
    context: &Context,
    session: &Session,
    plan: &Plan,
    guard: &dyn Guard,
    again: &str,
) -> Result<Report, Failure> {
    match session.environment.engine {
        Engine::Direct => apply_plan(context, session, None, plan, guard, again).await,
        Engine::Cloudformation => change::apply(context, session, plan, guard, again).await,
    }
}

/// Stops where IAM does not allow the caller what a plan takes. A role that CloudFormation acts as has rights of its own.
pub(super) async fn check_rights_by_engine(
    context: &Context,
    session: &Session,
    plan: &Plan,
) -> CommandResult {
    let environment = &session.environment;
    if environment.engine == Engine::Cloudformation && environment.cloudformation.role.is_some() {
        return Ok(());
    }
    check_rights(context, session, plan).await
}

/// The environment's stack, if it is ours; with `adopt` also one that is nobody's, as it is right after an import. What is
/// under way is waited for: it may be what a command began that was killed.
async fn settled<E>(
    context: &Context,
    session: &Session<E>,
    cx: &Cloudside,
    adopt: bool,
) -> Result<Option<Stack>, Failure> {
    let Some(mut stack) = stack::find(cx).await? else { return Ok(None) };
    let name = session.scope.stack();
    let is_free = adopt && stack.owner().is_none();
    if !stack.is_of(&session.scope) && !is_free {
        let hint = match stack.owner() {
            None => {
                "look at it, and if it is yours, take it over with --adopt; otherwise rename the environment"
            }
            Some(_) => "rename the environment, or delete that stack",
        };
        let owner = stack.owner().map_or("no environment".to_owned(), |owner| format!("environment {owner}"));
        return Err(Failure::new(Exit::Refused, format!("the stack {name} belongs to {owner}")).hint(hint));
    }
    if stack.state() == State::Busy {
        let task = context.progress().start(format!("waiting for CloudFormation, which is busy with {name}"));
        let Some(settled) = stack::settled(cx, &stack.id).await? else { return Ok(None) };
        task.done(&settled.status);
        stack = settled;
    }
    Ok((stack.state() != State::Gone).then_some(stack))
}

/// The same, if it can be changed. Otherwise says how it gets out of its state.
async fn changeable<E>(
    context: &Context,
    session: &Session<E>,
    cx: &Cloudside,
    adopt: bool,
) -> Result<Option<Stack>, Failure> {
    let Some(stack) = settled(context, session, cx, adopt).await? else { return Ok(None) };
    let Some(way_out) = stack.way_out(&session.scope) else { return Ok(Some(stack)) };
    let reason = stack.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = format!("the stack {} is in {}{reason}", session.scope.stack(), stack.status);
    Err(Failure::new(Exit::Refused, message).hint(way_out))
}

/// Deletes the environment's stack, where there is one; whether there was.
pub(super) async fn delete_stack(
    context: &Context,
    session: &Session<Identity>,
    guard: &dyn Guard,
) -> Result<bool, Failure> {
    let cx = session.cloudside(None, render_apply::listener(context.progress()));
    let Some(stack) = settled(context, session, &cx, false).await? else { return Ok(false) };
    if stack.protected {
        stack::protect(&cx, false).await?;
    }
    guard.check().await.map_err(|halt| Failure::new(Exit::Failed, halt.0))?;
    let token = token();
    stack::delete(&cx, &stack.id, session.environment.stack_role.as_deref(), &token).await?;
    let ended = follow(&cx, &stack.id, &token, &BTreeMap::new(), guard).await?;
    if ended.stack.is_none() && ended.halted.is_none() {
        return Ok(true);
    }
    let message = ended.halted.as_ref().map_or_else(
        || {
            let status =
                ended.stack.as_ref().map_or_else(String::new, |stack| format!(": it is in {}", stack.status));
            format!("the stack was not deleted{status}{}", failures(&ended))
        },
        |halted| format!("{halted}; CloudFormation goes on by itself"),
    );
    Err(Failure::new(Exit::Failed, message).hint("mend what failed, then run the command again"))
}

/// Whether the environment has a stack.
pub(super) async fn has_stack(session: &Session<Identity>) -> Result<bool, Failure> {
    let cx = session.cloudside(None, Arc::new(|_| ()));
    Ok(stack::find(&cx).await?.is_some_and(|stack| stack.is_of(&session.scope)))
}

/// Turns anything but full success into a failure that says what failed, what CloudFormation made of it, and what to do.
fn check_ended<E>(context: &Context, session: &Session<E>, ended: &Ended, again: &str) -> CommandResult {
    if let Some(halted) = &ended.halted {
        let message = format!("{halted}; CloudFormation goes on by itself");
        return Err(Failure::new(Exit::Failed, message)
            .hint(format!("see how it ends, and go on from there: {}", context.command_line(again))));
    }
    let again = format!("mend what failed, then: {}", context.command_line(again));
    let Some(stack) = &ended.stack else {
        let message = if ended.failures.is_empty() {
            "CloudFormation does not show the stack any more, nor that anything failed".to_owned()
        } else {
            format!("the stack could not be made, and is gone again{}", failures(ended))
        };
        return Err(Failure::new(Exit::Failed, message).hint(again));
    };
    if matches!(stack.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE") {
        return Ok(());
    }
    let undone = if stack.status == "UPDATE_ROLLBACK_COMPLETE" { ", and all is as before" } else { "" };
    let message = format!("the stack ended in {}{undone}{}", stack.status, failures(ended));
    Err(Failure::new(Exit::Failed, message).hint(stack.way_out(&session.scope).unwrap_or(again)))
}

fn failures(ended: &Ended) -> String {
    let lines: Vec<String> =
        ended.failures.iter().map(|(resource, why)| format!("\n  failed: {resource}: {why}")).collect();
    lines.concat()
}

/// Marks what CloudFormation does because of one command.
fn token() -> String {
    format!("snapwarden-{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond())
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Aws(error) => Self::from(error),
            error => Self::caused_by(Exit::Failed, &error),
        }
    }
}

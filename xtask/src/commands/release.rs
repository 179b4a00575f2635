//! What follows a change of an environment: the release that is live is recorded, and versions that no kept release
//! serves are deleted.

use std::sync::Arc;

use jiff::Timestamp;
use snapwarden_deployer::apply::Report;
use snapwarden_deployer::bundle::Git;
use snapwarden_deployer::kinds::{Alias, Kind, alias_name};
use snapwarden_deployer::plan::Plan;
use snapwarden_deployer::release::canary::{self, Canary, Outcome};
use snapwarden_deployer::release::history::{History, RecordError};
use snapwarden_deployer::release::prune::{Pruned, prune};
use snapwarden_deployer::release::{Content, How, Release};
use snapwarden_deployer::scope::Function;
use snapwarden_deployer::world::Observed;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::session::Session;

/// What is to be recorded of a release beyond what is live.
pub(crate) struct Provenance<'a> {
    /// How it came to be live.
    pub(crate) how: How,
    /// What it was built from.
    pub(crate) git: Option<Git>,
    /// The plan that brought it.
    pub(crate) plan: &'a Plan,
    /// What became of that.
    pub(crate) report: &'a Report,
}

/// What was recorded and deleted.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The release that is live, as it is recorded.
    pub(crate) release: Option<Release>,
    /// The versions that were deleted.
    pub(crate) pruned: Vec<Pruned>,
}

/// Reads what is recorded.
pub(crate) async fn history<E>(session: &Session<E>) -> Result<History, Failure> {
    Ok(History::read(&session.aws, &session.scope).await?)
}

/// Whether something is live that no record tells of: whoever brought it there was interrupted.
pub(crate) fn is_unrecorded<E>(session: &Session<E>, history: &History, observed: &Observed) -> bool {
    let live = Content::of(observed, &session.scope);
    live.is_some() && live.as_ref() != history.newest().map(|release| &release.content)
}

/// Records what is live, unless it is recorded already. Whoever calls this holds the environment's lock.
pub(crate) async fn settle(
    context: &Context,
    session: &Session,
    observed: &Observed,
    provenance: Provenance<'_>,
) -> Result<Settled, Failure> {
    let mut history = history(session).await?;
    let Some(content) = Content::of(observed, &session.scope) else { return Ok(Settled::default()) };
    if history.newest().is_some_and(|newest| newest.content == content) {
        return Ok(Settled { release: history.newest().cloned(), pruned: Vec::new() });
    }
    let Provenance { how, git, plan, report } = provenance;
    let mut canary = std::collections::BTreeMap::new();
    for (function, served) in &content.functions {
        let flown = flown(session, report, *function).filter(|canary| canary.version == served.version);
        // A version that did not change has proven itself before.
        let before = history.releases.iter().rev().filter_map(|release| release.canary.get(function));
        let before = before.filter(|canary| canary.version == served.version).next().cloned();
        let canary_of = match flown.or(before) {
            Some(canary) => canary,
            None => fly(context, session, *function, &served.version).await?,
        };
        canary.insert(*function, canary_of);
    }
    let release = Release {
        number: 0,
        by: session.caller.clone(),
        // Whole seconds are enough, and shorter.
        at: Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| Timestamp::now()),
        how: if plan.is_empty() { How::FoundLive } else { how },
        git,
        content,
        plan: (!plan.is_empty()).then(|| plan.fingerprint()),
        canary,
        previous: history.newest().map(|newest| newest.number),
    };
    history.record(&session.aws, &session.scope, release).await?;
    let release = history.newest().cloned();
    if let Some(release) = &release {
        context.progress().note(&format!("release {} is recorded: {}", release.number, release.how));
        check(context, release)?;
    }
    let keep = usize::try_from(session.environment.releases.keep.get()).unwrap_or(usize::MAX);
    let pruned = prune(&session.aws, &session.scope, &history.releases, keep).await.unwrap_or_else(|error| {
        context
            .progress()
            .note(&format!("old versions could not be deleted, the next release tries again: {error}"));
        Vec::new()
    });
    for Pruned { function, version } in &pruned {
        let name = session.scope.function(*function);
        context
            .progress()
            .note(&format!("version {version} of {name} is deleted: no kept release serves it"));
    }
    Ok(Settled { release, pruned })
}

/// What the deploy saw of a function's canary.
fn flown(session: &Session, report: &Report, function: Function) -> Option<Canary> {
    let alias = alias_name(&session.scope, function);
    let of_alias =
        report.steps.iter().find(|step| step.resource.kind == Alias::NAME && step.resource.name == alias);
    of_alias?.canary.clone()
}

/// The canary of a version that is live already, since whoever tried it did not get to say how it went.
async fn fly(
    context: &Context,
    session: &Session,
    function: Function,
    version: &str,
) -> Result<Canary, Failure> {
    if !session.with_canary {
        return Ok(Canary::skipped(version));
    }
    let name = session.scope.function(function);
    let task = context.progress().start(format!("trying version {version} of {name} in a dry run"));
    let flown = canary::fly(&session.cloudside(None, Arc::new(|_| ())), &name, version).await;
    let canary = flown.map_err(|error| Failure::caused_by(Exit::Failed, &error))?;
    task.done(&canary.to_string());
    Ok(canary)
}

/// Says what a release that was found live has not proven.
fn check(context: &Context, release: &Release) -> Result<(), Failure> {
    let failed: Vec<String> = release
        .canary
        .values()
        .filter(|canary| canary.outcome == Outcome::Failed)
        .map(ToString::to_string)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("what is live does not work: {}", failed.join("; ")))
        .hint(format!("`{}` goes back to the release before", context.command_line("rollback"))))
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::caused_by(Exit::Failed, &error)
            .context("the release is live, but could not be recorded")
            .hint("run the command again: it records what it finds")
    }
}

//! `cargo xtask cleanup-diff`: which snapshots the environment's file would have deleted that the deployed functions
//! would not; and the question that a deploy asks about them.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::{Cloud, CopyPlace, CopyTarget, Environment};
use snapwarden_deployer::inventory;
use snapwarden_deployer::plan::Plan;
use snapwarden_deployer::policy_gate::{NewDeletion, PolicyChange};

use crate::context::{Context, block_on};
use crate::elsewhere::unseen;
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `cleanup-diff`.
#[derive(Args, Debug)]
pub(crate) struct CleanupDiffArgs {}

/// What a changed policy would delete.
#[derive(Debug, Serialize)]
pub(crate) struct CleanupDiff {
    /// The environment's name.
    pub(crate) environment: String,
    /// The next cleanup, as of which both policies were tried.
    pub(crate) at: Timestamp,
    /// What is known of the deployed policy; absent where both delete the same.
    pub(crate) deployed: Option<&'static str>,
    /// What only the new policy would delete, grouped by volume.
    pub(crate) new_deletions: Vec<NewDeletion>,
    /// Where it may delete more, which cannot be seen from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unseen: Vec<CopyPlace>,
}

/// Shows the difference; changes nothing.
pub(crate) fn cmd_cleanup_diff(context: &Context, _: &CleanupDiffArgs) -> CommandResult {
    let diff = block_on(async {
        let session = Session::open(context).await?;
        let observed = session.observe().await?;
        let draining = Draining::of(&observed, &session.scope);
        let desired = session.desired(&BTreeMap::new(), draining)?;
        let change = PolicyChange::pending(&observed, &desired, &session.scope);
        look(context, &session, change).await
    })?;
    output::result(context, &diff, render::cleanup_diff::text(&diff))
}

/// What a plan's new policy would delete, where it changes the policy. A plan changes nothing, so what cannot be read
/// is only said.
pub(crate) async fn preview(context: &Context, session: &Session, plan: &Plan) -> Option<CleanupDiff> {
    let change = PolicyChange::of(plan, &session.scope)?;
    let diff = look(context, session, Some(change)).await.map_err(|failure| failure.context(UNKNOWN));
    diff.map_err(|failure| context.progress().note(&failure.to_string())).ok()
}

const UNKNOWN: &str = "cannot tell what the new cleanup policy would delete";

/// Counts what a plan's new policy would delete, and asks before it is applied. To plan a deploy is no yes to that:
/// it takes a flag of its own.
pub(crate) async fn approve(
    context: &Context,
    session: &Session,
    plan: &Plan,
    accept_deletions: bool,
) -> Result<(), Failure> {
    let Some(change) = PolicyChange::of(plan, &session.scope) else { return Ok(()) };
    let diff = look(context, session, Some(change)).await.map_err(|failure| failure.context(UNKNOWN))?;
    let count = diff.new_deletions.len();
    if count == 0 && diff.unseen.is_empty() {
        return Ok(());
    }
    let text = render::cleanup_diff::text(&diff);
    if accept_deletions {
        context.progress().note(&text);
        return Ok(());
    }
    let mut question =
        format!("Deploy a cleanup policy that deletes {} more", render::cleanup_diff::snapshots(count));
    for place in &diff.unseen {
        question = format!("{question}, and nobody knows how many copies in {place}");
    }
    question.push('?');
    output::confirm_meanwhile(context, &text, &question).await.map_err(|failure| {
        if failure.exit() != Exit::Usage {
            return failure;
        }
        context.progress().note(&text);
        let again = context.command_line("cleanup-diff");
        let lists = if count > 0 { format!("`{again}` lists them; ") } else { String::new() };
        Failure::new(Exit::Refused, failure.to_string())
            .hint(format!("{lists}go ahead with --accept-deletions"))
    })
}

async fn look(
    context: &Context,
    session: &Session,
    change: Option<PolicyChange>,
) -> Result<CleanupDiff, Failure> {
    let at = next_cleanup(&session.environment, Timestamp::now());
    let mut diff = CleanupDiff {
        environment: session.scope.environment.to_string(),
        at,
        deployed: change.as_ref().map(PolicyChange::deployed),
        new_deletions: Vec::new(),
        unseen: Vec::new(),
    };
    if let Some(change) = change {
        let is_emulated = session.environment.cloud == Cloud::Local;
        let (aws, scope) = (&session.aws, &session.scope);
        let home = inventory::of_cleanup(aws, change.after(), Vec::new(), is_emulated).await?;
        diff.new_deletions = change.new_deletions(&home, at);
        // A place that the file does not name any more holds no copies, or the deploy is refused.
        for place in session.environment.copy_to.iter().map(CopyTarget::place) {
            let copies = match inventory::of_cleanup_in(aws, scope, &place, &home, is_emulated).await {
                Ok(copies) => copies,
                Err(error) if place.is_closed(&error) && !change.may_delete_more() => continue,
                Err(error) if place.is_closed(&error) => {
                    context.progress().warn(&unseen(&place));
                    diff.unseen.push(place);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let of_copies = change.new_deletions(&copies, at).into_iter();
            diff.new_deletions.extend(of_copies.map(|new| NewDeletion {
                region: Some(place.region.to_string()),
                account: place.account().map(str::to_owned),
                ..new
            }));
        }
    }
    Ok(diff)
}

/// When cleanup runs next by the environment's file, or now where that is never.
fn next_cleanup(environment: &Environment, now: Timestamp) -> Timestamp {
    let schedule = &environment.cleanup.schedule.expression;
    schedule.next_after(now, environment.timezone.rules(), Some(now)).unwrap_or(now)
}

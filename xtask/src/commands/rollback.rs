//! `cargo xtask rollback`: back to a release that was live before, without a build.

use clap::Args;
use serde_json::json;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, Plan, owned, plan};
use snapwarden_deployer::policy_gate::copy_places_after;
use snapwarden_deployer::release::history::History;
use snapwarden_deployer::release::{Content, Gone, How, Release};
use snapwarden_deployer::world::{Observed, fingerprint};

use super::deploy::{changed_meanwhile, see_it_done};
use super::release::{Provenance, Settled, history, is_unrecorded, settle};
use super::releases::{Shown, commit};
use super::{cleanup_diff, stack};
use crate::context::{Context, block_on};
use crate::elsewhere::refuse_forgotten;
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::Session;

/// Flags of `rollback`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct RollbackArgs {
    /// The release, as `releases` numbers them [default: the one that was live before]
    #[arg(long, value_name = "RELEASE")]
    to: Option<i64>,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
    /// Make the release live without a dry run of its versions before
    #[arg(long)]
    no_canary: bool,
    /// Take the environment's lock from whoever holds it
    #[arg(long)]
    break_lock: bool,
    /// Let the release's cleanup policy delete snapshots that the present one would not
    #[arg(long)]
    accept_deletions: bool,
}

impl RollbackArgs {
    fn again(&self, to: i64) -> String {
        let mut command = format!("rollback --to {to}");
        for (flag, given) in [
            ("--no-canary", self.no_canary),
            ("--accept-deletions", self.accept_deletions),
            ("--yes", self.yes),
        ] {
            if given {
                command = format!("{command} {flag}");
            }
        }
        command
    }
}

/// Moves the aliases back, gives the roles the release's rights, and records it. Schedules, alarms and what else is no
/// part of a release stay as they are.
pub(crate) fn cmd_rollback(context: &Context, args: &RollbackArgs) -> CommandResult {
    block_on(async {
        let mut session = Session::open(context).await?;
        session.with_canary &= !args.no_canary;
        let observed = session.observe().await?;
        let history = history(&session).await?;
        let release = choose(context, &session, &history, &observed, args.to)?;
        let plan = plan_rollback(context, &session, release, &observed).await?;
        context.progress().note(&format!(
            "back to release {} of {}: commit {}",
            release.number,
            session.scope.environment,
            commit(release)
        ));
        if let Some(kept) = copy_places_after(&plan, &session.scope) {
            let whose = format!("release {}", release.number);
            refuse_forgotten(context, &session, &observed, &kept, &whose).await?;
        }
        cleanup_diff::approve(context, &session, &plan, args.accept_deletions).await?;
        session.approve(context, &plan, "Roll back", args.yes)?;
        let unrecorded = is_unrecorded(&session, &history, &observed);
        let (report, settled) = if plan.is_empty() && !unrecorded {
            context.progress().note("nothing to do: it is live already");
            Default::default()
        } else {
            stack::check_rights_by_engine(context, &session, &plan).await?;
            exclusively(context, &session, "rollback", args.break_lock, async |guard| {
                let now = session.observe().await?;
                if fingerprint(&now) != fingerprint(&observed) {
                    return Err(changed_meanwhile(context, &observed, &now));
                }
                let plan = plan.clone().with_revisions_of(&now);
                let again = args.again(release.number);
                let report = stack::apply_by_engine(context, &session, &plan, guard, &again).await?;
                let now = see_it_done(context, &session, &now, &plan, &again).await?;
                let provenance = Provenance {
                    how: How::RolledBackTo(release.number),
                    git: release.git.clone(),
                    plan: &plan,
                    report: &report,
                };
                let settled = settle(context, &session, &now, provenance).await?;
                Ok((report, settled))
            })
            .await?
        };
        let Settled { release: recorded, pruned } = settled;
        let value = json!({
            "environment": session.scope.environment,
            "to": release.number,
            "steps": report.steps,
            "release": recorded.as_ref().map(|recorded| Shown::of(recorded, true)),
            "pruned": pruned,
        });
        let text = format!("environment {} is back at release {}", session.scope.environment, release.number);
        output::result(context, &value, text)
    })
}

/// The release that is asked for, or the one before what is live. Where what is live was never recorded, that is the
/// newest one.
fn choose<'a>(
    context: &Context,
    session: &Session,
    history: &'a History,
    observed: &Observed,
    to: Option<i64>,
) -> Result<&'a Release, Failure> {
    let list = context.command_line("releases");
    if let Some(number) = to {
        return history.get(number).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("no release {number} is recorded"))
                .hint(format!("`{list}` lists them"))
        });
    }
    let live = Content::of(observed, &session.scope);
    let before = match history.newest() {
        Some(newest) if live.as_ref() != Some(&newest.content) => Some(newest),
        _ => history.before_newest(),
    };
    before.ok_or_else(|| {
        Failure::new(Exit::Refused, "no other release is recorded: there is nothing to go back to")
            .hint(format!("`{list}` lists them"))
    })
}

async fn plan_rollback(
    context: &Context,
    session: &Session,
    release: &Release,
    observed: &Observed,
) -> Result<Plan, Failure> {
    let ours = owned(&registry(), &session.scope, observed);
    let desired = release
        .desired(&session.aws, &session.scope, &ours)
        .await
        .map_err(|error| gone(context, release, error))?;
    Ok(plan(&registry(), &session.scope, &desired, &ours, &Options::default())?)
}

fn gone(context: &Context, release: &Release, error: Gone) -> Failure {
    match error {
        Gone::Aws(error) => error.into(),
        error => Failure::new(Exit::Refused, format!("release {} cannot come back: {error}", release.number))
            .hint(format!(
                "deploy it instead: check out {} and run `{}`",
                commit(release),
                context.command_line("deploy")
            )),
    }
}

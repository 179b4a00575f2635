//! `cargo xtask destroy --drain`: backups end, and cleanup goes on until the last `DeleteOn` has come.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use snapwarden_deployer::apply::Report;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::inventory::{self, Snapshot};
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, Plan, plan};
use snapwarden_deployer::world::{Observed, fingerprint};
use snapwarden_domain::event::day;

use super::deploy::{apply_plan, changed_meanwhile};
use super::destroy::DestroyArgs;
use super::status::deployed_code;
use crate::context::Context;
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::{Approval, Session};

/// Plans a deploy of what is deployed already, without backups, and applies it.
pub(super) async fn drain(context: &Context, args: &DestroyArgs) -> CommandResult {
    let session = Session::open(context).await?;
    let observed = session.observe().await?;
    if observed.is_empty() {
        return Err(Failure::new(Exit::Failed, "nothing is deployed that could be drained"));
    }
    let since = day(Timestamp::now(), &session.environment.timezone);
    let began = Draining::of(&observed, &session.scope);
    let draining = Draining {
        since: began.map_or(since, |draining| draining.since),
        without_floor: args.lift_floor || began.is_some_and(|draining| draining.without_floor),
    };
    let plan = plan_drain(&session, &observed, draining)?;
    let mut report = Report::default();
    if !plan.is_empty() {
        let approval = session.approve(context, &plan, "Stop the backups of", args.yes)?;
        report = exclusively(context, &session, "destroy --drain", args.break_lock, async |guard| {
            let now = session.observe().await?;
            if approval == Approval::JustThis && fingerprint(&now) != fingerprint(&observed) {
                return Err(changed_meanwhile(context, &observed, &now));
            }
            let plan = plan_drain(&session, &now, draining)?;
            apply_plan(context, &session, None, &plan, guard, "destroy --drain").await
        })
        .await?;
    }
    let snapshots = inventory::snapshots(&session.aws, &session.scope).await?;
    let outlook = Outlook::of(draining, &snapshots, session.environment.cleanup.floor.get());
    let value =
        json!({ "environment": session.scope.environment, "steps": report.steps, "draining": outlook });
    output::result(context, &value, outlook.text(context))
}

fn plan_drain(session: &Session, observed: &Observed, draining: Draining) -> Result<Plan, Failure> {
    let desired = session.desired(&deployed_code(&session.scope, observed), Some(draining))?;
    Ok(plan(&registry(), &session.scope, &desired, observed, &Options::default())?)
}

/// How far a draining environment is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outlook {
    /// The day on which backups stopped.
    pub(crate) since: jiff::civil::Date,
    /// How many snapshots it still has.
    pub(crate) snapshots: usize,
    /// When the last of them is due, `YYYY-MM-DD`.
    pub(crate) last_due: Option<String>,
    /// Whether cleanup's floor holds the newest copies beyond that day.
    pub(crate) floor_holds: bool,
}

impl Outlook {
    pub(super) fn of(draining: Draining, snapshots: &[Snapshot], floor: u32) -> Self {
        Self {
            since: draining.since,
            snapshots: snapshots.len(),
            // The form sorts like the dates.
            last_due: snapshots.iter().filter_map(|snapshot| snapshot.delete_on.clone()).max(),
            floor_holds: floor > 0 && !draining.without_floor && !snapshots.is_empty(),
        }
    }

    /// What happens next, and what to do then.
    pub(super) fn text(&self, context: &Context) -> String {
        let since = self.since;
        let destroy = context.command_line("destroy");
        let Some(last_due) = &self.last_due else {
            return format!(
                "drained: no backups since {since}, and no snapshots remain; end it with `{destroy}`"
            );
        };
        let count = self.snapshots;
        let mut text = format!(
            "draining since {since}: backups have stopped, cleanup goes on; the last of {count} snapshots is due on \
             {last_due}, then end it with `{destroy}`"
        );
        if self.floor_holds {
            let lift = context.command_line("destroy --drain --lift-floor");
            text.push_str(&format!(
                "\nthe newest copies of each instance stay beyond that, by cleanup.floor; `{lift}` lifts it"
            ));
        }
        text
    }
}

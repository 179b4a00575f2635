//! `cargo xtask destroy --drain`: backups end, and cleanup goes on until the last `DeleteOn` has come.

use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use snapwarden_deployer::apply::Report;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::{CopyPlace, CopyTarget};
use snapwarden_deployer::inventory::{self, Snapshot};
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, Plan, owned, plan};
use snapwarden_deployer::policy_gate::copy_places;
use snapwarden_deployer::release::How;
use snapwarden_deployer::world::{Observed, fingerprint};
use snapwarden_domain::event::day;
use snapwarden_domain::retention::DeleteOn;

use super::deploy::{changed_meanwhile, see_it_done};
use super::destroy::{DestroyArgs, check_protection};
use super::release::{Provenance, history, settle};
use super::stack;
use crate::context::Context;
use crate::elsewhere::{Elsewhere, unseen};
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::{Approval, Session};

/// Plans what is deployed already, but without backups, and applies it. What else the file asks for by now is left to
/// a deploy.
pub(super) async fn drain(context: &Context, args: &DestroyArgs) -> CommandResult {
    let session = Session::open(context).await?;
    let observed = session.observe().await?;
    if observed.is_empty() {
        return Err(Failure::new(Exit::Failed, "nothing is deployed that could be drained"));
    }
    session.check_role_names(context, &observed).await?;
    let protect = session.environment.protect;
    check_protection(&session.scope, protect, &observed, args)?;
    let since = day(Timestamp::now(), &session.environment.timezone);
    let began = Draining::of(&observed, &session.scope);
    let draining = Draining {
        since: began.map_or(since, |draining| draining.since),
        without_floor: args.lift_floor || began.is_some_and(|draining| draining.without_floor),
    };
    let plan = plan_drain(context, &session, &observed, draining)?;
    let mut report = Report::default();
    if !plan.is_empty() {
        stack::check_rights_by_engine(context, &session, &plan).await?;
        let approval = session.approve(context, &plan, "Stop the backups of", args.yes)?;
        report = exclusively(context, &session, "destroy --drain", args.break_lock, async |guard| {
            let now = session.observe().await?;
            if approval == Approval::JustThis && fingerprint(&now) != fingerprint(&observed) {
                return Err(changed_meanwhile(context, &observed, &now));
            }
            check_protection(&session.scope, protect, &now, args)?;
            let plan = plan_drain(context, &session, &now, draining)?;
            let report = stack::apply_by_engine(context, &session, &plan, guard, &args.again()).await?;
            let now = see_it_done(context, &session, &now, &plan, &args.again()).await?;
            let git = history(&session).await?.newest().and_then(|newest| newest.git.clone());
            let provenance = Provenance { how: How::Deployed, git, plan: &plan, report: &report };
            settle(context, &session, &now, provenance).await?;
            Ok(report)
        })
        .await?;
    }
    let mut snapshots = inventory::snapshots(&session.aws, &session.scope).await?;
    let file = session.environment.copy_to.iter().map(CopyTarget::place);
    let places = copy_places(&observed, &session.scope, file);
    let elsewhere = Elsewhere::look(context, &session, &places).await?;
    snapshots.extend(elsewhere.all().cloned());
    let floor = session.environment.cleanup.floor.get();
    let outlook = Outlook::of(draining, &snapshots, &elsewhere.unseen, floor);
    let value =
        json!({ "environment": session.scope.environment, "steps": report.steps, "draining": outlook });
    output::result(context, &value, outlook.text(context))
}

fn plan_drain(
    context: &Context,
    session: &Session,
    observed: &Observed,
    draining: Draining,
) -> Result<Plan, Failure> {
    let ours = owned(&registry(), &session.scope, observed);
    let desired = draining.of_what_is_there(&ours, &session.scope).map_err(|error| {
        Failure::new(Exit::Failed, error.to_string())
            .hint(format!("deploy first, then drain: {}", context.command_line("deploy")))
    })?;
    Ok(plan(&registry(), &session.scope, &desired, &ours, &Options::default())?)
}

/// How far a draining environment is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outlook {
    /// The day on which backups stopped.
    pub(crate) since: jiff::civil::Date,
    /// How many snapshots it still has, copies elsewhere among them.
    pub(crate) snapshots: usize,
    /// When the last of them is due.
    pub(crate) last_due: Option<DeleteOn>,
    /// How many have no `DeleteOn` that can be read, and stay for good.
    pub(crate) never_due: usize,
    /// Whether cleanup's floor holds the newest copies beyond that day.
    pub(crate) floor_holds: bool,
    /// Where there may be more, which cannot be seen from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unseen: Vec<CopyPlace>,
}

impl Outlook {
    pub(super) fn of(draining: Draining, snapshots: &[Snapshot], unseen: &[CopyPlace], floor: u32) -> Self {
        let due = |snapshot: &Snapshot| snapshot.delete_on.as_ref()?.parse::<DeleteOn>().ok();
        Self {
            since: draining.since,
            snapshots: snapshots.len(),
            last_due: snapshots.iter().filter_map(due).max(),
            never_due: snapshots.iter().filter(|snapshot| due(snapshot).is_none()).count(),
            floor_holds: floor > 0 && !draining.without_floor && !snapshots.is_empty(),
            unseen: unseen.to_vec(),
        }
    }

    /// Whether nothing is left that anybody would have to delete.
    pub(super) fn is_over(&self) -> bool {
        self.snapshots == 0 && self.unseen.is_empty()
    }

    /// What happens next, and what to do then.
    pub(super) fn text(&self, context: &Context) -> String {
        let since = self.since;
        let destroy = context.command_line("destroy");
        if self.is_over() {
            return format!(
                "drained: no backups since {since}, and no snapshots remain; end it with `{destroy}`"
            );
        }
        let count = self.snapshots;
        let mut text = format!("draining since {since}: backups have stopped, cleanup goes on");
        if count == 0 {
            text.push_str("; no snapshots remain here");
        }
        if let Some(last_due) = self.last_due {
            // Writing to a string cannot fail.
            let _ = write!(text, "; the last of {count} snapshots is due on {last_due}");
            if self.unseen.is_empty() {
                let _ = write!(text, ", then end it with `{destroy}`");
            }
        }
        for place in &self.unseen {
            let look = context.command_line("invoke cleanup --dry-run");
            let _ =
                write!(text, "\n{}; do not end it before `{look}` says that there are none", unseen(place));
        }
        if self.never_due > 0 {
            let _ = write!(text, "\n{} have no readable DeleteOn, and stay for good", self.never_due);
        }
        if self.floor_holds {
            let lift = context.command_line("destroy --drain --lift-floor");
            let _ = write!(
                text,
                "\nthe newest copies of each instance stay beyond that, by cleanup.floor; `{lift}` lifts it"
            );
        }
        text
    }
}

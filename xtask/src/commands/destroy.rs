//! `cargo xtask destroy`: deletes everything that a deploy made; the snapshots stay, unless they are purged.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use snapwarden_deployer::apply::Report;
use snapwarden_deployer::environment::{CopyPlace, Engine, Identity, LogsOnDestroy, Pricing};
use snapwarden_deployer::inventory::{self, Snapshot};
use snapwarden_deployer::kinds::key::{Needing, Whose, needing};
use snapwarden_deployer::kinds::{Key, Kind, LogGroup, Schedule, read, registry};
use snapwarden_deployer::lock::{Parameter, Slot};
use snapwarden_deployer::plan::{Options, Plan, Verb, owned, plan};
use snapwarden_deployer::policy_gate::copy_places;
use snapwarden_deployer::purge::Purged;
use snapwarden_deployer::release::history::History;
use snapwarden_deployer::scope::{PROTECTED_TAG, Scope};
use snapwarden_deployer::world::{Desired, Observed, ResourceId, fingerprint};

use super::deploy::{apply_plan, changed_meanwhile, check_rights, see_it_done};
use super::{drain, purge, stack};
use crate::context::{Context, block_on};
use crate::elsewhere::{Elsewhere, out_of_reach, shared, take_back, unseen};
use crate::exclusive::exclusively;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::session::{Approval, Session};

/// Flags of `destroy`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct DestroyArgs {
    /// Go ahead without a question
    #[arg(long)]
    pub(super) yes: bool,
    /// The environment's name, to destroy a protected one
    #[arg(long, value_name = "ENV")]
    confirm: Option<String>,
    /// What becomes of the environment's snapshots
    #[arg(long, value_enum, default_value_t, conflicts_with = "drain")]
    snapshots: Snapshots,
    /// Only stop backups, and let cleanup go on until the last `DeleteOn` has come
    #[arg(long)]
    drain: bool,
    /// With --drain: let cleanup delete the newest copies too, which its floor holds otherwise
    #[arg(long, requires = "drain")]
    pub(super) lift_floor: bool,
    /// Take the environment's lock from whoever holds it
    #[arg(long)]
    pub(super) break_lock: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Snapshots {
    /// They stay, and nobody deletes them any more
    #[default]
    Keep,
    /// They are deleted, whatever their `DeleteOn` says
    Purge,
}

impl DestroyArgs {
    /// The same command, as people type it, without the environment.
    pub(super) fn again(&self) -> String {
        let mut command = "destroy".to_owned();
        for (flag, given) in [
            ("--snapshots purge", self.snapshots == Snapshots::Purge),
            ("--drain", self.drain),
            ("--lift-floor", self.lift_floor),
            ("--yes", self.yes),
        ] {
            if given {
                command = format!("{command} {flag}");
            }
        }
        match &self.confirm {
            Some(name) => format!("{command} --confirm {name}"),
            None => command,
        }
    }
}

/// Plans the way to nothing, asks, applies, and says what remains.
pub(crate) fn cmd_destroy(context: &Context, args: &DestroyArgs) -> CommandResult {
    block_on(async {
        if args.drain {
            return drain::drain(context, args).await;
        }
        let mut session = Session::open_identity(context).await?;
        let mut observed = session.observe().await?;
        // The file may have lost what the roles were called.
        if let Some(former) = session.former_scope(&observed).await? {
            session.scope = former;
            observed = session.observe().await?;
        }
        let protect = session.environment.protect;
        let purging = args.snapshots == Snapshots::Purge;
        let places = copy_places(&observed, &session.scope, session.environment.copy_places.iter().cloned());
        let key = OwnKey::look(&session, &observed, purging.then_some(Whose::OfOthers)).await?;
        let plan = plan_destroy(&session, &observed, key.as_ref())?;
        let mut doomed = Vec::new();
        if purging {
            let inventory = inventory_of(context, &session, &places, purging).await?;
            doomed = all_of(&inventory);
            purge::tell_of_copies(context, &inventory.1);
        }
        let (mut report, mut outcome) = (Report::default(), Purged::default());
        // Under a stack nothing is deleted piece by piece, whatever the file says by now.
        let is_stacks =
            session.environment.engine == Engine::Cloudformation || Schedule::of_a_stack(&observed);
        let by_stack = is_stacks && stack::has_stack(&session).await?;
        let nothing = plan.is_empty() && doomed.is_empty() && !by_stack;
        // Log groups that were kept are still marked as protected, and need no confirmation to be kept.
        if !nothing {
            check_protection(&session.scope, protect, &observed, args)?;
            if !(by_stack && session.environment.stack_role.is_some()) {
                check_rights(context, &session, &plan).await?;
            }
        }
        // What dies right before its end leaves nothing else than the records of the releases, or its lock.
        if !nothing
            || Parameter::of(&session.aws, &session.scope).read().await?.is_some()
            || History::read(&session.aws, &session.scope).await? != History::default()
        {
            let approval =
                if nothing { Approval::JustThis } else { approve(context, &session, &plan, &doomed, args)? };
            (report, outcome) = exclusively(context, &session, "destroy", args.break_lock, async |guard| {
                let mut now = session.observe().await?;
                if approval == Approval::JustThis && fingerprint(&now) != fingerprint(&observed) {
                    return Err(changed_meanwhile(context, &observed, &now));
                }
                if !nothing {
                    check_protection(&session.scope, protect, &now, args)?;
                }
                let mut outcome = Purged::default();
                if purging && !nothing {
                    outcome =
                        purge::halt_and_purge(context, &session, &now, &places, guard, &args.again()).await?;
                    now = session.observe().await?;
                }
                if by_stack && stack::delete_stack(context, &session, guard).await? {
                    now = session.observe().await?;
                }
                let key = OwnKey::look(&session, &now, purging.then_some(Whose::Anybodys)).await?;
                let plan = plan_destroy(&session, &now, key.as_ref())?;
                let report = apply_plan(context, &session, None, &plan, guard, &args.again()).await?;
                see_it_done(context, &session, &now, &plan, &args.again()).await?;
                History::forget(&session.aws, &session.scope).await?;
                Ok((report, outcome))
            })
            .await?;
        }
        let (remaining, elsewhere) = inventory_of(context, &session, &places, purging).await?;
        let shared = shared(&session, &places).await?;
        let key = match session.scope.encryption.made() {
            Some(_) => OwnKey::look(&session, &session.observe().await?, Some(Whose::Anybodys)).await?,
            None => None,
        };
        let kept = plan.steps.iter().filter(|step| step.verb == Verb::Keep);
        let kept: Vec<_> = kept.map(|step| step.resource.to_string()).collect();
        let value = json!({
            "environment": session.scope.environment,
            "steps": report.steps,
            "kept": kept,
            "left_alone": plan.left_alone,
            "purged": outcome,
            "snapshots": remaining,
            "copies": elsewhere.copies,
            "unseen": elsewhere.unseen,
            "shared": shared,
            "key": key,
        });
        let pricing = &session.environment.pricing;
        let deleted = if by_stack { plan.count(Verb::Delete) } else { report.steps.len() };
        let mut text =
            text(&session.scope, deleted, &kept, &plan, &outcome, (&remaining, &elsewhere), pricing);
        for (account, ids) in &shared {
            text = format!("{text}\n{}", still_shared(&session.scope, account, ids));
        }
        if let Some(key) = key {
            text = format!("{text}\n{}", key.text(&session.scope));
        }
        output::result(context, &value, text)?;
        let left = if purging { all_of(&(remaining, elsewhere)) } else { Vec::new() };
        purge::all_or_failure(&outcome, &left)
    })
}

/// The environment's snapshots, and its copies by place.
type Inventory = (Vec<Snapshot>, Elsewhere);

/// What there is; who deletes everything has to see everything.
async fn inventory_of(
    context: &Context,
    session: &Session<Identity>,
    places: &BTreeSet<CopyPlace>,
    purging: bool,
) -> Result<Inventory, Failure> {
    let (aws, scope) = (&session.aws, &session.scope);
    let own = inventory::snapshots(aws, scope).await?;
    if !purging {
        return Ok((own, Elsewhere::look(context, session, places).await?));
    }
    let mut elsewhere = Elsewhere::default();
    for place in places {
        let copies = inventory::copies(aws, scope, place).await;
        elsewhere.copies.insert(place.clone(), copies.map_err(|error| out_of_reach(error, place))?);
    }
    Ok((own, elsewhere))
}

fn all_of((own, elsewhere): &Inventory) -> Vec<Snapshot> {
    own.iter().chain(elsewhere.all()).cloned().collect()
}

fn approve(
    context: &Context,
    session: &Session<Identity>,
    plan: &Plan,
    doomed: &[Snapshot],
    args: &DestroyArgs,
) -> Result<Approval, Failure> {
    if doomed.is_empty() {
        return session.approve(context, plan, "Delete", args.yes);
    }
    context.progress().note(&purge::listing(doomed));
    let question = format!("Delete {} and everything of", purge::counted(doomed));
    session.approve_with(context, plan, false, &question, args.yes)
}

/// A plan whose desired state is nothing at all.
fn plan_destroy(
    session: &Session<Identity>,
    observed: &Observed,
    key: Option<&OwnKey>,
) -> Result<Plan, Failure> {
    let mut retain = BTreeSet::new();
    if session.environment.logs == LogsOnDestroy::Keep {
        retain.insert(LogGroup::NAME);
    }
    if key.is_some_and(OwnKey::stays) {
        retain.insert(Key::NAME);
    }
    let options = Options { retain, ..Options::default() };
    Ok(plan(&registry(), &session.scope, &Desired::new(), observed, &options)?)
}

/// The key of the environment's own, which a destroy leaves: nothing that it encrypted could be read without it.
#[derive(Debug, Serialize)]
struct OwnKey {
    alias: String,
    arn: String,
    /// As KMS says, such as `PendingDeletion`.
    state: String,
    /// What could not be read without it; absent where nobody asks, since it stays in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed_by: Option<Needing>,
}

impl OwnKey {
    /// Looks at it; only who means to end it has to know what it is needed for, and whose snapshots will be left.
    async fn look(
        session: &Session<Identity>,
        observed: &Observed,
        whose: Option<Whose>,
    ) -> Result<Option<Self>, Failure> {
        let alias = session.scope.key_alias();
        let ours = owned(&registry(), &session.scope, observed);
        let Some(found) = ours.get(&ResourceId::new(Key::NAME, alias.as_str())) else { return Ok(None) };
        let found = read::<Key>(found)?;
        let needed_by = match whose {
            Some(whose) => {
                let mut needing = needing(&session.aws, &session.scope, &found.handle, whose).await?;
                if session.environment.logs == LogsOnDestroy::Delete {
                    // They go first.
                    needing.log_groups.clear();
                }
                Some(needing)
            }
            None => None,
        };
        let state = found.properties.state().to_owned();
        Ok(Some(Self { alias, arn: found.handle.arn, state, needed_by }))
    }

    fn stays(&self) -> bool {
        self.needed_by.as_ref().is_none_or(|needing| !needing.is_empty())
    }

    /// What remains, and what can be done about it.
    fn text(&self, scope: &Scope) -> String {
        let Self { alias, arn, state, needed_by } = self;
        if state == "PendingDeletion" {
            let days = scope.encryption.made().map_or(0, |made| made.deletion_window_days.get());
            return format!(
                "the key {alias} ({arn}) is to be deleted, {days} days after the command that ended it; until then a \
                 deploy takes it up again"
            );
        }
        let purge = format!(
            "`cargo xtask destroy --snapshots purge --env {}` schedules its deletion",
            scope.environment
        );
        match needed_by.as_ref().filter(|needing| !needing.is_empty()) {
            Some(needing) => format!(
                "the key {alias} ({arn}) stays: {needing} could not be read without it; when they are gone, {purge}, and \
                 until then a later deploy goes on with it"
            ),
            None => format!("the key {alias} ({arn}) stays, and nothing needs it any more: {purge}"),
        }
    }
}

/// Protection counts where the file says so, and where AWS remembers it: an edit of the file does not lift it.
pub(super) fn check_protection(
    scope: &Scope,
    protect: bool,
    observed: &Observed,
    args: &DestroyArgs,
) -> CommandResult {
    let name = scope.environment.as_str();
    if let Some(confirmed) = args.confirm.as_deref().filter(|confirmed| *confirmed != name) {
        return Err(Failure::new(
            Exit::Refused,
            format!("--confirm names `{confirmed}`, but the environment is `{name}`"),
        ));
    }
    let remembered = observed
        .values()
        .filter_map(|found| found.tags.as_ref())
        .any(|tags| scope.owns(tags) && tags.get(PROTECTED_TAG).is_some_and(|value| value == "true"));
    if (protect || remembered) && args.confirm.is_none() {
        let again = args.again();
        return Err(Failure::new(Exit::Refused, format!("environment {name} is protected"))
            .hint(format!("if you mean it: cargo xtask {again} --env {name} --confirm {name}")));
    }
    Ok(())
}

fn text(
    scope: &Scope,
    deleted: usize,
    kept: &[String],
    plan: &Plan,
    purged: &Purged,
    (remaining, elsewhere): (&[Snapshot], &Elsewhere),
    pricing: &Pricing,
) -> String {
    let name = &scope.environment;
    let mut text = match deleted {
        0 => format!("environment {name}: there was nothing to delete\n"),
        _ => format!("environment {name}: {deleted} resources deleted\n"),
    };
    if !kept.is_empty() {
        text = format!("{text}kept: {}\n", kept.join(", "));
    }
    if !plan.left_alone.is_empty() {
        let strangers: Vec<_> = plan.left_alone.iter().map(ToString::to_string).collect();
        text =
            format!("{text}left alone, since they lack this environment's tag: {}\n", strangers.join(", "));
    }
    if !purged.deleted.is_empty() {
        text = format!("{text}{} snapshots deleted\n", purged.deleted.len());
    }
    for (place, copies) in elsewhere.copies.iter().filter(|(_, copies)| !copies.is_empty()) {
        let count = purge::copies_of(copies);
        text = format!("{text}in {place}: {count} remain, too\n{}\n", billed(copies, pricing));
    }
    for place in &elsewhere.unseen {
        text = format!("{text}{}, and nobody deletes them any more\n", unseen(place));
    }
    let is_all = elsewhere.unseen.is_empty() && elsewhere.all().next().is_none();
    text + &match remaining.len() {
        0 if !is_all => "no other snapshots remain".to_owned(),
        0 => "no snapshots remain".to_owned(),
        1 => format!(
            "1 snapshot remains, and nobody enforces its DeleteOn now\n{}",
            billed(remaining, pricing)
        ),
        count => {
            format!(
                "{count} snapshots remain, and nobody enforces their DeleteOn now\n{}",
                billed(remaining, pricing)
            )
        }
    }
}

/// What another account can still read, since it was about to copy it.
fn still_shared(scope: &Scope, account: &str, ids: &BTreeSet<String>) -> String {
    format!(
        "account {account} may still read {} of them; take that back, {}",
        ids.len(),
        take_back(scope, account, ids)
    )
}

/// What it means to forget them.
fn billed(snapshots: &[Snapshot], pricing: &Pricing) -> String {
    let gib: i64 = snapshots.iter().map(|snapshot| i64::from(snapshot.size_gib)).sum();
    // Snapshots hold what has changed since the one before, so this is the most that it can be.
    let most = pricing.a_month(gib);
    format!(
        "AWS bills them month by month until somebody deletes them, for at most {gib} GiB in all, {most} a \
         month; a later deploy takes care of them again, and `destroy --snapshots purge` deletes them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever leaves snapshots behind decides to go on paying for them, and has to see how much.
    #[test]
    fn what_stays_says_what_it_costs() {
        let snapshot = Snapshot {
            delete_on: None,
            snapshot: "snap-1".to_owned(),
            volume: "vol-1".to_owned(),
            instance: None,
            state: "completed".to_owned(),
            encrypted: true,
            size_gib: 100,
            started_at: None,
        };
        let pricing = Pricing { gib_month: 0.054, currency: "EUR".to_owned() };
        let text = billed(&[snapshot.clone(), snapshot], &pricing);
        assert!(text.contains("at most 200 GiB in all, 10.80 EUR a month"), "{text}");
    }
}

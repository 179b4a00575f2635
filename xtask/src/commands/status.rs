//! `cargo xtask status`: what an environment holds, what differs from its file, and when it runs next.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use snapwarden_deployer::draining::Draining;
use snapwarden_deployer::environment::{Cloud, CopyPlace, CopyTarget, Engine, Finding, ScheduleExpression};
use snapwarden_deployer::error::AwsError;
use snapwarden_deployer::inventory::{self, Snapshot};
use snapwarden_deployer::kinds::{
    Alias, FoundOf, Key, Kind, LambdaFunction, LogGroup, Role, Schedule, alias_name, cleanup_settings, read,
    registry,
};
use snapwarden_deployer::plan::{Options, Order, Plan, Step, Unowned, Verb, plan};
use snapwarden_deployer::policy_gate::{copy_places, deployed_settings};
use snapwarden_deployer::release::history::History;
use snapwarden_deployer::release::{How, Release};
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::{Desired, Found, Observed, ResourceId};
use snapwarden_domain::event::day;
use snapwarden_domain::names::Zone;
use snapwarden_domain::verdict::{Tally, judge};

use super::drain::Outlook;
use super::health::{Health, short};
use super::release::is_unrecorded;
use super::releases::Shown;
use crate::context::{Context, block_on};
use crate::elsewhere::{Elsewhere, unseen};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {}

/// An environment at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// The environment's name.
    pub(crate) environment: String,
    /// The account.
    pub(crate) account: String,
    /// The Region.
    pub(crate) region: String,
    /// Whether anything is there beside what a destroy may have kept.
    pub(crate) deployed: bool,
    /// What it holds.
    pub(crate) resources: Vec<Resource>,
    /// When it runs next.
    pub(crate) schedules: Vec<Firing>,
    /// What a deploy of the same code would do.
    pub(crate) drift: Vec<Step>,
    /// What in its file is valid and yet hardly meant.
    pub(crate) warnings: Vec<Finding>,
    /// The release that is live, as it is recorded; absent where no record tells of what is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) release: Option<Shown>,
    /// How many snapshots it has; absent where they cannot be read.
    pub(crate) snapshots: Option<usize>,
    /// How many copies of them other places hold, by place (`eu-west-1`, `eu-west-1 of account 210987654321`); without those
    /// that cannot be read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) copies: BTreeMap<String, usize>,
    /// Where there may be more, which cannot be seen from here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unseen: Vec<CopyPlace>,
    /// How it does.
    #[serde(flatten)]
    pub(crate) health: Health,
    /// What the next cleanup will make of them, by the settings that are deployed; absent where none is deployed, or
    /// something cannot be read.
    pub(crate) expiry: Option<Tally>,
    /// How far it is, where it drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) draining: Option<Outlook>,
    /// What needs a person.
    pub(crate) attention: Vec<String>,
    /// What else is worth knowing.
    pub(crate) notes: Vec<String>,
}

/// One resource that exists.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Resource {
    /// Its kind and name.
    #[serde(flatten)]
    pub(crate) id: ResourceId,
    /// What is worth knowing at a glance.
    pub(crate) detail: String,
}

/// When a schedule fires next.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Firing {
    /// `backup` or `cleanup`.
    pub(crate) schedule: String,
    /// The deployed expression.
    pub(crate) expression: String,
    /// The deployed zone.
    pub(crate) timezone: String,
    /// The next firing in UTC; absent when it is disabled, or never fires again.
    pub(crate) next: Option<Timestamp>,
    /// The same in the schedule's zone, such as `2026-11-23 02:00 CET`.
    pub(crate) next_local: Option<String>,
}

/// Shows it, and ends with exit code 5 when something needs a person.
pub(crate) fn cmd_status(context: &Context, _: &StatusArgs) -> CommandResult {
    let status = block_on(async {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Attention, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        session.warn(context);
        let now = Timestamp::now();
        let (observed, unreadable) = session.observe_readable().await;
        let mut health = Health::of(&session, &observed, &unreadable, now).await;
        let listed = inventory::snapshots(&session.aws, &session.scope).await;
        let snapshots = health.part("the snapshots", listed);
        let file = session.environment.copy_to.iter().map(CopyTarget::place);
        let mut elsewhere = Elsewhere::default();
        for place in copy_places(&observed, &session.scope, file) {
            let listed = inventory::copies(&session.aws, &session.scope, &place).await;
            if listed.as_ref().is_err_and(|error| place.is_closed(error)) {
                elsewhere.unseen.push(place);
                continue;
            }
            let there = health.part(&format!("the copies in {place}"), listed);
            elsewhere.copies.extend(there.map(|there| (place, there)));
        }
        let judged = expiry(&session, &observed, now).await;
        let expiry = health.part("what the next cleanup goes by", judged).flatten();
        let history = History::read(&session.aws, &session.scope).await;
        // By half of what is there, nobody can tell whether it is what the record tells of.
        let live = match health.part("the releases", history).filter(|_| unreadable.is_empty()) {
            Some(history) => Live::of(&session, &history, &observed).await,
            None => Live::default(),
        };
        let unreadable = unreadable.into_keys().collect();
        look(
            context,
            &session,
            (&observed, &unreadable),
            (snapshots.as_deref(), &elsewhere),
            expiry,
            (health, live),
        )
    })?;
    output::result(context, &status, render::status::text(&status, context.verbose()))?;
    if status.attention.is_empty() {
        return Ok(());
    }
    Err(Failure::said(Exit::Attention))
}

/// Judges the snapshots as the next cleanup will; `None` where there is none.
async fn expiry(session: &Session, observed: &Observed, now: Timestamp) -> Result<Option<Tally>, AwsError> {
    let draining = Draining::of(observed, &session.scope);
    let file = cleanup_settings(&session.environment, &session.scope, draining);
    let settings = deployed_settings(observed, &session.scope, &file);
    let cleanup = firings(observed, now)
        .into_iter()
        .find(|firing| firing.schedule == Scope::schedule(Function::Cleanup));
    let Some((settings, at)) = settings.zip(cleanup.and_then(|cleanup| cleanup.next)) else {
        return Ok(None);
    };
    let is_emulated = session.environment.cloud == Cloud::Local;
    let inventory = inventory::of_cleanup(&session.aws, &settings, Vec::new(), is_emulated).await?;
    Ok(Some(Tally::of(&judge(&inventory, day(at, &settings.timezone), &settings))))
}

/// What is live, by the records of the releases.
#[derive(Debug, Default)]
struct Live {
    /// Its record; absent where there is none.
    release: Option<Release>,
    /// Whether something is live that no record tells of.
    unrecorded: bool,
    /// Where it is a return to an earlier release: what that is made of, which the file may not say.
    returned_to: Option<Desired>,
}

impl Live {
    async fn of(session: &Session, history: &History, observed: &Observed) -> Self {
        let unrecorded = is_unrecorded(session, history, observed);
        let release = history.newest().filter(|_| !unrecorded && !observed.is_empty()).cloned();
        let mut returned_to = None;
        if let Some(release) = release.as_ref().filter(|release| matches!(release.how, How::RolledBackTo(_)))
        {
            returned_to = release.desired(&session.aws, &session.scope, observed).await.ok();
        }
        Self { release, unrecorded, returned_to }
    }

    /// What is wanted of an environment that was rolled back: the file's, but for what its release is made of.
    fn overlay(&self, mut desired: Desired) -> Desired {
        const PARTS: [(&str, &str); 3] =
            [(LambdaFunction::NAME, "version"), (Alias::NAME, "serves"), (Role::NAME, "policies")];
        for (id, of_release) in self.returned_to.iter().flatten() {
            for (_, part) in PARTS.iter().filter(|(kind, _)| *kind == id.kind) {
                if let Some(of_file) = desired.get_mut(id) {
                    of_file[*part] = of_release[*part].clone();
                }
            }
        }
        desired
    }
}

fn look(
    context: &Context,
    session: &Session,
    (observed, unreadable): (&Observed, &BTreeSet<&'static str>),
    (snapshots, elsewhere): (Option<&[Snapshot]>, &Elsewhere),
    expiry: Option<Tally>,
    (health, live): (Health, Live),
) -> Result<Status, Failure> {
    let draining = Draining::of(observed, &session.scope);
    let desired = session.desired(&deployed_code(&session.scope, observed), draining)?;
    let desired = live.overlay(desired);
    let schedules = firings(observed, Timestamp::now());
    let mut attention = Vec::new();
    let name = &session.scope.environment;
    let is_deployed = !unreadable.is_empty() || observed.keys().any(|id| !outlives(id));
    let mut drift = drift(&session.scope, desired, observed, unreadable).unwrap_or_else(|taken| {
        attention.push(taken.to_string());
        Plan::default()
    });
    if is_deployed {
        attention.extend(drift.pending().map(difference));
        if !drift.is_empty() {
            attention.push(match session.environment.engine {
                Engine::Direct => format!("see `cargo xtask plan --env {name}`, repair with `deploy`"),
                Engine::Cloudformation => format!(
                    "repair with `cargo xtask deploy --env {name}`; what CloudFormation does not take back, it names"
                ),
            });
        }
    } else {
        drift = Plan::default();
        attention.push(format!("nothing is deployed: run `cargo xtask deploy --env {name}`"));
    }
    attention.extend(health.attention(context, session, draining.is_some()));
    if live.unrecorded {
        let deploy = context.command_line("deploy");
        attention.push(format!(
            "what is live is not recorded as a release: a command was interrupted, or somebody changed it; `{deploy}` goes on"
        ));
    }
    let silent = schedules.iter().filter(|firing| firing.next.is_none());
    attention.extend(silent.map(|firing| format!("the {} schedule does not fire", firing.schedule)));
    let floor = session.environment.cleanup.floor.get();
    let everywhere =
        snapshots.map(|snapshots| snapshots.iter().chain(elsewhere.all()).cloned().collect::<Vec<_>>());
    let draining = draining
        .zip(everywhere)
        .map(|(draining, snapshots)| Outlook::of(draining, &snapshots, &elsewhere.unseen, floor));
    for (place, copies) in elsewhere.copies.iter().filter(|(place, _)| !names_target(session, place)) {
        if !copies.is_empty() {
            attention.push(format!(
                "{place} holds {} copies, and copy_to does not name it any more, so that a deploy is refused: put it back with \
                 `paused: true` until it is empty",
                copies.len()
            ));
        }
    }
    let outlook = draining.as_ref().map(|outlook| (outlook.is_over(), outlook.text(context)));
    let mut notes = if is_deployed { health.notes() } else { Vec::new() };
    notes.extend(elsewhere.unseen.iter().map(unseen));
    if !is_deployed {
        notes.extend(observed.keys().map(|kept| format!("{kept} is there: a destroy keeps it")));
    }
    if let Some(Release { how: how @ How::RolledBackTo(_), at, by, .. }) = &live.release {
        let at = short(*at);
        notes
            .push(format!("{how} on {at} by {by}: the environment file and this checkout may say otherwise"));
    }
    if let Some((is_over, text)) = outlook {
        if is_over { attention.push(text) } else { notes.push(text) }
    }
    Ok(Status {
        environment: name.to_string(),
        account: session.scope.account.to_string(),
        region: session.scope.region.to_string(),
        deployed: is_deployed,
        resources: resources(observed),
        schedules,
        drift: drift.pending().cloned().collect(),
        warnings: session.warnings.clone(),
        release: live.release.as_ref().map(|release| Shown::of(release, true)),
        snapshots: snapshots.map(<[_]>::len),
        copies: elsewhere.copies.iter().map(|(place, copies)| (place.to_string(), copies.len())).collect(),
        unseen: elsewhere.unseen.clone(),
        expiry,
        health,
        draining,
        attention,
        notes,
    })
}

/// Whether it may be all that a destroy has left: logs that somebody wants to read, and the key of what is encrypted.
fn outlives(resource: &ResourceId) -> bool {
    [LogGroup::NAME, Key::NAME].contains(&resource.kind.as_str())
}

/// Whether the file says that a place holds copies.
fn names_target(session: &Session, place: &CopyPlace) -> bool {
    session.environment.copy_to.iter().any(|target| target.place().is_same(place))
}

/// What differs from what is wanted, of all that can be told: not of a kind that cannot be read, nor of what belongs to
/// one.
fn drift(
    scope: &Scope,
    desired: Desired,
    observed: &Observed,
    unreadable: &BTreeSet<&'static str>,
) -> Result<Plan, Unowned> {
    let can_be_told = |id: &ResourceId| {
        let mut lineage = std::iter::successors(Some(id.clone()), |id| registry().parent(id, scope));
        lineage.all(|id| !unreadable.contains(id.kind.as_str()))
    };
    let desired = desired.into_iter().filter(|(id, _)| can_be_told(id)).collect();
    let observed = observed.clone().into_iter().filter(|(id, _)| can_be_told(id)).collect();
    plan(&registry(), scope, &desired, &observed, &Options::default())
}

/// One resource that is not as it should be.
pub(super) fn difference(step: &Step) -> String {
    let resource = &step.resource;
    match step.verb {
        Verb::Create => format!("{resource} is missing"),
        Verb::Delete => format!("{resource} is not wanted any more"),
        Verb::Update | Verb::Replace | Verb::Keep => {
            let properties: Vec<_> = step.changes.iter().map(|change| change.property.as_str()).collect();
            format!("{resource} differs in {}", properties.join(", "))
        }
    }
}

/// The code that the functions have now: a newer checkout is no drift.
fn deployed_code(scope: &Scope, observed: &Observed) -> BTreeMap<Function, String> {
    let digest = |function: Function| {
        let alias = observed.get(&ResourceId::new(Alias::NAME, alias_name(scope, function)))?;
        Some((function, read::<Alias>(alias).ok()?.properties.serves.code_sha256))
    };
    Function::ALL.into_iter().filter_map(digest).collect()
}

/// What exists, each with what is worth knowing.
pub(crate) fn resources(observed: &Observed) -> Vec<Resource> {
    observed
        .iter()
        .map(|(id, found)| Resource {
            id: id.clone(),
            detail: registry().get(&id.kind).map(|kind| kind.describe(found)).unwrap_or_default(),
        })
        .collect()
}

/// When the deployed schedules fire next.
pub(crate) fn firings(observed: &Observed, now: Timestamp) -> Vec<Firing> {
    let deployed = observed.iter().filter(|(id, _)| id.kind == Schedule::NAME);
    deployed.filter_map(|(id, found)| Some(firing(&id.name, read::<Schedule>(found).ok()?, now))).collect()
}

fn firing(name: &str, schedule: FoundOf<Schedule>, now: Timestamp) -> Firing {
    let Found { properties, handle, .. } = schedule;
    // Somebody may have written an expression or a zone that we would not.
    let understood =
        properties.expression.parse::<ScheduleExpression>().ok().zip(properties.timezone.parse().ok());
    let next = understood.filter(|_| properties.enabled).and_then(|(expression, zone): (_, Zone)| {
        let next = expression.next_after(now, zone.rules(), handle.created)?;
        Some((next, next.to_zoned(zone.rules().clone())))
    });
    Firing {
        schedule: name.to_owned(),
        expression: properties.expression,
        timezone: properties.timezone,
        next: next.as_ref().map(|(next, _)| *next),
        next_local: next.map(|(_, local)| local.strftime("%F %H:%M %Z").to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snapwarden_deployer::kinds::LambdaFunction;

    use super::*;

    /// "Function is missing" of a function that merely cannot be read sends somebody to repair what is whole.
    #[test]
    fn what_cannot_be_read_is_not_said_to_be_missing() {
        let text = include_str!("../../../environments/local.yaml");
        let scope = Scope::of(
            &snapwarden_deployer::environment::parse(std::path::Path::new("local.yaml"), text).unwrap(),
        );
        let desired = Desired::from([
            (ResourceId::new(LambdaFunction::NAME, scope.function(Function::Backup)), json!({})),
            (ResourceId::new(Alias::NAME, alias_name(&scope, Function::Backup)), json!({})),
        ]);
        let pending = |unreadable: &[&'static str]| {
            let unreadable = unreadable.iter().copied().collect();
            drift(&scope, desired.clone(), &Observed::new(), &unreadable).unwrap().pending().count()
        };
        assert_eq!(pending(&[]), 2);
        assert_eq!(pending(&[Alias::NAME]), 1);
        assert_eq!(pending(&[LambdaFunction::NAME]), 0);
    }
}

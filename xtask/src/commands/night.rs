//! `cargo xtask local night`: fires the deployed schedules on a simulated clock, as EventBridge Scheduler would.
//!
//! Everything is read back from what is deployed: expressions, zone, target, input. The emulators fire schedules in
//! real time only; a night that is over in seconds is what makes a week of retention visible.

use std::path::PathBuf;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapwarden_deployer::environment::ScheduleExpression;
use snapwarden_deployer::inventory;
use snapwarden_deployer::invoke::{Answer, invoke};
use snapwarden_deployer::kinds::{FoundOf, Kind, Schedule, read};
use snapwarden_deployer::world::Observed;
use snapwarden_domain::event::Event;
use snapwarden_domain::names::Zone;
use snapwarden_domain::report::{BackupReport, CleanupReport, Report, SealingReport};

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::render::table::table;
use crate::session::Session;

/// Flags of `local night`.
#[derive(Args, Debug)]
pub(crate) struct NightArgs {
    /// How many nights to live through
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3660))]
    nights: u16,
}

/// One simulated night, from noon to noon in the schedules' zone.
#[derive(Debug, Serialize)]
struct Night {
    /// The day of its morning.
    date: Date,
    /// What fired, in order.
    firings: Vec<Fired>,
    /// The environment's snapshots when it was over.
    snapshots: usize,
}

/// One firing of one schedule.
#[derive(Debug, Serialize)]
struct Fired {
    /// The schedule's name.
    schedule: String,
    /// When it was due.
    at: Timestamp,
    /// Whether the function failed.
    failed: bool,
    /// The function's report, or Lambda's error object.
    report: Value,
}

/// A deployed schedule, ready to be fired.
struct Deployed {
    name: String,
    found: FoundOf<Schedule>,
    expression: ScheduleExpression,
    zone: TimeZone,
}

/// How long after its time a run begins.
const LATENESS: SignedDuration = SignedDuration::from_secs(5);

/// Lives through the nights and prints what each one made, kept and deleted.
pub(crate) fn cmd_night(context: &Context, args: &NightArgs) -> CommandResult {
    let clock = Clock::of(context);
    let nights = block_on(async {
        let session = Session::open(context).await?;
        let schedules = deployed(&session.observe().await?)?;
        let zone = &schedules[0].zone;
        let mut now = clock.read()?.map_or_else(|| evening(Timestamp::now(), zone), Ok)?;
        let mut nights = Vec::new();
        for _ in 0..args.nights {
            let end = next_noon(now, zone)?;
            let date = end.to_zoned(zone.clone()).date();
            let task = context.progress().start(format!("night of {date}"));
            let firings = fire_until(&session, &schedules, now, end).await?;
            let snapshots = inventory::snapshots(&session.aws, &session.scope).await?.len();
            // After every night, so that an interrupted command goes on where it stopped.
            clock.write(end)?;
            now = end;
            task.done(&format!("{snapshots} snapshots"));
            nights.push(Night { date, firings, snapshots });
        }
        Ok(nights)
    })?;
    output::result(context, &nights, text(&nights))?;
    match nights.iter().flat_map(|night| &night.firings).filter(|fired| fired.failed).count() {
        0 => Ok(()),
        failed => Err(Failure::new(Exit::Failed, format!("{failed} runs failed"))),
    }
}

fn deployed(observed: &Observed) -> Result<Vec<Deployed>, Failure> {
    let mut schedules = Vec::new();
    for (id, found) in observed.iter().filter(|(id, _)| id.kind == Schedule::NAME) {
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("the deployed schedule {} cannot be fired: {error}", id.name))
        };
        let found = read::<Schedule>(found).map_err(|error| unusable(&error))?;
        let expression = found.properties.expression.parse().map_err(|error| unusable(&error))?;
        let zone: Zone = found.properties.timezone.parse().map_err(|error| unusable(&error))?;
        schedules.push(Deployed { name: id.name.clone(), expression, zone: zone.rules().clone(), found });
    }
    if schedules.is_empty() {
        return Err(Failure::new(Exit::Failed, "there are no schedules to fire")
            .hint("nothing is deployed yet: run `cargo xtask deploy` first"));
    }
    Ok(schedules)
}

/// Fires whatever is due after `from` and until `to`, in the order of time.
async fn fire_until(
    session: &Session,
    schedules: &[Deployed],
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Fired>, Failure> {
    let mut fired = Vec::new();
    let mut now = from;
    loop {
        let next = schedules
            .iter()
            .filter(|schedule| schedule.found.properties.enabled)
            .filter_map(|schedule| Some((schedule.next_after(now)?, schedule)))
            .filter(|(at, _)| *at <= to)
            .min_by_key(|(at, _)| *at);
        let Some((at, _)) = next else { return Ok(fired) };
        // Two schedules may be due at the same moment.
        for schedule in
            schedules.iter().filter(|s| s.found.properties.enabled && s.next_after(now) == Some(at))
        {
            let answer = fire(session, schedule, at).await?;
            fired.push(Fired {
                schedule: schedule.name.clone(),
                at,
                failed: answer.failed,
                report: answer.payload,
            });
        }
        now = at;
    }
}

async fn fire(session: &Session, schedule: &Deployed, at: Timestamp) -> Result<Answer, Failure> {
    let group = session.scope.schedule_group();
    let arn = session.scope.schedule_arn(&schedule.name);
    let input = schedule
        .found
        .properties
        .input
        .replace("<aws.scheduler.scheduled-time>", &at.to_string())
        .replace("<aws.scheduler.schedule-arn>", &arn);
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Failed,
            format!("the input of the schedule {group}/{} is no event: {error}", schedule.name),
        )
    };
    let input = serde_json::from_str(&input).map_err(|error| unusable(&error))?;
    let mut event = Event::from_json(input).map_err(|error| unusable(&error))?;
    event.simulated_now = at.checked_add(LATENESS).ok();
    Ok(invoke(&session.aws, &schedule.found.properties.target, &event).await?)
}

impl Deployed {
    fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.expression.next_after(now, &self.zone, self.found.handle.created)
    }
}

/// The simulated clock: kept in the local environment's folder, so that the next command goes on from there.
pub(crate) struct Clock(PathBuf);

impl Clock {
    /// The clock of the local environment that the flags name.
    pub(crate) fn of(context: &Context) -> Self {
        Self(context.local_dir().join("clock"))
    }

    /// The simulated time; none before the first night.
    fn read(&self) -> Result<Option<Timestamp>, Failure> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error: jiff::Error| self.failure(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Back to the real time.
    pub(crate) fn reset(&self) -> CommandResult {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failure(&error)),
            _ => Ok(()),
        }
    }

    fn write(&self, now: Timestamp) -> Result<(), Failure> {
        std::fs::write(&self.0, now.to_string()).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::caused_by(Exit::Failed, error)
            .context(&format!("the simulated clock {} cannot be used", self.0.display()))
            .hint("delete that file to begin again at the real time")
    }
}

/// The moment itself in the second half of a day; else the coming noon, since that night has partly gone by.
fn evening(now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let local = now.to_zoned(zone.clone());
    if local.hour() >= 12 { Ok(now) } else { next_noon(now, zone) }
}

fn next_noon(now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let local = now.to_zoned(zone.clone());
    let day = if local.hour() >= 12 { local.date().tomorrow() } else { Ok(local.date()) };
    day.and_then(|day| day.at(12, 0, 0, 0).to_zoned(zone.clone()))
        .map(|noon| noon.timestamp())
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("the calendar ends here"))
}

fn text(nights: &[Night]) -> String {
    let rows = nights.iter().map(|night| {
        let runs = night.firings.iter().map(|fired| format!("{}: {}", fired.schedule, summary(fired)));
        [night.date.to_string(), night.snapshots.to_string(), runs.collect::<Vec<_>>().join("; ")]
    });
    table(["NIGHT", "SNAPSHOTS", "RUNS"], rows)
}

fn summary(fired: &Fired) -> String {
    let report = &fired.report;
    if fired.failed {
        let message = report.get("errorMessage").and_then(Value::as_str).unwrap_or("no message");
        return format!("FAILED: {message}");
    }
    let backup = BackupReport::deserialize(report).map(|report| report.summary());
    let either = backup.or_else(|_| CleanupReport::deserialize(report).map(|report| report.summary()));
    let either = either.or_else(|_| SealingReport::deserialize(report).map(|report| report.summary()));
    either.unwrap_or_else(|_| format!("a report of another version: {report}"))
}

//! What is valid in an environment file and yet hardly meant: times that daylight saving skips, a cleanup in the
//! backup's window, terms that nothing ever gets.
//!
//! Pure: the time is an argument. Findings are no part of a plan, since an approval may span a night.

mod copies;

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Serialize;
use snapwarden_domain::retention::Days;

use super::{Environment, Schedule};

/// Something about an environment file that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, and line and column of the value where it is in the file.
    pub place: String,
    /// The key's path, such as `backup.schedule.expression`.
    pub key: String,
    /// What is odd about it.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing may be deployed like this.
    Error,
    /// It works, but probably not as it is meant.
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.place, self.key, self.message, self.hint)
    }
}

/// Looks an environment over, as of `now`. The places are left to whoever has the file's text.
pub(super) fn lint(environment: &Environment, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (backup, cleanup) = (&environment.backup.schedule, &environment.cleanup.schedule);
    for (key, schedule) in [("backup.schedule.expression", backup), ("cleanup.schedule.expression", cleanup)]
    {
        let timing = Timing::new(key, schedule, environment, now);
        if timing.firings.is_empty() {
            findings.push(Finding {
                severity: Severity::Error,
                ..warning(
                    key,
                    format!("`{}` never fires", schedule.expression),
                    "check the day, the month and the year",
                )
            });
            continue;
        }
        findings.extend(timing.ends(now));
        findings.extend(timing.when_clocks_change(now));
        findings.extend(timing.is_no_calendar_day());
        findings.extend(timing.overtakes_itself());
    }
    let backups = Timing::new("backup.schedule.expression", backup, environment, now);
    if !backups.firings.is_empty() {
        let cleanups = Timing::new("cleanup.schedule.expression", cleanup, environment, now);
        findings.extend(cleanup_beside_backup(&backups, &cleanups));
        findings.extend(retention(environment, &backups));
    }
    findings.extend(key_elsewhere(environment));
    findings.extend(copies::never_made(environment));
    findings
}

fn warning(key: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    let (message, hint) = (message.into(), hint.into());
    Finding { severity: Severity::Warning, place: String::new(), key: key.to_owned(), message, hint }
}

/// How far ahead a schedule has to go on firing.
const YEARS: i64 = 5;

/// How far ahead changes of the clocks are looked at: rules of daylight saving hardly live longer unchanged.
const YEARS_OF_CLOCKS: i64 = 3;

/// What a schedule does within a year, at most so many firings of it.
const FIRINGS: usize = 500;

/// A schedule with its next firings.
struct Timing<'a> {
    key: &'a str,
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    firings: Vec<Timestamp>,
    /// How long after the scheduled time it may begin.
    window: SignedDuration,
    /// How long a run may take then.
    run: SignedDuration,
}

impl<'a> Timing<'a> {
    fn new(key: &'a str, schedule: &'a Schedule, environment: &'a Environment, now: Timestamp) -> Self {
        let zone = environment.timezone.rules();
        let window = SignedDuration::from_mins(schedule.flexible_minutes.get().into());
        let run = SignedDuration::from_secs(environment.functions.timeout_seconds.get().into());
        let year = now + SignedDuration::from_hours(366 * 24);
        let next = |after: &Timestamp| schedule.expression.next_after(*after, zone, Some(now));
        let firings = std::iter::successors(next(&now), next);
        // Always the first one, however far away, and then what a year holds.
        let firings = firings.enumerate().take_while(|(index, at)| *index == 0 || *at < year);
        let firings = firings.map(|(_, at)| at).take(FIRINGS).collect();
        Self { key, schedule, zone, firings, window, run }
    }

    /// How long after the scheduled time a run may still go on.
    fn longest(&self) -> SignedDuration {
        self.window + self.run
    }

    /// The times between one firing and the next.
    fn pauses(&self) -> impl Iterator<Item = SignedDuration> {
        self.firings.windows(2).map(|pair| pair[1].duration_since(pair[0]))
    }

    fn local(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%H:%M").to_string()
    }

    fn date(&self, at: Timestamp) -> Date {
        at.to_zoned(self.zone.clone()).date()
    }

    /// A year in a cron expression is forgotten until the backups stop.
    fn ends(&self, now: Timestamp) -> Option<Finding> {
        let later = now.to_zoned(self.zone.clone()).checked_add(YEARS.years()).ok()?.timestamp();
        if self.schedule.expression.next_after(later, self.zone, Some(now)).is_some() {
            return None;
        }
        let message = format!("`{}` stops firing within {YEARS} years", self.schedule.expression);
        Some(warning(self.key, message, "write `*` as the year (the last field)"))
    }

    /// EventBridge Scheduler skips a local time that does not exist, and fires once at one that comes twice.
    fn when_clocks_change(&self, now: Timestamp) -> Vec<Finding> {
        let until = now.to_zoned(self.zone.clone()).checked_add(YEARS_OF_CLOCKS.years());
        let Ok(until) = until.map(|until| until.timestamp()) else { return Vec::new() };
        let mut affected: BTreeMap<(Time, Time, Time), Vec<Date>> = BTreeMap::new();
        for change in self.zone.following(now).take_while(|change| change.timestamp() < until) {
            let at = change.timestamp();
            let before = self.zone.to_offset(at - SignedDuration::from_secs(1));
            let (from, to) = (before.to_datetime(at), change.offset().to_datetime(at));
            let time = self.schedule.expression.first_local_between(from.min(to), from.max(to));
            // What fires every hour or two fires again before anybody notices.
            let next = self.schedule.expression.next_after(at, self.zone, None);
            let Some(time) = time
                .filter(|_| next.is_none_or(|next| next.duration_since(at) > SignedDuration::from_hours(3)))
            else {
                continue;
            };
            affected.entry((from.time(), to.time(), time.time())).or_default().push(time.date());
        }
        let finding = |((from, to, time), dates): ((Time, Time, Time), Vec<Date>)| {
            let clock = |time: Time| time.strftime("%H:%M").to_string();
            let what = if from < to {
                format!("it does not fire at {}", clock(time))
            } else {
                format!("{} comes twice, and it fires at the first", clock(time))
            };
            let message =
                format!("on {} {what}: clocks go from {} to {}", listed(&dates), clock(from), clock(to));
            let (earlier, later) = (clock(from.min(to)), clock(from.max(to)));
            warning(self.key, message, format!("choose a time before {earlier}, or from {later} on"))
        };
        affected.into_iter().map(finding).collect()
    }

    /// A rate counts hours from the schedule's creation.
    fn is_no_calendar_day(&self) -> Option<Finding> {
        let step = self.schedule.expression.step()?;
        if step.as_hours() % 24 != 0 || step.as_hours() == 0 {
            return None;
        }
        let message = format!(
            "`{}` counts from the moment the schedule is made: it fires at whatever time of day that is, and daylight \
             saving moves it",
            self.schedule.expression
        );
        Some(warning(self.key, message, "write a time of day, such as `cron(0 2 * * ? *)`"))
    }

    fn overtakes_itself(&self) -> Option<Finding> {
        let pause = |pair: &[Timestamp]| pair[1].duration_since(pair[0]);
        let closest = self.firings.windows(2).min_by_key(|pair| pause(pair))?;
        let shortest = Some(pause(closest)).filter(|pause| *pause < self.longest())?;
        // When a rate fires shows only once it is made.
        let when = match self.schedule.expression.step() {
            Some(_) => String::new(),
            None => format!(" (on {} at {})", self.date(closest[1]), self.local(closest[1])),
        };
        let message = format!(
            "it fires again after {} minutes{when}, while the run before may take {}, its window included",
            shortest.as_mins(),
            self.longest().as_mins()
        );
        Some(warning(
            self.key,
            message,
            "let it fire less often, or shorten `flexible_minutes` or `timeout_seconds`",
        ))
    }

    /// `it begins within 15 minutes and takes up to 15 more`
    fn takes(&self) -> String {
        let minutes = self.run.as_secs().unsigned_abs().div_ceil(60);
        format!("it begins within {} minutes and takes up to {minutes} more", self.window.as_mins())
    }
}

/// `2027-03-28, 2028-03-26 and 2029-03-25`
fn listed(dates: &[Date]) -> String {
    let dates: Vec<_> = dates.iter().map(ToString::to_string).collect();
    match dates.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => dates.concat(),
    }
}

/// A cleanup that runs while snapshots are made judges by half of them.
fn cleanup_beside_backup(backups: &Timing<'_>, cleanups: &Timing<'_>) -> Option<Finding> {
    // When the one of two rates fires, seen from the other, shows only once they are made.
    if cleanups.schedule.expression.step().is_some() || backups.schedule.expression.step().is_some() {
        return None;
    }
    backups.firings.iter().find_map(|backup| {
        // The first one that is not over when the backup begins.
        let not_over = *backup - cleanups.longest();
        let cleanup = cleanups.schedule.expression.next_after(not_over, cleanups.zone, None)?;
        let end = *backup + backups.longest();
        if cleanup >= end {
            return None;
        }
        let (date, fires, begins) = (cleanups.date(cleanup), cleanups.local(cleanup), backups.local(*backup));
        let (message, before) = if cleanup < *backup {
            (
                format!(
                    "on {date} it fires at {fires}, and may still run when the backup of {begins} begins: {}",
                    cleanups.takes()
                ),
                format!("at {} or earlier, or ", cleanups.local(not_over)),
            )
        } else {
            (
                format!(
                    "on {date} it fires at {fires}, while the backup of {begins} may still run: {}",
                    backups.takes()
                ),
                String::new(),
            )
        };
        let hint = format!("let it fire {before}at {} or later", backups.local(end));
        Some(warning(cleanups.key, message, hint))
    })
}

/// EC2 encrypts with keys of its own Region only, and says so hours later, by a copy that fails.
fn key_elsewhere(environment: &Environment) -> Option<Finding> {
    let region = environment.region.as_str();
    let key = environment.encryption.key(&environment.environment)?;
    let elsewhere = key.region().filter(|of_key| *of_key != region)?;
    Some(Finding {
        severity: Severity::Error,
        ..warning(
            "encryption.kms_key",
            format!("the key is in {elsewhere}, and the environment in {region}"),
            format!("name a key of {region}"),
        )
    })
}

/// Terms that are too short to matter, or that no backup ever gets.
fn retention(environment: &Environment, backups: &Timing<'_>) -> Vec<Finding> {
    let retention = &environment.backup.retention;
    let daily = i64::from(retention.daily_days.get());
    let mut findings = Vec::new();
    // Rounded, since the day on which clocks go back has 25 hours.
    let longest = backups.pauses().max().map_or(0, |pause| (pause.as_hours() + 12) / 24);
    if longest > daily {
        let message = match environment.cleanup.floor.get() {
            0 => format!(
                "there are up to {longest} days between backups: for some of them there is no snapshot at all"
            ),
            _ => format!(
                "there are up to {longest} days between backups: for some of them only `cleanup.floor` keeps one"
            ),
        };
        let hint = format!("keep snapshots for {longest} days or more, or make backups more often");
        findings.push(warning("backup.retention.daily_days", message, hint));
    }
    // Which days a rate of days or more hits shows only once it is made.
    let known = backups.schedule.expression.step().is_none_or(|step| step.as_hours() < 24);
    let days: Vec<_> = backups.firings.iter().map(|at| at.to_zoned(backups.zone.clone()).date()).collect();
    let a_year = days.len() < FIRINGS;
    let mondays = days.iter().any(|day| day.weekday() == Weekday::Monday);
    let firsts = days.iter().any(|day| day.day() == 1);
    for (key, term, hit, what) in [
        ("backup.retention.weekly_days", retention.weekly_days, mondays, "on a Monday"),
        ("backup.retention.monthly_days", retention.monthly_days, firsts, "on the first of a month"),
    ] {
        let Some(term) = term.map(Days::get) else { continue };
        if i64::from(term) <= daily {
            let message = format!("it has no effect: `daily_days` keeps every snapshot for {daily} days");
            findings.push(warning(key, message, "raise it, or leave it out"));
        } else if known && a_year && !hit {
            let message = format!("no backup is made {what} within a year, so none is kept for {term} days");
            findings.push(warning(key, message, "schedule one for that day, or leave the term out"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{load_and_lint, parse};
    use super::*;

    pub(super) fn found(edits: &[(&str, &str)]) -> Vec<String> {
        let mut text = include_str!("../../../environments/local.yaml").to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let environment = parse(Path::new("local.yaml"), &text).unwrap();
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        lint(&environment, now).into_iter().map(|f| format!("{}: {}; {}", f.key, f.message, f.hint)).collect()
    }

    const AT_TWO: &str = "cron(0 2 * * ? *)";

    /// A warning about what everybody starts from teaches them to overlook warnings.
    #[test]
    fn the_examples_are_fine() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
        for name in super::super::list(&folder) {
            let (_, findings) =
                load_and_lint(&folder, &name, "2026-11-24T12:00:00Z".parse().unwrap()).unwrap();
            assert_eq!(findings, [], "{name}");
        }
    }

    #[test]
    fn what_is_hardly_meant_is_said_with_the_way_out() {
        let table: [(&[(&str, &str)], &str); 11] = [
            (
                &[
                    ("timezone: UTC", "timezone: Europe/Zurich"),
                    (AT_TWO, "cron(30 2 * * ? *)"),
                    ("cron(0 3 ", "cron(0 4 "),
                ],
                "backup.schedule.expression: on 2027-03-28, 2028-03-26 and 2029-03-25 it does not fire at 02:30: \
                 clocks go from 02:00 to 03:00; choose a time before 02:00, or from 03:00 on\n\
                 backup.schedule.expression: on 2027-10-31, 2028-10-29 and 2029-10-28 02:30 comes twice, and it fires \
                 at the first: clocks go from 03:00 to 02:00; choose a time before 02:00, or from 03:00 on",
            ),
            (
                &[(AT_TWO, "rate(1 days)")],
                "backup.schedule.expression: `rate(1 days)` counts from the moment the schedule is made: it fires at \
                 whatever time of day that is, and daylight saving moves it; write a time of day, such as \
                 `cron(0 2 * * ? *)`",
            ),
            (
                &[("cron(0 3 ", "cron(45 1 ")],
                "cleanup.schedule.expression: on 2026-11-25 it fires at 01:45, and may still run when the backup of \
                 02:00 begins: it begins within 15 minutes and takes up to 15 more; let it fire at 01:30 or earlier, \
                 or at 02:30 or later",
            ),
            (
                &[("cron(0 3 ", "cron(20 2 ")],
                "cleanup.schedule.expression: on 2026-11-25 it fires at 02:20, while the backup of 02:00 may still run: it begins \
                 within 15 minutes and takes up to 15 more; let it fire at 02:30 or later",
            ),
            (
                &[(AT_TWO, "cron(0 2 1 * ? *)")],
                "backup.retention.daily_days: there are up to 31 days between backups: for some of them only \
                 `cleanup.floor` keeps one; keep snapshots for 31 days or more, or make backups more often",
            ),
            (
                &[(AT_TWO, "cron(0 2 1 * ? *)"), ("floor: 1 ", "floor: 0 ")],
                "backup.retention.daily_days: there are up to 31 days between backups: for some of them there is no \
                 snapshot at all; keep snapshots for 31 days or more, or make backups more often",
            ),
            (
                &[(AT_TWO, "cron(0 2 * * ? 2026-2028)")],
                "backup.schedule.expression: `cron(0 2 * * ? 2026-2028)` stops firing within 5 years; write `*` as \
                 the year (the last field)",
            ),
            (
                &[(AT_TWO, "cron(0/20 2 * * ? *)"), ("cron(0 3 ", "cron(30 3 ")],
                "backup.schedule.expression: it fires again after 20 minutes (on 2026-11-25 at 02:20), while the run \
                 before may take 30, its window included; let it fire less often, or shorten `flexible_minutes` or \
                 `timeout_seconds`",
            ),
            (
                &[(AT_TWO, "rate(10 minutes)")],
                "backup.schedule.expression: it fires again after 10 minutes, while the run before may take 30, its \
                 window included; let it fire less often, or shorten `flexible_minutes` or `timeout_seconds`",
            ),
            (
                &[("daily_days: 7", "daily_days: 7, weekly_days: 5")],
                "backup.retention.weekly_days: it has no effect: `daily_days` keeps every snapshot for 7 days; raise \
                 it, or leave it out",
            ),
            (
                &[(AT_TWO, "cron(0 2 ? * TUE *)"), ("daily_days: 7", "daily_days: 7, weekly_days: 28")],
                "backup.retention.weekly_days: no backup is made on a Monday within a year, so none is kept for 28 \
                 days; schedule one for that day, or leave the term out",
            ),
        ];
        for (edits, expected) in table {
            assert_eq!(found(edits).join("\n"), expected, "{edits:?}");
        }
    }

    #[test]
    fn a_schedule_that_never_fires_is_an_error() {
        let text = include_str!("../../../environments/local.yaml").replace(AT_TWO, "cron(0 2 31 2 ? *)");
        let environment = parse(Path::new("local.yaml"), &text).unwrap();
        let findings = lint(&environment, "2026-11-24T12:00:00Z".parse().unwrap());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Error);
    }

    #[test]
    fn a_key_of_another_region_is_an_error() {
        let encryption = |region: &str| {
            let key = format!("arn:aws:kms:{region}:123456789012:key/1");
            format!("encryption: {{ require: report, kms_key: \"{key}\" }}\nlogs: delete")
        };
        assert_eq!(found(&[("logs: delete", &encryption("eu-central-1"))]), Vec::<String>::new());
        assert_eq!(
            found(&[("logs: delete", &encryption("us-east-1"))]),
            [
                "encryption.kms_key: the key is in us-east-1, and the environment in eu-central-1; name a key of \
              eu-central-1"
            ]
        );
    }

    /// What fires all the time loses nothing that anybody would miss.
    #[test]
    fn what_is_meant_is_not_warned_about() {
        for edits in [
            &[
                ("timezone: UTC", "timezone: Europe/Zurich"),
                (AT_TWO, "cron(0 * * * ? *)"),
                ("cron(0 3 ", "cron(30 3 "),
            ][..],
            &[("timezone: UTC", "timezone: Europe/Zurich"), (AT_TWO, "cron(0 1 * * ? *)")],
            &[("timezone: UTC", "timezone: Asia/Tokyo")],
            &[(AT_TWO, "rate(12 hours)")],
            &[(AT_TWO, "cron(0 2 ? * MON *)"), ("daily_days: 7", "daily_days: 7, weekly_days: 28")],
        ] {
            assert_eq!(found(edits), Vec::<String>::new(), "{edits:?}");
        }
    }
}

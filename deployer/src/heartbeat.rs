//! How long a function may be silent before somebody has to be told.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::environment::{Environment, Schedule, ScheduleExpression};
use crate::scope::Function;

/// The longest time that an alarm can look back, in hours: CloudWatch multiplies period and evaluation periods and
/// takes at most seven days (source: CloudWatch API, `PutMetricAlarm`, `EvaluationPeriods`).
const MOST_HOURS: i64 = 7 * 24;

/// How many firings are looked at, and how many days: enough to meet every weekend, month's end and leap day that
/// makes a gap an alarm could cover.
const FIRINGS: usize = 10_000;
const DAYS: i64 = 400;

/// The hours without a run that are one too many: the schedule's longest gap, its flexible window and the run itself,
/// and an hour since CloudWatch counts whole hours. `None` where that is more than an alarm can look back.
pub fn silent_hours(environment: &Environment, function: Function) -> Option<i64> {
    let schedule = schedule(environment, function);
    let longest = longest_gap(&schedule.expression, environment.timezone.rules())?;
    let window = SignedDuration::from_mins(schedule.flexible_minutes.get().into());
    let run = SignedDuration::from_secs(environment.functions.timeout_seconds.get().into());
    let hours = whole_hours(longest + window + run) + 1;
    (hours <= MOST_HOURS).then_some(hours)
}

/// Since when a run is missing that should have ended by now: since the last one that did, or since the schedule was
/// made. `None` while there is time, and where nobody can tell.
pub fn missed_since(
    environment: &Environment,
    function: Function,
    last: Option<Timestamp>,
    scheduled: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let since = last.map_or(scheduled, |last| last.max(scheduled));
    let hours = silent_hours(environment, function)?;
    (now.duration_since(since) > SignedDuration::from_hours(hours)).then_some(since)
}

/// The age in hours from which on a backup is stale: a whole gap of the schedule, and half a day for a snapshot that
/// was still being made when cleanup looked. `None` where the schedule's gaps are longer than a week.
pub fn stale_hours(environment: &Environment) -> Option<i64> {
    let longest = longest_gap(&environment.backup.schedule.expression, environment.timezone.rules())?;
    Some(whole_hours(longest) + 12)
}

/// A function's schedule.
pub fn schedule(environment: &Environment, function: Function) -> &Schedule {
    match function {
        Function::Backup => &environment.backup.schedule,
        Function::Cleanup => &environment.cleanup.schedule,
    }
}

/// The longest time between two firings; `None` where that is more than a week.
///
/// Gaps are those of the calendar, and an hour for the day on which clocks are turned back. A firing that daylight
/// saving skips makes none: that backup is missing, and whoever is told of it is told the truth.
fn longest_gap(expression: &ScheduleExpression, zone: &TimeZone) -> Option<SignedDuration> {
    // Any day does, and a fixed one makes the same alarms at every deploy.
    let begin = Timestamp::from_second(1_767_225_600).ok()?; // 2026-01-01
    let end = begin.checked_add(SignedDuration::from_hours(DAYS * 24)).ok()?;
    let firing = |after: Timestamp| expression.next_after(after, &TimeZone::UTC, Some(begin));
    let mut last = firing(begin)?;
    let mut longest = SignedDuration::ZERO;
    for _ in 0..FIRINGS {
        let Some(next) = firing(last) else { break };
        longest = longest.max(next.duration_since(last));
        if whole_hours(longest) > MOST_HOURS {
            return None;
        }
        if next > end {
            break;
        }
        last = next;
    }
    let by_the_calendar = !expression.as_str().starts_with("rate") && zone.following(begin).next().is_some();
    Some(longest + if by_the_calendar { SignedDuration::from_hours(1) } else { SignedDuration::ZERO })
}

fn whole_hours(duration: SignedDuration) -> i64 {
    let seconds = duration.as_secs();
    seconds / 3600 + i64::from(seconds % 3600 > 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::environment::parse;

    fn environment(expression: &str, zone: &str) -> Environment {
        let text = include_str!("../../environments/prod.yaml")
            .replace("cron(0 2 * * ? *)", expression)
            .replace("timezone: UTC", &format!("timezone: {zone}"));
        parse(Path::new("prod.yaml"), &text).unwrap()
    }

    fn hours(expression: &str, zone: &str) -> Option<i64> {
        silent_hours(&environment(expression, zone), Function::Backup)
    }

    /// Too short cries wolf every night, too long hides a night without backups for another one.
    #[test]
    fn a_heartbeat_is_missed_after_the_longest_gap_and_no_later() {
        for (expression, zone, expected) in [
            ("cron(0 2 * * ? *)", "UTC", Some(26)),
            ("cron(0 2 * * ? *)", "Europe/Zurich", Some(27)),
            ("cron(30 2 * * ? *)", "Europe/Zurich", Some(27)),
            ("rate(12 hours)", "Europe/Zurich", Some(14)),
            ("rate(1 days)", "UTC", Some(26)),
            ("cron(0 2 ? * MON-FRI *)", "UTC", Some(74)),
            ("cron(0 0/6 * * ? *)", "UTC", Some(8)),
            ("cron(0/5 8-18 ? * MON-FRI *)", "UTC", Some(63)),
            // A week and the time of a run are more than CloudWatch looks back.
            ("cron(0 2 ? * SUN *)", "UTC", None),
            ("cron(0 2 1 * ? *)", "UTC", None),
            ("cron(0 2 29 2 ? *)", "UTC", None),
        ] {
            assert_eq!(hours(expression, zone), expected, "{expression} {zone}");
        }
    }

    /// A schedule that fires into nothing leaves no failed run to be seen, and "last backup: fine" of two nights ago.
    #[test]
    fn a_run_that_never_happened_is_missed() {
        let at = |hour: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
        let daily = environment("cron(0 2 * * ? *)", "UTC");
        let missed = |last, now| missed_since(&daily, Function::Backup, last, at(100), now);
        assert_eq!(missed(None, at(126)), None, "there was time for one only now");
        assert_eq!(missed(None, at(127)), Some(at(100)));
        assert_eq!(missed(Some(at(120)), at(146)), None);
        assert_eq!(missed(Some(at(120)), at(147)), Some(at(120)));
        assert_eq!(missed(Some(at(50)), at(126)), None, "an environment that was resumed begins anew");
        let monthly = environment("cron(0 2 1 * ? *)", "UTC");
        assert_eq!(missed_since(&monthly, Function::Backup, None, at(0), at(500)), None, "within a month");
    }

    #[test]
    fn a_daily_backup_is_stale_in_the_second_night_without_one() {
        assert_eq!(stale_hours(&environment("cron(0 2 * * ? *)", "UTC")), Some(36));
        assert_eq!(stale_hours(&environment("cron(0 2 ? * SUN *)", "UTC")), Some(180));
    }
}

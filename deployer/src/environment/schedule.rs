//! Schedule expressions in EventBridge Scheduler's syntax, and when they fire.
//!
//! Source: EventBridge Scheduler user guide, "Schedule types". A cron expression has six fields: minutes, hours, day
//! of month, month, day of week (1 is Sunday) and year; one of the two day fields is `?`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;

/// When a schedule fires: `cron(0 2 * * ? *)` or `rate(12 hours)`.
#[derive(Clone, Debug, Serialize)]
#[serde(into = "String")]
pub struct ScheduleExpression {
    text: String,
    timing: Timing,
}

#[derive(Clone, Debug)]
enum Timing {
    Cron(Box<Cron>),
    /// Fixed steps from the moment the schedule was made, whatever the calendar says.
    Rate(SignedDuration),
}

/// Why a text is not a schedule expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a schedule expression: {reason}")]
pub struct InvalidExpression {
    text: String,
    reason: String,
}

impl ScheduleExpression {
    /// The first firing after `after`, or `None` when there is none: a year that has passed, or a rate whose schedule
    /// has no known beginning.
    ///
    /// As EventBridge Scheduler does it: a local time that daylight saving skips does not fire, and one that it
    /// repeats fires once.
    pub fn next_after(
        &self,
        after: Timestamp,
        zone: &TimeZone,
        created: Option<Timestamp>,
    ) -> Option<Timestamp> {
        match &self.timing {
            Timing::Cron(cron) => next_in_zone(cron, after, zone),
            Timing::Rate(step) => {
                let created = created?;
                let elapsed = after.duration_since(created).as_secs().max(0);
                let steps = i32::try_from(elapsed / step.as_secs() + 1).ok()?;
                created.checked_add(*step * steps).ok()
            }
        }
    }

    /// The first local time from `from` on and before `until` at which a cron expression says to fire, whether or not
    /// the clocks of any zone show that time.
    pub(super) fn first_local_between(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let Timing::Cron(cron) = &self.timing else { return None };
        cron.find_next_occurrence(&from, true).ok().filter(|at| *at < until)
    }

    /// The step of a rate.
    pub(super) fn step(&self) -> Option<SignedDuration> {
        match &self.timing {
            Timing::Cron(_) => None,
            Timing::Rate(step) => Some(*step),
        }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The cron expression is searched in local time, which has no gaps; only then is daylight saving looked at.
fn next_in_zone(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut local: DateTime = after.to_zoned(zone.clone()).datetime();
    // Turning clocks back repeats up to some hours: start before them, and let `after` decide.
    local = local.checked_sub(SignedDuration::from_hours(3)).ok()?;
    loop {
        local = cron.find_next_occurrence(&local, false).ok()?;
        let ambiguous = zone.to_ambiguous_zoned(local);
        if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
            continue;
        }
        let fires = ambiguous.earlier().ok()?.timestamp();
        if fires > after {
            return Some(fires);
        }
    }
}

impl FromStr for ScheduleExpression {
    type Err = InvalidExpression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason: String| InvalidExpression { text: text.to_owned(), reason };
        let inside = |kind: &str| text.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')');
        let timing = if let Some(fields) = inside("cron") {
            Timing::Cron(Box::new(parse_cron(fields).map_err(invalid)?))
        } else if let Some(rate) = inside("rate") {
            Timing::Rate(parse_rate(rate).map_err(invalid)?)
        } else if inside("at").is_some() {
            return Err(invalid("`at(…)` fires only once, and backups must go on".to_owned()));
        } else {
            return Err(invalid(
                "write `cron(0 2 * * ? *)` for every day at 02:00, or `rate(12 hours)`".to_owned(),
            ));
        };
        Ok(Self { text: text.to_owned(), timing })
    }
}

fn parse_cron(fields: &str) -> Result<Cron, String> {
    let parts: Vec<&str> = fields.split_whitespace().collect();
    let [_, _, day_of_month, _, day_of_week, _] = parts[..] else {
        return Err(format!(
            "cron needs 6 fields (minutes hours day-of-month month day-of-week year), found {}",
            parts.len()
        ));
    };
    if (day_of_month == "?") == (day_of_week == "?") {
        return Err(
            "exactly one of day-of-month (third field) and day-of-week (fifth field) must be `?`".to_owned()
        );
    }
    let parse = |fields: &str| {
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Required);
        parser.alternative_weekdays(true).sloppy_ranges(true).build().parse(&format!("0 {fields}"))
    };
    parse(fields).map_err(|error| {
        // The library does not say which field it means: the one that is wrong all by itself.
        let alone = |index: usize, part: &str| {
            let mut others = ["*"; 6];
            others[index] = part;
            parse(&others.join(" ")).is_err()
        };
        let wrong = FIELDS.iter().zip(&parts).enumerate().find(|(index, (_, part))| alone(*index, part));
        wrong.map_or_else(|| error.to_string(), |(_, (field, part))| format!("`{part}` is not {field}"))
    })
}

/// What the fields of a cron expression are.
const FIELDS: [&str; 6] = [
    "minutes (0 to 59)",
    "hours (0 to 23)",
    "days of a month (1 to 31, L, W or ?)",
    "months (1 to 12, or JAN to DEC)",
    "days of a week (1 to 7 from Sunday on, SUN to SAT, L, # or ?)",
    "years (1970 to 2199)",
];

fn parse_rate(rate: &str) -> Result<SignedDuration, String> {
    let mut parts = rate.split_whitespace();
    let (Some(number), Some(unit), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err("rate needs a number and a unit, such as `rate(12 hours)`".to_owned());
    };
    let number: i64 = match number.parse() {
        Ok(number @ 1..=1_000_000) => number,
        _ => return Err(format!("`{number}` is not a number of {unit} from 1 to 1,000,000")),
    };
    let minutes = match unit {
        "minute" | "minutes" => number,
        "hour" | "hours" => number * 60,
        "day" | "days" => number * 24 * 60,
        _ => return Err(format!("`{unit}` is not a unit of rate: use minutes, hours or days")),
    };
    Ok(SignedDuration::from_mins(minutes))
}

impl PartialEq for ScheduleExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl TryFrom<String> for ScheduleExpression {
    type Error = InvalidExpression;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<'de> Deserialize<'de> for ScheduleExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::text(deserializer)
    }
}

impl JsonSchema for ScheduleExpression {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ScheduleExpression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(cron|rate)\(.+\)$",
            "examples": ["cron(0 2 * * ? *)", "rate(12 hours)"],
        })
    }
}

impl From<ScheduleExpression> for String {
    fn from(expression: ScheduleExpression) -> Self {
        expression.text
    }
}

impl fmt::Display for ScheduleExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firings(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let expression: ScheduleExpression = expression.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let created = Some(at);
        std::iter::from_fn(|| {
            at = expression.next_after(at, &zone, created)?;
            Some(at.to_string())
        })
        .take(count)
        .collect()
    }

    #[test]
    fn a_daily_schedule_fires_every_day_in_its_zone() {
        assert_eq!(
            firings("cron(0 2 * * ? *)", "Europe/Zurich", "2026-11-22T01:00:00Z", 2),
            ["2026-11-23T01:00:00Z", "2026-11-24T01:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_daylight_saving_skips_does_not_fire() {
        // On 2027-03-28 Zurich goes from 02:00 to 03:00.
        assert_eq!(
            firings("cron(30 2 * * ? *)", "Europe/Zurich", "2027-03-27T00:00:00Z", 2),
            ["2027-03-27T01:30:00Z", "2027-03-29T00:30:00Z"]
        );
    }

    #[test]
    fn a_time_that_daylight_saving_repeats_fires_once() {
        // On 2026-10-25 Zurich has 02:30 twice: at 00:30Z and at 01:30Z.
        assert_eq!(
            firings("cron(30 2 * * ? *)", "Europe/Zurich", "2026-10-24T23:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            firings("cron(30 2 * * ? *)", "Europe/Zurich", "2026-10-25T00:30:00Z", 1),
            ["2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn days_of_the_week_count_from_sunday_as_aws_does() {
        // 2026-11-22 is a Sunday.
        assert_eq!(firings("cron(0 2 ? * 1 *)", "UTC", "2026-11-21T00:00:00Z", 1), ["2026-11-22T02:00:00Z"]);
        assert_eq!(
            firings("cron(0 2 ? * SUN *)", "UTC", "2026-11-21T00:00:00Z", 1),
            ["2026-11-22T02:00:00Z"]
        );
        assert_eq!(firings("cron(0 2 ? * 6L *)", "UTC", "2026-11-21T00:00:00Z", 1), ["2026-11-27T02:00:00Z"]);
        assert_eq!(firings("cron(0 2 L * ? *)", "UTC", "2026-11-21T00:00:00Z", 1), ["2026-11-30T02:00:00Z"]);
        assert_eq!(
            firings("cron(0/30 2 * * ? *)", "UTC", "2026-11-21T02:00:00Z", 1),
            ["2026-11-21T02:30:00Z"]
        );
    }

    #[test]
    fn a_rate_counts_from_the_schedules_creation() {
        assert_eq!(
            firings("rate(12 hours)", "UTC", "2026-11-22T05:00:00Z", 2),
            ["2026-11-22T17:00:00Z", "2026-11-23T05:00:00Z"]
        );
    }

    #[test]
    fn a_year_that_has_passed_never_fires() {
        assert!(firings("cron(0 2 * * ? 2020)", "UTC", "2026-11-22T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("0 2 * * ? *", "write `cron(0 2 * * ? *)`"),
            ("cron(0 2 * * *)", "needs 6 fields"),
            ("cron(0 2 * * * *)", "must be `?`"),
            ("cron(0 2 ? * ? *)", "must be `?`"),
            ("cron(0 25 * * ? *)", "`25` is not hours (0 to 23)"),
            ("cron(0 2 ? * FOO *)", "`FOO` is not days of a week"),
            ("cron(x 2 * * ? *)", "is not a schedule expression"),
            ("rate(0 hours)", "from 1 to 1,000,000"),
            ("rate(5 fortnights)", "use minutes, hours or days"),
            ("rate(5)", "a number and a unit"),
            ("at(2026-11-22T02:00:00)", "only once"),
            ("", "write `cron"),
        ] {
            let error = text.parse::<ScheduleExpression>().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

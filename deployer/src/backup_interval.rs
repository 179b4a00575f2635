//! How long it may take from one backup to the next.

use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::environment::Environment;

/// The longest time between two firings of the backup's schedule, in whole hours, rounded up: cleanup's audit calls
/// no backup late before it has passed.
///
/// A schedule that hardly ever fires counts as one that fires once a year.
pub(crate) fn hours(environment: &Environment) -> u32 {
    /// As many firings are looked at: all of a year's, unless there are several a day.
    const FIRINGS: usize = 400;

    let longest = firings(environment)
        .take(FIRINGS)
        .collect::<Vec<_>>()
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]))
        .max()
        .unwrap_or(YEAR);
    let seconds = longest.min(YEAR).as_secs();
    u32::try_from((seconds + 3_599) / 3_600).unwrap_or(u32::MAX)
}

const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The firings of a year. Which year does not matter, and a fixed one keeps a plan the same from day to day.
fn firings(environment: &Environment) -> impl Iterator<Item = Timestamp> {
    let start = Timestamp::UNIX_EPOCH + (56 * 366 * 24).hours();
    let (expression, zone) = (&environment.backup.schedule.expression, environment.timezone.rules());
    let next = move |after: Timestamp| expression.next_after(after, zone, Some(start));
    std::iter::successors(next(start), move |at| next(*at))
        .take_while(move |at| at.duration_since(start) <= YEAR)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::environment::parse;

    fn hours_of(expression: &str, zone: &str) -> u32 {
        let text = include_str!("../../environments/local.yaml")
            .replace("cron(0 2 * * ? *)", expression)
            .replace("timezone: UTC", &format!("timezone: {zone}"));
        assert!(text.contains(expression), "{text}");
        hours(&parse(Path::new("local.yaml"), &text).unwrap())
    }

    /// Too short, and every weekend alarms; too long, and a dead backup goes unnoticed.
    #[test]
    fn the_longest_gap_counts() {
        assert_eq!(hours_of("cron(0 2 * * ? *)", "UTC"), 24);
        assert_eq!(hours_of("cron(0 1 * * ? *)", "Europe/Berlin"), 25, "the night that daylight saving ends");
        assert_eq!(hours_of("cron(0 2 ? * MON-FRI *)", "UTC"), 72, "over a weekend");
        assert_eq!(hours_of("cron(0 2 1 * ? *)", "UTC"), 31 * 24);
        assert_eq!(hours_of("rate(12 hours)", "UTC"), 12);
        assert_eq!(hours_of("rate(90 minutes)", "UTC"), 2);
        assert_eq!(hours_of("cron(0 2 1 1 ? *)", "UTC"), 366 * 24);
    }
}

//! How long a snapshot is kept, and the tag that says so.

use std::fmt;
use std::str::FromStr;

use jiff::Span;
use jiff::civil::{Date, Weekday};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How long the snapshots of a day are kept: each day earns the furthest of the terms that apply to it.
///
/// The terms go by the calendar alone, so a day's snapshots get the same `DeleteOn` whoever computes it, however
/// often a run is repeated, and without a look at the other snapshots. What that costs: a week whose Monday, or a
/// month whose first day, has no backup has no weekly or monthly copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Every snapshot is kept for at least these days.
    pub daily_days: Days,
    /// Snapshots of a Monday, the first day of the ISO week, are kept for these days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly_days: Option<Days>,
    /// Snapshots of the first of a month are kept for these days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_days: Option<Days>,
}

impl Retention {
    /// What the snapshots made on `day` earn.
    pub fn earned(&self, day: Date) -> Earned {
        let weekly = self.weekly_days.filter(|_| day.weekday() == Weekday::Monday);
        let monthly = self.monthly_days.filter(|_| day.day() == 1);
        let terms = [(Some(self.daily_days), Term::Daily), (weekly, Term::Weekly), (monthly, Term::Monthly)];
        let (days, term) = terms.into_iter().filter_map(|(days, term)| Some((days?, term))).fold(
            (Days::MIN, Term::Daily),
            |furthest, next| if next.0 > furthest.0 { next } else { furthest },
        );
        Earned { term, delete_on: DeleteOn(days.after(day)) }
    }
}

/// How long a day's snapshots are kept, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earned {
    /// The term that reaches furthest.
    pub term: Term,
    /// The day from which on cleanup may delete them.
    pub delete_on: DeleteOn,
}

/// The terms of a [`Retention`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// What every day earns.
    #[default]
    Daily,
    /// What a Monday earns.
    Weekly,
    /// What the first of a month earns.
    Monthly,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        })
    }
}

/// A number of calendar days from 1 to 36,500, the longest that EC2 itself lets a snapshot be locked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Days(u16);

/// Why a number is not a [`Days`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} days is out of range: use {min} to {max}", min = Days::MIN.0, max = Days::MAX.0)]
pub struct InvalidDays(u32);

impl Days {
    /// The shortest term.
    pub const MIN: Self = Self(1);
    /// The longest term.
    pub const MAX: Self = Self(36_500);

    /// The number of days.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The day this many days after `day`, or the calendar's last one where there is none: a date nobody can name
    /// must never turn into an early deletion.
    fn after(self, day: Date) -> Date {
        day.saturating_add(Span::new().days(self.0))
    }
}

impl TryFrom<u32> for Days {
    type Error = InvalidDays;

    fn try_from(days: u32) -> Result<Self, Self::Error> {
        u16::try_from(days)
            .ok()
            .filter(|days| (Self::MIN.0..=Self::MAX.0).contains(days))
            .map(Self)
            .ok_or(InvalidDays(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "day" } else { "days" })
    }
}

/// By hand, so that every wrong value (`0`, `7.5`, `abc`) is answered with what is wanted, at its own place in the
/// user's file.
impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DaysVisitor;

        impl Visitor<'_> for DaysVisitor {
            type Value = Days;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number of days from {} to {}", Days::MIN.0, Days::MAX.0)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Days, E> {
                u32::try_from(value)
                    .ok()
                    .and_then(|days| Days::try_from(days).ok())
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Days, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
                }
            }
        }

        deserializer.deserialize_u32(DaysVisitor)
    }
}

/// The day from which on a snapshot may be deleted, as its `DeleteOn` tag spells it: `YYYY-MM-DD`.
///
/// No other spelling is accepted: cleanup must not act on a date it had to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeleteOn(Date);

/// Why a text is not a [`DeleteOn`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a date of the form YYYY-MM-DD")]
pub struct InvalidDeleteOn(String);

impl DeleteOn {
    /// The date itself.
    pub fn date(self) -> Date {
        self.0
    }

    /// Whether deletion is allowed on `today`: from the day itself on.
    pub fn has_come(self, today: Date) -> bool {
        self.0 <= today
    }
}

impl FromStr for DeleteOn {
    type Err = InvalidDeleteOn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser also takes other ISO 8601 forms; only what reads back as it was written is ours.
        text.parse::<Date>()
            .ok()
            .filter(|date| text.len() == "YYYY-MM-DD".len() && date.to_string() == text)
            .map(Self)
            .ok_or_else(|| InvalidDeleteOn(text.to_owned()))
    }
}

impl TryFrom<String> for DeleteOn {
    type Error = InvalidDeleteOn;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeleteOn> for String {
    fn from(day: DeleteOn) -> Self {
        day.to_string()
    }
}

impl From<Date> for DeleteOn {
    fn from(date: Date) -> Self {
        Self(date)
    }
}

impl fmt::Display for DeleteOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn days(days: u32) -> Days {
        Days::try_from(days).unwrap()
    }

    #[test]
    fn a_day_earns_the_furthest_term_that_applies_to_it() {
        let retention =
            Retention { daily_days: days(7), weekly_days: Some(days(28)), monthly_days: Some(days(365)) };
        for (day, term, delete_on) in [
            (date(2026, 11, 22), Term::Daily, "2026-11-29"),  // a Sunday
            (date(2026, 11, 23), Term::Weekly, "2026-12-21"), // a Monday
            (date(2026, 12, 1), Term::Monthly, "2027-12-01"), // a first, and a Tuesday
            (date(2026, 6, 1), Term::Monthly, "2027-06-01"),  // a first, and a Monday
            (date(2024, 2, 23), Term::Daily, "2024-03-01"),   // across a leap day
            (date(2028, 2, 1), Term::Monthly, "2029-01-31"),  // 365 days across a leap day
            (date(2026, 3, 29), Term::Daily, "2026-04-05"),   // the day that daylight saving begins in Europe
        ] {
            let earned = retention.earned(day);
            assert_eq!((earned.term, earned.delete_on.to_string().as_str()), (term, delete_on), "{day}");
        }
    }

    #[test]
    fn a_short_weekly_term_never_shortens_the_daily_one() {
        let retention = Retention { daily_days: days(30), weekly_days: Some(days(7)), monthly_days: None };
        let earned = retention.earned(date(2026, 11, 23));
        assert_eq!((earned.term, earned.delete_on.to_string().as_str()), (Term::Daily, "2026-12-23"));
    }

    #[test]
    fn a_wrong_number_of_days_is_answered_with_what_is_wanted() {
        for (json, error) in [
            ("0", "invalid value: integer `0`, expected a whole number of days from 1 to 36500"),
            ("-3", "invalid value: integer `-3`, expected a whole number of days from 1 to 36500"),
            ("36501", "invalid value: integer `36501`, expected a whole number of days from 1 to 36500"),
            ("7.5", "invalid type: floating point `7.5`, expected a whole number of days from 1 to 36500"),
            ("\"abc\"", "invalid type: string \"abc\", expected a whole number of days from 1 to 36500"),
        ] {
            let message = serde_json::from_str::<Days>(json).unwrap_err().to_string();
            assert!(message.starts_with(error), "{message}");
        }
        assert!(Days::try_from(0).is_err() && Days::try_from(36_501).is_err());
    }

    #[test]
    fn only_one_spelling_of_a_date_is_readable() {
        assert!("2026-02-28".parse::<DeleteOn>().is_ok());
        for text in [
            "",
            "never",
            "2026-2-28",
            "20260228",
            "2026-02-30",
            "2026-02-28 ",
            " 2026-02-28",
            "2026-02-28T00:00:00Z",
            "2026-W09-6",
            "+002026-02-28",
            "-00001-1-1",
            "２０26-02-28",
        ] {
            assert!(text.parse::<DeleteOn>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_deleted_before_its_daily_term(
            epoch_day in 0..2_932_896_i32, // 1970-01-01 to 9999-12-31
            daily in 1..=36_500_u32,
            weekly in proptest::option::of(1..=36_500_u32),
            monthly in proptest::option::of(1..=36_500_u32),
        ) {
            let day = date(1970, 1, 1).checked_add(Span::new().days(epoch_day)).unwrap();
            let retention = Retention {
                daily_days: days(daily),
                weekly_days: weekly.map(days),
                monthly_days: monthly.map(days),
            };
            let Earned { term, delete_on } = retention.earned(day);
            prop_assert!(delete_on.date() >= days(daily).after(day));
            prop_assert!(term != Term::Weekly || day.weekday() == Weekday::Monday);
            prop_assert!(term != Term::Monthly || day.day() == 1);
            for (earns, term) in [(day.weekday() == Weekday::Monday, weekly), (day.day() == 1, monthly)] {
                if let Some(term) = term.filter(|_| earns) {
                    prop_assert!(delete_on.date() >= days(term).after(day), "the furthest that the day earns");
                }
            }
            prop_assert_eq!(delete_on.to_string().parse::<DeleteOn>().unwrap(), delete_on);
            prop_assert!(!delete_on.has_come(day) || day == Date::MAX);
            prop_assert!(delete_on.has_come(delete_on.date()));
        }

        #[test]
        fn no_text_makes_the_date_parser_panic(text in ".{0,16}") {
            if let Ok(day) = text.parse::<DeleteOn>() {
                prop_assert_eq!(day.to_string(), text);
            }
        }
    }
}

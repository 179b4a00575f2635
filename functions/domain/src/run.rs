//! Runs: one firing of a schedule each, recognisable however often it is delivered.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Identifies one run by what fired it and when it was due: `snapwarden-prod/backup@2026-11-22T02:00:00Z`.
///
/// EventBridge Scheduler delivers at least once and Lambda retries failed invocations; both repeat these two facts,
/// so all deliveries of one firing are the same run. The text is a tag's value on every snapshot: it uses only
/// characters that all AWS services allow there, and stays well below the 256 allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    schedule: ScheduleName,
    scheduled_at: Timestamp,
}

/// Why a text is not a [`RunId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run: expected the form `group/schedule@2026-11-22T02:00:00Z` or `manual@…`")]
pub struct InvalidRunId(String);

impl RunId {
    /// The run of `schedule` that was due at `scheduled_at`, whose fraction of a second is dropped.
    pub fn new(schedule: ScheduleName, scheduled_at: Timestamp) -> Self {
        let whole = Timestamp::from_second(scheduled_at.as_second()).unwrap_or(scheduled_at);
        Self { schedule, scheduled_at: whole }
    }

    /// What fired the run.
    pub fn schedule(&self) -> &ScheduleName {
        &self.schedule
    }

    /// When the run was due.
    pub fn scheduled_at(&self) -> Timestamp {
        self.scheduled_at
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (schedule, scheduled_at) = text.rsplit_once('@')?;
            Some(Self::new(schedule.parse().ok()?, scheduled_at.parse().ok()?))
        };
        // A run has one spelling: tags are compared as text.
        parse().filter(|run: &Self| run.to_string() == text).ok_or_else(|| InvalidRunId(text.to_owned()))
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.to_string()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.schedule, self.scheduled_at)
    }
}

/// What fires runs: a schedule of EventBridge Scheduler, as `group/name`, or a person, as `manual`.
///
/// Also reads a schedule's ARN, which is what the Scheduler puts into the event. Its account and region add nothing:
/// a run never leaves them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScheduleName(String);

/// Why a text is not a [`ScheduleName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a schedule: expected the ARN of a schedule, `group/name`, or `manual`")]
pub struct InvalidScheduleName(String);

impl ScheduleName {
    const MANUAL: &str = "manual";

    /// The name under which people start runs.
    pub fn manual() -> Self {
        Self(Self::MANUAL.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScheduleName {
    type Err = InvalidScheduleName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let short = match text.split_once(":schedule/") {
            Some((prefix, short)) if prefix.starts_with("arn:") => short,
            _ => text,
        };
        let is_name = |part: &str| {
            (1..=64).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let valid = short == Self::MANUAL
            || short.split_once('/').is_some_and(|(group, name)| is_name(group) && is_name(name));
        if valid { Ok(Self(short.to_owned())) } else { Err(InvalidScheduleName(text.to_owned())) }
    }
}

impl TryFrom<String> for ScheduleName {
    type Error = InvalidScheduleName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ScheduleName> for String {
    fn from(name: ScheduleName) -> Self {
        name.0
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARN: &str = "arn:aws:scheduler:eu-central-1:123456789012:schedule/snapwarden-prod/backup";

    #[test]
    fn a_run_reads_the_same_from_the_schedules_arn_and_from_its_tag() {
        let at: Timestamp = "2026-11-22T02:00:00.75Z".parse().unwrap();
        let run = RunId::new(ARN.parse().unwrap(), at);
        assert_eq!(run.to_string(), "snapwarden-prod/backup@2026-11-22T02:00:00Z");
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        assert_eq!(RunId::new(ScheduleName::manual(), at).to_string(), "manual@2026-11-22T02:00:00Z");
    }

    #[test]
    fn other_spellings_of_a_run_are_unreadable_rather_than_equal() {
        for text in [
            "",
            "@",
            "manual",
            "manual@",
            "manual@yesterday",
            "manual@2026-11-22T02:00:00+00:00",
            "manual@2026-11-22T02:00:00.5Z",
            "manual@2026-11-22 02:00:00Z",
            "group@2026-11-22T02:00:00Z",
            "group/a/b@2026-11-22T02:00:00Z",
            "arn:aws:scheduler:eu-central-1:123456789012:schedule/group/a@2026-11-22T02:00:00Z",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_names_that_are_safe_in_a_tag_are_schedules() {
        for text in
            ["", "backup", "group/", "/name", "a b/c", "g/n*", "arn:aws:lambda:x:y:function:f", "Manual"]
        {
            assert!(text.parse::<ScheduleName>().is_err(), "{text:?}");
        }
        assert!(format!("{}/{}", "g".repeat(64), "n".repeat(65)).parse::<ScheduleName>().is_err());
    }

    proptest! {
        #[test]
        fn every_run_fits_a_tag_and_reads_back(
            group in "[0-9A-Za-z_.-]{1,64}",
            name in "[0-9A-Za-z_.-]{1,64}",
            second in -377_705_023_201_i64..=253_402_207_200,
        ) {
            let schedule: ScheduleName = format!("{group}/{name}").parse().unwrap();
            let run = RunId::new(schedule, Timestamp::from_second(second).unwrap());
            let text = run.to_string();
            prop_assert!(text.len() <= 256);
            let fits_a_tag = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
            prop_assert!(text.chars().all(fits_a_tag));
            prop_assert_eq!(text.parse::<RunId>().unwrap(), run);
        }
    }
}

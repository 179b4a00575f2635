//! What one invocation of a run hands on to the next.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::checked;
use crate::report::{Effort, Failure, cut};

/// The part of an event that says what a run's earlier invocations, its hops, came to.
///
/// There is no cursor in it: what is done shows in EC2. It carries what does not show there, so that the last hop
/// can report, and answer for, the whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continuation {
    /// Which hop this is, from 1 to [`Self::MAX_HOP`]; what a schedule or a person starts has no continuation and is
    /// hop 0.
    #[serde(deserialize_with = "hop")]
    pub hop: u32,
    /// How many snapshots the earlier hops made (backup) or deleted (cleanup).
    pub done: u64,
    /// EC2 calls of the earlier hops, with the SDK's own repetitions.
    pub api_calls: u64,
    /// How many of them EC2 throttled.
    pub throttles: u64,
    /// How long the earlier hops took together, in milliseconds.
    pub duration_ms: u64,
    /// What failed in them.
    #[serde(default)]
    pub failures: Vec<EarlierFailure>,
    /// What people should look at.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How many warnings more there were than fit, in all hops. (What failed and does not fit is tried again like all
    /// that is not done.)
    #[serde(default)]
    pub unlisted: u64,
    /// When the hop before handed on: with each hop, Lambda begins to count its attempts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_on_at: Option<Timestamp>,
}

/// One kind of failure, and all that it happened to: in a large run, many fail for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierFailure {
    /// Ids of instances or snapshots.
    pub resources: Vec<String>,
    /// Why.
    pub failure: Failure,
}

impl Continuation {
    /// The bound on a run's hops: about 120,000 calls at EC2's published rate for making and deleting snapshots, more
    /// than a Region's quota of snapshots. Lambda's own bound of about 16 is lifted for the functions.
    pub const MAX_HOP: u32 = 30;

    /// The most bytes that failures, and that warnings, take. Lambda's limit for an asynchronous event is 1 MB, and
    /// was 256 KB for long; JSON can double a text's length.
    const MAX_FAILURES: usize = 70_000;
    const MAX_WARNINGS: usize = 30_000;

    /// The longest text in bytes.
    const MAX_TEXT: usize = 500;

    /// The continuation after a hop whose run, all hops together, has come to `effort` and `done`.
    pub fn after(previous: Option<&Self>, effort: &Effort, done: u64) -> Self {
        Self {
            hop: previous.map_or(0, |previous| previous.hop).saturating_add(1),
            done,
            api_calls: effort.api_calls,
            throttles: effort.throttles,
            duration_ms: effort.duration_ms,
            failures: Vec::new(),
            warnings: Vec::new(),
            unlisted: previous.map_or(0, |previous| previous.unlisted),
            handed_on_at: None,
        }
    }

    /// The same with the run's failures so far, by what they happened to, as far as they fit.
    #[must_use]
    pub fn with_failures(mut self, failures: impl IntoIterator<Item = (String, Failure)>) -> Self {
        let mut room = Self::MAX_FAILURES;
        for (resource, failure) in failures {
            let failure = Failure {
                code: failure.code.map(|code| cut(&code, Self::MAX_TEXT)),
                message: cut(&failure.message, Self::MAX_TEXT),
                hint: failure.hint.map(|hint| cut(&hint, Self::MAX_TEXT)),
            };
            let same = self.failures.iter().position(|earlier| earlier.failure == failure);
            let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            let size = match same {
                Some(_) => 0,
                None => 80 + text(&failure.code) + failure.message.len() + text(&failure.hint),
            };
            let Some(left) = room.checked_sub(size + resource.len() + 3) else { continue };
            room = left;
            match same {
                Some(index) => self.failures[index].resources.push(resource),
                None => self.failures.push(EarlierFailure { resources: vec![resource], failure }),
            }
        }
        self
    }

    /// The same with the run's warnings so far; only counted beyond the bound.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let mut room = Self::MAX_WARNINGS;
        for warning in warnings {
            let warning = cut(&warning, Self::MAX_TEXT);
            match room.checked_sub(warning.len() + 3) {
                Some(left) => {
                    room = left;
                    self.warnings.push(warning);
                }
                None => self.unlisted = self.unlisted.saturating_add(1),
            }
        }
        self
    }

    /// What failed in earlier hops, by the id of what it happened to.
    pub fn failures_by_resource(&self) -> BTreeMap<&str, &Failure> {
        self.failures
            .iter()
            .flat_map(|earlier| earlier.resources.iter().map(|id| (id.as_str(), &earlier.failure)))
            .collect()
    }
}

struct Hop(u32);

impl TryFrom<i64> for Hop {
    type Error = String;

    fn try_from(hop: i64) -> Result<Self, Self::Error> {
        let valid = u32::try_from(hop).ok().filter(|hop| (1..=Continuation::MAX_HOP).contains(hop));
        valid.map(Self).ok_or_else(|| format!("{hop} is not a hop: expected 1 to {}", Continuation::MAX_HOP))
    }
}

fn hop<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    checked::number(deserializer).map(|Hop(hop)| hop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Continuation {
        Continuation::after(None, &Effort::default(), 0)
    }

    fn denied() -> Failure {
        Failure { code: Some("UnauthorizedOperation".to_owned()), ..Failure::new("not allowed", "deploy") }
    }

    #[test]
    fn failures_of_a_whole_fleet_fit_an_event() {
        // The quotation mark takes two bytes in JSON.
        let all_alike = (0..50_000).map(|n| (format!("i-{n:017x}"), denied()));
        let all_different =
            (0..5_000).map(|n| (format!("i-{n}"), Failure::new("\"".repeat(2_000) + &n.to_string(), "\"")));
        for failures in [all_alike.collect::<Vec<_>>(), all_different.collect()] {
            let full = empty().with_failures(failures).with_warnings(vec!["\"".repeat(999); 1_000]);
            assert!(serde_json::to_vec(&full).unwrap().len() < 250_000);
            let listed: usize = full.failures.iter().map(|earlier| earlier.resources.len()).sum();
            assert!(listed >= 50, "{listed}");
            let dropped = 1_000 - full.warnings.len() as u64;
            assert_eq!(full.unlisted, dropped, "what does not fit is counted");
            let next = Continuation::after(Some(&full), &Effort::default(), 0);
            assert_eq!(next.unlisted, dropped, "and not forgotten by the hops that follow");
        }
    }

    #[test]
    fn an_earlier_failure_is_found_by_its_resource() {
        let next = empty().with_failures([("i-1".to_owned(), denied()), ("i-2".to_owned(), denied())]);
        assert_eq!(next.failures.len(), 1, "one reason is sent once");
        assert_eq!(next.failures_by_resource(), [("i-1", &denied()), ("i-2", &denied())].into());
        assert_eq!(Continuation::after(Some(&next), &Effort::default(), 3).hop, 2);
    }

    #[test]
    fn no_event_makes_a_run_hop_for_ever() {
        for (hop, valid) in [(0, false), (1, true), (30, true), (31, false), (-1, false)] {
            let mut value = serde_json::to_value(empty()).unwrap();
            value["hop"] = hop.into();
            assert_eq!(serde_json::from_value::<Continuation>(value).is_ok(), valid, "{hop}");
        }
    }
}

//! Scenarios: files that say what happens to calls.
//!
//! `docs/faults.md` shows each key in use.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use snapwarden_domain::excerpt::excerpt;

use crate::rule::{Calls, Effect, Rule, When};

/// What happens to calls. The default is nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Where the chances of its rules begin: the same seed and the same calls make the same faults.
    pub seed: u64,
    /// How long every call takes on top of what the service takes.
    pub latency: Latency,
    /// EC2's token buckets, where they count.
    pub buckets: Option<Buckets>,
    /// What happens to some calls. The first rule that applies to a call counts.
    pub rules: Vec<Rule>,
}

/// How long calls take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// Milliseconds for each call.
    pub ms: u32,
    /// Milliseconds more for every other call under way: latency under load.
    pub ms_per_call_under_way: u32,
}

/// EC2's token buckets; a call that finds none is answered with `RequestLimitExceeded`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buckets {
    /// How many times as large and as quick as published.
    #[serde(default = "once")]
    pub scale: f64,
}

fn once() -> f64 {
    1.0
}

/// A text that is no scenario.
#[derive(Debug, thiserror::Error)]
#[error("{place}{message}")]
pub struct InvalidScenario {
    /// `line 3, column 5: `, where known.
    place: String,
    message: String,
}

impl FromStr for Scenario {
    type Err = InvalidScenario;

    fn from_str(text: &str) -> Result<Self, InvalidScenario> {
        // An empty file is a scenario in which nothing happens.
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let reader = serde_yaml::Deserializer::from_str(text);
        let scenario: Self = serde_path_to_error::deserialize(reader).map_err(|error| {
            let key = error.path().to_string();
            let error = error.into_inner();
            let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
            let message = error.to_string();
            // The YAML library ends its messages with the place, which is said already.
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            let (first, rest) = message.split_once(": ").unwrap_or_default();
            let message = excerpt(&match key.as_str() {
                "." => message.to_owned(),
                // And begins them with a part of the key.
                key if !first.is_empty() && key.starts_with(first) => format!("{key}: {rest}"),
                key => format!("{key}: {message}"),
            });
            InvalidScenario { place: place.unwrap_or_default(), message }
        })?;
        let wrong = |message: &str| InvalidScenario { place: String::new(), message: message.to_owned() };
        if scenario.buckets.is_some_and(|buckets| !(buckets.scale.is_finite() && buckets.scale > 0.0)) {
            return Err(wrong("buckets.scale: it must be a number above 0"));
        }
        Ok(scenario)
    }
}

/// A rule as a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// `all`, `mutating`, `reads`, an action such as `ec2:CreateSnapshots`, or the start of some: `ec2:Describe*`.
    calls: String,
    fault: Fault,
    /// The first so many of these calls.
    first: Option<usize>,
    /// Only the nth.
    nth: Option<usize>,
    /// All from the nth on.
    from: Option<usize>,
    /// Every so many.
    every: Option<usize>,
    /// Each with this probability.
    chance: Option<f64>,
    /// For `latency` and `later`: milliseconds.
    ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    Throttle,
    InternalError,
    Unavailable,
    ExpiredToken,
    Latency,
    Reset,
    LostAnswer,
    Truncated,
    Stale,
    Later,
    KillBefore,
    KillAfter,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.rule().map_err(serde::de::Error::custom)
    }
}

impl Written {
    fn rule(self) -> Result<Rule, String> {
        let effect = self.effect()?;
        let calls = match self.calls.as_str() {
            "all" => Calls::All,
            "mutating" => Calls::Mutating,
            "reads" => Calls::Reads,
            name if name
                .split_once(':')
                .is_some_and(|(service, action)| is_word(service) && is_start(action)) =>
            {
                Calls::Like(self.calls)
            }
            name => {
                return Err(format!(
                    "calls: `{name}` is none of `all`, `mutating`, `reads` and an action such as `ec2:CreateSnapshots` or `ec2:Describe*`"
                ));
            }
        };
        let mut given = Vec::new();
        given.extend(self.first.map(|times| When::From { first: 1, times }));
        given.extend(self.nth.map(|first| When::From { first, times: 1 }));
        given.extend(self.from.map(|first| When::From { first, times: usize::MAX }));
        given.extend(self.every.map(When::Every));
        given.extend(self.chance.map(When::Chance));
        let when = match given[..] {
            [] => When::From { first: 1, times: usize::MAX },
            [when] => when,
            _ => return Err("only one of `first`, `nth`, `from`, `every` and `chance` at a time".to_owned()),
        };
        match when {
            When::From { first: 0, .. } | When::From { times: 0, .. } | When::Every(0) => {
                Err("calls are counted from 1".to_owned())
            }
            When::Chance(chance) if !(0.0..=1.0).contains(&chance) => {
                Err("chance: it must be between 0 and 1".to_owned())
            }
            when => Ok(Rule::new(calls, when, effect)),
        }
    }

    fn effect(&self) -> Result<Effect, String> {
        let time = self.ms.map(Duration::from_millis);
        if time.is_some() && !matches!(self.fault, Fault::Latency | Fault::Later) {
            return Err("ms: only for `latency` and `later`".to_owned());
        }
        let time = || time.ok_or_else(|| "ms: how long?".to_owned());
        Ok(match self.fault {
            Fault::Throttle => Effect::Throttle,
            Fault::InternalError => Effect::InternalError,
            Fault::Unavailable => Effect::Unavailable,
            Fault::ExpiredToken => Effect::ExpiredToken,
            Fault::Latency => Effect::Delay(time()?),
            Fault::Reset => Effect::Reset,
            Fault::LostAnswer => Effect::LoseAnswer,
            Fault::Truncated => Effect::Truncate,
            Fault::Stale => Effect::Stale,
            Fault::Later => Effect::Later(time()?),
            Fault::KillBefore => Effect::KillBefore,
            Fault::KillAfter => Effect::KillAfter,
        })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn is_start(text: &str) -> bool {
    let start = text.strip_suffix('*').unwrap_or(text);
    text == "*" || is_word(start)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.len();
        write!(f, "{rules} rule{}", if rules == 1 { "" } else { "s" })?;
        if self.latency.ms > 0 {
            write!(f, ", {} ms a call", self.latency.ms)?;
        }
        match self.buckets {
            Some(buckets) => write!(f, ", EC2's buckets × {}", buckets.scale),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_every_fault_is_understood() {
        let faults = [
            "throttle",
            "internal-error",
            "unavailable",
            "expired-token",
            "reset",
            "lost-answer",
            "truncated",
            "stale",
            "kill-before",
            "kill-after",
        ];
        let rules = faults.map(|fault| format!("  - {{ calls: mutating, fault: {fault}, chance: 0.5 }}\n"));
        let text = format!(
            "seed: 7\nlatency: {{ ms: 40, ms_per_call_under_way: 2 }}\nbuckets: {{ scale: 10 }}\nrules:\n{}{}",
            rules.concat(),
            "  - { calls: 'ec2:Describe*', fault: latency, ms: 200, every: 3 }\n\
             \u{20} - { calls: ec2:DeleteSnapshot, fault: later, ms: 3000, from: 2 }\n",
        );
        let scenario: Scenario = text.parse().unwrap();
        assert_eq!(scenario.rules.len(), 12);
        assert_eq!(scenario.to_string(), "12 rules, 40 ms a call, EC2's buckets × 10");
        assert_eq!("# nothing\n".parse::<Scenario>().unwrap().to_string(), "0 rules");
    }

    /// A fault that is not injected because of a typing error proves that all is well.
    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, says) in [
            ("rules: [{ calls: all, fault: throtle }]", "unknown variant `throtle`"),
            ("rules: [{ calls: ec2, fault: throttle }]", "`ec2` is none of `all`"),
            ("rules: [{ calls: all, fault: throttle, first: 1, nth: 2 }]", "only one of"),
            ("rules: [{ calls: all, fault: throttle, nth: 0 }]", "counted from 1"),
            ("rules: [{ calls: all, fault: throttle, chance: 2 }]", "between 0 and 1"),
            ("rules: [{ calls: all, fault: throttle, ms: 2 }]", "only for `latency`"),
            ("rules: [{ calls: all, fault: later }]", "how long?"),
            ("latency: 40", "line 1"),
            ("bucket: {}", "unknown field `bucket`"),
            ("buckets: { scale: 0 }", "above 0"),
            ("- 1", "line 1"),
        ] {
            let error = text.parse::<Scenario>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

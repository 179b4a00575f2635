//! What a run reports: as JSON to whoever invoked it, as one line to people.
//!
//! The JSON is read by the deployer's commands, possibly those of another version: fields may be added, never
//! renamed. A Lambda response is limited to 6 MB, so only what was acted upon, and what is held although it is due,
//! is listed, each up to a limit; the rest is counted.

mod backup;
mod cleanup;
mod copies;
mod sealing;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;
use crate::names::EnvironmentName;
use crate::run::RunId;

pub use backup::{BackupReport, InstanceReport, Outcome, Outcomes, VolumeSnapshot};
pub use cleanup::{CleanupReport, DueSnapshot, FailedSnapshot, HeldSnapshot};
pub use copies::{PlaceCleanup, PlaceCopies};
pub use sealing::{CleanupAnswer, SealedSnapshot, SealingReport, UnsealedSnapshot};

/// What both reports have in common.
pub trait Report: Serialize {
    /// The environment it ran for.
    fn environment(&self) -> &EnvironmentName;

    /// The run reported on.
    fn run(&self) -> &RunId;

    /// Whether the run only decided, and changed nothing.
    fn is_dry_run(&self) -> bool;

    /// What the run took so far.
    fn effort(&self) -> &Effort;

    /// How the log says that the run was no failure, for `cargo xtask status`.
    fn outcome(&self) -> &'static str {
        if self.is_dry_run() { "dry_run" } else { "succeeded" }
    }

    /// The whole run in one line for people.
    fn summary(&self) -> String;

    /// What went wrong, one line each. A run with any failure counts as failed.
    fn failures(&self) -> Vec<String>;

    /// What people should look at, though the run is fine, one line each.
    fn warnings(&self) -> &[String];

    /// What CloudWatch is told of a run that ended, its heartbeat among it; not of a dry run, nor of each hop.
    fn metrics(&self) -> Vec<Metric>;
}

/// What a run took, all of its invocations up to this one together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effort {
    /// How many times the run handed on to a further invocation before this one.
    pub hops: u32,
    /// Whether this invocation handed on as well: then another report follows, and that one counts.
    pub handed_on: bool,
    /// Calls of EC2, with the SDK's own repetitions.
    pub api_calls: u64,
    /// How many of them EC2 throttled.
    pub throttles: u64,
    /// How long it took, in milliseconds, without the waits between invocations.
    pub duration_ms: u64,
}

/// Why something failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// AWS's error code, where AWS answered with one.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that AWS knows nothing of.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: None, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same failure, saying what it stopped.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

/// The beginning of a text that is longer than so many bytes.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;

//! The canary: a dry run of a new version, with its real role, before the alias moves to it.
//!
//! It is invoked by its number. A function hands on only to its alias and only when it was invoked through it, and
//! never in a dry run, so that no canary continues in the version that is live.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{BackupReport, CleanupReport, Report, cut};

use crate::error::AwsError;
use crate::invoke::{Answer, invoke};
use crate::kinds::{Context, StepError};
use crate::scope::Function;
use crate::wait;

/// How the dry run of a version ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The version's number.
    pub version: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The same in words: the report's summary, or why it failed.
    pub summary: String,
}

/// How the dry run of a version ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ended well.
    Passed,
    /// It did not.
    Failed,
    /// Whoever deployed left it out.
    Skipped,
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, outcome, summary } = self;
        match outcome {
            Outcome::Passed => write!(f, "version {version} passed its canary: {summary}"),
            Outcome::Failed => write!(f, "version {version} FAILED its canary: {summary}"),
            Outcome::Skipped => write!(f, "version {version} goes live untried"),
        }
    }
}

impl Canary {
    /// Of a version that is not tried.
    pub fn skipped(version: &str) -> Self {
        Self { version: version.to_owned(), outcome: Outcome::Skipped, summary: String::new() }
    }
}

/// The longest summary, in bytes: it goes into the record, which is 4 KB.
const MAX_SUMMARY: usize = 200;

/// How long IAM may take until a role can do what its policy says.
const PROPAGATION: Duration = Duration::from_mins(1);

/// Does a dry run of a published version and waits for its end.
pub async fn fly(cx: &Context, function: &str, version: &str) -> Result<Canary, StepError> {
    let of_environment = Function::ALL.into_iter().find(|known| cx.scope.function(*known) == function);
    let Some(of_environment) = of_environment else {
        return Err(StepError::Malformed(format!("{function} is no function of this environment")));
    };
    let target = format!("{}:{version}", cx.scope.function_arn(of_environment));
    let try_it = async || {
        let reasons = [wait::FUNCTION_BUSY, wait::ROLE_FOR_CANARY, wait::THROTTLED_INVOCATION];
        wait::retry(cx, &reasons, async || invoke(&cx.aws, &target, &Event::manual(wait::now(), true)).await)
            .await
    };
    let mut last = None;
    // A role that was made or changed a moment ago may not have its rights yet.
    let settled: Result<Option<()>, AwsError> =
        wait::until(cx, "IAM to give the new version its rights", PROPAGATION, async || {
            let answer = try_it().await?;
            let settled = !lacks_rights(&answer);
            last = Some(answer);
            Ok(settled.then_some(()))
        })
        .await;
    settled?;
    Ok(judge(of_environment, version, last.as_ref()))
}

fn judge(function: Function, version: &str, answer: Option<&Answer>) -> Canary {
    let version = version.to_owned();
    match answer {
        Some(answer) if !answer.failed => {
            let summary = cut(&summary(function, &answer.payload), MAX_SUMMARY);
            Canary { version, outcome: Outcome::Passed, summary }
        }
        answer => {
            let why = answer.and_then(Answer::error_message).unwrap_or("no answer");
            Canary { version, outcome: Outcome::Failed, summary: why.to_owned() }
        }
    }
}

/// Whether a run failed for want of a right.
fn lacks_rights(answer: &Answer) -> bool {
    let denials = ["UnauthorizedOperation", "AccessDenied", "not authorized"];
    answer.error_message().is_some_and(|message| denials.iter().any(|denial| message.contains(denial)))
}

/// The report's own words; the new version's report may be of another form than this program's.
fn summary(function: Function, payload: &Value) -> String {
    let summary = match function {
        Function::Backup => BackupReport::deserialize(payload).map(|report| report.summary()),
        Function::Cleanup => CleanupReport::deserialize(payload).map(|report| report.summary()),
    };
    summary.unwrap_or_else(|_| "the dry run ended well".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(failed: bool, payload: Value) -> Answer {
        Answer { version: Some("7".to_owned()), failed, payload, log_tail: String::new() }
    }

    /// A version that could not do its work must not be taken for one that could.
    #[test]
    fn only_an_answer_that_is_no_error_passes() {
        let failed = answer(true, json!({ "errorMessage": "run x: 1 FAILED", "errorType": "BackupFailed" }));
        let canary = judge(Function::Backup, "7", Some(&failed));
        assert_eq!((canary.outcome, canary.summary.as_str()), (Outcome::Failed, "run x: 1 FAILED"));
        assert_eq!(judge(Function::Backup, "7", None).outcome, Outcome::Failed);
        let unknown = judge(Function::Cleanup, "7", Some(&answer(false, json!({ "new": "form" }))));
        assert_eq!(unknown.to_string(), "version 7 passed its canary: the dry run ended well");
    }

    #[test]
    fn a_missing_right_is_waited_for_and_nothing_else() {
        let failed = |message: &str| answer(true, json!({ "errorMessage": message }));
        assert!(lacks_rights(&failed("i-1: UnauthorizedOperation: You are not authorized")));
        assert!(!lacks_rights(&failed("no instance carries the tag")));
        assert!(!lacks_rights(&answer(false, json!("AccessDenied"))), "a report may name anything");
    }
}

//! How the runs of a function went, as its log tells.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use snapwarden_domain::metrics::{DIMENSION, SEALING_RUNS};

use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};
use crate::scope::{Function, Scope};

/// What the log of a function tells of its last runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Runs {
    /// The last attempt that ended, dry runs not counted.
    pub last: Option<Ended>,
    /// What the last run measured.
    pub measured: Option<Measured>,
    /// The last sealing pass that ended, of the cleanup function where snapshots have to be encrypted.
    pub sealing: Option<Ended>,
    /// What the last sealing pass measured.
    pub sealing_measured: Option<Measured>,
}

/// An attempt of a run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// When it ended.
    pub at: Timestamp,
    /// Whether it failed.
    pub failed: bool,
    /// How it went, in words.
    pub summary: String,
}

/// The metrics of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// When they were measured.
    pub at: Timestamp,
    /// Their values by name.
    pub values: BTreeMap<String, f64>,
}

/// How far back is looked: a week, and a day for a run that was late.
pub const LOOK_BACK: SignedDuration = SignedDuration::from_hours(8 * 24);

/// The last runs of a function before `now`; nothing where it has no log.
pub async fn last_runs(
    aws: &Aws,
    scope: &Scope,
    function: Function,
    now: Timestamp,
) -> Result<Runs, AwsError> {
    let since = now.checked_sub(LOOK_BACK).unwrap_or(now).as_millisecond();
    let call = aws.logs.filter_log_events().log_group_name(scope.log_group(function));
    let mut pages = call.start_time(since).filter_pattern(PATTERN).into_paginator().send();
    let mut lines = Vec::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.call("logs:FilterLogEvents").or_absent()? else { break };
        for event in page.events.unwrap_or_default() {
            let at = event.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
            lines.extend(at.zip(event.message));
        }
    }
    // Each process writes a stream of its own, and the streams come one after the other.
    lines.sort_by_key(|(at, _)| *at);
    Ok(told_by(&lines))
}

/// The lines that [`told_by`] reads: how runs ended, in their own words and in Lambda's, and what they measured.
const PATTERN: &str = r#"{ ($.outcome = "succeeded") || ($.outcome = "sealed") || ($.outcome = "failed") || ($.outcome = "dry_run") || ($.type = "platform.report") || ($.BackupRuns >= 0) || ($.CleanupRuns >= 0) || ($.SealingRuns >= 0) }"#;

/// The error type with which a sealing pass fails.
const SEALING_FAILED: &str = "SealingFailed";

/// What lines tell, the oldest first.
fn told_by(lines: &[(Timestamp, String)]) -> Runs {
    let mut runs = Runs::default();
    // The invocations that have said how they ended. Lambda's repetitions carry the same id.
    let mut said = BTreeSet::new();
    for (at, line) in lines {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
        let ended = |failed, summary: &str| Ended { at: *at, failed, summary: summary.to_owned() };
        match text("outcome") {
            "succeeded" => runs.last = Some(ended(false, text("message"))),
            "sealed" => runs.sealing = Some(ended(false, text("message"))),
            "failed" if text("error_type") == SEALING_FAILED => {
                runs.sealing = Some(ended(true, text("message")));
            }
            "failed" => runs.last = Some(ended(true, text("message"))),
            _ => {}
        }
        if !text("outcome").is_empty() {
            // The function's own span, or around it that of Lambda's runtime.
            let id =
                ["/span/request", "/span/requestId"].iter().find_map(|path| line.pointer(path)?.as_str());
            said.extend(id.map(str::to_owned));
        }
        if text("type") == "platform.report" {
            let record = |key: &str| line.get("record")?.get(key)?.as_str();
            let has_said = record("requestId").is_some_and(|id| said.remove(id));
            let cut_off = record("status").and_then(cut_off).filter(|_| !has_said);
            if let Some(summary) = cut_off {
                runs.last = Some(ended(true, summary));
            }
        }
        if line.get("_aws").is_some() {
            let fields = line.as_object().into_iter().flatten().filter(|(key, _)| *key != DIMENSION);
            let values = fields.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)));
            let measured = Measured { at: *at, values: values.collect() };
            if measured.values.contains_key(SEALING_RUNS) {
                runs.sealing_measured = Some(measured);
            } else {
                runs.measured = Some(measured);
            }
        }
    }
    runs
}

/// Why a function could not say itself how it ended; nothing where all went well (source: Lambda developer guide,
/// "Telemetry API event schema", `Status`).
fn cut_off(status: &str) -> Option<&'static str> {
    match status {
        "success" => None,
        "timeout" => Some("Lambda ended it, since its time was over"),
        _ => Some("its process ended before it could say why: it crashed, or had too little memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Runs {
        let second = |index| Timestamp::from_second(index).unwrap();
        let lines: Vec<_> = (0..).zip(lines).map(|(at, line)| (second(at), (*line).to_owned())).collect();
        told_by(&lines)
    }

    /// A status that says "fine" after a night that was not is worse than none.
    #[test]
    fn the_last_word_counts() {
        let fine = r#"{"level":"INFO","message":"3 snapshots made","outcome":"succeeded"}"#;
        let failed =
            r#"{"level":"ERROR","message":"run x: 1 FAILED","outcome":"failed","error_type":"BackupFailed"}"#;
        let dry = r#"{"level":"INFO","message":"dry run: …","outcome":"dry_run"}"#;
        let report = r#"{"type":"platform.report","record":{"requestId":"a","status":"success"}}"#;
        let timeout = r#"{"type":"platform.report","record":{"requestId":"a","status":"timeout"}}"#;
        assert_eq!(told(&[]), Runs::default());
        assert_eq!(told(&["no JSON", "{}", dry, report]).last, None);
        assert!(
            told(&[fine, failed]).last.is_some_and(|last| last.failed && last.summary == "run x: 1 FAILED")
        );
        assert!(told(&[failed, fine, dry, report]).last.is_some_and(|last| !last.failed));
        assert!(told(&[fine, timeout]).last.is_some_and(|last| last.failed));
        let sealed = r#"{"level":"INFO","message":"2 copies begun","outcome":"sealed"}"#;
        let unsealed = r#"{"level":"ERROR","message":"x","outcome":"failed","error_type":"SealingFailed"}"#;
        let told = told(&[failed, sealed, unsealed]);
        assert!(told.last.is_some_and(|last| last.failed), "a sealing pass is no cleanup");
        assert!(told.sealing.is_some_and(|sealing| sealing.failed));
    }

    /// A process that is killed for want of memory says nothing, and the night before must not speak for it.
    #[test]
    fn a_crash_shows_and_is_not_told_twice() {
        let fine = r#"{"message":"3 snapshots made","outcome":"succeeded","span":{"request":"a"}}"#;
        let failed = r#"{"message":"1 FAILED","outcome":"failed","span":{"requestId":"b"}}"#;
        let dry = r#"{"message":"dry run","outcome":"dry_run","span":{"request":"c"}}"#;
        let report = |id: &str, status: &str| {
            format!(r#"{{"type":"platform.report","record":{{"requestId":"{id}","status":"{status}"}}}}"#)
        };
        let summary = |lines: &[&str]| told(lines).last.map(|last| (last.failed, last.summary)).unwrap();
        for status in ["error", "failure", "timeout"] {
            let (is_failed, text) = summary(&[fine, &report("a", "success"), &report("b", status)]);
            assert!(is_failed && !text.contains("made"), "{status}: {text}");
            assert_eq!(summary(&[failed, &report("b", status)]), (true, "1 FAILED".to_owned()), "{status}");
        }
        // Lambda tries again under the same id, and what the first attempt said is not said by the second.
        let crash = report("b", "error");
        assert!(summary(&[failed, &crash, &crash]).1.contains("crashed"));
        assert_eq!(
            summary(&[fine, &report("a", "success"), dry, &report("c", "success")]).1,
            "3 snapshots made"
        );
    }

    #[test]
    fn the_last_metrics_are_read_as_they_were_written() {
        use snapwarden_domain::metrics::{BACKUP_RUNS, Metric, document};

        let run = "g/backup@2026-11-22T02:00:00Z".parse().unwrap();
        let at = Timestamp::from_second(0).unwrap();
        let line = document(&"prod".parse().unwrap(), &run, at, &[Metric::count(BACKUP_RUNS, 1)]).to_string();
        let measured = told(&[&line]).measured.unwrap();
        assert_eq!(measured.values, BTreeMap::from([(BACKUP_RUNS.to_owned(), 1.0)]));
    }
}

//! How an invocation ends: with a report, or with an error that people can act upon.

use std::fmt::Display;

use lambda_runtime::Diagnostic;
use snapwarden_domain::report::{Failure, Report, cut};
use snapwarden_domain::run::RunId;

/// The longest error message. Lambda's consoles, alarms and queues cut much longer ones.
const MAX_MESSAGE: usize = 2_000;

/// The longest line in it: AWS's messages can be very long.
const MAX_LINE: usize = 300;

/// Passes a report on, or fails the run where the report has failures.
pub(crate) fn judge<R: Report>(error_type: &str, report: R) -> Result<R, Diagnostic> {
    let summary = report.summary();
    let failures = report.failures();
    for warning in report.warnings() {
        tracing::warn!(run = %report.run(), "{warning}");
    }
    if failures.is_empty() {
        tracing::info!(run = %report.run(), "{summary}");
        return Ok(report);
    }
    let error_message = message(&format!("run {}: {summary}", report.run()), &failures);
    Err(Diagnostic { error_type: error_type.to_owned(), error_message })
}

/// The error of a run that had to give up.
pub(crate) fn aborted(error_type: &str, run: &RunId, failure: &Failure) -> Diagnostic {
    let error_message = message(&format!("run {run} gave up:"), &[failure.to_string()]);
    Diagnostic { error_type: error_type.to_owned(), error_message }
}

/// The error of an invocation that was not even started.
pub(crate) fn refused(error_type: &str, reason: impl Display) -> Diagnostic {
    Diagnostic { error_type: error_type.to_owned(), error_message: cut(&reason.to_string(), MAX_MESSAGE) }
}

/// Logs the error that an invocation ends with, as its last line.
pub(crate) fn log(error: &Diagnostic) {
    tracing::error!(error_type = error.error_type, "{}", error.error_message);
}

fn message(headline: &str, failures: &[String]) -> String {
    let mut lines = vec![headline.to_owned()];
    let mut left = MAX_MESSAGE.saturating_sub(headline.len());
    for (listed, failure) in failures.iter().enumerate() {
        let line = format!("- {}", cut(failure, MAX_LINE));
        if line.len() > left {
            let more = failures.len() - listed;
            lines.push(format!("- and {more} more, which the function's log names"));
            break;
        }
        left -= line.len();
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Fine {
        run: RunId,
        warnings: Vec<String>,
    }

    impl Report for Fine {
        fn run(&self) -> &RunId {
            &self.run
        }

        fn summary(&self) -> String {
            "all went well".to_owned()
        }

        fn failures(&self) -> Vec<String> {
            Vec::new()
        }

        fn warnings(&self) -> &[String] {
            &self.warnings
        }
    }

    #[derive(Default)]
    struct Written(Mutex<Vec<u8>>);

    impl io::Write for &Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn warnings_of_a_night_that_nobody_watches_reach_the_log() {
        let written = Arc::new(Written::default());
        let log =
            lambda_runtime::tracing::subscriber::fmt().json().with_writer(Arc::clone(&written)).finish();
        let run = "manual@2026-11-22T02:00:00Z".parse().unwrap();
        let report = Fine { run, warnings: vec!["2 held for good".to_owned()] };
        tracing::subscriber::with_default(log, || judge("Failed", report)).unwrap();
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let warning = written.lines().find(|line| line.contains("2 held for good")).unwrap();
        assert!(warning.contains("WARN") && warning.contains("manual@2026-11-22T02:00:00Z"), "{warning}");
    }

    #[test]
    fn a_bad_night_still_fits_one_message() {
        let failures: Vec<_> = (0..500).map(|n| format!("i-{n}: {}", "ü".repeat(n))).collect();
        let text = message("500 FAILED", &failures);
        assert!(text.len() < MAX_MESSAGE + 100, "{}", text.len());
        assert!(text.starts_with("500 FAILED\n- i-0: \n- i-1: ü\n"));
        let listed = text.matches("\n- i-").count();
        assert!(text.ends_with(&format!("\n- and {} more, which the function's log names", 500 - listed)));
        assert_eq!(message("1 FAILED", &["i-1: no".to_owned()]), "1 FAILED\n- i-1: no");
        assert!(cut(&"ü".repeat(400), MAX_LINE).len() <= MAX_LINE + '…'.len_utf8());
    }
}

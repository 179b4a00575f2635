//! How an invocation ends: with a report, or with an error that people can act upon.

use std::fmt::Display;
use std::io;

use jiff::Timestamp;
use lambda_runtime::Diagnostic;
use snapwarden_domain::metrics;
use snapwarden_domain::report::{Failure, Report, cut};
use snapwarden_domain::run::RunId;

/// The longest error message. Lambda's consoles, alarms and queues cut much longer ones.
const MAX_MESSAGE: usize = 2_000;

/// The longest line in it: AWS's messages can be very long.
const MAX_LINE: usize = 300;

/// Passes the report of a run that is over on, or fails the run where the report has failures.
pub(crate) fn judge<R: Report>(error_type: &str, report: R) -> Result<R, Diagnostic> {
    publish(&report, Timestamp::now(), io::stdout());
    log_warnings(&report);
    let summary = report.summary();
    let failures = report.failures();
    if failures.is_empty() && report.effort().handed_on {
        // No outcome: the run's last hop has that, and may have failed already.
        tracing::info!("left to another hop of the run: {summary}");
        return Ok(report);
    }
    if failures.is_empty() {
        // What `cargo xtask status` looks for in the log, as in `log`.
        let outcome = report.outcome();
        tracing::info!(outcome, "{summary}");
        return Ok(report);
    }
    let error_message = message(&format!("run {}: {summary}", report.run()), &failures);
    Err(Diagnostic { error_type: error_type.to_owned(), error_message })
}

/// Passes the report of a hop on, whatever failed so far, or fails the hop that could not hand on.
pub(crate) fn judge_hop<R: Report>(
    error_type: &str,
    report: R,
    next: u32,
    handed_on: Result<(), Failure>,
) -> Result<R, Diagnostic> {
    log_warnings(&report);
    let summary = report.summary();
    match handed_on {
        Ok(()) => {
            tracing::info!("handed on to hop {next}: {summary}");
            Ok(report)
        }
        Err(failure) => {
            let failure = failure.during("out of time, and could not hand the rest on");
            let headline = format!("run {}: {summary}", report.run());
            let failures: Vec<_> = [failure.to_string()].into_iter().chain(report.failures()).collect();
            Err(Diagnostic {
                error_type: error_type.to_owned(),
                error_message: message(&headline, &failures),
            })
        }
    }
}

fn log_warnings(report: &impl Report) {
    for warning in report.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Writes the metrics, unless the run was a dry one, which no alarm may take for a backup, or goes on elsewhere.
fn publish(report: &impl Report, at: Timestamp, mut out: impl io::Write) {
    if report.is_dry_run() || report.effort().handed_on {
        return;
    }
    let line = metrics::document(report.environment(), report.run(), at, &report.metrics());
    // As one write: Lambda takes each for a line of the log.
    if let Err(error) = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()) {
        tracing::error!("the metrics could not be written: {error}");
    }
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
    tracing::error!(outcome = "failed", error_type = error.error_type, "{}", error.error_message);
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
    use std::sync::{Arc, Mutex};

    use serde::Serialize;
    use snapwarden_domain::metrics::Metric;
    use snapwarden_domain::names::EnvironmentName;
    use snapwarden_domain::report::Effort;

    use super::*;

    #[derive(Clone, Debug, Serialize)]
    struct Night {
        environment: EnvironmentName,
        run: RunId,
        dry_run: bool,
        effort: Effort,
        failures: Vec<String>,
        warnings: Vec<String>,
    }

    fn night() -> Night {
        Night {
            environment: "prod".parse().unwrap(),
            run: "manual@2026-11-22T02:00:00Z".parse().unwrap(),
            dry_run: false,
            effort: Effort::default(),
            failures: Vec::new(),
            warnings: Vec::new(),
        }
    }

    impl Report for Night {
        fn environment(&self) -> &EnvironmentName {
            &self.environment
        }

        fn run(&self) -> &RunId {
            &self.run
        }

        fn is_dry_run(&self) -> bool {
            self.dry_run
        }

        fn effort(&self) -> &Effort {
            &self.effort
        }

        fn summary(&self) -> String {
            "the night".to_owned()
        }

        fn failures(&self) -> Vec<String> {
            self.failures.clone()
        }

        fn warnings(&self) -> &[String] {
            &self.warnings
        }

        fn metrics(&self) -> Vec<Metric> {
            vec![Metric::count(metrics::BACKUP_RUNS, 1)]
        }
    }

    #[test]
    fn a_dry_run_is_no_heartbeat() {
        let published = |report: &Night| {
            let mut written = Vec::new();
            publish(report, report.run.scheduled_at(), &mut written);
            String::from_utf8(written).unwrap()
        };
        let line = published(&night());
        assert!(line.contains(r#""BackupRuns":1.0"#) && line.ends_with("}\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
        assert_eq!(published(&Night { dry_run: true, ..night() }), "");
        let effort = Effort { handed_on: true, ..Effort::default() };
        assert_eq!(published(&Night { effort, ..night() }), "", "another hop is the run's last");
    }

    #[test]
    fn a_middle_hop_is_repeated_only_when_it_could_not_hand_on() {
        let failed = Night { failures: vec!["i-1: no".to_owned()], ..night() };
        assert!(judge("Failed", failed.clone()).is_err(), "the last hop answers for all");
        assert!(judge_hop("Failed", failed.clone(), 2, Ok(())).is_ok(), "else Lambda forks the chain");
        let lost = Failure::new("no answer", "wait");
        let error = judge_hop("Failed", failed, 2, Err(lost)).unwrap_err();
        assert_eq!(
            error.error_message,
            "run manual@2026-11-22T02:00:00Z: the night\n\
             - out of time, and could not hand the rest on: no answer (hint: wait)\n- i-1: no"
        );
    }

    /// What `judge` writes into the log.
    fn logged(report: &Night) -> String {
        let written = Arc::new(Written::default());
        let log =
            lambda_runtime::tracing::subscriber::fmt().json().with_writer(Arc::clone(&written)).finish();
        tracing::subscriber::with_default(log, || {
            let _run = tracing::info_span!("run", run = %report.run).entered();
            judge("Failed", report.clone())
        })
        .unwrap();
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
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
        let report = Night { warnings: vec!["2 held for good".to_owned()], ..night() };
        let written = logged(&report);
        let warning = written.lines().find(|line| line.contains("2 held for good")).unwrap();
        assert!(warning.contains("WARN") && warning.contains("manual@2026-11-22T02:00:00Z"), "{warning}");
    }

    /// `cargo xtask status` goes by the last outcome: a repetition that left the run to others must not call it a success.
    #[test]
    fn an_invocation_that_leaves_the_run_to_another_hop_tells_no_outcome() {
        assert!(logged(&night()).contains(r#""outcome":"succeeded""#));
        let effort = Effort { handed_on: true, ..Effort::default() };
        let written = logged(&Night { effort, ..night() });
        assert!(!written.contains("outcome") && written.contains("left to another hop"), "{written}");
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

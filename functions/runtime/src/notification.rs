//! Tells people, by SNS, that a run failed for good.
//!
//! Lambda repeats a run that failed, and the repetition mostly succeeds: only the last word is worth an email. Nobody
//! tells a function which attempt it is, so [`Attempts`] works it out. Where it cannot know, it tells rather than not:
//! a message too many is a nuisance, one too few a night without backups. A run that Lambda ended (out of time or of
//! memory) cannot tell anybody; its alarms do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sns::Client;
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Context, Diagnostic};
use serde_json::Value;
use snapwarden_domain::event::Event;
use snapwarden_domain::notification::{self, Notifications};
use snapwarden_domain::run::ScheduleName;

/// Whom to tell, and what is known of the attempts so far.
#[derive(Debug)]
pub(crate) struct Notifier {
    sns: Client,
    settings: Option<Notifications>,
    attempts: Attempts,
}

/// How long SNS may take, with all that the SDK repeats: the run is over, and its deadline near.
const PATIENCE: Duration = Duration::from_secs(15);

impl Notifier {
    /// Reads from the function's settings whom to tell: nobody, where they do not say.
    pub(crate) fn new(sns: Client, variable: impl Fn(&str) -> Option<String>) -> Self {
        let settings = variable(notification::VARIABLE).and_then(|text| {
            let read = serde_json::from_str(&text);
            read.inspect_err(|error| tracing::error!("{}: {error}", notification::VARIABLE)).ok()
        });
        Self { sns, settings, attempts: Attempts::default() }
    }

    /// Publishes how a run failed, if nothing will try it again. That it could not be told does not change how the run
    /// ended: it is logged, and the alarms tell as well.
    ///
    /// `started` is when this attempt began: it may have lasted longer than Lambda waits between two.
    pub(crate) async fn tell(
        &self,
        event: &Value,
        context: &Context,
        started: Timestamp,
        error: &Diagnostic,
    ) {
        let sent = sent_at(event, context.xray_trace_id.as_deref());
        let attempt = self.attempts.count(&context.request_id, sent, started);
        let Some(settings) = &self.settings else { return };
        if !concerns_people(event) || attempt.is_some_and(|attempt| attempt < settings.attempts) {
            return;
        }
        let publish = self.sns.publish().topic_arn(&settings.topic_arn);
        let publish = publish.subject(settings.subject()).message(settings.message(&error.error_message));
        match tokio::time::timeout(PATIENCE, publish.send()).await {
            Ok(Ok(_)) => tracing::info!(topic = settings.topic_arn, "told by SNS"),
            Ok(Err(error)) => {
                let error = aws_sdk_sns::error::DisplayErrorContext(error);
                tracing::error!("could not be told by SNS: {error}");
            }
            Err(_) => tracing::error!("could not be told by SNS: no answer within {} s", PATIENCE.as_secs()),
        }
    }
}

/// Whether nobody is waiting for the answer: a person who invokes a function sees it fail, and a dry run leaves nothing
/// undone. A sealing pass comes again in 15 minutes; that none succeeds, its alarms tell once. An event that is not
/// understood may have been a schedule's.
fn concerns_people(event: &Value) -> bool {
    match Event::from_json(event.clone()) {
        Ok(event) => !event.dry_run && !event.seal && event.schedule != ScheduleName::manual(),
        Err(_) => true,
    }
}

/// Which attempt of an event this one is.
///
/// Lambda's repetitions carry the request id of the first attempt, and the trace that began with it, whose id holds the
/// time. They follow after one and then two more minutes, mostly in the same process. (Source: Lambda developer guide,
/// "How Lambda handles errors and retries with asynchronous invocation"; AWS X-Ray developer guide, "Tracing header".)
#[derive(Debug, Default)]
struct Attempts(Mutex<Option<(String, u32)>>);

/// The least that an event's age is at its second and third attempt, with some room below Lambda's one and three minutes.
const SECOND: SignedDuration = SignedDuration::from_secs(45);
const THIRD: SignedDuration = SignedDuration::from_secs(150);

impl Attempts {
    /// Counts a failed attempt and returns its number, from 1; `None` where nothing tells it.
    fn count(&self, request: &str, sent: Option<Timestamp>, started: Timestamp) -> Option<u32> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = match &*last {
            // This process has seen the one before.
            Some((id, attempt)) if id == request => attempt + 1,
            _ => match started.duration_since(sent?) {
                age if age < SECOND => 1,
                age if age < THIRD => 2,
                _ => 3,
            },
        };
        *last = Some((request.to_owned(), attempt));
        Some(attempt)
    }
}

/// When an event was sent, as far as anything tells. A hop is traced with the run that it belongs to, and Lambda counts
/// its attempts from when it was handed on.
fn sent_at(event: &Value, trace: Option<&str>) -> Option<Timestamp> {
    match event.get("continuation") {
        None => begun_at(trace?),
        Some(before) => before.get("handed_on_at")?.as_str()?.parse().ok(),
    }
}

/// When a trace began, from its header `Root=1-<seconds since 1970 in hexadecimal>-…;…`.
fn begun_at(header: &str) -> Option<Timestamp> {
    let root = header.split(';').find_map(|part| part.trim().strip_prefix("Root="))?;
    let seconds = root.strip_prefix("1-")?.split('-').next()?;
    Timestamp::from_second(i64::from_str_radix(seconds, 16).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_sns::operation::publish::{PublishError, PublishOutput};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(0x6923_0000 + seconds).unwrap()
    }

    const TRACE: &str = "Root=1-69230000-0123456789abcdef01234567;Parent=53995c3f42cd8ad8;Sampled=0";

    /// An email about a run that succeeded after all teaches people to ignore emails.
    #[test]
    fn only_the_third_attempt_is_the_last() {
        let attempts = Attempts::default();
        let count = |request, seconds| attempts.count(request, sent_at(&json!({}), Some(TRACE)), at(seconds));
        assert_eq!([count("a", 3), count("a", 70), count("a", 200)], [Some(1), Some(2), Some(3)]);
        // Long runs: the process remembers what the clock cannot tell.
        assert_eq!([count("b", 10), count("b", 900), count("b", 2_000)], [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_new_process_goes_by_the_age_of_the_event() {
        for (seconds, attempt) in [(1, 1), (62, 2), (183, 3), (3_000, 3)] {
            let sent = sent_at(&json!({}), Some(TRACE));
            assert_eq!(Attempts::default().count("a", sent, at(seconds)), Some(attempt), "{seconds}");
        }
        for unknown in [None, Some("Sampled=0"), Some("Root=2-x-y"), Some("")] {
            let sent = sent_at(&json!({}), unknown);
            assert_eq!(Attempts::default().count("a", sent, at(1)), None, "{unknown:?}");
        }
    }

    /// A run's fifth hop begins an hour after the run: its first attempt is not the last for that.
    #[test]
    fn the_attempts_of_a_hop_are_counted_from_when_it_was_handed_on() {
        let hop = json!({ "continuation": { "hop": 5, "handed_on_at": at(3_600).to_string() } });
        for (seconds, attempt) in [(3_601, 1), (3_662, 2), (3_783, 3)] {
            let sent = sent_at(&hop, Some(TRACE));
            assert_eq!(Attempts::default().count("a", sent, at(seconds)), Some(attempt), "{seconds}");
        }
        assert_eq!(
            sent_at(&json!({ "continuation": { "hop": 5 } }), Some(TRACE)),
            None,
            "so people are told"
        );
    }

    #[test]
    fn dry_runs_and_people_who_wait_for_the_answer_are_not_told() {
        let event = |schedule: &str, dry_run: bool| json!({ "scheduled_at": "2026-11-22T02:00:00Z", "schedule": schedule, "dry_run": dry_run });
        assert!(concerns_people(&event("snapwarden-prod/backup", false)));
        assert!(!concerns_people(&event("snapwarden-prod/backup", true)));
        assert!(!concerns_people(&event("manual", false)));
        let mut seal = event("snapwarden-prod/seal", false);
        seal["seal"] = json!(true);
        assert!(!concerns_people(&seal), "ninety-six messages a day");
        assert!(concerns_people(&json!({ "what": "is this" })));
    }

    fn settings(name: &str) -> Option<String> {
        let settings = json!({ "environment": "prod", "function": "backup", "attempts": 3,
            "topic_arn": "arn:aws:sns:eu-central-1:123456789012:snapwarden-prod-notifications" });
        (name == notification::VARIABLE).then(|| settings.to_string())
    }

    fn failed() -> Diagnostic {
        Diagnostic { error_type: "BackupFailed".to_owned(), error_message: "run x: 1 FAILED".to_owned() }
    }

    #[tokio::test]
    async fn the_last_attempt_is_told_once_and_earlier_ones_are_not() {
        let publish = mock!(Client::publish)
            .match_requests(|request| {
                request.message().is_some_and(|text| text.contains("run x: 1 FAILED"))
                    && request.topic_arn().is_some_and(|arn| arn.ends_with("snapwarden-prod-notifications"))
            })
            .then_output(|| PublishOutput::builder().build());
        let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&publish]);
        let notifier = Notifier::new(sns, settings);
        let event = json!({ "scheduled_at": "2026-11-22T02:00:00Z", "schedule": "snapwarden-prod/backup" });
        let mut context = Context::default();
        context.request_id = "a".to_owned();
        context.xray_trace_id = Some(format!("Root=1-{:x}-0", Timestamp::now().as_second()));
        for told in [0, 0, 1] {
            notifier.tell(&event, &context, Timestamp::now(), &failed()).await;
            assert_eq!(publish.num_calls(), told);
        }
    }

    /// An attempt that took a quarter of an hour is not the third, and nobody is to get up while Lambda still tries.
    #[tokio::test]
    async fn a_long_attempt_is_not_taken_for_a_late_one() {
        let publish =
            mock!(Client::publish).match_requests(|_| true).then_output(|| PublishOutput::builder().build());
        let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&publish]);
        let started = Timestamp::now() - SignedDuration::from_mins(14);
        let event = json!({ "scheduled_at": "2026-11-22T02:00:00Z", "schedule": "snapwarden-prod/backup" });
        let mut context = Context::default();
        context.request_id = "a".to_owned();
        context.xray_trace_id = Some(format!("Root=1-{:x}-0", started.as_second()));
        Notifier::new(sns, settings).tell(&event, &context, started, &failed()).await;
        assert_eq!(publish.num_calls(), 0);
    }

    /// A topic that cannot be reached must not hide why the run failed.
    #[tokio::test]
    async fn a_refusal_of_sns_is_no_failure_of_its_own() {
        let refused =
            || PublishError::generic(aws_sdk_sns::error::ErrorMetadata::builder().code("NotFound").build());
        let publish = mock!(Client::publish).then_error(refused);
        let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&publish]);
        Notifier::new(sns, settings).tell(&json!({}), &Context::default(), Timestamp::now(), &failed()).await;
        assert_eq!(publish.num_calls(), 1);
        let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&publish]);
        Notifier::new(sns, |_| None).tell(&json!({}), &Context::default(), Timestamp::now(), &failed()).await;
        assert_eq!(publish.num_calls(), 1, "there is nobody to tell");
    }
}

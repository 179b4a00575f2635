//! Handing the rest of a run on to the function's next invocation.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::Config;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::error::ProvideErrorMetadata as _;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::Failure;

use crate::ec2::failure;

/// Whether an invocation may hand on.
///
/// Not a dry run, which must not outlive its answer; nor one that did not come through the alias, since its successor
/// would run the released version instead of the one being tried.
pub(crate) fn is_possible(event: &Event, invoked_arn: &str, alias_arn: &str) -> bool {
    !event.dry_run && invoked_arn == alias_arn && event.hop() < Continuation::MAX_HOP
}

/// Queues the event of the next hop.
///
/// Lambda knows no token that would make a repeated `Invoke` harmless: each accepted one is a successor. Therefore
/// only what Lambda has refused for certain, for want of capacity, is tried again. After an unclear end (no answer,
/// or an error inside Lambda) there may be a successor or none, and the hop fails: a chain that ends unnoticed would
/// leave instances without a backup, a chain that forks costs calls. Lambda then repeats the hop after a minute, by
/// which time a successor shows in what it does: backup looks for its mark, [`snapwarden_domain::tags::HOP`], and ends
/// there; for cleanup, a second chain is harmless, because a deletion is. A successor that has made nothing by then does
/// not show, and the chain forks: it calls EC2 twice as often and writes its metrics twice, but makes no set twice.
pub(crate) async fn to_next(lambda: &Client, alias_arn: &str, event: &Event) -> Result<(), Failure> {
    const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

    let payload = serde_json::json!(event).to_string();
    let mut pauses = PAUSES.into_iter();
    loop {
        let call = lambda.invoke().function_name(alias_arn).invocation_type(InvocationType::Event);
        let call = call.payload(Blob::new(payload.clone())).customize().config_override(once());
        let Err(error) = call.send().await else { return Ok(()) };
        let is_refused_for_now = error.code() == Some("TooManyRequestsException");
        match pauses.next() {
            Some(pause) if is_refused_for_now => tokio::time::sleep(pause).await,
            _ => return Err(failure(&error)),
        }
    }
}

/// Lambda did not answer before the invocation's own end.
pub(crate) fn out_of_time() -> Failure {
    Failure::new(
        "Lambda did not answer in time",
        "nothing to do, unless all attempts of the run end like this",
    )
}

/// No repetition by the SDK, and an end in time: the call is made within what [`crate::Deadline`] leaves at the end.
fn once() -> aws_sdk_lambda::config::Builder {
    const PATIENCE: Duration = Duration::from_secs(5);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).operation_timeout(PATIENCE);
    Config::builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts.build())
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::error::ErrorMetadata;
    use aws_sdk_lambda::operation::invoke::{InvokeError, InvokeOutput};
    use aws_sdk_lambda::types::error::TooManyRequestsException;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use snapwarden_domain::report::Effort;

    use super::*;

    const ALIAS: &str = "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-backup:live";

    fn event(hop: u32) -> Event {
        let mut event = Event::manual("2026-11-22T02:00:00Z".parse().unwrap(), false);
        let effort = Effort::default();
        event.continuation = (hop > 0).then(|| Continuation { hop, ..Continuation::after(None, &effort, 1) });
        event
    }

    #[test]
    fn only_a_released_run_that_changes_things_goes_on_by_itself() {
        assert!(is_possible(&event(0), ALIAS, ALIAS));
        assert!(is_possible(&event(29), ALIAS, ALIAS));
        assert!(!is_possible(&event(30), ALIAS, ALIAS), "there is an end to it");
        assert!(!is_possible(&Event { dry_run: true, ..event(0) }, ALIAS, ALIAS));
        for canary in ["arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-backup:7", ""] {
            assert!(!is_possible(&event(0), canary, ALIAS), "{canary}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hop_gets_the_same_run_and_what_came_before() {
        let accepted = mock!(Client::invoke)
            .match_requests(|request| {
                let sent: Event =
                    serde_json::from_slice(request.payload().map_or(&[], AsRef::as_ref)).unwrap();
                request.function_name() == Some(ALIAS)
                    && request.invocation_type() == Some(&InvocationType::Event)
                    && sent == event(3)
            })
            .sequence()
            .error(|| {
                let code = ErrorMetadata::builder().code("TooManyRequestsException").build();
                InvokeError::TooManyRequestsException(TooManyRequestsException::builder().meta(code).build())
            })
            .output(|| InvokeOutput::builder().status_code(202).build())
            .build();
        let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, &[&accepted]);
        to_next(&lambda, ALIAS, &event(3)).await.unwrap();
        assert_eq!(accepted.num_calls(), 2, "what was refused for want of capacity is tried again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unclear_end_is_never_repeated_into_a_fork() {
        let unclear = mock!(Client::invoke)
            .match_requests(|_| true)
            .sequence()
            .http_status(500, None)
            .repeatedly()
            .build();
        let lambda = mock_client!(aws_sdk_lambda, RuleMode::MatchAny, &[&unclear]);
        assert!(to_next(&lambda, ALIAS, &event(1)).await.is_err());
        assert_eq!(unclear.num_calls(), 1, "each accepted one would be a chain of its own");
    }
}

//! Counting the calls of EC2 where they are made, and noticing when EC2 throttles them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;

use crate::pace::{Api, Pace};

/// Counts every attempt of every call, the SDK's own repetitions too, as EC2 does.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    readings: Arc<Readings>,
    pace: Arc<Pace>,
}

#[derive(Debug, Default)]
struct Readings {
    calls: AtomicU64,
    throttles: AtomicU64,
}

impl Meter {
    /// A meter at zero, which slows `pace` down when EC2 throttles.
    pub(crate) fn new(pace: Arc<Pace>) -> Self {
        Self { readings: Arc::default(), pace }
    }

    /// A meter of the same readings, which slows another pace down: each Region throttles by itself.
    pub(crate) fn for_pace(&self, pace: Arc<Pace>) -> Self {
        Self { readings: Arc::clone(&self.readings), pace }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.readings.calls.load(Ordering::Relaxed)
    }

    /// How many of them EC2 throttled.
    pub(crate) fn throttles(&self) -> u64 {
        self.readings.throttles.load(Ordering::Relaxed)
    }
}

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.readings.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // From the text of the answer: every action's error is of another type. The answer has been read by now.
        let answer = context.response();
        let is_throttled = !answer.status().is_success() && answer.body().bytes().is_some_and(is_throttling);
        if is_throttled {
            self.readings.throttles.fetch_add(1, Ordering::Relaxed);
            if let Some(api) = config.load::<Metadata>().and_then(|operation| Api::named(operation.name())) {
                self.pace.throttled(api);
            }
        }
        Ok(())
    }
}

/// EC2's code for a request too many (source: EC2 API reference, "Error codes").
fn is_throttling(answer: &[u8]) -> bool {
    const CODE: &[u8] = b"<Code>RequestLimitExceeded</Code>";
    answer.windows(CODE.len()).any(|part| part == CODE)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use aws_sdk_ec2::Client;
    use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_sdk_repeats_by_itself_is_counted_and_slows_the_run_down() {
        const THROTTLED: &str = "<Response><Errors><Error><Code>RequestLimitExceeded</Code>\
            <Message>Request limit exceeded.</Message></Error></Errors><RequestID>1</RequestID></Response>";
        let list = mock!(Client::describe_volumes)
            .match_requests(|_| true)
            .sequence()
            .http_status(503, Some(THROTTLED.to_owned()))
            .http_status(503, Some(THROTTLED.to_owned()))
            .output(|| DescribeVolumesOutput::builder().build())
            .build();
        let pace = Arc::new(Pace::new(true, NonZeroU16::MIN));
        let meter = Meter::new(Arc::clone(&pace));
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &[&list], |config| config
            .interceptor(meter.clone())
            .retry_config(aws_sdk_ec2::config::retry::RetryConfig::standard()));
        ec2.describe_volumes().send().await.unwrap();
        assert_eq!((meter.calls(), meter.throttles()), (3, 2));
        let start = Instant::now();
        for _ in 0..60 {
            pace.turn(Api::DescribeVolumes).await;
        }
        assert!(!start.elapsed().is_zero(), "the burst is gone");
    }
}

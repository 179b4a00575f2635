//! The SDK's clients.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::clock;

/// What every client shares: the function's own account and Region, or the emulator that the environment names.
pub(crate) async fn configuration() -> SdkConfig {
    let endpoint = clock::ec2_endpoint(|name| std::env::var(name).ok());
    let is_emulated = endpoint.as_deref().is_some_and(clock::is_loopback);
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(6))
        .timeout_config(if is_emulated { unhurried() } else { timeouts() })
        .load()
        .await
}

/// A call with all of its attempts ends within the minute that [`crate::Deadline`] leaves at the end of a long
/// invocation; near the end of a short one, the call is given up. Only `CreateSnapshots` sets its own: it has one
/// attempt, and of many volumes at once takes longer to answer.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(20))
        .operation_timeout(Duration::from_secs(45))
        .build()
}

/// An emulator on this machine lists thousands of snapshots in half a minute, and no invocation of it ends by force.
fn unhurried() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_mins(2))
        .operation_timeout(Duration::from_mins(4))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_that_hangs_outlives_the_invocation() {
        let timeouts = timeouts();
        let (attempt, whole) =
            (timeouts.operation_attempt_timeout().unwrap(), timeouts.operation_timeout().unwrap());
        assert!(attempt < whole && whole < Duration::from_mins(1));
    }
}

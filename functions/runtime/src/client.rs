//! The EC2 client.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// An EC2 client for the function's own account and Region, or for the emulator that the environment names.
pub(crate) async fn ec2() -> Client {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    // Snapshots of many volumes at once take EC2 some time to answer.
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_mins(1)).build();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(6))
        .timeout_config(timeouts)
        .load()
        .await;
    Client::new(&config)
}

//! Logging: JSON lines on standard output, which Lambda takes from there.

use lambda_runtime::tracing::subscriber::filter::Targets;
use lambda_runtime::tracing::subscriber::fmt;
use lambda_runtime::tracing::subscriber::layer::SubscriberExt as _;
use lambda_runtime::tracing::subscriber::util::SubscriberInitExt as _;
use tracing::level_filters::LevelFilter;

/// Starts logging. The field names `timestamp`, `level` and `message` are those that Lambda filters by.
pub(crate) fn init() {
    // Lambda sets the variable from the function's logging configuration.
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    let targets = Targets::new()
        .with_default(level.unwrap_or(LevelFilter::INFO))
        // Repeats the error that an invocation ends with, in Rust's notation.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let lines = fmt().json().flatten_event(true).with_current_span(true).with_span_list(false);
    // A second start keeps the first one's logger, which is as good.
    _ = lines.with_target(false).with_max_level(LevelFilter::TRACE).finish().with(targets).try_init();
}

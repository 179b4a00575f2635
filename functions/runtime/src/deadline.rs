//! Stopping in time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The moment from which on a run starts nothing more, so that it ends by itself and reports what it did.
///
/// A function that Lambda cuts off reports nothing, and says of the work in flight only that it may be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The time left for what is under way, unless that were more than a quarter of the whole.
    const MARGIN: Duration = Duration::from_mins(1);

    /// Before the end of an invocation that Lambda ends at `end`.
    pub(crate) fn of(end: SystemTime, now: SystemTime) -> Self {
        // Lambda never starts an invocation that is over: an end in the past is an emulator's placeholder.
        Self(end.duration_since(now).ok().map(|left| Instant::now() + left - Self::MARGIN.min(left / 4)))
    }

    /// No deadline at all.
    pub fn never() -> Self {
        Self(None)
    }

    /// A deadline that has passed.
    pub fn passed() -> Self {
        Self(Some(Instant::now()))
    }

    /// Whether to start nothing more.
    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|deadline| deadline <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_stops_in_time_to_report_what_it_did() {
        let now = SystemTime::now();
        let long = Deadline::of(now + Duration::from_mins(15), now);
        let short = Deadline::of(now + Duration::from_secs(8), now);
        let placeholder = Deadline::of(SystemTime::UNIX_EPOCH, now);
        tokio::time::advance(Duration::from_millis(5_999)).await;
        assert!(!short.has_passed());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(short.has_passed());
        tokio::time::advance(Duration::from_secs(833)).await;
        assert!(!long.has_passed());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(long.has_passed());
        assert!(!placeholder.has_passed());
    }
}

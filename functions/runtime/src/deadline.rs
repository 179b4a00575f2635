//! Stopping in time.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

/// The moment from which on a run starts nothing more, so that it ends by itself and reports what it did.
///
/// A function that Lambda cuts off reports nothing, and says of the work in flight only that it may be done.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When to start nothing more.
    stop: Option<Instant>,
    /// When to wait for nothing more either.
    end: Option<Instant>,
    /// When to have handed on.
    handed_on: Option<Instant>,
}

impl Deadline {
    /// The time left for what is under way, unless that were more than a quarter of the whole.
    const MARGIN: Duration = Duration::from_mins(1);

    /// The part of the margin that is left for handing on and for the report.
    const HAND_ON: u32 = 2;

    /// The part of it that is left for the report alone.
    const REPORT: u32 = 12;

    /// Before the end of an invocation that Lambda ends at `end`.
    pub fn of(end: SystemTime, now: SystemTime) -> Self {
        // Lambda never starts an invocation that is over: an end in the past is an emulator's placeholder.
        let Ok(left) = end.duration_since(now) else {
            return Self::never();
        };
        let end = Instant::now() + left;
        let margin = Self::MARGIN.min(left / 4);
        Self {
            stop: Some(end - margin),
            end: Some(end - margin / Self::HAND_ON),
            handed_on: Some(end - margin / Self::REPORT),
        }
    }

    /// No deadline at all.
    pub fn never() -> Self {
        Self { stop: None, end: None, handed_on: None }
    }

    /// A deadline that has passed.
    pub fn passed() -> Self {
        Self { stop: Some(Instant::now()), ..Self::never() }
    }

    /// Whether to start nothing more.
    pub fn has_passed(self) -> bool {
        self.passes_within(Duration::ZERO)
    }

    /// Whether nothing more may be started after a pause this long.
    pub fn passes_within(self, pause: Duration) -> bool {
        self.stop.is_some_and(|stop| stop <= Instant::now() + pause)
    }

    /// Waits for `work`, which may also run after the deadline, but gives it up while there is time to hand on and to
    /// report.
    pub async fn before_the_end<F: Future>(self, work: F) -> Option<F::Output> {
        until(self.end, work).await
    }

    /// Waits for handing on, but gives it up while there is time for a report.
    pub(crate) async fn to_hand_on<F: Future>(self, work: F) -> Option<F::Output> {
        until(self.handed_on, work).await
    }
}

async fn until<F: Future>(end: Option<Instant>, work: F) -> Option<F::Output> {
    match end {
        Some(end) => timeout_at(end, work).await.ok(),
        None => Some(work.await),
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

    #[tokio::test(start_paused = true)]
    async fn what_hangs_takes_neither_the_next_hop_nor_the_report_with_it() {
        let now = SystemTime::now();
        let deadline = Deadline::of(now + Duration::from_mins(15), now);
        assert!(
            deadline.passes_within(Duration::from_mins(14))
                && !deadline.passes_within(Duration::from_mins(13))
        );
        let start = Instant::now();
        assert_eq!(deadline.before_the_end(std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 870);
        assert_eq!(deadline.to_hand_on(std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 895);
        assert_eq!(Deadline::never().before_the_end(async { 1 }).await, Some(1));
    }
}

//! Staying below EC2's request rates.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Spreads the calls of one EC2 action, as EC2 itself meters them: a burst, then a steady rate.
///
/// The bucket is shared by everyone in the account and Region, so a run takes four fifths of it at most.
#[derive(Debug)]
pub struct Pace {
    /// When the bucket would be full again.
    full_at: Mutex<Instant>,
}

impl Pace {
    /// Four fifths of a bucket of 100 that refills by 5 a second: the published one of `CreateSnapshots` and of
    /// `DeleteSnapshot`.
    const BURST: u32 = 80;
    const INTERVAL: Duration = Duration::from_millis(250);

    /// A full bucket.
    pub fn new() -> Self {
        Self { full_at: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn.
    pub async fn turn(&self) {
        let turn = {
            let mut full_at = self.full_at.lock().await;
            let now = Instant::now();
            *full_at = (*full_at).max(now) + Self::INTERVAL;
            full_at.checked_sub(Self::INTERVAL * Self::BURST).unwrap_or(now)
        };
        sleep_until(turn).await;
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_big_night_is_spread_instead_of_throttled() {
        let start = Instant::now();
        let pace = Pace::new();
        for _ in 0..80 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed().as_secs(), 0, "a small night waits for nothing");
        for _ in 0..40 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed().as_secs(), 10, "four a second from there on");
    }
}

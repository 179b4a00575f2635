//! Staying below EC2's request rates.

use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::deadline::Deadline;

/// The EC2 actions that the functions call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `CreateSnapshots`.
    CreateSnapshots,
    /// `DeleteSnapshot`.
    DeleteSnapshot,
    /// `CopySnapshot`.
    CopySnapshot,
    /// `ModifySnapshotAttribute`.
    ModifySnapshotAttribute,
    /// `CreateTags`.
    CreateTags,
    /// `DescribeInstances`, always with a filter.
    DescribeInstances,
    /// `DescribeSnapshots`, always with a filter.
    DescribeSnapshots,
    /// `DescribeVolumes`, always with a filter.
    DescribeVolumes,
    /// Any other `Describe` action, always with a filter.
    OtherDescribe,
}

impl Api {
    const ALL: [Self; 9] = [
        Self::CreateSnapshots,
        Self::DeleteSnapshot,
        Self::CopySnapshot,
        Self::ModifySnapshotAttribute,
        Self::CreateTags,
        Self::DescribeInstances,
        Self::DescribeSnapshots,
        Self::DescribeVolumes,
        Self::OtherDescribe,
    ];

    /// The published bucket: its capacity, and how many requests a second refill it (source: EC2 developer guide,
    /// "Request throttling for the Amazon EC2 API"; each is per account and Region).
    pub fn limit(self) -> (u32, u32) {
        match self {
            Self::CreateSnapshots | Self::DeleteSnapshot => (100, 5),
            // The bucket of mutating calls that are not listed by themselves.
            Self::CopySnapshot | Self::ModifySnapshotAttribute => (50, 5),
            Self::CreateTags => (100, 10),
            _ => (100, 20),
        }
    }

    /// The action of this name, as the SDK spells it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "CreateSnapshots" => Self::CreateSnapshots,
            "DeleteSnapshot" => Self::DeleteSnapshot,
            "CopySnapshot" => Self::CopySnapshot,
            "ModifySnapshotAttribute" => Self::ModifySnapshotAttribute,
            "CreateTags" => Self::CreateTags,
            "DescribeInstances" => Self::DescribeInstances,
            "DescribeSnapshots" => Self::DescribeSnapshots,
            "DescribeVolumes" => Self::DescribeVolumes,
            name if name.starts_with("Describe") => Self::OtherDescribe,
            _ => return None,
        })
    }
}

/// One token bucket for each action, as EC2 itself meters them: a burst, then a steady rate.
///
/// The buckets are our own rather than the `governor` crate's, whose quotas are fixed once they are made and whose
/// waits go by a timer of its own: these slow down while EC2 throttles, and run on tokio's clock, so that tests of
/// hours take a moment.
#[derive(Debug)]
pub struct Pace {
    buckets: [Mutex<Bucket>; Api::ALL.len()],
}

impl Pace {
    /// The share of EC2's bucket that a run takes. The rest, and what [`Pace::throttled`] gives way, is for whoever
    /// else works in the account and Region at that hour.
    pub const SHARE: f64 = 0.97;

    /// Buckets that are full, or empty where an earlier hop of the run has just used them up; `multiplier` times as
    /// quick as EC2's own, for emulators.
    pub fn new(is_full: bool, multiplier: NonZeroU16) -> Self {
        let now = Instant::now();
        let buckets = Api::ALL.map(|api| {
            let (capacity, refill) = api.limit();
            let scale = Self::SHARE * f64::from(multiplier.get());
            Mutex::new(Bucket::new(f64::from(capacity) * scale, f64::from(refill) * scale, is_full, now))
        });
        Self { buckets }
    }

    /// Waits for the turn of one call.
    pub async fn turn(&self, api: Api) {
        let turn = self.bucket(api, Bucket::reserve);
        sleep_until(turn).await;
    }

    /// The same, unless the turn would come after the deadline: then it is given up at once, and nobody's turn is later
    /// for it. While EC2 throttles, a queue can be minutes long.
    pub async fn turn_before(&self, api: Api, deadline: Deadline) -> bool {
        let turn = self.bucket(api, |bucket, now| {
            (!deadline.passes_within(bucket.wait(now))).then(|| bucket.reserve(now))
        });
        let Some(turn) = turn else { return false };
        sleep_until(turn).await;
        true
    }

    /// Slows an action down, since EC2 has just throttled it.
    pub fn throttled(&self, api: Api) {
        self.bucket(api, Bucket::slow_down);
    }

    fn bucket<T>(&self, api: Api, act: impl FnOnce(&mut Bucket, Instant) -> T) -> T {
        let mut bucket = self.buckets[api as usize].lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut bucket, Instant::now())
    }
}

/// A token bucket in which calls can be reserved ahead: its level is negative by those that wait.
#[derive(Debug)]
struct Bucket {
    capacity: f64,
    /// Tokens a second at full speed.
    refill: f64,
    /// The share of the full speed that is taken now.
    speed: f64,
    level: f64,
    /// When level and speed were last brought up to date.
    at: Instant,
    slowed_at: Option<Instant>,
}

impl Bucket {
    /// The slowest, as a share of full speed: a call every three seconds where EC2 allows five a second.
    const SLOWEST: f64 = 1.0 / 16.0;

    /// How much of full speed comes back a second: from half to full takes a minute.
    const RECOVERY: f64 = 1.0 / 120.0;

    /// Throttles within this time are answers to the same mistake.
    const ONE_MISTAKE: Duration = Duration::from_secs(2);

    fn new(capacity: f64, refill: f64, is_full: bool, now: Instant) -> Self {
        let level = if is_full { capacity } else { 0.0 };
        Self { capacity, refill, speed: 1.0, level, at: now, slowed_at: None }
    }

    fn catch_up(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + seconds * self.refill * self.speed).min(self.capacity);
        self.speed = (self.speed + seconds * Self::RECOVERY).min(1.0);
    }

    /// How long the next token takes to be there.
    fn wait(&mut self, now: Instant) -> Duration {
        self.catch_up(now);
        let missing = (1.0 - self.level).max(0.0);
        Duration::from_secs_f64(missing / (self.refill * self.speed))
    }

    /// Takes a token, and says from when on it is there.
    fn reserve(&mut self, now: Instant) -> Instant {
        let wait = self.wait(now);
        self.level -= 1.0;
        now + wait
    }

    /// EC2's bucket is empty, whoever emptied it: so is this one, and it refills at half the speed.
    fn slow_down(&mut self, now: Instant) {
        self.catch_up(now);
        if self.slowed_at.is_some_and(|at| now.saturating_duration_since(at) < Self::ONE_MISTAKE) {
            return;
        }
        self.slowed_at = Some(now);
        self.level = self.level.min(0.0);
        self.speed = (self.speed / 2.0).max(Self::SLOWEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Api = Api::CreateSnapshots;

    fn pace(is_full: bool) -> Pace {
        Pace::new(is_full, NonZeroU16::MIN)
    }

    async fn seconds_for(pace: &Pace, calls: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..calls {
            pace.turn(CALL).await;
        }
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_big_night_is_spread_instead_of_throttled() {
        let pace = pace(true);
        assert!(seconds_for(&pace, 97).await < 0.01, "a small night waits for nothing");
        let rest = seconds_for(&pace, 97).await;
        assert!((19.9..20.3).contains(&rest), "97 % of five a second from there on: {rest}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hop_does_not_take_the_burst_that_the_one_before_has_taken() {
        let first = seconds_for(&pace(false), 97).await;
        assert!((19.9..20.3).contains(&first), "{first}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_actions_rush_does_not_hold_up_another() {
        let pace = pace(true);
        seconds_for(&pace, 200).await;
        let start = Instant::now();
        pace.turn(Api::DescribeSnapshots).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_gives_way_to_others_and_is_forgotten_in_time() {
        let pace = pace(true);
        // Eight calls under way were throttled at once.
        for _ in 0..8 {
            pace.throttled(CALL);
        }
        let slow = seconds_for(&pace, 10).await;
        assert!((3.5..4.2).contains(&slow), "half the speed, not a 256th: {slow}");
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(3)).await;
            pace.throttled(CALL);
        }
        let slowest = seconds_for(&pace, 2).await;
        assert!((3.0..7.0).contains(&slowest), "slow, but never at a standstill: {slowest}");
        tokio::time::advance(Duration::from_mins(3)).await;
        seconds_for(&pace, 97).await;
        let recovered = seconds_for(&pace, 97).await;
        assert!((19.9..20.3).contains(&recovered), "{recovered}");
    }

    /// A run that queues for longer than Lambda lets it live is cut off, and reports nothing.
    #[tokio::test(start_paused = true)]
    async fn a_turn_that_would_come_too_late_is_given_up_at_once() {
        let pace = pace(true);
        for _ in 0..20 {
            pace.throttled(CALL);
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        let now = std::time::SystemTime::now();
        let deadline = Deadline::of(now + Duration::from_mins(5), now); // four of which are for work
        let start = Instant::now();
        let (mut taken, mut given_up) = (0, 0);
        for _ in 0..2_000 {
            if pace.turn_before(CALL, deadline).await {
                taken += 1;
            } else {
                given_up += 1;
            }
        }
        assert!(start.elapsed() <= Duration::from_mins(4), "{:?}", start.elapsed());
        assert!(taken > 100 && given_up > 100, "{taken} taken, {given_up} given up");
        tokio::time::advance(Duration::from_secs(1)).await;
        let next = seconds_for(&pace, 1).await;
        assert!(next < 1.0, "what was given up takes nobody's turn: {next}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_emulator_can_be_gone_at_faster() {
        let quick = Pace::new(true, NonZeroU16::new(100).unwrap());
        let time = seconds_for(&quick, 10_000).await;
        assert!(time < 2.0, "{time}");
    }

    #[test]
    fn every_action_has_a_bucket_of_its_own() {
        for (index, api) in Api::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, index);
            assert!(api == Api::OtherDescribe || Api::named(&format!("{api:?}")) == Some(api));
        }
        assert_eq!(Api::named("DescribeImages"), Some(Api::OtherDescribe));
        assert_eq!(Api::named("RunInstances"), None);
    }
}

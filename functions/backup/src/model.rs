//! A model of EC2 for tests: what it meters, refuses, loses and shows late. It runs on tokio's paused clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use snapwarden_domain::report::{Failure, VolumeSnapshot};
use snapwarden_runtime::{Api, Deadline, Pace};
use tokio::time::{Instant, sleep};

use crate::copied_tags::{Copying, VolumeTags};
use crate::decide::{Made, Selected};
use crate::set::{NotMade, Sets};

/// EC2, as one account and Region sees it.
#[derive(Debug)]
pub(crate) struct Model {
    /// How long the lists lag behind.
    lag: Duration,
    /// How long a call takes.
    latency: Duration,
    start: Instant,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// With the moment from which on it is listed.
    snapshots: BTreeMap<String, Vec<(Made, Instant)>>,
    sets: usize,
    /// Calls of `CreateSnapshots` that were let in.
    attempts: usize,
    /// When a snapshot of a volume was last started.
    started: BTreeMap<String, Instant>,
    buckets: Vec<(Api, f64, Instant)>,
    throttles: usize,
    troubles: VecDeque<Trouble>,
}

/// What happens to the next call of `CreateSnapshots`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// The set is made, and the answer lost.
    LostAnswer,
    /// No set is made, and no answer comes either.
    LostRequest,
    /// Refused with this code.
    Refused(&'static str),
    /// No answer comes for minutes, nor an error.
    Hangs,
}

impl Model {
    /// EC2 wants so much time between two snapshots of a volume.
    const BETWEEN: Duration = Duration::from_secs(15);

    pub(crate) fn new() -> Self {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        Self { lag: 3 * second, latency: second, start, state: RefCell::default() }
    }

    /// The same with calls that take so many milliseconds, and lists that lag so many seconds.
    pub(crate) fn with(latency_ms: u64, lag_seconds: u64) -> Self {
        let (latency, lag) = (Duration::from_millis(latency_ms), Duration::from_secs(lag_seconds));
        Self { lag, latency, ..Self::new() }
    }

    pub(crate) fn trouble(&self, trouble: &[Trouble]) {
        self.state.borrow_mut().troubles.extend(trouble);
    }

    /// How many snapshot sets were made.
    pub(crate) fn sets(&self) -> usize {
        self.state.borrow().sets
    }

    /// How many calls to make a set were let in.
    pub(crate) fn attempts(&self) -> usize {
        self.state.borrow().attempts
    }

    /// How many calls were throttled.
    pub(crate) fn throttles(&self) -> usize {
        self.state.borrow().throttles
    }

    /// Everything that is listed by now.
    pub(crate) fn listed(&self) -> Vec<Made> {
        let state = self.state.borrow();
        let listed = state.snapshots.values().flatten().filter(|(_, listed_at)| *listed_at <= Instant::now());
        listed.map(|(made, _)| made.clone()).collect()
    }

    /// One call: metered by the bucket that AWS publishes, and as slow as any.
    pub(crate) async fn call(&self, api: Api) -> Result<(), Failure> {
        sleep(self.latency).await;
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        let (capacity, refill) = api.limit();
        let (capacity, refill) = (f64::from(capacity), f64::from(refill));
        let index = state.buckets.iter().position(|(of, ..)| *of == api).unwrap_or_else(|| {
            state.buckets.push((api, capacity, now));
            state.buckets.len() - 1
        });
        let (_, level, at) = &mut state.buckets[index];
        *level = (*level + now.duration_since(*at).as_secs_f64() * refill).min(capacity);
        *at = now;
        if *level < 1.0 {
            state.throttles += 1;
            return Err(refusal("RequestLimitExceeded"));
        }
        *level -= 1.0;
        Ok(())
    }

    fn make(&self, instance: &Selected, hop: u32) -> Result<Vec<VolumeSnapshot>, Failure> {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        let is_soon = |at: &Instant| now.duration_since(*at) < Self::BETWEEN;
        if instance.volumes.iter().any(|volume| state.started.get(volume).is_some_and(is_soon)) {
            return Err(refusal("SnapshotCreationPerVolumeRateExceeded"));
        }
        state.sets += 1;
        let number = state.sets;
        let age = SignedDuration::try_from(now.duration_since(self.start)).unwrap();
        let made = |volume: &String| Made {
            id: format!("snap-{number}-of-{volume}"),
            instance: instance.id.clone(),
            volume: volume.clone(),
            started_at: Some(midnight() + age),
            encrypted: None,
            hop,
        };
        let set: Vec<_> = instance.volumes.iter().map(made).collect();
        state.started.extend(instance.volumes.iter().map(|volume| (volume.clone(), now)));
        let listed = set.iter().map(|made| (made.clone(), now + self.lag));
        state.snapshots.entry(instance.id.clone()).or_default().extend(listed);
        Ok(set
            .into_iter()
            .map(|made| VolumeSnapshot {
                snapshot: Some(made.id),
                volume: made.volume,
                encrypted: made.encrypted,
            })
            .collect())
    }
}

/// One invocation's view of the model.
pub(crate) struct Invoker<'a> {
    pub(crate) model: &'a Model,
    pub(crate) pace: Pace,
    pub(crate) hop: u32,
}

impl<'a> Invoker<'a> {
    pub(crate) fn new(model: &'a Model, hop: u32) -> Self {
        Self { model, pace: Pace::new(hop == 0, NonZeroU16::MIN), hop }
    }

    pub(crate) async fn call(&self, api: Api) -> Result<(), Failure> {
        self.pace.turn(api).await;
        self.call_at_once(api).await
    }

    async fn call_at_once(&self, api: Api) -> Result<(), Failure> {
        self.model.call(api).await.inspect_err(|_| self.pace.throttled(api))
    }
}

impl Sets for Invoker<'_> {
    type Turn = ();

    async fn turn(&self, deadline: Deadline) -> Option<()> {
        self.pace.turn_before(Api::CreateSnapshots, deadline).await.then_some(())
    }

    async fn volume_tags(&self, instances: &[&Selected]) -> Result<VolumeTags, Failure> {
        self.call(Api::DescribeVolumes).await?;
        let volumes = instances.iter().flat_map(|instance| instance.volumes.iter().cloned());
        Ok(volumes.map(|volume| (volume, BTreeSet::new())).collect())
    }

    async fn made(&self, instance: &Selected) -> Result<Vec<Made>, Failure> {
        self.call(Api::DescribeSnapshots).await?;
        let state = self.model.state.borrow();
        let listed = state.snapshots.get(&instance.id).into_iter().flatten();
        Ok(listed.filter(|(_, at)| *at <= Instant::now()).map(|(made, _)| made.clone()).collect())
    }

    async fn create(
        &self,
        instance: &Selected,
        copying: &Copying,
        (): (),
    ) -> Result<Vec<VolumeSnapshot>, NotMade> {
        self.call_at_once(Api::CreateSnapshots).await.map_err(NotMade::Refused)?;
        let lost = NotMade::Unclear(Failure::new("no answer", "look"));
        let trouble = {
            let mut state = self.model.state.borrow_mut();
            state.attempts += 1;
            state.troubles.pop_front()
        };
        match trouble {
            // Codes about tags are for sets with copied tags.
            Some(Trouble::Refused(code))
                if !code.contains("Tag") || matches!(copying, Copying::Copy { .. }) =>
            {
                Err(NotMade::Refused(refusal(code)))
            }
            Some(Trouble::LostRequest) => Err(lost),
            Some(Trouble::Hangs) => {
                sleep(Duration::from_mins(10)).await;
                Err(lost)
            }
            Some(Trouble::LostAnswer) => {
                self.model.make(instance, self.hop).map_err(NotMade::Refused)?;
                Err(lost)
            }
            _ => self.model.make(instance, self.hop).map_err(NotMade::Refused),
        }
    }
}

/// An instance with so many volumes.
pub(crate) fn instance(number: usize, volumes: usize) -> Selected {
    let volumes = (0..volumes).map(|volume| format!("vol-{number:05}-{volume}")).collect();
    Selected { id: format!("i-{number:05}"), volumes, ..Selected::default() }
}

/// When the model's clock starts.
pub(crate) fn midnight() -> Timestamp {
    "2026-11-22T02:00:00Z".parse().unwrap()
}

fn refusal(code: &str) -> Failure {
    Failure { code: Some(code.to_owned()), ..Failure::new("as asked", "none") }
}

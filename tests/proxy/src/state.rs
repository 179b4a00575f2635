//! What the proxy knows: what came, and what is to come of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::Uri;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::bucket;
use crate::caller;
use crate::rule::{Effect, Rule};
use crate::stale::{Memory, Remembered};
use crate::{Call, Latency, Scenario};

/// The path below which the proxy itself answers: `GET …/counts`, `PUT …/scenario`.
pub const CONTROL: &str = "/_faults/";

/// How many calls of each action there were, and what became of them.
pub type Counts = BTreeMap<String, Count>;

/// What became of the calls of one action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All calls.
    pub calls: u64,
    /// Those that a rule did something to.
    pub faults: u64,
    /// Those that found their bucket empty.
    pub throttles: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    started: Instant,
    /// Where the calls go, once the emulators run: all but EC2's, and EC2's.
    pub(crate) upstreams: OnceLock<[Uri; 2]>,
    state: Mutex<State>,
    /// Told whenever a call has come to its end.
    ended: Condvar,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            upstreams: OnceLock::new(),
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    calls: Vec<Call>,
    counts: Counts,
    rules: Vec<Rule>,
    random: Rng,
    latency: Latency,
    buckets: Option<bucket::All>,
    /// Only while a rule needs it: answers can be large.
    memory: Option<Memory>,
    pub(crate) victim: Option<Pid>,
    pub(crate) kills: usize,
    under_way: u32,
}

/// What is to come of a call.
#[derive(Debug)]
pub(crate) struct Fate {
    /// Its number, under which its answer is noted.
    pub(crate) number: usize,
    /// How late it arrives.
    pub(crate) delay: Duration,
    /// Whether its bucket is empty.
    pub(crate) is_throttled: bool,
    pub(crate) effect: Option<Effect>,
    /// The answer to a stale read.
    pub(crate) recalled: Option<Remembered>,
}

impl State {
    pub(crate) fn play(&mut self, scenario: &Scenario) {
        self.rules.clone_from(&scenario.rules);
        self.random = Rng::with_seed(scenario.seed);
        self.latency = scenario.latency;
        self.buckets = scenario.buckets.map(|buckets| bucket::All::new(buckets.scale));
        let is_needed = scenario.rules.iter().any(|rule| rule.effect() == Effect::Stale);
        self.memory = is_needed.then(Memory::default);
    }

    pub(crate) fn forget(&mut self) {
        self.calls.clear();
        self.counts.clear();
        self.kills = 0;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }
}

/// So many calls are kept in full. A proxy that people leave running for days goes on counting.
const KEPT: usize = 200_000;

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call, and says what is to happen to it.
    pub(crate) fn record(&self, call: &Call, body: &[u8]) -> Fate {
        let mut guard = self.state();
        let state = &mut *guard;
        let others = state.under_way;
        let delay = state.latency.ms + state.latency.ms_per_call_under_way.saturating_mul(others);
        let is_throttled = state.buckets.as_mut().is_some_and(|all| !all.admit(call, Instant::now()));
        let effect = state.rules.iter_mut().find_map(|rule| rule.apply(call, &mut state.random));
        let recalled = match (effect, &state.memory) {
            (Some(Effect::Stale), Some(memory)) => memory.recall(call, body),
            _ => None,
        };
        // A read that nobody has asked before has nothing to lag behind.
        let effect = effect.filter(|effect| *effect != Effect::Stale || recalled.is_some());
        let count = state.counts.entry(call.action.clone()).or_default();
        count.calls += 1;
        count.faults += u64::from(effect.is_some());
        count.throttles += u64::from(is_throttled);
        if state.calls.len() < KEPT {
            state.calls.push(Call { came: self.started.elapsed(), ..call.clone() });
        }
        state.under_way += 1;
        Fate {
            number: state.calls.len().saturating_sub(1),
            delay: Duration::from_millis(delay.into()),
            is_throttled,
            effect,
            recalled,
        }
    }

    /// Notes how a call was answered.
    pub(crate) fn answered(&self, number: usize, call: &Call, body: &[u8], answer: Remembered) {
        let mut state = self.state();
        if let Some(call) = state.calls.get_mut(number) {
            call.status = Some(answer.status.as_u16());
        }
        if let Some(memory) = &mut state.memory {
            memory.remember(call, body, answer);
        }
    }

    pub(crate) fn ended(&self, number: usize) {
        let mut state = self.state();
        state.under_way -= 1;
        if let Some(call) = state.calls.get_mut(number) {
            call.ended = Some(self.started.elapsed());
        }
        drop(state);
        self.ended.notify_all();
    }

    pub(crate) fn settle(&self) {
        let mut state = self.state();
        while state.under_way > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks the caller to end, and gives it the time to hear it.
    pub(crate) async fn interrupt(&self, peer: Option<SocketAddr>) {
        let victim = self.state().victim;
        if let Some(victim) = victim.or_else(|| caller::of(peer?)) {
            let _ = kill_process(victim, Signal::INT);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Kills the process that was aimed at, or else the one at the other end of the connection.
    pub(crate) fn kill(&self, peer: Option<SocketAddr>) {
        let aimed = self.state().victim.take();
        if let Some(victim) = aimed.or_else(|| caller::of(peer?)) {
            // It may have ended by itself, which the test notices by its exit code.
            let _ = kill_process(victim, Signal::KILL);
            self.state().kills += 1;
        }
    }
}

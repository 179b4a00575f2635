//! A proxy between `cargo xtask` and the emulators: it records every call, and does to the chosen ones what networks,
//! AWS and the person at the power switch do.
//!
//! It runs on a thread of its own. `xtask` and the functions find it through variables; see [`Proxy::command`] and
//! [`Proxy::of_functions`].

mod call;
mod rule;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

pub use self::call::{Call, Protocol};
pub use self::rule::{Calls, Effect, Rule};
use crate::{Local, Ran};

/// A proxy in front of both emulators of one local environment.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    general: String,
    ec2: String,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Where the calls go, once the emulators run: all but EC2's, and EC2's.
    upstreams: OnceLock<[Uri; 2]>,
    state: Mutex<State>,
    /// Told whenever a call has come to its end.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    victim: Option<Pid>,
    kills: usize,
    in_flight: usize,
}

/// The connection is cut instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cuts the connection")]
struct Cut;

impl Proxy {
    /// A proxy in front of a local environment that runs.
    pub fn of(local: &Local) -> Self {
        let proxy = Self::unconnected();
        proxy.connect(local);
        proxy
    }

    /// A proxy between the functions and the emulators of a local environment, which this starts. Their calls of all
    /// runs are recorded, one after the other.
    pub fn of_functions(local: &Local) -> Self {
        let proxy = Self::unconnected();
        let mut up = local.command(&["local", "up"]);
        up.env("SNAPWARDEN_FUNCTIONS_ENDPOINT", &proxy.general)
            .env("SNAPWARDEN_FUNCTIONS_ENDPOINT_EC2", &proxy.ec2);
        let ran = Ran::of(&["local", "up"], &up.output().expect("the command starts"));
        assert_eq!(ran.code, 0, "{ran:?}");
        proxy.connect(local);
        proxy
    }

    /// Finds the emulators.
    fn connect(&self, local: &Local) {
        let status = local.json(&["local", "status"]);
        let upstream = |key: &str| -> Uri {
            let url = status[key].as_str().unwrap_or_else(|| panic!("no {key}: {status}"));
            url.parse().expect("an emulator's address")
        };
        let upstreams = [upstream("endpoint"), upstream("endpoint_ec2")];
        assert!(self.shared.upstreams.set(upstreams).is_ok(), "a proxy is connected once");
    }

    fn unconnected() -> Self {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            listener.set_nonblocking(true).expect("a listener for tokio");
            let address = listener.local_addr().expect("its address");
            (listener, address)
        };
        let ((general, general_at), (ec2, ec2_at)) = (bind(), bind());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(&shared, [general, ec2], stopped)
        });
        let url = |at: SocketAddr| format!("http://{at}");
        let (general, ec2) = (url(general_at), url(ec2_at));
        Self { shared, general, ec2, stop: Some(stop), thread: Some(thread) }
    }

    /// A command whose calls go through the proxy.
    pub fn command(&self, local: &Local, arguments: &[&str]) -> Command {
        let mut command = local.command(arguments);
        command
            .env("SNAPWARDEN_LOCAL_ENDPOINT", &self.general)
            .env("SNAPWARDEN_LOCAL_ENDPOINT_EC2", &self.ec2);
        command
    }

    /// Runs a command through the proxy, under these rules, to its end or to its violent one. The record begins anew.
    pub fn run(&self, local: &Local, arguments: &[&str], rules: Vec<Rule>) -> Ran {
        *self.state() = State { rules, ..State::default() };
        let mut command = self.command(local, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the command starts");
        self.state().victim = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let output = child.wait_with_output().expect("the command ends");
        // What a killed process has sent still takes effect, and must have done so before anybody looks.
        let mut state = self.state();
        while state.in_flight > 0 {
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.victim = None;
        Ran::of(arguments, &output)
    }

    /// From now on these rules apply, and no others. The record goes on.
    pub fn rule(&self, rules: Vec<Rule>) {
        self.state().rules = rules;
    }

    /// Every call of the last run, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The calls of the last run that may change something.
    pub fn mutations(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.mutating).collect()
    }

    /// How often a rule of the last run killed the process.
    pub fn kills(&self) -> usize {
        self.state().kills
    }

    /// Waits until a call of that action has come in the present run.
    pub fn wait_for(&self, action: &str) {
        let started = Instant::now();
        while !self.calls().iter().any(|call| call.action == action) {
            assert!(started.elapsed() < PATIENCE, "no {action} came");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the process that runs.
    pub fn kill(&self) {
        self.shared.kill();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

/// How long a call may take to come; only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_mins(1);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // That it panicked has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call, and says what is to happen to it.
    fn record(&self, call: Call) -> (usize, Option<Effect>) {
        let mut state = self.state();
        let effect = state.rules.iter_mut().find_map(|rule| rule.apply(&call));
        state.calls.push(call);
        state.in_flight += 1;
        (state.calls.len() - 1, effect)
    }

    fn answered(&self, number: usize, status: u16) {
        if let Some(call) = self.state().calls.get_mut(number) {
            call.status = Some(status);
        }
    }

    fn ended(&self) {
        self.state().in_flight -= 1;
        self.ended.notify_all();
    }

    /// Asks the caller to end, and gives it the time to hear it.
    async fn interrupt(&self) {
        if let Some(victim) = self.state().victim {
            let _ = kill_process(victim, Signal::INT);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn kill(&self) {
        let mut state = self.state();
        if let Some(victim) = state.victim.take() {
            // It may have ended by itself, which the test notices by its exit code.
            let _ = kill_process(victim, Signal::KILL);
            state.kills += 1;
        }
    }
}

type Upstream = Client<HttpConnector, Full<Bytes>>;

fn serve(shared: &Arc<Shared>, fronts: [TcpListener; 2], stopped: oneshot::Receiver<Infallible>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Every call has a connection of its own: one that the emulator closes while it is idle would look like a
        // lost answer.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        for (front, listener) in fronts.into_iter().enumerate() {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            tokio::spawn(accept(listener, front, client.clone(), Arc::clone(shared)));
        }
        // The sender is dropped, never used.
        let _ = stopped.await;
    });
}

async fn accept(listener: tokio::net::TcpListener, front: usize, client: Upstream, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        let service = service_fn(move |request| {
            let passing = pass(request, front, client.clone(), Arc::clone(&shared));
            async { passing.await.ok_or(Cut) }
        });
        tokio::spawn(async move {
            // Connections end in errors as often as the rules say so.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Passes a call on; `None` cuts the connection.
async fn pass(
    request: Request<Incoming>,
    front: usize,
    client: Upstream,
    shared: Arc<Shared>,
) -> Option<Response<Full<Bytes>>> {
    let upstream = shared.upstreams.get()?.get(front)?.clone();
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let call = Call::of(&head, &body);
    let protocol = call.protocol;
    let (number, effect) = shared.record(call);
    // A task of its own: what has been sent arrives, even when its sender is gone.
    let passing = tokio::spawn(async move {
        let answer = if effect == Some(Effect::KillBefore) {
            shared.kill();
            None
        } else if effect == Some(Effect::Throttle) {
            Some(protocol.throttled())
        } else {
            if let Some(Effect::Delay(time)) = effect {
                tokio::time::sleep(time).await;
            }
            if effect == Some(Effect::Interrupt) {
                shared.interrupt().await;
            }
            let answer = forward(&client, &upstream, head, body).await;
            if let Some(answer) = &answer {
                shared.answered(number, answer.status().as_u16());
            }
            if effect == Some(Effect::KillAfter) {
                shared.kill();
            }
            answer.filter(|_| !matches!(effect, Some(Effect::KillAfter | Effect::LoseAnswer)))
        };
        shared.ended();
        answer
    });
    passing.await.ok().flatten()
}

async fn forward(
    client: &Upstream,
    upstream: &Uri,
    mut head: hyper::http::request::Parts,
    body: Bytes,
) -> Option<Response<Full<Bytes>>> {
    let mut target = upstream.clone().into_parts();
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target).ok()?;
    let answer = client.request(Request::from_parts(head, Full::new(body))).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Response::from_parts(head, Full::new(body)))
}

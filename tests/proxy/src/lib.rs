//! A proxy in front of the emulators: it records every call, and does to the chosen ones what networks, AWS and the
//! person at the power switch do.
//!
//! Tests put it between a program and the emulators and say in Rust what happens to which call ([`Rule`]); people do
//! the same with a file ([`Scenario`], `cargo xtask local up --faults FILE`). It runs on a thread of its own.

mod answer;
mod bucket;
mod call;
mod caller;
mod rule;
mod scenario;
mod server;
mod stale;
mod state;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use hyper::Uri;
use hyper::http::uri::InvalidUri;
use rustix::process::Pid;
use tokio::sync::oneshot;

pub use self::bucket::Bucket;
pub use self::call::{Call, Protocol};
pub use self::rule::{Calls, Effect, Rule};
pub use self::scenario::{Buckets, InvalidScenario, Latency, Scenario};
use self::state::Shared;
pub use self::state::{CONTROL, Count, Counts};

/// A proxy with two fronts: one for EC2, one for every other service.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    general: String,
    ec2: String,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on two ports of this machine; 0 takes any that is free. Until it is connected, it cuts every connection.
    pub fn listen(general: u16, ec2: u16) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let (general, general_at) = bind(general)?;
        let (ec2, ec2_at) = bind(ec2)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(server::serve(shared, [general, ec2], stopped))
        })?;
        let url = |at: SocketAddr| format!("http://{at}");
        Ok(Self {
            shared,
            general: url(general_at),
            ec2: url(ec2_at),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Says where the calls go: all but EC2's, and EC2's. Once, and from then on.
    pub fn connect(&self, general: &str, ec2: &str) -> Result<(), InvalidUri> {
        let upstreams: [Uri; 2] = [general.parse()?, ec2.parse()?];
        // A second time, the first stays.
        drop(self.shared.upstreams.set(upstreams));
        Ok(())
    }

    /// Where every service but EC2 is reached.
    pub fn general(&self) -> &str {
        &self.general
    }

    /// Where EC2 is reached.
    pub fn ec2(&self) -> &str {
        &self.ec2
    }

    /// From now on this happens to calls, and nothing else. The record goes on.
    pub fn play(&self, scenario: &Scenario) {
        self.shared.state().play(scenario);
    }

    /// The same, with rules alone: no latency, and no buckets.
    pub fn rule(&self, rules: Vec<Rule>) {
        self.play(&Scenario { rules, ..Scenario::default() });
    }

    /// Begins the record anew.
    pub fn forget(&self) {
        self.shared.state().forget();
    }

    /// Every call on record, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls()
    }

    /// How many calls of each action there were, and what became of them.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts()
    }

    /// The process that rules kill or interrupt. While there is none, they find the one that made the call, which
    /// takes Linux.
    pub fn aim_at(&self, victim: Option<Pid>) {
        self.shared.state().victim = victim;
    }

    /// How many processes the rules on record have killed.
    pub fn kills(&self) -> usize {
        self.shared.state().kills
    }

    /// Kills the process that rules are aimed at.
    pub fn kill(&self) {
        self.shared.kill(None);
    }

    /// Waits until no call is under way: what a killed process has sent still takes effect.
    pub fn settle(&self) {
        self.shared.settle();
    }

    /// Goes on until the process ends.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // That it panicked has been printed.
            drop(thread.join());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // That it panicked has been printed.
            drop(thread.join());
        }
    }
}

fn bind(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

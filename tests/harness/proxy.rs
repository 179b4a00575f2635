//! A proxy between `cargo xtask`, or the functions, and the emulators of a test's own local environment.
//!
//! `xtask` and the functions find it through variables; see [`Proxy::command`] and [`Proxy::of_functions`].

use std::ops::Deref;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

pub use snapwarden_proxy::{Call, Calls, Count, Effect, Protocol, Rule, Scenario};

use crate::{Local, Ran};

/// A proxy in front of both emulators of one local environment.
#[derive(Debug)]
pub struct Proxy(snapwarden_proxy::Proxy);

impl Deref for Proxy {
    type Target = snapwarden_proxy::Proxy;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Proxy {
    /// A proxy in front of a local environment that runs.
    pub fn of(local: &Local) -> Self {
        let proxy = Self::unconnected();
        proxy.find_emulators(local);
        proxy
    }

    /// A proxy between the functions and the emulators of a local environment, which this starts. Their calls of all
    /// runs are recorded, one after the other.
    pub fn of_functions(local: &Local) -> Self {
        let proxy = Self::unconnected();
        let mut up = local.command(&["local", "up"]);
        up.env("SNAPWARDEN_FUNCTIONS_ENDPOINT", proxy.general())
            .env("SNAPWARDEN_FUNCTIONS_ENDPOINT_EC2", proxy.ec2());
        let ran = Ran::of(&["local", "up"], &up.output().expect("the command starts"));
        assert_eq!(ran.code, 0, "{ran:?}");
        proxy.find_emulators(local);
        proxy
    }

    fn unconnected() -> Self {
        Self(snapwarden_proxy::Proxy::listen(0, 0).expect("free ports"))
    }

    fn find_emulators(&self, local: &Local) {
        let status = local.json(&["local", "status"]);
        let url = |key: &str| status[key].as_str().unwrap_or_else(|| panic!("no {key}: {status}")).to_owned();
        self.connect(&url("endpoint"), &url("endpoint_ec2")).expect("the emulators' addresses");
    }

    /// A command whose calls go through the proxy.
    pub fn command(&self, local: &Local, arguments: &[&str]) -> Command {
        let mut command = local.command(arguments);
        command
            .env("SNAPWARDEN_LOCAL_ENDPOINT", self.general())
            .env("SNAPWARDEN_LOCAL_ENDPOINT_EC2", self.ec2());
        command
    }

    /// Runs a command through the proxy, under these rules, to its end or to its violent one. The record begins anew.
    pub fn run(&self, local: &Local, arguments: &[&str], rules: Vec<Rule>) -> Ran {
        self.rule(rules);
        self.run_on(local, arguments)
    }

    /// The same, under what applies already.
    pub fn run_on(&self, local: &Local, arguments: &[&str]) -> Ran {
        self.forget();
        let mut command = self.command(local, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the command starts");
        self.aim_at(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
        let output = child.wait_with_output().expect("the command ends");
        // What a killed process has sent still takes effect, and must have done so before anybody looks.
        self.settle();
        self.aim_at(None);
        Ran::of(arguments, &output)
    }

    /// Kills the process that runs.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// The calls of the last run that may change something.
    pub fn mutations(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.mutating).collect()
    }

    /// How many calls of the last run a rule did something to.
    pub fn faults(&self) -> u64 {
        self.counts().values().map(|count| count.faults).sum()
    }

    /// Waits until a call of that action has come in the present run.
    pub fn wait_for(&self, action: &str) {
        let started = Instant::now();
        while !self.calls().iter().any(|call| call.action == action) {
            assert!(started.elapsed() < PATIENCE, "no {action} came");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How long a call may take to come; only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_mins(1);

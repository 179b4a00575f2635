//! One command at a time changes an environment, and ends between two steps when it is asked to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use snapwarden_deployer::apply::{Guard, Halt};
use snapwarden_deployer::lock::{Holder, Lock, LockError, Parameter, Patience, Process};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::process;
use crate::progress::Progress;
use crate::session::Session;

/// How long a command waits for another one that changes the same environment.
const PATIENCE: Duration = Duration::from_mins(15);

/// Holds the environment's lock while `work` changes it, which asks the guard before every step.
pub(crate) async fn exclusively<E, T>(
    context: &Context,
    session: &Session<E>,
    command: &str,
    break_lock: bool,
    work: impl AsyncFnOnce(&dyn Guard) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let lock = take(context, session, command, break_lock).await?;
    let interrupt = Interrupt::listen(context.progress());
    let guards = Guards { lock: &lock, interrupt: &interrupt };
    let result = lock.while_held(work(&guards)).await;
    if let Err(error) = lock.release().await {
        context.progress().note(&format!("the lock could not be given back, and ends by itself: {error}"));
    }
    result
}

async fn take<E>(
    context: &Context,
    session: &Session<E>,
    command: &str,
    break_lock: bool,
) -> Result<Lock<Parameter>, Failure> {
    let machine = machine();
    let itself = std::process::id();
    let process = machine.clone().zip(process::began(itself)).map(|(machine, began)| Process {
        machine,
        pid: itself,
        began,
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let who = match host.trim() {
        "" => session.caller.clone(),
        host => format!("{} on {host}", session.caller),
    };
    let holder = Holder::new(who, command, Timestamp::now(), process);
    let waiting = std::cell::RefCell::new(None);
    let patience = Patience {
        limit: PATIENCE,
        break_lock,
        has_ended: &|other| {
            machine.as_ref() == Some(&other.machine)
                && process::began(other.pid).as_ref() != Some(&other.began)
        },
        waiting: &|other, waited| {
            let mut task = waiting.borrow_mut();
            let task = task.get_or_insert_with(|| {
                let what = format!("waiting for {}, who has the lock ({})", other.who, other.command);
                context.progress().start(what)
            });
            task.wait("still held", waited);
        },
    };
    let parameter = Parameter::of(&session.aws, &session.scope);
    Lock::take(parameter, holder, patience).await.map_err(|error| match error {
        LockError::Aws(error) => Failure::from(error).context("cannot take the environment's lock"),
        error => Failure::caused_by(Exit::Refused, &error)
            .hint("run the command again later or, if nothing changes the environment, with --break-lock"),
    })
}

/// Where process numbers mean the same as here: this boot of this machine, and this container.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link(Path::new("/proc/self/ns/pid")).ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

struct Guards<'a> {
    lock: &'a Lock<Parameter>,
    interrupt: &'a Interrupt,
}

#[async_trait(?Send)]
impl Guard for Guards<'_> {
    async fn check(&self) -> Result<(), Halt> {
        if self.interrupt.flag.load(Ordering::Relaxed) {
            return Err(Halt("interrupted".to_owned()));
        }
        self.lock.check().await
    }
}

/// Ctrl-C, or the SIGTERM of a pipeline that is cancelled: nothing new begins, what runs is waited for. The second one
/// ends the program at once, which the next command repairs.
struct Interrupt {
    flag: Arc<AtomicBool>,
    listening: tokio::task::JoinHandle<()>,
}

/// What shells expect of a program that a signal ended.
const INTERRUPTED: i32 = 130;

impl Interrupt {
    fn listen(progress: &Progress) -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        let (raised, progress) = (flag.clone(), progress.clone());
        let listening = tokio::spawn(async move {
            if asked_to_end().await.is_err() {
                return;
            }
            raised.store(true, Ordering::Relaxed);
            progress.note("interrupted: waiting for what runs; once more ends at once");
            if asked_to_end().await.is_ok() {
                std::process::exit(INTERRUPTED);
            }
        });
        Self { flag, listening }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

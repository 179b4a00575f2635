//! The proxy of `local up --faults FILE`: a process of its own between everybody and the emulators.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use snapwarden_proxy::{CONTROL, Counts, Proxy, Scenario};

use super::emulator::{self, Both, Emulator};
use super::folder::{Faults, Folder, Record};
use super::{LocalCloud, LocalError, START_LIMIT, ports};
use crate::failure::{CommandResult, Exit, Failure};
use crate::process::Process;
use crate::render::table::table;

/// Reads a scenario, and refuses what is none.
pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::caused_by(Exit::Usage, &error).context(&format!("cannot read {}", file.display()))
    })?;
    text.parse::<Scenario>().map_err(|error| {
        Failure::caused_by(Exit::Usage, &error)
            .context(&file.display().to_string())
            .hint("docs/faults.md shows every key in use")
    })?;
    Ok(text)
}

/// Ports for the proxy: those it had before, or any that are free.
pub(super) fn ports(before: Option<Both<u16>>) -> Result<Both<u16>, LocalError> {
    ports::choose(Both::default(), Both::build(|emulator| before.as_ref().map(|ports| *ports.get(emulator))))
}

/// Starts the proxy, detached from us, and tells it what to do.
pub(super) fn start(
    folder: &Folder,
    ports: Both<u16>,
    scenario: &str,
    record: &mut Record,
) -> Result<(), LocalError> {
    let log = folder.proxy_log();
    let log = File::create(&log).map_err(|source| LocalError::file(&log, source))?;
    let mut command = Command::new(std::env::current_exe().map_err(LocalError::Proxy)?);
    command.args(["local", "fault-proxy"]);
    let emulators = &record.emulators;
    for (flag, port) in [
        ("--general", ports.ministack),
        ("--ec2", ports.moto),
        ("--to-general", emulators.ministack.port),
        ("--to-ec2", emulators.moto.port),
    ] {
        command.args([flag, &port.to_string()]);
    }
    // A process group of its own: Ctrl-C at the command that happens to start it is not meant for it.
    command.process_group(0).current_dir(folder.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(LocalError::Proxy)?;
    record.proxy = Some(Faults { ports, process: Process::with_pid(child.id()) });
    folder.remember(record)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match play(record, scenario) {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Tells a running proxy what to do from now on; its counts begin anew.
pub(super) fn play(record: &Record, scenario: &str) -> Result<(), LocalError> {
    let url = control(record)? + "scenario";
    agent().put(url).send(scenario).map_err(|error| LocalError::NoAnswer(Box::new(error)))?;
    Ok(())
}

impl LocalCloud {
    /// How many calls of each action there were, and what became of them.
    pub(crate) fn fault_counts(&self) -> Result<Counts, LocalError> {
        let record = self.folder.recall()?.filter(Record::is_running).ok_or(LocalError::NoProxy)?;
        let url = control(&record)? + "counts";
        let read = || agent().get(url).call()?.body_mut().read_json();
        read().map_err(|error: ureq::Error| LocalError::NoAnswer(Box::new(error)))
    }
}

fn control(record: &Record) -> Result<String, LocalError> {
    let proxy = record.proxy.as_ref().filter(|proxy| proxy.running().is_some());
    let ports = proxy.ok_or(LocalError::NoProxy)?.ports;
    Ok(emulator::url(*ports.get(Emulator::Ministack)) + CONTROL)
}

/// Talks to loopback, so never through a proxy.
fn agent() -> ureq::Agent {
    let timeout = Some(Duration::from_secs(5));
    ureq::Agent::config_builder().proxy(None).timeout_global(timeout).build().into()
}

/// Flags of the proxy's own process.
#[derive(Args, Debug)]
pub(crate) struct FaultProxyArgs {
    /// Where it listens for every service but EC2
    #[arg(long)]
    general: u16,
    /// Where it listens for EC2
    #[arg(long)]
    ec2: u16,
    /// The emulator of every service but EC2
    #[arg(long)]
    to_general: u16,
    /// The emulator of EC2
    #[arg(long)]
    to_ec2: u16,
}

/// Is the proxy, until somebody ends it.
pub(crate) fn serve(args: &FaultProxyArgs) -> CommandResult {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::caused_by(Exit::Failed, error);
    let proxy = Proxy::listen(args.general, args.ec2).map_err(|error| failed(&error))?;
    let connected = proxy.connect(&emulator::url(args.to_general), &emulator::url(args.to_ec2));
    connected.map_err(|error| failed(&io::Error::other(error)))?;
    proxy.wait();
    Ok(())
}

/// The counts as a table.
pub(crate) fn text(counts: &Counts) -> String {
    let rows = counts.iter().map(|(action, count)| {
        [action.clone(), count.calls.to_string(), count.faults.to_string(), count.throttles.to_string()]
    });
    table(["ACTION", "CALLS", "DISTURBED", "BUCKET EMPTY"], rows)
}

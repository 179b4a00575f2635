//! The local environment: AWS as two emulators on loopback ports, in one folder.
//!
//! To the rest of the program it is an account like any other behind two endpoints. ministack answers for every
//! service but EC2 and runs the functions; moto answers for EC2. Both keep what they hold over a `down` and an `up`.

mod arm64;
mod emulator;
pub(crate) mod endpoint;
mod error;
pub(crate) mod faults;
mod folder;
mod ports;
pub(crate) mod seed;
mod status;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::arm64::Arm64;
use self::emulator::{Both, Emulator, Launch};
use self::folder::{Entry, Folder, Record};
use crate::process::Process;
use crate::progress::Progress;
use crate::tools::venv::{self, Venv};
use crate::workspace::Workspace;

pub(crate) use self::error::LocalError;
pub(crate) use self::ports::Ports;
pub(crate) use self::status::Status;

/// How long an emulator may take until it answers. It takes two seconds, but a busy machine has no hurry.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long an emulator may take to write down what it holds and end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A local environment, running or not.
#[derive(Clone, Debug)]
pub(crate) struct LocalCloud {
    folder: Folder,
    account: String,
    region: String,
}

/// Where a running environment is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Every service but EC2, as in `AWS_ENDPOINT_URL`.
    pub(crate) endpoint: String,
    /// EC2, as in `AWS_ENDPOINT_URL_EC2`.
    pub(crate) endpoint_ec2: String,
    /// The region that it plays.
    pub(crate) region: String,
    /// The account that it plays.
    pub(crate) account: String,
}

/// What must be installed before an environment can start.
#[derive(Debug)]
pub(crate) struct Tools {
    emulators: Venv,
    arm64: Arm64,
}

/// Installs what is missing, and starts nothing.
pub(crate) fn prepare(workspace: &Workspace, progress: &Progress) -> Result<Tools, LocalError> {
    Ok(Tools {
        emulators: venv::ensure(workspace, &venv::EMULATORS, progress)?,
        arm64: Arm64::find(workspace, progress)?,
    })
}

impl LocalCloud {
    /// The environment in the folder `dir`, which need not be there yet.
    pub(crate) fn at(dir: &Path, account: impl Into<String>, region: impl Into<String>) -> Self {
        Self { folder: Folder::at(dir), account: account.into(), region: region.into() }
    }

    /// Starts what does not run, and comes back when both emulators answer.
    pub(crate) fn ensure_up(
        &self,
        workspace: &Workspace,
        progress: &Progress,
        ports: Ports,
        faults: Option<&str>,
    ) -> Result<Endpoints, LocalError> {
        let _lock = self.folder.lock(progress)?;
        let before = self.folder.recall()?;
        if let Some(record) = before.as_ref().filter(|record| record.is_running()) {
            self.check_it_is_as_wanted(record, ports)?;
            if let Some(scenario) = faults {
                faults::play(record, scenario)?;
            }
            match self.wait_until_well(record) {
                // It died just now.
                Err(LocalError::Died { .. }) => {}
                outcome => return outcome.map(|()| record.endpoints()),
            }
        }
        if let Some(mut remains) = before.clone() {
            self.clear_up(&mut remains, progress)?;
        }
        let last = Both::build(|emulator| Some(before.as_ref()?.emulators.get(emulator).port));
        let ports = ports::choose(ports, last)?;
        let tools = prepare(workspace, progress)?;
        if tools.arm64 == Arm64::Impossible {
            progress.note("functions cannot be invoked here: they are Linux programs; all else works");
        }
        let before = before.and_then(|record| record.proxy).map(|proxy| proxy.ports);
        let proxy = faults.map(|_| faults::ports(before)).transpose()?;
        // What the functions are told of the emulators' addresses: not the proxy that tests put before this program.
        let front = proxy.unwrap_or(ports);
        let functions = Both {
            ministack: endpoint::general(endpoint::FUNCTIONS, emulator::url(front.ministack))?,
            moto: endpoint::ec2(endpoint::FUNCTIONS, emulator::url(front.moto))?,
        };
        let task = progress.start("starting the local environment");
        let record = self.start(&Launch {
            python: &tools.emulators.program("python"),
            folder: &self.folder,
            ports,
            functions,
            faults: proxy.zip(faults),
            account: &self.account,
            region: &self.region,
            qemu: tools.arm64.qemu(),
        })?;
        let endpoints = record.endpoints();
        task.done(&format!("{} and, for EC2, {}", endpoints.endpoint, endpoints.endpoint_ec2));
        Ok(endpoints)
    }

    /// How the environment is. Starts nothing.
    pub(crate) fn status(&self) -> Result<Status, LocalError> {
        let record = self.folder.recall()?;
        let endpoints = record.as_ref().filter(|record| record.is_running()).map(Record::endpoints);
        let (account, region) = match &endpoints {
            Some(endpoints) => (endpoints.account.clone(), endpoints.region.clone()),
            None => (self.account.clone(), self.region.clone()),
        };
        Ok(Status {
            running: endpoints.is_some(),
            endpoint: endpoints.as_ref().map(|endpoints| endpoints.endpoint.clone()),
            endpoint_ec2: endpoints.map(|endpoints| endpoints.endpoint_ec2),
            region,
            account,
            pids: Both::build(|emulator| Some(record.as_ref()?.emulators.get(emulator).running()?.pid)),
            dir: self.folder.dir().to_owned(),
            logs: Both::build(|emulator| self.folder.log(emulator)),
        })
    }

    /// Stops what runs, and comes back when it is gone. Answers whether anything ran.
    pub(crate) fn down(&self, progress: &Progress) -> Result<bool, LocalError> {
        let _lock = self.folder.lock(progress)?;
        let Some(mut record) = self.folder.recall()? else { return Ok(false) };
        let ran = Emulator::ALL.iter().any(|emulator| record.emulators.get(*emulator).running().is_some());
        let task = ran.then(|| progress.start("stopping the local environment"));
        self.stop(&mut record)?;
        if let Some(task) = task {
            task.done("");
        }
        Ok(ran)
    }

    /// Removes everything that the environment holds, whether it runs or not. A running one goes on running, empty.
    pub(crate) fn reset(&self, progress: &Progress) -> Result<(), LocalError> {
        let _lock = self.folder.lock(progress)?;
        let mut record = self.folder.recall()?;
        for emulator in Emulator::ALL {
            let entry = record.as_mut().map(|record| record.emulators.get_mut(emulator));
            let running = match entry {
                Some(entry) if entry.running().is_some() => {
                    emulator.empty(entry.port).map_err(|source| LocalError::Empty { emulator, source })?;
                    true
                }
                Some(entry) => {
                    // Nothing is lost any more by its having been killed.
                    entry.process = None;
                    false
                }
                None => false,
            };
            match emulator {
                // It removes its files itself, and may be writing to the folder.
                Emulator::Ministack if running => {}
                Emulator::Ministack => folder::remove(&self.folder.ministack_state())?,
                // Were it killed, it would find what it held before it was emptied.
                Emulator::Moto => folder::remove(&self.folder.moto_state())?,
            }
        }
        record.map_or(Ok(()), |record| self.folder.remember(&record))
    }

    fn check_it_is_as_wanted(&self, record: &Record, ports: Ports) -> Result<(), LocalError> {
        let otherwise = |what: &str, running: &str, wanted: &str| LocalError::RunsOtherwise {
            running: format!("{what} {running}"),
            wanted: wanted.to_owned(),
        };
        if record.account != self.account {
            return Err(otherwise("account", &record.account, &self.account));
        }
        if record.region != self.region {
            return Err(otherwise("region", &record.region, &self.region));
        }
        for emulator in Emulator::ALL {
            let port = record.emulators.get(emulator).port;
            if let Some(wanted) = ports.get(emulator).filter(|wanted| *wanted != port) {
                let what = format!("{emulator} on port");
                return Err(otherwise(&what, &port.to_string(), &wanted.to_string()));
            }
        }
        Ok(())
    }

    /// Starts both, or none: when one does not come up, the other is stopped again.
    fn start(&self, launch: &Launch<'_>) -> Result<Record, LocalError> {
        self.folder.prepare()?;
        let mut record = Record {
            account: self.account.clone(),
            region: self.region.clone(),
            emulators: Both::build(|emulator| Entry { port: *launch.ports.get(emulator), process: None }),
            proxy: None,
        };
        let started = Emulator::ALL
            .into_iter()
            .try_for_each(|emulator| self.spawn(emulator, launch, &mut record))
            .and_then(|()| match launch.faults {
                Some((ports, scenario)) => faults::start(&self.folder, ports, scenario, &mut record),
                None => Ok(()),
            })
            .and_then(|()| self.wait_until_well(&record));
        if let Err(error) = started {
            // That one did not start says more than that the other could not be stopped.
            drop(self.stop(&mut record));
            return Err(error);
        }
        Ok(record)
    }

    /// Prepares for another start after one that was not ended by `down`. An emulator that runs alone is stopped, since
    /// the two know one another's ports; it keeps what it holds.
    fn clear_up(&self, remains: &mut Record, progress: &Progress) -> Result<(), LocalError> {
        for emulator in Emulator::ALL {
            let entry = remains.emulators.get(emulator);
            if entry.process.is_some() && entry.running().is_none() {
                progress.note(&format!(
                    "{emulator} had ended without `local down`: what changed since it was started is lost (its log: {})",
                    self.folder.old_log(emulator).display()
                ));
            }
        }
        self.stop(remains)
    }

    fn spawn(&self, emulator: Emulator, launch: &Launch<'_>, record: &mut Record) -> Result<(), LocalError> {
        let failed = |source| LocalError::Spawn { emulator, source };
        let mut child = emulator.spawn(launch).map_err(failed)?;
        record.emulators.get_mut(emulator).process = Process::with_pid(child.id());
        self.folder.remember(record)?;
        emulator::release(&mut child).map_err(failed)
    }

    fn wait_until_well(&self, record: &Record) -> Result<(), LocalError> {
        let deadline = Instant::now() + START_LIMIT;
        for emulator in Emulator::ALL {
            let entry = record.emulators.get(emulator);
            while let Err(error) = emulator.check(entry.port) {
                let (log, tail) = (self.folder.log(emulator), self.folder.log_tail(emulator));
                if entry.running().is_none() {
                    return Err(LocalError::Died { emulator, log, tail });
                }
                if Instant::now() >= deadline {
                    return Err(LocalError::Silent { emulator, reason: error.to_string(), log, tail });
                }
                sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Stops what runs. ministack goes first, since its functions use moto until then.
    fn stop(&self, record: &mut Record) -> Result<(), LocalError> {
        if let Some(process) = record.proxy.as_mut().and_then(|proxy| proxy.process.take()) {
            // It holds nothing that could be lost, and ends at once.
            process.stop(STOP_LIMIT);
        }
        for emulator in Emulator::ALL {
            let entry = record.emulators.get_mut(emulator);
            if let Some(process) = entry.process.take()
                && !process.stop(STOP_LIMIT)
            {
                return Err(LocalError::Unstoppable { emulator, pid: process.pid });
            }
        }
        self.folder.remember(record)
    }
}

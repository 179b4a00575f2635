//! The folder that a local environment lives in: what is remembered between two commands, and the lock around it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::emulator::{self, Both, Emulator};
use super::{Endpoints, LocalError};
use crate::process::Process;
use crate::progress::Progress;

/// How much of an emulator's log an error shows.
const LINES_SHOWN: usize = 12;

/// Paths in the folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    dir: PathBuf,
}

/// What `up` leaves behind for later commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) emulators: Both<Entry>,
    /// The proxy in front of both, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<Faults>,
}

/// What is remembered of the proxy that makes faults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Faults {
    pub(super) ports: Both<u16>,
    pub(super) process: Option<Process>,
}

/// What is remembered of one emulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Taken again by the next `up`, so that a shell's `AWS_ENDPOINT_URL` stays right.
    pub(super) port: u16,
    pub(super) process: Option<Process>,
}

impl Entry {
    /// The process, if it still runs.
    pub(super) fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.is_running())
    }
}

impl Faults {
    /// The process, if it still runs.
    pub(super) fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.is_running())
    }
}

impl Record {
    /// Whether both emulators still run, and the proxy where there is one: one alone is of no use.
    pub(super) fn is_running(&self) -> bool {
        let proxy = self.proxy.as_ref().is_none_or(|proxy| proxy.running().is_some());
        proxy && Emulator::ALL.iter().all(|emulator| self.emulators.get(*emulator).running().is_some())
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        let port = |emulator: Emulator| match &self.proxy {
            Some(proxy) => *proxy.ports.get(emulator),
            None => self.emulators.get(emulator).port,
        };
        Endpoints {
            endpoint: emulator::url(port(Emulator::Ministack)),
            endpoint_ec2: emulator::url(port(Emulator::Moto)),
            region: self.region.clone(),
            account: self.account.clone(),
        }
    }
}

impl Folder {
    pub(super) fn at(dir: &Path) -> Self {
        // The emulators are started in another folder than ours.
        Self { dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()) }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn log(&self, emulator: Emulator) -> PathBuf {
        self.dir.join(format!("{emulator}.log"))
    }

    /// The log of the run before this one.
    pub(super) fn old_log(&self, emulator: Emulator) -> PathBuf {
        self.dir.join(format!("{emulator}.old.log"))
    }

    /// What the proxy that makes faults has to say, which is nothing unless it dies.
    pub(super) fn proxy_log(&self) -> PathBuf {
        self.dir.join("faults.log")
    }

    /// The program that starts an emulator.
    pub(super) fn launcher(&self, emulator: Emulator) -> PathBuf {
        self.dir.join(format!("launch_{emulator}.py"))
    }

    /// What ministack keeps between two runs.
    pub(super) fn ministack_state(&self) -> PathBuf {
        self.dir.join("state/ministack")
    }

    /// What moto keeps between two runs.
    pub(super) fn moto_state(&self) -> PathBuf {
        self.dir.join("state/moto.pickle")
    }

    /// Temporary files of the emulators, such as unpacked functions.
    pub(super) fn scratch(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Keeps other commands away from this environment until the answer is dropped.
    pub(super) fn lock(&self, progress: &Progress) -> Result<File, LocalError> {
        make(&self.dir)?;
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(|source| LocalError::file(&path, source))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(LocalError::file(&path, source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let _waiting = progress.start("waiting for another command that starts or stops this environment");
        file.lock().map_err(|source| LocalError::file(&path, source))?;
        Ok(file)
    }

    /// What the last `up` left; nothing when there was none.
    pub(super) fn recall(&self) -> Result<Option<Record>, LocalError> {
        let path = self.record();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LocalError::file(&path, source)),
        };
        serde_json::from_str(&text).map(Some).map_err(|source| LocalError::file(&path, source.into()))
    }

    /// Writes the record whole or not at all: without it nobody could find the processes again.
    pub(super) fn remember(&self, record: &Record) -> Result<(), LocalError> {
        let path = self.record();
        let new = path.with_extension("json.new");
        let written = serde_json::to_vec_pretty(record)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| LocalError::file(&path, source))
    }

    /// Makes the folders that the emulators expect. Nothing may run: temporary files of the last run are removed.
    pub(super) fn prepare(&self) -> Result<(), LocalError> {
        remove(&self.scratch())?;
        make(&self.scratch())?;
        make(&self.ministack_state())
    }

    /// The last lines that an emulator wrote, for an error to show.
    pub(super) fn log_tail(&self, emulator: Emulator) -> String {
        // Without its log the error is shorter, but still says what failed.
        let text = fs::read(self.log(emulator)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].iter();
        shown.fold(String::new(), |tail, line| tail + "\n    " + line.trim_end())
    }

    fn record(&self) -> PathBuf {
        self.dir.join("processes.json")
    }
}

fn make(dir: &Path) -> Result<(), LocalError> {
    fs::create_dir_all(dir).map_err(|source| LocalError::file(dir, source))
}

/// Removes a file or a folder with all that is in it; that there is none is fine.
pub(super) fn remove(path: &Path) -> Result<(), LocalError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LocalError::file(path, error)),
        _ => Ok(()),
    }
}

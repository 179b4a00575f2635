//! What can go wrong with the local environment.

use std::io;
use std::path::{Path, PathBuf};

use super::arm64::Arm64Error;
use super::emulator::Emulator;
use super::endpoint::NotLoopback;
use crate::failure::{Exit, Failure};
use crate::tools::venv::VenvError;

/// Why the local environment could not be started, stopped or emptied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// The emulators could not be installed.
    #[error("cannot install the emulators")]
    Install(#[from] VenvError),

    /// This machine cannot run the functions.
    #[error(transparent)]
    Arm64(#[from] Arm64Error),

    /// A proxy for the functions is elsewhere.
    #[error(transparent)]
    NotLoopback(#[from] NotLoopback),

    /// A file of the environment's could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// A port that the user asked for is taken.
    #[error("port {port}, asked for with {}, is in use by another program", emulator.port_flag())]
    PortInUse {
        /// Which emulator should have had it.
        emulator: Emulator,
        /// The port.
        port: u16,
    },

    /// A port could not be had for another reason.
    #[error("cannot listen on a port of {} for {emulator}", super::emulator::HOST)]
    Port {
        /// Which emulator should have had it.
        emulator: Emulator,
        /// Why.
        source: io::Error,
    },

    /// The environment already runs, and not as it was asked for.
    #[error("the local environment already runs with {running}, not with {wanted}")]
    RunsOtherwise {
        /// Such as `account 123456789012`.
        running: String,
        /// The same, as asked for.
        wanted: String,
    },

    /// An emulator could not be started at all.
    #[error("cannot start {emulator}")]
    Spawn {
        /// Which.
        emulator: Emulator,
        /// Why.
        source: io::Error,
    },

    /// An emulator ended while it was starting.
    #[error("{emulator} ended while it was starting; the end of {}:{tail}", log.display())]
    Died {
        /// Which.
        emulator: Emulator,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },

    /// An emulator runs but does not answer.
    #[error("{emulator} runs but does not answer ({reason}); the end of {}:{tail}", log.display())]
    Silent {
        /// Which.
        emulator: Emulator,
        /// What asking it came to.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },

    /// The proxy that makes faults did not start.
    #[error("cannot start the proxy that makes faults")]
    Proxy(#[source] io::Error),

    /// The proxy that makes faults does not do as it is asked.
    #[error("the proxy that makes faults does not answer")]
    NoAnswer(#[source] Box<ureq::Error>),

    /// Faults are wanted of an environment that was started without a proxy.
    #[error("the local environment runs without a proxy that could make faults")]
    NoProxy,

    /// An emulator could not be emptied.
    #[error("cannot empty {emulator}")]
    Empty {
        /// Which.
        emulator: Emulator,
        /// Why.
        source: Box<ureq::Error>,
    },

    /// An emulator does not end.
    #[error("{emulator} (process {pid}) does not end")]
    Unstoppable {
        /// Which.
        emulator: Emulator,
        /// Its process.
        pid: u32,
    },
}

impl LocalError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Install(_) | Self::Arm64(_) | Self::NotLoopback(_) | Self::Spawn { .. } => return None,
            Self::File { path, .. } if path.extension().is_some_and(|extension| extension == "json") => {
                format!("when it is damaged, stop the emulators, if they run, and remove {}", path.display())
            }
            Self::File { .. } => "choose another folder with --local-dir or SNAPWARDEN_LOCAL_DIR".to_owned(),
            Self::PortInUse { emulator, .. } => {
                format!("choose another port, or leave {} out and a free one is taken", emulator.port_flag())
            }
            Self::Port { emulator, .. } => format!("choose another port with {}", emulator.port_flag()),
            Self::RunsOtherwise { .. } | Self::NoProxy => {
                "`cargo xtask local down` stops it, what it holds is kept".to_owned()
            }
            Self::Died { .. } => {
                "try again; if what it holds is to blame, `cargo xtask local reset` removes that".to_owned()
            }
            Self::Silent { .. } | Self::Empty { .. } | Self::Proxy(_) | Self::NoAnswer(_) => {
                "`cargo xtask local down` stops it, then try again".to_owned()
            }
            Self::Unstoppable { pid, .. } => format!("see who owns process {pid} and what it waits for"),
        })
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::Install(error) => Self::from(error).context("cannot install the emulators"),
            LocalError::Arm64(error) => Self::from(error),
            LocalError::NotLoopback(error) => Self::from(error),
            error => {
                let failure = Self::caused_by(Exit::Failed, &error);
                match error.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

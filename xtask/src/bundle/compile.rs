//! Compiling the functions: runs Cargo, follows what it says, and finds the programs it made.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::cargo::{self, BACKUP, CLEANUP};
use super::toolchain::Toolchain;
use crate::failure::{Exit, Failure};
use crate::progress::{Progress, Task};
use crate::tools::command::CommandError;
use crate::tools::venv::Venv;
use crate::workspace::Workspace;

/// How often a build without a spinner says that it is still alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The compiled functions.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The backup function.
    pub(crate) backup: PathBuf,
    /// The cleanup function.
    pub(crate) cleanup: PathBuf,
}

/// Compiles both functions; where nothing has changed, Cargo just says where they are.
pub(crate) fn compile(
    workspace: &Workspace,
    toolchain: &Toolchain,
    venv: &Venv,
    progress: &Progress,
) -> Result<Programs, CompileError> {
    let task = progress.start(format!("compiling the functions with {}", toolchain.compiler.version()));
    let log = workspace.tools().join("logs/cargo.log");
    let mut command = cargo::command(workspace, toolchain, venv)?;
    let mut watcher = Watcher::new(&task, progress, &log)
        .map_err(|source| CompileError::Log { log: log.clone(), source })?;
    let status = run(&mut command, &mut watcher).map_err(CompileError::Run)?;
    if !status.success() {
        return Err(CompileError::Failed { status, log });
    }
    let Watcher { compiled, programs, .. } = watcher;
    let find = |name: &'static str| {
        let program = programs.iter().find(|path| path.file_name() == Some(name.as_ref()));
        program.cloned().ok_or(CompileError::NoProgram { name })
    };
    let programs = Programs { backup: find(BACKUP)?, cleanup: find(CLEANUP)? };
    task.done(&if compiled == 0 { "up to date".to_owned() } else { format!("{compiled} crates compiled") });
    Ok(programs)
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// zig is not where its package should have put it.
    #[error("cannot find zig in the build environment")]
    Zig(#[from] CommandError),
    /// Cargo could not be started or listened to.
    #[error("cannot run cargo-zigbuild")]
    Run(#[source] io::Error),
    /// Its log could not be made.
    #[error("cannot write {}", log.display())]
    Log {
        /// The log file.
        log: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Cargo failed; what it said has been shown already.
    #[error("Cargo could not compile the functions ({status}); what it says is above")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// Where all its output is.
        log: PathBuf,
    },
    /// Cargo succeeded without making one of the functions.
    #[error("Cargo compiled no program called {name}")]
    NoProgram {
        /// The missing program.
        name: &'static str,
    },
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        let failure = Self::caused_by(Exit::Failed, &error);
        match error {
            CompileError::Failed { log, .. } => {
                failure.hint(format!("the whole output is in {}", log.display()))
            }
            CompileError::Zig(_) => {
                failure.hint("remove target/tools/venvs/build, and it is installed again")
            }
            _ => failure,
        }
    }
}

/// A line of Cargo's.
enum Line {
    /// On stdout: a message in JSON.
    Message(String),
    /// On stderr: what it does, and what compilers say.
    Text(String),
}

fn run(command: &mut Command, watcher: &mut Watcher) -> io::Result<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone(), Line::Message);
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender.clone(), Line::Text);
    }
    drop(sender);
    loop {
        match lines.recv_timeout(HEARTBEAT) {
            Ok(Line::Message(line)) => watcher.message(&line),
            Ok(Line::Text(line)) => watcher.text(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return child.wait(),
        }
        watcher.beat();
    }
}

/// Sends each line on; both of Cargo's outputs must be read at once, or it waits for the one that is not.
fn forward(output: impl Read + Send + 'static, to: Sender<Line>, kind: fn(String) -> Line) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if to.send(kind(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}

/// Follows a build.
struct Watcher<'a> {
    task: &'a Task,
    progress: &'a Progress,
    log: File,
    doing: String,
    done: usize,
    compiled: usize,
    programs: Vec<PathBuf>,
    last_beat: Instant,
}

impl<'a> Watcher<'a> {
    fn new(task: &'a Task, progress: &'a Progress, log: &Path) -> io::Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::create(log)?;
        let (doing, last_beat) = ("starting".to_owned(), Instant::now());
        Ok(Self { task, progress, log, doing, done: 0, compiled: 0, programs: Vec::new(), last_beat })
    }

    fn message(&mut self, line: &str) {
        if let Ok(Message::CompilerArtifact { fresh, executable }) = serde_json::from_str(line) {
            self.done += 1;
            self.compiled += usize::from(!fresh);
            self.programs.extend(executable);
        }
    }

    fn text(&mut self, line: &str) {
        // The build does not depend on its log.
        drop(writeln!(self.log, "{line}"));
        match doing(line) {
            Some(doing) => {
                doing.clone_into(&mut self.doing);
                self.task.update(&self.state());
            }
            None => self.progress.note(line),
        }
    }

    fn beat(&mut self) {
        if !self.progress.owns_screen() && self.last_beat.elapsed() >= HEARTBEAT {
            self.last_beat = Instant::now();
            self.progress.note(&format!("  {}", self.state()));
        }
    }

    fn state(&self) -> String {
        format!("{} ({} crates done)", self.doing, self.done)
    }
}

/// What Cargo says it is doing, if that is what the line is: anything else is for people to read.
fn doing(line: &str) -> Option<&str> {
    const STATUS: [&str; 9] = [
        "Adding",
        "Blocking",
        "Compiling",
        "Downloaded",
        "Downloading",
        "Finished",
        "Locking",
        "Unpacking",
        "Updating",
    ];
    let text = line.trim();
    let is_status = text.split_once(' ').is_some_and(|(first, _)| STATUS.contains(&first));
    // A path after the version says nothing that the name has not said.
    is_status.then(|| text.split_once(" (/").map_or(text, |(before, _)| before))
}

/// The one message of Cargo's that matters here.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        fresh: bool,
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_does_is_told_from_what_compilers_say() {
        assert_eq!(doing("   Compiling aws-sdk-ec2 v1.274.0"), Some("Compiling aws-sdk-ec2 v1.274.0"));
        assert_eq!(doing("   Compiling x v0.1.0 (/home/me/x)"), Some("Compiling x v0.1.0"));
        assert_eq!(doing("error[E0425]: cannot find value `x` in this scope"), None);
        assert_eq!(doing("  --> functions/backup/src/main.rs:3:5"), None);
    }

    #[test]
    fn programs_are_found_in_cargo_s_messages() {
        let place = tempfile::tempdir().unwrap();
        let progress = Progress::new(true);
        let task = progress.start("compiling");
        let mut watcher = Watcher::new(&task, &progress, &place.path().join("log")).unwrap();
        watcher.message(r#"{"reason":"compiler-artifact","fresh":true,"executable":null,"target":{}}"#);
        watcher
            .message(r#"{"reason":"compiler-artifact","fresh":false,"executable":"/t/snapwarden-backup"}"#);
        watcher.message(r#"{"reason":"build-finished","success":true}"#);
        assert_eq!((watcher.done, watcher.compiled), (2, 1));
        assert_eq!(watcher.programs, [Path::new("/t/snapwarden-backup")]);
    }
}

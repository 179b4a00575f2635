//! A local environment of a benchmark's own, and the commands that people type, in it.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Scope;
use super::fleet::write;
use crate::failure::{Exit, Failure};

/// Emulators, files and state that nobody else uses; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Local {
    folder: TempDir,
    pub(super) general: String,
    pub(super) ec2: String,
}

/// A command that has ended well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    pub(super) wall: Duration,
    /// The most memory that it had, in MB; looked at every few milliseconds.
    pub(super) peak_mb: f64,
}

impl Local {
    /// Starts one with the checkout's own environment file.
    pub(super) fn start(scope: Scope<'_>) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot make a folder"))?;
        let file = scope.context.workspace().root().join("environments/local.yaml");
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Failure::caused_by(Exit::Usage, &error).context("environments/local.yaml"))?;
        let mut local = Self { folder, general: String::new(), ec2: String::new() };
        local.environment(&text)?;
        local.run(&["local", "up"], &[])?;
        let output = local.command(&["local", "status", "--json"]).output().map_err(cannot_start)?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        (local.general, local.ec2) = (text("endpoint"), text("endpoint_ec2"));
        Ok(local)
    }

    /// Writes the environment's file anew.
    pub(super) fn environment(&self, text: &str) -> Result<(), Failure> {
        write(&self.folder.path().join("local.yaml"), text)
    }

    /// The text of the environment's file.
    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("local.yaml")).unwrap_or_default()
    }

    /// A file of the benchmark's own.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let itself = std::env::current_exe().unwrap_or_else(|_| Path::new("xtask").to_owned());
        let mut command = Command::new(itself);
        command
            .args(arguments)
            .env("SNAPWARDEN_LOCAL_DIR", self.folder.path().join("local"))
            .env("SNAPWARDEN_ENVIRONMENTS", self.folder.path())
            .env("SNAPWARDEN_ENV", "local")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs one of our commands that must succeed.
    pub(super) fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Ran, Failure> {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        timed(command)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Best effort: the figures matter more.
        let _ = self.command(&["local", "down"]).output();
    }
}

/// Runs a program that must succeed.
pub(super) fn timed(mut command: Command) -> Result<Ran, Failure> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot_start)?;
    // Read beside, or a program with much to say would wait for it.
    let stderr = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        // What it said is for an error alone.
        drop(stderr.map(|mut stderr| stderr.read_to_string(&mut said)));
        said
    });
    let mut peak_mb = f64::NAN;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot_start)? {
            break status;
        }
        peak_mb = peak_mb.max(super::lambda::peak_mb(child.id()));
        std::thread::sleep(Duration::from_millis(4));
    };
    let wall = started.elapsed();
    let said = said.join().unwrap_or_default();
    if status.success() {
        return Ok(Ran { wall, peak_mb });
    }
    let last: Vec<&str> = said.trim_end().lines().rev().take(8).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let message = format!("a command of the benchmark failed ({status}):\n{}", last.join("\n"));
    Err(Failure::new(Exit::Failed, message))
}

fn cannot_start(error: std::io::Error) -> Failure {
    Failure::caused_by(Exit::Failed, &error).context("cannot start a command of the benchmark")
}

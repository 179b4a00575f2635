//! Asking rustup for what a toolchain lacks, without hanging where its server cannot be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::compiler::Compiler;
use crate::progress::Progress;
use crate::tools::command::{self, CommandError};
use crate::workspace::Workspace;

/// How long one download may take: enough for 40 MB over a slow line, and bearable once a day for nothing.
const LIMIT: Duration = Duration::from_mins(2);

/// How long a download that failed is not tried again, so that builds do not wait for it one after the other.
const RETRY_AFTER: Duration = Duration::from_hours(24);

/// Adds the standard library for `target` to the toolchain in use.
pub(crate) fn add_target(
    workspace: &Workspace,
    active: &Compiler,
    target: &str,
    progress: &Progress,
) -> Result<(), RustupError> {
    add(workspace, active, &["target", "add", target], progress)
}

/// Adds the standard library's source to a nightly toolchain.
pub(crate) fn add_library_source(
    workspace: &Workspace,
    nightly: &Compiler,
    progress: &Progress,
) -> Result<(), RustupError> {
    add(workspace, nightly, &["component", "add", "rust-src"], progress)
}

/// Why rustup did not add something to a toolchain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RustupError {
    /// rustup is not there, failed, or took too long.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The toolchain is not one of rustup's, such as one of a Linux distribution.
    #[error("rustup does not have the toolchain in {}", sysroot.display())]
    OtherToolchain {
        /// The toolchain's folder.
        sysroot: PathBuf,
    },
    /// It failed a while ago, and is not tried again so soon.
    #[error("it failed less than a day ago (remove {} to try again)", note.display())]
    FailedRecently {
        /// The file that remembers the failure.
        note: PathBuf,
    },
}

fn add(
    workspace: &Workspace,
    compiler: &Compiler,
    what: &[&str],
    progress: &Progress,
) -> Result<(), RustupError> {
    let toolchain = toolchain_name(compiler)?;
    let name = format!("rustup-{}", what.join("-"));
    let note = Note { path: workspace.tools().join(format!("{name}.failed")), about: compiler.version() };
    if note.is_recent() {
        return Err(RustupError::FailedRecently { note: note.path });
    }
    let task = progress.start(format!("rustup {} ({toolchain})", what.join(" ")));
    let mut rustup = Command::new("rustup");
    // Without its own retries it fails at once where the network says no; a backtrace would hide what it says.
    rustup
        .args(what)
        .arg("--toolchain")
        .arg(&toolchain)
        .env("RUSTUP_MAX_RETRIES", "0")
        .env("RUST_BACKTRACE", "0");
    let log = workspace.tools().join(format!("logs/{name}.log"));
    match command::run_bounded(&mut rustup, &log, LIMIT) {
        Ok(()) => {
            task.done("");
            Ok(())
        }
        Err(error) => {
            task.done("not possible here, trying another way");
            note.write();
            Err(error.into())
        }
    }
}

/// What rustup calls the toolchain, where it is one of rustup's.
fn toolchain_name(compiler: &Compiler) -> Result<String, RustupError> {
    let other = || RustupError::OtherToolchain { sysroot: compiler.sysroot().to_owned() };
    let home = PathBuf::from(command::capture(Command::new("rustup").args(["show", "home"]))?);
    // Either side may be a link: toolchains can be aliases of each other, and homes can be elsewhere.
    let (Ok(sysroot), Ok(toolchains)) =
        (compiler.sysroot().canonicalize(), home.join("toolchains").canonicalize())
    else {
        return Err(other());
    };
    match sysroot.strip_prefix(toolchains).map(Path::to_str) {
        Ok(Some(name)) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(other()),
    }
}

/// A file that remembers that something failed for a toolchain; its age is the failure's.
struct Note<'a> {
    path: PathBuf,
    about: &'a str,
}

impl Note<'_> {
    fn is_recent(&self) -> bool {
        let written = fs::metadata(&self.path).and_then(|data| data.modified());
        let age = written.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_some_and(|age| age < RETRY_AFTER)
            && fs::read_to_string(&self.path).is_ok_and(|text| text == self.about)
    }

    /// Not being able to remember costs time at the next build, and nothing else.
    fn write(&self) {
        drop(fs::write(&self.path, self.about));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_for_one_toolchain_and_for_a_day() {
        let place = tempfile::tempdir().unwrap();
        let note = |about| Note { path: place.path().join("note"), about };
        assert!(!note("1.95").is_recent());
        note("1.95").write();
        assert!(note("1.95").is_recent());
        assert!(!note("1.96").is_recent());

        let yesterday = SystemTime::now() - RETRY_AFTER - Duration::from_mins(1);
        fs::File::options()
            .append(true)
            .open(place.path().join("note"))
            .unwrap()
            .set_modified(yesterday)
            .unwrap();
        assert!(!note("1.95").is_recent());
    }
}

//! Running the functions, which are built for arm64 Linux, on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::tools::apt::{self, AptError};
use crate::workspace::Workspace;

/// What it takes to run an arm64 Linux program here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arm64 {
    /// Nothing: the processor, or the kernel with an emulator registered by the user, runs it.
    Direct,
    /// This emulator in front of it.
    Qemu(PathBuf),
    /// This is not Linux, so nothing will help.
    Impossible,
}

impl Arm64 {
    /// Finds out, and fetches an emulator under `target/` when the machine has none. The kernel's settings and the
    /// system's packages stay as they are.
    pub(super) fn find(workspace: &Workspace, progress: &Progress) -> Result<Self, Arm64Error> {
        if !cfg!(target_os = "linux") {
            return Ok(Self::Impossible);
        }
        if cfg!(target_arch = "aarch64") || kernel_runs_arm64(Path::new("/proc/sys/fs/binfmt_misc")) {
            return Ok(Self::Direct);
        }
        if let Some(qemu) = installed_qemu() {
            return Ok(Self::Qemu(qemu));
        }
        fetched_qemu(workspace, progress).map(Self::Qemu)
    }

    /// The emulator to put in front of a function.
    pub(super) fn qemu(&self) -> Option<&Path> {
        match self {
            Self::Qemu(path) => Some(path),
            Self::Direct | Self::Impossible => None,
        }
    }
}

/// Why the functions cannot run here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Arm64Error {
    /// There is no emulator, and none could be fetched.
    #[error(
        "the functions are built for arm64 and qemu-aarch64, which runs them here, is neither installed nor to be had"
    )]
    NotFetched(#[from] AptError),
    /// The package came without the program.
    #[error("the package {PACKAGE} holds no qemu-aarch64 that runs here (looked in {})", dir.display())]
    NotInPackage {
        /// Where the package was unpacked.
        dir: PathBuf,
    },
}

impl From<Arm64Error> for Failure {
    fn from(error: Arm64Error) -> Self {
        Self::caused_by(Exit::Failed, &error)
            .hint("install it, on Debian and Ubuntu with `apt-get install qemu-user-static`, then try again")
    }
}

/// The emulator's names: Debian calls the one that needs no libraries `-static`, others have just one.
const PROGRAMS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

const PACKAGE: &str = "qemu-user";

/// Whether the kernel starts an emulator by itself when it is given an arm64 program.
fn kernel_runs_arm64(binfmt: &Path) -> bool {
    let Ok(entries) = fs::read_dir(binfmt) else { return false };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|rule| is_arm64_rule(&rule))
}

fn is_arm64_rule(rule: &str) -> bool {
    let value = |key: &str| rule.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    // Bytes 18 and 19 of an ELF header name the processor, and 0xb7 is arm64; a rule writes two digits for a byte.
    let for_arm64 = value("magic ").is_some_and(|magic| magic.get(36..40) == Some("b700"));
    // With the flag F the kernel has opened the interpreter when the rule was made, perhaps outside our container.
    let has_interpreter = value("flags:").is_some_and(|flags| flags.contains('F'))
        || value("interpreter ").is_some_and(|path| Path::new(path).exists());
    rule.lines().next() == Some("enabled") && for_arm64 && has_interpreter
}

fn installed_qemu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    PROGRAMS.iter().find_map(|program| folders.iter().map(|dir| dir.join(program)).find(|file| starts(file)))
}

fn fetched_qemu(workspace: &Workspace, progress: &Progress) -> Result<PathBuf, Arm64Error> {
    let dir = workspace.tools().join("qemu");
    apt::unpack(workspace, PACKAGE, |_version| true, &dir, progress)?;
    let programs = PROGRAMS.map(|program| dir.join("usr/bin").join(program));
    programs.into_iter().find(|file| starts(file)).ok_or(Arm64Error::NotInPackage { dir })
}

/// Whether the program is there and starts, which one linked to libraries that are not installed does not.
fn starts(program: &Path) -> bool {
    program.is_file()
        && Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "enabled\ninterpreter /bin/sh\nflags: OC\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    // Else functions would be started on a kernel that cannot run them, or an emulator be fetched for nothing.
    #[test]
    fn recognises_a_rule_for_arm64() {
        assert!(is_arm64_rule(RULE));
        assert!(!is_arm64_rule(&RULE.replace("enabled", "disabled")));
        assert!(!is_arm64_rule(&RULE.replace("b700", "2800")), "32-bit arm");
        assert!(!is_arm64_rule(&RULE.replace("/bin/sh", "/nowhere/qemu")));
        assert!(is_arm64_rule(&RULE.replace("/bin/sh", "/nowhere/qemu").replace("OC", "OCF")));
        assert!(!is_arm64_rule("enabled"), "the file `status`");
    }

    #[test]
    fn reads_every_rule_there_is() {
        let binfmt = tempfile::tempdir().unwrap();
        assert!(!kernel_runs_arm64(binfmt.path()));
        fs::write(binfmt.path().join("status"), "enabled\n").unwrap();
        fs::write(binfmt.path().join("named-by-someone"), RULE).unwrap();
        assert!(kernel_runs_arm64(binfmt.path()));
        assert!(!kernel_runs_arm64(Path::new("/nowhere")));
    }
}

//! A Rust compiler, known by its folder.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::command::{self, CommandError};

/// A Rust compiler and the folder of its toolchain.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    version: String,
    sysroot: PathBuf,
}

impl Compiler {
    /// Asks the program `rustc` what it is, seen from `folder`, which may have a toolchain file.
    pub(crate) fn ask(rustc: &OsStr, folder: &Path) -> Result<Self, CommandError> {
        let version = command::capture(Command::new(rustc).arg("--version").current_dir(folder))?;
        let sysroot = command::capture(Command::new(rustc).args(["--print", "sysroot"]).current_dir(folder))?;
        Ok(Self { version, sysroot: sysroot.into() })
    }

    /// What it calls itself, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The toolchain's folder.
    pub(crate) fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// Whether it takes `-Z` options.
    pub(crate) fn is_nightly(&self) -> bool {
        self.release().ends_with("-nightly")
    }

    /// The number of its release, such as `1.97.0-nightly`.
    pub(crate) fn release(&self) -> &str {
        self.version.split_whitespace().nth(1).unwrap_or_default()
    }

    /// Whether it has a standard library for `target`.
    pub(crate) fn has_target(&self, target: &str) -> bool {
        self.rustlib().join(target).join("lib").is_dir()
    }

    /// Whether it has the standard library's source, where Cargo looks for it.
    pub(crate) fn has_library_source(&self) -> bool {
        self.library_source().join("library/Cargo.lock").is_file()
    }

    /// Where Cargo looks for the standard library's source.
    pub(crate) fn library_source(&self) -> PathBuf {
        self.rustlib().join("src/rust")
    }

    /// The folder with the standard libraries.
    pub(crate) fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }

    /// A program of the toolchain's: `cargo` or `rustc`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.sysroot.join("bin").join(name);
        // Some distributions keep the two in different folders, and both on the PATH.
        if path.is_file() { path } else { name.into() }
    }
}

#[cfg(test)]
impl Compiler {
    /// A compiler that is not there.
    pub(crate) fn imagined(version: &str, sysroot: &Path) -> Self {
        Self { version: version.to_owned(), sysroot: sysroot.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_nightly_from_stable() {
        let nightly = Compiler::imagined("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Path::new("/n"));
        assert_eq!((nightly.release(), nightly.is_nightly()), ("1.97.0-nightly", true));
        let stable = Compiler::imagined("rustc 1.95.0 (59807616e 2026-04-14) (Fedora)", Path::new("/s"));
        assert_eq!((stable.release(), stable.is_nightly()), ("1.95.0", false));
    }
}

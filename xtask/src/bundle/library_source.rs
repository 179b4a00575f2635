//! The source of Rust's standard library, for a nightly compiler that shall compile it along with the functions.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::compiler::Compiler;
use super::rustup::{self, RustupError};
use crate::failure::with_causes;
use crate::progress::Progress;
use crate::tools::apt::{self, AptError};
use crate::tools::command::CommandError;
use crate::tools::install::{InstallError, Installation};
use crate::workspace::Workspace;

/// Gives back `nightly` when it has the source or rustup can add it, and else a twin of it that has Debian's.
pub(crate) fn provide(
    workspace: &Workspace,
    nightly: Compiler,
    progress: &Progress,
) -> Result<Compiler, SourceError> {
    if nightly.has_library_source() {
        return Ok(nightly);
    }
    let twin = Installation::lock(&workspace.tools().join("nightly"), progress)?;
    let origin = format!("{} in {}", nightly.version(), nightly.sysroot().display());
    if let Some(made) = made_before(workspace, &twin, &origin) {
        return Ok(made);
    }
    let by_rustup = match rustup::add_library_source(workspace, &nightly, progress) {
        Ok(()) if nightly.has_library_source() => return Ok(nightly),
        Ok(()) => None,
        Err(why) => Some(Box::new(why)),
    };
    let source = workspace.tools().join("rust-src");
    let fits = |version: &str| minor(version) == minor(nightly.release());
    if let Err(by_debian) = apt::unpack(workspace, "rust-src", fits, &source, progress) {
        return Err(SourceError::Nowhere {
            nightly: nightly.version().to_owned(),
            by_rustup,
            by_debian: Box::new(by_debian),
        });
    }
    let folder = twin.begin()?;
    make_twin(nightly.sysroot(), &source.join("usr/lib/rustlib/src"), folder)
        .map_err(|source| SourceError::Twin { folder: folder.to_owned(), source })?;
    let made = ask_twin(folder, workspace)?;
    twin.finish(&origin)?;
    Ok(made)
}

/// Why the source is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// Neither rustup nor Debian has it.
    #[error(
        "{nightly} lacks the library's source:\n     \
         rustup: {}\n     \
         Debian: {}",
        .by_rustup.as_ref().map_or_else(|| "added it somewhere else".to_owned(), |why| with_causes(why)),
        with_causes(.by_debian)
    )]
    Nowhere {
        /// The compiler's version.
        nightly: String,
        /// Why rustup did not help; absent where it says that it did.
        by_rustup: Option<Box<RustupError>>,
        /// Why Debian's package did not help.
        by_debian: Box<AptError>,
    },
    /// The twin's folder could not be filled.
    #[error("cannot make a twin of the nightly toolchain in {}", folder.display())]
    Twin {
        /// The twin's folder.
        folder: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The twin does not run.
    #[error("the twin of the nightly toolchain does not run")]
    Broken(#[from] CommandError),
    /// The twin's folder could not be prepared.
    #[error(transparent)]
    Folder(#[from] InstallError),
}

fn made_before(workspace: &Workspace, twin: &Installation, origin: &str) -> Option<Compiler> {
    twin.stamp().filter(|stamp| stamp == origin)?;
    // Whoever removed the source from under it gets it back, rather than Cargo's complaint.
    ask_twin(twin.folder(), workspace).ok().filter(Compiler::has_library_source)
}

fn ask_twin(folder: &Path, workspace: &Workspace) -> Result<Compiler, CommandError> {
    Compiler::ask(folder.join("bin/rustc").as_ref(), workspace.root())
}

/// Fills `folder` with a toolchain that is the one in `sysroot` in all but the source, which it takes from `source`.
///
/// rustc finds its sysroot by the real path of its own libraries, so these must be files here; all else is linked to.
fn make_twin(sysroot: &Path, source: &Path, folder: &Path) -> io::Result<()> {
    for part in ["bin", "lib"] {
        fs::create_dir_all(folder.join(part))?;
        for entry in fs::read_dir(sysroot.join(part))? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                link_or_copy(&path, &folder.join(part).join(name))?;
            }
        }
    }
    let rustlib = folder.join("lib/rustlib");
    fs::create_dir_all(&rustlib)?;
    for entry in fs::read_dir(sysroot.join("lib/rustlib"))? {
        let entry = entry?;
        if entry.file_name() != "src" {
            symlink(entry.path(), rustlib.join(entry.file_name()))?;
        }
    }
    symlink(source, rustlib.join("src"))
}

/// A second name costs no space, but is not to be had across file systems or on other people's files.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    let real = from.canonicalize()?;
    fs::hard_link(&real, to).or_else(|_| fs::copy(&real, to).map(drop))
}

/// The first two numbers of a version: library and compiler fit when they are of the same release.
fn minor(version: &str) -> Option<(&str, &str)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_s_version_fits_the_nightly_of_the_same_release() {
        assert_eq!(minor("1.97.1+dfsg1-1"), minor("1.97.0-nightly"));
        assert_ne!(minor("1.98.0+dfsg1-1"), minor("1.97.0-nightly"));
    }

    #[test]
    fn a_twin_has_files_of_its_own_and_the_other_source() {
        let place = tempfile::tempdir().unwrap();
        let (sysroot, source, twin) =
            (place.path().join("nightly"), place.path().join("source"), place.path().join("twin"));
        for folder in ["bin", "lib/rustlib/src", "lib/rustlib/x86_64-unknown-linux-gnu/lib"] {
            fs::create_dir_all(sysroot.join(folder)).unwrap();
        }
        fs::write(sysroot.join("bin/rustc"), "rustc").unwrap();
        fs::write(sysroot.join("lib/librustc_driver.so"), "driver").unwrap();
        fs::create_dir_all(source.join("rust/library")).unwrap();
        fs::write(source.join("rust/library/Cargo.lock"), "").unwrap();

        make_twin(&sysroot, &source, &twin).unwrap();

        assert!(twin.join("lib/librustc_driver.so").symlink_metadata().unwrap().is_file());
        assert!(twin.join("lib/rustlib/x86_64-unknown-linux-gnu/lib").is_dir());
        assert!(Compiler::imagined("rustc 1.97.0-nightly", &twin).has_library_source());
    }
}

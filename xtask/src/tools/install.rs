//! Installing something into a folder once: safe against being killed half-way, and against a second xtask.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lock::{Lock, LockError};
use crate::progress::Progress;

/// A folder that holds one installed thing, with a stamp that says which.
///
/// The stamp is written last, so a folder without one is the remains of an installation that did not finish.
#[derive(Debug)]
pub(crate) struct Installation {
    folder: PathBuf,
    _lock: Lock,
}

/// Why a folder could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The folder's lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The folder or its stamp could not be written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, such as `create`.
        action: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Installation {
    /// Takes the folder for this process, waiting for another one that is installing into it.
    pub(crate) fn lock(folder: &Path, progress: &Progress) -> Result<Self, InstallError> {
        Ok(Self { folder: folder.to_path_buf(), _lock: Lock::take(folder, progress)? })
    }

    /// The folder, whatever is in it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is installed, or nothing when no installation has finished.
    pub(crate) fn stamp(&self) -> Option<String> {
        fs::read_to_string(self.stamp_path()).ok()
    }

    /// An empty folder to install into; what was there is removed.
    pub(crate) fn begin(&self) -> Result<&Path, InstallError> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &self.folder)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        Ok(&self.folder)
    }

    /// Declares the installation complete.
    pub(crate) fn finish(&self, stamp: &str) -> Result<(), InstallError> {
        let path = self.stamp_path();
        fs::write(&path, stamp).map_err(failed("write", &path))
    }

    fn stamp_path(&self) -> PathBuf {
        self.folder.join(".installed")
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.to_path_buf();
    move |source| InstallError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_installation_left_behind_does_not_count() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("tool");
        let progress = Progress::new(true);

        let killed = Installation::lock(&folder, &progress).unwrap();
        fs::write(killed.begin().unwrap().join("half"), "").unwrap();
        drop(killed);

        let next = Installation::lock(&folder, &progress).unwrap();
        assert_eq!(next.stamp(), None);
        assert!(!next.begin().unwrap().join("half").exists());
        next.finish("1.0").unwrap();
        drop(next);

        assert_eq!(Installation::lock(&folder, &progress).unwrap().stamp().as_deref(), Some("1.0"));
    }
}

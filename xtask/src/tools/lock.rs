//! A lock between processes, so that two xtasks side by side do not write the same folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::progress::Progress;

/// Held until it is dropped; the operating system frees it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "holding the file open is what holds the lock")] File);

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {}", path.display())]
pub(crate) struct LockError {
    path: PathBuf,
    source: io::Error,
}

impl Lock {
    /// Takes the lock that guards `folder`, waiting for another process that has it.
    pub(crate) fn take(folder: &Path, progress: &Progress) -> Result<Self, LockError> {
        // Beside the folder rather than inside it, because whoever has the lock may remove the folder.
        let mut path = folder.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        lock_file(&path, folder, progress).map(Self).map_err(|source| LockError { path, source })
    }
}

fn lock_file(path: &Path, folder: &Path, progress: &Progress) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("waiting for another xtask to finish with {}", folder.display()));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

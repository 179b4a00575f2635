//! Where the project's files are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The checkout that this program was built from, and the folder that everything it makes goes into.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the checkout: Cargo says where at run time; started by hand, the place at build time counts.
    pub(crate) fn find() -> Self {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().map_or_else(|| package.clone(), Path::to_path_buf);
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Self { root, target }
    }

    /// Copies what the functions are compiled from to another folder, which is emptied before: a checkout with a target
    /// folder of its own.
    pub(crate) fn copy_to(&self, folder: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => copy(&self.root, folder, &self.target)?,
        }
        Ok(Self { root: folder.to_owned(), target: folder.join("target") })
    }

    /// The checkout's top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Tools that xtask installs for itself: virtual environments, the cross-compiler, the arm64 emulation.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The bundle: two zips and `bundle.json`.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.target.join("bundle")
    }
}

/// Copies a folder, but for the target folder and what version control and editors keep beside the files.
fn copy(from: &Path, to: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_hidden = name.to_string_lossy().starts_with('.') && name != ".cargo";
        if is_hidden || path == target || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&path, &to.join(name), target)?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

//! Where the project's files are.

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

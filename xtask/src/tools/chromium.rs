//! A browser without a window, for the tests of the page that `report` writes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apt::{self, AptError};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// A Chromium that starts.
#[derive(Clone, Debug)]
pub(crate) struct Chromium {
    /// The program.
    pub(crate) program: PathBuf,
    /// Folders of libraries that it needs and the system lacks, as `LD_LIBRARY_PATH` lists them.
    pub(crate) libraries: OsString,
}

/// What browsers of this family are called.
const PROGRAMS: [&str; 4] = ["chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable"];

const PACKAGE: &str = "chromium-headless-shell";

impl Chromium {
    /// The system's, or else Debian's package and what it needs, unpacked below `target/`.
    pub(crate) fn ensure(workspace: &Workspace, progress: &Progress) -> Result<Self, AptError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let installed = env::split_paths(&path).flat_map(|folder| PROGRAMS.map(|name| folder.join(name)));
        let installed = installed.map(|program| Self { program, libraries: OsString::new() });
        if let Some(chromium) = installed.into_iter().find(Self::starts) {
            return Ok(chromium);
        }
        let root = workspace.tools().join("chromium");
        apt::unpack_with_dependencies(workspace, PACKAGE, &root, progress)?;
        Ok(Self { program: root.join("usr/lib/chromium").join(PACKAGE), libraries: libraries(&root) })
    }

    fn starts(&self) -> bool {
        self.program.is_file()
            && Command::new(&self.program)
                .arg("--version")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }
}

/// Debian puts libraries into a folder of the architecture's, and PulseAudio some of its own below that.
fn libraries(root: &Path) -> OsString {
    let folder = root.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH));
    let folders = [folder.clone(), folder.join("pulseaudio")];
    // A colon in the path of the checkout cannot be written here; then the system's libraries have to do.
    env::join_paths(folders).unwrap_or_default()
}

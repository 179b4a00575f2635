//! Files out of Debian's packages, without root and without touching the system's own packages.
//!
//! `apt-get` runs with lists and cache of its own under `target/tools`, and checks Debian's signatures as usual. What the
//! system's configuration says about proxies and credentials still holds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{self, CommandError};
use super::install::{InstallError, Installation};
use super::lock::Lock;
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Debian's suite that the packages come from.
const SUITE: &str = "testing";

/// The keys that Debian signs with, as Debian's own package of that name installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from on a system that has no mirror of Debian among its own sources.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Unpacks a version of `package` that `accept` takes into the folder `into`, and returns that version.
///
/// The folder is this package's alone. When it already holds such a version, nothing is asked of the network.
pub(crate) fn unpack(
    workspace: &Workspace,
    package: &str,
    accept: impl Fn(&str) -> bool,
    into: &Path,
    progress: &Progress,
) -> Result<String, AptError> {
    let installation = Installation::lock(into, progress)?;
    if let Some(version) = installation.stamp().filter(|version| accept(version)) {
        return Ok(version);
    }
    // Two packages may be wanted at once: apt's own folder has its own lock.
    let home = workspace.tools().join("apt");
    let _alone = Lock::take(&home, progress).map_err(InstallError::from)?;
    let task = progress.start(format!("fetching Debian's {package}"));
    let apt = Apt::configure(&home, workspace.tools().join("logs"))?;
    apt.update()?;
    let version = apt.choose_version(package, accept)?;
    task.update(&version);
    let archive = apt.download(package, &version)?;
    let folder = installation.begin()?;
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(&archive).arg(folder);
    command::run_logged(&mut extract, &apt.log("unpack"))?;
    installation.finish(&version)?;
    task.done(&version);
    Ok(version)
}

/// Unpacks a package of the system's own suite into the folder `into`, with all that it needs and the system lacks.
pub(crate) fn unpack_with_dependencies(
    workspace: &Workspace,
    package: &str,
    into: &Path,
    progress: &Progress,
) -> Result<(), AptError> {
    let installation = Installation::lock(into, progress)?;
    if installation.stamp().is_some() {
        return Ok(());
    }
    let home = workspace.tools().join("apt-system");
    let _alone = Lock::take(&home, progress).map_err(InstallError::from)?;
    let task = progress.start(format!("fetching Debian's {package}"));
    let apt = Apt::of_system(&home, workspace.tools().join("logs"))?;
    apt.update()?;
    let archives = apt.download_with_dependencies(package)?;
    let folder = installation.begin()?;
    for archive in &archives {
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(archive).arg(folder);
        command::run_logged(&mut extract, &apt.log("unpack"))?;
    }
    installation.finish(package)?;
    task.done(&format!("{} packages", archives.len()));
    // A hundred megabytes that nobody needs again.
    drop(fs::remove_dir_all(&home));
    Ok(())
}

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AptError {
    /// Debian's public keys are not on this system.
    #[error("Debian's public keys are not installed: there is no {KEYRING}")]
    NoKeyring,
    /// `apt-get`, `apt-cache` or `dpkg-deb` did not do its work.
    #[error("cannot get a package from Debian")]
    Command(#[from] CommandError),
    /// Debian has no version that can be used.
    #[error("Debian {SUITE} has no fitting version of {package}: {}", found.join(", "))]
    NoVersion {
        /// The package.
        package: String,
        /// The versions that there are.
        found: Vec<String>,
    },
    /// `apt-get` said that all went well, but there is no archive.
    #[error("apt-get left no archive of {package} in {}", folder.display())]
    NoArchive {
        /// The package.
        package: String,
        /// Where it should be.
        folder: PathBuf,
    },
    /// A file of apt's could not be written.
    #[error("cannot prepare {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The folder to unpack into could not be prepared.
    #[error(transparent)]
    Folder(#[from] InstallError),
}

impl From<AptError> for Failure {
    fn from(error: AptError) -> Self {
        let failure = Self::caused_by(Exit::Failed, &error);
        match error {
            AptError::NoKeyring => {
                failure.hint("install Debian's keys: apt-get install debian-archive-keyring")
            }
            AptError::Command(CommandError::NotFound { .. }) => {
                failure.hint("this needs apt-get and dpkg-deb, as Debian and Ubuntu have them")
            }
            AptError::Command(_) => {
                failure.hint(format!("{DEFAULT_MIRROR} or the system's own mirror must be reachable"))
            }
            _ => failure,
        }
    }
}

/// An apt of our own in a folder.
struct Apt {
    home: PathBuf,
    logs: PathBuf,
}

impl Apt {
    /// One that has Debian's [`SUITE`] for its only source, and believes that nothing is installed.
    fn configure(home: &Path, logs: PathBuf) -> Result<Self, AptError> {
        if !Path::new(KEYRING).exists() {
            return Err(AptError::NoKeyring);
        }
        let mirror = system_mirror(Path::new("/etc/apt")).unwrap_or_else(|| DEFAULT_MIRROR.to_owned());
        let files = [
            ("status", String::new()),
            ("sources.list", format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")),
            ("apt.conf", own_folders(home) + &own_sources(home)),
        ];
        Self::write(home, logs, &files)
    }

    /// One that has the system's sources, and knows what is installed.
    fn of_system(home: &Path, logs: PathBuf) -> Result<Self, AptError> {
        Self::write(home, logs, &[("apt.conf", own_folders(home))])
    }

    fn write(home: &Path, logs: PathBuf, files: &[(&str, String)]) -> Result<Self, AptError> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = home.join(folder);
            fs::create_dir_all(&path).map_err(|source| AptError::Io { path, source })?;
        }
        for (name, text) in files {
            let path = home.join(name);
            fs::write(&path, text).map_err(|source| AptError::Io { path, source })?;
        }
        Ok(Self { home: home.to_owned(), logs })
    }

    fn update(&self) -> Result<(), AptError> {
        Ok(command::run_logged(
            self.command("apt-get").args(["--error-on=any", "update"]),
            &self.log("update"),
        )?)
    }

    fn choose_version(&self, package: &str, accept: impl Fn(&str) -> bool) -> Result<String, AptError> {
        let table = command::capture(self.command("apt-cache").args(["madison", package]))?;
        let found = versions(&table);
        match found.iter().find(|version| accept(version)) {
            Some(version) => Ok(version.clone()),
            None => Err(AptError::NoVersion { package: package.to_owned(), found }),
        }
    }

    fn download(&self, package: &str, version: &str) -> Result<PathBuf, AptError> {
        // apt-get chooses the archive's name and writes it into the current folder: there it shall be the only one.
        let folder = self.home.join("download");
        let fresh = match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&folder),
        };
        fresh.map_err(|source| AptError::Io { path: folder.clone(), source })?;
        let mut download = self.command("apt-get");
        download.args(["download", &format!("{package}={version}")]).current_dir(&folder);
        command::run_logged(&mut download, &self.log("download"))?;
        let mut entries =
            fs::read_dir(&folder).map_err(|source| AptError::Io { path: folder.clone(), source })?;
        match entries.find_map(Result::ok) {
            Some(archive) => Ok(archive.path()),
            None => Err(AptError::NoArchive { package: package.to_owned(), folder }),
        }
    }

    fn download_with_dependencies(&self, package: &str) -> Result<Vec<PathBuf>, AptError> {
        let mut download = self.command("apt-get");
        // apt asks for the system's lock even where it installs nothing.
        download.args(["--yes", "--no-install-recommends", "--download-only", "-o", "Debug::NoLocking=true"]);
        download.args(["install", package]);
        command::run_logged(&mut download, &self.log("download"))?;
        let folder = self.home.join("cache/archives");
        let entries =
            fs::read_dir(&folder).map_err(|source| AptError::Io { path: folder.clone(), source })?;
        let archives: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        if archives.is_empty() {
            return Err(AptError::NoArchive { package: package.to_owned(), folder });
        }
        Ok(archives)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.home.join("apt.conf")).arg("--quiet");
        command
    }

    fn log(&self, step: &str) -> PathBuf {
        self.logs.join(format!("apt-{step}.log"))
    }
}

/// apt's configuration; it is read after the system's and so has the last word.
fn own_folders(home: &Path) -> String {
    let home = home.display();
    format!(
        r#"// Written by xtask: an apt that changes nothing of the system's.
Dir::State::Lists "{home}/lists";
Dir::Cache "{home}/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#
    )
}

fn own_sources(home: &Path) -> String {
    let home = home.display();
    format!(
        r#"Dir::State::status "{home}/status";
Dir::Etc::SourceList "{home}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Default-Release "";
"#
    )
}

/// The first mirror of Debian among the system's own sources: it is the one that is known to be reachable.
fn system_mirror(etc_apt: &Path) -> Option<String> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        let mut parts: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| mirror_in(&text))
}

/// The first mirror of Debian in a sources file of either format.
fn mirror_in(sources: &str) -> Option<String> {
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
        // Other products keep their packages elsewhere, and Debian's security updates are no mirror of the whole.
        .find(|word| word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

/// The versions in a table of `apt-cache madison`: `package | version | source`.
fn versions(table: &str) -> Vec<String> {
    table.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mirror_of_either_format_of_sources() {
        let deb822 = "Types: deb\n# http://snapshot.debian.org/archive/debian/2025\nURIs: https://mirror.example/debian/\n";
        assert_eq!(mirror_in(deb822).as_deref(), Some("https://mirror.example/debian/"));
        let one_line = "#deb http://old.example/debian x main\ndeb [arch=amd64] http://near.example/debian trixie main\n";
        assert_eq!(mirror_in(one_line).as_deref(), Some("http://near.example/debian"));
    }

    #[test]
    fn other_repositories_are_no_mirror_of_debian() {
        let others = "URIs: http://deb.debian.org/debian-security\nURIs: http://archive.ubuntu.com/ubuntu\n\
                      deb mirror+file:/etc/apt/mirrors/debian x main\n";
        assert_eq!(mirror_in(others), None);
    }

    #[test]
    fn reads_the_versions_of_a_madison_table() {
        let table = " rust-src | 1.97.1+dfsg1-1 | http://deb.debian.org/debian testing/main amd64 Packages\n";
        assert_eq!(versions(table), ["1.97.1+dfsg1-1"]);
        assert!(versions("").is_empty());
    }
}

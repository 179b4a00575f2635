//! The bundle: both functions compiled for Lambda and zipped, with a manifest that says what they are.
//!
//! [`ensure_bundle`] is the whole of it: a compiler ([`toolchain`]), Cargo ([`compile`]), zips ([`archive`]), files.

mod archive;
mod cargo;
mod compile;
mod compiler;
mod git;
mod library_source;
mod rustup;
mod sbom;
mod toolchain;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use snapwarden_deployer::bundle::{
    Artifact, Bundle, BundleError, Document, Documents, FORMAT, Functions, MANIFEST_FILE, Manifest,
    SBOM_FILE, Toolchain as ToolchainInfo,
};

use self::compile::Programs;
use self::toolchain::{TARGET, Toolchain};
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::tools::lock::{Lock, LockError};
use crate::tools::venv;
use crate::workspace::Workspace;

/// Builds the bundle, or finds that it is up to date, and loads it as the deployer will.
pub(crate) fn ensure_bundle(workspace: &Workspace, progress: &Progress) -> Result<Bundle, Failure> {
    let dir = workspace.bundle();
    let _alone = Lock::take(&dir, progress).map_err(BuildError::from)?;
    let toolchain = toolchain::choose(workspace, progress)?;
    let venv = venv::ensure(workspace, &venv::BUILD, progress)?;
    let programs = compile::compile(workspace, &toolchain, &venv, progress)?;
    write(&dir, &programs, &toolchain, workspace.root())?;
    Ok(Bundle::load(&dir)?)
}

/// Compiles the functions once more, from nothing and from a copy of the checkout in another folder, and compares: a
/// bundle that depends on where or when it is built cannot be checked by anybody else.
pub(crate) fn verify(workspace: &Workspace, progress: &Progress, built: &Bundle) -> Result<(), Failure> {
    let _alone = Lock::take(&workspace.bundle(), progress).map_err(BuildError::from)?;
    let elsewhere = workspace.copy_to(&workspace.target().join("verify")).map_err(|source| {
        let path = workspace.target().join("verify");
        BuildError::Io { action: "copy the checkout to", path, source }
    })?;
    let toolchain = toolchain::choose(workspace, progress)?;
    let venv = venv::ensure(workspace, &venv::BUILD, progress)?;
    let programs = compile::compile(&elsewhere, &toolchain, &venv, progress)?;
    let functions = &built.manifest.functions;
    let mut different = Vec::new();
    for (program, first) in [(&programs.backup, &functions.backup), (&programs.cleanup, &functions.cleanup)] {
        let second = write_zip(elsewhere.root(), &first.zip, program)?;
        if second != *first {
            different.push(format!("\n  {}: {} here, {} there", first.zip, first.sha256, second.sha256));
        }
    }
    if let Some(first) = &built.manifest.sbom {
        let bill = sbom::describe(elsewhere.root()).map_err(BuildError::from)?;
        let second = Document::describe(SBOM_FILE, bill.as_bytes());
        if second != *first {
            different.push(format!("\n  {SBOM_FILE}: {} here, {} there", first.sha256, second.sha256));
        }
    }
    if different.is_empty() {
        // What remains is of no use, and large.
        drop(fs::remove_dir_all(elsewhere.root()));
        return Ok(());
    }
    let there = elsewhere.root().display();
    Err(Failure::new(Exit::Failed, format!("two builds differ:{}", different.concat()))
        .hint(format!("the other build is in {there}; compare the programs, for example with diffoscope")))
}

/// Reads and verifies a bundle that was built before.
pub(crate) fn load(path: &Path) -> Result<Bundle, Failure> {
    if !path.exists() {
        return Err(Failure::new(Exit::Usage, format!("there is no bundle at {}", path.display())));
    }
    Ok(Bundle::open(path)?)
}

/// Writes a bundle to one file; a file that was there is replaced in one step.
pub(crate) fn pack(bundle: &Bundle, file: &Path) -> Result<(), Failure> {
    let bytes = bundle.pack().map_err(|error| Failure::caused_by(Exit::Failed, &error))?;
    Ok(write_if_changed(file, &bytes)?)
}

/// The digest of a zip as Lambda reports it in `CodeSha256`.
pub(crate) fn code_sha256(zip: &[u8]) -> String {
    Artifact::describe("", zip, &[]).code_sha256
}

/// Why the compiled functions did not become a bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Another process's lock could not be waited for.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A program could not be zipped.
    #[error("cannot zip {}", program.display())]
    Zip {
        /// The program.
        program: PathBuf,
        /// What the zip library says.
        source: zip::result::ZipError,
    },
    /// What the functions are made of could not be listed.
    #[error("cannot write the software bill of materials")]
    Sbom(#[from] sbom::SbomError),
    /// The manifest could not be rendered.
    #[error("cannot render {MANIFEST_FILE}")]
    Manifest(#[from] serde_json::Error),
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::caused_by(Exit::Failed, &error).context("cannot write the bundle")
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        let hint = error.hint();
        Self::caused_by(Exit::Failed, &error).context("the bundle cannot be used").hint(hint)
    }
}

/// Writes the bundle's files, the manifest last: whoever reads it meanwhile sees a whole bundle, old or new, or an
/// error about digests, and never the one's manifest with the other's zips.
fn write(dir: &Path, programs: &Programs, toolchain: &Toolchain, root: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(dir).map_err(failed("write", dir))?;
    let sbom = sbom::describe(root)?;
    write_if_changed(&dir.join(SBOM_FILE), sbom.as_bytes())?;
    let manifest = Manifest {
        format: FORMAT,
        target: TARGET.to_owned(),
        toolchain: ToolchainInfo {
            route: toolchain.route.name().to_owned(),
            rustc: toolchain.compiler.version().to_owned(),
        },
        git: git::state(root),
        functions: Functions {
            backup: write_zip(dir, "backup.zip", &programs.backup)?,
            cleanup: write_zip(dir, "cleanup.zip", &programs.cleanup)?,
        },
        documents: Some(Documents::of_this_program()),
        sbom: Some(Document::describe(SBOM_FILE, sbom.as_bytes())),
    };
    write_if_changed(&dir.join(MANIFEST_FILE), manifest.render()?.as_bytes())
}

fn write_zip(dir: &Path, file: &str, program: &Path) -> Result<Artifact, BuildError> {
    let binary = fs::read(program).map_err(failed("read", program))?;
    let zip =
        archive::zip(&binary).map_err(|source| BuildError::Zip { program: program.to_owned(), source })?;
    write_if_changed(&dir.join(file), &zip)?;
    Ok(Artifact::describe(file, &zip, &binary))
}

/// Puts the whole file in place at once, and leaves one alone that is the same already.
fn write_if_changed(path: &Path, contents: &[u8]) -> Result<(), BuildError> {
    if fs::read(path).is_ok_and(|found| found == contents) {
        return Ok(());
    }
    let put = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Temporary files are private otherwise, and CI uploads a bundle as another user.
        let mut file =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
        file.write_all(contents)?;
        file.persist(path)?;
        Ok(())
    };
    put().map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let path = path.to_path_buf();
    move |source| BuildError::Io { action, path, source }
}

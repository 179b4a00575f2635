//! The bundle: what is deployed. Two zips as Lambda takes them, a bill of what they are made of, and a manifest that
//! says what they are.

mod archive;
mod manifest;

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use snapwarden_domain::excerpt::excerpt;
use zip::ZipArchive;

pub use manifest::{Artifact, Document, Documents, FORMAT, Functions, Git, Manifest, Toolchain};

/// The manifest's file name in the bundle's folder.
pub const MANIFEST_FILE: &str = "bundle.json";

/// The file name of the software bill of materials.
pub const SBOM_FILE: &str = "sbom.cdx.json";

/// The one file in each zip: Lambda's `provided` runtimes start the program of this name.
pub const ENTRY: &str = "bootstrap";

/// The permissions that Lambda needs on [`ENTRY`]: it runs the function as a user that does not own the file.
pub const ENTRY_MODE: u32 = 0o755;

/// A bundle that was read and verified: the zips are those that the manifest describes, and Lambda can start them.
#[derive(Clone)]
pub struct Bundle {
    /// What the bundle holds and where it comes from.
    pub manifest: Manifest,
    /// The backup function's zip.
    pub backup: Vec<u8>,
    /// The cleanup function's zip.
    pub cleanup: Vec<u8>,
    /// The software bill of materials of both, CycloneDX 1.5; absent where the zips were received without.
    pub sbom: Option<Vec<u8>>,
}

impl Bundle {
    /// Reads the bundle in `dir` and verifies all of it.
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        let path = dir.join(MANIFEST_FILE);
        let manifest = Manifest::parse(&read(&path)?).map_err(|problem| BundleError { path, problem })?;
        let backup = load_zip(dir, &manifest.functions.backup)?;
        let cleanup = load_zip(dir, &manifest.functions.cleanup)?;
        let sbom = match &manifest.sbom {
            Some(document) => Some(load_document(dir, document)?),
            None => None,
        };
        Ok(Self { manifest, backup, cleanup, sbom })
    }

    /// A bundle of zips that were received from somewhere, such as from the functions of another environment. Nothing
    /// but the zips tells what they are, so their digests have to be compared with what is expected.
    pub fn received(backup: Vec<u8>, cleanup: Vec<u8>, git: Option<Git>) -> Result<Self, BundleError> {
        let describe = |file: &str, zip: &[u8]| {
            let failed = |problem| BundleError { path: file.into(), problem };
            let binary = program(zip).map_err(failed)?;
            let artifact = Artifact::describe(file, zip, &binary);
            verify_contents(zip, &artifact).map_err(failed)?;
            Ok(artifact)
        };
        let functions = Functions {
            backup: describe("backup.zip", &backup)?,
            cleanup: describe("cleanup.zip", &cleanup)?,
        };
        let unknown = || "unknown".to_owned();
        let toolchain = Toolchain { route: unknown(), rustc: unknown() };
        let target = unknown();
        let manifest =
            Manifest { format: FORMAT, target, toolchain, git, functions, documents: None, sbom: None };
        Ok(Self { manifest, backup, cleanup, sbom: None })
    }

    /// The zip whose digest is `code_sha256`, as Lambda writes it.
    pub fn zip(&self, code_sha256: &str) -> Option<&[u8]> {
        let functions = &self.manifest.functions;
        [(&functions.backup, &self.backup), (&functions.cleanup, &self.cleanup)]
            .into_iter()
            .find(|(artifact, _)| artifact.code_sha256 == code_sha256)
            .map(|(_, zip)| zip.as_slice())
    }
}

impl fmt::Debug for Bundle {
    /// Leaves out the zips' megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// A bundle that cannot be deployed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct BundleError {
    /// The file that is wrong.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

impl BundleError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        "run `cargo xtask build`"
    }
}

/// What can be wrong with a bundle.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The manifest is not what this version writes.
    #[error("is not a bundle's manifest: {}", excerpt(.0))]
    Manifest(serde_json::Error),
    /// The manifest is of another version of Snapwarden.
    #[error("is of format {found}, and this version reads format {FORMAT}")]
    Format {
        /// The format it has.
        found: u32,
    },
    /// The manifest points outside the bundle's folder.
    #[error("the manifest names a file that is not a plain file name")]
    NotBeside,
    /// The zip is not the one that the manifest describes.
    #[error("does not match the manifest: it has {found}, and the manifest says {}", excerpt(.wanted))]
    Mismatch {
        /// What the file has.
        found: String,
        /// What the manifest says of it.
        wanted: String,
    },
    /// The zip is damaged.
    #[error("is not a readable zip: {}", excerpt(.0))]
    NotZip(zip::result::ZipError),
    /// The file is no archive of a bundle.
    #[error("is not a bundle: {}", excerpt(.0))]
    NotABundle(String),
    /// The zip's contents are not what Lambda can start.
    #[error("cannot run on Lambda: {}", excerpt(.0))]
    NotRunnable(String),
}

fn load_zip(dir: &Path, artifact: &Artifact) -> Result<Vec<u8>, BundleError> {
    let verify = |zip: &[u8]| verify_digest(zip, artifact).and_then(|()| verify_contents(zip, artifact));
    load_file(dir, &artifact.zip, verify)
}

fn load_document(dir: &Path, document: &Document) -> Result<Vec<u8>, BundleError> {
    load_file(dir, &document.file, |contents| document.verify(contents))
}

/// A file of the bundle's folder, and of no other, if it is as the manifest says.
fn load_file(
    dir: &Path,
    name: &str,
    verify: impl FnOnce(&[u8]) -> Result<(), Problem>,
) -> Result<Vec<u8>, BundleError> {
    let path = dir.join(name);
    if Path::new(name).file_name() != Some(name.as_ref()) {
        return Err(BundleError { path, problem: Problem::NotBeside });
    }
    let contents = read(&path)?;
    match verify(&contents) {
        Ok(()) => Ok(contents),
        Err(problem) => Err(BundleError { path, problem }),
    }
}

fn verify_digest(zip: &[u8], artifact: &Artifact) -> Result<(), Problem> {
    let digest = Sha256::digest(zip);
    let sha256 = hex::encode(digest);
    let same = [
        (format!("{} bytes", zip.len()), format!("{} bytes", artifact.zip_bytes)),
        (format!("SHA-256 {sha256}"), format!("SHA-256 {}", artifact.sha256)),
        (format!("CodeSha256 {}", STANDARD.encode(digest)), format!("CodeSha256 {}", artifact.code_sha256)),
    ];
    match same.into_iter().find(|(found, wanted)| found != wanted) {
        None => Ok(()),
        Some((found, wanted)) => Err(Problem::Mismatch { found, wanted }),
    }
}

/// The program in a zip.
fn program(zip: &[u8]) -> Result<Vec<u8>, Problem> {
    /// Lambda's limit for what a zip unpacks to (source: AWS Lambda Developer Guide, "Lambda quotas").
    const MOST: u64 = 250 * 1024 * 1024;
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(Problem::NotZip)?;
    let entry = archive.by_name(ENTRY).map_err(Problem::NotZip)?;
    let mut binary = Vec::new();
    entry.take(MOST).read_to_end(&mut binary).map_err(Problem::Unreadable)?;
    Ok(binary)
}

/// Checks what Lambda itself finds out only when it starts the function.
fn verify_contents(zip: &[u8], artifact: &Artifact) -> Result<(), Problem> {
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(Problem::NotZip)?;
    let names = archive
        .file_names()
        .map(|name| name.map(Cow::into_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Problem::NotZip)?;
    if names != [ENTRY] {
        return Err(Problem::NotRunnable(format!("it holds {names:?} instead of just {ENTRY:?}")));
    }
    let mut entry = archive.by_index(0).map_err(Problem::NotZip)?;
    let mode = entry.unix_mode().unwrap_or_default() & 0o7777;
    if mode != ENTRY_MODE {
        return Err(Problem::NotRunnable(format!("{ENTRY} has mode {mode:o} instead of {ENTRY_MODE:o}")));
    }
    if entry.size() != artifact.binary_bytes {
        let (found, wanted) = (entry.size(), artifact.binary_bytes);
        return Err(Problem::Mismatch {
            found: format!("a {ENTRY} of {found} bytes"),
            wanted: wanted.to_string(),
        });
    }
    let mut header = [0; ELF_HEADER];
    let whole = entry.read_exact(&mut header);
    if whole.is_err() || !is_arm64_elf(&header) {
        return Err(Problem::NotRunnable(format!("{ENTRY} is not a program for arm64 Linux")));
    }
    Ok(())
}

/// As much of an ELF file as says what machine it is for.
const ELF_HEADER: usize = 20;

fn is_arm64_elf(header: &[u8; ELF_HEADER]) -> bool {
    const MAGIC_64_BIT_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const EM_AARCH64: [u8; 2] = 183_u16.to_le_bytes();
    header.starts_with(MAGIC_64_BIT_LITTLE_ENDIAN) && header[18..] == EM_AARCH64
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    fs::read(path).map_err(|error| BundleError { path: path.to_owned(), problem: Problem::Unreadable(error) })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// The beginning of a program for arm64 Linux.
    const PROGRAM: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0 and so on";

    fn zip_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, mode, contents) in entries {
            archive.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
            archive.write_all(contents).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    /// A whole bundle.
    pub(crate) fn good() -> Bundle {
        let zip = zip_of(&[(ENTRY, ENTRY_MODE, PROGRAM)]);
        let manifest = Manifest {
            format: FORMAT,
            target: "aarch64-unknown-linux-musl".to_owned(),
            toolchain: Toolchain { route: "installed".to_owned(), rustc: "rustc 1.95.0".to_owned() },
            git: None,
            functions: Functions {
                backup: Artifact::describe("backup.zip", &zip, PROGRAM),
                cleanup: Artifact::describe("cleanup.zip", b"another", PROGRAM),
            },
            documents: None,
            sbom: None,
        };
        Bundle { manifest, backup: zip, cleanup: b"another".to_vec(), sbom: None }
    }

    /// The same, in which both zips hold a program.
    pub(super) fn whole() -> Bundle {
        let mut bundle = good();
        bundle.cleanup = bundle.backup.clone();
        bundle.manifest.functions.cleanup = Artifact::describe("cleanup.zip", &bundle.cleanup, PROGRAM);
        bundle.manifest.documents = Some(Documents::of_this_program());
        bundle.sbom = Some(b"{}".to_vec());
        bundle.manifest.sbom = Some(Document::describe(SBOM_FILE, b"{}"));
        bundle
    }

    #[test]
    fn zips_are_found_by_digest() {
        let bundle = good();
        assert_eq!(bundle.zip(&bundle.manifest.functions.backup.code_sha256), Some(bundle.backup.as_slice()));
        assert_eq!(bundle.zip(&bundle.manifest.functions.cleanup.code_sha256), Some(&b"another"[..]));
        assert_eq!(bundle.zip("something else"), None);
    }

    #[test]
    fn a_zip_that_lambda_can_start_is_taken() {
        let bundle = good();
        let artifact = &bundle.manifest.functions.backup;
        verify_digest(&bundle.backup, artifact).unwrap();
        verify_contents(&bundle.backup, artifact).unwrap();
    }

    #[test]
    fn zips_that_lambda_could_not_start_are_refused() {
        for (entries, why) in [
            (&[("main", 0o755, PROGRAM)][..], r#"["main"] instead of just "bootstrap""#),
            (&[(ENTRY, 0o755, PROGRAM), ("notes", 0o644, b"")], "notes"),
            (&[(ENTRY, 0o644, PROGRAM)], "mode 644 instead of 755"),
            (&[(ENTRY, 0o755, &[b'#'; PROGRAM.len()])], "not a program for arm64 Linux"),
            (&[(ENTRY, 0o755, b"#!/bin/sh")], "a bootstrap of 9 bytes"),
        ] {
            let zip = zip_of(entries);
            let text =
                verify_contents(&zip, &Artifact::describe("x.zip", &zip, PROGRAM)).unwrap_err().to_string();
            assert!(text.contains(why), "{why:?} is missing in: {text}");
        }
        let text = verify_contents(b"no zip", &good().manifest.functions.backup).unwrap_err().to_string();
        assert!(text.starts_with("is not a readable zip: "), "{text}");
    }

    #[test]
    fn zips_that_the_manifest_does_not_describe_are_refused() {
        let Bundle { manifest, backup: mut zip, .. } = good();
        let refusal = |zip: &[u8]| verify_digest(zip, &manifest.functions.backup).unwrap_err().to_string();
        assert!(refusal(&zip[1..]).contains(" bytes, and the manifest says "));
        zip[0] ^= 1;
        assert!(refusal(&zip).contains("it has SHA-256 "));
    }

    #[test]
    fn errors_name_the_file() {
        let nowhere = Path::new("/nowhere/bundle");
        let text = Bundle::load(nowhere).unwrap_err().to_string();
        assert!(text.starts_with("/nowhere/bundle/bundle.json: cannot be read: "), "{text}");
        let outside = Artifact::describe("../backup.zip", b"", b"");
        let text = load_zip(nowhere, &outside).unwrap_err().to_string();
        assert_eq!(
            text,
            "/nowhere/bundle/../backup.zip: the manifest names a file that is not a plain file name"
        );
    }
}

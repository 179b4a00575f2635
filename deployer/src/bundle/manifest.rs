//! The manifest: what a bundle holds and where it comes from, everything by its digest.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Problem;

/// The form of the manifest that this version writes and reads.
pub const FORMAT: u32 = 3;

/// What `bundle.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The target that the functions are compiled for, such as `aarch64-unknown-linux-musl`.
    pub target: String,
    /// What compiled them.
    pub toolchain: Toolchain,
    /// The commit they were built from; absent outside a repository.
    pub git: Option<Git>,
    /// The two functions.
    pub functions: Functions,
    /// What a deploy of them goes by besides; absent where the zips were received without.
    pub documents: Option<Documents>,
    /// What both are made of; absent where the zips were received without.
    pub sbom: Option<Document>,
}

/// A file of the bundle that is no zip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The file's name, beside the manifest.
    pub file: String,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Document {
    /// Describes `contents`, which is written under the name `file`.
    pub fn describe(file: &str, contents: &[u8]) -> Self {
        Self { file: file.to_owned(), sha256: hex::encode(Sha256::digest(contents)) }
    }

    pub(super) fn verify(&self, contents: &[u8]) -> Result<(), Problem> {
        let found = hex::encode(Sha256::digest(contents));
        if found == self.sha256 {
            return Ok(());
        }
        Err(Problem::Mismatch {
            found: format!("SHA-256 {found}"),
            wanted: format!("SHA-256 {}", self.sha256),
        })
    }
}

/// The documents of the checkout that a bundle was built from, each by its SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// The policies of each role, as they stand in `policies/`.
    pub policies: BTreeMap<String, String>,
    /// The JSON schema of environment files.
    pub environment_schema: String,
}

impl Documents {
    /// Those that this program was built with.
    pub fn of_this_program() -> Self {
        let digest = |text: &str| hex::encode(Sha256::digest(text));
        let policies = crate::policy::texts().map(|(role, text)| (role.to_owned(), digest(text)));
        let schema = crate::environment::schema().to_string();
        Self { policies: policies.collect(), environment_schema: digest(&schema) }
    }

    /// The names of those that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let roles = self.policies.keys().chain(other.policies.keys());
        let mut different: Vec<String> = roles
            .filter(|role| self.policies.get(*role) != other.policies.get(*role))
            .map(|role| format!("policies/{role}.yaml"))
            .collect();
        different.sort();
        different.dedup();
        if self.environment_schema != other.environment_schema {
            different.push("the schema of environment files".to_owned());
        }
        different
    }
}

/// The compiler that made a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// How the target's standard library was come by.
    pub route: String,
    /// The compiler's version, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub rustc: String,
}

/// The state of the repository that a bundle was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// The commit's full id.
    pub commit: String,
    /// Whether the working tree differed from that commit.
    pub dirty: bool,
    /// When it was committed; absent where git did not say.
    #[serde(default)]
    pub committed_at: Option<Timestamp>,
}

/// The functions of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Functions {
    /// The one that makes snapshots.
    pub backup: Artifact,
    /// The one that deletes expired ones.
    pub cleanup: Artifact,
}

/// One function's zip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The zip's file name, beside the manifest.
    pub zip: String,
    /// The zip's size.
    pub zip_bytes: u64,
    /// The zip's SHA-256 in hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
    /// The same digest in base64, as Lambda reports it in `CodeSha256`.
    pub code_sha256: String,
    /// The program's size.
    pub binary_bytes: u64,
    /// The program's SHA-256 in hexadecimal.
    pub binary_sha256: String,
}

impl Artifact {
    /// Describes `zip`, which holds `binary` and is written under the name `file`.
    pub fn describe(file: &str, zip: &[u8], binary: &[u8]) -> Self {
        let digest = Sha256::digest(zip);
        Self {
            zip: file.to_owned(),
            zip_bytes: zip.len() as u64,
            sha256: hex::encode(digest),
            code_sha256: STANDARD.encode(digest),
            binary_bytes: binary.len() as u64,
            binary_sha256: hex::encode(Sha256::digest(binary)),
        }
    }
}

impl Manifest {
    /// The manifest as text; equal manifests give equal bytes.
    pub fn render(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        // The format comes first: a manifest of another format may well hold fields that are unknown here.
        #[derive(Deserialize)]
        struct Envelope {
            format: u32,
        }
        let Envelope { format } = serde_json::from_slice(text).map_err(Problem::Manifest)?;
        if format != FORMAT {
            return Err(Problem::Format { found: format });
        }
        serde_json::from_slice(text).map_err(Problem::Manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;

    /// Rights and code that were never tried together must not be taken for a release that was proven.
    #[test]
    fn documents_that_differ_are_named() {
        let ours = Documents::of_this_program();
        assert_eq!(ours.differences(&ours), [""; 0]);
        let mut other = ours.clone();
        other.policies.insert("backup".to_owned(), "0".repeat(64));
        other.policies.remove("cleanup");
        other.environment_schema.clear();
        assert_eq!(
            ours.differences(&other),
            ["policies/backup.yaml", "policies/cleanup.yaml", "the schema of environment files"]
        );
    }

    #[test]
    fn manifests_that_this_version_did_not_write_are_refused() {
        let written = good().manifest.render().unwrap();
        assert_eq!(Manifest::parse(written.as_bytes()).unwrap(), good().manifest);
        for (from, to, why) in [
            (r#""format": 3"#, r#""format": 4, "new": 0"#, "is of format 4, and this version reads format 3"),
            (r#""git""#, r#""svn": 1, "git""#, "unknown field `svn`"),
            (r#""target""#, r#""goal""#, "unknown field `goal`"),
        ] {
            let text = Manifest::parse(written.replace(from, to).as_bytes()).unwrap_err().to_string();
            assert!(text.contains(why), "{why:?} is missing in: {text}");
        }
    }
}

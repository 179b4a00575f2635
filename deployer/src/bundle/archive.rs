//! A bundle as one file, which pipelines carry from job to job: a zip of all its files.
//!
//! The manifest names everything else by its digest, so the manifest's own digest names the whole bundle. Equal bundles
//! give equal files.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::{
    Artifact, Bundle, BundleError, MANIFEST_FILE, Manifest, Problem, read, verify_contents, verify_digest,
};

/// The longest manifest that is read, and the longest zip.
const MOST: u64 = 256 * 1024 * 1024;

impl Bundle {
    /// Reads the bundle in a folder or in a file, and verifies all of it.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        if path.is_dir() {
            return Self::load(path);
        }
        Self::unpack(&read(path)?).map_err(|problem| BundleError { path: path.to_owned(), problem })
    }

    /// The bundle as one file.
    pub fn pack(&self) -> Result<Vec<u8>, Problem> {
        let manifest = self.manifest.render().map_err(Problem::Manifest)?;
        let functions = &self.manifest.functions;
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        // The zips in it are compressed already.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .unix_permissions(0o644)
            .last_modified_time(DateTime::DEFAULT);
        let mut add = |name: &str, contents: &[u8]| -> Result<(), Problem> {
            archive.start_file(name, options).map_err(Problem::NotZip)?;
            archive.write_all(contents).map_err(Problem::Unreadable)
        };
        add(MANIFEST_FILE, manifest.as_bytes())?;
        add(&functions.backup.zip, &self.backup)?;
        add(&functions.cleanup.zip, &self.cleanup)?;
        if let (Some(document), Some(sbom)) = (&self.manifest.sbom, &self.sbom) {
            add(&document.file, sbom)?;
        }
        Ok(archive.finish().map_err(Problem::NotZip)?.into_inner())
    }

    /// Reads what [`Bundle::pack`] wrote, and verifies all of it.
    pub fn unpack(archive: &[u8]) -> Result<Self, Problem> {
        let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(Problem::NotZip)?;
        let manifest = Manifest::parse(&entry(&mut archive, MANIFEST_FILE)?)?;
        let (of_backup, of_cleanup) = (&manifest.functions.backup, &manifest.functions.cleanup);
        let of_sbom = manifest.sbom.as_ref();
        let expected: Vec<&str> = [MANIFEST_FILE, of_backup.zip.as_str(), of_cleanup.zip.as_str()]
            .into_iter()
            .chain(of_sbom.map(|document| document.file.as_str()))
            .collect();
        if archive.len() != expected.len() {
            return Err(Problem::NotABundle(format!(
                "it holds {} files instead of just {}",
                archive.len(),
                expected.join(", ")
            )));
        }
        let (backup, cleanup) = (zip(&mut archive, of_backup)?, zip(&mut archive, of_cleanup)?);
        let sbom = match of_sbom {
            Some(document) => {
                let contents = entry(&mut archive, &document.file)?;
                document.verify(&contents)?;
                Some(contents)
            }
            None => None,
        };
        Ok(Self { manifest, backup, cleanup, sbom })
    }

    /// The digest of the manifest and so of everything in the bundle, in hexadecimal.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        Ok(hex::encode(Sha256::digest(self.manifest.render()?)))
    }
}

fn zip(archive: &mut ZipArchive<Cursor<&[u8]>>, artifact: &Artifact) -> Result<Vec<u8>, Problem> {
    let zip = entry(archive, &artifact.zip)?;
    verify_digest(&zip, artifact)?;
    verify_contents(&zip, artifact)?;
    Ok(zip)
}

fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Vec<u8>, Problem> {
    let entry = archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => Problem::NotABundle(format!("it holds no {name}")),
        error => Problem::NotZip(error),
    })?;
    let mut contents = Vec::new();
    entry.take(MOST).read_to_end(&mut contents).map_err(Problem::Unreadable)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::super::tests::whole;
    use super::*;

    /// What a pipeline carries from staging to prod must arrive as it was sent, or not at all.
    #[test]
    fn a_bundle_survives_its_journey_and_equal_bundles_are_equal_files() {
        let bundle = whole();
        let file = bundle.pack().unwrap();
        assert_eq!(file, whole().pack().unwrap());
        let arrived = Bundle::unpack(&file).unwrap();
        assert_eq!(arrived.manifest, bundle.manifest);
        assert_eq!((arrived.backup, arrived.cleanup), (bundle.backup, bundle.cleanup));
        assert_eq!(arrived.sbom, bundle.sbom, "what auditors ask for comes along");
    }

    #[test]
    fn whatever_was_damaged_or_exchanged_is_refused() {
        let bundle = whole();
        let refusal = |file: &[u8]| Bundle::unpack(file).unwrap_err().to_string();
        let file = bundle.pack().unwrap();
        // The end of a zip inside of it could be taken for its own.
        assert!(Bundle::unpack(&file[..file.len() - 30]).is_err());
        assert!(refusal(b"no zip").starts_with("is not a readable zip: "));
        assert!(refusal(&bundle.backup).contains("it holds no bundle.json"));
        // Any byte of a zip in it.
        let place = file.windows(9).position(|window| window == b"and so on").unwrap_or(file.len() / 2);
        let mut flipped = file.clone();
        flipped[place] ^= 1;
        assert!(Bundle::unpack(&flipped).is_err());
        let mut exchanged = bundle.clone();
        exchanged.backup.push(0);
        assert!(refusal(&exchanged.pack().unwrap()).contains("does not match the manifest"));
        let mut rewritten = bundle.clone();
        rewritten.sbom = Some(b"{ }".to_vec());
        assert!(refusal(&rewritten.pack().unwrap()).contains("does not match the manifest"));
        let mut renamed = bundle;
        renamed.manifest.functions.cleanup.zip = "backup.zip".to_owned();
        assert!(renamed.pack().is_err(), "two files of one name");
    }
}

//! A function's program as the zip that Lambda takes: the same program always gives the same bytes.

use std::io::{Cursor, Write};

use snapwarden_deployer::bundle::{ENTRY, ENTRY_MODE};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Zips `program`.
pub(crate) fn zip(program: &[u8]) -> Result<Vec<u8>, ZipError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(ENTRY_MODE)
        // The time of the build would make every build a new one to Lambda.
        .last_modified_time(DateTime::DEFAULT);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(ENTRY, options)?;
    archive.write_all(program)?;
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let program = b"program".repeat(1000);
        let first = zip(&program).unwrap();
        assert_eq!(first, zip(&program).unwrap());
        assert!(first.len() < program.len());
    }
}

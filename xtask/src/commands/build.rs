//! `cargo xtask build`: both functions, compiled for Lambda and zipped.

use clap::Args;

use crate::context::Context;
use crate::failure::CommandResult;
use crate::render::table::table;
use crate::{bundle, output};

/// Flags of `build`.
#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// Build a second time, from nothing and in another folder, and fail where the zips differ; takes minutes
    #[arg(long)]
    verify: bool,
}

/// Builds the bundle and shows what it holds; with `--json`, its manifest.
pub(crate) fn cmd_build(context: &Context, args: &BuildArgs) -> CommandResult {
    let folder = context.workspace().bundle();
    let bundle = bundle::ensure_bundle(context.workspace(), context.progress())?;
    if args.verify {
        bundle::verify(context.workspace(), context.progress(), &bundle)?;
        context.progress().note("the same bytes in another folder: the build is reproducible");
    }
    let manifest = bundle.manifest;
    let functions = [("backup", &manifest.functions.backup), ("cleanup", &manifest.functions.cleanup)];
    let rows = functions.map(|(name, artifact)| {
        [
            name.to_owned(),
            folder.join(&artifact.zip).display().to_string(),
            size(artifact.zip_bytes),
            artifact.sha256.clone(),
        ]
    });
    output::result(context, &manifest, table(["FUNCTION", "ZIP", "SIZE", "SHA-256"], rows))
}

/// A size as people compare them: `2.04 MB`.
pub(super) fn size(bytes: u64) -> String {
    let hundredths = bytes.div_ceil(10_000);
    format!("{}.{:02} MB", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(size(2_034_567), "2.04 MB");
        assert_eq!(size(1), "0.01 MB");
    }
}

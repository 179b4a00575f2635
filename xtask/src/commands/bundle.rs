//! `cargo xtask bundle`: a bundle as one file, which pipelines carry from job to job.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use snapwarden_deployer::bundle::{Bundle, Documents, Git, Manifest};

use super::build::size;
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::table::table;
use crate::{bundle, output};

/// Flags of `bundle`.
#[derive(Args, Debug)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Build the bundle and write it to one file, which `--bundle` takes
    Pack {
        /// The file
        file: PathBuf,
        /// Pack a bundle that was built before, a folder or a file, instead of building this checkout
        #[arg(long, value_name = "PATH")]
        bundle: Option<PathBuf>,
    },
    /// Show what a bundle holds, and where it comes from
    Show {
        /// The file or folder
        file: PathBuf,
    },
    /// Fail where a bundle is damaged, or was built with other policies than this checkout has
    Verify {
        /// The file or folder
        file: PathBuf,
        /// What the bundle's digest must be, as `pack` and `show` print it
        #[arg(long, value_name = "SHA-256")]
        digest: Option<String>,
    },
}

/// Packs, shows or verifies a bundle. Whatever reads one verifies it.
pub(crate) fn cmd_bundle(context: &Context, args: &BundleArgs) -> CommandResult {
    match &args.command {
        BundleCommand::Pack { file, bundle: given } => {
            let bundle = match given {
                Some(path) => bundle::load(path)?,
                None => bundle::ensure_bundle(context.workspace(), context.progress())?,
            };
            bundle::pack(&bundle, file)?;
            show(context, file, &bundle)
        }
        BundleCommand::Show { file } => show(context, file, &bundle::load(file)?),
        BundleCommand::Verify { file, digest } => {
            let bundle = bundle::load(file)?;
            verify(file, &bundle, digest.as_deref())?;
            show(context, file, &bundle)
        }
    }
}

fn verify(file: &Path, bundle: &Bundle, expected: Option<&str>) -> CommandResult {
    let refused = |why: String| Err(Failure::new(Exit::Refused, format!("{}: {why}", file.display())));
    let digest = digest(bundle)?;
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return refused(format!("its digest is {digest}, and {expected} is expected"));
    }
    let ours = Documents::of_this_program();
    match bundle.manifest.documents.as_ref().map(|theirs| theirs.differences(&ours)) {
        Some(different) if different.is_empty() => Ok(()),
        Some(different) => refused(format!(
            "it was built with other documents than this checkout has: {}",
            different.join(", ")
        )),
        None => refused("it does not say which policies it was built with".to_owned()),
    }
}

fn digest(bundle: &Bundle) -> Result<String, Failure> {
    bundle.digest().map_err(|error| Failure::caused_by(Exit::Failed, &error))
}

fn show(context: &Context, file: &Path, bundle: &Bundle) -> CommandResult {
    let manifest = &bundle.manifest;
    let digest = digest(bundle)?;
    let text = format!("{}\ndigest   {digest}\n{}", file.display(), text(manifest));
    output::result(context, &json!({ "digest": digest, "manifest": manifest }), text)
}

fn text(manifest: &Manifest) -> String {
    let commit = match &manifest.git {
        Some(Git { commit, dirty: false, .. }) => commit.clone(),
        Some(Git { commit, .. }) => format!("{commit} with changes"),
        None => "unknown".to_owned(),
    };
    let functions = [("backup", &manifest.functions.backup), ("cleanup", &manifest.functions.cleanup)];
    let rows = functions
        .map(|(name, artifact)| [name.to_owned(), size(artifact.zip_bytes), artifact.sha256.clone()]);
    format!(
        "commit   {commit}\ncompiler {}\n\n{}",
        manifest.toolchain.rustc,
        table(["FUNCTION", "SIZE", "SHA-256"], rows)
    )
}

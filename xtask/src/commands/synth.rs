//! `cargo xtask synth`: the environment as a CloudFormation template.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use snapwarden_deployer::cloudformation;

use crate::context::Context;
use crate::failure::CommandResult;
use crate::output;
use crate::session::{CodeSource, bundle_of, code_of, refuse_errors};

/// Flags of `synth`.
#[derive(Args, Debug)]
pub(crate) struct SynthArgs {
    /// How the template is written; `--json` means JSON as well
    #[arg(long, value_enum, default_value = "yaml")]
    format: Format,
    /// Name the code of a bundle that was built before instead of building this checkout
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Writes the template on stdout. Asks AWS nothing.
pub(crate) fn cmd_synth(context: &Context, args: &SynthArgs) -> CommandResult {
    let (environment, findings) = context.environment_with_findings()?;
    refuse_errors(&findings)?;
    for finding in &findings {
        context.progress().warn(&finding.to_string());
    }
    let source = args.bundle.as_deref().map_or(CodeSource::Build, CodeSource::At);
    let code = code_of(&bundle_of(context, source)?);
    let template = cloudformation::template(&environment, &code, None)?;
    let format = match args.format {
        Format::Yaml => cloudformation::Format::Yaml,
        Format::Json => cloudformation::Format::Json,
    };
    output::result(context, &template, template.text(format))
}

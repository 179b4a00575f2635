//! Finding a compiler that has a standard library for the functions' target, by the first of three routes that works.

use std::process::Command;

use super::compiler::Compiler;
use super::library_source::{self, SourceError};
use super::rustup::{self, RustupError};
use crate::failure::{Exit, Failure, with_causes};
use crate::progress::Progress;
use crate::tools::command::{self, CommandError};
use crate::workspace::Workspace;

/// What the functions are compiled for: Lambda's arm64 machines, with the C library linked in.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-musl";

/// A compiler that can make programs for [`TARGET`].
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// Where its standard library for the target comes from.
    pub(crate) route: Route,
}

/// Where the target's standard library comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The toolchain in use had it already.
    Installed,
    /// rustup added it to the toolchain in use.
    Rustup,
    /// It is compiled along with the functions, which only a nightly compiler can do.
    BuildStd,
}

impl Route {
    /// The route's name in the bundle's manifest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Rustup => "rustup",
            Self::BuildStd => "build-std",
        }
    }
}

/// Chooses the compiler.
pub(crate) fn choose(workspace: &Workspace, progress: &Progress) -> Result<Toolchain, ToolchainError> {
    // By name rather than by path, so that rustup's choice for this folder holds.
    let active = Compiler::ask("rustc".as_ref(), workspace.root())?;
    if active.has_target(TARGET) {
        return Ok(Toolchain { compiler: active, route: Route::Installed });
    }
    let by_rustup = match rustup::add_target(workspace, &active, TARGET, progress) {
        Ok(()) => return Ok(Toolchain { compiler: active, route: Route::Rustup }),
        Err(why) => Box::new(why),
    };
    match build_std(workspace, &active, progress) {
        Ok(compiler) => Ok(Toolchain { compiler, route: Route::BuildStd }),
        Err(by_nightly) => Err(ToolchainError::NoRoute {
            active: active.version().to_owned(),
            by_rustup,
            by_nightly: Box::new(by_nightly),
        }),
    }
}

/// Why there is no compiler for the functions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolchainError {
    /// There is no compiler at all.
    #[error("cannot ask the Rust compiler for its version")]
    NoCompiler(#[from] CommandError),
    /// None of the three routes works.
    #[error(
        "no compiler here makes programs for {TARGET}:\n  \
         1. {active} has no standard library for it\n  \
         2. rustup cannot add one: {}\n  \
         3. a nightly compiler could make one, but {}",
        with_causes(.by_rustup),
        with_causes(.by_nightly)
    )]
    NoRoute {
        /// The version of the compiler in use.
        active: String,
        /// Why the second route failed.
        by_rustup: Box<RustupError>,
        /// Why the third route failed.
        by_nightly: Box<BuildStdError>,
    },
}

/// Why the standard library cannot be compiled along with the functions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildStdError {
    /// There is no nightly toolchain.
    #[error("there is none")]
    NoNightly(#[source] CommandError),
    /// The standard library's source is missing.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl From<ToolchainError> for Failure {
    fn from(error: ToolchainError) -> Self {
        let hint = match &error {
            ToolchainError::NoCompiler(_) => "install Rust as https://rustup.rs says".to_owned(),
            ToolchainError::NoRoute { .. } => format!(
                "where static.rust-lang.org is reachable, run `rustup target add {TARGET}`; elsewhere install a nightly \
                 toolchain together with its rust-src component"
            ),
        };
        Self::caused_by(Exit::Failed, &error).hint(hint)
    }
}

fn build_std(
    workspace: &Workspace,
    active: &Compiler,
    progress: &Progress,
) -> Result<Compiler, BuildStdError> {
    let nightly = if active.is_nightly() {
        active.clone()
    } else {
        find_nightly(workspace).map_err(BuildStdError::NoNightly)?
    };
    Ok(library_source::provide(workspace, nightly, progress)?)
}

fn find_nightly(workspace: &Workspace) -> Result<Compiler, CommandError> {
    let mut which = Command::new("rustup");
    // Looking must not install anything, nor wait for a network.
    which.args(["which", "rustc", "--toolchain", "nightly"]);
    which.env("RUSTUP_AUTO_INSTALL", "0").env("RUST_BACKTRACE", "0");
    let rustc = command::capture(&mut which)?;
    Compiler::ask(rustc.as_ref(), workspace.root())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_lists_what_each_route_found() {
        let missing = || CommandError::NotFound { program: "rustup".to_owned() };
        let failure = Failure::from(ToolchainError::NoRoute {
            active: "rustc 1.95.0".to_owned(),
            by_rustup: Box::new(RustupError::OtherToolchain { sysroot: Path::new("/usr").to_owned() }),
            by_nightly: Box::new(BuildStdError::NoNightly(missing())),
        });
        let text = failure.to_string();
        for part in
            ["1. rustc 1.95.0", "2. rustup cannot", "/usr", "3. a nightly", "`rustup` is not installed"]
        {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        assert!(failure.hint_text().is_some_and(|hint| hint.contains("rustup target add aarch64")));
    }
}

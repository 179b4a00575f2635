//! The command that compiles the functions: Cargo, with zig as linker and C compiler for the target.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchain::{Route, TARGET, Toolchain};
use crate::tools::command::{self, CommandError};
use crate::tools::venv::Venv;
use crate::workspace::Workspace;

/// The backup function's package, and the program in it.
pub(crate) const BACKUP: &str = "snapwarden-backup";

/// The cleanup function's package, and the program in it.
pub(crate) const CLEANUP: &str = "snapwarden-cleanup";

/// A command that compiles both functions and says on stdout, in JSON, where they are.
pub(crate) fn command(
    workspace: &Workspace,
    toolchain: &Toolchain,
    venv: &Venv,
) -> Result<Command, CommandError> {
    let Toolchain { compiler, route } = toolchain;
    // Not `cargo zigbuild`: that would look for the subcommand on the user's PATH.
    let mut cargo = Command::new(venv.program("cargo-zigbuild"));
    forget_surroundings(&mut cargo);
    cargo
        .current_dir(workspace.root())
        .args(["zigbuild", "--locked", "--package", BACKUP, "--package", CLEANUP, "--bins"])
        .args(["--profile", "lambda", "--target", TARGET])
        // A folder of its own, so that the host's builds neither wait for this one nor throw its artifacts away.
        .arg("--target-dir")
        .arg(workspace.target().join("lambda"))
        .args(["--message-format", "json-render-diagnostics"])
        .env("CARGO", compiler.program("cargo"))
        .env("RUSTC", compiler.program("rustc"))
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env("CARGO_ZIGBUILD_ZIG_PATH", zig(venv)?)
        .env("CARGO_ZIGBUILD_CACHE_DIR", workspace.tools().join("cargo-zigbuild"))
        .env("ZIG_GLOBAL_CACHE_DIR", workspace.tools().join("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", workspace.tools().join("zig"));
    // The functions use little of a very large crate: leaving the rest uncompiled makes this build five times faster.
    // Stable Cargo warns about the key at every command, so it is not in Cargo.toml.
    cargo.args(["--config", "profile.lambda.package.aws-sdk-ec2.hint-mostly-unused=true"]);
    cargo.arg("-Zprofile-hint-mostly-unused");
    if !compiler.is_nightly() {
        // The hint changes what is compiled when, not what the compiler makes of it, and 20 minutes are too long to
        // wait until it is stable: this lets a stable toolchain take it.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    let mut flags = remapped_paths(workspace, toolchain);
    if *route == Route::BuildStd {
        cargo.arg("-Zbuild-std=std,panic_abort").env_remove("RUSTUP_TOOLCHAIN");
        // The C library's startup files come with a prebuilt standard library, which there is none of: zig has them.
        flags.push("-Clink-self-contained=no".to_owned());
        // For the same reason a folder is missing that zig is told to look into, and says so at each program.
        flags.push("-Alinker_messages".to_owned());
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(cargo)
}

/// Takes out of the environment what the Cargo that runs xtask has put there, and what users set for other builds.
fn forget_surroundings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| !passes(name)) {
            command.env_remove(name);
        }
    }
}

/// Whether a variable means the same to this build as to the one around it.
fn passes(name: &str) -> bool {
    const MACHINE_WIDE: [&str; 9] = [
        "CARGO_BUILD_JOBS",
        "CARGO_CACHE",
        "CARGO_HOME",
        "CARGO_HTTP",
        "CARGO_NET",
        "CARGO_REGISTR",
        "CARGO_SOURCE",
        "RUSTC_WRAPPER",
        "RUSTUP",
    ];
    let for_one_build = ["CARGO", "RUST", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"];
    MACHINE_WIDE.iter().any(|prefix| name.starts_with(prefix))
        || !for_one_build.iter().any(|prefix| name.starts_with(prefix))
}

/// Flags that keep this machine's folders out of the programs, so that they do not depend on where they are built.
fn remapped_paths(workspace: &Workspace, toolchain: &Toolchain) -> Vec<String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut folders = Vec::from_iter(cargo_home.map(|folder| (folder, "/cargo")));
    folders.push((workspace.root().to_owned(), "/snapwarden"));
    folders.push((workspace.target().to_owned(), "/snapwarden/target"));
    let source = toolchain.compiler.library_source();
    // The same folder without links, and both as Cargo names what is inside the workspace: relative to it.
    for path in [source.canonicalize().ok(), Some(source)].into_iter().flatten() {
        folders.extend(path.strip_prefix(workspace.root()).map(|inside| (inside.to_owned(), "/rust")));
        folders.push((path, "/rust"));
    }
    // Where folders are inside each other the last one that fits counts.
    folders.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())).collect()
}

/// The zig program in the environment; its package puts it among the modules rather than with the programs.
fn zig(venv: &Venv) -> Result<PathBuf, CommandError> {
    let print_folder = "import os, ziglang; print(os.path.dirname(ziglang.__file__))";
    let folder = command::capture(Command::new(venv.program("python")).args(["-c", print_folder]))?;
    Ok(Path::new(&folder).join("zig"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_for_the_whole_machine_passes() {
        for name in ["PATH", "CARGO_HOME", "CARGO_REGISTRIES_MINE_INDEX", "CARGO_HTTP_PROXY", "RUSTUP_HOME"] {
            assert!(passes(name), "{name}");
        }
        for name in
            ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC", "CARGO_PKG_NAME"]
        {
            assert!(!passes(name), "{name}");
        }
    }
}

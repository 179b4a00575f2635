//! Which commit a bundle is built from.

use std::path::Path;
use std::process::Command;

use snapwarden_deployer::bundle::Git;

use crate::tools::command::{self, CommandError};

/// The state of the repository in `root`; nothing where there is no repository, no commit yet, or no git.
pub(crate) fn state(root: &Path) -> Option<Git> {
    let commit = ask(root, &["rev-parse", "--verify", "HEAD"]).ok()?;
    // A state that cannot be told is not a clean one.
    let dirty = ask(root, &["status", "--porcelain"]).map_or(true, |changes| !changes.is_empty());
    let committed_at = ask(root, &["show", "--no-patch", "--format=%cI", "HEAD"]).ok();
    // In UTC, wherever it was committed: equal manifests are equal bytes.
    let committed_at = committed_at.and_then(|at| at.parse().ok());
    Some(Git { commit, dirty, committed_at })
}

fn ask(root: &Path, arguments: &[&str]) -> Result<String, CommandError> {
    // `git status` may refresh the index; without the lock it does not get in the way of another git.
    command::capture(Command::new("git").arg("--no-optional-locks").args(arguments).current_dir(root))
}

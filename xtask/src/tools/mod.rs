//! Programs that xtask installs for itself under `target/tools`, so that a fresh machine needs little beyond Rust.
//!
//! Nothing here writes outside `target/`, and nothing needs root.

pub(crate) mod apt;
pub(crate) mod chromium;
pub(crate) mod command;
pub(crate) mod install;
pub(crate) mod lock;
pub(crate) mod venv;

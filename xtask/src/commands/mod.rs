//! The commands, one file each: `x.rs` holds `XArgs` and `cmd_x`.

pub(crate) mod adopt_snapshots;
pub(crate) mod build;
pub(crate) mod bundle;
pub(crate) mod cleanup_diff;
pub(crate) mod dead_letters;
pub(crate) mod deploy;
pub(crate) mod destroy;
mod drain;
pub(crate) mod fleet;
pub(crate) mod health;
pub(crate) mod invoke;
pub(crate) mod local;
pub(crate) mod logs;
pub(crate) mod night;
pub(crate) mod plan;
pub(crate) mod policies;
pub(crate) mod promote;
mod purge;
mod release;
pub(crate) mod releases;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod rollback;
mod stack;
pub(crate) mod status;
pub(crate) mod synth;
pub(crate) mod test;

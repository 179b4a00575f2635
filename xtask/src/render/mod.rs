//! Results as text for people.

pub(crate) mod adoption;
pub(crate) mod apply;
pub(crate) mod cleanup_diff;
pub(crate) mod failure;
pub(crate) mod log;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod style;
pub(crate) mod table;

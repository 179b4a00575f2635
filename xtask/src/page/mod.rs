//! The page that `cargo xtask report` writes: one self-contained HTML file, pure from what was found.
//!
//! It asks for nothing from elsewhere, so that it can be mailed, archived and opened years later; its own policy forbids
//! scripts and requests. Signs and words carry the meaning, colours only repeat it.

mod html;
mod model;

pub(crate) use html::html;
pub(crate) use model::{Facts, Page};

//! The second engine: the same desired state as a CloudFormation template, deployed by change sets.
//!
//! Nothing is decided here: kinds declare what an environment wants, for both engines, and each says how a template
//! asks for it ([`Kind::render`](crate::kinds::Kind::render)).

mod anywhere;
pub mod artifacts;
pub mod change_set;
pub mod drift;
pub mod fleet;
pub mod follow;
pub mod import;
pub mod saved;
pub mod stack;
pub mod stages;
mod template;
mod yaml;

pub use template::{
    ARTIFACT_BUCKET, Format, Names, Parameter, Resource, Template, artifact_key, fleet_template,
    key_parameter, logical_id, tags, template,
};

#[cfg(test)]
mod tests;

//! The same desired state as a CloudFormation template, for whoever deploys only through CloudFormation.
//!
//! Nothing is decided here: kinds declare what an environment wants, for both engines, and each says how a template
//! asks for it ([`Kind::render`](crate::kinds::Kind::render)).

mod anywhere;
mod template;
mod yaml;

pub use template::{
    ARTIFACT_BUCKET, Format, Parameter, Resource, Template, artifact_key, key_parameter, logical_id, tags,
    template,
};

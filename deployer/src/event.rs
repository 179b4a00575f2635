//! What the deployer tells whoever watches it. The library itself never prints.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::Verb;
use crate::release::canary::Canary;
use crate::world::ResourceId;

/// Something that happened while a plan was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step has begun.
    Started {
        /// Its resource.
        resource: ResourceId,
        /// What is done to it.
        verb: Verb,
    },
    /// A step waits for AWS; sent again while it does.
    Waiting {
        /// Its resource.
        resource: ResourceId,
        /// What it waits for, such as `IAM to let Lambda assume the role`.
        reason: &'static str,
        /// How long it has waited.
        waited: Duration,
    },
    /// The first part of a step has succeeded, which comes before a release goes live; the rest begins later.
    Prepared {
        /// Its resource.
        resource: ResourceId,
        /// What is done to it.
        verb: Verb,
        /// How the version did that it makes live, where it makes one.
        canary: Option<Canary>,
    },
    /// A step has succeeded.
    Done {
        /// Its resource.
        resource: ResourceId,
        /// What was done to it.
        verb: Verb,
        /// How long it took.
        took: Duration,
    },
    /// A step has failed.
    Failed {
        /// Its resource.
        resource: ResourceId,
        /// What was tried.
        verb: Verb,
        /// Why, for people.
        error: String,
    },
}

/// Where events go.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

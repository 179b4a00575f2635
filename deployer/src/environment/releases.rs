//! How releases are kept, and when one may go on to the next environment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bounded;

/// How releases are kept, and when one may go on to the next environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Releases {
    /// How many releases can be returned to, the live one included: what only older ones serve is deleted.
    pub keep: Bounded<1, 50>,
    /// How long a release must have been live in another environment before it may be promoted to this one, in minutes.
    pub soak_minutes: Bounded<0, 43_200>,
}

impl Default for Releases {
    fn default() -> Self {
        Self { keep: Bounded::of::<10>(), soak_minutes: Bounded::of::<0>() }
    }
}

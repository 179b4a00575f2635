//! What snapshots cost, for estimates only: nothing is decided by it.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// What snapshots cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pricing {
    /// The price of a GiB that is stored for a month in EBS's standard tier (source: Amazon EBS pricing, per Region).
    #[serde(deserialize_with = "price")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub gib_month: f64,
    /// The currency, for people.
    pub currency: String,
}

impl Pricing {
    /// What so many GiB cost a month, such as `12.60 USD`.
    #[allow(
        clippy::cast_precision_loss,
        reason = "GiB are whole numbers well below 2^53, and it is an estimate"
    )]
    pub fn a_month(&self, gib: i64) -> String {
        format!("{:.2} {}", gib as f64 * self.gib_month, self.currency)
    }
}

impl Default for Pricing {
    /// The price of us-east-1; most Regions are within a fifth of it.
    fn default() -> Self {
        Self { gib_month: 0.05, currency: "USD".to_owned() }
    }
}

fn price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let price = f64::deserialize(deserializer)?;
    if (0.0..=1000.0).contains(&price) {
        Ok(price)
    } else {
        Err(D::Error::custom(format!("{price} is no price of a GiB a month: use 0 to 1000")))
    }
}

//! Where else the snapshots are kept: other Regions of the same account, for the day on which the own one is lost.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::retention::Retention;
use snapwarden_domain::settings;

use super::{KmsKey, Region};

/// A Region that holds copies of the environment's snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyTarget {
    /// Another Region than the environment's.
    pub region: Region,
    /// What encrypts the copies: the ARN of a KMS key in that Region, or an alias there, such as `alias/backup`.
    pub kms_key: KmsKey,
    /// How long the copies are kept. It counts from the day of the backup, as at home.
    pub retention: Retention,
    /// Whether sets are copied that are older than the oldest copy there: all that are not due. Else the newest complete
    /// set of each instance is the first to be copied.
    #[serde(default)]
    pub history: bool,
    /// Whether no more copies are begun; those that are there still go when they are due. To give a Region up, pause
    /// it, and take it out once it is empty.
    #[serde(default)]
    pub paused: bool,
}

/// The most Regions: the rights to restore in each take about a sixth of what IAM lets a managed policy be long.
pub const MAX_TARGETS: usize = 2;

impl CopyTarget {
    /// The same for the cleanup function.
    pub fn settings(&self) -> settings::CopyTarget {
        settings::CopyTarget {
            region: self.region.to_string(),
            kms_key: self.kms_key.to_string(),
            retention: self.retention,
            history: self.history,
            paused: self.paused,
        }
    }
}

/// Reads the list, and refuses what could never be carried out.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CopyTarget>, D::Error> {
    let targets = Vec::<CopyTarget>::deserialize(deserializer)?;
    if targets.len() > MAX_TARGETS {
        let message = format!("{} Regions are too many: name at most {MAX_TARGETS}", targets.len());
        return Err(D::Error::custom(message));
    }
    let mut seen = BTreeSet::new();
    for target in &targets {
        let region = &target.region;
        if !seen.insert(region) {
            return Err(D::Error::custom(format!("{region} is named twice")));
        }
        if let Some(elsewhere) = target.kms_key.region().filter(|of_key| *of_key != region.as_str()) {
            // EC2 accepts it, and the copy fails hours later.
            let message =
                format!("the key is in {elsewhere}: name a key of {region}, which encrypts the copies there");
            return Err(D::Error::custom(message));
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(regions: &[&str], key: &str) -> Result<Vec<CopyTarget>, String> {
        let each = regions.iter().map(|region| {
            format!("- {{ region: {region}, kms_key: \"{key}\", retention: {{ daily_days: 14 }} }}")
        });
        let text = each.collect::<Vec<_>>().join("\n");
        read(serde_yaml::Deserializer::from_str(&text)).map_err(|error| error.to_string())
    }

    /// What EC2 refuses only hours later, and night after night, is refused when the file is read.
    #[test]
    fn a_list_that_cannot_work_is_refused() {
        let alias = "alias/backup";
        assert_eq!(targets(&["eu-west-1", "us-east-1"], alias).unwrap().len(), 2);
        assert!(targets(&["eu-west-1", "eu-west-1"], alias).unwrap_err().contains("named twice"));
        let three = ["eu-west-1", "eu-west-2", "eu-west-3"];
        assert!(targets(&three, alias).unwrap_err().contains("too many"));
        let elsewhere = "arn:aws:kms:eu-central-1:123456789012:key/1";
        assert!(targets(&["eu-west-1"], elsewhere).unwrap_err().contains("the key is in eu-central-1"));
        assert!(targets(&["eu-central-1"], elsewhere).is_ok());
        assert!(
            read(serde_yaml::Deserializer::from_str("- { region: eu-west-1 }")).is_err(),
            "a key is a must"
        );
    }
}

//! Where else the snapshots are kept: other Regions, for the day on which the own one is lost, and other accounts, for the day
//! on which the own one is.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use snapwarden_domain::place::place;
use snapwarden_domain::retention::Retention;
use snapwarden_domain::settings;

use super::{KmsKey, Region, RoleArn};

/// A place that holds copies of the environment's snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyTarget {
    /// Another Region than the environment's; in another account, which is named once, it may be the same.
    pub region: Region,
    /// For copies in another account: the ARN of the role there that the cleanup function acts as, such as
    /// `arn:aws:iam::210987654321:role/snapwarden-copies`. `cargo xtask policies copies` writes what it has to be.
    pub role: Option<RoleArn>,
    /// What encrypts the copies: the ARN of a KMS key in that Region and account, or an alias there, such as `alias/backup`.
    pub kms_key: KmsKey,
    /// How long the copies are kept. It counts from the day of the backup, as at home.
    pub retention: Retention,
    /// Whether sets are copied that are older than the oldest copy there: all that are not due. Else the newest complete
    /// set of each instance is the first to be copied.
    #[serde(default)]
    pub history: bool,
    /// Whether no more copies are begun; those that are there still go when they are due. To give a place up, pause
    /// it, and take it out once it is empty.
    #[serde(default)]
    pub paused: bool,
}

/// Where copies are: in a Region of the environment's own account, or of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyPlace {
    /// The Region.
    pub region: Region,
    /// The role in the other account by which they are reached.
    pub role: Option<RoleArn>,
}

/// The most places: the rights to restore in each take about a sixth of what IAM lets a managed policy be long.
pub const MAX_TARGETS: usize = 2;

impl CopyTarget {
    /// Where the copies are.
    pub fn place(&self) -> CopyPlace {
        CopyPlace { region: self.region.clone(), role: self.role.clone() }
    }

    /// The same for the cleanup function.
    pub fn settings(&self) -> settings::CopyTarget {
        settings::CopyTarget {
            region: self.region.to_string(),
            role: self.role.as_ref().map(ToString::to_string),
            kms_key: self.kms_key.to_string(),
            retention: self.retention,
            history: self.history,
            paused: self.paused,
        }
    }
}

impl CopyPlace {
    /// The account, where it is another one.
    pub fn account(&self) -> Option<&str> {
        self.role.as_ref().map(RoleArn::account)
    }

    /// Whether both are the same Region and account, by whichever role it is reached.
    pub fn is_same(&self, other: &Self) -> bool {
        self.region == other.region && self.account() == other.account()
    }
}

/// As the functions' reports say it: `eu-west-1`, or `eu-west-1 of account 210987654321`.
impl fmt::Display for CopyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place(self.region.as_str(), self.account()))
    }
}

impl Serialize for CopyPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the list, and refuses what could never be carried out.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CopyTarget>, D::Error> {
    let targets = Vec::<CopyTarget>::deserialize(deserializer)?;
    if targets.len() > MAX_TARGETS {
        let message = format!("{} places are too many: name at most {MAX_TARGETS}", targets.len());
        return Err(D::Error::custom(message));
    }
    let mut seen = BTreeSet::new();
    for target in &targets {
        let (region, place) = (&target.region, target.place());
        // What is shared with an account is so for one place: another one's pass would take it back.
        let what = place.account().map_or_else(|| region.to_string(), |account| format!("account {account}"));
        if !seen.insert(what.clone()) {
            return Err(D::Error::custom(format!("{what} is named twice")));
        }
        // EC2 accepts either, and the copy fails hours later.
        if let Some(elsewhere) = target.kms_key.region().filter(|of_key| *of_key != region.as_str()) {
            let message =
                format!("the key is in {elsewhere}: name a key of {region}, which encrypts the copies there");
            return Err(D::Error::custom(message));
        }
        let of_other = place.account().zip(target.kms_key.account());
        if let Some((account, of_key)) = of_other.filter(|(account, of_key)| account != of_key) {
            let message = format!(
                "the key is in account {of_key}: name a key of account {account}, or the copies are lost with the other one"
            );
            return Err(D::Error::custom(message));
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_list(text: &str) -> Result<Vec<CopyTarget>, String> {
        read(serde_yaml::Deserializer::from_str(text)).map_err(|error| error.to_string())
    }

    fn targets(regions: &[&str], key: &str) -> Result<Vec<CopyTarget>, String> {
        let each = regions.iter().map(|region| {
            format!("- {{ region: {region}, kms_key: \"{key}\", retention: {{ daily_days: 14 }} }}")
        });
        read_list(&each.collect::<Vec<_>>().join("\n"))
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
        assert!(read_list("- { region: eu-west-1 }").is_err(), "a key is a must");
    }

    /// A copy whose key is in the account that is lost is lost with it.
    #[test]
    fn a_place_in_another_account_has_a_key_of_its_own() {
        let of = |account: &str, key: &str| {
            format!(
                "- {{ region: eu-west-1, role: \"arn:aws:iam::{account}:role/copies\", kms_key: \"{key}\", \
                 retention: {{ daily_days: 14 }} }}"
            )
        };
        let (alias, vault) = ("alias/backup", "210987654321");
        let two = format!("{}\n{}", of(vault, alias), of("123123123123", alias));
        let read = read_list(&two).unwrap();
        assert_eq!(read[0].place().to_string(), "eu-west-1 of account 210987654321");
        assert_eq!(read[0].settings().to_string(), read[0].place().to_string(), "one name for it everywhere");
        let twice = format!("{}\n{}", of(vault, alias), of(vault, alias).replace("eu-west-1", "us-east-1"));
        assert!(read_list(&twice).unwrap_err().contains("account 210987654321 is named twice"));
        let of_home = of(vault, "arn:aws:kms:eu-west-1:123456789012:key/1");
        assert!(read_list(&of_home).unwrap_err().contains("the key is in account 123456789012"));
        assert!(read_list(&of(vault, "arn:aws:kms:eu-west-1:210987654321:key/1")).is_ok());
        assert!(read_list(&of("vault", alias)).unwrap_err().contains("is not a role's ARN"));
    }
}

//! The accounts and Regions that one StackSet brings an environment to.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;

use super::{AccountId, Bounded, Region, checked_text};

/// Many accounts that get the same environment, through a CloudFormation StackSet. Either organizational units or accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The organization, such as `o-a1b2c3d4e5`, whose accounts may read the functions' zips; needed with organizational
    /// units.
    #[serde(default)]
    pub organization: Option<OrganizationId>,
    /// Organizational units whose accounts get it, by AWS Organizations (a service-managed StackSet).
    #[serde(default)]
    pub organizational_units: Vec<OrganizationalUnit>,
    /// Accounts that get it (a self-managed StackSet): each needs the role `AWSCloudFormationStackSetExecutionRole`.
    #[serde(default)]
    pub accounts: Vec<AccountId>,
    /// The AWS Regions that get it.
    pub regions: Vec<Region>,
    /// In how many of the accounts of a Region at the same time, in percent.
    #[serde(default = "default_max_concurrent")]
    pub max_concurrent_percent: Bounded<1, 100>,
    /// In how many of the accounts of a Region it may fail before CloudFormation stops, in percent.
    #[serde(default)]
    pub failure_tolerance_percent: Bounded<0, 100>,
    /// Whether accounts that join an organizational unit get it by themselves, and lose it when they leave.
    #[serde(default = "default_auto_deploy")]
    pub auto_deploy: bool,
}

fn default_max_concurrent() -> Bounded<1, 100> {
    Bounded::of::<25>()
}

fn default_auto_deploy() -> bool {
    true
}

/// Reads a fleet and refuses one that names nobody, or two kinds of targets.
pub(super) fn checked_fleet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fleet>, D::Error> {
    let Some(fleet) = Option::<Fleet>::deserialize(deserializer)? else { return Ok(None) };
    let units = !fleet.organizational_units.is_empty();
    if units != fleet.accounts.is_empty() {
        return Err(D::Error::custom("name either organizational_units or accounts"));
    }
    if units && fleet.organization.is_none() {
        return Err(D::Error::custom("organizational_units need the organization, such as o-a1b2c3d4e5"));
    }
    if fleet.regions.is_empty() {
        return Err(D::Error::custom("name at least one Region"));
    }
    Ok(Some(fleet))
}

checked_text!(
    /// An organization of AWS Organizations (source: Organizations API, data type `Organization`).
    OrganizationId,
    |text| text.strip_prefix("o-").is_some_and(|id| (10..=32).contains(&id.len()) && is_id(id)),
    "is not an organization: write its id, such as o-a1b2c3d4e5",
    schema { "type": "string", "pattern": "^o-[a-z0-9]{10,32}$" }
);

checked_text!(
    /// An organizational unit, or a root, which holds all accounts (source: Organizations API, `OrganizationalUnit`).
    OrganizationalUnit,
    |text| {
        let unit = text.strip_prefix("ou-").and_then(|ids| ids.split_once('-')).is_some_and(|(root, id)| {
            (4..=32).contains(&root.len()) && (8..=32).contains(&id.len()) && is_id(root) && is_id(id)
        });
        unit || text.strip_prefix("r-").is_some_and(|id| (4..=32).contains(&id.len()) && is_id(id))
    },
    "is not an organizational unit: write its id, such as ou-ab12-11111111",
    schema { "type": "string", "pattern": "^(ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}|r-[a-z0-9]{4,32})$" }
);

fn is_id(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        #[serde(deserialize_with = "checked_fleet")]
        fleet: Option<Fleet>,
    }

    /// Half a fleet is one where nobody notices which accounts have no backups.
    #[test]
    fn a_fleet_says_just_who_gets_it() {
        let read =
            |text: &str| serde_yaml::from_str::<File>(&format!("fleet: {{ {text} }}")).map(|file| file.fleet);
        let good = "regions: [eu-central-1], accounts: [\"111122223333\"]";
        assert!(read(good).unwrap().is_some_and(|fleet| fleet.auto_deploy));
        assert!(read("regions: [eu-central-1], organizational_units: [ou-ab12-11111111], organization: o-a1b2c3d4e5").is_ok());
        for bad in [
            "regions: [eu-central-1]",
            "regions: [], accounts: [\"111122223333\"]",
            "regions: [eu-central-1], organizational_units: [ou-ab12-11111111]",
            "regions: [eu-central-1], organizational_units: [ou-1], organization: o-a1b2c3d4e5",
            "regions: [eu-central-1], organizational_units: [r-ab12], organization: o-1",
            "regions: [eu-central-1], organizational_units: [r-ab12], organization: o-a1b2c3d4e5, accounts: [\"111122223333\"]",
            "regions: [eu-central-1], accounts: [\"1111\"]",
            "regions: [eu-central-1], accounts: [\"111122223333\"], max_concurrent_percent: 0",
            "regions: [eu-central-1], accounts: [\"111122223333\"], tolerance: 1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

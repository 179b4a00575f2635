//! Names that are checked where they enter, so that everything behind can rely on them.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

use crate::checked;

/// The name of an environment, such as `prod`: 1 to 20 lowercase letters, digits and hyphens, starting with a
/// letter and not ending with a hyphen.
///
/// The length leaves room in the shortest of AWS's limits, 64 characters for the names of roles and schedules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct EnvironmentName(String);

/// Why a text is not an [`EnvironmentName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an environment name: use 1 to 20 lowercase letters, digits and hyphens, \
     starting with a letter and not ending with a hyphen"
)]
pub struct InvalidEnvironmentName(String);

impl EnvironmentName {
    /// The longest name allowed, in characters.
    pub const MAX_LEN: usize = 20;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvironmentName {
    type Err = InvalidEnvironmentName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() <= Self::MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidEnvironmentName(text.to_owned())) }
    }
}

impl TryFrom<String> for EnvironmentName {
    type Error = InvalidEnvironmentName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<'de> Deserialize<'de> for EnvironmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::text(deserializer)
    }
}

impl From<EnvironmentName> for String {
    fn from(name: EnvironmentName) -> Self {
        name.0
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time zone by its name in the IANA database, such as `Europe/Zurich` or `UTC`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// Why a text is not a [`Zone`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time zone of the IANA database: use a name such as `UTC` or `Europe/Berlin`")]
pub struct InvalidZone(String);

impl Zone {
    /// Coordinated Universal Time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// The zone's name in the IANA database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zone's rules.
    pub fn rules(&self) -> &TimeZone {
        &self.zone
    }
}

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let zone = TimeZone::get(text).map_err(|_| InvalidZone(text.to_owned()))?;
        // The database matches names in any case, EventBridge Scheduler does not: keep the official spelling.
        let name = zone.iana_name().unwrap_or(text).to_owned();
        Ok(Self { name, zone })
    }
}

impl TryFrom<String> for Zone {
    type Error = InvalidZone;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::text(deserializer)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_names_fit_every_aws_name_built_from_them() {
        for good in ["prod", "p", "local-staging", "a2345678901234567890"] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "Prod", "2prod", "-prod", "prod-", "pro_d", "a23456789012345678901", "prod\n", "prød"]
        {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn zones_keep_the_official_spelling() {
        let zone: Zone = "europe/zurich".parse().expect("a zone");
        assert_eq!(zone.name(), "Europe/Zurich");
        assert!("Europe/Zürich".parse::<Zone>().is_err());
        assert!("".parse::<Zone>().is_err());
    }
}

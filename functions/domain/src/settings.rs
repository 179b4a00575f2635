//! What the deployer tells the functions: one JSON document in one environment variable.
//!
//! The deployer writes these very types and the functions read them, so the two cannot disagree about a name or a
//! unit. Unknown and missing fields are errors: a function that misunderstands its settings must not run.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::checked;
use crate::names::{EnvironmentName, Zone};
use crate::owner::Owner;
use crate::place::place;
use crate::retention::Retention;

/// The environment variable that holds a function's settings as JSON.
pub const VARIABLE: &str = "SNAPWARDEN_SETTINGS";

/// What both functions' settings have in common.
pub trait Settings {
    /// The environment that the function works for.
    fn environment(&self) -> &EnvironmentName;

    /// The ARN of the function's own alias, to which it hands on what one invocation has no time for.
    fn alias_arn(&self) -> &str;
}

/// Settings of the backup function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSettings {
    /// The environment that owns the snapshots.
    pub environment: EnvironmentName,
    /// The ARN of the function's own alias.
    pub alias_arn: String,
    /// The zone whose calendar days `DeleteOn` counts.
    pub timezone: Zone,
    /// Which instances to back up.
    pub select: Selector,
    /// How long snapshots are kept.
    pub retention: Retention,
    /// Whether a run that finds no instance is fine; otherwise it fails, since a backup of nothing is no backup.
    pub allow_no_instances: bool,
    /// Whether snapshots in clear text are to be warned about. Left out where it is false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_encryption: bool,
}

/// Settings of the cleanup function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanupSettings {
    /// The environment whose snapshots may be deleted.
    pub environment: EnvironmentName,
    /// The ARN of the function's own alias.
    pub alias_arn: String,
    /// The zone that says what "today" is.
    pub timezone: Zone,
    /// The fences that no deletion passes.
    pub policy: CleanupPolicy,
    /// Which instances are backed up: the audit looks for their backups.
    pub select: Selector,
    /// The longest time between two runs of the backup's schedule, in hours: how old a newest backup may be.
    pub backup_interval_hours: u32,
    /// What becomes of snapshots in clear text. Left out where nobody minds them.
    #[serde(default, skip_serializing_if = "Encryption::is_off")]
    pub encryption: Encryption,
    /// Where else the snapshots are kept. Left out where nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_to: Vec<CopyTarget>,
}

/// Another Region that holds copies of the snapshots, or another account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyTarget {
    /// The Region, such as `eu-west-1`.
    pub region: String,
    /// In another account: the ARN of the role there that the function acts as. Left out in the function's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What encrypts the copies: the ARN of a KMS key in that Region, or an alias there.
    pub kms_key: String,
    /// How long the copies are kept, whatever the source's `DeleteOn`.
    pub retention: Retention,
    /// Whether sets are copied that are older than the copies there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
    /// Whether no more copies are begun. Those that are there still go when they are due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl CopyTarget {
    /// The account that holds the copies, where it is another one.
    pub fn account(&self) -> Option<&str> {
        account_of(self.role.as_ref()?)
    }
}

/// Where the copies are, as reports say it: `eu-west-1`, or `eu-west-1 of account 210987654321`.
impl fmt::Display for CopyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&place(&self.region, self.account()))
    }
}

/// The account that an ARN names.
fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// What becomes of snapshots in clear text: those of volumes that are not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "require", rename_all = "lowercase", deny_unknown_fields)]
pub enum Encryption {
    /// Nobody minds them.
    #[default]
    Off,
    /// They are reported.
    Report,
    /// They are replaced by encrypted copies.
    Enforce {
        /// What encrypts the copies: a KMS key's ARN, or an alias such as `alias/backup`.
        kms_key: String,
    },
}

impl CleanupSettings {
    /// Whose the snapshots are, in the environment's own Region.
    pub fn owner(&self) -> Owner {
        Owner::from(&self.environment)
    }

    /// Whose the copies in a place are. `region` is the environment's own.
    pub fn owner_of_copies(&self, region: &str, target: &CopyTarget) -> Owner {
        if target.role.is_none() {
            return Owner::of_copies(&self.environment, region);
        }
        let account = account_of(&self.alias_arn).unwrap_or_default();
        Owner::of_copies_in_another_account(&self.environment, region, account)
    }

    /// Whether passes have anything to do at all: sealing, or copying to other places.
    pub fn has_passes(&self) -> bool {
        self.encryption.is_enforced() || !self.copy_to.is_empty()
    }
}

impl Encryption {
    /// Whether snapshots in clear text are replaced by encrypted copies.
    pub fn is_enforced(&self) -> bool {
        matches!(self, Self::Enforce { .. })
    }

    /// Whether nobody minds snapshots in clear text.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl Settings for BackupSettings {
    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn alias_arn(&self) -> &str {
        &self.alias_arn
    }
}

impl Settings for CleanupSettings {
    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn alias_arn(&self) -> &str {
        &self.alias_arn
    }
}

/// How careful cleanup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanupPolicy {
    /// The newest complete snapshot sets of an instance that are never deleted, even when expired; 0 for none.
    pub floor: u32,
    /// Days after the newest complete set of an instance that is gone, until its floor ends.
    pub orphan_floor_days: u32,
    /// The most snapshots one run deletes.
    pub max_deletes: u32,
    /// A run that would delete a larger share of all snapshots than this, in percent, stops before it deletes any.
    pub mass_deletion_percent: u32,
}

impl CleanupPolicy {
    /// The highest `max_deletes`: what a run deletes is listed in its report, which has to fit Lambda's 6 MB. One
    /// invocation gets through about 3,400 anyway.
    pub const HIGHEST_MAX_DELETES: u32 = 20_000;
}

/// Selects instances by one tag: both key and value must match exactly, as EC2 compares them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// The tag's key, `Backup` unless configured: 1 to 128 characters.
    #[serde(deserialize_with = "of_length::<_, 1, 128>")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 128)))]
    pub tag: String,
    /// The tag's value, `true` unless configured: at most 256 characters.
    #[serde(deserialize_with = "of_length::<_, 0, 256>")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub value: String,
}

/// A text of `MIN` to `MAX` characters.
fn of_length<'de, D, const MIN: usize, const MAX: usize>(deserializer: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    checked::text(deserializer).map(|OfLength::<MIN, MAX>(text)| text)
}

struct OfLength<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> TryFrom<String> for OfLength<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.chars().count() {
            length if (MIN..=MAX).contains(&length) => Ok(Self(text)),
            length => Err(format!("it has {length} characters: use {MIN} to {MAX}")),
        }
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self { tag: "Backup".to_owned(), value: "true".to_owned() }
    }
}

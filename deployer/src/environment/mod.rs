//! The environment file: everything a user decides about one deployment.
//!
//! Every value is checked by its own type while it is read, so an error carries the line and the key it stands at.

mod bounded;
mod cloudformation;
mod copy_to;
mod encryption;
mod fleet;
mod iam;
mod identity;
mod lint;
mod load;
mod notify;
mod place;
mod pricing;
mod releases;
mod schedule;
mod schema;
mod suggest;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;
use snapwarden_domain::names::{EnvironmentName, Zone};
use snapwarden_domain::retention::Retention;
use snapwarden_domain::settings::{CleanupPolicy, Selector};

pub use bounded::{Bounded, OutOfBounds};
pub use cloudformation::{BucketName, Cloudformation, Engine};
pub use copy_to::{CopyPlace, CopyTarget, MAX_TARGETS};
pub(crate) use encryption::made_alias;
pub use encryption::{Encryption, Key, KmsKey, MadeKey, Requirement};
pub use fleet::{Fleet, OrganizationId, OrganizationalUnit};
pub use iam::{Iam, PolicyArn, RoleArn, RolePath, RolePrefix};
pub use identity::{Identity, load_identity};
pub use lint::{Finding, Severity};
pub use load::{LoadError, list, load, load_and_lint, parse};
pub use notify::{EmailAddress, HttpsUrl, KmsKeyArn, Notify};
pub use pricing::Pricing;
pub use releases::Releases;
pub use schedule::{InvalidExpression, ScheduleExpression};
pub use schema::schema;

/// One environment, as its file describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The environment's name; must be the file's name without `.yaml`.
    pub environment: EnvironmentName,
    /// Where it lives: AWS, or the emulators on this machine.
    #[serde(default)]
    pub cloud: Cloud,
    /// What makes the environment what this file says; docs/cloudformation.md says how one moves from one to the other.
    #[serde(default)]
    pub engine: Engine,
    /// What CloudFormation is given, where it is the engine.
    #[serde(default)]
    pub cloudformation: Cloudformation,
    /// The accounts and Regions that `cargo xtask fleet` brings this environment to.
    #[serde(default, deserialize_with = "fleet::checked_fleet")]
    pub fleet: Option<Fleet>,
    /// The only AWS account that may be touched.
    pub account: AccountId,
    /// The AWS Region, such as `eu-central-1`.
    pub region: Region,
    /// Whether destroying needs the environment's name as confirmation. Remembered on AWS as a tag.
    #[serde(default)]
    pub protect: bool,
    /// The zone of both schedules, which also says what "today" means in `DeleteOn`.
    #[serde(default = "Zone::utc")]
    pub timezone: Zone,
    /// The backup function.
    pub backup: Backup,
    /// The cleanup function.
    pub cleanup: Cleanup,
    /// What both functions have in common.
    #[serde(default)]
    pub functions: Functions,
    /// Where the roles are in IAM, and what limits them.
    #[serde(default)]
    pub iam: Iam,
    /// What becomes of the log groups when the environment is destroyed.
    #[serde(default)]
    pub logs: LogsOnDestroy,
    /// Whether snapshots have to be encrypted.
    #[serde(default, deserialize_with = "encryption::read")]
    pub encryption: Encryption,
    /// Other Regions that hold copies of the snapshots, for the day on which this one is lost.
    #[serde(default, deserialize_with = "copy_to::read")]
    #[schemars(extend("maxItems" = MAX_TARGETS))]
    pub copy_to: Vec<CopyTarget>,
    /// Who is told when something goes wrong.
    #[serde(default)]
    pub notify: Notify,
    /// What snapshots cost, for estimates.
    #[serde(default)]
    pub pricing: Pricing,
    /// How releases are kept, and when one may go on to this environment.
    #[serde(default)]
    pub releases: Releases,
    /// Tags for every resource that can carry them.
    #[serde(default, deserialize_with = "user_tags")]
    #[schemars(extend("maxProperties" = MAX_TAGS))]
    pub tags: BTreeMap<TagKey, TagValue>,
}

impl Environment {
    /// Whether the cleanup function has passes of its own schedule: to seal, or to copy to other Regions.
    pub fn has_passes(&self) -> bool {
        self.encryption.sealing_key(&self.environment).is_some() || !self.copy_to.is_empty()
    }

    /// The key that encrypts the topic, where one does: an ARN, or the alias of the key that a deploy makes.
    pub fn topic_key(&self) -> Option<String> {
        let of_topic = self.notify.kms_key.clone().map(String::from);
        of_topic.or_else(|| self.encryption.at_rest_key(&self.environment).map(String::from))
    }
}

/// Where an environment lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Amazon Web Services, with the caller's credentials.
    #[default]
    Aws,
    /// The emulators that `cargo xtask local up` starts.
    Local,
}

/// What is backed up, when, and how long it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The tag that selects instances.
    #[serde(default)]
    pub select: Selector,
    /// When backups are made.
    pub schedule: Schedule,
    /// How long snapshots are kept.
    pub retention: Retention,
    /// Whether a run that selects no instance succeeds.
    #[serde(default)]
    pub allow_no_instances: bool,
}

/// When expired snapshots are deleted, and what holds them back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cleanup {
    /// When cleanup runs.
    pub schedule: Schedule,
    /// The newest complete snapshot sets of an instance, and the newest copies of an existing volume, that are never
    /// deleted; 0 switches it off.
    #[serde(default = "default_floor")]
    pub floor: Bounded<0, 1000>,
    /// Days after the newest complete set of an instance, once it is gone, until its floor ends.
    #[serde(default = "default_orphan_floor_days")]
    pub orphan_floor_days: Bounded<0, 36_500>,
    /// The most snapshots one run deletes.
    #[serde(default = "default_max_deletes")]
    pub max_deletes: Bounded<1, { CleanupPolicy::HIGHEST_MAX_DELETES }>,
    /// A run that would delete more than this share of all snapshots, in percent, and more than 20, stops before it
    /// deletes any, and fails; 100 switches it off.
    #[serde(default = "default_mass_deletion_percent")]
    pub mass_deletion_percent: Bounded<1, 100>,
}

/// One EventBridge Scheduler schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// `cron(…)` or `rate(…)` in AWS's own syntax.
    pub expression: ScheduleExpression,
    /// Minutes after the scheduled time within which it may fire; 0 for none.
    #[serde(default)]
    pub flexible_minutes: Bounded<0, 1440>,
    /// What EventBridge Scheduler does when it cannot hand an event to Lambda.
    #[serde(default)]
    pub retry: Retry,
}

/// EventBridge Scheduler's retry policy; what it gives up goes to the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often it tries again.
    pub attempts: Bounded<0, 185>,
    /// How old an event may become, in seconds.
    pub max_age_seconds: Bounded<60, 86_400>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: Bounded::of::<5>(), max_age_seconds: Bounded::of::<3600>() }
    }
}

/// What both Lambda functions have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Functions {
    /// Memory in MB, which also sets the share of a CPU: 1,769 MB is one.
    pub memory_mb: Bounded<128, 10_240>,
    /// How long one invocation may take, in seconds.
    pub timeout_seconds: Bounded<1, 900>,
    /// How long logs are kept, in days.
    pub log_retention_days: LogRetentionDays,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            memory_mb: Bounded::of::<256>(),
            timeout_seconds: Bounded::of::<900>(),
            log_retention_days: LogRetentionDays(30),
        }
    }
}

/// What becomes of the log groups when the environment is destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogsOnDestroy {
    /// They are deleted with everything else.
    #[default]
    Delete,
    /// They stay, with their retention.
    Keep,
}

/// A number of days that CloudWatch Logs accepts as retention (source: CloudWatch Logs API, `PutRetentionPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "i32")]
pub struct LogRetentionDays(i32);

impl LogRetentionDays {
    const ALLOWED: [i32; 22] = [
        1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288,
        3653,
    ];

    /// The number of days.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i64> for LogRetentionDays {
    type Error = String;

    fn try_from(days: i64) -> Result<Self, Self::Error> {
        Self::ALLOWED.into_iter().find(|allowed| i64::from(*allowed) == days).map(Self).ok_or_else(|| {
            let allowed: Vec<_> = Self::ALLOWED.iter().map(ToString::to_string).collect();
            format!("{days} days is not a retention of CloudWatch Logs; use one of {}", allowed.join(", "))
        })
    }
}

impl<'de> Deserialize<'de> for LogRetentionDays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::number(deserializer)
    }
}

impl JsonSchema for LogRetentionDays {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LogRetentionDays".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": Self::ALLOWED })
    }
}

impl From<LogRetentionDays> for i32 {
    fn from(days: LogRetentionDays) -> Self {
        days.0
    }
}

/// Declares a text type that is checked when it is read.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $message:literal, schema $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(format!(concat!("`{}` ", $message), text)) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                checked::text(deserializer)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(super) use checked_text;

checked_text!(
    /// An AWS account's number.
    AccountId,
    |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()),
    "is not an AWS account: write its 12 digits in quotes, such as \"123456789012\"",
    schema { "type": "string", "pattern": "^[0-9]{12}$" }
);

checked_text!(
    /// An AWS Region's name.
    Region,
    |text| text.split('-').count() >= 3
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
    "is not an AWS Region: write its code, such as eu-central-1",
    schema { "type": "string", "pattern": "^[a-z0-9-]*-[a-z0-9-]*-[a-z0-9-]*[0-9]$" }
);

checked_text!(
    /// A tag's key, in what all services accept: 1 to 128 characters, not starting with `aws:` or `snapwarden:`, which
    /// are reserved.
    TagKey,
    |text| (1..=128).contains(&text.chars().count())
        && text.chars().all(is_tag_character)
        && !["aws:", "snapwarden:"].iter().any(|reserved| text.to_lowercase().starts_with(reserved)),
    "cannot be a tag's key: use 1 to 128 letters, digits, spaces and _.:/=+-@, not starting with `aws:` or \
     `snapwarden:`",
    schema { "type": "string", "minLength": 1, "maxLength": 128, "pattern": TAG_PATTERN }
);

checked_text!(
    /// A tag's value, in what all services accept: 1 to 256 characters.
    TagValue,
    |text| (1..=256).contains(&text.chars().count()) && text.chars().all(is_tag_character),
    "cannot be a tag's value: use 1 to 256 letters, digits, spaces and _.:/=+-@",
    schema { "type": "string", "minLength": 1, "maxLength": 256, "pattern": TAG_PATTERN }
);

/// What [`is_tag_character`] leaves out, as far as all dialects of regular expressions agree on how to say it.
const TAG_PATTERN: &str = "^[^!\"#$%&'()*,;<>?\\[\\]\\\\^`{|}~]+$";

/// The characters that IAM, the strictest service, takes in tags (source: IAM API, data type `Tag`).
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() && !c.is_control() || "_.:/=+-@".contains(c)
}

/// AWS allows 50 tags, two of which are ours.
const MAX_TAGS: usize = 48;

fn user_tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<TagKey, TagValue>, D::Error> {
    let tags = BTreeMap::<TagKey, TagValue>::deserialize(deserializer)?;
    if tags.len() > MAX_TAGS {
        return Err(D::Error::custom(format!("{} tags are too many: use at most {MAX_TAGS}", tags.len())));
    }
    // IAM takes keys that differ only in case for the same.
    let mut seen = BTreeMap::new();
    for key in tags.keys() {
        if let Some(other) = seen.insert(key.as_str().to_lowercase(), key) {
            return Err(D::Error::custom(format!("the keys `{other}` and `{key}` differ only in case")));
        }
    }
    Ok(tags)
}

fn default_floor() -> Bounded<0, 1000> {
    Bounded::of::<1>()
}

fn default_orphan_floor_days() -> Bounded<0, 36_500> {
    Bounded::of::<90>()
}

fn default_mass_deletion_percent() -> Bounded<1, 100> {
    Bounded::of::<50>()
}

fn default_max_deletes() -> Bounded<1, { CleanupPolicy::HIGHEST_MAX_DELETES }> {
    Bounded::of::<5000>()
}

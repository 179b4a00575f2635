//! The little of an environment file that says which environment it is about.
//!
//! A destroy must not fail because a retention was mistyped or a key became unknown: what it needs is where the
//! environment is and what it is called. Everything else in the file may be missing or wrong.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use snapwarden_domain::names::EnvironmentName;

use super::load::{self, LoadError};
use super::{
    AccountId, Cloud, Cloudformation, CopyPlace, CopyTarget, Encryption, Engine, Environment, Iam,
    LogsOnDestroy, Pricing, Region, RoleArn,
};

/// Which environment a file is about, and what a destroy of it has to respect.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The environment's name.
    pub environment: EnvironmentName,
    /// Where it lives.
    pub cloud: Cloud,
    /// What makes and deletes it.
    pub engine: Engine,
    /// The ARN of the role that CloudFormation acts as.
    pub stack_role: Option<String>,
    /// The only AWS account that may be touched.
    pub account: AccountId,
    /// The AWS Region.
    pub region: Region,
    /// What the roles are called.
    pub iam: Iam,
    /// Whether there is a key of the environment's own.
    pub encryption: Encryption,
    /// Whether destroying needs the environment's name as confirmation.
    pub protect: bool,
    /// What becomes of the log groups.
    pub logs: LogsOnDestroy,
    /// What snapshots cost that stay.
    pub pricing: Pricing,
    /// Which other Regions and accounts hold copies of them.
    pub copy_places: Vec<CopyPlace>,
}

impl From<&Environment> for Identity {
    fn from(file: &Environment) -> Self {
        Self {
            environment: file.environment.clone(),
            cloud: file.cloud,
            engine: file.engine,
            stack_role: file.cloudformation.role.as_ref().map(ToString::to_string),
            account: file.account.clone(),
            region: file.region.clone(),
            iam: file.iam.clone(),
            encryption: file.encryption.clone(),
            protect: file.protect,
            logs: file.logs,
            pricing: file.pricing.clone(),
            copy_places: file.copy_to.iter().map(CopyTarget::place).collect(),
        }
    }
}

/// Reads from `<folder>/<name>.yaml` only what a destroy needs.
///
/// Name, account, Region, cloud, engine, the roles' names and the places of copies must be right, since they decide what
/// is touched. A `protect`, `logs` or `encryption` that cannot be understood counts as the careful choice: protected, logs
/// kept, and a key looked for.
pub fn load_identity(folder: &Path, name: &str) -> Result<Identity, LoadError> {
    let (path, text) = load::read(folder, name)?;
    let file: Excerpt = load::parse_as(&path, &text)?;
    load::check_name(&path, &text, name, &file.environment)?;
    Ok(Identity {
        environment: file.environment,
        cloud: file.cloud,
        engine: file.engine,
        stack_role: file.cloudformation.role.as_ref().map(ToString::to_string),
        account: file.account,
        region: file.region,
        iam: file.iam,
        encryption: file.encryption,
        protect: file.protect,
        logs: file.logs,
        pricing: file.pricing,
        copy_places: file
            .copy_to
            .into_iter()
            .map(|Target { region, role }| CopyPlace { region, role })
            .collect(),
    })
}

/// The keys of [`Environment`] that an [`Identity`] is made of; all others are passed over.
#[derive(Deserialize)]
struct Excerpt {
    environment: EnvironmentName,
    #[serde(default)]
    cloud: Cloud,
    #[serde(default)]
    engine: Engine,
    #[serde(default)]
    cloudformation: Cloudformation,
    account: AccountId,
    region: Region,
    #[serde(default)]
    iam: Iam,
    #[serde(default, deserialize_with = "encryption")]
    encryption: Encryption,
    #[serde(default, deserialize_with = "protect")]
    protect: bool,
    #[serde(default, deserialize_with = "logs")]
    logs: LogsOnDestroy,
    #[serde(default, deserialize_with = "pricing")]
    pricing: Pricing,
    #[serde(default)]
    copy_to: Vec<Target>,
}

/// A place that may hold copies, whatever else is wrong with its entry.
#[derive(Deserialize)]
struct Target {
    region: Region,
    role: Option<RoleArn>,
}

fn pricing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pricing, D::Error> {
    let value = serde_yaml::Value::deserialize(deserializer)?;
    Ok(Pricing::deserialize(value).unwrap_or_default())
}

/// What cannot be understood counts as the careful choice: a key of the environment's own, which is looked for.
fn encryption<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Encryption, D::Error> {
    let value = serde_yaml::Value::deserialize(deserializer)?;
    Ok(Encryption::deserialize(value).unwrap_or_else(|_| Encryption::with_own_key()))
}

fn protect<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(serde_yaml::Value::deserialize(deserializer)?.as_bool().unwrap_or(true))
}

fn logs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogsOnDestroy, D::Error> {
    let value = serde_yaml::Value::deserialize(deserializer)?;
    Ok(LogsOnDestroy::deserialize(value).unwrap_or(LogsOnDestroy::Keep))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::load;
    use super::*;

    fn identity(text: &str) -> Result<Identity, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prod.yaml"), text).unwrap();
        load_identity(folder.path(), "prod")
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    const LEAST: &str = "environment: prod\naccount: \"123456789012\"\nregion: eu-central-1\n";

    #[test]
    fn it_is_the_same_as_the_whole_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
        for name in ["local", "prod"] {
            let whole = load(&folder, name).unwrap();
            assert_eq!(load_identity(&folder, name).unwrap(), Identity::from(&whole));
        }
    }

    /// Somebody broke the file and now wants to get rid of the environment: that must work.
    #[test]
    fn everything_else_may_be_missing_or_wrong() {
        let least = identity(LEAST).unwrap();
        assert_eq!((least.cloud, least.protect, least.logs), (Cloud::Aws, false, LogsOnDestroy::Delete));
        for rest in [
            "timezone: Mars/Olympus",
            "timezon: UTC",
            "backup: { schedule: { expression: cron(x) }, retention: none }",
            "functions: [1, 2]",
            "tags: { \"aws:x\": y }\ncloud: aws",
            "protect: false",
            "logs: delete",
            "pricing: { gib_month: cheap }",
        ] {
            assert_eq!(identity(&format!("{LEAST}{rest}\n")), Ok(least.clone()), "{rest}");
        }
    }

    /// A slip in the file must not lift the protection or delete logs that were to be kept.
    #[test]
    fn what_protects_is_taken_at_its_strictest_when_it_cannot_be_understood() {
        for (rest, protect, logs) in [
            ("protect: true", true, LogsOnDestroy::Delete),
            ("protect: ja", true, LogsOnDestroy::Delete),
            ("protect:", true, LogsOnDestroy::Delete),
            ("logs: keep", false, LogsOnDestroy::Keep),
            ("logs: kep", false, LogsOnDestroy::Keep),
        ] {
            let identity = identity(&format!("{LEAST}{rest}\n")).unwrap();
            assert_eq!((identity.protect, identity.logs), (protect, logs), "{rest}");
        }
    }

    /// These say what is touched: guessing would delete something else.
    #[test]
    fn what_says_where_the_environment_is_must_be_right() {
        for (text, error) in [
            (LEAST.replace("prod", "dev"), "prod.yaml:1:1: environment: it says `dev`"),
            (
                LEAST.replace("123456789012", "12345"),
                "prod.yaml:2:10: account: `12345` is not an AWS account",
            ),
            (LEAST.replace("region: eu-central-1", ""), "prod.yaml:1:1: missing field `region`"),
            (format!("{LEAST}cloud: azure\n"), "prod.yaml:4:8: cloud: unknown variant `azure`"),
            (format!("{LEAST}tags: \"\n"), "prod.yaml:"),
        ] {
            let message = identity(&text).unwrap_err();
            assert!(message.starts_with(error), "{text}: {message}");
        }
    }
}

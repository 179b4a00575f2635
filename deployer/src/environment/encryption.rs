//! Whether snapshots have to be encrypted, and with what.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::settings;

use super::{Bounded, checked_text};

/// Whether snapshots have to be encrypted, and with what. EC2 encrypts a snapshot exactly if its volume is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Encryption {
    /// `off`; `report`: what is not encrypted is named and counted; `enforce`: such snapshots are replaced by encrypted
    /// copies, which takes `kms_key`.
    pub require: Requirement,
    /// What encrypts: the ARN of a KMS key, or an alias in the environment's account and Region, such as `alias/backup`
    /// (`alias/aws/ebs` is AWS's own key, whose snapshots cannot be shared), or `{ create: true }`.
    pub kms_key: Option<Key>,
    /// Whether the key also encrypts the topic, the dead-letter queue, the log groups and the functions' settings; for
    /// a key that is not made by the deploy, its own policy has to let AWS's services use it, see docs/encryption.md.
    pub at_rest: bool,
}

/// A key that there is, or one that a deploy makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Key {
    /// The user's.
    Existing(KmsKey),
    /// The environment's own, under the alias `alias/snapwarden-ENVIRONMENT`.
    Made(MadeKey),
}

/// A key that a deploy makes. It outlives the environment for as long as anything needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MadeKey {
    /// Always `true`: a deploy makes the key, rotates it every year, and sees to its policy.
    #[schemars(extend("const" = true))]
    create: bool,
    /// Days between the last command of `destroy --snapshots purge` and the end of the key; until then a deploy takes
    /// it up again.
    #[serde(default = "default_window")]
    pub deletion_window_days: Bounded<7, 30>,
}

fn default_window() -> Bounded<7, 30> {
    Bounded::of::<30>()
}

/// What becomes of snapshots in clear text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// Nobody minds them.
    #[default]
    Off,
    /// They are named in the reports, and counted.
    Report,
    /// They are replaced by encrypted copies.
    Enforce,
}

impl Encryption {
    /// A key of the environment's own, and nothing more.
    pub fn with_own_key() -> Self {
        let key = MadeKey { create: true, deletion_window_days: default_window() };
        Self { kms_key: Some(Key::Made(key)), ..Self::default() }
    }

    /// The key that a deploy makes.
    pub fn made(&self) -> Option<&MadeKey> {
        match &self.kms_key {
            Some(Key::Made(key)) => Some(key),
            Some(Key::Existing(_)) | None => None,
        }
    }

    /// The key as AWS takes its name. Of one that a deploy makes nobody knows the ARN beforehand: it goes by its alias.
    pub fn key(&self, environment: &EnvironmentName) -> Option<KmsKey> {
        match self.kms_key.as_ref()? {
            Key::Existing(key) => Some(key.clone()),
            Key::Made(_) => Some(KmsKey(made_alias(environment))),
        }
    }

    /// The same, where copies are made with it.
    pub fn sealing_key(&self, environment: &EnvironmentName) -> Option<KmsKey> {
        self.key(environment).filter(|_| self.require == Requirement::Enforce)
    }

    /// The same, where it also encrypts what else an environment has.
    pub fn at_rest_key(&self, environment: &EnvironmentName) -> Option<KmsKey> {
        self.key(environment).filter(|_| self.at_rest)
    }

    /// The same for the cleanup function.
    pub fn settings(&self, environment: &EnvironmentName) -> settings::Encryption {
        match (self.require, self.sealing_key(environment)) {
            (Requirement::Off, _) => settings::Encryption::Off,
            (_, Some(key)) => settings::Encryption::Enforce { kms_key: key.to_string() },
            (Requirement::Report | Requirement::Enforce, None) => settings::Encryption::Report,
        }
    }
}

/// The alias of the key that a deploy makes.
pub(crate) fn made_alias(environment: &EnvironmentName) -> String {
    format!("alias/snapwarden-{environment}")
}

/// Reads it, and refuses what could never be carried out.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Encryption, D::Error> {
    let encryption = Encryption::deserialize(deserializer)?;
    if encryption.require == Requirement::Enforce && encryption.kms_key.is_none() {
        return Err(D::Error::custom(
            "`enforce` needs a key to encrypt with: set kms_key to a key's ARN or an alias, such as alias/backup \
             (alias/aws/ebs is AWS's own), or to { create: true }",
        ));
    }
    let is_known = match &encryption.kms_key {
        Some(Key::Existing(key)) => key.arn().is_some(),
        Some(Key::Made(_)) => true,
        None => false,
    };
    if encryption.at_rest && !is_known {
        return Err(D::Error::custom(
            "`at_rest` needs kms_key to be a key's ARN or { create: true }: CloudWatch Logs and Lambda take no alias",
        ));
    }
    Ok(encryption)
}

/// A text is a key that there is, and a mapping one to be made; each is read as what it is, so that an error says where.
impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key's ARN, an alias such as alias/backup, or { create: true }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                KmsKey::try_from(text.to_owned()).map(Key::Existing).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Key, A::Error> {
                let key = MadeKey::deserialize(MapAccessDeserializer::new(map))?;
                if key.create {
                    return Ok(Key::Made(key));
                }
                Err(A::Error::custom(
                    "`create: false` makes no key: write { create: true }, or leave kms_key out",
                ))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

checked_text!(
    /// A KMS key by its ARN, or by an alias.
    KmsKey,
    |text| {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let is_arn = matches!(parts[..], ["arn", _, "kms", region, account, key]
            if !region.is_empty() && account.len() == 12 && key.starts_with("key/") && key.len() > 4);
        let is_alias = text.strip_prefix("alias/").is_some_and(|name| {
            (1..=250).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
        });
        is_alias || is_arn && text.chars().all(|c| c.is_ascii_graphic())
    },
    "is not a KMS key: write its ARN, such as arn:aws:kms:eu-central-1:123456789012:key/1234abcd-…, or an alias, such \
     as alias/backup, or a mapping with create: true",
    schema { "type": "string", "pattern": "^(arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+|alias/[A-Za-z0-9/_-]+)$" }
);

impl KmsKey {
    /// The ARN, where it is one.
    pub fn arn(&self) -> Option<&str> {
        Some(self.as_str()).filter(|text| text.starts_with("arn:"))
    }

    /// The account of the key, where it is an ARN.
    pub fn account(&self) -> Option<&str> {
        self.arn()?.split(':').nth(4)
    }

    /// The alias, where it is one.
    pub fn alias(&self) -> Option<&str> {
        Some(self.as_str()).filter(|text| text.starts_with("alias/"))
    }

    /// The Region of an ARN.
    pub(super) fn region(&self) -> Option<&str> {
        self.arn()?.split(':').nth(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that does not exist fails every copy, hours later and without an error of the call.
    #[test]
    fn what_cannot_be_a_key_is_refused_when_the_file_is_read() {
        let key = |text: &str| KmsKey::try_from(text.to_owned());
        for good in [
            "alias/backup",
            "alias/aws/ebs",
            "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd",
        ] {
            assert!(key(good).is_ok(), "{good}");
        }
        for bad in [
            "backup",
            "alias/",
            "alias/back up",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:123456789012:alias/backup",
            "arn:aws:kms:eu-central-1:1234:key/1",
            "",
        ] {
            assert!(key(bad).is_err(), "{bad}");
        }
        let arn = key("arn:aws:kms:eu-central-1:123456789012:key/1").unwrap();
        assert_eq!((arn.region(), arn.alias()), (Some("eu-central-1"), None));
    }

    #[test]
    fn only_what_can_be_carried_out_is_asked_of_the_function() {
        let read = |json: &str| {
            let mut json = serde_json::Deserializer::from_str(json);
            read(&mut json).map(|encryption| encryption.settings(&"test".parse().unwrap()))
        };
        assert_eq!(read("{}").unwrap(), settings::Encryption::Off);
        assert_eq!(read(r#"{"require": "off", "kms_key": "alias/b"}"#).unwrap(), settings::Encryption::Off);
        assert_eq!(read(r#"{"require": "report"}"#).unwrap(), settings::Encryption::Report);
        assert_eq!(
            read(r#"{"require": "enforce", "kms_key": "alias/b"}"#).unwrap(),
            settings::Encryption::Enforce { kms_key: "alias/b".to_owned() }
        );
        assert_eq!(
            read(r#"{"require": "enforce", "kms_key": {"create": true}}"#).unwrap(),
            settings::Encryption::Enforce { kms_key: "alias/snapwarden-test".to_owned() }
        );
        assert!(read(r#"{"require": "enforce"}"#).unwrap_err().to_string().contains("alias/backup"));
        assert!(read(r#"{"require": "sometimes"}"#).is_err());
    }

    /// A window that nobody chose, or a key that nobody meant, is noticed when it is too late to read a backup.
    #[test]
    fn a_key_to_be_made_is_asked_for_in_so_many_words() {
        let read = |json: &str| {
            let mut json = serde_json::Deserializer::from_str(json);
            read(&mut json)
        };
        let made = |json: &str| read(json).unwrap().made().unwrap().deletion_window_days.get();
        assert_eq!(made(r#"{"kms_key": {"create": true}}"#), 30);
        assert_eq!(made(r#"{"kms_key": {"create": true, "deletion_window_days": 7}, "at_rest": true}"#), 7);
        for (json, says) in [
            (r#"{"kms_key": {"create": false}}"#, "makes no key"),
            (r#"{"kms_key": {}}"#, "missing field `create`"),
            (r#"{"kms_key": {"create": true, "deletion_window_days": 6}}"#, "use 7 to 30"),
            (r#"{"kms_key": {"create": true, "window": 7}}"#, "unknown field `window`"),
            (r#"{"kms_key": true}"#, "a key's ARN"),
            (r#"{"at_rest": true}"#, "take no alias"),
            (r#"{"at_rest": true, "kms_key": "alias/backup"}"#, "take no alias"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
        let arn = "arn:aws:kms:eu-central-1:123456789012:key/1";
        let existing = read(&format!(r#"{{"at_rest": true, "kms_key": "{arn}"}}"#)).unwrap();
        let environment = "test".parse().unwrap();
        assert_eq!(existing.at_rest_key(&environment).unwrap().as_str(), arn);
        assert_eq!((existing.made(), existing.sealing_key(&environment)), (None, None));
    }
}

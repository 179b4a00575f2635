//! Whether snapshots have to be encrypted, and with what.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;
use snapwarden_domain::settings;

use super::checked_text;

/// Whether snapshots have to be encrypted. EC2 encrypts a snapshot exactly if its volume is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Encryption {
    /// `off`; `report`: what is not encrypted is named and counted; `enforce`: such snapshots are replaced by encrypted
    /// copies, which takes `kms_key`.
    pub require: Requirement,
    /// What encrypts the copies: the ARN of a KMS key, or an alias in the environment's account and Region, such as
    /// `alias/backup`. `alias/aws/ebs` is AWS's own key, whose snapshots cannot be shared.
    pub kms_key: Option<KmsKey>,
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
    /// The key, where copies are made with it.
    pub fn sealing_key(&self) -> Option<&KmsKey> {
        self.kms_key.as_ref().filter(|_| self.require == Requirement::Enforce)
    }

    /// The same for the cleanup function.
    pub fn settings(&self) -> settings::Encryption {
        match (self.require, self.sealing_key()) {
            (Requirement::Off, _) => settings::Encryption::Off,
            (_, Some(key)) => settings::Encryption::Enforce { kms_key: key.to_string() },
            (Requirement::Report | Requirement::Enforce, None) => settings::Encryption::Report,
        }
    }
}

/// Reads it, and refuses what could never be carried out.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Encryption, D::Error> {
    let encryption = Encryption::deserialize(deserializer)?;
    if encryption.require == Requirement::Enforce && encryption.kms_key.is_none() {
        return Err(D::Error::custom(
            "`enforce` needs a key to encrypt with: set kms_key to a key's ARN or an alias, such as alias/backup \
             (alias/aws/ebs is AWS's own)",
        ));
    }
    Ok(encryption)
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
     as alias/backup",
    schema { "type": "string", "pattern": "^(arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+|alias/[A-Za-z0-9/_-]+)$" }
);

impl KmsKey {
    /// The ARN, where it is one.
    pub fn arn(&self) -> Option<&str> {
        Some(self.as_str()).filter(|text| text.starts_with("arn:"))
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
            read(&mut json).map(|encryption| encryption.settings())
        };
        assert_eq!(read("{}").unwrap(), settings::Encryption::Off);
        assert_eq!(read(r#"{"require": "off", "kms_key": "alias/b"}"#).unwrap(), settings::Encryption::Off);
        assert_eq!(read(r#"{"require": "report"}"#).unwrap(), settings::Encryption::Report);
        assert_eq!(
            read(r#"{"require": "enforce", "kms_key": "alias/b"}"#).unwrap(),
            settings::Encryption::Enforce { kms_key: "alias/b".to_owned() }
        );
        assert!(read(r#"{"require": "enforce"}"#).unwrap_err().to_string().contains("alias/backup"));
        assert!(read(r#"{"require": "sometimes"}"#).is_err());
    }
}

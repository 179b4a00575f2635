//! Who is told when something goes wrong, and from when on.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use snapwarden_domain::checked;

use super::{Bounded, checked_text};

/// Who is told when something goes wrong, through an SNS topic that every environment has.
///
/// SNS asks each of them to confirm before it sends anything else; `status` names those who have not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Addresses that get an email.
    pub emails: Vec<EmailAddress>,
    /// Addresses that get an HTTPS request, as SNS sends it.
    pub https: Vec<HttpsUrl>,
    /// The ARN of the KMS key that encrypts the topic; none leaves it unencrypted. It has to be a key of your own, whose
    /// policy lets `cloudwatch.amazonaws.com` use it (`kms:GenerateDataKey*` and `kms:Decrypt`), or alarms reach nobody.
    pub kms_key: Option<KmsKeyArn>,
    /// How old, in hours, a volume's newest backup may become; unless given, the schedule's longest gap and half a day.
    pub stale_after_hours: Option<Bounded<1, 8784>>,
}

checked_text!(
    /// An email address, as far as its form tells.
    EmailAddress,
    |text| {
        let parts = text.split_once('@');
        let is_address = parts.is_some_and(|(name, domain)| {
            !name.is_empty() && domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.')
        });
        is_address
            && text.len() <= 254
            && text.matches('@').count() == 1
            && text.chars().all(|c| c.is_ascii_graphic())
    },
    "is not an email address: write one such as ops@example.org",
    schema { "type": "string", "maxLength": 254, "pattern": "^[^@ ]+@[^@ ]+[.][^@ .]+$" }
);

checked_text!(
    /// An address that takes HTTPS requests. One with a user and a password is refused: SNS shows it with the password
    /// masked, so that nobody could tell whether it is the one that is wanted.
    HttpsUrl,
    |text| {
        text.strip_prefix("https://").is_some_and(|rest| {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            !authority.is_empty() && !authority.contains('@')
        }) && text.chars().all(|c| c.is_ascii_graphic())
    },
    "is not an HTTPS address: write one such as https://hooks.example.org/backups, without a user or a password",
    schema { "type": "string", "pattern": "^https://[^/?#@ ]+([/?#][^ ]*)?$" }
);

impl HttpsUrl {
    /// The address as everybody may see it: whoever knows the rest of it can often write there. The checksum tells one
    /// from another.
    pub fn shown(url: &str) -> String {
        let rest = url.strip_prefix("https://").unwrap_or(url);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        format!("{host}/…#{}", &hex::encode(Sha256::digest(url))[..8])
    }
}

checked_text!(
    /// The ARN of a KMS key; an alias does not work as the resource of a policy.
    KmsKeyArn,
    |text| {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        matches!(parts[..], ["arn", _, "kms", region, account, key]
            if !region.is_empty() && account.len() == 12 && key.starts_with("key/") && key.len() > 4)
            && text.chars().all(|c| c.is_ascii_graphic())
    },
    "is not a KMS key's ARN: write one such as arn:aws:kms:eu-central-1:123456789012:key/1234abcd-…",
    schema { "type": "string", "pattern": "^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+$" }
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A misspelt address is an alarm that reaches nobody.
    #[test]
    fn what_cannot_be_reached_is_refused() {
        let email = |text: &str| EmailAddress::try_from(text.to_owned()).is_ok();
        assert!(email("ops@example.org") && email("a.b+c@mail.example.org"));
        for bad in
            ["", "ops", "ops@", "@example.org", "ops@example", "o ps@example.org", "a@b@c.org", "a@.org"]
        {
            assert!(!email(bad), "{bad}");
        }
        let url = |text: &str| HttpsUrl::try_from(text.to_owned()).is_ok();
        assert!(url("https://hooks.example.org/x?y=z"));
        assert!(url("https://hooks.example.org?at=a@b"));
        for bad in [
            "",
            "http://example.org",
            "https://",
            "https:///x",
            "https://a b",
            "ftp://x",
            "https://ann:secret@example.org/x",
            "https://ann@example.org",
        ] {
            assert!(!url(bad), "{bad}");
        }
        let key = |text: &str| KmsKeyArn::try_from(text.to_owned()).is_ok();
        assert!(key("arn:aws:kms:eu-central-1:123456789012:key/1234abcd"));
        for bad in ["alias/backup", "arn:aws:kms:eu-central-1:123456789012:alias/backup", "1234abcd"] {
            assert!(!key(bad), "{bad}");
        }
    }
}

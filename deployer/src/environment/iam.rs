//! Where the roles are in IAM, and what limits them: what an organisation's rules for roles ask for.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use snapwarden_domain::checked;

use super::checked_text;

/// What the roles of an environment have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Iam {
    /// IAM's path of the roles, such as `/backup/`. To change it makes the roles anew.
    pub role_path: RolePath,
    /// What the roles' names begin with, such as `acme-`; at most 8 characters. To change it takes a destroy, which keeps the snapshots, and a deploy.
    pub role_name_prefix: RolePrefix,
    /// The ARN of a managed policy that limits what the roles may do, whatever their own policies say.
    pub permissions_boundary: Option<PolicyArn>,
}

checked_text!(
    /// A path in IAM (source: IAM API, `CreateRole`). Wildcards, which IAM allows, would widen policies.
    RolePath,
    |text| text.len() <= 512
        && text.starts_with('/')
        && text.ends_with('/')
        && !text.contains("//")
        && text.bytes().all(|b| is_name_character(b) || b == b'/'),
    "is not a path in IAM: begin and end it with a slash, such as `/backup/`",
    schema { "type": "string", "maxLength": 512, "pattern": "^/([A-Za-z0-9+=,.@_-]+/)*$" }
);

checked_text!(
    /// The beginning of the names of roles. IAM's names have at most 64 characters, and this leaves room for the rest.
    #[derive(Default)]
    RolePrefix,
    |text| text.len() <= 8 && text.bytes().all(is_name_character),
    "cannot begin the names of roles: use at most 8 letters, digits and characters of +=,.@_-",
    schema { "type": "string", "pattern": "^[A-Za-z0-9+=,.@_-]{0,8}$" }
);

checked_text!(
    /// The ARN of a role in IAM.
    RoleArn,
    |text| {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        matches!(parts.as_slice(), ["arn", partition, "iam", "", account, role]
            if partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && role.strip_prefix("role/").is_some_and(|name| {
                    let own = name.rsplit('/').next().unwrap_or_default();
                    (1..=64).contains(&own.len())
                        && !name.contains("//")
                        && name.bytes().all(|b| is_name_character(b) || b == b'/')
                }))
    },
    "is not a role's ARN: write it like arn:aws:iam::123456789012:role/name",
    schema { "type": "string", "pattern": "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$" }
);

impl RoleArn {
    /// The account that the role is in: 12 digits.
    pub fn account(&self) -> &str {
        self.as_str().split(':').nth(4).unwrap_or_default()
    }
}

checked_text!(
    /// The ARN of a managed policy, AWS's or the account's.
    PolicyArn,
    |text| match text.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", partition, "iam", "", owner, resource] => {
            partition.starts_with("aws")
                && (owner == "aws" || owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_digit()))
                && resource.strip_prefix("policy/").is_some_and(|name| {
                    !name.is_empty() && name.bytes().all(|b| is_name_character(b) || b == b'/')
                })
        }
        _ => false,
    },
    "is not the ARN of a managed policy, such as arn:aws:iam::123456789012:policy/boundary",
    schema { "type": "string", "pattern": "^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$" }
);

/// What names in IAM are made of.
fn is_name_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte)
}

impl Default for RolePath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Iam, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    #[test]
    fn without_a_word_the_roles_are_where_iam_puts_them() {
        let iam = read("{}").unwrap();
        assert_eq!((iam.role_path.as_str(), iam.role_name_prefix.as_str()), ("/", ""));
        assert_eq!(iam.permissions_boundary, None);
    }

    /// These become part of ARNs in policies: a wildcard in one would let a role do more than it says.
    #[test]
    fn what_would_not_fit_into_an_arn_is_refused() {
        for good in [
            "role_path: /",
            "role_path: /backup/prod/",
            "role_name_prefix: acme-",
            "role_name_prefix: ''",
            "permissions_boundary: arn:aws:iam::123456789012:policy/limits/backup",
            "permissions_boundary: arn:aws-cn:iam::aws:policy/PowerUserAccess",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "role_path: backup",
            "role_path: /backup",
            "role_path: //",
            "role_path: /*/",
            "role_path: ''",
            "role_name_prefix: acme-corp-",
            "role_name_prefix: a*",
            "role_name_prefix: a/b",
            "permissions_boundary: boundary",
            "permissions_boundary: arn:aws:iam::123456789012:role/boundary",
            "permissions_boundary: arn:aws:iam::1234:policy/boundary",
            "permissions_boundary: arn:aws:iam::123456789012:policy/*",
            "boundary: arn:aws:iam::123456789012:policy/boundary",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// IAM refuses names of more than 64 characters, in the middle of a deploy.
    #[test]
    fn the_longest_name_of_a_role_has_64_characters() {
        let longest = "snapwarden-".len() + 20 + "-ap-southeast-1".len() + "-scheduler".len();
        assert!(longest + 8 <= 64);
    }
}

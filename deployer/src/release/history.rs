//! Where releases are recorded: an SSM parameter of the environment, whose history SSM keeps.
//!
//! Each release is a version of the parameter. SSM keeps the last 100 and throws the oldest away by itself (source: AWS
//! Systems Manager User Guide, "Working with parameter versions"); in the parameter's standard tier, a value has 4 KB,
//! beyond that `Intelligent-Tiering` makes it an advanced one of 8 KB. Policies are compressed to fit.

use std::io::{self, Read, Write};

use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::Deserialize as _;
use serde_json::Value;
use snapwarden_domain::tags;

use super::Release;
use crate::aws::Aws;
use crate::error::{AwsError, Call, ErrorClass, OrAbsent};
use crate::scope::Scope;

/// The releases of an environment, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Those that are recorded.
    pub releases: Vec<Release>,
    /// The numbers of records that this version cannot read.
    pub unreadable: Vec<i64>,
}

/// The longest value of an advanced parameter, in bytes (source: AWS Systems Manager User Guide, "Managing parameter
/// tiers").
const LONGEST: usize = 8 * 1024;

/// Why a release is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// SSM did not take it.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// It is longer than SSM takes.
    #[error("the release's record has {0} bytes, and SSM takes {LONGEST}")]
    TooLong(usize),
}

impl History {
    /// Reads what is recorded. Nothing of an environment that has never been deployed.
    pub async fn read(aws: &Aws, scope: &Scope) -> Result<Self, AwsError> {
        let call = aws.ssm.get_parameter_history().name(scope.releases_parameter());
        let mut pages = call.into_paginator().send();
        let mut history = Self::default();
        while let Some(page) = pages.next().await {
            let Some(page) = page.call("ssm:GetParameterHistory").or_absent()? else { break };
            for record in page.parameters.unwrap_or_default() {
                match decode(record.value().unwrap_or_default()) {
                    Some(release) => {
                        history.releases.push(Release { number: record.version, ..release });
                    }
                    None => history.unreadable.push(record.version),
                }
            }
        }
        history.releases.sort_by_key(|release| release.number);
        // The SDK repeats a call whose answer was lost.
        history.releases.dedup_by(|next, before| *next == Release { number: next.number, ..before.clone() });
        Ok(history)
    }

    /// The newest release, which is live unless somebody has changed something since.
    pub fn newest(&self) -> Option<&Release> {
        self.releases.last()
    }

    /// The release of that number.
    pub fn get(&self, number: i64) -> Option<&Release> {
        self.releases.iter().find(|release| release.number == number)
    }

    /// The release that was live before the newest one.
    pub fn before_newest(&self) -> Option<&Release> {
        let newest = self.newest()?;
        self.releases.iter().rev().find(|release| release.content != newest.content)
    }

    /// Records a release, and gives it its number.
    pub async fn record(&mut self, aws: &Aws, scope: &Scope, release: Release) -> Result<(), RecordError> {
        let value = encode(&release);
        if value.len() > LONGEST {
            return Err(RecordError::TooLong(value.len()));
        }
        let put = |overwrite: bool| {
            let call = aws.ssm.put_parameter().name(scope.releases_parameter());
            let call = call.r#type(ParameterType::String).tier(ParameterTier::IntelligentTiering);
            call.description("The releases of a Snapwarden environment").value(&value).overwrite(overwrite)
        };
        let tag = Tag::builder().key(tags::ENVIRONMENT).value(scope.environment.as_str()).build();
        // Both parts are given. Only a parameter that is made takes tags.
        let made = put(false).set_tags(tag.ok().map(|tag| vec![tag])).send().await.call("ssm:PutParameter");
        let number = match made {
            Ok(made) => made.version,
            Err(error) if error.class == ErrorClass::AlreadyExists => {
                put(true).send().await.call("ssm:PutParameter")?.version
            }
            Err(error) => return Err(error.into()),
        };
        self.releases.push(Release { number, ..release });
        Ok(())
    }

    /// Deletes all records, with the environment. Tells whether there were any.
    pub async fn forget(aws: &Aws, scope: &Scope) -> Result<bool, AwsError> {
        let call = aws.ssm.delete_parameter().name(scope.releases_parameter());
        Ok(call.send().await.call("ssm:DeleteParameter").or_absent()?.is_some())
    }
}

/// Compact JSON in which the policies, nearly all of it, are compressed.
fn encode(release: &Release) -> String {
    let mut json = serde_json::json!(release);
    if let Some(fields) = json.as_object_mut() {
        fields.remove("number");
        if let Some(policies) = fields.remove("policies") {
            fields.insert("policies".to_owned(), compress(&policies.to_string()).into());
        }
    }
    json.to_string()
}

fn decode(text: &str) -> Option<Release> {
    let mut json: Value = serde_json::from_str(text).ok()?;
    let policies = decompress(json.get("policies")?.as_str()?).ok()?;
    json["policies"] = serde_json::from_str(&policies).ok()?;
    Release::deserialize(json).ok()
}

fn compress(text: &str) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    STANDARD.encode(compressed.unwrap_or_default())
}

fn decompress(encoded: &str) -> io::Result<String> {
    /// More than any record: a bomb ends here.
    const MOST: u64 = 1024 * 1024;
    let compressed = STANDARD.decode(encoded).map_err(io::Error::other)?;
    let mut text = String::new();
    DeflateDecoder::new(compressed.as_slice()).take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{release, with_policies_of};
    use super::*;

    /// A record that cannot be read back is a release that nobody can return to.
    #[test]
    fn what_is_recorded_is_read_back_and_fits_the_free_tier() {
        for file in ["prod", "local"] {
            let release = with_policies_of(file, release(3, 7));
            let text = encode(&release);
            assert_eq!(decode(&text), Some(Release { number: 0, ..release }));
            assert!(text.len() <= 4096, "{} bytes: a standard parameter has 4 KB", text.len());
            assert!(!text.contains("{{"), "SSM takes that for a reference to another parameter");
        }
    }

    #[test]
    fn a_damaged_record_is_no_release() {
        let text = encode(&with_policies_of("local", release(3, 7)));
        for damaged in [&text[..text.len() - 1], &text.replace("\"by\"", "\"who\""), "{}", "", "null"] {
            assert_eq!(decode(damaged), None, "{damaged}");
        }
    }
}

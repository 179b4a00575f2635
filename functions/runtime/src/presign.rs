//! The signed address by which EC2 in one Region asks EC2 in another for a snapshot.
//!
//! EC2 wants it for every encrypted source, and this SDK makes none by itself. A wrong one fails the copy hours later,
//! without an error of the call (source: EC2 API, `CopySnapshot`, `PresignedUrl`).

use std::time::{Duration, SystemTime};

use aws_sdk_ec2::config::{Credentials, ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use snapwarden_domain::report::Failure;

use crate::roles::without_credentials;

/// How long EC2 may take to use it; it does within the call.
const EXPIRES: Duration = Duration::from_mins(10);

/// The version of EC2's API, part of every request of it.
const VERSION: &str = "2016-11-15";

/// The address that lets EC2 in `target` copy a snapshot that is in `source`.
pub async fn copy_url(
    credentials: Option<&SharedCredentialsProvider>,
    (source, target): (&str, &str),
    snapshot: &str,
) -> Result<String, Failure> {
    let Some(provider) = credentials else { return Err(without_credentials()) };
    let credentials = provider.provide_credentials().await.map_err(|error| {
        Failure::new(format!("the function's credentials cannot be had: {error}"), "run again later")
    })?;
    signed(&credentials, (source, target), snapshot, SystemTime::now())
        .map_err(|error| Failure::new(format!("the copy cannot be signed: {error}"), "report this"))
}

/// As other SDKs sign it: a `GET` without a body, and everything in the query (source: botocore,
/// `handlers.inject_presigned_url_ec2` and `auth.SigV4QueryAuth`).
fn signed(
    credentials: &Credentials,
    (source, target): (&str, &str),
    snapshot: &str,
    now: SystemTime,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let suffix = if source.starts_with("cn-") { ".cn" } else { "" };
    // None of the values has a character that would have to be escaped.
    let url = format!(
        "https://ec2.{source}.amazonaws.com{suffix}/?Action=CopySnapshot&Version={VERSION}&SourceRegion={source}\
         &SourceSnapshotId={snapshot}&DestinationRegion={target}"
    );
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let identity = credentials.clone().into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(source)
        .name("ec2")
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let signable = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(signable, &params)?.into_parts();
    let mut request = http::Request::get(&url).body(())?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held against what botocore 1.43 signs of the same request at the same second.
    #[test]
    fn the_address_is_signed_as_other_sdks_sign_it() {
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(498_708);
        let url = signed(&credentials, ("eu-central-1", "eu-west-1"), "snap-0123", now).unwrap();
        let (address, query) = url.split_once('?').unwrap();
        assert_eq!(address, "https://ec2.eu-central-1.amazonaws.com/");
        for part in [
            "Action=CopySnapshot",
            "SourceSnapshotId=snap-0123",
            "DestinationRegion=eu-west-1",
            "X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-central-1%2Fec2%2Faws4_request",
            "X-Amz-Expires=600",
            "X-Amz-Signature=bb0ead9f2a583ad086857c65a6d93d0c88484f62e644440f7d51110caaba76f3",
        ] {
            assert!(query.split('&').any(|one| one == part), "{part}: {url}");
        }
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_asked_of_ec2() {
        let failure = copy_url(None, ("eu-central-1", "eu-west-1"), "snap-1").await.unwrap_err();
        assert!(failure.message.contains("no credentials"), "{failure}");
    }
}

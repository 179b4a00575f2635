//! What both functions ask of EC2, and how they read its answers.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Instance, Snapshot, Tag};
use jiff::Timestamp;
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;

/// The most that EC2 lists a page.
pub(crate) const PAGE: i32 = 1_000;

/// All instances that match the filters, as `read` sees them; page by page, like [`snapshots`].
pub async fn instances<T>(
    ec2: &Client,
    filters: Vec<Filter>,
    read: impl Fn(&Instance) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    let mut listed =
        ec2.describe_instances().set_filters(Some(filters)).max_results(PAGE).into_paginator().items().send();
    let mut found = Vec::new();
    while let Some(reservation) = listed.next().await {
        let reservation =
            reservation.map_err(|error| failure(&error).during("could not list the instances"))?;
        found.extend(reservation.instances().iter().filter_map(&read));
    }
    Ok(found)
}

/// All of the environment's snapshots in this account that match the filters as well, as `read` sees them.
///
/// A Region may hold a hundred thousand: they are read page by page, so that only what `read` keeps takes memory.
pub async fn snapshots<T>(
    ec2: &Client,
    environment: &EnvironmentName,
    mut filters: Vec<Filter>,
    read: impl Fn(&Snapshot) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    filters.push(tagged(tags::ENVIRONMENT, environment.as_str()));
    let mut listed = ec2
        .describe_snapshots()
        .owner_ids("self")
        .set_filters(Some(filters))
        .max_results(PAGE)
        .into_paginator()
        .items()
        .send();
    let mut found = Vec::new();
    while let Some(snapshot) = listed.next().await {
        let snapshot = snapshot.map_err(|error| failure(&error).during("could not list the snapshots"))?;
        found.extend(read(&snapshot));
    }
    Ok(found)
}

/// When a snapshot was started, to the second.
pub fn started_at(snapshot: &Snapshot) -> Option<Timestamp> {
    Timestamp::from_second(snapshot.start_time()?.secs()).ok()
}

/// A filter for a tag with exactly this value.
pub fn tagged(key: &str, value: &str) -> Filter {
    one_of(&format!("tag:{key}"), [value])
}

/// A filter for any of these values, compared exactly: EC2 would take `*` and `?` for wildcards.
pub fn one_of<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    let exactly = |value: &str| {
        let escape = |c: char| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c]);
        value.chars().flat_map(escape).collect::<String>()
    };
    Filter::builder().name(name).set_values(Some(values.into_iter().map(exactly).collect())).build()
}

/// The value of a tag.
pub fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key))?.value()
}

/// A failed call, with AWS's code and what is known to help.
pub fn failure<E>(error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.code();
    let message = match error.message() {
        // EC2 appends a kilobyte of ciphertext to denials.
        Some(message) => {
            message.split(" Encoded authorization failure message").next().unwrap_or(message).to_owned()
        }
        None => DisplayErrorContext(error).to_string(),
    };
    Failure { code: code.map(str::to_owned), message, hint: code.and_then(hint).map(str::to_owned) }
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "UnauthorizedOperation" => {
            "the function's role lacks this right: deploy again, or look for a policy above it that denies"
        }
        "AuthFailure" | "ExpiredToken" | "InvalidClientTokenId" | "SignatureDoesNotMatch" => {
            "the function's credentials are not accepted: check its role"
        }
        "OptInRequired" => "the account is not signed up for EC2 in this Region",
        "RequestLimitExceeded" => {
            "the account's EC2 request rate is used up: see who else calls it at this hour"
        }
        "InternalError" | "Unavailable" | "ServiceUnavailable" => {
            "EC2 has a problem of its own: run again later"
        }
        "SnapshotLimitExceeded" | "ResourceLimitExceeded" => {
            "the Region's snapshot quota is used up: let cleanup delete more, or ask AWS to raise it"
        }
        "ConcurrentSnapshotLimitExceeded" | "PendingSnapshotLimitExceeded" => {
            "too many snapshots are still being made: check for failed ones, and run again later"
        }
        "SnapshotCreationPerVolumeRateExceeded" => {
            "another snapshot of this volume was just started: run again later"
        }
        "InvalidInstanceID.NotFound" => "the instance was terminated meanwhile: nothing to do",
        "IncorrectState" | "IncorrectInstanceState" => {
            "the instance or a volume is changing state: run again later"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
    use aws_sdk_ec2::operation::describe_snapshots::{DescribeSnapshotsError, DescribeSnapshotsOutput};
    use aws_sdk_ec2::types::Reservation;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;

    #[tokio::test]
    async fn instances_beyond_the_first_page_are_backed_up_too() {
        let page = |id: &str| {
            let instance = Instance::builder().instance_id(id).build();
            DescribeInstancesOutput::builder()
                .reservations(Reservation::builder().instances(instance).build())
        };
        let first = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token().is_none() && request.max_results() == Some(PAGE))
            .then_output(move || page("i-1").next_token("2").build());
        let empty = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token() == Some("2"))
            .then_output(|| DescribeInstancesOutput::builder().next_token("3").build());
        let last = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token() == Some("3"))
            .then_output(move || page("i-2").build());
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &[&first, &empty, &last]);
        let id = |instance: &Instance| instance.instance_id().map(str::to_owned);
        assert_eq!(instances(&ec2, vec![tagged("Backup", "true")], id).await.unwrap(), ["i-1", "i-2"]);
    }

    #[tokio::test]
    async fn only_this_accounts_and_environments_snapshots_are_ever_listed() {
        let list = mock!(Client::describe_snapshots)
            .match_requests(|request| {
                request.owner_ids() == ["self"]
                    && request.filters() == [tagged("snapwarden:environment", "prod")]
                    && request.snapshot_ids().is_empty()
            })
            .then_output(|| DescribeSnapshotsOutput::builder().build());
        let ec2 = mock_client!(aws_sdk_ec2, [&list]);
        snapshots(&ec2, &"prod".parse().unwrap(), Vec::new(), |_| Some(())).await.unwrap();
        assert_eq!(list.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_failure_says_awss_code_and_what_to_do_without_the_ciphertext() {
        let denied = mock!(Client::describe_snapshots).then_error(|| {
            DescribeSnapshotsError::generic(
                ErrorMetadata::builder()
                    .code("UnauthorizedOperation")
                    .message("You may not. Encoded authorization failure message: AAAA")
                    .build(),
            )
        });
        let ec2 = mock_client!(aws_sdk_ec2, [&denied]);
        let failure = snapshots(&ec2, &"prod".parse().unwrap(), Vec::new(), |_| Some(())).await.unwrap_err();
        let text = failure.to_string();
        assert!(
            text.starts_with("UnauthorizedOperation: could not list the snapshots: You may not. (hint: "),
            "{text}"
        );
    }

    #[test]
    fn a_value_with_wildcards_selects_only_itself() {
        assert_eq!(tagged("Backup", r"a*b?c\d").values(), [r"a\*b\?c\\d"]);
        assert_eq!(tagged("Backup", "true").name(), Some("tag:Backup"));
    }
}

//! What both functions ask of EC2, and how they read its answers.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{Region, SharedCredentialsProvider};
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Instance, Reservation, Snapshot, Tag};
use jiff::Timestamp;
use snapwarden_domain::inventory::CopyOf;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;

use crate::deadline::Deadline;
use crate::meter::Meter;
use crate::pace::{Api, Pace};

/// EC2, as one invocation calls it: each call at its turn, and counted.
#[derive(Clone, Debug)]
pub struct Ec2 {
    client: Client,
    /// The same without pace and meter.
    plain: Client,
    pace: Arc<Pace>,
    meter: Meter,
    is_full: bool,
    multiplier: NonZeroU16,
}

impl Ec2 {
    /// Calls through this client, with buckets and counters of its own.
    ///
    /// `is_full` and `multiplier` are [`Pace::new`]'s.
    pub fn new(client: &Client, is_full: bool, multiplier: NonZeroU16) -> Self {
        let pace = Arc::new(Pace::new(is_full, multiplier));
        let meter = Meter::new(Arc::clone(&pace));
        let metered = Client::from_conf(client.config().to_builder().interceptor(meter.clone()).build());
        Self { client: metered, plain: client.clone(), pace, meter, is_full, multiplier }
    }

    /// Another Region or, with credentials of its own, another account, where EC2 has buckets of their own; the calls
    /// count here as well.
    #[must_use]
    pub fn elsewhere(&self, region: &str, credentials: Option<SharedCredentialsProvider>) -> Self {
        let pace = Arc::new(Pace::new(self.is_full, self.multiplier));
        let meter = self.meter.for_pace(Arc::clone(&pace));
        let mut config = self.plain.config().to_builder().region(Region::new(region.to_owned()));
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        let plain = Client::from_conf(config.build());
        let client = Client::from_conf(plain.config().to_builder().interceptor(meter.clone()).build());
        Self { client, plain, pace, meter, ..*self }
    }

    /// Waits for the turn of one call, and returns the client to make it with.
    pub async fn turn(&self, api: Api) -> &Client {
        self.pace.turn(api).await;
        &self.client
    }

    /// The same, or nothing where the turn would come after the deadline.
    pub async fn turn_before(&self, api: Api, deadline: Deadline) -> Option<&Client> {
        self.pace.turn_before(api, deadline).await.then_some(&self.client)
    }

    /// The client without a turn: for paginators, each page of which takes a turn of its own.
    pub(crate) fn unpaced(&self) -> &Client {
        &self.client
    }

    /// The Region that is called.
    pub fn region(&self) -> Option<&str> {
        self.client.config().region().map(AsRef::as_ref)
    }

    /// How many calls there were, with the SDK's own repetitions.
    pub fn calls(&self) -> u64 {
        self.meter.calls()
    }

    /// How many of them EC2 throttled.
    pub fn throttles(&self) -> u64 {
        self.meter.throttles()
    }
}

/// The most that EC2 lists a page.
pub(crate) const PAGE: i32 = 1_000;

/// All instances that match the filters, each once, as `read` sees them; page by page, like [`snapshots`].
pub async fn instances<T>(
    ec2: &Ec2,
    filters: Vec<Filter>,
    read: impl Fn(&Instance) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    let call = ec2.client.describe_instances().set_filters(Some(filters)).max_results(PAGE);
    let mut pages = call.into_paginator().send();
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    loop {
        ec2.turn(Api::DescribeInstances).await;
        let Some(page) = pages.next().await else { return Ok(found) };
        let page = page.map_err(|error| failure(&error).during("could not list the instances"))?;
        // A list that changes between two pages may name one twice: two backups of it at once.
        let is_new =
            |instance: &&Instance| instance.instance_id().is_none_or(|id| seen.insert(id.to_owned()));
        let instances = page.reservations().iter().flat_map(Reservation::instances);
        found.extend(instances.filter(is_new).filter_map(&read));
    }
}

/// All of the owner's snapshots in this account and Region that match the filters as well, as `read` sees them.
///
/// A Region may hold a hundred thousand: they are read page by page, so that only what `read` keeps takes memory.
pub async fn snapshots<T>(
    ec2: &Ec2,
    owner: impl Into<Owner>,
    mut filters: Vec<Filter>,
    read: impl Fn(&Snapshot) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    let (key, value) = owner.into().tag();
    filters.push(tagged(key, &value));
    let call = ec2.client.describe_snapshots().owner_ids("self");
    let mut pages = call.set_filters(Some(filters)).max_results(PAGE).into_paginator().send();
    let mut found = Vec::new();
    loop {
        ec2.turn(Api::DescribeSnapshots).await;
        let Some(page) = pages.next().await else { return Ok(found) };
        let page = page.map_err(|error| failure(&error).during("could not list the snapshots"))?;
        found.extend(page.snapshots().iter().filter_map(&read));
    }
}

/// When a snapshot was started, to the second.
pub fn started_at(snapshot: &Snapshot) -> Option<Timestamp> {
    Timestamp::from_second(snapshot.start_time()?.secs()).ok()
}

/// What a snapshot is a copy of, where Snapwarden has copied it.
pub fn copy_of(snapshot: &Snapshot) -> Option<CopyOf> {
    let source = tag(snapshot.tags(), tags::SOURCE_SNAPSHOT)?.to_owned();
    Some(CopyOf { source, begun_at: started_at(snapshot) })
}

/// The volume whose contents a snapshot holds. What EC2 says of a copy means nothing (source: EC2 API, `CopySnapshot`).
pub fn volume(snapshot: &Snapshot) -> Option<&str> {
    match tag(snapshot.tags(), tags::SOURCE_SNAPSHOT) {
        Some(_) => tag(snapshot.tags(), tags::SOURCE_VOLUME),
        None => snapshot.volume_id(),
    }
}

/// The moment whose contents a snapshot holds: when it was started, or what it is a copy of.
pub fn moment(snapshot: &Snapshot) -> Option<Timestamp> {
    match tag(snapshot.tags(), tags::SOURCE_SNAPSHOT) {
        Some(_) => tag(snapshot.tags(), tags::STARTED_AT)?.parse().ok(),
        None => started_at(snapshot),
    }
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
    let hint = code.map_or("AWS did not answer: see whether it can be reached, and run again", hint);
    Failure { code: code.map(str::to_owned), message, hint: Some(hint.to_owned()) }
}

fn hint(code: &str) -> &'static str {
    match code {
        "UnauthorizedOperation" => {
            "the function's role lacks this right: deploy again or, for copies in another account, give the role there what \
             `cargo xtask policies copies` writes; else look for a policy above it that denies"
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
        "KMSKeyNotAccessibleFault" | "InvalidKmsKey.InvalidState" | "KmsKeyNotFound" => {
            "the key cannot be used: see encryption.kms_key, whether the key is enabled, and its key policy"
        }
        "ConcurrentSnapshotLimitExceeded" => {
            "a volume allows five snapshots in progress, of type st1 or sc1 one: see whether an older one is still \
             pending or in error, and run again once it is not"
        }
        "PendingSnapshotLimitExceeded" => {
            "too many of the account's snapshots are in progress: run again once they are completed"
        }
        "SnapshotCreationPerVolumeRateExceeded" => {
            "another snapshot of this volume was just started: run again later"
        }
        "InvalidInstanceID.NotFound" => "the instance was terminated meanwhile: nothing to do",
        "IncorrectState" | "IncorrectInstanceState" => {
            "the instance or a volume is changing state: run again later"
        }
        _ => {
            "see this code in AWS's API reference (EC2: \"Error codes\"), and run again once its cause is gone"
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
    use aws_sdk_ec2::operation::describe_snapshots::{DescribeSnapshotsError, DescribeSnapshotsOutput};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use snapwarden_domain::names::EnvironmentName;

    use super::*;

    fn prod() -> EnvironmentName {
        "prod".parse().unwrap()
    }

    fn paced(client: &Client) -> Ec2 {
        Ec2::new(client, true, NonZeroU16::MIN)
    }

    #[tokio::test]
    async fn instances_beyond_the_first_page_are_backed_up_too_and_none_twice() {
        let page = |ids: &[&str]| {
            let instance = |id: &&str| Instance::builder().instance_id(*id).build();
            let reservation = Reservation::builder().set_instances(Some(ids.iter().map(instance).collect()));
            DescribeInstancesOutput::builder().reservations(reservation.build())
        };
        let first = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token().is_none() && request.max_results() == Some(PAGE))
            .then_output(move || page(&["i-1"]).next_token("2").build());
        let empty = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token() == Some("2"))
            .then_output(|| DescribeInstancesOutput::builder().next_token("3").build());
        let last = mock!(Client::describe_instances)
            .match_requests(|request| request.next_token() == Some("3"))
            .then_output(move || page(&["i-1", "i-2"]).build());
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, &[&first, &empty, &last]);
        let id = |instance: &Instance| instance.instance_id().map(str::to_owned);
        assert_eq!(
            instances(&paced(&ec2), vec![tagged("Backup", "true")], id).await.unwrap(),
            ["i-1", "i-2"]
        );
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
        snapshots(&paced(&ec2), &prod(), Vec::new(), |_| Some(())).await.unwrap();
        assert_eq!(list.num_calls(), 1);
    }

    /// Copies are found by a tag of their own, so that an environment of the same name in that Region never sees them; and
    /// what runs there slows nothing down here.
    #[tokio::test]
    async fn another_region_is_another_client_whose_calls_count() {
        let list = mock!(Client::describe_snapshots)
            .match_requests(|request| {
                request.filters() == [tagged("snapwarden:copied-by", "prod/eu-central-1")]
            })
            .then_output(|| DescribeSnapshotsOutput::builder().build());
        let home = paced(&mock_client!(aws_sdk_ec2, [&list]));
        let there = home.elsewhere("eu-west-1", None);
        assert_eq!(there.region(), Some("eu-west-1"));
        assert_ne!(home.region(), there.region());
        let copies = Owner::of_copies(&prod(), "eu-central-1");
        snapshots(&there, &copies, Vec::new(), |_| Some(())).await.unwrap();
        assert_eq!((home.calls(), there.calls()), (1, 1));
        assert!(!Arc::ptr_eq(&home.pace, &there.pace));
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
        let failure = snapshots(&paced(&ec2), &prod(), Vec::new(), |_| Some(())).await.unwrap_err();
        let text = failure.to_string();
        assert!(
            text.starts_with("UnauthorizedOperation: could not list the snapshots: You may not. (hint: "),
            "{text}"
        );
    }

    /// A code alone helps nobody at three in the morning.
    #[test]
    fn every_refusal_says_what_to_do() {
        for (code, what) in [
            ("ConcurrentSnapshotLimitExceeded", "st1 or sc1 one"),
            ("PendingSnapshotLimitExceeded", "in progress"),
            ("SnapshotLimitExceeded", "quota"),
            ("SnapshotCreationPerVolumeRateExceeded", "just started"),
            ("RequestLimitExceeded", "who else calls"),
            ("InvalidInstanceID.NotFound", "terminated"),
            ("SomethingNew", "API reference"),
        ] {
            assert!(hint(code).contains(what), "{code}: {}", hint(code));
        }
        let lost = failure(&SdkError::<DescribeSnapshotsError>::timeout_error("no answer"));
        assert_eq!(lost.code, None);
        assert!(lost.hint.is_some_and(|hint| hint.contains("did not answer")));
    }

    #[test]
    fn a_value_with_wildcards_selects_only_itself() {
        assert_eq!(tagged("Backup", r"a*b?c\d").values(), [r"a\*b\?c\\d"]);
        assert_eq!(tagged("Backup", "true").name(), Some("tag:Backup"));
    }
}

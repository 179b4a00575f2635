//! Making one encrypted copy, here or elsewhere: the call, its tags, and what its answers mean.

use std::collections::BTreeMap;

use aws_sdk_ec2::config::Config;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use snapwarden_domain::copying::Wanted;
use snapwarden_domain::inventory::Snapshot;
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;
use snapwarden_runtime::{Api, Ec2, ec2};

/// The most tags that a resource takes (source: EC2 user guide, "Tag your Amazon EC2 resources"); those of `aws:` do
/// not count, and only AWS can set them.
const MAX_TAGS: usize = 50;

/// How EC2 answered, where it did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As many copies as may are being made already, ours or somebody else's, or so many calls: nothing more fits for now.
    NoPlace,
    /// The source is gone, or not completed: a later pass looks again.
    NotNow,
    /// EC2 refused it.
    Refused(Failure),
    /// It may have been done: there was no answer, or an error inside EC2.
    Unclear(Failure),
}

/// What a dry run's answer says against a real copy; whether EC2 said nothing of it, since it does not see the source.
pub(crate) fn denial(answer: Result<String, Answer>) -> (Option<Failure>, bool) {
    let failure = match answer {
        Err(Answer::Refused(failure) | Answer::Unclear(failure)) => {
            if failure.code.as_deref() == Some("DryRunOperation") {
                return (None, false);
            }
            failure
        }
        Ok(id) => Failure::new(
            format!("EC2 answered as if it had begun {id}, although it was asked for a dry run"),
            "look at the snapshot, and at what answers in EC2's place",
        ),
        Err(Answer::NoPlace) => return (None, false),
        Err(Answer::NotNow) => return (None, true),
    };
    (Some(failure.during("a real pass could not copy")), false)
}

/// What to copy, and how.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The source.
    pub(crate) snapshot: &'a Snapshot,
    /// The Region that it is in.
    pub(crate) from: &'a str,
    /// The copy's tags.
    pub(crate) tags: &'a BTreeMap<String, String>,
    /// What encrypts the copy.
    pub(crate) key: &'a str,
    /// What lets EC2 in another Region have the source, see [`snapwarden_runtime::presign`].
    pub(crate) presigned_url: Option<String>,
}

/// Begins one encrypted copy in the client's Region, with its tags in the same call: there is no time at which the copy
/// exists and does not say what it is of.
///
/// `CopySnapshot` knows no client token, so the SDK's retries are off. After an unclear end nothing is asked again
/// either: the next pass, minutes later, sees whether the copy is there. Should there ever be two, the later one goes.
pub(crate) async fn copy(client: &Ec2, order: Order<'_>, dry_run: bool) -> Result<String, Answer> {
    let Order { snapshot, from, tags, key, presigned_url } = order;
    let once = Config::builder().retry_config(RetryConfig::disabled());
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let specification = TagSpecification::builder().resource_type(ResourceType::Snapshot);
    // EC2 wants to be told where it is, where the source is elsewhere.
    let target = presigned_url.as_ref().and(client.region()).map(str::to_owned);
    let answer = client
        .turn(Api::CopySnapshot)
        .await
        .copy_snapshot()
        .source_region(from)
        .source_snapshot_id(&snapshot.id)
        .set_destination_region(target)
        .set_presigned_url(presigned_url)
        .description(format!("Encrypted copy of {}", snapshot.id))
        .encrypted(true)
        .kms_key_id(key)
        .tag_specifications(specification.set_tags(Some(tags.collect())).build())
        .dry_run(dry_run)
        .customize()
        .config_override(once)
        .send()
        .await;
    match answer {
        Ok(answer) => match answer.snapshot_id() {
            Some(id) => Ok(id.to_owned()),
            None => Err(Answer::Unclear(Failure::new(
                "EC2 accepted the copy and named no snapshot",
                "the next pass looks whether it is there",
            ))),
        },
        Err(error) => {
            let is_internal = error.raw_response().is_some_and(|raw| raw.status().is_server_error());
            Err(meaning(ec2::failure(&error), is_internal))
        }
    }
}

/// What a refusal means.
pub(crate) fn meaning(failure: Failure, is_internal: bool) -> Answer {
    match failure.code.as_deref() {
        // A throttled call was not let in, though EC2 answers it with a server error's status.
        Some("ResourceLimitExceeded" | "RequestLimitExceeded" | "SnapshotLimitExceeded") => Answer::NoPlace,
        Some("InvalidSnapshot.NotFound" | "IncorrectState") => Answer::NotNow,
        Some("InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable") | None => {
            Answer::Unclear(failure)
        }
        Some(_) if is_internal => Answer::Unclear(failure),
        Some(_) => Answer::Refused(failure),
    }
}

/// Whether a failure says that the role lacks a right, which it has for all of the environment's snapshots or for none.
pub(crate) fn is_for_all(failure: &Failure) -> bool {
    failure.code.as_deref() == Some("UnauthorizedOperation")
}

/// The copy's tags: all of the source's, and what EC2 forgets. Where that is more than fit, the source's owner's go
/// without, since ours say what the copy is and when it goes; returns how many did.
pub(crate) fn tags_of_copy(
    snapshot: &Snapshot,
    source: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, usize) {
    let mut copied = BTreeMap::from([(tags::SOURCE_SNAPSHOT.to_owned(), snapshot.origin().to_owned())]);
    copied.extend(snapshot.volume.clone().map(|volume| (tags::SOURCE_VOLUME.to_owned(), volume)));
    copied.extend(snapshot.started_at.map(|at| (tags::STARTED_AT.to_owned(), at.to_string())));
    carrying(copied, source)
}

/// The tags of a copy in another place. It says in place of the source's ownership tag whose it is, and has a day of its
/// own.
pub(crate) fn tags_of_copy_elsewhere(
    wanted: &Wanted<'_>,
    source: &BTreeMap<String, String>,
    owner: &Owner,
) -> (BTreeMap<String, String>, usize) {
    let snapshot = wanted.source;
    let (key, value) = owner.tag();
    let mut copied = BTreeMap::from([
        (key.to_owned(), value),
        (tags::SOURCE_SNAPSHOT.to_owned(), snapshot.origin().to_owned()),
        (tags::DELETE_ON.to_owned(), wanted.delete_on.to_string()),
        (tags::VOLUMES.to_owned(), wanted.set_volumes.to_string()),
    ]);
    copied.extend(snapshot.volume.clone().map(|volume| (tags::SOURCE_VOLUME.to_owned(), volume)));
    copied.extend(snapshot.started_at.map(|at| (tags::STARTED_AT.to_owned(), at.to_string())));
    let source = source.iter().filter(|(key, _)| *key != tags::ENVIRONMENT);
    carrying(copied, source)
}

/// These tags, and as many of the source's as fit beside them.
fn carrying<'a>(
    mut copied: BTreeMap<String, String>,
    source: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> (BTreeMap<String, String>, usize) {
    let carried =
        source.into_iter().filter(|(key, _)| !key.starts_with("aws:") && !copied.contains_key(*key));
    let mut carried: Vec<_> = carried.map(|(key, value)| (key.clone(), value.clone())).collect();
    carried.sort_by_key(|(key, _)| !is_ours(key));
    let dropped = (carried.len() + copied.len()).saturating_sub(MAX_TAGS);
    carried.truncate(carried.len() - dropped);
    copied.extend(carried);
    (copied, dropped)
}

fn is_ours(key: &str) -> bool {
    key.starts_with("snapwarden:") || [tags::DELETE_ON, tags::NAME].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            id: "snap-1".to_owned(),
            volume: Some("vol-1".to_owned()),
            started_at: Some("2026-11-22T02:00:09Z".parse().unwrap()),
            ..Snapshot::default()
        }
    }

    fn tags(keys: impl IntoIterator<Item = impl Into<String>>) -> BTreeMap<String, String> {
        keys.into_iter().map(|key| (key.into(), "x".to_owned())).collect()
    }

    /// Without them nobody could tell later what the copy is of, nor when it goes.
    #[test]
    fn a_copy_carries_its_sources_tags_and_what_ec2_forgets() {
        let (copied, dropped) =
            tags_of_copy(&snapshot(), &tags(["DeleteOn", "snapwarden:run", "team", "aws:x"]));
        let keys: Vec<_> = copied.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "DeleteOn",
                "snapwarden:run",
                "snapwarden:source-snapshot",
                "snapwarden:source-volume",
                "snapwarden:started-at",
                "team"
            ]
        );
        assert_eq!(copied["snapwarden:started-at"], "2026-11-22T02:00:09Z");
        assert_eq!((copied["snapwarden:source-volume"].as_str(), dropped), ("vol-1", 0));
    }

    /// With its source's ownership tag, a copy would be any environment's of that name in that Region to delete; with its
    /// source's day, it would go with it.
    #[test]
    fn a_copy_in_another_region_has_an_owner_and_a_day_of_its_own() {
        use snapwarden_domain::copying::Stage;

        let owner = Owner::of_copies(&"prod".parse().unwrap(), "eu-central-1");
        let snapshot = snapshot();
        let wanted = Wanted {
            source: &snapshot,
            delete_on: "2027-01-01".parse().unwrap(),
            set_volumes: 2,
            made_at: "2026-11-22T02:00:00Z".parse().unwrap(),
            stage: Stage::Missing,
        };
        let source = tags(["DeleteOn", "snapwarden:environment", "snapwarden:run", "team"]);
        let (copied, dropped) = tags_of_copy_elsewhere(&wanted, &source, &owner);
        let pairs: Vec<_> = copied.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("DeleteOn", "2027-01-01"),
                ("snapwarden:copied-by", "prod/eu-central-1"),
                ("snapwarden:run", "x"),
                ("snapwarden:source-snapshot", "snap-1"),
                ("snapwarden:source-volume", "vol-1"),
                ("snapwarden:started-at", "2026-11-22T02:00:09Z"),
                ("snapwarden:volumes", "2"),
                ("team", "x"),
            ]
        );
        assert_eq!(dropped, 0);
    }

    #[test]
    fn where_not_all_tags_fit_ours_do() {
        let many = (0..48).map(|number| format!("a-{number:02}")).chain(["DeleteOn".to_owned()]);
        let (copied, dropped) = tags_of_copy(&snapshot(), &tags(many));
        assert_eq!((copied.len(), dropped), (50, 2));
        assert!(copied.contains_key("DeleteOn") && copied.contains_key("snapwarden:source-snapshot"));
    }

    #[test]
    fn a_limit_of_ec2s_is_no_failure_and_an_unclear_end_is_no_refusal() {
        let failure =
            |code: &str| Failure { code: Some(code.to_owned()), ..Failure::new("as asked", "none") };
        assert_eq!(meaning(failure("ResourceLimitExceeded"), false), Answer::NoPlace);
        assert_eq!(meaning(failure("RequestLimitExceeded"), true), Answer::NoPlace);
        assert_eq!(meaning(failure("IncorrectState"), false), Answer::NotNow);
        let denied = failure("UnauthorizedOperation");
        assert_eq!(meaning(denied.clone(), false), Answer::Refused(denied));
        for (failure, is_internal) in
            [(failure("InternalError"), true), (failure("Odd"), true), (Failure::new("no answer", ""), false)]
        {
            assert_eq!(meaning(failure.clone(), is_internal), Answer::Unclear(failure));
        }
    }
}

//! Taking over snapshots that another program made: those that carry `DeleteOn`, and no environment's ownership tag.
//!
//! An adopted snapshot gets two tags: the ownership tag, so that cleanup sees it, and `snapwarden:adopted`, so that
//! the floor goes by its volume. It gets no `snapwarden:instance` and no `snapwarden:run`: which instance it was made
//! of, and what was made together with it, nobody knows, and a guess would let single snapshots pass for complete
//! sets and displace them.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, Tag};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use snapwarden_domain::inventory::{Inventory, Snapshot};
use snapwarden_domain::report::DueSnapshot;
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_domain::tags;
use snapwarden_domain::verdict::{Decision, Fence, MassDeletion, judge};
use snapwarden_runtime::inventory::read_snapshot;

use crate::aws::Aws;
use crate::error::{AwsError, Call, ErrorClass};
use crate::scope::Scope;

/// A snapshot that could be adopted, and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: DueSnapshot,
    /// What would become of it, or why it cannot be adopted.
    pub prospect: Prospect,
    /// The same for people.
    pub meaning: String,
}

/// What would become of an adopted snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prospect {
    /// The next cleanup would delete it.
    Deleted,
    /// Cleanup would delete it once its `DeleteOn` has come.
    NotDue,
    /// A fence would hold it, although it is due.
    Held,
    /// It cannot be adopted: cleanup could never delete it.
    Unadoptable,
}

/// Judges every candidate as if all of them had been adopted; grouped by volume.
///
/// `inventory` holds the environment's own snapshots and the candidates.
pub fn candidates(
    inventory: &Inventory,
    ids: &BTreeSet<String>,
    today: Date,
    settings: &CleanupSettings,
) -> Vec<Candidate> {
    let adopted = with_adopted(inventory, ids, settings);
    let mut found: Vec<_> = judge(&adopted, today, settings)
        .into_iter()
        .filter(|verdict| ids.contains(&verdict.snapshot.id))
        .map(|verdict| {
            let (prospect, meaning) = match (unadoptable(verdict.snapshot), verdict.decision) {
                (Some(reason), _) => (Prospect::Unadoptable, format!("cannot be adopted: {reason}")),
                (None, Decision::Delete) => (Prospect::Deleted, "the next cleanup deletes it".to_owned()),
                (None, Decision::Keep(Fence::NotDue)) => {
                    (Prospect::NotDue, "stays until its DeleteOn".to_owned())
                }
                (None, Decision::Keep(fence)) => {
                    (Prospect::Held, format!("due, but kept: {}", fence.reason(verdict.snapshot)))
                }
            };
            Candidate { snapshot: verdict.snapshot.into(), prospect, meaning }
        })
        .collect();
    found.sort_by(|a, b| {
        let place = |one: &Candidate| {
            let DueSnapshot { volume, started_at, snapshot, .. } = one.snapshot.clone();
            (volume, started_at, snapshot)
        };
        place(a).cmp(&place(b))
    });
    found
}

/// Why the next cleanup would delete nothing at all, were all of these adopted: the stop before a mass deletion.
pub fn mass_deletion(
    inventory: &Inventory,
    ids: &BTreeSet<String>,
    today: Date,
    settings: &CleanupSettings,
) -> Option<MassDeletion> {
    let mut adopted = with_adopted(inventory, ids, settings);
    adopted.snapshots.retain(|snapshot| snapshot.belongs_to(settings.environment.as_str()));
    MassDeletion::of(&judge(&adopted, today, settings), &settings.policy)
}

/// The inventory as it would be with these adopted, as far as they can be.
fn with_adopted(inventory: &Inventory, ids: &BTreeSet<String>, settings: &CleanupSettings) -> Inventory {
    let mut adopted = inventory.clone();
    let are_candidates = adopted.snapshots.iter_mut().filter(|snapshot| ids.contains(&snapshot.id));
    for snapshot in are_candidates.filter(|snapshot| unadoptable(snapshot).is_none()) {
        snapshot.environment = Some(settings.environment.to_string());
        snapshot.adopted = true;
    }
    adopted
}

/// Why a snapshot would stay for ever, so that to adopt it were a promise that nobody keeps.
fn unadoptable(snapshot: &Snapshot) -> Option<String> {
    if snapshot.aws_backup {
        Some(Fence::AwsBackup.to_string())
    } else if snapshot.due().is_none() {
        Some(Fence::UnreadableDeleteOn.to_string())
    } else {
        let unknown = "EC2 does not tell its volume, as for copies, so it may be a last copy";
        snapshot.source_volume().is_none().then(|| unknown.to_owned())
    }
}

/// The account's snapshots that carry `DeleteOn` and no ownership tag, of whichever environment.
pub async fn unowned(aws: &Aws) -> Result<Vec<Snapshot>, AwsError> {
    let dated = Filter::builder().name("tag-key").values(tags::DELETE_ON).build();
    let call = aws.ec2.describe_snapshots().owner_ids("self").filters(dated).max_results(1000);
    let mut pages = call.into_paginator().items().send();
    let mut found = Vec::new();
    while let Some(snapshot) = pages.next().await {
        let snapshot = snapshot.call("ec2:DescribeSnapshots")?;
        found.extend(read_snapshot(&snapshot).filter(|snapshot| snapshot.environment.is_none()));
    }
    Ok(found)
}

/// Tags the snapshots as the environment's, and returns those that EC2 does not let be tagged, each with the reason. To
/// repeat this does no harm.
///
/// EC2 tags all that a call names, or none: one snapshot that was deleted meanwhile would keep five hundred from being
/// adopted. So where it is about a snapshot, the call is made again for each half.
pub async fn adopt(aws: &Aws, scope: &Scope, ids: &[String], now: Timestamp) -> Vec<(String, AwsError)> {
    /// EC2 tags at most 1,000 resources a call (source: EC2 API, `CreateTags`).
    const CHUNK: usize = 500;

    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let is_about_one = |error: &AwsError| {
        matches!(error.class, ErrorClass::NotFound | ErrorClass::Other)
            && (error.code.starts_with("Invalid") || error.code == "TagLimitExceeded")
    };
    let (mut left, mut refused): (Vec<_>, Vec<_>) = (ids.chunks(CHUNK).rev().collect(), Vec::new());
    while let Some(chunk) = left.pop() {
        let call = aws.ec2.create_tags().set_resources(Some(chunk.to_vec()));
        let call = call.tags(tag(tags::ADOPTED, &format!("{now:.0}")));
        let call = call.tags(tag(tags::ENVIRONMENT, scope.environment.as_str()));
        match call.send().await.call("ec2:CreateTags") {
            Ok(_) => {}
            Err(error) if chunk.len() > 1 && is_about_one(&error) => {
                let (first, second) = chunk.split_at(chunk.len() / 2);
                left.extend([second, first]);
            }
            Err(error) => refused.extend(chunk.iter().map(|id| (id.clone(), error.clone()))),
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::Client;
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::create_tags::{CreateTagsError, CreateTagsOutput};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use serde_json::json;
    use snapwarden_domain::inventory::State;

    use super::*;
    use crate::aws::LocalEndpoints;

    fn old(id: &str, volume: &str, day: &str, delete_on: &str) -> Snapshot {
        Snapshot {
            id: id.to_owned(),
            volume: Some(volume.to_owned()),
            state: State::Completed,
            started_at: Some(format!("{day}T02:00:00Z").parse().unwrap()),
            delete_on: Some(delete_on.to_owned()),
            ..Snapshot::default()
        }
    }

    fn settings() -> CleanupSettings {
        let settings = json!({
            "environment": "prod", "timezone": "UTC",
            "policy": {
                "floor": 1, "orphan_floor_days": 90, "max_deletes": 5000, "mass_deletion_percent": 50,
            },
            "select": { "tag": "Backup", "value": "true" }, "backup_interval_hours": 24,
            "alias_arn": "",
        });
        serde_json::from_value(settings).unwrap()
    }

    fn prospects(snapshots: Vec<Snapshot>) -> Vec<(String, Prospect, String)> {
        let ids = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
        let inventory =
            Inventory { snapshots, volumes: BTreeSet::from(["vol-1".to_owned()]), ..Inventory::default() };
        let today = "2026-11-22".parse().unwrap();
        candidates(&inventory, &ids, today, &settings())
            .into_iter()
            .map(|one| (one.snapshot.snapshot, one.prospect, one.meaning))
            .collect()
    }

    /// The preview is what people decide by, so it must be the very verdict that cleanup will reach.
    #[test]
    fn the_preview_says_what_cleanup_will_do() {
        let found = prospects(vec![
            old("snap-1", "vol-1", "2026-11-01", "2026-11-08"),
            old("snap-2", "vol-1", "2026-11-02", "2026-11-09"),
            old("snap-3", "vol-2", "2026-11-20", "2026-11-27"),
        ]);
        let short: Vec<_> = found.iter().map(|(id, prospect, _)| (id.as_str(), *prospect)).collect();
        assert_eq!(
            short,
            [("snap-1", Prospect::Deleted), ("snap-2", Prospect::Held), ("snap-3", Prospect::NotDue)]
        );
        assert!(found[1].2.contains("newest copies"), "{found:?}");
    }

    #[test]
    fn what_cleanup_could_never_delete_is_not_adopted() {
        let found = prospects(vec![
            old("snap-1", "vol-1", "2026-11-01", "soon"),
            old("snap-2", "vol-ffffffff", "2026-11-01", "2026-11-08"),
            Snapshot { aws_backup: true, ..old("snap-3", "vol-1", "2026-11-01", "2026-11-08") },
        ]);
        assert!(found.iter().all(|(_, prospect, _)| *prospect == Prospect::Unadoptable), "{found:?}");
    }

    /// Who adopts three hundred expired snapshots would otherwise wait for a cleanup that stops every night.
    #[test]
    fn adopting_more_than_a_run_may_delete_is_said_before() {
        let snapshots: Vec<_> =
            (0..30).map(|n| old(&format!("snap-{n:02}"), "vol-1", "2026-11-01", "2026-11-08")).collect();
        let ids: BTreeSet<_> = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
        let few: BTreeSet<_> = ids.iter().take(15).cloned().collect();
        let inventory =
            Inventory { snapshots, volumes: BTreeSet::from(["vol-1".to_owned()]), ..Inventory::default() };
        let today = "2026-11-22".parse().unwrap();
        let stop = mass_deletion(&inventory, &ids, today, &settings()).unwrap();
        assert_eq!((stop.due, stop.managed), (29, 30), "one is the volume's newest copy");
        assert_eq!(mass_deletion(&inventory, &few, today, &settings()), None);
    }

    /// One snapshot that somebody has deleted meanwhile must not keep five hundred from being adopted.
    #[tokio::test]
    async fn a_snapshot_that_cannot_be_tagged_keeps_no_other_from_it() {
        let gone = |ids: &[String]| ids.iter().any(|id| id == "snap-007");
        let refused = mock!(Client::create_tags)
            .match_requests(move |request| gone(request.resources()))
            .then_error(|| {
                let code = ErrorMetadata::builder().code("InvalidSnapshot.NotFound").message("as asked");
                CreateTagsError::generic(code.build())
            });
        let fine = mock!(Client::create_tags)
            .match_requests(move |request| !gone(request.resources()))
            .then_output(|| CreateTagsOutput::builder().build());
        let nowhere =
            LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
        let aws = Aws::local(&"eu-central-1".to_owned().try_into().unwrap(), &nowhere);
        let aws = Aws { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&refused, &fine]), ..aws };
        let scope = Scope {
            account: "123456789012".to_owned().try_into().unwrap(),
            region: "eu-central-1".to_owned().try_into().unwrap(),
            environment: "test".parse().unwrap(),
            iam: crate::environment::Iam::default(),
            encryption: crate::environment::Encryption::default(),
        };
        let ids: Vec<_> = (0..600).map(|number| format!("snap-{number:03}")).collect();
        let failed = adopt(&aws, &scope, &ids, Timestamp::UNIX_EPOCH).await;
        let failed: Vec<_> = failed.iter().map(|(id, error)| (id.as_str(), error.code.as_str())).collect();
        assert_eq!(failed, [("snap-007", "InvalidSnapshot.NotFound")]);
        assert!(refused.num_calls() < 12, "{}", refused.num_calls());
    }
}

//! A key is made once, found again in whatever state it is, and never ended while anything needs it.

use aws_sdk_cloudwatchlogs::operation::associate_kms_key::AssociateKmsKeyOutput;
use aws_sdk_cloudwatchlogs::operation::describe_log_groups::DescribeLogGroupsOutput;
use aws_sdk_cloudwatchlogs::operation::disassociate_kms_key::DisassociateKmsKeyOutput;
use aws_sdk_cloudwatchlogs::operation::list_tags_for_resource::ListTagsForResourceOutput;
use aws_sdk_cloudwatchlogs::types::LogGroup as FoundLogGroup;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::operation::describe_volumes::DescribeVolumesOutput;
use aws_sdk_ec2::types::{Snapshot, Tag as Ec2Tag, Volume};
use aws_sdk_kms::error::ErrorMetadata as KmsErrorMetadata;
use aws_sdk_kms::operation::cancel_key_deletion::CancelKeyDeletionOutput;
use aws_sdk_kms::operation::create_alias::{CreateAliasError, CreateAliasOutput};
use aws_sdk_kms::operation::create_key::{CreateKeyError, CreateKeyOutput};
use aws_sdk_kms::operation::describe_key::DescribeKeyOutput;
use aws_sdk_kms::operation::enable_key::EnableKeyOutput;
use aws_sdk_kms::operation::enable_key_rotation::EnableKeyRotationOutput;
use aws_sdk_kms::operation::get_key_policy::GetKeyPolicyOutput;
use aws_sdk_kms::operation::get_key_rotation_status::GetKeyRotationStatusOutput;
use aws_sdk_kms::operation::list_aliases::ListAliasesOutput;
use aws_sdk_kms::operation::list_keys::ListKeysOutput;
use aws_sdk_kms::operation::list_resource_tags::{ListResourceTagsError, ListResourceTagsOutput};
use aws_sdk_kms::operation::schedule_key_deletion::ScheduleKeyDeletionOutput;
use aws_sdk_kms::types::{AliasListEntry, KeyListEntry, KeyMetadata, KeyState, Tag};
use aws_smithy_mocks::Rule;

use super::*;
use crate::environment::Encryption;
use crate::kinds::key::{Handle, Properties, Whose, needing};
use crate::plan::{Options, Verb, plan};
use crate::world::{Desired, Observed};

const ALIAS: &str = "alias/snapwarden-test";
const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/k";

fn kms_refusal(code: &str) -> KmsErrorMetadata {
    KmsErrorMetadata::builder().code(code).message("no").build()
}

/// A context of an environment with a key of its own, and clients that answer like this.
fn with(kms: &[&Rule], ec2: &[&Rule], logs: &[&Rule]) -> Context {
    let kms = mock_client!(aws_sdk_kms, RuleMode::MatchAny, kms);
    let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, ec2);
    let logs = mock_client!(aws_sdk_cloudwatchlogs, RuleMode::MatchAny, logs);
    let (mut cx, _) = context(Aws { kms, logs, ec2, ..aws() });
    cx.scope.encryption = Encryption::with_own_key();
    cx
}

fn key(state: &str) -> Properties {
    wanted::<Key>(json!({
        "description": "d", "state": state, "rotation": true, "policy": {}, "aliased": true,
        "tags": { "snapwarden:environment": "test" },
    }))
}

fn handle() -> Handle {
    Handle { id: "k".to_owned(), arn: ARN.to_owned() }
}

fn found(properties: Properties) -> FoundOf<Key> {
    Found { properties, handle: handle(), tags: None, revision: None }
}

fn aliases(targets: &'static [(&str, &str)]) -> Rule {
    mock!(aws_sdk_kms::Client::list_aliases).then_output(move || {
        let entry = |(name, id): &(&str, &str)| {
            AliasListEntry::builder().alias_name(*name).target_key_id(*id).build()
        };
        ListAliasesOutput::builder().set_aliases(Some(targets.iter().map(entry).collect())).build()
    })
}

fn keys(ids: &'static [&str]) -> Rule {
    mock!(aws_sdk_kms::Client::list_keys).then_output(move || {
        let entry = |id: &&str| KeyListEntry::builder().key_id(*id).build();
        ListKeysOutput::builder().set_keys(Some(ids.iter().map(entry).collect())).build()
    })
}

/// The tags of a key: the environment that they name.
fn tagged(id: &'static str, environment: &'static str) -> Rule {
    mock!(aws_sdk_kms::Client::list_resource_tags)
        .match_requests(move |request| request.key_id() == Some(id))
        .then_output(move || {
            let tag = Tag::builder().tag_key("snapwarden:environment").tag_value(environment).build();
            ListResourceTagsOutput::builder().tags(tag.unwrap()).build()
        })
}

/// What CloudWatch Logs says of a log group's tags.
fn no_tags() -> Rule {
    mock!(aws_sdk_cloudwatchlogs::Client::list_tags_for_resource)
        .then_output(|| ListTagsForResourceOutput::builder().build())
}

/// What KMS says of the key `k`, apart from its tags.
fn described(state: KeyState) -> [Rule; 3] {
    [
        mock!(aws_sdk_kms::Client::describe_key).then_output(move || {
            let key = KeyMetadata::builder().key_id("k").arn(ARN).description("d").key_state(state.clone());
            DescribeKeyOutput::builder().key_metadata(key.build().unwrap()).build()
        }),
        mock!(aws_sdk_kms::Client::get_key_policy)
            .then_output(|| GetKeyPolicyOutput::builder().policy("{}").build()),
        mock!(aws_sdk_kms::Client::get_key_rotation_status)
            .then_output(|| GetKeyRotationStatusOutput::builder().key_rotation_enabled(true).build()),
    ]
}

fn created() -> Rule {
    mock!(aws_sdk_kms::Client::create_key).then_output(|| {
        let key = KeyMetadata::builder().key_id("k").arn(ARN).build().unwrap();
        CreateKeyOutput::builder().key_metadata(key).build()
    })
}

fn aliased() -> Rule {
    mock!(aws_sdk_kms::Client::create_alias)
        .match_requests(|request| request.target_key_id() == Some("k") && request.alias_name() == Some(ALIAS))
        .then_output(|| CreateAliasOutput::builder().build())
}

fn rotated() -> Rule {
    mock!(aws_sdk_kms::Client::enable_key_rotation)
        .match_requests(|request| request.key_id() == Some("k"))
        .then_output(|| EnableKeyRotationOutput::builder().build())
}

/// Whoever asks for no key needs no right of KMS's, not even to look.
#[tokio::test]
async fn where_no_key_is_asked_for_kms_is_not_called() {
    let (cx, _) = context(Aws { kms: mock_client!(aws_sdk_kms, RuleMode::MatchAny, &[]), ..aws() });
    assert!(Key::observe(&cx).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_is_found_by_its_alias_with_all_that_is_compared() {
    let [describe, policy, rotation] = described(KeyState::Enabled);
    let (list, tags) = (aliases(&[("alias/other", "x"), (ALIAS, "k")]), tagged("k", "test"));
    let cx = with(&[&list, &describe, &policy, &rotation, &tags], &[], &[]);
    let seen = Key::observe(&cx).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].0.as_str(), &seen[0].1.properties), (ALIAS, &key("Enabled")));
    assert_eq!(seen[0].1.handle, handle());
}

#[tokio::test]
async fn where_there_is_none_none_is_found_and_it_is_made_owned_aliased_and_rotated() {
    let (list, none) = (aliases(&[]), keys(&[]));
    assert!(Key::observe(&with(&[&list, &none], &[], &[])).await.unwrap().is_empty());

    let create = mock!(aws_sdk_kms::Client::create_key)
        .match_requests(|request| {
            let owned = request.tags().iter().any(|tag| tag.tag_key() == "snapwarden:environment");
            owned && request.policy().is_some()
        })
        .then_output(|| {
            let key = KeyMetadata::builder().key_id("k").build().unwrap();
            CreateKeyOutput::builder().key_metadata(key).build()
        });
    let (alias, rotation) = (aliased(), rotated());
    Key::create(&with(&[&create, &alias, &rotation], &[], &[]), ALIAS, &key("Enabled")).await.unwrap();
    assert_eq!([create.num_calls(), alias.num_calls(), rotation.num_calls()], [1, 1, 1]);
}

/// A second key costs money for ever, and splits the backups among two.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_no_second_key() {
    let lost = mock!(aws_sdk_kms::Client::create_key).then_http_response(|| {
        aws_smithy_runtime_api::http::Response::new(
            500.try_into().unwrap(),
            aws_smithy_types::body::SdkBody::from("{}"),
        )
    });
    let (named, all) = (aliases(&[("alias/other", "x")]), keys(&["a", "k", "x"]));
    let (theirs, ours) = (tagged("a", "other"), tagged("k", "test"));
    let (alias, rotation) = (aliased(), rotated());
    let cx = with(&[&lost, &named, &all, &theirs, &ours, &alias, &rotation], &[], &[]);
    Key::create(&cx, ALIAS, &key("Enabled")).await.unwrap();
    assert_eq!([lost.num_calls(), alias.num_calls(), rotation.num_calls()], [1, 1, 1]);

    // Where none shows up, the error is what people see, and it is still one call.
    let none = keys(&["a", "x"]);
    let lost = mock!(aws_sdk_kms::Client::create_key)
        .then_error(|| CreateKeyError::generic(kms_refusal("KMSInternalException")));
    let cx = with(&[&lost, &named, &none, &theirs], &[], &[]);
    let error = Key::create(&cx, ALIAS, &key("Enabled")).await.unwrap_err().to_string();
    assert!(error.starts_with("kms:CreateKey: KMSInternalException") && lost.num_calls() == 1, "{error}");
}

/// A process that dies between the two calls leaves a key that nobody knows the name of, but for its tags.
#[tokio::test]
async fn a_key_without_its_alias_is_found_by_its_tags_and_gets_it() {
    let [describe, policy, rotation] = described(KeyState::Enabled);
    let (named, all) = (aliases(&[("alias/other", "x")]), keys(&["a", "k", "x"]));
    // Somebody's key that nobody else may look at.
    let closed = mock!(aws_sdk_kms::Client::list_resource_tags)
        .match_requests(|request| request.key_id() == Some("a"))
        .then_error(|| ListResourceTagsError::generic(kms_refusal("AccessDeniedException")));
    let (tags, alias) = (tagged("k", "test"), aliased());
    let cx = with(&[&named, &all, &closed, &describe, &policy, &rotation, &tags, &alias], &[], &[]);
    let (_, seen) = Key::observe(&cx).await.unwrap().remove(0);
    let orphan = wanted::<Key>(json!({ "aliased": false, "description": "d", "state": "Enabled",
        "rotation": true, "policy": {}, "tags": { "snapwarden:environment": "test" } }));
    assert_eq!(seen.properties, orphan);
    Key::update(&cx, ALIAS, &seen, &key("Enabled")).await.unwrap();
    assert_eq!(alias.num_calls(), 1, "and nothing else: no other rule answers");
}

/// The SDK repeats a call whose answer was lost, and KMS says that the alias exists; but an alias of somebody else's key
/// must not pass for ours.
#[tokio::test]
async fn an_alias_that_exists_already_is_fine_where_it_is_of_this_key() {
    for (target, fine) in [(&[(ALIAS, "k")][..], true), (&[(ALIAS, "x")], false)] {
        let exists = mock!(aws_sdk_kms::Client::create_alias)
            .then_error(|| CreateAliasError::generic(kms_refusal("AlreadyExistsException")));
        let (create, rotation) = (created(), rotated());
        let list = aliases(target);
        let cx = with(&[&create, &exists, &list, &rotation], &[], &[]);
        let result = Key::create(&cx, ALIAS, &key("Enabled")).await;
        assert_eq!(result.is_ok(), fine, "{result:?}");
    }
}

/// A deploy after a destroy: the backups that stayed are encrypted with that key, not with a new one.
#[tokio::test]
async fn a_key_that_is_to_be_deleted_is_taken_up_again() {
    let cancel = mock!(aws_sdk_kms::Client::cancel_key_deletion)
        .then_output(|| CancelKeyDeletionOutput::builder().build());
    let enable = mock!(aws_sdk_kms::Client::enable_key).then_output(|| EnableKeyOutput::builder().build());
    for (state, calls) in [("PendingDeletion", [1, 1]), ("Disabled", [1, 2])] {
        let cx = with(&[&cancel, &enable], &[], &[]);
        Key::update(&cx, ALIAS, &found(key(state)), &key("Enabled")).await.unwrap();
        assert_eq!([cancel.num_calls(), enable.num_calls()], calls, "{state}");
    }
    // And to a destroy it is as good as gone.
    assert!(Key::goes_by_itself(&found(key("PendingDeletion"))));
    assert!(!Key::goes_by_itself(&found(key("Enabled"))));
}

/// Of all that a deploy can do, ending a key is what nobody can undo.
#[test]
fn no_plan_but_a_purge_ends_a_key() {
    let (mut cx, _) = context(aws());
    cx.scope.encryption = Encryption::with_own_key();
    let tags = Some([("snapwarden:environment".to_owned(), "test".to_owned())].into());
    let observed = Observed::from([(
        ResourceId::new(Key::NAME, ALIAS),
        Found { properties: json!(key("Enabled")), handle: json!(handle()), tags, revision: None },
    )]);
    let verbs = |retain: &[&'static str]| {
        let options = Options { retain: retain.iter().copied().collect(), ..Options::default() };
        let plan = plan(&registry(), &cx.scope, &Desired::new(), &observed, &options).unwrap();
        plan.steps.iter().map(|step| step.verb).collect::<Vec<_>>()
    };
    assert_eq!(verbs(&[Key::NAME]), [Verb::Keep]);
    assert_eq!(verbs(&[]), [Verb::Delete]);
    assert_eq!(Key::rights(crate::rights::Purpose::Delete), &[], "it takes a right of its own");
}

/// The snapshots and volumes that EC2 lists, each with its key and its environment.
fn ec2(snapshots: &'static [(&str, &str, &str)], volumes: &'static [(&str, &str)]) -> [Rule; 2] {
    let snapshots = mock!(aws_sdk_ec2::Client::describe_snapshots).then_output(move || {
        let snapshot = |(id, key, environment): &(&str, &str, &str)| {
            let tag = Ec2Tag::builder().key("snapwarden:environment").value(*environment).build();
            Snapshot::builder().snapshot_id(*id).kms_key_id(*key).tags(tag).build()
        };
        let snapshots = snapshots.iter().map(snapshot).collect();
        DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots)).build()
    });
    let volumes = mock!(aws_sdk_ec2::Client::describe_volumes).then_output(move || {
        let volume = |(id, key): &(&str, &str)| Volume::builder().volume_id(*id).kms_key_id(*key).build();
        DescribeVolumesOutput::builder().set_volumes(Some(volumes.iter().map(volume).collect())).build()
    });
    [snapshots, volumes]
}

fn log_group(key: Option<&'static str>) -> Rule {
    mock!(aws_sdk_cloudwatchlogs::Client::describe_log_groups).then_output(move || {
        let group = FoundLogGroup::builder().log_group_name("/aws/lambda/snapwarden-test-backup");
        DescribeLogGroupsOutput::builder()
            .log_groups(group.set_kms_key_id(key.map(str::to_owned)).build())
            .build()
    })
}

const OTHER: &str = "arn:aws:kms:eu-central-1:123456789012:key/other";

/// Whatever is encrypted with a key that is gone is lost, whosever it is.
#[tokio::test]
async fn a_key_ends_only_when_nothing_in_the_account_needs_it() {
    let schedule = mock!(aws_sdk_kms::Client::schedule_key_deletion)
        .match_requests(|request| request.pending_window_in_days() == Some(30))
        .then_output(|| ScheduleKeyDeletionOutput::builder().build());
    for (rules, log_key, by) in [
        (ec2(&[("snap-1", ARN, "test")], &[]), None, Some("1 snapshot (snap-1)")),
        (ec2(&[("snap-1", ARN, "other"), ("snap-2", OTHER, "")], &[]), None, Some("1 snapshot (snap-1)")),
        (ec2(&[], &[("vol-1", ARN), ("vol-2", OTHER)]), None, Some("1 volume (vol-1)")),
        (ec2(&[], &[]), Some(ARN), Some("1 log group (/aws/lambda/snapwarden-test-backup)")),
        (ec2(&[("snap-2", OTHER, "test")], &[("vol-2", OTHER)]), Some(OTHER), None),
    ] {
        let logs = log_group(log_key);
        let cx = with(&[&schedule], &[&rules[0], &rules[1]], &[&logs]);
        let before = schedule.num_calls();
        let result = Key::delete(&cx, ALIAS, &found(key("Enabled"))).await;
        match by {
            Some(by) => {
                let error = result.unwrap_err().to_string();
                assert_eq!(error, format!("key {ALIAS} is left, since it is needed by {by}"));
                assert_eq!(schedule.num_calls(), before);
            }
            None => assert_eq!((result, schedule.num_calls()), (Ok(()), before + 1)),
        }
    }
    // What a purge is about to delete is no reason to plan without it.
    let rules = ec2(&[("snap-1", ARN, "test"), ("snap-3", ARN, "other")], &[]);
    let logs = log_group(None);
    let cx = with(&[], &[&rules[0], &rules[1]], &[&logs]);
    let others = needing(&cx.aws, &cx.scope, &handle(), Whose::OfOthers).await.unwrap();
    assert_eq!(others.snapshots, ["snap-3"]);
}

/// Not to know what needs a key is no reason to end it.
#[tokio::test]
async fn a_key_whose_use_cannot_be_seen_is_left() {
    let denied = mock!(aws_sdk_ec2::Client::describe_snapshots).then_error(|| {
        aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsError::generic(
            aws_sdk_ec2::error::ErrorMetadata::builder().code("UnauthorizedOperation").build(),
        )
    });
    // No rule answers `ScheduleKeyDeletion`.
    let cx = with(&[], &[&denied], &[]);
    let error = Key::delete(&cx, ALIAS, &found(key("Enabled"))).await.unwrap_err();
    assert!(matches!(error, StepError::Aws(error) if error.class == ErrorClass::AccessDenied));
}

/// CloudWatch Logs takes and tells ARNs, and plans speak of the alias: one must not be taken for drift of the other.
#[tokio::test]
async fn a_log_group_is_encrypted_with_the_key_behind_the_alias_and_seen_to_be() {
    let group =
        |key: Option<&str>| wanted::<LogGroup>(json!({ "retention_days": null, "kms_key": key, "tags": {} }));
    let name = "/aws/lambda/snapwarden-test-backup";
    for (logs_key, shown) in [(Some(ARN), Some(ALIAS)), (Some(OTHER), Some(OTHER)), (None, None)] {
        let own = aliases(&[(ALIAS, "k")]);
        let list = log_group(logs_key);
        let tags = no_tags();
        let cx = with(&[&own], &[], &[&list, &tags]);
        let seen = LogGroup::observe(&cx).await.unwrap();
        assert_eq!(json!(seen[0].1.properties), json!(group(shown)), "{logs_key:?}");
    }
    let associate = mock!(aws_sdk_cloudwatchlogs::Client::associate_kms_key)
        .match_requests(|request| request.kms_key_id() == Some(ARN))
        .then_output(|| AssociateKmsKeyOutput::builder().build());
    let disassociate = mock!(aws_sdk_cloudwatchlogs::Client::disassociate_kms_key)
        .then_output(|| DisassociateKmsKeyOutput::builder().build());
    let own = aliases(&[(ALIAS, "k")]);
    let cx = with(&[&own], &[], &[&associate, &disassociate]);
    for (from, to) in [(None, Some(ALIAS)), (Some(ALIAS), None)] {
        let now = Found { properties: group(from), handle: (), tags: None, revision: None };
        LogGroup::update(&cx, name, &now, &group(to)).await.unwrap();
    }
    assert_eq!([associate.num_calls(), disassociate.num_calls()], [1, 1]);
    // Somebody has taken the alias away: it is the key still, and the group needs no change.
    let (none, all, own) = (aliases(&[]), keys(&["k"]), tagged("k", "test"));
    let (list, tags) = (log_group(Some(ARN)), no_tags());
    let seen = LogGroup::observe(&with(&[&none, &all, &own], &[], &[&list, &tags])).await.unwrap();
    assert_eq!(json!(seen[0].1.properties), json!(group(Some(ALIAS))));
    // Without the key there is nothing to name, and to log in plain would not be what was asked for.
    let (gone, no_key) = (aliases(&[]), keys(&[]));
    let now = Found { properties: group(None), handle: (), tags: None, revision: None };
    let error = LogGroup::update(&with(&[&gone, &no_key], &[], &[]), name, &now, &group(Some(ALIAS))).await;
    assert!(error.unwrap_err().to_string().contains("alias/snapwarden-test is not there"));
}

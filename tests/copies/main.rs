//! Copies in another Region and in another account, with the real functions: made, kept for their own time, restored from,
//! and ended.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

mod account;

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, ResourceType, Snapshot, Tag, TagSpecification};
use serde_json::{Value, json};
use snapwarden_deployer::environment::CopyPlace;
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, bundle};

const THERE: &str = "eu-west-1";
const COPY_TO: &str =
    "copy_to: [{ region: eu-west-1, kms_key: alias/backup, retention: { daily_days: 14 } }]\nlogs: delete";

/// An environment that keeps copies in another Region.
fn local() -> Local {
    let local = Local::new();
    local.edit("logs: delete", COPY_TO);
    local
}

/// EC2 in the other Region.
fn there(local: &Local) -> Client {
    at(local, &CopyPlace { region: THERE.to_owned().try_into().unwrap(), role: None })
}

fn at(local: &Local, place: &CopyPlace) -> Client {
    block_on(local.aws().ec2_at(place)).unwrap()
}

/// The environment's copies there.
fn copies(local: &Local) -> Vec<Snapshot> {
    copies_of(&there(local), "local/eu-central-1")
}

fn copies_of(ec2: &Client, owner: &str) -> Vec<Snapshot> {
    let ours = Filter::builder().name("tag:snapwarden:copied-by").values(owner).build();
    let listed = ec2.describe_snapshots().owner_ids("self").filters(ours).send();
    block_on(listed).unwrap().snapshots.unwrap_or_default()
}

fn tag<'a>(snapshot: &'a Snapshot, key: &str) -> &'a str {
    snapshot.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).unwrap_or_default()
}

fn set_tag(local: &Local, snapshot: &Snapshot, key: &str, value: &str) {
    let tag = Tag::builder().key(key).value(value).build();
    let id = snapshot.snapshot_id().unwrap();
    block_on(there(local).create_tags().resources(id).tags(tag).send()).unwrap();
}

/// A snapshot there of an environment that is called the same: everybody's first one is `prod`.
fn namesake(local: &Local) -> String {
    let ec2 = there(local);
    let volume = block_on(ec2.create_volume().availability_zone("eu-west-1a").size(1).send()).unwrap();
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Snapshot)
        .tags(tag("snapwarden:environment", "local"))
        .tags(tag("DeleteOn", "2020-01-01"));
    let call = ec2.create_snapshot().volume_id(volume.volume_id.unwrap()).tag_specifications(tags.build());
    block_on(call.send()).unwrap().snapshot_id.unwrap()
}

fn is_there(local: &Local, id: &str) -> bool {
    let all = block_on(there(local).describe_snapshots().owner_ids("self").send()).unwrap();
    all.snapshots().iter().any(|one| one.snapshot_id() == Some(id))
}

fn length(list: &Value) -> usize {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).len()
}

/// The day that 14 days after today's backup ends on.
fn in_two_weeks() -> String {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
    today.saturating_add(jiff::Span::new().days(14)).to_string()
}

/// The whole life of copies: nobody's but this environment's, and never longer or shorter than was asked for.
#[test]
fn copies_are_made_once_expire_by_their_own_day_and_end_with_the_environment() {
    let local = local();
    local.deploy();
    local.json(&["local", "seed"]);
    let namesake = namesake(&local);
    local.json(&["invoke", "backup"]);
    let made = local.snapshots();

    let dry = local.json(&["invoke", "seal", "--dry-run"]);
    assert_eq!(length(&dry["copy_to"][0]["begun"]), made.len(), "{dry}");
    assert!(copies(&local).is_empty(), "a dry run copies nothing");
    let first = local.json(&["invoke", "seal"]);
    assert_eq!(length(&first["copy_to"][0]["begun"]), made.len(), "{first}");
    assert_eq!(first["seals"], json!(false), "nothing is sealed where only copies are asked for");
    let second = local.json(&["invoke", "seal"]);
    assert_eq!(
        (length(&second["copy_to"][0]["begun"]), &second["copy_to"][0]["copied"]),
        (0, &json!(made.len()))
    );
    assert!(local.ok(&["invoke", "seal"]).stdout.contains("eu-west-1: 0 copies begun, 3 there"));
    assert_eq!(local.snapshots(), made, "nothing at home goes for a copy's sake");
    let by_source: BTreeMap<_, _> = copies(&local)
        .into_iter()
        .map(|copy| (tag(&copy, "snapwarden:source-snapshot").to_owned(), copy))
        .collect();
    assert_eq!(by_source.len(), made.len());
    for source in &made {
        let copy = &by_source[&source.id];
        assert_eq!(copy.encrypted(), Some(true), "{copy:?}");
        assert_eq!(tag(copy, "snapwarden:source-volume"), source.volume);
        assert_eq!((tag(copy, "DeleteOn"), tag(copy, "snapwarden:environment")), (&*in_two_weeks(), ""));
        for key in ["snapwarden:run", "snapwarden:instance", "snapwarden:volumes"] {
            assert_eq!(tag(copy, key), source.tag(key), "{key}");
        }
    }
    let status = local.ok(&["status"]).stdout;
    assert!(status.contains("copies in eu-west-1: 3") && status.contains("next seal: "), "{status}");

    assert_eq!(second["copy_to"][0]["behind_hours"], json!(0));
    local.ok(&["report", "--out", "page.html"]);
    let page = std::fs::read_to_string(local.path("page.html")).unwrap();
    assert!(page.contains("<td>eu-west-1</td><td class=\"number\">3</td>"), "{page}");

    // The last whole set stays, expired or not; once there is another, it goes.
    for copy in copies(&local) {
        set_tag(&local, &copy, "DeleteOn", "2020-01-01");
    }
    let cleanup = local.json(&["invoke", "cleanup"]);
    let elsewhere = &cleanup["copies"][0];
    assert_eq!((length(&elsewhere["deleted"]), length(&elsewhere["held"])), (0, 3), "{cleanup}");
    // Whoever lowers the floor is told what that costs elsewhere, too.
    local.edit("floor: 1", "floor: 0");
    let diff = local.json(&["cleanup-diff"]);
    let regions: Vec<_> =
        diff["new_deletions"].as_array().unwrap().iter().map(|new| &new["region"]).collect();
    assert_eq!(regions, [THERE; 3], "{diff}");
    local.edit("floor: 0", "floor: 1");
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "seal"]);
    assert_eq!(copies(&local).len(), 6);
    let cleanup = local.json(&["invoke", "cleanup"]);
    let elsewhere = &cleanup["copies"][0];
    assert_eq!((length(&elsewhere["deleted"]), &elsewhere["not_due"]), (3, &json!(3)), "{cleanup}");
    assert_eq!((length(&cleanup["deleted"]), copies(&local).len()), (0, 3));
    assert!(copies(&local).iter().all(|copy| tag(copy, "DeleteOn") == in_two_weeks()));
    assert_eq!(
        length(&local.json(&["invoke", "seal"])["copy_to"][0]["begun"]),
        0,
        "what went is not made again"
    );

    // A Region that is given up is emptied first: nobody would ever delete what it holds.
    local.edit(COPY_TO, "logs: delete");
    for command in ["plan", "deploy"] {
        let refused = local.run(&[command, "--bundle", &bundle()]);
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("paused: true"), "{refused:?}");
    }
    local.edit("logs: delete", &COPY_TO.replace("daily_days: 14 }", "daily_days: 14 }, paused: true"));
    local.ok(&["deploy", "--bundle", &bundle(), "--yes"]);
    local.json(&["invoke", "backup"]);
    let paused = local.json(&["invoke", "seal"]);
    assert_eq!(
        (length(&paused["copy_to"][0]["begun"]), &paused["copy_to"][0]["waiting"]),
        (0, &json!(3)),
        "{paused}"
    );

    let kept = local.ok(&["destroy", "--yes"]);
    assert!(kept.stdout.contains("in eu-west-1: 3 copies remain"), "{kept:?}");
    assert_eq!(copies(&local).len(), 3);
    let purged = local.json(&["destroy", "--snapshots", "purge", "--yes"]);
    assert_eq!((copies(&local).len(), local.snapshots().len()), (0, 0), "{purged}");
    assert_eq!(length(&purged["copies"][THERE]), 0, "{purged}");
    assert!(is_there(&local, &namesake), "it is another environment's");
}

/// The day that all of this is for: the environment's own Region does not answer any more.
#[test]
fn an_instance_is_restored_in_the_other_region_from_its_sealed_copies() {
    const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let local = local();
    let encryption = format!("encryption: {{ require: enforce, kms_key: \"{KEY}\" }}\nlogs: delete");
    local.edit("logs: delete", &encryption);
    let functions = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    // What is in clear text does not leave: the first pass seals, the second copies what was sealed. One answer is lost.
    let first = local.json(&["invoke", "seal"]);
    assert_eq!((length(&first["begun"]), &first["copy_to"][0]["unsealed"]), (3, &json!(3)), "{first}");
    assert!(copies(&local).is_empty());
    functions.rule(vec![Rule::nth(2, Calls::Action("ec2:CopySnapshot"), Effect::LoseAnswer)]);
    let ran = local.run(&["invoke", "seal"]);
    assert!(ran.code == 1 && ran.stderr.contains("may have been begun"), "{ran:?}");
    functions.rule(Vec::new());
    let third = local.json(&["invoke", "seal"]);
    assert_eq!((copies(&local).len(), &third["copy_to"][0]["copied"]), (3, &json!(3)), "each once: {third}");
    assert_eq!(local.snapshots().len(), 3, "sealed, and the clear ones are gone");

    let instance = tag(&copies(&local)[0], "snapwarden:instance").to_owned();
    let here = ["--region", THERE, "--zone", "eu-west-1a"];
    let plan = local.json(&[&["restore", "plan", "--instance", &instance], &here[..]].concat());
    assert_eq!((&plan["copies_in"], &plan["zone"]), (&json!(THERE), &json!("eu-west-1a")), "{plan}");
    let restored = local.json(&[&["restore", "run", "--instance", &instance, "--yes"], &here[..]].concat());
    let volumes = length(&restored["volumes"]);
    assert_eq!(volumes, length(&plan["volumes"]));
    assert!(restored["commands"][0].as_str().unwrap().contains("--region eu-west-1"), "{restored}");
    let listed = block_on(there(&local).describe_volumes().send()).unwrap();
    let of_ours = |volume: &&aws_sdk_ec2::types::Volume| {
        volume.tags().iter().any(|tag| tag.key() == Some("snapwarden:restored-by"))
    };
    assert_eq!(listed.volumes().iter().filter(of_ours).count(), volumes);
    let zoneless = local.run(&["restore", "plan", "--instance", &instance, "--region", THERE]);
    assert_eq!(zoneless.code, 2, "{zoneless:?}");
    let drill = local.json(&[&["restore", "drill", "--yes"], &here[..]].concat());
    assert_eq!((length(&drill["problems"]), length(&drill["left"])), (0, 0), "{drill}");
}

//! What cleanup deletes and what it keeps, through the real program and the real function.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use jiff::{ToSpan, Zoned};
use serde_json::{Value, json};
use snapwarden_tests::{Local, Snapshot, block_on};

const PAST: &str = "2020-01-01";

fn today() -> jiff::civil::Date {
    Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date()
}

/// A local environment with two instances backed up once: three snapshots.
fn backed_up(from: &str, to: &str) -> (Local, Vec<Snapshot>) {
    let local = Local::with(from, to);
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    let made = local.snapshots();
    assert_eq!(made.len(), 3, "{made:?}");
    (local, made)
}

fn ids(list: &Value) -> BTreeSet<String> {
    let id = |one: &Value| one["snapshot"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(id).collect()
}

fn left(local: &Local) -> BTreeSet<String> {
    local.snapshots().into_iter().map(|snapshot| snapshot.id).collect()
}

/// A snapshot of another program: with `DeleteOn`, and without any tag of ours.
fn old_snapshot(local: &Local, volume: &str, delete_on: &str) -> String {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Snapshot)
        .tags(tag("DeleteOn", delete_on))
        .tags(tag("CreatedBy", "lambda-ebs-backup"))
        .build();
    let call = local.aws().ec2.create_snapshot().volume_id(volume).tag_specifications(tags);
    block_on(call.send()).unwrap().snapshot_id.unwrap()
}

/// Two environments share an account, and others work there too. To delete what is not ours cannot be forgiven.
#[test]
fn what_belongs_to_others_is_never_touched() {
    let (local, ours) = backed_up("floor: 1", "floor: 0");
    let file = std::fs::read_to_string(local.path("environments/local.yaml")).unwrap();
    local.write_environment("other", &file.replace("environment: local", "environment: other"));
    local.json(&["deploy", "--env", "other", "--bundle", &snapwarden_tests::bundle()]);
    local.json(&["invoke", "backup", "--env", "other"]);
    let foreign = local.foreign_snapshot();
    let old = old_snapshot(&local, &ours[0].volume, PAST);
    for snapshot in local.snapshots() {
        local.tag(&snapshot.id, "DeleteOn", PAST);
    }
    local.tag(&foreign, "Backup", "true");
    assert_eq!(local.snapshots().len(), 8);

    let report = local.json(&["invoke", "cleanup"]);
    let ours: BTreeSet<_> = ours.into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(ids(&report["deleted"]), ours, "{report}");
    let left = left(&local);
    assert_eq!(left.len(), 5, "the other environment's three, the foreign one and the old one");
    assert!(left.contains(&foreign) && left.contains(&old));
}

/// People edit `DeleteOn` to keep or to drop a snapshot. What they write wrong is never read as a yes.
#[test]
fn an_edited_delete_on_counts_and_an_unreadable_one_only_warns() {
    let (local, made) = backed_up("floor: 1", "floor: 0");
    let tomorrow = today().checked_add(1.days()).unwrap().to_string();
    local.tag(&made[0].id, "DeleteOn", PAST);
    local.tag(&made[1].id, "DeleteOn", &tomorrow);
    local.tag(&made[2].id, "DeleteOn", "01.01.2020");
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(ids(&report["deleted"]), BTreeSet::from([made[0].id.clone()]), "{report}");
    assert_eq!(report["held"][0]["snapshot"], json!(made[2].id));
    assert_eq!(report["held"][0]["fence"], json!("unreadable_delete_on"));
    assert!(report["warnings"][0].as_str().unwrap().contains(&made[2].id), "{report}");
    assert_eq!(report["not_due"], json!(1));
}

/// A detached volume is backed up no more: its last copy has to outlive its day. Once the volume is gone, it goes.
#[test]
fn the_last_copy_of_a_detached_volume_stays_until_the_volume_is_gone() {
    let (local, made) = backed_up("orphan_floor_days: 90", "orphan_floor_days: 0");
    let ec2 = local.aws().ec2;
    let volumes = block_on(ec2.describe_volumes().send()).unwrap().volumes.unwrap();
    let data = volumes.iter().find(|volume| volume.size() == Some(20)).unwrap();
    let (volume, instance) = (data.volume_id().unwrap(), data.attachments()[0].instance_id().unwrap());
    block_on(ec2.detach_volume().volume_id(volume).instance_id(instance).send()).unwrap();
    // A second night, without the detached volume. A run is named after its second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    local.json(&["invoke", "backup"]);
    for snapshot in local.snapshots() {
        local.tag(&snapshot.id, "DeleteOn", PAST);
    }
    let copy = made.iter().find(|snapshot| snapshot.volume == volume).unwrap();

    let report = local.json(&["invoke", "cleanup"]);
    let held = report["held"].as_array().unwrap();
    let of_copy = held.iter().find(|held| held["snapshot"] == json!(copy.id)).expect("it is held");
    assert_eq!(of_copy["fence"], json!("volume_floor"), "{report}");
    assert_eq!(report["deleted"].as_array().unwrap().len(), 2, "the first night's others: {report}");

    block_on(ec2.delete_volume().volume_id(volume).send()).unwrap();
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(ids(&report["deleted"]), BTreeSet::from([copy.id.clone()]), "{report}");
}

/// Most of the snapshots at once is more likely a mistake than a night.
#[test]
fn a_mass_deletion_stops_until_a_person_lets_one_run_through() {
    let (local, made) = backed_up("floor: 1", "floor: 0");
    let of = |n: usize| made[n % 3].volume.clone();
    let old: Vec<_> = (0..30).map(|n| old_snapshot(&local, &of(n), PAST)).collect();
    let adopted = local.json(&["adopt-snapshots", "--all", "--yes"]);
    assert_eq!(adopted["adopted"].as_array().unwrap().len(), 30, "{adopted}");
    assert_eq!(adopted["mass_deletion"]["due"], json!(30), "it is said before: {adopted}");

    let stopped = local.run(&["invoke", "cleanup"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(stopped.stderr.contains("30 of 33 snapshots would be deleted"), "{stopped:?}");
    assert!(stopped.stderr.contains("--allow-mass-deletion"), "it says how to go on: {stopped:?}");
    assert_eq!(local.snapshots().len(), 33, "nothing is deleted");

    let dry = local.ok(&["invoke", "cleanup", "--dry-run"]);
    assert!(dry.stdout.contains("would STOP") && dry.stdout.contains(&old[0]), "{dry:?}");

    let report = local.json(&["invoke", "cleanup", "--allow-mass-deletion", "--max-deletes", "12"]);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 12, "{report}");
    assert_eq!(report["postponed"], json!(18));
    let report = local.json(&["invoke", "cleanup", "--allow-mass-deletion"]);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 18, "{report}");
    assert_eq!(local.snapshots(), made, "the environment's own are there, unchanged");
}

/// Users come from other programs with snapshots that nobody would ever delete. Only what they choose changes.
#[test]
fn old_snapshots_are_shown_first_and_only_the_chosen_ones_expire() {
    let (local, made) = backed_up("floor: 1", "floor: 1");
    let volume = made[0].volume.as_str();
    let first = old_snapshot(&local, volume, PAST);
    let second = old_snapshot(&local, volume, PAST);
    let unreadable = old_snapshot(&local, volume, "soon");
    // A backup that is newer, so that they are not the volume's newest copies. A run is named after its second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    local.json(&["invoke", "backup"]);
    let before = local.snapshots();

    let shown = local.json(&["adopt-snapshots"]);
    let listed = ids(&shown["candidates"]);
    assert_eq!(listed, BTreeSet::from([first.clone(), second.clone(), unreadable.clone()]), "{shown}");
    assert_eq!(local.snapshots(), before, "a look changes nothing");
    assert_eq!(local.run(&["adopt-snapshots", &first]).code, 2, "nobody is there to say yes");
    assert_eq!(local.run(&["adopt-snapshots", &unreadable, "--yes"]).code, 2, "it could never expire");
    assert_eq!(local.snapshots(), before);

    let table = local.ok(&["adopt-snapshots", &first, "--yes"]);
    assert!(table.stderr.contains("the next cleanup deletes it"), "{table:?}");
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(ids(&report["deleted"]), BTreeSet::from([first]), "{report}");
    assert!(left(&local).contains(&second), "it was not chosen");
}

/// One changed line in a file can cost last copies the night after. A deploy says how many, and does not go ahead.
#[test]
fn a_policy_that_deletes_more_is_deployed_only_with_a_yes_of_its_own() {
    let (local, made) = backed_up("floor: 1", "floor: 1");
    for snapshot in &made {
        local.tag(&snapshot.id, "DeleteOn", PAST);
    }
    let same = local.json(&["cleanup-diff"]);
    assert_eq!((&same["new_deletions"], &same["deployed"]), (&json!([]), &json!(null)));

    local.edit("floor: 1", "floor: 0");
    let diff = local.json(&["cleanup-diff"]);
    assert_eq!(ids(&diff["new_deletions"]).len(), 3, "{diff}");
    let bundle = snapwarden_tests::bundle();
    let refused = local.run(&["deploy", "--bundle", &bundle, "--yes"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("3 snapshots"), "{refused:?}");
    assert!(refused.stderr.contains("--accept-deletions"), "{refused:?}");
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(report["deleted"], json!([]), "the deployed policy holds: {report}");

    local.ok(&["deploy", "--bundle", &bundle, "--yes", "--accept-deletions"]);
    let report = local.json(&["invoke", "cleanup"]);
    assert_eq!(ids(&report["deleted"]).len(), 3, "{report}");
}

/// A dry run is read by people: what would go, what stays, and why, volume by volume.
#[test]
fn a_dry_run_shows_a_table_of_what_goes_and_what_stays() {
    let (local, made) = backed_up("floor: 1", "floor: 1");
    local.tag(&made[0].id, "DeleteOn", PAST);
    let image = block_on(local.aws().ec2.describe_instances().send()).unwrap();
    let instance = image.reservations()[0].instances()[0].instance_id().unwrap().to_owned();
    let image = block_on(local.aws().ec2.create_image().instance_id(instance).name("golden").send()).unwrap();
    let image = image.image_id.unwrap();
    let images = block_on(local.aws().ec2.describe_images().image_ids(&image).send()).unwrap();
    let used = images.images()[0].block_device_mappings()[0].ebs().unwrap().snapshot_id().unwrap().to_owned();
    local.tag(&used, "snapwarden:environment", "local");
    local.tag(&used, "DeleteOn", PAST);

    let shown = local.ok(&["invoke", "cleanup", "--dry-run"]).stdout;
    assert!(shown.contains(&format!("kept: {image} is made of it")), "{shown}");
    assert!(shown.contains("kept: it is one of its instance's newest complete copies"), "{shown}");
    let header = shown.lines().find(|line| line.starts_with("VOLUME")).expect(&shown);
    assert!(header.contains("DELETE ON") && header.contains("VERDICT"), "{shown}");
    assert!(shown.contains("not listed: 2 not due (--verbose lists them)"), "{shown}");
    let all = local.ok(&["invoke", "cleanup", "--dry-run", "--verbose"]).stdout;
    assert_eq!(all.matches("kept: its DeleteOn has not come").count(), 2, "{all}");
}

/// Cleanup is the one who notices that backups stopped.
#[test]
fn the_audit_names_what_is_not_backed_up() {
    let (local, _) = backed_up("floor: 1", "floor: 1");
    let report = local.json(&["invoke", "cleanup"]);
    let audit = &report["audit"];
    assert_eq!((&audit["instances_selected"], &audit["volumes_selected"]), (&json!(2), &json!(3)), "{audit}");
    assert_eq!((&audit["oldest_backup_age_hours"], &audit["unprotected_volumes"]), (&json!(0), &json!(0)));
    let protections: BTreeSet<_> = audit["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| volume["protection"].as_str().unwrap())
        .collect();
    assert_eq!(protections, BTreeSet::from(["protected"]), "{audit}");
}

/// A large environment, in whose nights pages, chunks and rates matter. `SNAPWARDEN_LONG=1` makes it 3,000.
#[test]
fn many_snapshots_expire_in_one_run() {
    let count = if std::env::var_os("SNAPWARDEN_LONG").is_some() { 3_000 } else { 300 };
    let (local, made) = backed_up("floor: 1", "floor: 1");
    let ec2 = local.aws().ec2;
    block_on(async {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        for _ in 0..count {
            let tags = TagSpecification::builder()
                .resource_type(ResourceType::Snapshot)
                .tags(tag("DeleteOn", PAST))
                .tags(tag("snapwarden:environment", "local"))
                .tags(tag("snapwarden:adopted", PAST))
                .build();
            ec2.create_snapshot().volume_id(&made[0].volume).tag_specifications(tags).send().await.unwrap();
        }
    });
    // They are newer than the environment's own, so one of them is the volume's newest copy.
    let report = local.json(&["invoke", "cleanup", "--allow-mass-deletion", "--pace", "1000"]);
    assert_eq!(report["managed"], json!(count + 3));
    assert_eq!(report["deleted"].as_array().unwrap().len(), count - 1, "{}", report["failed"]);
    assert_eq!(local.snapshots().len(), 4);
}

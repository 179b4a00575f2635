use std::path::Path;

use snapwarden_domain::inventory::{CopyOf, Snapshot, State};

use super::*;
use crate::environment::parse;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn snapshot(id: &str, volume: &str, day: u8) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some(volume.to_owned()),
        size_gib: 8,
        state: State::Completed,
        started_at: Some(at(&format!("2026-11-{day:02}T02:00:09Z"))),
        environment: Some("prod".to_owned()),
        instance: Some("i-1".to_owned()),
        run: Some(format!("g/backup@2026-11-{day:02}T02:00:00Z")),
        ..Snapshot::default()
    }
}

/// Two nights of two volumes, and one of which half is missing.
fn nights() -> Vec<Snapshot> {
    vec![
        snapshot("snap-20a", "vol-a", 20),
        snapshot("snap-20b", "vol-b", 20),
        snapshot("snap-21a", "vol-a", 21),
        snapshot("snap-21b", "vol-b", 21),
        snapshot("snap-22a", "vol-a", 22),
        Snapshot { state: State::Error, ..snapshot("snap-22b", "vol-b", 22) },
    ]
}

fn chosen(snapshots: &[Snapshot], time: Option<&str>) -> Result<Vec<String>, NothingToRestore> {
    let chosen = choose(snapshots, Some("i-1"), time.map(at))?;
    Ok(chosen.members.iter().map(|member| member.id.clone()).collect())
}

/// Disks of two moments do not fit together, and half an instance is none.
#[test]
fn the_newest_complete_set_at_or_before_the_time_is_chosen() {
    let nights = nights();
    assert_eq!(chosen(&nights, None).unwrap(), ["snap-21a", "snap-21b"]);
    assert_eq!(chosen(&nights, Some("2026-11-21T02:00:09Z")).unwrap(), ["snap-21a", "snap-21b"]);
    assert_eq!(chosen(&nights, Some("2026-11-21T02:00:08Z")).unwrap(), ["snap-20a", "snap-20b"]);
    let early = chosen(&nights, Some("2026-11-19T00:00:00Z")).unwrap_err();
    assert_eq!(
        early.to_string(),
        "the oldest complete snapshot set of i-1 is of 2026-11-20T02:00:09Z, after 2026-11-19T00:00:00Z"
    );
    assert!(matches!(chosen(&nights[4..], None), Err(NothingToRestore::NoCompleteSet { .. })));
    assert!(matches!(choose(&nights, Some("i-2"), None), Err(NothingToRestore::NoSnapshots(_))));
    assert_eq!(choose(&nights, None, None).unwrap().instance, "i-1");
}

#[test]
fn of_a_copy_and_its_source_the_copy_is_restored() {
    let mut snapshots = nights();
    let source = snapshots[3].clone();
    let copy = Some(CopyOf { source: source.id.clone(), begun_at: Some(at("2026-11-21T03:00:00Z")) });
    snapshots.push(Snapshot { id: "snap-copy".to_owned(), encrypted: true, copy, ..source });
    assert_eq!(chosen(&snapshots, None).unwrap(), ["snap-21a", "snap-copy"]);
    // The source is gone: the copy stands for it.
    snapshots.remove(3);
    assert_eq!(chosen(&snapshots, None).unwrap(), ["snap-21a", "snap-copy"]);
}

fn environment(encryption: &str) -> Environment {
    let text = include_str!("../../../environments/prod.yaml");
    parse(Path::new("prod.yaml"), &format!("{text}\n{encryption}\n")).unwrap()
}

fn disk(zone: &str, device: &str) -> Disk {
    Disk {
        zone: zone.to_owned(),
        kind: "io2".to_owned(),
        iops: Some(4_000),
        throughput: None,
        devices: BTreeMap::from([("i-1".to_owned(), device.to_owned())]),
    }
}

#[test]
fn volumes_are_made_like_the_originals_where_those_are_known() {
    let nights = nights();
    let chosen = choose(&nights, Some("i-1"), None).unwrap();
    let disks = BTreeMap::from([("vol-a".to_owned(), disk("eu-central-1b", "/dev/xvda"))]);
    let tags =
        ["Name", "DeleteOn", "snapwarden:run", "aws:x", "team"].map(|key| (key.to_owned(), "x".to_owned()));
    let tags = BTreeMap::from([("snap-21a".to_owned(), BTreeMap::from(tags))]);
    let plan = plan(&chosen, &disks, &tags, None, None, &environment("")).unwrap();
    assert_eq!((plan.zone.as_str(), plan.volumes.len()), ("eu-central-1b", 2));
    let (known, gone) = (&plan.volumes[0], &plan.volumes[1]);
    assert_eq!(
        (known.kind.as_str(), known.iops, known.device.as_deref()),
        ("io2", Some(4_000), Some("/dev/xvda"))
    );
    assert_eq!(known.tags.keys().collect::<Vec<_>>(), ["Name", "team"], "a volume is no snapshot");
    assert_eq!((gone.kind.as_str(), gone.device.as_deref()), ("gp3", None));
    assert_eq!((known.encrypted, known.kms_key.as_deref()), (false, None));
}

/// A restore must not be the way in which clear text comes back.
#[test]
fn where_nothing_may_be_in_clear_text_restored_volumes_are_not_either() {
    let nights = nights();
    let chosen = choose(&nights, Some("i-1"), None).unwrap();
    let environment = environment("encryption: { require: report, kms_key: alias/backup }");
    let plan =
        plan(&chosen, &BTreeMap::new(), &BTreeMap::new(), Some("eu-central-1a"), None, &environment).unwrap();
    assert!(plan.volumes.iter().all(|volume| volume.kms_key.as_deref() == Some("alias/backup")));
}

#[test]
fn the_zone_is_that_of_the_originals_or_has_to_be_said() {
    let nights = nights();
    let chosen = choose(&nights, Some("i-1"), None).unwrap();
    let zone = |disks: &[(&str, &str)], asked: Option<&str>| {
        let disk = |(volume, zone): &(&str, &str)| ((*volume).to_owned(), disk(zone, "/dev/sdf"));
        let disks = disks.iter().map(disk).collect();
        plan(&chosen, &disks, &BTreeMap::new(), asked, None, &environment("")).map(|plan| plan.zone)
    };
    assert_eq!(zone(&[("vol-a", "eu-central-1b")], None).unwrap(), "eu-central-1b");
    assert_eq!(zone(&[("vol-a", "eu-central-1b")], Some("eu-central-1c")).unwrap(), "eu-central-1c");
    assert!(matches!(zone(&[], None), Err(NothingToRestore::NoZone(_))));
    let two = [("vol-a", "eu-central-1a"), ("vol-b", "eu-central-1b")];
    assert!(matches!(zone(&two, None), Err(NothingToRestore::NoZone(_))));
    for foreign in ["us-east-1a", "eu-central-1", "a", ""] {
        assert!(matches!(zone(&[], Some(foreign)), Err(NothingToRestore::ForeignZone { .. })), "{foreign}");
    }
}

/// On the day that the own Region is lost, nobody can look there for zones, types and devices.
#[test]
fn copies_are_restored_in_their_own_region_with_its_key() {
    let mut nights = nights();
    for snapshot in &mut nights {
        snapshot.encrypted = snapshot.id != "snap-21b";
    }
    let chosen = choose(&nights, Some("i-1"), None).unwrap();
    let environment = environment(
        "encryption: { require: enforce, kms_key: alias/home }\n\
         copy_to: [{ region: eu-west-1, kms_key: alias/there, retention: { daily_days: 14 } }]",
    );
    let there = CopyPlace { region: "eu-west-1".to_owned().try_into().unwrap(), role: None };
    let nothing = BTreeMap::new();
    let plan = |zone| plan(&chosen, &BTreeMap::new(), &nothing, zone, Some(&there), &environment);
    let planned = plan(Some("eu-west-1b")).unwrap();
    assert_eq!((planned.copies_in.as_deref(), planned.zone.as_str()), (Some("eu-west-1"), "eu-west-1b"));
    let keys: Vec<_> = planned.volumes.iter().map(|volume| volume.kms_key.as_deref()).collect();
    assert_eq!(keys, [None, Some("alias/there")]);
    assert!(matches!(plan(None), Err(NothingToRestore::NoZone(_))));
    assert!(matches!(plan(Some("eu-central-1a")), Err(NothingToRestore::ForeignZone { .. })));
}

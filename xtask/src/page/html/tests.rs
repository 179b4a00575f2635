use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use snapwarden_deployer::environment::{CopyPlace, Pricing};
use snapwarden_deployer::inventory::Volume;
use snapwarden_deployer::scope::Scope;
use snapwarden_domain::inventory::{AttachedVolume, Instance};
use snapwarden_domain::names::Zone;

use super::super::Facts;
use super::*;

fn scope() -> Scope {
    Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "prod".parse().unwrap(),
        iam: snapwarden_deployer::environment::Iam::default(),
        encryption: snapwarden_deployer::environment::Encryption::default(),
    }
}

fn now() -> Timestamp {
    "2026-11-24T05:00:00Z".parse().unwrap()
}

fn snapshot(number: usize, volume: &str, days_ago: i64) -> Snapshot {
    let started = now() - SignedDuration::from_hours(days_ago * 24 + 3);
    let due = (started + SignedDuration::from_hours(7 * 24)).strftime("%F").to_string();
    Snapshot {
        delete_on: Some(due),
        snapshot: format!("snap-{number:017x}"),
        volume: volume.to_owned(),
        instance: Some("i-0123456789abcdef0".to_owned()),
        state: "completed".to_owned(),
        size_gib: 8,
        started_at: Some(started),
        encrypted: true,
    }
}

fn volumes(ids: &[&str]) -> BTreeMap<String, Volume> {
    let volume = Volume {
        availability_zone: "eu-central-1b".to_owned(),
        kind: "gp3".to_owned(),
        iops: Some(3000),
        throughput: Some(125),
    };
    ids.iter().map(|id| ((*id).to_owned(), volume.clone())).collect()
}

fn page_of(snapshots: &[Snapshot], volumes: &BTreeMap<String, Volume>) -> String {
    page_with(snapshots, volumes, &[])
}

fn page_with(snapshots: &[Snapshot], volumes: &BTreeMap<String, Volume>, selected: &[Instance]) -> String {
    page_beside(snapshots, volumes, selected, &BTreeMap::new())
}

fn page_beside(
    snapshots: &[Snapshot],
    volumes: &BTreeMap<String, Volume>,
    selected: &[Instance],
    elsewhere: &BTreeMap<CopyPlace, Vec<Snapshot>>,
) -> String {
    let (scope, zone, pricing) = (scope(), Zone::utc(), Pricing::default());
    let (scope, zone, pricing) = (&scope, &zone, &pricing);
    let facts =
        Facts { scope, zone, pricing, snapshots, volumes, selected, elsewhere, unseen: &[], now: now() };
    html(&Page::of(facts))
}

/// Who counts on another Region must see what is not there.
#[test]
fn copies_in_other_regions_are_counted_and_what_has_none_is_named() {
    let ids = ["vol-a", "vol-b"];
    let snapshots: Vec<_> = ids.iter().map(|id| snapshot(1, id, 0)).collect();
    let failed = Snapshot { state: "error".to_owned(), ..snapshot(12, "vol-b", 0) };
    let copies = vec![snapshot(10, "vol-a", 4), snapshot(11, "vol-a", 0), failed];
    let region = CopyPlace { region: "eu-west-1".to_owned().try_into().unwrap(), role: None };
    let page = page_beside(&snapshots, &volumes(&ids), &[], &BTreeMap::from([(region, copies)]));
    let row = page.split("<td>eu-west-1</td>").nth(1).unwrap().split("</tr>").next().unwrap();
    let cells: Vec<&str> = row.split("<td").skip(1).map(|cell| cell.split_once('>').unwrap().1).collect();
    let expected = ["2", "16", "3 h", "0", "1", "<code>vol-b</code> "].map(|cell| format!("{cell}</td>"));
    assert_eq!(cells, expected);
    assert!(!page_of(&snapshots, &volumes(&ids)).contains("Copies elsewhere"), "where nothing is copied");
}

/// Some volumes over some weeks, with everything that can be wrong; also what the picture in the documentation shows.
fn sample() -> (Vec<Snapshot>, BTreeMap<String, Volume>) {
    let ids = ["vol-4c99722ea1f3883d4", "vol-7b07bf9f9d3a8e60e", "vol-b72aefb6fe5b116ea"];
    let mut snapshots: Vec<Snapshot> = (0..7)
        .flat_map(|day| ids.iter().zip(0_usize..).map(move |(id, index)| (*id, index, day)))
        .filter(|(_, index, day)| (*index, *day) != (1, 3))
        .map(|(id, index, day)| snapshot(index * 100 + usize::try_from(day).unwrap(), id, day))
        .collect();
    snapshots[0].state = "pending".to_owned();
    snapshots[4].state = "error".to_owned();
    snapshots[5].encrypted = false;
    snapshots.push(Snapshot { delete_on: Some("2026-11-20".to_owned()), ..snapshot(900, ids[0], 30) });
    snapshots.push(Snapshot {
        instance: Some("i-d1bf7e4ea3c8d2516".to_owned()),
        delete_on: Some("2027-11-20".to_owned()),
        ..snapshot(901, "vol-0000000000000gone", 21)
    });
    (snapshots, volumes(&ids))
}

/// Whoever restores at night copies a command and must not have to think.
#[test]
fn every_snapshot_has_a_command_that_can_be_copied() {
    let (snapshots, volumes) = sample();
    let page = page_of(&snapshots, &volumes);
    for snapshot in &snapshots {
        let has_command = page.contains(&format!("--snapshot-id {}", snapshot.snapshot));
        assert_eq!(has_command, snapshot.state == "completed", "{} is {}", snapshot.snapshot, snapshot.state);
    }
    assert!(page.contains(
        "aws ec2 create-volume --region eu-central-1 --availability-zone eu-central-1b --snapshot-id \
         snap-00000000000000001 --volume-type gp3 --iops 3000 --throughput 125<"
    ));
    assert!(
        page.contains("--availability-zone ZONE --snapshot-id snap-00000000000000385<"),
        "of a volume that is gone"
    );
    for (title, count) in [
        ("Due, but still there", "1 snapshot, 8 GiB, 0.40 USD"),
        ("volumes that are gone", "1 snapshot,"),
        ("Not encrypted", "1 snapshot,"),
    ] {
        let after = page.split_once(&format!("{title}</h2>")).unwrap().1;
        assert!(after.split("</section>").next().unwrap().contains(count), "{title}");
    }
    // Opening it by hand: SNAPWARDEN_PAGE=/tmp/backups.html.
    if let Ok(path) = std::env::var("SNAPWARDEN_PAGE") {
        std::fs::write(path, page).unwrap();
    }
}

/// EC2 refuses an io2 volume without its IOPS, and a gp2 one with them.
#[test]
fn a_command_says_of_the_performance_what_ec2_wants_to_know() {
    for (kind, options) in [
        ("gp2", "--volume-type gp2<"),
        ("gp3", "--volume-type gp3 --iops 3000 --throughput 125<"),
        ("io1", "--volume-type io1 --iops 3000<"),
        ("io2", "--volume-type io2 --iops 3000<"),
        ("st1", "--volume-type st1<"),
    ] {
        let mut volumes = volumes(&["vol-1"]);
        for volume in volumes.values_mut() {
            kind.clone_into(&mut volume.kind);
        }
        let page = page_of(&[snapshot(1, "vol-1", 0)], &volumes);
        assert!(page.contains(options), "{kind}");
    }
}

/// A calendar without the volumes that were forgotten is green when it must not be.
#[test]
fn a_volume_that_was_never_backed_up_is_shown() {
    let volume = |id: &str, excluded| AttachedVolume { id: id.to_owned(), attached_at: None, excluded };
    let selected = Instance {
        id: "i-0123456789abcdef0".to_owned(),
        selected: true,
        volumes: vec![
            volume("vol-kept", false),
            volume("vol-forgotten", false),
            volume("vol-left-out", true),
        ],
        ..Instance::default()
    };
    let failed = Snapshot { state: "error".to_owned(), ..snapshot(2, "vol-failed", 0) };
    let on_failed = Instance { volumes: vec![volume("vol-failed", false)], ..selected.clone() };
    let page = page_with(
        &[snapshot(1, "vol-kept", 0), failed],
        &volumes(&["vol-kept", "vol-forgotten", "vol-left-out", "vol-failed"]),
        &[selected, on_failed],
    );
    let section = page.split_once("never backed up</h2>").unwrap().1.split("</section>").next().unwrap();
    assert!(section.contains("vol-forgotten") && section.contains("vol-failed"), "{section}");
    assert!(!section.contains("vol-kept") && !page.contains("vol-left-out"), "{section}");
    assert!(page.contains("<dt>selected, never backed up</dt><dd>2</dd>"), "{page}");
    let row = page.split("<tr>").find(|row| row.contains("vol-forgotten")).unwrap();
    assert!(row.contains("never") && !row.contains("href"), "{row}");
}

/// Anybody who may tag a snapshot could otherwise run a script where the page is opened.
#[test]
fn what_tags_say_is_text_and_nothing_is_asked_from_elsewhere() {
    let evil = Snapshot {
        instance: Some("<script>alert(1)</script>".to_owned()),
        delete_on: Some("\"><img src=http://evil.example/x>".to_owned()),
        ..snapshot(1, "vol-1' onclick='x", 0)
    };
    let page = page_of(&[evil], &BTreeMap::new());
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    for request in ["http://", "https://", "src=", "url(", "@import"] {
        let outside = page.replace("&quot;&gt;&lt;img src=http://evil.example/x&gt;", "");
        assert!(!outside.contains(request), "{request}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn an_environment_without_snapshots_says_so() {
    let page = page_of(&[], &BTreeMap::new());
    assert!(page.contains("There are no snapshots.") && page.contains("Nothing is going to expire."));
}

/// The calendar is read without colour: signs tell what is what.
#[test]
fn the_calendar_shows_each_day_by_a_sign() {
    let (snapshots, volumes) = sample();
    let page = page_of(&snapshots, &volumes);
    let row = page.split("<tr>").find(|row| row.contains("#vol-7b07bf9f9d3a8e60e")).unwrap();
    let cells: Vec<&str> =
        row.split("title=\"").skip(1).map(|cell| cell.split('"').next().unwrap()).collect();
    assert_eq!(cells.len(), 35);
    assert_eq!(cells[0], "2026-11-24: complete");
    assert_eq!(cells[1], "2026-11-23: failed");
    assert_eq!(cells[3], "2026-11-21: none");
}

/// Ten thousand snapshots are a year of a middling company.
#[test]
fn ten_thousand_snapshots_make_a_page_that_a_browser_opens() {
    let names: Vec<String> = (0..300).map(|number| format!("vol-{number:017x}")).collect();
    let snapshots: Vec<Snapshot> =
        (0..10_000).map(|n| snapshot(n, &names[n % 300], i64::try_from(n / 300).unwrap())).collect();
    let page = page_of(&snapshots, &BTreeMap::new());
    assert!(page.len() < 8_000_000, "{}", page.len());
    if let Ok(path) = std::env::var("SNAPWARDEN_LARGE_PAGE") {
        std::fs::write(path, page).unwrap();
    }
}

use super::*;
use crate::settings::{CleanupPolicy, Selector};

const NOW: &str = "2026-11-22T03:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn audit(inventory: &Inventory) -> Audit {
    let settings = CleanupSettings {
        environment: "prod".parse().unwrap(),
        alias_arn: String::new(),
        timezone: "UTC".parse().unwrap(),
        policy: CleanupPolicy {
            floor: 1,
            orphan_floor_days: 90,
            max_deletes: 5000,
            mass_deletion_percent: 50,
        },
        select: Selector::default(),
        backup_interval_hours: 24,
        encryption: crate::settings::Encryption::Off,
        copy_to: Vec::new(),
    };
    Audit::of(inventory, at(NOW), &settings)
}

fn instance(id: &str, volumes: &[(&str, &str)]) -> Instance {
    let volume = |(id, attached_at): &(&str, &str)| AttachedVolume {
        id: (*id).to_owned(),
        attached_at: Some(at(attached_at)),
        excluded: false,
    };
    Instance {
        id: id.to_owned(),
        name: Some("db".to_owned()),
        selected: true,
        volumes: volumes.iter().map(volume).collect(),
    }
}

fn snapshot(id: &str, volume: &str, started_at: &str, state: State) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some(volume.to_owned()),
        environment: Some("prod".to_owned()),
        started_at: Some(at(started_at)),
        state,
        ..Snapshot::default()
    }
}

/// One volume, attached long ago, with these snapshots.
fn protection(snapshots: &[Snapshot]) -> (Protection, Option<u64>) {
    let instances = vec![instance("i-1", &[("vol-1", "2020-01-01T00:00:00Z")])];
    let audit = audit(&Inventory { snapshots: snapshots.to_vec(), instances, ..Inventory::default() });
    (audit.volumes[0].protection, audit.volumes[0].age_hours)
}

/// The reason for the audit: only completed snapshots can be restored from, and only recent ones are worth it.
#[test]
fn only_a_recent_completed_snapshot_protects() {
    let one = |started_at, state| protection(&[snapshot("snap-1", "vol-1", started_at, state)]);
    assert_eq!(one("2026-11-22T02:00:00Z", State::Completed), (Protection::Protected, Some(1)));
    assert_eq!(one("2026-11-21T00:00:00Z", State::Completed), (Protection::Protected, Some(27)));
    assert_eq!(one("2026-11-20T23:59:59Z", State::Completed), (Protection::Stale, Some(27)));
    assert_eq!(one("2026-11-22T02:00:00Z", State::Error), (Protection::Unprotected, None));
    assert_eq!(one("2026-11-22T02:00:00Z", State::Pending), (Protection::New, None), "it is being made");
    assert_eq!(one("2026-11-19T02:00:00Z", State::Pending), (Protection::Unprotected, None), "it hangs");
    assert_eq!(protection(&[]), (Protection::Unprotected, None));

    let archived =
        Snapshot { archived: true, ..snapshot("snap-1", "vol-1", "2026-11-22T02:00:00Z", State::Completed) };
    assert_eq!(protection(&[archived]), (Protection::Unprotected, None));
    let foreign = Snapshot {
        environment: Some("staging".to_owned()),
        ..snapshot("snap-1", "vol-1", "2026-11-22T02:00:00Z", State::Completed)
    };
    assert_eq!(protection(&[foreign]), (Protection::Unprotected, None));
}

/// Tonight's snapshot of a large disk is still being made at three o'clock: no reason to wake anybody.
#[test]
fn an_old_copy_with_a_new_one_on_its_way_is_fine_and_tells_its_age() {
    let old = snapshot("snap-1", "vol-1", "2026-11-20T02:00:00Z", State::Completed);
    let pending = snapshot("snap-2", "vol-1", "2026-11-22T02:00:00Z", State::Pending);
    assert_eq!(protection(&[old, pending]), (Protection::Protected, Some(49)));
}

/// An instance made this afternoon has had no night yet.
#[test]
fn a_new_volume_is_not_unprotected_before_its_first_backup_was_due() {
    let attached = |at: &str| {
        let instances = vec![instance("i-1", &[("vol-1", at)])];
        audit(&Inventory { instances, ..Inventory::default() })
    };
    let new = attached("2026-11-21T09:00:00Z");
    assert_eq!((new.unprotected_volumes, new.volumes[0].protection), (0, Protection::New));
    assert_eq!(new.never_backed_up, [""; 0]);
    let forgotten = attached("2026-11-20T09:00:00Z");
    assert_eq!(
        (forgotten.unprotected_volumes, forgotten.volumes[0].protection),
        (1, Protection::Unprotected)
    );
    assert_eq!(forgotten.never_backed_up, ["i-1"]);
}

#[test]
fn what_nobody_selected_or_tags_leave_out_is_not_missed() {
    let mut unselected = instance("i-1", &[("vol-1", "2020-01-01T00:00:00Z")]);
    unselected.selected = false;
    let mut excluded = instance("i-2", &[("vol-2", "2020-01-01T00:00:00Z")]);
    excluded.volumes[0].excluded = true;
    let audit = audit(&Inventory { instances: vec![unselected, excluded], ..Inventory::default() });
    assert_eq!((audit.instances_selected, audit.volumes_selected, audit.unprotected_volumes), (1, 0, 0));
    assert_eq!(audit.never_backed_up, [""; 0]);
    assert_eq!(audit.oldest_backup_age_hours, None);
    assert_eq!(audit.warnings(), [""; 0]);
}

/// What fails after the backup has ended shows nowhere else before it is late: the volume's last copy is a day old.
#[test]
fn what_failed_tonight_is_told_from_what_failed_long_ago() {
    let snapshots = vec![
        snapshot("snap-1", "vol-1", "2026-11-22T02:00:00Z", State::Error),
        snapshot("snap-2", "vol-1", "2026-11-21T02:00:00Z", State::Completed),
        snapshot("snap-3", "vol-1", "2026-11-12T02:00:00Z", State::Error),
    ];
    let audit = audit(&Inventory { snapshots, ..Inventory::default() });
    assert_eq!((audit.failed_snapshots.len(), audit.failed_lately), (2, 1));
}

#[test]
fn the_oldest_backup_is_that_of_the_worst_volume_and_the_worst_is_named_first() {
    let long_ago = "2020-01-01T00:00:00Z";
    let inventory = Inventory {
        snapshots: vec![
            snapshot("snap-1", "vol-1", "2026-11-22T02:00:00Z", State::Completed),
            snapshot("snap-2", "vol-2", "2026-11-12T03:00:00Z", State::Completed),
            snapshot("snap-3", "vol-2", "2026-11-02T03:00:00Z", State::Completed),
            Snapshot {
                state_message: Some("Given key ID is not accessible".to_owned()),
                ..snapshot("snap-4", "vol-2", "2026-11-20T03:00:00Z", State::Error)
            },
        ],
        instances: vec![
            instance("i-1", &[("vol-1", long_ago), ("vol-2", long_ago)]),
            instance("i-2", &[("vol-3", long_ago)]),
        ],
        ..Inventory::default()
    };
    let audit = audit(&inventory);
    assert_eq!(audit.oldest_backup_age_hours, Some(240));
    let order: Vec<_> = audit
        .volumes
        .iter()
        .map(|volume| (volume.volume.as_str(), volume.protection, volume.copies))
        .collect();
    assert_eq!(
        order,
        [
            ("vol-3", Protection::Unprotected, 0),
            ("vol-2", Protection::Stale, 2),
            ("vol-1", Protection::Protected, 1)
        ]
    );
    assert_eq!(
        audit.warnings(),
        [
            "selected, but without any completed snapshot: 1 volume, the first is vol-3 of i-2 (db)",
            "not backed up when it was due: 1 volume, the first is vol-2 of i-1 (db), 240 hours old",
            "in state error, so they hold nothing: 1 snapshot, the first is snap-4 (Given key ID is not accessible)",
        ]
    );
}

#[test]
fn a_fleet_that_does_not_fit_a_report_is_counted() {
    let volumes: Vec<_> = (0..Audit::MAX_LISTED + 5).map(|n| format!("vol-{n:06}")).collect();
    let attached: Vec<_> = volumes.iter().map(|id| (id.as_str(), "2020-01-01T00:00:00Z")).collect();
    let inventory = Inventory { instances: vec![instance("i-1", &attached)], ..Inventory::default() };
    let audit = audit(&inventory);
    assert_eq!((audit.volumes.len(), audit.volumes_unlisted), (Audit::MAX_LISTED, 5));
    assert_eq!(audit.unprotected_volumes, Audit::MAX_LISTED + 5);
}

use serde_json::json;
use snapwarden_domain::inventory::{Instance, Snapshot, State};

use super::*;

const AT: &str = "2026-11-22T03:00:00Z";

fn settings(floor: u32, orphan_floor_days: u32, timezone: &str) -> Value {
    json!({
        "environment": "prod", "timezone": timezone,
        "policy": {
            "floor": floor, "orphan_floor_days": orphan_floor_days, "max_deletes": 5000,
            "mass_deletion_percent": 50,
        },
        "select": { "tag": "Backup", "value": "true" },
        "backup_interval_hours": 24,
        "alias_arn": "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-prod-cleanup:live",
    })
}

fn alias(settings: &Value) -> Value {
    json!({ "serves": { "environment": { "SNAPWARDEN_SETTINGS": settings.to_string() } } })
}

fn change(before: Option<&Value>, after: &Value) -> Option<PolicyChange> {
    PolicyChange::between(before.map(alias).as_ref(), &alias(after))
}

fn snapshot(id: &str, instance: &str, run_day: &str, delete_on: &str) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        volume: Some(format!("vol-of-{instance}")),
        state: State::Completed,
        started_at: Some(format!("{run_day}T02:00:09Z").parse().unwrap()),
        environment: Some("prod".to_owned()),
        instance: Some(instance.to_owned()),
        run: Some(format!("snapwarden-prod/backup@{run_day}T02:00:00Z")),
        delete_on: Some(delete_on.to_owned()),
        ..Snapshot::default()
    }
}

/// One instance with two nights that are due, one that is gone for 39 days, and a snapshot due tomorrow.
fn inventory() -> Inventory {
    Inventory {
        snapshots: vec![
            snapshot("snap-old", "i-1", "2026-11-13", "2026-11-20"),
            snapshot("snap-last", "i-1", "2026-11-14", "2026-11-21"),
            snapshot("snap-orphan", "i-gone", "2026-10-14", "2026-10-21"),
            snapshot("snap-tomorrow", "i-2", "2026-11-16", "2026-11-23"),
            snapshot("snap-newest", "i-2", "2026-11-21", "2026-11-28"),
        ],
        instances: ["i-1", "i-2"].map(|id| Instance { id: id.to_owned(), ..Instance::default() }).into(),
        ..Inventory::default()
    }
}

fn new_deletions(before: Option<&Value>, after: &Value) -> Vec<String> {
    let change = change(before, after).expect("a change");
    let new = change.new_deletions(&inventory(), AT.parse().unwrap());
    new.into_iter().map(|new| format!("{}: {}", new.snapshot.snapshot, new.kept_so_far)).collect()
}

/// Who asks nobody about a place that cannot be seen has to be right that nothing more goes there.
#[test]
fn a_policy_that_may_delete_nothing_more_does_not() {
    let policies = || {
        let floors = [0, 1, 3].into_iter();
        floors.flat_map(|floor| [30, 90].map(|days| (floor, days))).flat_map(|(floor, days)| {
            ["UTC", "Pacific/Kiritimati"].map(|zone| {
                let mut settings = settings(floor, days, zone);
                settings["policy"]["mass_deletion_percent"] = json!(100);
                settings
            })
        })
    };
    let (mut harmless, mut others) = (0, 0);
    for (before, after) in policies().flat_map(|before| policies().map(move |after| (before.clone(), after)))
    {
        let Some(change) = change(Some(&before), &after) else { continue };
        if change.may_delete_more() {
            others += 1;
        } else {
            harmless += 1;
            let new = change.new_deletions(&inventory(), AT.parse().unwrap());
            assert_eq!(new, [], "{before} to {after}");
        }
    }
    assert!(harmless > 5 && others > 50, "{harmless} {others}");
    assert!(!change(None, &settings(0, 90, "UTC")).unwrap().may_delete_more());
}

/// Status tells what the next cleanup does, and that is not what a file says that nobody has deployed yet.
#[test]
fn the_deployed_settings_count_and_not_the_files() {
    let scope = crate::scope::tests::scope("prod");
    let file: CleanupSettings = serde_json::from_value(settings(0, 90, "UTC")).unwrap();
    let floor = |properties: Option<Value>| {
        let found =
            |properties| crate::world::Found { properties, handle: Value::Null, tags: None, revision: None };
        let observed =
            properties.map(|properties| (cleanup_alias(&scope), found(properties))).into_iter().collect();
        deployed_settings(&observed, &scope, &file).map(|settings| settings.policy.floor)
    };
    assert_eq!(floor(None), None);
    let mut deployed = settings(3, 90, "UTC");
    assert_eq!(floor(Some(alias(&deployed))), Some(3));
    deployed.as_object_mut().unwrap().remove("backup_interval_hours");
    assert_eq!(floor(Some(alias(&deployed))), Some(3), "an earlier version's settings");
    assert_eq!(floor(Some(json!({ "serves": {} }))), Some(0));
}

#[test]
fn a_policy_that_deletes_the_same_is_no_change() {
    let same = settings(1, 90, "UTC");
    assert_eq!(change(Some(&same), &same), None);
    let mut faster = same.clone();
    faster["policy"]["max_deletes"] = json!(9000);
    faster["select"]["tag"] = json!("Save");
    assert_eq!(change(Some(&same), &faster), None);
}

/// The reason for the gate: one line in a file, and last copies are gone the next night.
#[test]
fn what_only_the_new_policy_would_delete_is_listed_with_what_has_held_it() {
    let now = settings(1, 90, "UTC");
    let floor = "it is one of its instance's newest complete copies (cleanup.floor)";
    assert_eq!(
        new_deletions(Some(&now), &settings(0, 90, "UTC")),
        [format!("snap-last: {floor}"), format!("snap-orphan: {floor}")]
    );
    assert_eq!(new_deletions(Some(&now), &settings(1, 30, "UTC")), [format!("snap-orphan: {floor}")]);
    assert_eq!(new_deletions(Some(&now), &settings(2, 90, "UTC")), [""; 0], "more careful");
    // At three in the morning in UTC it is the next day already in Kiritimati from ten in the morning on.
    assert_eq!(
        change(Some(&now), &settings(1, 90, "Pacific/Kiritimati"))
            .unwrap()
            .new_deletions(&inventory(), "2026-11-22T10:00:00Z".parse().unwrap())
            .iter()
            .map(|new| (new.snapshot.snapshot.as_str(), new.kept_so_far.as_str()))
            .collect::<Vec<_>>(),
        [("snap-tomorrow", "its DeleteOn has not come")]
    );
}

/// A destroy leaves snapshots behind. The deploy that comes back to them must not delete what is long due in silence.
#[test]
fn on_a_first_deploy_everything_that_is_due_is_new() {
    assert_eq!(new_deletions(None, &settings(1, 90, "UTC")), ["snap-old: no cleanup is deployed"]);
}

#[test]
fn settings_of_an_older_version_are_read_as_far_as_they_go() {
    let now = settings(1, 90, "UTC");
    let mut older = now.clone();
    older.as_object_mut().unwrap().remove("select");
    older["policy"].as_object_mut().unwrap().remove("mass_deletion_percent");
    older["something"] = json!("that went away");
    assert_eq!(change(Some(&older), &now), None);
    let mut unreadable = now.clone();
    unreadable["timezone"] = json!("Mars/Olympus");
    assert_eq!(
        new_deletions(Some(&unreadable), &now),
        ["snap-old: unknown: the deployed settings cannot be read"]
    );
}

/// A raised share lets through what has waited for a person.
#[test]
fn what_a_mass_deletion_has_stopped_counts_as_kept() {
    let many = Inventory {
        snapshots: (0..30)
            .map(|n| snapshot(&format!("snap-{n:02}"), "i-1", "2026-11-01", "2026-11-08"))
            .collect(),
        ..Inventory::default()
    };
    let mut wider = settings(0, 90, "UTC");
    wider["policy"]["mass_deletion_percent"] = json!(100);
    let change = change(Some(&settings(0, 90, "UTC")), &wider).unwrap();
    let new = change.new_deletions(&many, AT.parse().unwrap());
    assert_eq!(new.len(), 30);
    assert!(new[0].kept_so_far.starts_with("cleanup stops: 30 of 30"), "{new:?}");
}

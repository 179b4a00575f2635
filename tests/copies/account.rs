//! Copies in another account: shared for as long as it takes, made by the role there, and out of reach for a purge of who may
//! not act as it.
//!
//! The emulators ask nobody for rights: what the roles may do is proven in `least_privilege`.

use aws_sdk_ec2::types::SnapshotAttributeName;
use serde_json::json;
use snapwarden_deployer::environment::CopyPlace;
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, bundle};

use super::{at, copies_of, length, tag};

const ROLE: &str = "arn:aws:iam::210987654321:role/snapwarden-copies";
const HOME: &str = "eu-central-1";
const THERE: &str = "eu-central-1 of account 210987654321";
const COPY_TO: &str = "copy_to: [{ region: eu-central-1, role: \"arn:aws:iam::210987654321:role/snapwarden-copies\", kms_key: \
                       alias/backup, retention: { daily_days: 14 } }]\nlogs: delete";

/// An environment that keeps copies in another account, in the same Region.
fn local() -> Local {
    let local = Local::with("floor: 1", "floor: 0");
    local.edit("logs: delete", COPY_TO);
    local
}

fn place() -> CopyPlace {
    let role = Some(ROLE.to_owned().try_into().unwrap());
    CopyPlace { region: HOME.to_owned().try_into().unwrap(), role }
}

fn copies(local: &Local) -> Vec<aws_sdk_ec2::types::Snapshot> {
    copies_of(&at(local, &place()), "local/eu-central-1/123456789012")
}

/// Who may read which of the environment's snapshots, beside its own account.
fn readers(local: &Local) -> Vec<(String, String)> {
    let of = |id: String| {
        let call = local.aws().ec2.describe_snapshot_attribute().snapshot_id(&id);
        let call = call.attribute(SnapshotAttributeName::CreateVolumePermission).send();
        let readers = block_on(call).unwrap().create_volume_permissions.unwrap_or_default();
        readers.into_iter().map(move |reader| (id.clone(), reader.user_id.unwrap())).collect::<Vec<_>>()
    };
    local.snapshots().into_iter().flat_map(|snapshot| of(snapshot.id)).collect()
}

/// The loss of the account, or of who may delete in it, takes no copy along; and nothing is open for longer than that takes.
#[test]
fn copies_outlive_the_account_and_nothing_stays_shared() {
    let local = local();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    let made = local.snapshots();

    let dry = local.json(&["invoke", "seal", "--dry-run"]);
    assert_eq!((length(&dry["copy_to"][0]["begun"]), readers(&local).len()), (made.len(), 0), "{dry}");
    let first = local.json(&["invoke", "seal"]);
    let there = &first["copy_to"][0];
    assert_eq!((length(&there["begun"]), &there["account"]), (made.len(), &json!("210987654321")), "{first}");
    assert!(readers(&local).iter().all(|(_, reader)| reader == "210987654321"));
    assert_eq!(readers(&local).len(), made.len());
    let copied = copies(&local);
    assert_eq!(copied.len(), made.len());
    assert!(copied.iter().all(|copy| copy.encrypted() == Some(true)), "{copied:?}");
    assert!(copied.iter().all(|copy| copy.owner_id() == Some("210987654321")), "{copied:?}");

    let second = local.json(&["invoke", "seal"]);
    let there = &second["copy_to"][0];
    assert_eq!((length(&there["begun"]), &there["copied"]), (0, &json!(made.len())), "{second}");
    assert_eq!(readers(&local), [], "what is copied is nobody else's to read");
    assert_eq!(local.snapshots(), made, "nothing at home goes for a copy's sake");
    let status = local.ok(&["status"]).stdout;
    assert!(status.contains(&format!("copies in {THERE}: 3")), "{status}");

    // On the day.
    let instance = tag(&copied[0], "snapwarden:instance").to_owned();
    let what =
        ["--instance", &instance, "--region", HOME, "--account", "210987654321", "--zone", "eu-central-1a"];
    let plan = local.json(&[&["restore", "plan"], &what[..]].concat());
    assert_eq!((&plan["copies_in"], &plan["account"]), (&json!(HOME), &json!("210987654321")), "{plan}");
    let restored = local.json(&[&["restore", "run", "--yes"], &what[..]].concat());
    let volumes =
        block_on(at(&local, &place()).describe_volumes().send()).unwrap().volumes.unwrap_or_default();
    let of_ours = volumes
        .iter()
        .filter(|volume| volume.tags().iter().any(|tag| tag.key() == Some("snapwarden:restored-by")));
    assert_eq!(of_ours.count(), length(&restored["volumes"]));
    let stranger =
        ["--region", HOME, "--account", "555555555555", "--zone", "eu-central-1a", "--instance", "i-1"];
    let refused = local.run(&[&["restore", "plan"], &stranger[..]].concat());
    assert!(
        refused.code == 2 && refused.stderr.contains("no copies in eu-central-1 of account 555555555555"),
        "{refused:?}"
    );

    // They go by their own day, and a place that is given up is emptied first.
    let page = local.json(&["report", "--out", "page.html"]);
    assert!(std::fs::read_to_string(local.path("page.html")).unwrap().contains(THERE), "{page}");
    local.edit(COPY_TO, "logs: delete");
    let refused = local.run(&["deploy", "--bundle", &bundle()]);
    assert!(refused.code == 4 && refused.stderr.contains("paused: true"), "{refused:?}");
    local.edit("logs: delete", COPY_TO);
    let ec2 = at(&local, &place());
    for copy in &copied {
        let due = aws_sdk_ec2::types::Tag::builder().key("DeleteOn").value("2020-01-01").build();
        block_on(ec2.create_tags().resources(copy.snapshot_id().unwrap()).tags(due).send()).unwrap();
    }
    let cleanup = local.json(&["invoke", "cleanup"]);
    let there = &cleanup["copies"][0];
    assert_eq!((length(&there["deleted"]), &there["account"]), (3, &json!("210987654321")), "{cleanup}");
    assert_eq!((copies(&local).len(), local.snapshots().len()), (0, 3));
}

/// A deployer of the first account need not be able to reach the copies, which is what they are for: it is told so, and can
/// work. What it cannot see it does not claim to have deleted.
#[test]
fn who_may_not_act_as_the_role_deploys_and_looks_and_purges_nothing() {
    let local = local();
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    for _ in 0..2 {
        local.json(&["invoke", "seal"]);
    }
    let denied = || vec![Rule::every(1, Calls::Action("sts:AssumeRole"), Effect::Deny)];
    let commands = Proxy::of(&local);
    let run = |arguments: &[&str]| commands.run(&local, arguments, denied());
    let unseen = format!("the copies in {THERE} cannot be seen from here");
    assert!(run(&["status"]).stdout.contains(&unseen));
    assert_eq!(run(&["report", "--out", "page.html"]).code, 0);
    assert!(std::fs::read_to_string(local.path("page.html")).unwrap().contains(&unseen));
    assert_eq!(run(&["deploy", "--bundle", &bundle()]).code, 0, "nothing has changed");

    // What a policy would delete there nobody can tell, so somebody has to say that it does not matter.
    local.edit("orphan_floor_days: 90", "orphan_floor_days: 30");
    let refused = run(&["deploy", "--bundle", &bundle(), "--yes"]);
    assert!(refused.code == 4 && refused.stderr.contains("--accept-deletions"), "{refused:?}");
    local.edit("orphan_floor_days: 30", "orphan_floor_days: 91");
    assert_eq!(run(&["deploy", "--bundle", &bundle(), "--yes"]).code, 0, "that deletes nothing more");

    // A place is given up in two steps; that it still holds copies tells the function, which may look.
    local.edit(COPY_TO, "logs: delete");
    let refused = run(&["deploy", "--bundle", &bundle()]);
    assert!(refused.code == 4 && refused.stderr.contains("still copies to"), "{refused:?}");
    let paused = COPY_TO.replace("daily_days: 14 }", "daily_days: 14 }, paused: true");
    local.edit("logs: delete", &paused);
    assert_eq!(run(&["deploy", "--bundle", &bundle()]).code, 0);
    local.edit(&paused, "logs: delete");
    let refused = run(&["deploy", "--bundle", &bundle()]);
    assert!(refused.code == 4 && refused.stderr.contains("holds 3 copies"), "{refused:?}");
    local.edit("logs: delete", &paused);

    let drain = run(&["destroy", "--drain", "--yes"]);
    assert!(drain.code == 0 && drain.stdout.contains("do not end it before"), "{drain:?}");
    let purge = run(&["destroy", "--snapshots", "purge", "--yes"]);
    assert!(purge.code == 1 && purge.stderr.contains("sts:AssumeRole"), "{purge:?}");
    assert_eq!((local.snapshots().len(), copies(&local).len()), (3, 3), "nothing was deleted");
    let ended = run(&["destroy", "--yes"]);
    assert!(ended.code == 0 && ended.stdout.contains(&unseen), "{ended:?}");
    assert_eq!(copies(&local).len(), 3);
}

/// The same place by a role of another name is no other place; and going back to a release from before takes the sharing
/// along, or is refused.
#[test]
fn a_role_may_be_renamed_and_a_rollback_leaves_nothing_shared() {
    let local = Local::with("floor: 1", "floor: 0");
    local.deploy();
    local.edit("logs: delete", COPY_TO);
    local.ok(&["deploy", "--bundle", &bundle(), "--yes"]);
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "seal"]);
    let refused = local.run(&["rollback", "--yes", "--accept-deletions"]);
    assert!(
        refused.code == 4
            && refused
                .stderr
                .contains("may still read 3 snapshots of environment local, and release 1 does not name it"),
        "{refused:?}"
    );

    local.edit("role/snapwarden-copies", "role/backup/of-prod");
    local.ok(&["deploy", "--bundle", &bundle(), "--yes"]);
    let second = local.json(&["invoke", "seal"]);
    assert_eq!((&second["copy_to"][0]["copied"], &second["copy_to"][0]["shared"]), (&json!(3), &json!(0)));
    let status = local.json(&["status"]);
    assert_eq!(status["copies"][THERE], json!(3), "{status}");
    assert!(!status.to_string().contains("copy_to does not name it any more"), "{status}");
}

/// A pass is cut off anywhere between sharing and copying: the next one makes each copy once, and takes back what it may.
#[test]
fn a_pass_that_is_cut_off_leaves_one_copy_of_each_and_nothing_shared() {
    let local = local();
    let functions = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    for (action, effect) in [
        ("ec2:ModifySnapshotAttribute", Effect::LoseAnswer),
        ("ec2:CopySnapshot", Effect::LoseAnswer),
        ("ec2:ModifySnapshotAttribute", Effect::LoseAnswer),
    ] {
        functions.rule(vec![Rule::nth(1, Calls::Action(action), effect)]);
        local.run(&["invoke", "seal"]);
    }
    functions.rule(Vec::new());
    local.json(&["invoke", "seal"]);
    let last = local.json(&["invoke", "seal"]);
    assert_eq!((&last["copy_to"][0]["copied"], copies(&local).len()), (&json!(3), 3), "{last}");
    assert_eq!(readers(&local), []);

    // An end in the middle leaves what is shared, and says so.
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "seal"]);
    assert_eq!(readers(&local).len(), 3);
    let ended = local.ok(&["destroy", "--yes"]);
    assert!(ended.stdout.contains("account 210987654321 may still read 3 of them"), "{ended:?}");
    assert!(ended.stdout.contains(&format!("in {THERE}: 6 copies remain")), "{ended:?}");
    let purged = local.json(&["destroy", "--snapshots", "purge", "--yes"]);
    assert_eq!((copies(&local).len(), local.snapshots().len()), (0, 0), "{purged}");
}

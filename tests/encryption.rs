//! Snapshots in clear text: named, and where it is asked for, replaced by encrypted copies, with the real functions.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, Snapshot, block_on, bundle};

const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn encryption(require: &str) -> String {
    format!("encryption: {{ require: {require}, kms_key: \"{KEY}\" }}")
}

fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one["snapshot"].as_str().unwrap().to_owned()).collect()
}

/// The snapshots by whether they are encrypted.
fn encrypted(local: &Local) -> (Vec<Snapshot>, Vec<Snapshot>) {
    let ec2 = local.aws().ec2;
    let listed = block_on(ec2.describe_snapshots().owner_ids("self").send()).unwrap();
    let listed = listed.snapshots().iter();
    let sealed: BTreeSet<_> = listed
        .filter(|one| one.encrypted() == Some(true))
        .map(|one| one.snapshot_id().unwrap().to_owned())
        .collect();
    local.snapshots().into_iter().partition(|snapshot| sealed.contains(&snapshot.id))
}

/// Nobody looks for what they do not know of. Then they have it sealed, and every night's backups with it.
#[test]
fn what_is_in_clear_text_is_named_and_then_sealed() {
    let local = Local::new();
    local.edit("logs: delete", &format!("{}\nlogs: delete", encryption("report")));
    local.deploy();
    local.json(&["local", "seed"]);

    let backup = local.json(&["invoke", "backup"]);
    let made = local.snapshots();
    let warning = backup["warnings"][0].as_str().unwrap();
    assert!(made.iter().all(|snapshot| warning.contains(&snapshot.volume)), "{backup}");
    let cleanup = local.json(&["invoke", "cleanup"]);
    assert_eq!(cleanup["clear_text"]["unencrypted_snapshots"], json!(3), "{cleanup}");
    assert_eq!(cleanup["clear_text"]["volumes"].as_array().unwrap().len(), 3);
    assert!(local.ok(&["invoke", "cleanup"]).stdout.contains("VOLUME NOT ENCRYPTED"));
    assert_eq!(local.json(&["status"])["coverage"]["unencrypted"], json!(3.0));
    let page = local.path("backups.html");
    local.json(&["report", "--out", page.to_str().unwrap()]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<dt>not encrypted</dt><dd>3</dd>"), "{page}");
    assert_eq!(local.run(&["invoke", "seal"]).code, 1, "it is not switched on");
    assert_eq!(local.snapshots(), made);

    local.edit("require: report", "require: enforce");
    local.ok(&["deploy", "--bundle", &bundle(), "--yes"]);
    let dry = local.json(&["invoke", "seal", "--dry-run"]);
    assert_eq!(ids(&dry["begun"]).len(), 3, "{dry}");
    assert_eq!(local.snapshots(), made, "a dry run changes nothing");
    let first = local.json(&["invoke", "seal"]);
    assert_eq!((ids(&first["begun"]).len(), ids(&first["sealed"]).len()), (3, 0), "{first}");
    assert_eq!(local.snapshots().len(), 6, "copied, and nothing is deleted before the copies are looked at");
    let second = local.json(&["invoke", "seal"]);
    assert_eq!(ids(&second["sealed"]).len(), 3, "{second}");

    let (sealed, clear) = encrypted(&local);
    assert_eq!((sealed.len(), clear.len()), (3, 0), "{clear:?}");
    for source in &made {
        let copy = sealed.iter().find(|copy| copy.tag("snapwarden:source-snapshot") == source.id).unwrap();
        assert_eq!(copy.tag("snapwarden:source-volume"), source.volume);
        for (key, value) in &source.tags {
            assert_eq!(copy.tag(key), value, "{key}");
        }
    }
    // To everything else, the copies are the backups.
    let cleanup = local.json(&["invoke", "cleanup"]);
    let audit = &cleanup["audit"];
    assert_eq!((&audit["oldest_backup_age_hours"], &audit["unprotected_volumes"]), (&json!(0), &json!(0)));
    assert_eq!(cleanup["clear_text"]["unencrypted_snapshots"], json!(0), "{cleanup}");
    let run = backup["run"].as_str().unwrap();
    let again = local.json(&["invoke", "backup", "--run", run]);
    assert_eq!(again["snapshots_created"], json!(0), "the run's snapshots are there: {again}");
    for copy in &sealed {
        local.tag(&copy.id, "DeleteOn", "2020-01-01");
    }
    let cleanup = local.json(&["invoke", "cleanup"]);
    assert_eq!(cleanup["held"].as_array().unwrap().len(), 3, "the floor holds the last copies: {cleanup}");
    let status = local.ok(&["status"]).stdout;
    assert!(status.contains("last sealing pass: ") && status.contains("next seal: "), "{status}");
}

/// Answers get lost, and nobody may pay for two copies, nor lose one.
#[test]
fn a_copy_whose_answer_is_lost_is_neither_repeated_nor_forgotten() {
    let local = Local::new();
    local.edit("logs: delete", &format!("{}\nlogs: delete", encryption("enforce")));
    let functions = Proxy::of_functions(&local);
    local.deploy();
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    functions.rule(vec![Rule::nth(2, Calls::Action("ec2:CopySnapshot"), Effect::LoseAnswer)]);
    let ran = local.run(&["invoke", "seal"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("may have been begun"), "{ran:?}");
    assert_eq!(encrypted(&local).0.len(), 3, "each once");
    functions.rule(vec![Rule::nth(2, Calls::Action("ec2:DeleteSnapshot"), Effect::LoseAnswer)]);
    local.json(&["invoke", "seal"]);
    functions.rule(Vec::new());
    local.json(&["invoke", "seal"]);
    let (sealed, clear) = encrypted(&local);
    assert_eq!((sealed.len(), clear.len()), (3, 0), "{clear:?}");
}

//! Restoring, for earnest and for practice: new volumes beside the originals, through the real program.

#![allow(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Volume;
use serde_json::{Value, json};
use snapwarden_tests::proxy::{Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on};

const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn volumes(local: &Local) -> Vec<Volume> {
    block_on(local.aws().ec2.describe_volumes().send()).unwrap().volumes.unwrap()
}

/// The seeded instance of this name.
fn instance(local: &Local, name: &str) -> String {
    let seeded = local.json(&["local", "seed"]);
    let found = seeded["instances"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    found["instance"].as_str().unwrap().to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The night after the disk died: everything that was backed up comes back, sealed, and the original stays as it was.
#[test]
fn an_instance_is_restored_from_its_sealed_copies_and_practised_before() {
    let local = Local::new();
    let encryption = format!("encryption: {{ require: enforce, kms_key: \"{KEY}\" }}\nlogs: delete");
    local.edit("logs: delete", &encryption);
    local.deploy();
    let db = instance(&local, "db-1");
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "seal"]);
    local.json(&["invoke", "seal"]);
    // The emulator copies no tag of the volumes to their snapshots, as EC2 does.
    local.snapshots().iter().for_each(|copy| local.tag(&copy.id, "team", "data"));
    let before = volumes(&local);

    // A look changes nothing, and without a yes nothing is made.
    let plan = local.json(&["restore", "plan", "--instance", &db]);
    let planned = plan["volumes"].as_array().unwrap();
    assert_eq!(planned.len(), 2, "{plan}");
    assert!(planned.iter().all(|volume| volume["encrypted"] == json!(true)), "{plan}");
    let devices: BTreeSet<_> = planned.iter().map(|volume| text(&volume["device"])).collect();
    assert_eq!(devices, BTreeSet::from(["/dev/sdf", "/dev/xvda"]), "{plan}");
    assert_eq!(local.run(&["restore", "run", "--instance", &db]).code, 2, "nobody is there to say yes");
    assert_eq!(volumes(&local).len(), before.len());

    let restored = local.json(&["restore", "run", "--instance", &db, "--yes"]);
    let made: Vec<_> =
        restored["volumes"].as_array().unwrap().iter().map(|one| text(&one["volume"])).collect();
    let after = volumes(&local);
    assert_eq!(after.len(), before.len() + 2);
    for original in &before {
        let same = after.iter().find(|volume| volume.volume_id() == original.volume_id()).unwrap();
        assert_eq!(
            (same.state(), same.tags(), same.attachments()),
            (original.state(), original.tags(), original.attachments())
        );
    }
    let sizes: BTreeMap<_, _> = after
        .iter()
        .filter(|volume| made.contains(&volume.volume_id().unwrap()))
        .map(|volume| {
            let tag = |key: &str| {
                volume.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
            };
            assert_eq!((volume.encrypted(), tag("snapwarden:restored-by")), (Some(true), Some("local")));
            assert_eq!((tag("team"), tag("DeleteOn"), tag("snapwarden:run")), (Some("data"), None, None));
            (volume.size().unwrap(), volume.availability_zone().unwrap().to_owned())
        })
        .collect();
    assert_eq!(sizes.keys().collect::<Vec<_>>(), [&8, &20]);
    let commands = restored["commands"].as_array().unwrap();
    let attach = commands.iter().filter(|command| text(command).contains("attach-volume --volume-id"));
    assert!(attach.clone().any(|command| text(command).contains(made[0])), "{commands:?}");

    // Typed again, after an answer that nobody saw.
    let again = local.json(&["restore", "run", "--instance", &db, "--yes"]);
    assert!(
        again["volumes"].as_array().unwrap().iter().all(|one| one["was_there"] == json!(true)),
        "{again}"
    );
    assert_eq!(volumes(&local).len(), after.len(), "nothing is made twice");

    // Killed between EC2's doing and its answer, and typed again.
    let web = instance(&local, "web-1");
    let run = ["restore", "run", "--instance", &web, "--yes"];
    let kill = Rule::nth(1, Calls::Action("ec2:CreateVolume"), Effect::KillAfter);
    let killed = Proxy::of(&local).run(&local, &run, vec![kill]);
    assert_ne!(killed.code, 0, "{killed:?}");
    let again = local.json(&run);
    assert_eq!(again["volumes"][0]["was_there"], json!(true), "{again}");
    let after = volumes(&local);
    assert_eq!(after.len(), before.len() + 3, "one more, once");

    let drill = local.json(&["restore", "drill", "--yes"]);
    assert_eq!((&drill["problems"], &drill["left"]), (&json!([]), &json!([])), "{drill}");
    assert_eq!(drill["made"].as_array().unwrap().len(), drill["plan"]["volumes"].as_array().unwrap().len());
    assert_eq!(volumes(&local).len(), after.len(), "a drill leaves nothing behind, and takes nothing");
    let listed = block_on(local.aws().cloudwatch.list_metrics().namespace("Snapwarden").send()).unwrap();
    let names: BTreeSet<_> = listed.metrics().iter().filter_map(|metric| metric.metric_name()).collect();
    assert!(names.contains("RestoreDrills") && names.contains("RestoreDrillFailures"), "{names:?}");

    // What cannot be done says why, and does nothing.
    for (arguments, code, why) in [
        (&["--instance", "i-0123456789abcdef0"][..], 1, "there is no snapshot of i-0123456789abcdef0"),
        (&["--instance", &db, "--at", "2020-01-01T00:00:00Z"], 1, "the oldest complete snapshot set"),
        (&["--instance", &db, "--at", "last night"], 2, "use a time such as"),
        (&["--instance", &db, "--zone", "us-east-1a"], 2, "no Availability Zone of eu-central-1"),
    ] {
        let ran = local.run(&[&["restore", "run", "--yes"], arguments].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
    }
    assert_eq!(volumes(&local).len(), after.len());
}

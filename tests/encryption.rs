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

const OWN_KEY: &str =
    "encryption: { require: enforce, kms_key: { create: true, deletion_window_days: 7 }, at_rest: true }";
const ALIAS: &str = "alias/snapwarden-local";

/// The key behind the environment's alias: its ARN and its state.
fn own_key(local: &Local) -> (String, String) {
    let kms = local.aws().kms;
    let key = block_on(kms.describe_key().key_id(ALIAS).send()).unwrap().key_metadata.unwrap();
    (key.arn.clone().unwrap(), key.key_state().unwrap().as_str().to_owned())
}

fn assert_no_changes(local: &Local, context: &str) {
    let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
    assert!(plan.code == 0 && plan.stdout.contains("no changes"), "{context}: {plan:?}");
}

/// Every key that somebody has made, by its id.
fn keys(local: &Local) -> BTreeSet<String> {
    let listed = block_on(local.aws().kms.list_keys().send()).unwrap();
    listed.keys().iter().map(|key| key.key_id().unwrap().to_owned()).collect()
}

/// What somebody does to the key by hand shows in words, and the next deploy takes it back.
fn drift_of_the_key(local: &Local, id: &str) {
    let kms = local.aws().kms;
    let tag = aws_sdk_kms::types::Tag::builder().tag_key("owner").tag_value("eve").build().unwrap();
    for line in ["state", "rotation", "policy", "tags.owner", "aliased", "PendingDeletion"] {
        block_on(async {
            match line {
                "state" => drop(kms.disable_key().key_id(id).send().await.unwrap()),
                "rotation" => drop(kms.disable_key_rotation().key_id(id).send().await.unwrap()),
                "policy" => {
                    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
                    let put = kms.put_key_policy().key_id(id).policy_name("default").policy(policy);
                    drop(put.send().await.unwrap());
                }
                "tags.owner" => {
                    drop(kms.tag_resource().key_id(id).tags(tag.clone()).send().await.unwrap());
                }
                "aliased" => drop(kms.delete_alias().alias_name(ALIAS).send().await.unwrap()),
                _ => drop(kms.schedule_key_deletion().key_id(id).send().await.unwrap()),
            }
        });
        let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code"]);
        assert!(plan.code == 3 && plan.stdout.contains(line), "{line}: {plan:?}");
        local.ok(&["deploy", "--bundle", &bundle(), "--yes"]);
        assert_no_changes(local, line);
        assert_eq!(own_key(local).1, "Enabled", "{line}");
    }
}

/// The one resource that must outlive its environment: without the key, every backup is noise.
#[test]
fn a_key_that_the_deploy_makes_encrypts_everything_and_outlives_the_environment() {
    let local = Local::new();
    local.edit("logs: delete", &format!("{OWN_KEY}\nlogs: delete"));
    local.deploy();
    assert_no_changes(&local, "after the deploy");
    let aws = local.aws();
    let (arn, state) = own_key(&local);
    assert_eq!(state, "Enabled");
    let made = keys(&local);
    block_on(async {
        let topic = "arn:aws:sns:eu-central-1:123456789012:snapwarden-local-notifications";
        let topic = aws.sns.get_topic_attributes().topic_arn(topic).send().await.unwrap();
        assert_eq!(topic.attributes().unwrap()["KmsMasterKeyId"], ALIAS);
        let url = aws.sqs.get_queue_url().queue_name("snapwarden-local-dead-letters").send().await.unwrap();
        let all = aws_sdk_sqs::types::QueueAttributeName::All;
        let queue = aws.sqs.get_queue_attributes().set_queue_url(url.queue_url).attribute_names(all);
        let queue = queue.send().await.unwrap().attributes.unwrap();
        assert_eq!(queue[&aws_sdk_sqs::types::QueueAttributeName::KmsMasterKeyId], ALIAS);
        for function in ["backup", "cleanup"] {
            let name = format!("snapwarden-local-{function}");
            let live = aws.lambda.get_function_configuration().function_name(&name).qualifier("live");
            assert_eq!(live.send().await.unwrap().kms_key_arn(), Some(arn.as_str()), "{function}");
            let group = format!("/aws/lambda/{name}");
            let groups = aws.logs.describe_log_groups().log_group_name_prefix(&group).send().await.unwrap();
            assert_eq!(groups.log_groups()[0].kms_key_id(), Some(arn.as_str()), "{function}");
        }
    });
    drift_of_the_key(&local, arn.rsplit('/').next().unwrap());
    assert_eq!(keys(&local), made, "whatever happens to it, it stays the one key");

    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    local.json(&["invoke", "seal"]);
    local.json(&["invoke", "seal"]);
    let (sealed, clear) = encrypted(&local);
    assert_eq!((sealed.len(), clear.len()), (3, 0), "{clear:?}");

    // A file without the key would have nobody look after it.
    local.edit(OWN_KEY, "");
    for command in ["plan", "deploy"] {
        let refused = local.run(&[command, "--bundle", &bundle()]);
        assert!(
            refused.code == 4 && refused.stderr.contains("kms_key: alias/snapwarden-local"),
            "{refused:?}"
        );
    }
    local.edit("logs: delete", &format!("{OWN_KEY}\nlogs: delete"));

    let destroyed = local.ok(&["destroy", "--yes"]);
    let says = format!("the key {ALIAS} ({arn}) stays: 3 snapshots (");
    assert!(destroyed.stdout.contains(&says), "{destroyed:?}");
    assert!(destroyed.stdout.contains("destroy --snapshots purge --env local"), "{destroyed:?}");
    assert_eq!(own_key(&local), (arn.clone(), "Enabled".to_owned()));
    let status = local.run(&["status"]);
    assert_eq!(status.code, 5, "{status:?}");
    assert!(
        status.stdout.contains("nothing is deployed") && !status.stdout.contains("is missing"),
        "{status:?}"
    );
    assert!(status.stdout.contains("a destroy keeps it"), "{status:?}");
    local.deploy();
    assert_no_changes(&local, "after a deploy that found the key");
    assert_eq!((own_key(&local).0, keys(&local)), (arn.clone(), made.clone()));

    // Somebody else's snapshot, of a volume that was encrypted with the same key.
    let ec2 = local.aws().ec2;
    let volume = ec2.create_volume().availability_zone("eu-central-1a").size(1).encrypted(true);
    let volume = block_on(volume.kms_key_id(&arn).send()).unwrap().volume_id.unwrap();
    let theirs = block_on(ec2.create_snapshot().volume_id(&volume).send()).unwrap().snapshot_id.unwrap();
    let purged = local.ok(&["destroy", "--snapshots", "purge", "--yes"]);
    // The emulator does not say what a snapshot is encrypted with, so the volume has to.
    let says = format!("1 volume ({volume}) could not be read without it");
    assert!(purged.stdout.contains(&says), "{purged:?}");
    assert_eq!(own_key(&local).1, "Enabled");

    block_on(ec2.delete_snapshot().snapshot_id(theirs).send()).unwrap();
    block_on(ec2.delete_volume().volume_id(volume).send()).unwrap();
    let ended = local.json(&["destroy", "--snapshots", "purge", "--yes"]);
    assert_eq!(ended["key"]["state"], "PendingDeletion", "{ended}");
    assert_eq!(own_key(&local), (arn.clone(), "PendingDeletion".to_owned()));
    let again = local.ok(&["destroy", "--snapshots", "purge", "--yes"]);
    assert!(again.stdout.contains("a deploy takes it up again"), "{again:?}");

    local.deploy();
    assert_no_changes(&local, "after a deploy that took the key up again");
    assert_eq!((own_key(&local), keys(&local)), ((arn, "Enabled".to_owned()), made));
}

/// A process that dies between the making of the key and that of its alias, or whose answer gets lost, must not leave
/// keys behind that nobody knows and everybody pays.
#[test]
fn wherever_the_process_dies_there_is_one_key() {
    let local = Local::new();
    local.edit("logs: delete", "encryption: { kms_key: { create: true } }\nlogs: delete");
    local.ok(&["local", "up"]);
    let proxy = Proxy::of(&local);
    let bundle = bundle();
    let deploy = ["deploy", "--bundle", &bundle, "--yes"];
    for (action, effect) in [
        ("kms:CreateKey", Effect::KillAfter),
        ("kms:CreateKey", Effect::LoseAnswer),
        ("kms:CreateAlias", Effect::KillBefore),
        ("kms:CreateAlias", Effect::LoseAnswer),
        ("kms:EnableKeyRotation", Effect::KillBefore),
    ] {
        let context = format!("{action} {effect:?}");
        proxy.run(&local, &deploy, vec![Rule::nth(1, Calls::Action(action), effect)]);
        local.ok(&deploy);
        assert_no_changes(&local, &context);
        assert_eq!(keys(&local).len(), 1, "{context}");
        local.ok(&["destroy", "--snapshots", "purge", "--yes"]);
        assert_eq!(own_key(&local).1, "PendingDeletion", "{context}");
        // The next round begins without any.
        local.ok(&["local", "reset"]);
    }
}

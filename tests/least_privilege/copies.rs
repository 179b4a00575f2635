//! What copies in another Region take, recorded apart: next to sealing, some of these rights would seem to be unused.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_sdk_ec2::types::Tag;
use serde_json::{Value, json};
use snapwarden_deployer::environment::{CopyPlace, Environment, parse};
use snapwarden_deployer::policy::deployer::{Access, deployer_policy, with_copies};
use snapwarden_deployer::policy::{lint_roles, restorer_policy, role_policies};
use snapwarden_deployer::scope::Scope;
use snapwarden_tests::proxy::{Call, Proxy};
use snapwarden_tests::{Local, block_on, bundle};

use crate::authorization::{World, requests};
use crate::evaluator::{Context, Policy, Request};
use crate::minimality::{denied, unused};

const THERE: &str = "eu-west-1";
const KEY_THERE: &str = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// What the cleanup function, restores and commands asked IAM for.
struct Recording {
    environment: Environment,
    cleanup: Vec<(String, Request)>,
    restores: Vec<(String, Request)>,
    status: Vec<(String, Request)>,
    purge: Vec<(String, Request)>,
}

static RECORDING: LazyLock<Recording> = LazyLock::new(record);

fn record() -> Recording {
    let local = Local::with("floor: 1", "floor: 0");
    let copy_to = format!(
        "copy_to: [{{ region: {THERE}, kms_key: \"{KEY_THERE}\", retention: {{ daily_days: 14 }} }}]\nlogs: delete"
    );
    local.edit("logs: delete", &copy_to);
    let functions = Proxy::of_functions(&local);
    let commands = Proxy::of(&local);
    let environment = backed_up(&local);

    let mut cleanup = Vec::new();
    let mut function = |flags: &[&str]| {
        let before = (functions.calls().len(), world(&local, &environment));
        local.ok(&[&["invoke"], flags].concat());
        cleanup.extend(asked(&functions.calls().split_off(before.0), &before.1, &flags.join(" ")));
    };
    function(&["seal", "--dry-run"]);
    function(&["seal"]);
    let first = tags_there(&local).into_keys().next().expect("a copy is there");
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string();
    let tag = Tag::builder().key("DeleteOn").value(today).build();
    block_on(there(&local).create_tags().resources(&first).tags(tag).send()).unwrap();
    function(&["cleanup", "--dry-run"]);
    function(&["cleanup"]);

    let instance = tags_there(&local).into_values().next().unwrap()["snapwarden:instance"].clone();
    local.ok(&["invoke", "seal"]);
    let command = |arguments: &[&str]| {
        let world = world(&local, &environment);
        let ran = commands.run(&local, arguments, Vec::new());
        assert_eq!(ran.code, 0, "{ran:?}");
        asked(&commands.calls(), &world, &arguments.join(" "))
    };
    let here = ["--region", THERE, "--zone", "eu-west-1a", "--yes"];
    let mut restores = command(&[&["restore", "run", "--instance", &instance], &here[..]].concat());
    restores.extend(command(&[&["restore", "drill"], &here[..]].concat()));
    let status = command(&["status"]);
    let purge = command(&["destroy", "--snapshots", "purge", "--yes"]);
    Recording { environment, cleanup, restores, status, purge }
}

/// Deploys, and makes a backup that there are to be copies of.
pub(crate) fn backed_up(local: &Local) -> Environment {
    local.ok(&["deploy", "--bundle", &bundle()]);
    local.json(&["local", "seed"]);
    local.json(&["invoke", "backup"]);
    let path = local.path("environments/local.yaml");
    parse(&path, &std::fs::read_to_string(&path).unwrap()).unwrap()
}

pub(crate) fn asked(calls: &[Call], world: &World, place: &str) -> Vec<(String, Request)> {
    let each = calls.iter().flat_map(|call| requests(call, world));
    each.map(|request| (place.to_owned(), request)).collect()
}

fn there(local: &Local) -> aws_sdk_ec2::Client {
    let place = CopyPlace { region: THERE.to_owned().try_into().unwrap(), role: None };
    block_on(local.aws().ec2_at(&place)).unwrap()
}

/// The tags of everything in the other Region that carries any, by id.
fn tags_there(local: &Local) -> BTreeMap<String, BTreeMap<String, String>> {
    tags_of_all(&there(local))
}

pub(crate) fn tags_of_all(ec2: &aws_sdk_ec2::Client) -> BTreeMap<String, BTreeMap<String, String>> {
    let listed = block_on(ec2.describe_snapshots().owner_ids("self").send()).unwrap();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let tags = |tags: &[Tag]| tags.iter().map(|tag| (text(tag.key()), text(tag.value()))).collect();
    listed.snapshots().iter().map(|one| (text(one.snapshot_id()), tags(one.tags()))).collect()
}

fn world(local: &Local, environment: &Environment) -> World {
    let mut tags = tags_there(local);
    tags.extend(local.snapshots().into_iter().map(|one| (one.id, one.tags)));
    let restored_by = environment.environment.to_string();
    World { scope: Scope::of(environment), tags, volumes: BTreeMap::new(), restored_by }
}

fn scope() -> Scope {
    Scope::of(&RECORDING.environment)
}

fn cleanup_policy(environment: &Environment) -> Value {
    json!(role_policies(environment, &Scope::of(environment)).unwrap()["cleanup"].permissions)
}

/// The statements that are there for copies.
fn of_copies(policy: &Value, environment: &Environment) -> Value {
    let mut without = environment.clone();
    without.copy_to.clear();
    let others = cleanup_policy(&without);
    let others = others["Statement"].as_array().unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    json!({ "Statement": statements.filter(|one| !others.contains(one)).collect::<Vec<_>>() })
}

/// A copy that is denied is missing on the day that it is for; and what is never used serves only who stole the role.
#[test]
fn cleanup_may_do_all_that_copies_take_and_no_more() {
    let policy = cleanup_policy(&RECORDING.environment);
    let denied = denied(&policy, &RECORDING.cleanup);
    assert!(denied.is_empty(), "{denied:?}");
    let copies = of_copies(&policy, &RECORDING.environment);
    let recorded: Vec<_> = RECORDING
        .cleanup
        .iter()
        .filter(|(_, request)| Policy::read(&copies).unwrap().evaluate(request).is_allowed())
        .cloned()
        .collect();
    for action in ["ec2:CopySnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot", "kms:CreateGrant"] {
        assert!(recorded.iter().any(|(_, request)| request.action == action), "{action}: {recorded:?}");
    }
    let unused = unused(&copies, &recorded);
    assert!(
        unused.is_empty(),
        "policies/cleanup.yaml grants what no recorded call takes:\n{}",
        unused.join("\n")
    );
}

/// Who takes the function over gets nothing in the other Region but this environment's copies; each condition keeps
/// something out.
#[test]
fn nothing_else_in_the_other_region_can_be_reached() {
    let new = "arn:aws:ec2:eu-west-1::snapshot/*";
    let copy = "arn:aws:ec2:eu-west-1::snapshot/snap-1";
    let source = "arn:aws:ec2:eu-central-1::snapshot/snap-1";
    let key_home = "arn:aws:kms:eu-central-1:123456789012:key/payments";
    let ours = ("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1");
    let asked = ("aws:RequestTag/snapwarden:copied-by", "local/eu-central-1");
    let day = ("aws:RequestTag/DeleteOn", "2026-12-01");
    let of = ("aws:RequestTag/snapwarden:source-snapshot", "snap-1");
    let has_day = ("aws:ResourceTag/DeleteOn", "2026-12-01");
    let by_copying = ("ec2:CreateAction", "CopySnapshot");
    let through = ("kms:ViaService", "ec2.eu-west-1.amazonaws.com");
    let to_service = ("kms:GrantIsForAWSResource", "true");
    let to_people = ("kms:GrantIsForAWSResource", "false");
    let attacks: Vec<(&str, &str, Vec<(&str, &str)>)> = vec![
        // An environment of the same name in that Region.
        ("ec2:DeleteSnapshot", copy, vec![("aws:ResourceTag/snapwarden:environment", "local"), has_day]),
        (
            "ec2:DeleteSnapshot",
            copy,
            vec![("aws:ResourceTag/snapwarden:copied-by", "local/us-east-1"), has_day],
        ),
        ("ec2:DeleteSnapshot", copy, vec![has_day]),
        ("ec2:DeleteSnapshot", copy, vec![ours]),
        ("ec2:DeleteSnapshot", "arn:aws:ec2:us-east-1::snapshot/snap-1", vec![ours, has_day]),
        ("ec2:CopySnapshot", new, vec![asked, day]),
        ("ec2:CopySnapshot", new, vec![asked, of]),
        ("ec2:CopySnapshot", new, vec![day, of]),
        (
            "ec2:CopySnapshot",
            new,
            vec![("aws:RequestTag/snapwarden:copied-by", "prod/eu-central-1"), day, of],
        ),
        ("ec2:CopySnapshot", new, vec![("aws:RequestTag/snapwarden:environment", "local"), day, of]),
        ("ec2:CopySnapshot", "arn:aws:ec2:us-east-1::snapshot/*", vec![asked, day, of]),
        ("ec2:CopySnapshot", source, vec![("ec2:Owner", "666666666666")]),
        ("ec2:CreateTags", copy, vec![("ec2:CreateAction", "CreateSnapshot")]),
        ("ec2:CreateTags", copy, vec![("aws:RequestTag/snapwarden:copied-by", "local/eu-central-1")]),
        ("ec2:CreateTags", "arn:aws:ec2:us-east-1::snapshot/snap-1", vec![by_copying]),
        ("ec2:CreateSnapshots", new, vec![asked, day]),
        ("ec2:CreateVolume", copy, vec![ours]),
        ("ec2:ModifySnapshotAttribute", copy, vec![ours]),
        ("ec2:DescribeSnapshots", "*", vec![("ec2:Region", "us-east-1")]),
        ("ec2:DescribeImages", "*", vec![("ec2:Region", "us-east-1")]),
        ("ec2:DescribeInstances", "*", vec![("ec2:Region", THERE)]),
        ("kms:Decrypt", KEY_THERE, vec![]),
        ("kms:Decrypt", KEY_THERE, vec![("kms:ViaService", "s3.eu-west-1.amazonaws.com")]),
        ("kms:Decrypt", "arn:aws:kms:eu-west-1:123456789012:key/payments", vec![through]),
        ("kms:CreateGrant", KEY_THERE, vec![through, to_people]),
        ("kms:CreateGrant", KEY_THERE, vec![to_service]),
        ("kms:Decrypt", key_home, vec![]),
        ("kms:Decrypt", key_home, vec![("kms:ViaService", "s3.eu-central-1.amazonaws.com")]),
        ("kms:ReEncryptTo", key_home, vec![through]),
        ("kms:CreateGrant", key_home, vec![through, to_people]),
        ("kms:CreateGrant", key_home, vec![to_service]),
        ("kms:Decrypt", "arn:aws:kms:eu-central-1:666666666666:key/1", vec![through]),
        ("kms:ScheduleKeyDeletion", KEY_THERE, vec![through]),
    ];
    let attacks: Vec<_> = attacks
        .into_iter()
        .map(|(action, resource, keys)| {
            let context =
                keys.iter().fold(Context::default(), |context, (key, value)| context.with(key, value));
            Request { action: action.to_owned(), resource: resource.to_owned(), context }
        })
        .collect();
    let document = cleanup_policy(&RECORDING.environment);
    let policy = Policy::read(&document).unwrap();
    for attack in &attacks {
        assert!(!policy.evaluate(attack).is_allowed(), "{attack:?}");
    }
    let copies = of_copies(&document, &RECORDING.environment);
    for (index, statement) in copies["Statement"].as_array().unwrap().iter().enumerate() {
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            for key in keys.as_object().unwrap().keys() {
                let mut without = copies.clone();
                let condition = &mut without["Statement"][index]["Condition"][operator];
                condition.as_object_mut().unwrap().remove(key);
                let without = Policy::read(&without).unwrap();
                let passes = attacks.iter().any(|attack| without.evaluate(attack).is_allowed());
                assert!(passes, "{}: no attack passes without {key}", statement["Sid"]);
            }
        }
    }
}

/// An alias may be moved to another key; only the one that has it now is used, and only in its own Region.
#[test]
fn a_key_by_its_alias_is_one_of_its_own_region() {
    let mut environment = RECORDING.environment.clone();
    environment.copy_to[0].kms_key = "alias/there".to_owned().try_into().unwrap();
    let mut other = environment.copy_to[0].clone();
    other.region = "us-east-1".to_owned().try_into().unwrap();
    other.kms_key = "alias/other".to_owned().try_into().unwrap();
    environment.copy_to.push(other);
    let policy = Policy::read(&cleanup_policy(&environment)).unwrap();
    let may = |region: &str, alias: &str| {
        let context = Context::default()
            .with("kms:ViaService", &format!("ec2.{region}.amazonaws.com"))
            .with("kms:ResourceAliases", alias);
        let resource = format!("arn:aws:kms:{region}:123456789012:key/1");
        policy.evaluate(&Request { action: "kms:ReEncryptTo".to_owned(), resource, context }).is_allowed()
    };
    assert!(may(THERE, "alias/there") && may("us-east-1", "alias/other"));
    assert!(!may(THERE, "alias/other") && !may("us-east-1", "alias/there"));
}

/// Rights that nobody switched on are nobody's; and as many Regions as may be named fit into IAM's limit, beside sealing.
#[test]
fn without_copies_there_is_no_right_elsewhere_and_with_all_of_them_the_policy_still_fits() {
    let mut environment = RECORDING.environment.clone();
    let target = environment.copy_to.remove(0);
    for (role, policies) in role_policies(&environment, &Scope::of(&environment)).unwrap() {
        let text = json!(policies.permissions).to_string();
        assert!(
            !text.contains(THERE) && !text.contains("CopySnapshot") && !text.contains("kms:"),
            "{role}: {text}"
        );
    }
    for key in ["alias/a-name-of-some-length", KEY_THERE] {
        for region in ["ap-southeast-1", "ap-northeast-3"] {
            let key = key.replace(THERE, region);
            environment.copy_to.push(snapwarden_deployer::environment::CopyTarget {
                region: region.to_owned().try_into().unwrap(),
                kms_key: key.try_into().unwrap(),
                ..target.clone()
            });
        }
        environment.encryption.require = snapwarden_deployer::environment::Requirement::Enforce;
        environment.encryption.kms_key = Some(snapwarden_deployer::environment::Key::Existing(
            crate::recording::KEY.to_owned().try_into().unwrap(),
        ));
        let findings = lint_roles(&environment, &Scope::of(&environment)).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        environment.copy_to.clear();
    }
}

/// Whoever restores on the day that the Region is lost has the rights to.
#[test]
fn a_restorer_may_make_volumes_of_the_copies_and_of_nothing_else_there() {
    let policy = json!(restorer_policy(&RECORDING.environment, &scope()).unwrap());
    let denied = denied(&policy, &RECORDING.restores);
    assert!(denied.is_empty(), "{denied:?}");
    let policy = Policy::read(&policy).unwrap();
    let may = |key: &str, value: &str| {
        let (action, resource) =
            ("ec2:CreateVolume".to_owned(), "arn:aws:ec2:eu-west-1::snapshot/snap-1".to_owned());
        policy
            .evaluate(&Request { action, resource, context: Context::default().with(key, value) })
            .is_allowed()
    };
    assert!(may("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1"));
    assert!(!may("aws:ResourceTag/snapwarden:copied-by", "prod/eu-central-1"));
    assert!(!may("aws:ResourceTag/snapwarden:environment", "local"));
}

/// A status that cannot look there fails, and a purge leaves what nobody would ever delete.
#[test]
fn a_deployer_may_look_at_the_copies_and_delete_them_where_it_may_purge() {
    let regions = [CopyPlace { region: THERE.to_owned().try_into().unwrap(), role: None }];
    let of_copies = |access| with_copies(json!({ "Statement": [] }), &scope(), &regions, access);
    let whole = |access| with_copies(deployer_policy(&scope(), access), &scope(), &regions, access);
    let purging = Access { purge: true, ..Access::DEPLOY };
    for (access, recorded) in [(Access::READ_ONLY, &RECORDING.status), (purging, &RECORDING.purge)] {
        let denied = denied(&whole(access), recorded);
        assert!(denied.is_empty(), "{denied:?}");
        let ours: Vec<_> = recorded
            .iter()
            .filter(|(_, request)| Policy::read(&of_copies(access)).unwrap().evaluate(request).is_allowed())
            .cloned()
            .collect();
        assert!(unused(&of_copies(access), &ours).is_empty() && !ours.is_empty(), "{ours:?}");
    }
    assert!(!whole(Access::DEPLOY).to_string().contains("DeleteCopies"));
}

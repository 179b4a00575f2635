//! What copies in another account take: of the cleanup function's role, and of the role there, each by the calls that it
//! signs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_sdk_ec2::types::Tag;
use serde_json::{Value, json};
use snapwarden_deployer::environment::{AccountId, CopyPlace, CopyTarget, Environment};
use snapwarden_deployer::policy::copies::{
    for_key_of_sources, lint_copies, restorer_in_other_account, role_in_other_account,
};
use snapwarden_deployer::policy::deployer::{Access, with_copies};
use snapwarden_deployer::policy::{lint_roles, role_policies};
use snapwarden_deployer::scope::Scope;
use snapwarden_tests::proxy::Proxy;
use snapwarden_tests::{Local, block_on};

use crate::authorization::World;
use crate::copies::{asked, backed_up, tags_of_all};
use crate::evaluator::{Context, Policy, Request};
use crate::minimality::{denied, unused};

const VAULT: &str = "210987654321";
const ROLE: &str = "arn:aws:iam::210987654321:role/snapwarden-copies";
const THERE: &str = "eu-west-1";
const KEY_THERE: &str = "arn:aws:kms:eu-west-1:210987654321:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const SNAPSHOT: &str = "arn:aws:ec2:eu-central-1::snapshot/snap-1";

type Asked = Vec<(String, Request)>;

/// What was asked of IAM.
struct Recording {
    environment: Environment,
    /// By the cleanup function's own role.
    own: Asked,
    /// By the role in the other account.
    there: Asked,
    /// By whoever restores in the other account.
    restores: Asked,
}

static RECORDING: LazyLock<Recording> = LazyLock::new(|| record(THERE));

/// The same where the copies are in the environment's own Region.
static IN_THE_SAME_REGION: LazyLock<Recording> = LazyLock::new(|| record("eu-central-1"));

fn record(region: &str) -> Recording {
    let local = Local::with("floor: 1", "floor: 0");
    let copy_to = format!(
        "copy_to: [{{ region: {region}, role: \"{ROLE}\", kms_key: \"{}\", retention: {{ daily_days: 14 }} }}]\n\
         logs: delete",
        KEY_THERE.replace(THERE, region)
    );
    local.edit("logs: delete", &copy_to);
    let functions = Proxy::of_functions(&local);
    let commands = Proxy::of(&local);
    let environment = backed_up(&local);
    let place = environment.copy_to[0].place();
    let scope = Scope::of(&environment);

    let (mut own, mut there) = (Asked::new(), Asked::new());
    let mut function = |flags: &[&str]| {
        let before = (functions.calls().len(), world(&local, &place, &scope));
        local.ok(&[&["invoke"], flags].concat());
        let calls = functions.calls().split_off(before.0);
        let assumed =
            calls.iter().find(|call| call.action == "sts:AssumeRole").expect("the role is acted as");
        let key = assumed.access_key.clone();
        let (by_own, by_role): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.access_key == key);
        own.extend(asked(&by_own, &before.1, &flags.join(" ")));
        there.extend(asked(&by_role, &before.1, &flags.join(" ")));
    };
    function(&["seal", "--dry-run"]);
    function(&["seal"]);
    function(&["seal"]);
    let first = tags_there(&local, &place).into_keys().next().expect("a copy is there");
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string();
    let tag = Tag::builder().key("DeleteOn").value(today).build();
    block_on(ec2(&local, &place).create_tags().resources(&first).tags(tag).send()).unwrap();
    function(&["cleanup", "--dry-run"]);
    function(&["cleanup"]);

    let instance = tags_there(&local, &place).into_values().next().unwrap()["snapwarden:instance"].clone();
    local.ok(&["invoke", "seal"]);
    let account: AccountId = VAULT.to_owned().try_into().unwrap();
    let in_vault = Scope { account, ..scope.clone() };
    let mut restores = Asked::new();
    let zone = format!("{region}a");
    let here = ["--region", region, "--account", VAULT, "--zone", &zone, "--yes"];
    for what in [&["restore", "run", "--instance", &instance][..], &["restore", "drill"]] {
        let world = world(&local, &place, &in_vault);
        let ran = commands.run(&local, &[what, &here[..]].concat(), Vec::new());
        assert_eq!(ran.code, 0, "{ran:?}");
        // Here the emulators' only user acts as the role; on AWS whoever restores has credentials of the account.
        let calls: Vec<_> =
            commands.calls().into_iter().filter(|call| call.action != "sts:AssumeRole").collect();
        restores.extend(asked(&calls, &world, "restore"));
    }
    Recording { environment, own, there, restores }
}

fn ec2(local: &Local, place: &CopyPlace) -> aws_sdk_ec2::Client {
    block_on(local.aws().ec2_at(place)).unwrap()
}

/// The tags of everything there that carries any, by id.
fn tags_there(local: &Local, place: &CopyPlace) -> BTreeMap<String, BTreeMap<String, String>> {
    tags_of_all(&ec2(local, place))
}

fn world(local: &Local, place: &CopyPlace, scope: &Scope) -> World {
    let mut tags = tags_there(local, place);
    tags.extend(local.snapshots().into_iter().map(|one| (one.id, one.tags)));
    let restored_by = "local/eu-central-1/123456789012".to_owned();
    World { scope: scope.clone(), tags, volumes: BTreeMap::new(), restored_by }
}

fn scope() -> Scope {
    Scope::of(&RECORDING.environment)
}

fn cleanup_policy(environment: &Environment) -> Value {
    json!(role_policies(environment, &Scope::of(environment)).unwrap()["cleanup"].permissions)
}

/// The trust policy and the permissions of the role there.
fn role(principals: &[&str]) -> (Value, Value) {
    role_of(&RECORDING.environment, principals)
}

fn role_of(environment: &Environment, principals: &[&str]) -> (Value, Value) {
    let principals: Vec<_> = principals.iter().map(|&principal| principal.to_owned()).collect();
    let role = environment.copy_to[0].role.as_ref().unwrap();
    let policies = role_in_other_account(environment, &Scope::of(environment), role, &principals).unwrap();
    (json!(policies.trust), json!(policies.permissions))
}

/// The statements of cleanup's role that are there for another account.
fn for_other_account() -> Value {
    let mut without = RECORDING.environment.clone();
    without.copy_to.clear();
    let others = cleanup_policy(&without);
    let others = others["Statement"].as_array().unwrap();
    let policy = cleanup_policy(&RECORDING.environment);
    let statements = policy["Statement"].as_array().unwrap().iter();
    json!({ "Statement": statements.filter(|one| !others.contains(one)).collect::<Vec<_>>() })
}

fn request(action: &str, resource: &str, keys: &[(&str, &str)]) -> Request {
    let context = keys.iter().fold(Context::default(), |context, (key, value)| context.with(key, value));
    Request { action: action.to_owned(), resource: resource.to_owned(), context }
}

/// Whether each condition of the statements keeps an attack out.
fn each_condition_is_needed(document: &Value, attacks: &[Request]) {
    let policy = Policy::read(document).unwrap();
    for attack in attacks {
        assert!(!policy.evaluate(attack).is_allowed(), "{attack:?}");
    }
    for (index, statement) in document["Statement"].as_array().unwrap().iter().enumerate() {
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            for key in keys.as_object().unwrap().keys() {
                let mut without = document.clone();
                without["Statement"][index]["Condition"][operator].as_object_mut().unwrap().remove(key);
                let without = Policy::read(&without).unwrap();
                let passes = attacks.iter().any(|attack| without.evaluate(attack).is_allowed());
                assert!(passes, "{}: no attack passes without {operator} {key}", statement["Sid"]);
            }
        }
    }
}

/// A right that is missing shows on the night that copies are switched on, and one too many on the day that somebody has the
/// role.
#[test]
fn each_role_may_do_what_it_does_and_no_more() {
    let policy = cleanup_policy(&RECORDING.environment);
    assert_eq!(denied(&policy, &RECORDING.own), Vec::<&(String, Request)>::new());
    let added = for_other_account();
    let sids: Vec<_> =
        added["Statement"].as_array().unwrap().iter().map(|one| one["Sid"].as_str().unwrap()).collect();
    assert_eq!(sids.len(), 3, "{sids:?}: copying itself is the other role's");
    let ours = |policy: &Value, recorded: &Asked| -> Asked {
        let policy = Policy::read(policy).unwrap();
        recorded.iter().filter(|(_, request)| policy.evaluate(request).is_allowed()).cloned().collect()
    };
    let none = Vec::<String>::new();
    assert_eq!(unused(&added, &ours(&added, &RECORDING.own)), none);

    let (_, permissions) = role(&[]);
    assert_eq!(denied(&permissions, &RECORDING.there), Vec::<&(String, Request)>::new());
    assert_eq!(unused(&permissions, &RECORDING.there), none);
    for action in ["ec2:CopySnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot", "kms:CreateGrant"] {
        assert!(RECORDING.there.iter().any(|(_, request)| request.action == action), "{action}");
        assert!(!RECORDING.own.iter().any(|(_, request)| request.action == action), "{action}");
    }
}

/// Source and copy are then in one Region, and no address is signed.
#[test]
fn the_roles_may_do_it_in_the_environments_own_region_too() {
    let Recording { environment, own, there, restores } = &*IN_THE_SAME_REGION;
    let none = Vec::<&(String, Request)>::new();
    assert_eq!(denied(&cleanup_policy(environment), own), none);
    let (_, permissions) = role_of(environment, &[]);
    assert_eq!(denied(&permissions, there), none);
    assert_eq!(unused(&permissions, there), Vec::<String>::new());
    let restorer = restorer_in_other_account(environment, &Scope::of(environment), VAULT).unwrap();
    assert_eq!(denied(&json!(restorer), restores), none);
}

/// Whoever has cleanup's role shares nothing with an account of their own, and makes nothing public.
#[test]
fn snapshots_are_shared_with_that_account_and_nobody_else() {
    const SHARE: &str = "ec2:ModifySnapshotAttribute";
    let ours = ("aws:ResourceTag/snapwarden:environment", "local");
    let theirs = ("aws:ResourceTag/snapwarden:environment", "prod");
    let (add, remove) = (("ec2:Add/userId", VAULT), ("ec2:Remove/userId", VAULT));
    let (evil, other) = (("ec2:Add/userId", "666666666666"), ("ec2:Remove/userId", "555555555555"));
    let public = ("ec2:Add/group", "all");
    let attacks = [
        request(SHARE, SNAPSHOT, &[ours, evil]),
        request(SHARE, SNAPSHOT, &[ours, add, evil]),
        request(SHARE, SNAPSHOT, &[ours, public]),
        request(SHARE, SNAPSHOT, &[ours, add, public]),
        request(SHARE, SNAPSHOT, &[theirs, add]),
        request(SHARE, SNAPSHOT, &[add]),
        request(SHARE, SNAPSHOT, &[theirs, remove]),
        // What a person has shared with somebody else is theirs to take back.
        request(SHARE, SNAPSHOT, &[ours, other]),
        request(SHARE, SNAPSHOT, &[ours, remove, other]),
        request(SHARE, SNAPSHOT, &[ours, remove, evil]),
        request(SHARE, SNAPSHOT, &[ours, remove, public]),
        request(SHARE, SNAPSHOT, &[ours]),
        request(SHARE, "arn:aws:ec2:us-east-1::snapshot/snap-1", &[ours, add]),
        request("ec2:ResetSnapshotAttribute", SNAPSHOT, &[ours]),
        request("sts:AssumeRole", "arn:aws:iam::210987654321:role/admin", &[]),
        request("sts:AssumeRole", "arn:aws:iam::123456789012:role/admin", &[]),
    ];
    each_condition_is_needed(&for_other_account(), &attacks);
}

/// An account that holds the copies of several has a role for each: none reaches what another one copied, nor anything else.
#[test]
fn the_role_in_the_other_account_reaches_this_environments_copies_only() {
    let (new, copy) = ("arn:aws:ec2:eu-west-1::snapshot/*", "arn:aws:ec2:eu-west-1::snapshot/snap-1");
    let ours = ("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1/123456789012");
    let asked = ("aws:RequestTag/snapwarden:copied-by", "local/eu-central-1/123456789012");
    let (day, has_day) =
        (("aws:RequestTag/DeleteOn", "2026-12-01"), ("aws:ResourceTag/DeleteOn", "2026-12-01"));
    let of = ("aws:RequestTag/snapwarden:source-snapshot", "snap-1");
    let (through, home) = (
        ("kms:ViaService", "ec2.eu-west-1.amazonaws.com"),
        ("kms:ViaService", "ec2.eu-central-1.amazonaws.com"),
    );
    let (to_service, to_people) =
        (("kms:GrantIsForAWSResource", "true"), ("kms:GrantIsForAWSResource", "false"));
    let key_home = "arn:aws:kms:eu-central-1:123456789012:key/payments";
    let attacks = [
        // Copies of an environment of the same name: in another account, and in this one.
        request(
            "ec2:DeleteSnapshot",
            copy,
            &[("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1/555555555555"), has_day],
        ),
        request(
            "ec2:DeleteSnapshot",
            copy,
            &[("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1"), has_day],
        ),
        request("ec2:DeleteSnapshot", copy, &[("aws:ResourceTag/snapwarden:environment", "local"), has_day]),
        request("ec2:DeleteSnapshot", copy, &[ours]),
        request("ec2:DeleteSnapshot", copy, &[has_day]),
        request("ec2:DeleteSnapshot", "arn:aws:ec2:us-east-1::snapshot/snap-1", &[ours, has_day]),
        request("ec2:CopySnapshot", new, &[asked, day]),
        request("ec2:CopySnapshot", new, &[asked, of]),
        request("ec2:CopySnapshot", new, &[day, of]),
        request("ec2:CopySnapshot", SNAPSHOT, &[("ec2:Owner", "666666666666")]),
        request("ec2:CopySnapshot", SNAPSHOT, &[]),
        request("ec2:CreateTags", copy, &[("ec2:CreateAction", "CreateSnapshot")]),
        request("ec2:CreateTags", copy, &[ours]),
        request("ec2:ModifySnapshotAttribute", copy, &[ours, ("ec2:Add/userId", "123456789012")]),
        request("ec2:CreateVolume", copy, &[ours]),
        request("ec2:DescribeSnapshots", "*", &[("ec2:Region", "us-east-1")]),
        request("ec2:DescribeImages", "*", &[("ec2:Region", "us-east-1")]),
        request("ec2:DescribeInstances", "*", &[("ec2:Region", THERE)]),
        request("kms:Decrypt", KEY_THERE, &[]),
        request("kms:Decrypt", "arn:aws:kms:eu-west-1:210987654321:key/payments", &[through]),
        request("kms:CreateGrant", KEY_THERE, &[through, to_people]),
        request("kms:CreateGrant", KEY_THERE, &[to_service]),
        request("kms:Decrypt", key_home, &[]),
        request("kms:Decrypt", key_home, &[("kms:ViaService", "s3.eu-central-1.amazonaws.com")]),
        request("kms:ReEncryptTo", key_home, &[home]),
        request("kms:CreateGrant", key_home, &[home, to_people]),
        request("kms:CreateGrant", key_home, &[to_service]),
        request("kms:ScheduleKeyDeletion", KEY_THERE, &[through]),
        request("sts:AssumeRole", "arn:aws:iam::210987654321:role/admin", &[]),
        request("sns:Publish", "arn:aws:sns:eu-central-1:123456789012:snapwarden-local-notifications", &[]),
    ];
    let (_, permissions) = role(&[]);
    each_condition_is_needed(&permissions, &attacks);
}

/// The account trusts two names, not whatever runs in the first account.
#[test]
fn only_cleanup_and_who_is_named_acts_as_the_role() {
    const ROOT: &str = "arn:aws:iam::123456789012:root";
    let ann = "arn:aws:iam::123456789012:role/ann";
    let may = |trust: &Value, account: &str, who: &str| {
        let request = request("sts:AssumeRole", ROLE, &[("aws:PrincipalArn", who)]);
        Policy::read(trust).unwrap().trusts(account, &request).is_allowed()
    };
    let cleanup = scope().role_arn("cleanup");
    let (trust, _) = role(&[]);
    assert!(may(&trust, ROOT, &cleanup));
    assert!(!may(&trust, ROOT, &scope().role_arn("backup")) && !may(&trust, ROOT, ann));
    assert!(!may(&trust, "arn:aws:iam::666666666666:root", &cleanup));
    let (trust, _) = role(&[ann]);
    assert!(may(&trust, ROOT, ann) && may(&trust, ROOT, &cleanup));
}

/// A key's policy is the last word on it: it lets the role read through EC2, and nobody else of the other account.
#[test]
fn a_key_at_home_lets_that_role_read_what_it_copies() {
    const ROOT: &str = "arn:aws:iam::210987654321:root";
    let statements = for_key_of_sources(&RECORDING.environment, &scope());
    let document = json!({ "Version": "2012-10-17", "Statement": statements });
    let policy = Policy::read(&document).unwrap();
    let may = |action: &str, who: &str, keys: &[(&str, &str)]| {
        let keys = [&[("aws:PrincipalArn", who)], keys].concat();
        policy.trusts(ROOT, &request(action, "*", &keys)).is_allowed()
    };
    let through = ("kms:ViaService", "ec2.eu-west-1.amazonaws.com");
    let to_service = ("kms:GrantIsForAWSResource", "true");
    for (_, request) in RECORDING.there.iter().filter(|(_, one)| one.resource.contains(":123456789012:key/"))
    {
        let with =
            Request { context: request.context.clone().with("aws:PrincipalArn", ROLE), ..request.clone() };
        assert!(policy.trusts(ROOT, &with).is_allowed(), "{with:?}");
    }
    assert!(may("kms:Decrypt", ROLE, &[through]) && may("kms:CreateGrant", ROLE, &[through, to_service]));
    let somebody = "arn:aws:iam::210987654321:role/somebody";
    assert!(!may("kms:Decrypt", somebody, &[through]) && !may("kms:Decrypt", ROLE, &[]));
    assert!(!may("kms:CreateGrant", ROLE, &[through]) && !may("kms:CreateGrant", ROLE, &[to_service]));
    assert!(!may("kms:ReEncryptTo", ROLE, &[through]) && !may("kms:ScheduleKeyDeletion", ROLE, &[through]));
    let mut without = RECORDING.environment.clone();
    without.copy_to.clear();
    assert!(for_key_of_sources(&without, &scope()).is_empty());
}

/// On the day that the first account is lost, whoever restores has rights in the other one, and needs none elsewhere.
#[test]
fn whoever_restores_there_may_and_reaches_nothing_else() {
    let document = json!(restorer_in_other_account(&RECORDING.environment, &scope(), VAULT).unwrap());
    assert_eq!(denied(&document, &RECORDING.restores), Vec::<&(String, Request)>::new());
    assert_eq!(unused(&document, &RECORDING.restores), Vec::<String>::new());
    assert!(!document.to_string().contains("123456789012:"), "{document}");
    let policy = Policy::read(&document).unwrap();
    let copy = "arn:aws:ec2:eu-west-1::snapshot/snap-1";
    let theirs = ("aws:ResourceTag/snapwarden:copied-by", "local/eu-central-1/555555555555");
    assert!(!policy.evaluate(&request("ec2:CreateVolume", copy, &[theirs])).is_allowed());
}

/// Who may only look cannot act as a role that deletes; and the longest documents still fit.
#[test]
fn a_deployer_acts_as_the_role_only_where_it_may_purge() {
    let places = [RECORDING.environment.copy_to[0].place()];
    let of = |access| with_copies(json!({ "Statement": [] }), &scope(), &places, access);
    assert_eq!(of(Access::DEPLOY), json!({ "Statement": [] }));
    let purging = Policy::read(&of(Access { purge: true, ..Access::READ_ONLY })).unwrap();
    assert!(purging.evaluate(&request("sts:AssumeRole", ROLE, &[])).is_allowed());

    let mut environment = RECORDING.environment.clone();
    let target = environment.copy_to.remove(0);
    for (account, key) in [(VAULT, "alias/a-name-of-some-length"), ("555555555555", "alias/another-name")] {
        environment.copy_to.push(CopyTarget {
            role: Some(ROLE.replace(VAULT, account).try_into().unwrap()),
            kms_key: key.to_owned().try_into().unwrap(),
            ..target.clone()
        });
    }
    let scope = Scope::of(&environment);
    assert_eq!(
        (lint_roles(&environment, &scope).unwrap(), lint_copies(&environment, &scope).unwrap()),
        Default::default()
    );
}

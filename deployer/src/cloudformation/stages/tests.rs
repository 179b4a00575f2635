use std::path::Path;

use super::*;
use crate::cloudformation::{Template, template};
use crate::environment::{Environment, parse};
use crate::kinds::{Role, Schedule, alias_name};
use crate::plan::{Options, plan};
use crate::policy::{RolePolicies, role_policies};
use crate::scope::{Function, Scope};
use crate::world::{Desired, Found, Observed};

/// An environment file and all that is declared from it.
struct World {
    environment: Environment,
    scope: Scope,
    policies: BTreeMap<&'static str, RolePolicies>,
    code: BTreeMap<Function, String>,
}

impl World {
    fn with(from: &str, to: &str) -> Self {
        let text = include_str!("../../../../environments/local.yaml");
        assert!(text.contains(from), "{from}");
        let environment = parse(Path::new("local.yaml"), &text.replacen(from, to, 1)).unwrap();
        let scope = Scope::of(&environment);
        let policies = role_policies(&environment, &scope).unwrap();
        let code = Function::ALL.map(|function| (function, "code".to_owned())).into();
        Self { environment, scope, policies, code }
    }

    fn blueprint(&self) -> Blueprint<'_> {
        let Self { environment, scope, policies, code } = self;
        Blueprint { environment, scope, policies, code, draining: None }
    }

    fn template(&self) -> Template {
        template(&self.environment, &self.code, None).unwrap()
    }

    fn desired(&self) -> Desired {
        registry().declare(&self.blueprint())
    }

    /// What is deployed, whose versions have the number 7.
    fn observed(&self) -> Observed {
        let tags = Some(self.scope.tags(&self.environment));
        let found = |id: &ResourceId, properties| {
            let handle = if id.kind == Alias::NAME { json!({ "version": "7" }) } else { Value::Null };
            Found { properties, handle, tags: tags.clone(), revision: None }
        };
        let desired = self.desired().into_iter();
        desired.map(|(id, properties)| (id.clone(), found(&id, properties))).collect()
    }

    fn plan_from(&self, observed: &Observed) -> Plan {
        plan(&registry(), &self.scope, &self.desired(), observed, &Options::default()).unwrap()
    }

    fn stages_from(&self, observed: &Observed) -> Stages {
        let template = self.template();
        Stages::of(template.document(), &template.names, &self.plan_from(observed), &self.blueprint())
    }
}

const SAME: (&str, &str) = ("memory_mb: 256", "memory_mb: 256");
const SELECT: (&str, &str) = ("tag: Backup, value: \"true\"", "tag: Nightly, value: \"yes\"");

fn types(template: &Value) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for resource in template["Resources"].as_object().unwrap().values() {
        *counted.entry(resource["Type"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counted
}

fn resource<'a>(template: &'a Value, id: &str) -> &'a Value {
    &template["Resources"][id]
}

/// A version that was never tried must serve no night: neither by a moved alias nor by a first one.
#[test]
fn nothing_new_is_live_before_the_canaries() {
    let (before, after) = (World::with(SAME.0, SAME.1), World::with(SELECT.0, SELECT.1));
    let stages = after.stages_from(&before.observed());
    let first = stages.first.clone().unwrap();
    for (word, function) in [("Backup", Function::Backup), ("Cleanup", Function::Cleanup)] {
        let alias = format!("{word}Alias");
        assert_eq!(resource(&first, &alias)["Properties"]["FunctionVersion"], json!("7"));
        let last = &resource(&stages.last, &alias)["Properties"]["FunctionVersion"];
        let version = last["Fn::GetAtt"][0].as_str().unwrap();
        assert_eq!(resource(&first, version)["Type"], json!("AWS::Lambda::Version"), "it is published first");
        assert!(stages.moving.contains_key(&alias_name(&after.scope, function)));
    }
    let kinds: BTreeSet<_> = stages.held.iter().map(|id| id.kind.as_str()).collect();
    assert_eq!(kinds, BTreeSet::from([Alias::NAME, Role::NAME]));

    // Of a new environment, nothing that would invoke a function.
    let stages = after.stages_from(&Observed::new());
    let first = types(stages.first.as_ref().unwrap());
    assert_eq!((first.get("AWS::Lambda::Alias"), first.get("AWS::Scheduler::Schedule")), (None, None));
    assert_eq!(first["AWS::Lambda::Version"], 2);
    let schedule = ResourceId::new(Schedule::NAME, Scope::schedule(Function::Backup));
    assert!(stages.held.contains(&schedule), "{:?}", stages.held);
    let held = types(&stages.last).values().sum::<usize>() - first.values().sum::<usize>();
    assert_eq!(held, stages.held.len());
}

/// Between the two, either release may run: a role that only the new one can work with ends the night of the old one.
#[test]
fn roles_may_do_what_both_releases_need_until_the_new_one_is_live() {
    let (before, after) = (World::with(SAME.0, SAME.1), World::with(SELECT.0, SELECT.1));
    let stages = after.stages_from(&before.observed());
    let role = |template: &Value| resource(template, "BackupRole")["Properties"]["Policies"].to_string();
    let first = role(stages.first.as_ref().unwrap());
    assert!(first.contains("ResourceTag/Backup") && first.contains("ResourceTag/Nightly"), "{first}");
    let last = role(&stages.last);
    assert!(!last.contains("ResourceTag/Backup") && last.contains("ResourceTag/Nightly"), "{last}");
}

/// Two change sets where one would do make every deploy twice as long.
#[test]
fn what_makes_no_other_release_live_takes_one_change() {
    let before = World::with(SAME.0, SAME.1);
    let after = World::with("flexible_minutes: 15 }\n  retention", "flexible_minutes: 30 }\n  retention");
    let stages = after.stages_from(&before.observed());
    assert_eq!((stages.first, stages.held.len(), stages.moving.len()), (None, 0, 0));
    assert_eq!(before.stages_from(&before.observed()).first, None);
}

/// Whoever approves a plan approves all of it, also what the first change set does not show.
#[test]
fn a_plan_shows_what_both_changes_do() {
    let (before, after) = (World::with(SAME.0, SAME.1), World::with(SELECT.0, SELECT.1));
    let direct = after.plan_from(&before.observed());
    let stages = after.stages_from(&before.observed());
    let step = |id: ResourceId| Step {
        resource: id,
        verb: Verb::Update,
        changes: Vec::new(),
        wanted: None,
        interim: None,
        found: None,
    };
    let function = ResourceId::new(LambdaFunction::NAME, after.scope.function(Function::Backup));
    let role = ResourceId::new(Role::NAME, after.scope.role("backup"));
    let first = Plan { steps: vec![step(function.clone()), step(role.clone())], left_alone: Vec::new() };
    let whole = stages.whole(first, &direct, &after.template().names);
    let aliases = whole.steps.iter().filter(|step| step.resource.kind == Alias::NAME).count();
    assert_eq!(aliases, 2);
    assert!(whole.steps.iter().any(|step| step.resource == function));
    let role: Vec<_> = whole.steps.iter().filter(|step| step.resource == role).collect();
    assert!(role.len() == 1 && !role[0].changes.is_empty(), "once, and with what it comes to: {role:?}");
}

/// A return to a release brings back what it served and may do. What somebody has changed in the file since is no part
/// of it.
#[test]
fn a_return_to_a_release_changes_just_that_in_the_template() {
    let (old, new) = (World::with(SAME.0, SAME.1), World::with(SELECT.0, SELECT.1));
    let observed = new.observed();
    let mut desired: Desired =
        observed.iter().map(|(id, found)| (id.clone(), found.properties.clone())).collect();
    for id in [
        ResourceId::new(Alias::NAME, alias_name(&new.scope, Function::Backup)),
        ResourceId::new(Role::NAME, new.scope.role("backup")),
    ] {
        desired.insert(id.clone(), old.desired()[&id].clone());
    }
    let direct = plan(&registry(), &new.scope, &desired, &observed, &Options::default()).unwrap();
    let published = [(alias_name(&new.scope, Function::Backup), "3".to_owned())].into();
    let present = new.template().document();
    let patched = Patched::of(present.clone(), &direct, &published, &new.blueprint());
    let alias = resource(&patched.template, "BackupAlias");
    assert_eq!(alias["Properties"]["FunctionVersion"], json!("3"));
    let policies = resource(&patched.template, "BackupRole")["Properties"]["Policies"].to_string();
    assert!(policies.contains("ResourceTag/Backup") && !policies.contains("ResourceTag/Nightly"));
    let changed: Vec<_> = present["Resources"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(id, before)| *before != resource(&patched.template, id))
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(changed, ["BackupAlias", "BackupRole"]);
    // The version that is tried and the alias that moves are those of the release.
    let stages = Stages::of(patched.template, &patched.names, &direct, &new.blueprint());
    assert_eq!(
        resource(stages.first.as_ref().unwrap(), "BackupAlias")["Properties"]["FunctionVersion"],
        json!("7")
    );
    assert_eq!(stages.moving.len(), 1);
}

/// A drain takes the schedule of backups out of the stack, and publishes the cleanup that it needs from the code that is
/// there.
#[test]
fn a_change_of_settings_publishes_another_version_of_the_same_code_and_removes_what_goes() {
    let (world, other) = (World::with(SAME.0, SAME.1), World::with("floor: 1", "floor: 0"));
    let observed = world.observed();
    let mut desired = other.desired();
    let schedule = ResourceId::new(Schedule::NAME, Scope::schedule(Function::Backup));
    desired.remove(&schedule);
    let direct = plan(&registry(), &world.scope, &desired, &observed, &Options::default()).unwrap();
    let present = world.template().document();
    let patched = Patched::of(present.clone(), &direct, &BTreeMap::new(), &world.blueprint()).template;
    assert_eq!(resource(&patched, "BackupSchedule"), &Value::Null);
    assert_ne!(resource(&present, "BackupSchedule"), &Value::Null);
    assert!(!patched.to_string().contains("\"BackupSchedule\""), "nothing waits for what is gone");
    assert_eq!(types(&patched)["AWS::Lambda::Version"], 2, "the one before is not in the template any more");
    let code = |template: &Value| resource(template, "CleanupFunction")["Properties"]["Code"].clone();
    assert_eq!(code(&patched), code(&present));
    let served =
        |template: &Value| resource(template, "CleanupAlias")["Properties"]["FunctionVersion"].clone();
    assert_ne!(served(&patched), served(&present));
    let version = served(&patched)["Fn::GetAtt"][0].as_str().unwrap().to_owned();
    let before = served(&present)["Fn::GetAtt"][0].as_str().unwrap().to_owned();
    let waits = |template: &Value, version: &str| resource(template, version)["DependsOn"].clone();
    assert_eq!(
        waits(&patched, &version),
        waits(&present, &before),
        "a version is of what its function is by then"
    );
    assert!(waits(&patched, &version).to_string().contains("CleanupFunction"), "{patched}");
}

/// After a rollback the alias names a version by its number. A deploy of just that content would publish it once more, and make
/// live what nobody has tried.
#[test]
fn an_alias_that_serves_what_is_wanted_stays_where_a_rollback_has_pinned_it() {
    let world = World::with(SAME.0, SAME.1);
    let names = world.template().names;
    let mut present = world.template().document();
    present["Resources"]["BackupAlias"]["Properties"]["FunctionVersion"] = json!("7");
    let other = World::with("memory_mb: 256", "memory_mb: 512");
    for (wanted, pinned) in [(&world, true), (&other, false)] {
        let desired = wanted.desired();
        let direct =
            plan(&registry(), &world.scope, &desired, &world.observed(), &Options::default()).unwrap();
        let mut last = wanted.template().document();
        let versions = types(&last)["AWS::Lambda::Version"];
        keep_pinned(&mut last, &present, &names, &direct);
        let served = &resource(&last, "BackupAlias")["Properties"]["FunctionVersion"];
        assert_eq!(*served == json!("7"), pinned, "{served}");
        assert_eq!(types(&last)["AWS::Lambda::Version"], versions - usize::from(pinned));
        assert!(resource(&last, "CleanupAlias")["Properties"]["FunctionVersion"].is_object());
    }
}

/// A version that goes by two names is published twice, which Lambda refuses in the middle of a deploy.
#[test]
fn a_version_has_one_name_in_a_template_for_anywhere_and_in_one_that_is_patched() {
    let world = World::with(
        "logs: delete",
        "notify: { kms_key: \"arn:aws:kms:eu-central-1:123456789012:key/k\" }\nlogs: delete",
    );
    let names = world.template().names;
    for (id, wanted) in world.desired().iter().filter(|(id, _)| id.kind == Alias::NAME) {
        let kind = registry().get(&id.kind).unwrap();
        for part in kind.render_one(&world.blueprint(), &id.name, wanted) {
            assert!(names.contains_key(&part.id), "{} of {id}", part.id);
        }
    }
}

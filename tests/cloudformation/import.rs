//! How an environment of the direct engine's comes into a stack, as far as the emulator imports.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use snapwarden_deployer::apply::{Guard, Halt};
use snapwarden_deployer::cloudformation::artifacts::Source;
use snapwarden_deployer::cloudformation::change_set::{self, Parameters, Request};
use snapwarden_deployer::cloudformation::follow::follow;
use snapwarden_deployer::cloudformation::import::Import;
use snapwarden_deployer::cloudformation::stages::Stages;
use snapwarden_deployer::cloudformation::{ARTIFACT_BUCKET, template};
use snapwarden_deployer::environment::parse;
use snapwarden_deployer::kinds::{Blueprint, Context, registry};
use snapwarden_deployer::plan::{Options, plan};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_tests::{Local, block_on, bundle};

/// What the emulator imports. Of aliases, versions, alarms and what else AWS does, it knows nothing.
const IMPORTED: [&str; 5] =
    ["AWS::IAM::Role", "AWS::Lambda::Function", "AWS::Logs::LogGroup", "AWS::SNS::Topic", "AWS::SQS::Queue"];

struct Free;

#[async_trait(?Send)]
impl Guard for Free {
    async fn check(&self) -> Result<(), Halt> {
        Ok(())
    }
}

fn code() -> BTreeMap<Function, String> {
    let manifest = fs::read_to_string(format!("{}/bundle.json", bundle())).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let digest = |function: Function| {
        manifest["functions"][function.as_str()]["code_sha256"].as_str().unwrap().to_owned()
    };
    Function::ALL.map(|function| (function, digest(function))).into()
}

/// Whoever moves to another engine must have backups every night, and the same ones.
#[test]
fn what_the_direct_engine_has_made_comes_into_a_stack_unchanged() {
    let local = Local::new();
    local.deploy();
    let before = local.json(&["status"]);
    let path = local.path("environments/local.yaml");
    let environment = parse(&path, &fs::read_to_string(&path).unwrap()).unwrap();
    let scope = Scope::of(&environment);
    let cx = Context::new(local.aws(), scope.clone(), None, Arc::new(|_| ()));
    let policies = role_policies(&environment, &scope).unwrap();
    let code = code();
    let blueprint = Blueprint {
        environment: &environment,
        scope: &scope,
        policies: &policies,
        code: &code,
        draining: None,
    };
    let template = template(&environment, &code, None).unwrap();
    let ended = block_on(async {
        let observed = registry().observe(&cx).await.unwrap();
        let desired = registry().declare(&blueprint);
        let direct = plan(&registry(), &scope, &desired, &observed, &Options::default()).unwrap();
        assert!(direct.is_empty(), "the template is of what is there");
        let stages = Stages::of(template.document(), &template.names, &direct, &blueprint);
        let mut import = Import::of(&stages, &template.names, &observed, &scope);
        let is_known = |kind: Option<&str>| kind.is_some_and(|kind| IMPORTED.contains(&kind));
        import.resources.retain(|resource| is_known(resource.resource_type()));
        let resources = import.template["Resources"].as_object_mut().unwrap();
        resources.retain(|_, resource| is_known(resource["Type"].as_str()));
        assert_eq!(import.resources.len(), resources.len());
        let request = Request {
            names: &template.names,
            source: Source::Body(import.template.to_string()),
            parameters: Parameters::Given([(ARTIFACT_BUCKET.to_owned(), "acme".to_owned())].into()),
            tags: BTreeMap::new(),
            role: None,
            adopt: false,
            import: import.resources,
            reverts_drift: false,
        };
        let change_set = change_set::create(&cx, request, None).await.unwrap().unwrap();
        assert!(change_set.plan.steps.iter().all(|step| step.changes[0].to.as_deref() == Some("taken over")));
        change_set::execute(&cx, &change_set.id, "token").await.unwrap();
        follow(&cx, &change_set.stack, "token", &template.names, &Free).await.unwrap()
    });
    assert_eq!(ended.stack.as_ref().map(|stack| stack.status.as_str()), Some("IMPORT_COMPLETE"), "{ended:?}");
    assert_eq!(local.json(&["status"]), before);
}

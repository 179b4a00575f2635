//! How what the direct engine has made comes into a stack: each resource as it is, without a change and without a gap.
//!
//! An import changes nothing but whose a resource is, so the deploy that follows brings it to what the template says.
//! What is not imported, that deploy makes: schedules, since CloudFormation knows a schedule by its name alone and looks
//! for it in the default group; subscriptions, since SNS gives whoever subscribes an endpoint twice the one that there is;
//! and the topic's policy, which is a property of the topic. Source: CloudFormation User Guide, "Import AWS resources
//! into a CloudFormation stack manually".

pub use aws_sdk_cloudformation::types::ResourceToImport;
use serde_json::{Map, Value, json};

use super::stages::Stages;
use super::template::Names;
use crate::kinds::{Alias, Kind};
use crate::scope::Scope;
use crate::world::{Observed, ResourceId};

/// A stack of what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// The template: an import takes none with outputs, nor with anything else than what is imported.
    pub template: Value,
    /// What each resource of it is.
    pub resources: Vec<ResourceToImport>,
}

impl Import {
    /// What of the last template there is already. Pure.
    pub fn of(stages: &Stages, names: &Names, observed: &Observed, scope: &Scope) -> Self {
        let mut template = stages.last.clone();
        let mut imported = Map::new();
        let mut resources = Vec::new();
        for (id, resource) in template["Resources"].as_object().into_iter().flatten() {
            let Some(name) = names.get(id) else { continue };
            let kind = resource["Type"].as_str().unwrap_or_default();
            // A version that an alias does not serve yet, the deploy that follows publishes.
            let is_served = !stages.moving.contains_key(&name.name);
            let identifier = match kind {
                "AWS::Lambda::Version" => version(name, observed, scope).filter(|_| is_served),
                _ => identifier(kind, name, resource, observed, scope),
            };
            let Some(identifier) = identifier else { continue };
            let mut resource = resource.clone();
            // Required of whatever is imported: should that fail, or the stack go, nothing goes with it.
            resource["DeletionPolicy"] = json!("Retain");
            let alias = observed.get(name).filter(|_| name.kind == Alias::NAME);
            if let Some(alias) = alias {
                resource["Properties"]["FunctionVersion"] = alias.handle["version"].clone();
            }
            imported.insert(id.clone(), resource);
            let to_import = ResourceToImport::builder().logical_resource_id(id).resource_type(kind);
            let to_import = identifier
                .into_iter()
                .fold(to_import, |to_import, (key, value)| to_import.resource_identifier(key, value));
            resources.push(to_import.build());
        }
        let there: Vec<String> = imported.keys().cloned().collect();
        for resource in imported.values_mut() {
            if let Some(needs) = resource.get_mut("DependsOn").and_then(Value::as_array_mut) {
                needs.retain(|need| there.iter().any(|id| need == id));
            }
        }
        if let Some(template) = template.as_object_mut() {
            template.remove("Outputs");
            template.insert("Resources".to_owned(), imported.into());
        }
        Self { template, resources }
    }
}

type Identifier = Vec<(&'static str, String)>;

/// What CloudFormation knows a resource by (source: the `primaryIdentifier` of each resource type's schema); nothing of
/// one that is not there, or is not imported.
fn identifier(
    kind: &str,
    name: &ResourceId,
    resource: &Value,
    observed: &Observed,
    scope: &Scope,
) -> Option<Identifier> {
    observed.get(name)?;
    let one = |key: &'static str, value: String| Some(vec![(key, value)]);
    match kind {
        "AWS::Logs::LogGroup" => one("LogGroupName", name.name.clone()),
        "AWS::SQS::Queue" => {
            let suffix = if scope.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
            let Scope { region, account, .. } = scope;
            one("QueueUrl", format!("https://sqs.{region}.{suffix}/{account}/{}", name.name))
        }
        "AWS::Scheduler::ScheduleGroup" => one("Name", name.name.clone()),
        "AWS::IAM::Role" => one("RoleName", name.name.clone()),
        "AWS::Lambda::Function" => one("FunctionName", name.name.clone()),
        "AWS::Lambda::Alias" => one("AliasArn", scope.arn("lambda", &format!("function:{}", name.name))),
        "AWS::Lambda::EventInvokeConfig" => {
            let text = |property: &str| resource["Properties"][property].as_str().map(str::to_owned);
            Some(vec![("FunctionName", text("FunctionName")?), ("Qualifier", text("Qualifier")?)])
        }
        "AWS::SNS::Topic" => one("TopicArn", scope.topic_arn()),
        "AWS::CloudWatch::Alarm" => one("AlarmName", name.name.clone()),
        "AWS::CloudWatch::Dashboard" => one("DashboardName", name.name.clone()),
        _ => None,
    }
}

/// The version that an alias serves. Left out, CloudFormation would publish it, and Lambda publishes nothing twice.
fn version(name: &ResourceId, observed: &Observed, scope: &Scope) -> Option<Identifier> {
    let alias = observed.get(&ResourceId::new(Alias::NAME, name.name.as_str()))?;
    let (function, number) = (name.name.split(':').next()?, alias.handle["version"].as_str()?);
    Some(vec![("FunctionArn", scope.arn("lambda", &format!("function:{function}:{number}")))])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::cloudformation::template;
    use crate::environment::parse;
    use crate::kinds::{Blueprint, registry};
    use crate::plan::{Options, plan};
    use crate::policy::role_policies;
    use crate::scope::Function;
    use crate::world::Found;

    /// What is not imported and there is makes the deploy that follows fail over it, with the environment half in a stack;
    /// a schedule that was imported would be looked for in the wrong group.
    #[test]
    fn all_that_has_a_name_of_its_own_is_imported_as_it_is() {
        let text = include_str!("../../../environments/local.yaml");
        let environment = parse(Path::new("local.yaml"), text).unwrap();
        let scope = Scope::of(&environment);
        let policies = role_policies(&environment, &scope).unwrap();
        let code = Function::ALL.map(|function| (function, "code".to_owned())).into();
        let blueprint = Blueprint {
            environment: &environment,
            scope: &scope,
            policies: &policies,
            code: &code,
            draining: None,
        };
        let desired = registry().declare(&blueprint);
        let tags = Some(scope.tags(&environment));
        let found = |properties| Found {
            properties,
            handle: json!({ "version": "7" }),
            tags: tags.clone(),
            revision: None,
        };
        let mut observed: Observed =
            desired.iter().map(|(id, properties)| (id.clone(), found(properties.clone()))).collect();
        // The cleanup function is about to get another release.
        let alias = ResourceId::new(Alias::NAME, "snapwarden-local-cleanup:live");
        observed.get_mut(&alias).unwrap().properties["serves"]["memory_mb"] = json!(1);
        let direct = plan(&registry(), &scope, &desired, &observed, &Options::default()).unwrap();
        let template = template(&environment, &code, None).unwrap();
        let stages = Stages::of(template.document(), &template.names, &direct, &blueprint);
        let import = Import::of(&stages, &template.names, &observed, &scope);
        let imported = import.template["Resources"].as_object().unwrap();
        let left: BTreeSet<_> = stages.last["Resources"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(id, _)| !imported.contains_key(*id))
            .map(|(_, resource)| resource["Type"].as_str().unwrap())
            .collect();
        assert_eq!(
            left,
            BTreeSet::from(["AWS::Lambda::Version", "AWS::SNS::TopicPolicy", "AWS::Scheduler::Schedule"])
        );
        let versions: Vec<_> = import
            .resources
            .iter()
            .filter(|one| one.resource_type() == Some("AWS::Lambda::Version"))
            .collect();
        assert_eq!(versions.len(), 1, "what an alias does not serve yet is published by the deploy");
        let identifier = versions[0].resource_identifier().unwrap();
        let arn = "arn:aws:lambda:eu-central-1:123456789012:function:snapwarden-local-backup:7";
        assert_eq!(identifier.get("FunctionArn").map(String::as_str), Some(arn));
        for resource in imported.values() {
            assert_eq!(resource["DeletionPolicy"], "Retain");
            for need in resource["DependsOn"].as_array().into_iter().flatten() {
                assert!(imported.contains_key(need.as_str().unwrap()), "{need}");
            }
        }
        let alias = &imported["BackupAlias"]["Properties"]["FunctionVersion"];
        assert_eq!(*alias, "7", "an import moves no alias");
        assert_eq!((import.template.get("Outputs"), import.resources.len()), (None, imported.len()));
    }
}

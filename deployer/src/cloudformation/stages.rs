//! A change of a stack in two parts, so that nothing is live untried: what makes a release ready, and what makes it live.
//!
//! A template says everything at once, and CloudFormation would publish a version and move its alias in one go. So a
//! template that makes another release live is reached by way of another one, the *first*. After it the new versions
//! are published, and whatever is live still is: aliases that there are serve what they did, roles may do what both
//! releases need, and where there is no alias yet, whatever waits for it is left out as well. Then the versions do
//! their dry runs, and the *last* template moves the aliases and takes from the roles what only the release before
//! needed. A command that dies in between leaves a stack that works, and the next one goes on from there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::template::Names;
use crate::kinds::{Alias, AnyKind, Blueprint, Kind, LambdaFunction, registry};
use crate::plan::{Plan, Step, Verb};
use crate::property::compare;
use crate::world::ResourceId;

/// The two templates, and what lies between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages {
    /// What the stack is before the new versions are tried; nothing where no alias moves.
    pub first: Option<Value>,
    /// What it is in the end.
    pub last: Value,
    /// What only the last template changes.
    pub held: BTreeSet<ResourceId>,
    /// The aliases that move, with what is wanted of them.
    pub moving: BTreeMap<String, Value>,
}

impl Stages {
    /// The way to a template: `direct` says, as the direct engine plans it, what differs from it now. Pure.
    pub fn of(last: Value, names: &Names, direct: &Plan, blueprint: &Blueprint<'_>) -> Self {
        let mut first = last.clone();
        let (mut held, mut moving, mut absent) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for step in direct.pending() {
            let (Some(wanted), Some(id)) = (&step.wanted, id_of(names, &step.resource)) else { continue };
            if step.resource.kind == Alias::NAME {
                match step.found.as_ref().filter(|_| step.verb == Verb::Update) {
                    Some(found) if !Alias::serves_another(&found.properties, wanted) => continue,
                    Some(found) => {
                        let properties = &mut first["Resources"][id]["Properties"];
                        properties["FunctionVersion"] = found.handle["version"].clone();
                    }
                    None => drop(absent.insert(id.to_owned())),
                }
                moving.insert(step.resource.name.clone(), wanted.clone());
                held.insert(step.resource.clone());
            } else if let Some(interim) = &step.interim {
                let rendered =
                    kind_of(step).map(|kind| kind.render_one(blueprint, &step.resource.name, interim));
                if let Some(part) = rendered.and_then(|parts| parts.into_iter().next()) {
                    first["Resources"][id]["Properties"] = part.properties;
                    held.insert(step.resource.clone());
                }
            }
        }
        for id in with_dependents(&first, absent) {
            if let Some(resources) = first["Resources"].as_object_mut() {
                resources.remove(&id);
            }
            held.extend(names.get(&id).cloned());
        }
        let first = (!moving.is_empty()).then_some(first);
        // Without an alias that moves there is only one release, which keeps its rights.
        let held = if first.is_some() { held } else { BTreeSet::new() };
        Self { first, last, held, moving }
    }

    /// What both changes do, as one plan: `first` is what CloudFormation has worked out for the first one.
    #[must_use]
    pub fn whole(&self, first: Plan, direct: &Plan, names: &Names) -> Plan {
        let mut steps: Vec<Step> =
            first.steps.into_iter().filter(|step| !self.held.contains(&step.resource)).collect();
        let planned = direct.pending().filter(|step| self.held.contains(&step.resource));
        steps.extend(planned.map(|step| {
            let properties = id_of(names, &step.resource).map(|id| &self.last["Resources"][id]["Properties"]);
            let changes = match (step.verb, properties) {
                // In the words of the template, as all that it makes.
                (Verb::Create, Some(properties)) => compare(properties, &Value::Null),
                _ => step.changes.clone(),
            };
            Step { changes, wanted: None, interim: None, found: None, ..step.clone() }
        }));
        steps.sort_by(|a, b| a.resource.cmp(&b.resource));
        Plan { steps, left_alone: Vec::new() }
    }
}

/// Leaves aliases where a rollback has pinned them, as long as what they serve is what is wanted: another version of the same
/// would be published, and go live untried. `present` is the stack's template. Pure.
pub fn keep_pinned(last: &mut Value, present: &Value, names: &Names, direct: &Plan) {
    let is_kept = |id: &str| {
        let mut kept = direct.steps.iter().filter(|step| step.verb == Verb::Keep);
        kept.any(|step| step.resource.kind == Alias::NAME && names.get(id) == Some(&step.resource))
    };
    let Some(resources) = last["Resources"].as_object_mut() else { return };
    let pinned = present["Resources"].as_object().into_iter().flatten().filter_map(|(id, alias)| {
        let version = &alias["Properties"]["FunctionVersion"];
        (version.is_string() && is_kept(id)).then_some((id, version))
    });
    for (id, version) in pinned {
        let Some(alias) = resources.get_mut(id) else { continue };
        let published = std::mem::replace(&mut alias["Properties"]["FunctionVersion"], version.clone());
        if let Some(published) = published["Fn::GetAtt"][0].as_str() {
            resources.remove(published);
        }
    }
}

/// A stack's present template, with just what a plan of the direct engine changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// The template.
    pub template: Value,
    /// What its resources are called.
    pub names: Names,
}

impl Patched {
    /// Changes in `present` what `plan` changes, and nothing else: what the file asks for by now is left to a deploy.
    /// `published` are the numbers of versions that aliases shall serve and that there are; others get published. Pure.
    pub fn of(
        present: Value,
        plan: &Plan,
        published: &BTreeMap<String, String>,
        blueprint: &Blueprint<'_>,
    ) -> Self {
        let mut template = present;
        let rendered: Vec<_> = plan.steps.iter().map(|step| (step, render(step, blueprint))).collect();
        let names: Names = rendered
            .iter()
            .filter_map(|(step, parts)| Some((parts.first()?.id.clone(), step.resource.clone())))
            .collect();
        let Some(resources) = template["Resources"].as_object_mut() else { return Self { template, names } };
        // As in a whole template: a version is published of the code and settings that the function has by then.
        let waiting = |mut part: Value, resource: &ResourceId, resources: &Map<String, Value>| {
            let needs = registry().needs(resource, blueprint.scope);
            let needs = needs.iter().filter_map(|need| id_of(&names, need));
            let needs: BTreeSet<&str> = needs.filter(|id| resources.contains_key(*id)).collect();
            if !needs.is_empty() {
                part["DependsOn"] = json!(needs);
            }
            part
        };
        for (step, parts) in rendered.into_iter().filter(|(step, _)| step.verb != Verb::Keep) {
            let mut parts = parts.into_iter();
            let Some(mut part) = parts.next() else { continue };
            if step.verb == Verb::Delete {
                resources.remove(&part.id);
                // CloudFormation refuses a template that waits for what is not in it.
                for other in resources.values_mut() {
                    if let Some(needs) = other.get_mut("DependsOn").and_then(Value::as_array_mut) {
                        needs.retain(|need| *need != part.id);
                    }
                }
                continue;
            }
            if let Some(number) =
                published.get(&step.resource.name).filter(|_| step.resource.kind == Alias::NAME)
            {
                part.properties["FunctionVersion"] = json!(number);
            } else if let Some(version) = parts.next() {
                let function = version.properties["FunctionName"].clone();
                // The one before stays with Lambda, as its deletion policy says.
                resources.retain(|_, other| {
                    other["Type"] != version.kind || other["Properties"]["FunctionName"] != function
                });
                let waits = waiting(json!(version), &step.resource, resources);
                resources.insert(version.id.clone(), waits);
            }
            if let Some(there) = resources.get_mut(&part.id) {
                // Where its code is, only the template knows.
                let code = there["Properties"]["Code"].take();
                there["Properties"] = part.properties;
                if step.resource.kind == LambdaFunction::NAME {
                    there["Properties"]["Code"] = code;
                }
            } else {
                let waits = waiting(json!(part), &step.resource, resources);
                resources.insert(part.id.clone(), waits);
            }
        }
        Self { template, names }
    }
}

fn render(step: &Step, blueprint: &Blueprint<'_>) -> Vec<super::Resource> {
    let properties = step.wanted.as_ref().or(step.found.as_ref().map(|found| &found.properties));
    let kind = kind_of(step).zip(properties);
    kind.map(|(kind, properties)| kind.render_one(blueprint, &step.resource.name, properties))
        .unwrap_or_default()
}

fn kind_of(step: &Step) -> Option<&'static dyn AnyKind> {
    registry().get(&step.resource.kind)
}

fn id_of<'a>(names: &'a Names, resource: &ResourceId) -> Option<&'a str> {
    names.iter().find(|(_, named)| *named == resource).map(|(id, _)| id.as_str())
}

/// These resources of a template, and all that wait for them.
fn with_dependents(template: &Value, mut ids: BTreeSet<String>) -> BTreeSet<String> {
    let waits = |resource: &Value, ids: &BTreeSet<String>| {
        let needs = resource["DependsOn"].as_array().into_iter().flatten().filter_map(Value::as_str);
        needs.into_iter().any(|need| ids.contains(need))
    };
    loop {
        let resources = template["Resources"].as_object().into_iter().flatten();
        let more = resources.filter(|(id, resource)| !ids.contains(*id) && waits(resource, &ids));
        let more: Vec<String> = more.map(|(id, _)| id.clone()).collect();
        if more.is_empty() {
            return ids;
        }
        ids.extend(more);
    }
}

#[cfg(test)]
mod tests;

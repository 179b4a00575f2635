//! One StackSet that brings an environment to many accounts and Regions: CloudFormation's own distributed engine.
//!
//! Nothing is remembered between two commands: what there is, CloudFormation lists, and what is missing or failed is what
//! the next deploy does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudformation::types::{
    AutoDeployment, Capability, DeploymentTargets, Parameter, PermissionModels, StackSetOperationPreferences,
    StackSetOperationStatus, Tag,
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::artifacts::Source;
use crate::environment::Fleet;
use crate::error::{AwsError, Call};
use crate::kinds::{Context, StepError};
use crate::plan::{Plan, Step, Verb};
use crate::property::{Change, compare};
use crate::wait;
use crate::world::ResourceId;

/// The kinds of what a fleet is made of, as plans name them.
pub const STACK_SET: &str = "stack set";
/// One stack of a fleet: an account, or an organizational unit's accounts, in a Region.
pub const STACK_INSTANCE: &str = "stack instance";

/// A target in a Region: an account's number or an organizational unit's id, and the Region.
pub type Place = (String, String);

/// What a fleet should be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Who gets it.
    pub fleet: Fleet,
    /// The template's text.
    pub body: String,
    /// What the template's parameters are.
    pub parameters: BTreeMap<String, String>,
    /// The tags of the StackSet, which its stacks get as well.
    pub tags: BTreeMap<String, String>,
}

/// What a fleet is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The StackSet's properties, in the form of the wanted ones.
    pub properties: Value,
    /// Its stacks.
    pub instances: Vec<Instance>,
}

/// One stack of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Instance {
    /// The account that it is in.
    pub account: String,
    /// The Region that it is in.
    pub region: String,
    /// The organizational unit that it is there for.
    pub unit: Option<String>,
    /// `CURRENT`, `OUTDATED` or `INOPERABLE`.
    pub status: String,
    /// Why it is not current.
    pub reason: Option<String>,
}

/// Where an operation failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The account.
    pub account: String,
    /// The Region.
    pub region: String,
    /// CloudFormation's own words.
    pub reason: String,
}

impl Wanted {
    /// What of it the StackSet itself holds.
    fn properties(&self) -> Value {
        json!({
            "template": digest(&self.body),
            "parameters": self.parameters,
            "tags": self.tags,
            "auto_deploy": self.by_organization().then_some(self.fleet.auto_deploy),
        })
    }

    fn by_organization(&self) -> bool {
        !self.fleet.organizational_units.is_empty()
    }

    /// Everywhere it should be.
    fn places(&self) -> BTreeSet<Place> {
        let units = self.fleet.organizational_units.iter().map(ToString::to_string);
        let targets: Vec<String> = units.chain(self.fleet.accounts.iter().map(ToString::to_string)).collect();
        let regions = self.fleet.regions.iter().map(ToString::to_string);
        regions
            .flat_map(|region| targets.iter().map(move |target| (target.clone(), region.clone())))
            .collect()
    }

    fn preferences(&self) -> StackSetOperationPreferences {
        StackSetOperationPreferences::builder()
            .max_concurrent_percentage(self.fleet.max_concurrent_percent.as_i32())
            .failure_tolerance_percentage(self.fleet.failure_tolerance_percent.as_i32())
            .set_region_order(Some(self.fleet.regions.iter().map(ToString::to_string).collect()))
            .build()
    }

    fn auto_deployment(&self) -> Option<AutoDeployment> {
        let on = AutoDeployment::builder().enabled(self.fleet.auto_deploy);
        let on = if self.fleet.auto_deploy { on.retain_stacks_on_account_removal(false) } else { on };
        self.by_organization().then(|| on.build())
    }
}

/// Equal digests mean equal templates; CloudFormation may lay a text out anew.
fn digest(body: &str) -> String {
    let text =
        serde_json::from_str::<Value>(body).map_or_else(|_| body.to_owned(), |value| value.to_string());
    hex::encode(&Sha256::digest(text)[..8])
}

/// The fleet that there is.
pub async fn find(cx: &Context) -> Result<Option<Found>, AwsError> {
    let name = cx.scope.stack();
    let answer = cx.aws.cloudformation.describe_stack_set().stack_set_name(&name).send().await;
    let set = match answer.call("cloudformation:DescribeStackSet") {
        Err(error) if error.code.starts_with("StackSetNotFound") => return Ok(None),
        answer => answer?.stack_set,
    };
    // A deleted one is still known for a while.
    let Some(set) = set.filter(|set| set.status.as_ref().is_none_or(|status| status.as_str() != "DELETED"))
    else {
        return Ok(None);
    };
    let parameters = set.parameters.unwrap_or_default().into_iter();
    let parameters: BTreeMap<String, String> = parameters
        .filter_map(|parameter| Some((parameter.parameter_key?, parameter.parameter_value?)))
        .collect();
    let tags: BTreeMap<String, String> =
        set.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?))).collect();
    let properties = json!({
        "template": digest(&set.template_body.unwrap_or_default()),
        "parameters": parameters,
        "tags": tags,
        "auto_deploy": set.auto_deployment.and_then(|deployment| deployment.enabled),
    });
    Ok(Some(Found { properties, instances: instances(cx, &name).await? }))
}

async fn instances(cx: &Context, name: &str) -> Result<Vec<Instance>, AwsError> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let call = cx.aws.cloudformation.list_stack_instances().stack_set_name(name).set_next_token(next);
        let page = call.send().await.call("cloudformation:ListStackInstances")?;
        all.extend(page.summaries.unwrap_or_default().into_iter().map(|summary| Instance {
            account: summary.account.unwrap_or_default(),
            region: summary.region.unwrap_or_default(),
            unit: summary.organizational_unit_id.filter(|unit| !unit.is_empty()),
            status: summary.status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
            reason: summary.status_reason.filter(|reason| !reason.is_empty()),
        }));
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            all.sort();
            return Ok(all);
        }
    }
}

/// The way from what there is to what should be, in the form of all plans. Pure.
pub fn plan(name: &str, wanted: Option<&Wanted>, found: Option<&Found>) -> Plan {
    let step = |kind: &str, name: &str, verb: Verb, changes: Vec<Change>| Step {
        resource: ResourceId::new(kind, name),
        verb,
        changes,
        wanted: None,
        interim: None,
        found: None,
    };
    let mut steps = Vec::new();
    match (wanted, found) {
        (Some(wanted), None) => {
            steps.push(step(STACK_SET, name, Verb::Create, compare(&wanted.properties(), &Value::Null)))
        }
        (Some(wanted), Some(found)) => {
            let changes = compare(&wanted.properties(), &found.properties);
            let verb = if changes.is_empty() { Verb::Keep } else { Verb::Update };
            steps.push(step(STACK_SET, name, verb, changes));
        }
        (None, Some(_)) => steps.push(step(STACK_SET, name, Verb::Delete, Vec::new())),
        (None, None) => {}
    }
    let places = wanted.map(Wanted::places).unwrap_or_default();
    let there = found.map(by_place).unwrap_or_default();
    for place in places.iter().chain(there.keys()).collect::<BTreeSet<_>>() {
        let instances = there.get(place).map(Vec::as_slice).unwrap_or_default();
        let poor: Vec<Change> =
            instances.iter().filter(|instance| instance.status != "CURRENT").map(change).collect();
        let verb = match (places.contains(place), instances.is_empty()) {
            (true, true) => Verb::Create,
            (true, false) if poor.is_empty() => Verb::Keep,
            (true, false) => Verb::Update,
            (false, _) => Verb::Delete,
        };
        let changes = if verb == Verb::Update { poor } else { Vec::new() };
        steps.push(step(STACK_INSTANCE, &format!("{} in {}", place.0, place.1), verb, changes));
    }
    Plan { steps, left_alone: Vec::new() }
}

/// By what each is there for.
fn by_place(found: &Found) -> BTreeMap<Place, Vec<Instance>> {
    let mut all: BTreeMap<Place, Vec<Instance>> = BTreeMap::new();
    for instance in &found.instances {
        let target = instance.unit.clone().unwrap_or_else(|| instance.account.clone());
        all.entry((target, instance.region.clone())).or_default().push(instance.clone());
    }
    all
}

fn change(instance: &Instance) -> Change {
    Change {
        property: format!("status in {}", instance.account),
        from: Some(instance.status.clone()),
        to: Some("CURRENT".to_owned()),
        why: instance.reason.clone(),
    }
}

/// Makes the fleet what it should be, one operation after another; where it failed, and why.
///
/// A StackSet has one operation at a time, so what a command began that was killed is waited for.
pub async fn deploy(
    cx: &Context,
    wanted: &Wanted,
    source: &Source,
    found: Option<&Found>,
) -> Result<Vec<Failure>, StepError> {
    let name = cx.scope.stack();
    let mut failures = Vec::new();
    let properties = wanted.properties();
    match found {
        None => create(cx, &name, wanted, source).await?,
        // An update also takes every stack along that is not current.
        Some(found) if !compare(&properties, &found.properties).is_empty() => {
            let id = update(cx, &name, wanted, source).await?;
            failures.extend(finished(cx, &name, &id).await?);
        }
        Some(_) => {}
    }
    let there = found.map(by_place).unwrap_or_default();
    let places = wanted.places();
    let missing: BTreeSet<&Place> = places.iter().filter(|place| !there.contains_key(*place)).collect();
    let gone: BTreeSet<&Place> = there.keys().filter(|place| !places.contains(*place)).collect();
    for (regions, targets) in together(&missing) {
        let call = cx.aws.cloudformation.create_stack_instances().stack_set_name(&name);
        let call = call.set_regions(Some(regions)).operation_preferences(wanted.preferences());
        let call = if wanted.by_organization() {
            call.deployment_targets(
                DeploymentTargets::builder().set_organizational_unit_ids(Some(targets)).build(),
            )
        } else {
            call.set_accounts(Some(targets))
        };
        let made = wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
            call.clone().send().await.call("cloudformation:CreateStackInstances")
        })
        .await?;
        failures.extend(finished(cx, &name, &made.operation_id.unwrap_or_default()).await?);
    }
    let changed = found.is_some_and(|found| !compare(&properties, &found.properties).is_empty());
    let poor = there.iter().filter(|(place, instances)| {
        places.contains(*place) && instances.iter().any(|instance| instance.status != "CURRENT")
    });
    let poor: BTreeSet<&Place> =
        if changed { BTreeSet::new() } else { poor.map(|(place, _)| place).collect() };
    for (regions, targets) in together(&poor) {
        let call = cx.aws.cloudformation.update_stack_instances().stack_set_name(&name);
        let call = call.set_regions(Some(regions)).operation_preferences(wanted.preferences());
        let call = if wanted.by_organization() {
            call.deployment_targets(
                DeploymentTargets::builder().set_organizational_unit_ids(Some(targets)).build(),
            )
        } else {
            call.set_accounts(Some(targets))
        };
        let made = wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
            call.clone().send().await.call("cloudformation:UpdateStackInstances")
        })
        .await?;
        failures.extend(finished(cx, &name, &made.operation_id.unwrap_or_default()).await?);
    }
    failures.extend(delete_instances(cx, &name, &gone, wanted.by_organization()).await?);
    Ok(failures)
}

/// Deletes every stack of the fleet, and then the StackSet; where that failed, and why.
pub async fn destroy(cx: &Context, found: &Found) -> Result<Vec<Failure>, StepError> {
    let name = cx.scope.stack();
    let there = by_place(found);
    let by_organization = found.instances.iter().any(|instance| instance.unit.is_some());
    let failures = delete_instances(cx, &name, &there.keys().collect(), by_organization).await?;
    if failures.is_empty() {
        wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
            cx.aws
                .cloudformation
                .delete_stack_set()
                .stack_set_name(&name)
                .send()
                .await
                .call("cloudformation:DeleteStackSet")
        })
        .await?;
    }
    Ok(failures)
}

async fn delete_instances(
    cx: &Context,
    name: &str,
    places: &BTreeSet<&Place>,
    by_organization: bool,
) -> Result<Vec<Failure>, StepError> {
    let mut failures = Vec::new();
    for (regions, targets) in together(places) {
        let call = cx.aws.cloudformation.delete_stack_instances().stack_set_name(name).retain_stacks(false);
        let call = call.set_regions(Some(regions));
        let call = if by_organization {
            call.deployment_targets(
                DeploymentTargets::builder().set_organizational_unit_ids(Some(targets)).build(),
            )
        } else {
            call.set_accounts(Some(targets))
        };
        let made = wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
            call.clone().send().await.call("cloudformation:DeleteStackInstances")
        })
        .await?;
        failures.extend(finished(cx, name, &made.operation_id.unwrap_or_default()).await?);
    }
    Ok(failures)
}

async fn create(cx: &Context, name: &str, wanted: &Wanted, source: &Source) -> Result<(), StepError> {
    let model = if wanted.by_organization() {
        PermissionModels::ServiceManaged
    } else {
        PermissionModels::SelfManaged
    };
    let call = cx.aws.cloudformation.create_stack_set().stack_set_name(name).permission_model(model);
    let call =
        call.set_auto_deployment(wanted.auto_deployment()).capabilities(Capability::CapabilityNamedIam);
    let call = call.set_parameters(Some(parameters(wanted))).set_tags(Some(tags(wanted)));
    let call = match source.clone() {
        Source::Body(text) => call.template_body(text),
        Source::Url(url) => call.template_url(url),
    };
    call.send().await.call("cloudformation:CreateStackSet")?;
    Ok(())
}

async fn update(cx: &Context, name: &str, wanted: &Wanted, source: &Source) -> Result<String, StepError> {
    let updated = wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
        let call = cx.aws.cloudformation.update_stack_set().stack_set_name(name);
        let call =
            call.set_auto_deployment(wanted.auto_deployment()).capabilities(Capability::CapabilityNamedIam);
        let call = call.set_parameters(Some(parameters(wanted))).set_tags(Some(tags(wanted)));
        let call = call.operation_preferences(wanted.preferences());
        let call = match source.clone() {
            Source::Body(text) => call.template_body(text),
            Source::Url(url) => call.template_url(url),
        };
        call.send().await.call("cloudformation:UpdateStackSet")
    })
    .await?;
    Ok(updated.operation_id.unwrap_or_default())
}

fn parameters(wanted: &Wanted) -> Vec<Parameter> {
    let parameter = |(name, value)| Parameter::builder().parameter_key(name).parameter_value(value).build();
    wanted.parameters.iter().map(parameter).collect()
}

fn tags(wanted: &Wanted) -> Vec<Tag> {
    wanted.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// How long one operation on a whole fleet may take.
const LIMIT: Duration = Duration::from_hours(12);

/// Waits for an operation; where it failed, and why.
async fn finished(cx: &Context, name: &str, id: &str) -> Result<Vec<Failure>, StepError> {
    let status = wait::until(cx, "CloudFormation to go through the accounts", LIMIT, async || {
        let call = cx.aws.cloudformation.describe_stack_set_operation().stack_set_name(name).operation_id(id);
        let answer = call.send().await.call("cloudformation:DescribeStackSetOperation")?;
        let status = answer.stack_set_operation.and_then(|operation| operation.status);
        let runs = [
            StackSetOperationStatus::Running,
            StackSetOperationStatus::Queued,
            StackSetOperationStatus::Stopping,
        ];
        Ok(status.filter(|status| !runs.contains(status)))
    })
    .await?;
    let Some(status) = status else {
        return Err(StepError::NotReady {
            what: "CloudFormation did not go through all accounts",
            seconds: LIMIT.as_secs(),
            state: format!("operation {id} still runs"),
        });
    };
    if status == StackSetOperationStatus::Succeeded {
        return Ok(Vec::new());
    }
    let (mut failures, mut next) = (Vec::new(), None);
    loop {
        let call =
            cx.aws.cloudformation.list_stack_set_operation_results().stack_set_name(name).operation_id(id);
        let page =
            call.set_next_token(next).send().await.call("cloudformation:ListStackSetOperationResults")?;
        for result in page.summaries.unwrap_or_default() {
            let status = result.status.map(|status| status.as_str().to_owned()).unwrap_or_default();
            if status != "SUCCEEDED" {
                failures.push(Failure {
                    account: result.account.unwrap_or_default(),
                    region: result.region.unwrap_or_default(),
                    reason: result.status_reason.unwrap_or(status),
                });
            }
        }
        next = page.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    if failures.is_empty() {
        let state = format!("operation {id} ended as {}", status.as_str());
        return Err(StepError::Failed { what: "CloudFormation did not go through all accounts", state });
    }
    Ok(failures)
}

/// Places as CloudFormation takes them: Regions, and targets that are in all of them.
fn together(places: &BTreeSet<&Place>) -> Vec<(Vec<String>, Vec<String>)> {
    let mut by_region: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (target, region) in places {
        by_region.entry(region).or_default().push(target.clone());
    }
    let mut all: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (region, targets) in by_region {
        match all.iter_mut().find(|(_, others)| *others == targets) {
            Some((regions, _)) => regions.push(region.clone()),
            None => all.push((vec![region.clone()], targets)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accounts: &[&str], regions: &[&str]) -> Wanted {
        let fleet = json!({ "accounts": accounts, "regions": regions });
        Wanted {
            fleet: serde_json::from_value(fleet).unwrap(),
            body: "{ \"a\": 1 }".to_owned(),
            parameters: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }

    fn instance(account: &str, region: &str, status: &str) -> Instance {
        Instance {
            account: account.to_owned(),
            region: region.to_owned(),
            unit: None,
            status: status.to_owned(),
            reason: (status != "CURRENT").then(|| "no role".to_owned()),
        }
    }

    fn lines(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(|step| format!("{:?} {}", step.verb, step.resource)).collect()
    }

    /// An account that a deploy was killed before, or failed in, is what the next deploy is about.
    #[test]
    fn a_plan_says_where_a_fleet_is_missing_failed_or_too_much() {
        let wanted = wanted(&["111111111111", "222222222222"], &["eu-central-1", "eu-west-1"]);
        let instances = vec![
            instance("111111111111", "eu-central-1", "CURRENT"),
            instance("222222222222", "eu-central-1", "OUTDATED"),
            instance("333333333333", "eu-west-1", "CURRENT"),
        ];
        let found = Found { properties: wanted.properties(), instances };
        let plan = plan("snapwarden-x", Some(&wanted), Some(&found));
        assert_eq!(
            lines(&plan),
            [
                "Keep stack set snapwarden-x",
                "Keep stack instance 111111111111 in eu-central-1",
                "Create stack instance 111111111111 in eu-west-1",
                "Update stack instance 222222222222 in eu-central-1",
                "Create stack instance 222222222222 in eu-west-1",
                "Delete stack instance 333333333333 in eu-west-1",
            ]
        );
        assert_eq!(plan.steps[3].changes[0].why.as_deref(), Some("no role"));
    }

    #[test]
    fn a_destroy_is_a_plan_to_nothing_and_a_template_that_is_only_laid_out_anew_changes_nothing() {
        let wanted = wanted(&["111111111111"], &["eu-central-1"]);
        let found = Found {
            properties: wanted.properties(),
            instances: vec![instance("111111111111", "eu-central-1", "CURRENT")],
        };
        assert_eq!(
            lines(&plan("x", None, Some(&found))),
            ["Delete stack set x", "Delete stack instance 111111111111 in eu-central-1"]
        );
        assert_eq!(digest("{\"a\":1}"), digest("{ \"a\": 1 }"));
        assert_ne!(digest("{\"a\":1}"), digest("{\"a\":2}"));
    }

    /// CloudFormation makes every target in every Region that a call names.
    #[test]
    fn no_call_names_a_place_that_is_not_meant() {
        let place = |target: &str, region: &str| (target.to_owned(), region.to_owned());
        let places =
            [place("a", "r1"), place("a", "r2"), place("a", "r3"), place("b", "r1"), place("b", "r2")];
        let calls = together(&places.iter().collect());
        let text = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(calls, [(text(&["r1", "r2"]), text(&["a", "b"])), (text(&["r3"]), text(&["a"]))]);
    }
}

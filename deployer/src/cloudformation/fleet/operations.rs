//! What CloudFormation is asked to do with a fleet, one operation after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudformation::types::{
    AutoDeployment, Capability, ConcurrencyMode, DeploymentTargets, Parameter, PermissionModels,
    StackSetOperationPreferences, StackSetOperationResultStatus as ResultStatus,
    StackSetOperationResultSummary as Summary, StackSetOperationStatus, Tag,
};
use tokio::time::{Instant, sleep};

use super::{Failure, Found, Instance, Place, STACK_INSTANCE, Wanted, by_place};
use crate::apply::{Guard, Halt};
use crate::cloudformation::artifacts::Source;
use crate::environment::Fleet;
use crate::error::{AwsError, Call};
use crate::event::Event;
use crate::kinds::{Context, StepError};
use crate::plan::Verb;
use crate::property::compare;
use crate::wait;
use crate::world::ResourceId;

/// Makes the fleet what it should be; where it failed, and why.
///
/// A StackSet has one operation at a time, so what a command began that was killed is waited for.
pub async fn deploy(
    cx: &Context,
    wanted: &Wanted,
    source: &Source,
    found: Option<&Found>,
    guard: &dyn Guard,
) -> Result<Vec<Failure>, StepError> {
    let work = Work {
        cx,
        name: cx.scope.stack(),
        fleet: &wanted.fleet,
        by_organization: wanted.by_organization(),
        guard,
    };
    let mut failures = Vec::new();
    let changed = found.is_some_and(|found| !compare(&wanted.properties(), &found.properties).is_empty());
    if found.is_none() {
        work.create(wanted, source).await?;
    } else if changed {
        // An update also takes every stack along that is not current.
        let regions: BTreeSet<_> =
            found.into_iter().flat_map(|found| &found.instances).map(|stack| stack.region.clone()).collect();
        failures.extend(work.update(wanted, source, &Vec::from_iter(regions)).await?);
    }
    let there = found.map(by_place).unwrap_or_default();
    let places = wanted.places();
    let missing = places.iter().filter(|place| !there.contains_key(*place)).collect();
    failures.extend(work.make(&missing).await?);
    let is_poor = |place: &&Place| {
        let stacks = there.get(*place).into_iter().flatten();
        let takes_an_update = |stack: &Instance| !["CURRENT", "INOPERABLE"].contains(&stack.status.as_str());
        !changed && places.contains(*place) && stacks.into_iter().any(takes_an_update)
    };
    failures.extend(work.renew(&there.keys().filter(is_poor).collect()).await?);
    let gone = there.keys().filter(|place| !places.contains(*place)).collect();
    failures.extend(work.delete(&gone).await?);
    failures.extend(found.into_iter().flat_map(|found| inoperable(&work.name, &found.instances)));
    Ok(failures)
}

/// Deletes every stack of the fleet, and then the StackSet; where that failed, and why. `fleet` says how many at a time.
pub async fn destroy(
    cx: &Context,
    found: &Found,
    fleet: &Fleet,
    guard: &dyn Guard,
) -> Result<Vec<Failure>, StepError> {
    let work = Work {
        cx,
        name: cx.scope.stack(),
        fleet,
        by_organization: found.instances.iter().any(|instance| instance.unit.is_some()),
        guard,
    };
    let mut failures = work.delete(&by_place(found).keys().collect()).await?;
    if failures.is_empty() {
        wait::retry(cx, &[wait::STACK_SET_BUSY], async || {
            let call = cx.aws.cloudformation.delete_stack_set().stack_set_name(&work.name);
            call.send().await.call("cloudformation:DeleteStackSet")
        })
        .await?;
    } else {
        failures.extend(inoperable(&work.name, &found.instances));
    }
    Ok(failures)
}

/// One command's work on a StackSet.
struct Work<'a> {
    cx: &'a Context,
    name: String,
    fleet: &'a Fleet,
    by_organization: bool,
    guard: &'a dyn Guard,
}

/// How long one operation on a whole fleet may take.
const LIMIT: Duration = Duration::from_hours(12);

/// Between two looks at an operation.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two lists of what it has come to, for each page that such a list has: ten thousand accounts are a hundred pages.
const LIST_PAUSE: Duration = Duration::from_secs(10);

/// The most results on a page (source: CloudFormation API, `ListStackSetOperationResults`).
const PAGE: usize = 100;

impl Work<'_> {
    async fn create(&self, wanted: &Wanted, source: &Source) -> Result<(), StepError> {
        let model = if self.by_organization {
            PermissionModels::ServiceManaged
        } else {
            PermissionModels::SelfManaged
        };
        let call = self.cx.aws.cloudformation.create_stack_set().stack_set_name(&self.name);
        let call = call.permission_model(model).set_auto_deployment(auto_deployment(wanted));
        let call = call.capabilities(Capability::CapabilityNamedIam);
        let call = call.set_parameters(Some(parameters(wanted))).set_tags(Some(tags(wanted)));
        let call = match source.clone() {
            Source::Body(text) => call.template_body(text),
            Source::Url(url) => call.template_url(url),
        };
        call.send().await.call("cloudformation:CreateStackSet")?;
        Ok(())
    }

    async fn update(
        &self,
        wanted: &Wanted,
        source: &Source,
        regions: &[String],
    ) -> Result<Vec<Failure>, StepError> {
        let updated = wait::retry(self.cx, &[wait::STACK_SET_BUSY], async || {
            let call = self.cx.aws.cloudformation.update_stack_set().stack_set_name(&self.name);
            let call = call.set_auto_deployment(auto_deployment(wanted));
            let call = call.capabilities(Capability::CapabilityNamedIam);
            let call = call.set_parameters(Some(parameters(wanted))).set_tags(Some(tags(wanted)));
            let call = call.operation_preferences(preferences(self.fleet, regions));
            let call = match source.clone() {
                Source::Body(text) => call.template_body(text),
                Source::Url(url) => call.template_url(url),
            };
            call.send().await.call("cloudformation:UpdateStackSet")
        })
        .await?;
        self.finished(&updated.operation_id.unwrap_or_default(), Verb::Update).await
    }

    async fn make(&self, places: &BTreeSet<&Place>) -> Result<Vec<Failure>, StepError> {
        let mut failures = Vec::new();
        for (regions, targets) in self.together(places) {
            let call = self.cx.aws.cloudformation.create_stack_instances().stack_set_name(&self.name);
            let call =
                call.operation_preferences(preferences(self.fleet, &regions)).set_regions(Some(regions));
            let (accounts, units) = self.split(targets);
            let call = call.set_accounts(accounts).set_deployment_targets(units);
            let made = wait::retry(self.cx, &[wait::STACK_SET_BUSY], async || {
                call.clone().send().await.call("cloudformation:CreateStackInstances")
            })
            .await?;
            failures.extend(self.finished(&made.operation_id.unwrap_or_default(), Verb::Create).await?);
        }
        Ok(failures)
    }

    async fn renew(&self, places: &BTreeSet<&Place>) -> Result<Vec<Failure>, StepError> {
        let mut failures = Vec::new();
        for (regions, targets) in self.together(places) {
            let call = self.cx.aws.cloudformation.update_stack_instances().stack_set_name(&self.name);
            let call =
                call.operation_preferences(preferences(self.fleet, &regions)).set_regions(Some(regions));
            let (accounts, units) = self.split(targets);
            let call = call.set_accounts(accounts).set_deployment_targets(units);
            let made = wait::retry(self.cx, &[wait::STACK_SET_BUSY], async || {
                call.clone().send().await.call("cloudformation:UpdateStackInstances")
            })
            .await?;
            failures.extend(self.finished(&made.operation_id.unwrap_or_default(), Verb::Update).await?);
        }
        Ok(failures)
    }

    async fn delete(&self, places: &BTreeSet<&Place>) -> Result<Vec<Failure>, StepError> {
        let mut failures = Vec::new();
        for (regions, targets) in self.together(places) {
            let call = self.cx.aws.cloudformation.delete_stack_instances().stack_set_name(&self.name);
            let call = call.operation_preferences(preferences(self.fleet, &regions));
            let call = call.retain_stacks(false).set_regions(Some(regions));
            let (accounts, units) = self.split(targets);
            let call = call.set_accounts(accounts).set_deployment_targets(units);
            let made = wait::retry(self.cx, &[wait::STACK_SET_BUSY], async || {
                call.clone().send().await.call("cloudformation:DeleteStackInstances")
            })
            .await?;
            failures.extend(self.finished(&made.operation_id.unwrap_or_default(), Verb::Delete).await?);
        }
        Ok(failures)
    }

    /// The calls that it takes.
    fn together(&self, places: &BTreeSet<&Place>) -> Vec<(Vec<String>, Vec<String>)> {
        together(places, if self.by_organization { MOST_UNITS } else { usize::MAX })
    }

    /// Targets in the one form or the other: accounts, or organizational units.
    fn split(&self, targets: Vec<String>) -> (Option<Vec<String>>, Option<DeploymentTargets>) {
        if !self.by_organization {
            return (Some(targets), None);
        }
        (None, Some(DeploymentTargets::builder().set_organizational_unit_ids(Some(targets)).build()))
    }

    /// Waits for an operation, and tells of each stack what becomes of it; where it failed, and why.
    async fn finished(&self, id: &str, verb: Verb) -> Result<Vec<Failure>, StepError> {
        let began = Instant::now();
        let mut progress = Progress { verb, stacks: BTreeMap::new() };
        let mut next_list = began;
        loop {
            let call = self.cx.aws.cloudformation.describe_stack_set_operation();
            let call = call.stack_set_name(&self.name).operation_id(id);
            let answer = call.send().await.call("cloudformation:DescribeStackSetOperation")?;
            match answer.stack_set_operation.and_then(|operation| operation.status) {
                None
                | Some(
                    StackSetOperationStatus::Running
                    | StackSetOperationStatus::Queued
                    | StackSetOperationStatus::Stopping,
                ) => {}
                Some(status) => return self.ended(id, &status, &mut progress).await,
            }
            if let Err(Halt(why)) = self.guard.check().await {
                return Err(StepError::Halted(format!("{why}; CloudFormation goes on by itself")));
            }
            if began.elapsed() > LIMIT {
                return Err(StepError::NotReady {
                    what: "CloudFormation did not go through all accounts",
                    seconds: LIMIT.as_secs(),
                    state: format!("operation {id} still runs"),
                });
            }
            if next_list <= Instant::now() {
                let results = self.results(id).await?;
                progress.tell(self.cx, &results);
                let pages = u32::try_from(results.len() / PAGE).unwrap_or(u32::MAX);
                next_list = Instant::now() + LIST_PAUSE.saturating_mul(pages.saturating_add(1));
            }
            sleep(PAUSE).await;
        }
    }

    async fn ended(
        &self,
        id: &str,
        status: &StackSetOperationStatus,
        progress: &mut Progress,
    ) -> Result<Vec<Failure>, StepError> {
        let succeeded = *status == StackSetOperationStatus::Succeeded;
        // Where some may fail, an operation in which no more did has succeeded.
        if succeeded && self.fleet.failure_tolerance_percent.get() == 0 && progress.stacks.is_empty() {
            return Ok(Vec::new());
        }
        let results = self.results(id).await?;
        progress.tell(self.cx, &results);
        let failures: Vec<_> = results.into_iter().filter_map(failure).collect();
        if !succeeded && failures.is_empty() {
            let state = format!("operation {id} ended as {}", status.as_str());
            return Err(StepError::Failed { what: "CloudFormation did not go through all accounts", state });
        }
        Ok(failures)
    }

    /// What an operation has come to in each account and Region so far.
    async fn results(&self, id: &str) -> Result<Vec<Summary>, AwsError> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let call = self.cx.aws.cloudformation.list_stack_set_operation_results();
            let call = call.stack_set_name(&self.name).operation_id(id).set_next_token(next);
            let page = call.send().await.call("cloudformation:ListStackSetOperationResults")?;
            all.extend(page.summaries.unwrap_or_default());
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }
}

/// Where an operation failed, and why; nothing of a stack in which it did not.
fn failure(result: Summary) -> Option<Failure> {
    let status = result.status.filter(|status| *status != ResultStatus::Succeeded)?;
    Some(Failure {
        account: result.account.unwrap_or_default(),
        region: result.region.unwrap_or_default(),
        reason: result.status_reason.unwrap_or_else(|| status.as_str().to_owned()),
    })
}

/// How far an operation is in each account and Region.
struct Progress {
    verb: Verb,
    /// Since when a stack is worked on; nothing once that is over.
    stacks: BTreeMap<ResourceId, Option<Instant>>,
}

impl Progress {
    /// Tells what has begun or ended since the last time.
    fn tell(&mut self, cx: &Context, results: &[Summary]) {
        let verb = self.verb;
        for result in results {
            let (account, region) = (result.account(), result.region());
            let name = format!("{} in {}", account.unwrap_or_default(), region.unwrap_or_default());
            let resource = ResourceId::new(STACK_INSTANCE, name);
            let of_stack = cx.for_resource(&resource);
            let before = self.stacks.get(&resource).copied();
            let is_over = match result.status() {
                None | Some(ResultStatus::Pending) => continue,
                Some(ResultStatus::Running) => false,
                Some(_) => true,
            };
            if before.is_none() {
                of_stack.tell(|resource| Event::Started { resource, verb });
            }
            if is_over && before != Some(None) {
                let took = before.flatten().map(|since| since.elapsed()).unwrap_or_default();
                match failure(result.clone()) {
                    None => of_stack.tell(|resource| Event::Done { resource, verb, took }),
                    Some(Failure { reason: error, .. }) => {
                        of_stack.tell(|resource| Event::Failed { resource, verb, error });
                    }
                }
            }
            let since = before.flatten().unwrap_or_else(Instant::now);
            self.stacks.insert(resource, (!is_over).then_some(since));
        }
    }
}

/// Stacks that CloudFormation leaves out of every update, since it could not delete them: they take a person (source:
/// CloudFormation API, `StackInstance`, `Status`).
fn inoperable(name: &str, instances: &[Instance]) -> Vec<Failure> {
    let stuck = instances.iter().filter(|instance| instance.status == "INOPERABLE");
    let failure = |instance: &Instance| {
        let Instance { account, region, reason, .. } = instance;
        let why = reason.as_deref().unwrap_or("CloudFormation does not say why");
        Failure {
            account: account.clone(),
            region: region.clone(),
            reason: format!(
                "its stack could not be deleted ({why}), and CloudFormation leaves it alone from then on: take it out of \
                 the fleet with `aws cloudformation delete-stack-instances --stack-set-name {name} --accounts {account} \
                 --regions {region} --retain-stacks` (with organizational units --deployment-targets instead of \
                 --accounts), and delete it in its account"
            ),
        }
    };
    stuck.map(failure).collect()
}

/// How many accounts at a time, and the operation's Regions in the order of the file; others it must not name.
fn preferences(fleet: &Fleet, regions: &[String]) -> StackSetOperationPreferences {
    let order = fleet.regions.iter().map(ToString::to_string).filter(|region| regions.contains(region));
    let others = regions.iter().filter(|region| !fleet.regions.iter().any(|ours| ours.as_str() == *region));
    let order = order.chain(others.cloned()).collect();
    StackSetOperationPreferences::builder()
        // The other mode has no more accounts at a time than may fail and one: with a tolerance of 0, one after the other
        // (source: CloudFormation API, `StackSetOperationPreferences`, `ConcurrencyMode`).
        .concurrency_mode(ConcurrencyMode::SoftFailureTolerance)
        .max_concurrent_percentage(fleet.max_concurrent_percent.as_i32())
        .failure_tolerance_percentage(fleet.failure_tolerance_percent.as_i32())
        .set_region_order(Some(order))
        .build()
}

fn auto_deployment(wanted: &Wanted) -> Option<AutoDeployment> {
    let on = AutoDeployment::builder().enabled(wanted.fleet.auto_deploy);
    let on = if wanted.fleet.auto_deploy { on.retain_stacks_on_account_removal(false) } else { on };
    wanted.by_organization().then(|| on.build())
}

fn parameters(wanted: &Wanted) -> Vec<Parameter> {
    let parameter = |(name, value)| Parameter::builder().parameter_key(name).parameter_value(value).build();
    wanted.parameters.iter().map(parameter).collect()
}

fn tags(wanted: &Wanted) -> Vec<Tag> {
    wanted.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// The most organizational units that a call may name (source: CloudFormation API, `CreateStackInstances`).
const MOST_UNITS: usize = 50;

/// Places as CloudFormation takes them: Regions, and targets that are in all of them.
fn together(places: &BTreeSet<&Place>, most: usize) -> Vec<(Vec<String>, Vec<String>)> {
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
    let few = |(regions, targets): (Vec<String>, Vec<String>)| {
        let parts: Vec<_> = targets.chunks(most).map(|part| (regions.clone(), part.to_vec())).collect();
        parts
    };
    all.into_iter().flat_map(few).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CloudFormation makes every target in every Region that a call names.
    #[test]
    fn no_call_names_a_place_that_is_not_meant() {
        let place = |target: &str, region: &str| (target.to_owned(), region.to_owned());
        let places =
            [place("a", "r1"), place("a", "r2"), place("a", "r3"), place("b", "r1"), place("b", "r2")];
        let calls = together(&places.iter().collect(), usize::MAX);
        let text = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(calls, [(text(&["r1", "r2"]), text(&["a", "b"])), (text(&["r3"]), text(&["a"]))]);
        let calls = together(&places.iter().take(2).chain(&places[3..]).collect(), 1);
        assert_eq!(calls, [(text(&["r1", "r2"]), text(&["a"])), (text(&["r1", "r2"]), text(&["b"]))]);
    }
}

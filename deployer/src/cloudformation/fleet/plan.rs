//! The way from what a fleet is to what it should be. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Found, Instance, STACK_INSTANCE, STACK_SET, Wanted, by_place};
use crate::plan::{Plan, Step, Verb};
use crate::property::{Change, compare};
use crate::world::ResourceId;

/// The way from what there is to what should be, in the form of all plans.
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
            steps.push(step(STACK_SET, name, Verb::Create, compare(&wanted.properties(), &Value::Null)));
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

fn change(instance: &Instance) -> Change {
    Change {
        property: format!("status in {}", instance.account),
        from: Some(instance.status.clone()),
        to: Some("CURRENT".to_owned()),
        why: instance.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::digest;
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
}

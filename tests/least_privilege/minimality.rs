//! Whether a policy allows what was recorded, and whether it can lose nothing.

use serde_json::{Value, json};

use crate::evaluator::{Context, Policy, Request};

/// What a policy does not allow, each with where it was recorded.
pub(crate) fn denied<'a>(policy: &Value, recorded: &'a [(String, Request)]) -> Vec<&'a (String, Request)> {
    let policy = Policy::read(policy).unwrap();
    recorded.iter().filter(|(_, request)| !policy.evaluate(request).is_allowed()).collect()
}

/// The statements, the actions and the resources that could be taken out of a policy without denying anything that
/// was recorded.
pub(crate) fn unused(policy: &Value, recorded: &[(String, Request)]) -> Vec<String> {
    let is_needed = |without: &Value| !denied(without, recorded).is_empty();
    let mut unused = Vec::new();
    for (index, statement) in policy["Statement"].as_array().unwrap().iter().enumerate() {
        let sid = statement["Sid"].as_str().unwrap_or_default();
        for part in ["Action", "Resource"] {
            let items = list(&statement[part]);
            for item in &items {
                let rest: Vec<_> = items.iter().filter(|other| *other != item).collect();
                let mut without = policy.clone();
                without["Statement"][index][part] = json!(rest);
                if !is_needed(&without) {
                    unused.push(format!("{sid}: {part} {item}"));
                }
            }
        }
    }
    unused
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

/// The proofs prove nothing if these do not find what is wrong.
#[test]
fn a_missing_right_and_an_unused_one_are_found() {
    let statement = |action: Value| json!({ "Sid": "A", "Effect": "Allow", "Action": action, "Resource": ["arn:aws:s:::a", "arn:aws:s:::b"] });
    let policy = |action: Value| json!({ "Statement": [statement(action)] });
    let request = |action: &str, resource: &str| {
        let request =
            Request { action: action.to_owned(), resource: resource.to_owned(), context: Context::default() };
        ("here".to_owned(), request)
    };
    let recorded = [request("s:One", "arn:aws:s:::a"), request("s:Two", "arn:aws:s:::b")];
    assert_eq!(denied(&policy(json!(["s:One"])), &recorded), [&recorded[1]]);
    assert_eq!(unused(&policy(json!(["s:One", "s:Two"])), &recorded), Vec::<String>::new());
    assert_eq!(unused(&policy(json!(["s:One", "s:Two", "s:Three"])), &recorded), [r#"A: Action "s:Three""#]);
    assert_eq!(unused(&policy(json!(["s:One", "s:Two"])), &recorded[..1]).len(), 2);
}

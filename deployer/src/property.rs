//! Compares what is wanted with what is there, property by property.
//!
//! Both sides are values of the same Rust type, seen as JSON: a kind that reads AWS back into the very type it
//! declares needs no comparison of its own, and cannot forget a property.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One property that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The property's path, such as `schedule.timezone` or `tags.team`.
    pub property: String,
    /// What is there now; `None` where the property is absent.
    pub from: Option<String>,
    /// What will be there; `None` where it goes away.
    pub to: Option<String>,
    /// Where the wanted value comes from, or what the found one would do; `None` where that says nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The properties in which two values of one type differ, in the order of their paths.
pub fn compare(wanted: &Value, found: &Value) -> Vec<Change> {
    let wanted = flatten(wanted);
    let found = flatten(found);
    let mut paths: Vec<&String> = wanted.keys().chain(found.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| wanted.get(*path) != found.get(*path))
        .map(|path| Change {
            property: path.clone(),
            from: found.get(path).cloned(),
            to: wanted.get(path).cloned(),
            why: None,
        })
        .collect()
}

/// Every leaf of a JSON value by its path. Policy statements go by their `Sid`; lists of plain values are one leaf,
/// since what people compare is the list.
fn flatten(value: &Value) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    collect(String::new(), value, &mut leaves);
    leaves
}

fn collect(path: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(below(name), value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name =
                    item.get("Sid").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                collect(format!("{path}[{name}]"), item, leaves);
            }
        }
        // As good as absent.
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(plain).collect();
            // One item with a comma must not read like two.
            let ambiguous = texts.iter().any(|text| text.contains(','));
            leaves.insert(path, if ambiguous { value.to_string() } else { texts.join(", ") });
        }
        leaf => match embedded(leaf) {
            Some(document) => collect(path, &document, leaves),
            None => drop(leaves.insert(path, plain(leaf))),
        },
    }
}

/// A JSON document in a text, such as a function's settings: what people compare are its fields.
fn embedded(leaf: &Value) -> Option<Value> {
    let document: Value = serde_json::from_str(leaf.as_str().filter(|text| text.starts_with('{'))?).ok()?;
    document.as_object().is_some_and(|fields| !fields.is_empty()).then_some(document)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(property: &str, from: Option<&str>, to: Option<&str>) -> Change {
        Change {
            property: property.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            why: None,
        }
    }

    #[test]
    fn every_difference_is_named_by_its_path() {
        let wanted = json!({ "memory": 256, "tags": { "team": "a" }, "policy": [{ "Sid": "X", "Action": ["b", "c"] }] });
        let found =
            json!({ "memory": 512, "tags": { "owner": "b" }, "policy": [{ "Sid": "X", "Action": ["b"] }] });
        assert_eq!(
            compare(&wanted, &found),
            [
                change("memory", Some("512"), Some("256")),
                change("policy[X].Action", Some("b"), Some("b, c")),
                change("tags.owner", Some("b"), None),
                change("tags.team", None, Some("a")),
            ]
        );
    }

    #[test]
    fn a_document_in_a_text_is_compared_by_its_fields() {
        let settings =
            |floor: u32| json!({ "SETTINGS": json!({ "floor": floor, "zone": "UTC" }).to_string() });
        assert_eq!(compare(&settings(0), &settings(1)), [change("SETTINGS.floor", Some("1"), Some("0"))]);
        assert_eq!(compare(&json!({ "a": [] }), &json!({ "a": ["x"] })), [change("a", Some("x"), None)]);
    }

    #[test]
    fn equal_values_have_no_difference_and_null_is_absence() {
        let value = json!({ "a": { "b": [1, 2] }, "c": null });
        assert_eq!(compare(&value, &value), []);
        assert_eq!(compare(&value, &json!({ "a": { "b": [1, 2] } })), []);
    }
}

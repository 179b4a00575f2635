//! The JSON schema of environment files: up to date, and of one mind with the program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test cannot read fails it")]

use std::fs;
use std::path::PathBuf;

use regex_lite::Regex;
use serde_json::Value;
use snapwarden_deployer::environment::{parse, schema};
use snapwarden_tests::checkout;

/// An editor that knows yesterday's keys underlines what is right.
#[test]
fn the_stored_schema_is_that_of_the_types() {
    let path = checkout().join("environments/schema.json");
    let fresh = schema();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, serde_json::to_string_pretty(&fresh).unwrap() + "\n").unwrap();
    }
    let stored: Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(
        stored == fresh,
        "environments/schema.json is out of date; write it anew with: INSTA_UPDATE=always cargo xtask test schema"
    );
}

/// Whoever copies an example has the editor's help from the first key on.
#[test]
fn every_example_names_the_schema_and_follows_it() {
    for path in files("environments").into_iter().chain(files("tests/configs/valid")) {
        let text = fs::read_to_string(&path).unwrap();
        let value: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(violations(&value), Vec::<String>::new(), "{}", path.display());
        if path.starts_with(checkout().join("environments")) {
            assert_eq!(
                text.lines().next(),
                Some("# yaml-language-server: $schema=schema.json"),
                "{}",
                path.display()
            );
        }
    }
}

/// Only reading can find these: they are about several keys at once, or about the calendar.
const BEYOND_A_SCHEMA: [&str; 13] = [
    "at-rest-by-alias.yaml",
    "at-rest-without-key.yaml",
    "bad-cron-field.yaml",
    "both-day-fields.yaml",
    "copies-account-named-twice.yaml",
    "copies-key-elsewhere.yaml",
    "copies-key-of-home.yaml",
    "copies-named-twice.yaml",
    "enforce-without-key.yaml",
    "reserved-tag.yaml",
    "tags-that-differ-in-case.yaml",
    "unknown-zone.yaml",
    "broken-yaml.yaml",
];

/// What the program refuses, the editor should have underlined before.
#[test]
fn every_invalid_file_breaks_the_schema_where_a_schema_can_tell() {
    for path in files("tests/configs/invalid") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(parse(&path, &text).is_err(), "{name}");
        let Ok(value) = serde_yaml::from_str::<Value>(&text) else {
            assert!(BEYOND_A_SCHEMA.contains(&name.as_str()), "{name}");
            continue;
        };
        assert_eq!(violations(&value).is_empty(), BEYOND_A_SCHEMA.contains(&name.as_str()), "{name}");
    }
}

/// A key without a word of help may as well be missing from the schema.
#[test]
fn every_key_is_described_and_no_unknown_one_is_allowed() {
    let root = schema();
    let definitions = root["definitions"].as_object().unwrap().values();
    for object in definitions.chain([&root]).filter(|schema| schema["type"] == "object") {
        assert_eq!(object["additionalProperties"], false, "{object}");
        for (key, property) in object["properties"].as_object().unwrap() {
            let described = property["description"].as_str().is_some_and(|text| text.len() > 10);
            assert!(described, "{key} has no description: {property}");
        }
    }
    for (pointer, expected) in [
        ("/required", serde_json::json!(["environment", "account", "region", "backup", "cleanup"])),
        ("/properties/timezone/default", "UTC".into()),
        ("/definitions/Functions/properties/memory_mb/minimum", 128.into()),
        ("/definitions/Functions/properties/memory_mb/maximum", 10_240.into()),
        ("/definitions/Retention/required", serde_json::json!(["daily_days"])),
    ] {
        assert_eq!(root.pointer(pointer), Some(&expected), "{pointer}");
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(checkout().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.filter(|path| path.extension() == Some("yaml".as_ref())).collect();
    assert!(!files.is_empty(), "{folder}");
    files
}

fn violations(value: &Value) -> Vec<String> {
    let root = schema();
    let mut found = Vec::new();
    check(&root, &root, value, "", &mut found);
    found
}

/// Checks what our schema uses of JSON Schema. A keyword that is new here stops the test, rather than to be overlooked.
fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let count = |value: &Value| match value {
        Value::String(text) => text.chars().count(),
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let rules = match schema {
        Value::Bool(true) => return,
        Value::Bool(false) => return found.push(format!("{at} is not allowed")),
        schema => schema.as_object().unwrap(),
    };
    for (keyword, rule) in rules {
        let broken = match keyword.as_str() {
            "$ref" => {
                let target = root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap();
                check(root, target, value, at, found);
                false
            }
            "allOf" => {
                rule.as_array().unwrap().iter().for_each(|all| check(root, all, value, at, found));
                false
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{index}"), found);
                }
                false
            }
            "anyOf" | "oneOf" => !rule.as_array().unwrap().iter().any(|one| {
                let mut inside = Vec::new();
                check(root, one, value, at, &mut inside);
                inside.is_empty()
            }),
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    name => panic!("type {name}"),
                };
                match rule {
                    Value::Array(names) => !names.iter().any(|name| is(name.as_str().unwrap())),
                    name => !is(name.as_str().unwrap()),
                }
            }
            "enum" => !rule.as_array().unwrap().contains(value),
            "const" => rule != value,
            "minimum" => value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_some_and(|number| number > rule.as_f64().unwrap()),
            "minLength" => value.is_string() && (count(value) as u64) < rule.as_u64().unwrap(),
            "maxLength" => value.is_string() && count(value) as u64 > rule.as_u64().unwrap(),
            "maxItems" => value.is_array() && count(value) as u64 > rule.as_u64().unwrap(),
            "maxProperties" => value.is_object() && count(value) as u64 > rule.as_u64().unwrap(),
            "pattern" => {
                value.as_str().is_some_and(|text| !Regex::new(rule.as_str().unwrap()).unwrap().is_match(text))
            }
            "required" => {
                rule.as_array().unwrap().iter().any(|key| value.get(key.as_str().unwrap()).is_none())
            }
            // The first three are looked at below; the rest is for people.
            "properties"
            | "patternProperties"
            | "additionalProperties"
            | "$schema"
            | "title"
            | "description"
            | "default"
            | "examples"
            | "definitions"
            | "format" => false,
            unknown => panic!("the test does not know the keyword {unknown}"),
        };
        if broken {
            found.push(format!("{at}: {keyword} {rule}"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        let patterns = schema["patternProperties"].as_object().into_iter().flatten();
        let by_pattern = patterns.filter(|(pattern, _)| Regex::new(pattern).unwrap().is_match(key));
        let rules: Vec<&Value> =
            schema["properties"].get(key).into_iter().chain(by_pattern.map(|(_, rule)| rule)).collect();
        match (rules.as_slice(), schema.get("additionalProperties")) {
            ([], Some(rest)) => check(root, rest, value, &at, found),
            (rules, _) => rules.iter().for_each(|rule| check(root, rule, value, &at, found)),
        }
    }
}

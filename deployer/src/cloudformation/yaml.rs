//! YAML as CloudFormation reads it.
//!
//! It reads YAML 1.1, where `OFF` is a truth value and `012` the number ten; `serde_yaml` writes for YAML 1.2, where both
//! are texts. What could be taken for anything but a text stands in quotes here.

use std::fmt::Write;

use serde_json::Value;

/// The parts of a template and of a resource, in the order in which people look for them; all others go by their names.
const ORDER: [&str; 9] = [
    "AWSTemplateFormatVersion",
    "Description",
    "Type",
    "DependsOn",
    "DeletionPolicy",
    "UpdateReplacePolicy",
    "Parameters",
    "Properties",
    "Resources",
];

/// The value as a YAML document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text.trim_start_matches('\n').to_owned()
}

/// The value behind a `:` or a `-`, on the same line or on lines of its own.
fn block(value: &Value, depth: usize, text: &mut String) {
    // Writing to a text cannot fail.
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields
                .sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
            for (name, value) in fields {
                let _ = write!(text, "\n{:indent$}{}:", "", scalar(name), indent = depth * 2);
                block(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                // The first line of what is below stands behind the hyphen, where its own indentation would end.
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                let _ = write!(text, "\n{:indent$}- {}", "", inner.trim_start(), indent = depth * 2);
            }
        }
        Value::String(leaf) => {
            let _ = write!(text, " {}", scalar(leaf));
        }
        leaf => {
            let _ = write!(text, " {leaf}");
        }
    }
    if depth == 0 {
        text.push('\n');
    }
}

/// A text as it is, where nothing else can be meant; else as JSON writes it, which YAML reads as well.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with(':')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:".contains(&b))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && !text.eq_ignore_ascii_case("null");
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_in_blocks_with_the_known_parts_first() {
        let value = json!({ "Resources": { "A": { "Properties": { "x": [1, [true], { "b": 2, "c": 3 }], "y": null }, "Type": "AWS::X" } }, "Description": "d" });
        let text = document(&value);
        assert_eq!(
            text,
            "Description: d\nResources:\n  A:\n    Type: AWS::X\n    Properties:\n      x:\n        - 1\n        - - true\n        \
             - b: 2\n          c: 3\n      \"y\": null\n"
        );
    }

    /// `State: ON` arrives as `State: true`.
    #[test]
    fn what_could_be_anything_but_a_text_is_quoted() {
        for quoted in [
            "OFF",
            "on",
            "No",
            "y",
            "null",
            "012",
            "1e3",
            "",
            "a: b",
            "a:",
            "# a",
            "2012-10-17",
            "a\nb",
            "~",
            "ü",
        ] {
            assert!(scalar(quoted).starts_with('"'), "{quoted}");
            assert_eq!(serde_yaml::from_str::<Value>(&scalar(quoted)).unwrap(), json!(quoted));
        }
        for plain in ["AWS::IAM::Role", "snapwarden-prod", "FLEXIBLE", "/aws/lambda/x"] {
            assert_eq!(scalar(plain).trim_matches('"'), plain);
            assert_eq!(serde_yaml::from_str::<Value>(&scalar(plain)).unwrap(), json!(plain));
        }
    }
}

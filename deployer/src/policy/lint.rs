//! What is wrong with a policy document, as far as it can be seen without calling anybody.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::reference::Reference;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The document, such as `policies/backup.yaml`.
    pub document: String,
    /// The statement's name; empty where it is about the document.
    pub statement: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// What a document is for, which decides how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The inline policy of a role.
    Inline,
    /// A policy that is attached to a role.
    Managed,
    /// Who may assume a role.
    Trust,
}

impl Use {
    /// The most characters, white space aside (source: IAM User Guide, "IAM and AWS STS quotas").
    fn limit(self) -> usize {
        match self {
            Self::Inline => 10_240,
            Self::Managed => 6_144,
            Self::Trust => 2_048,
        }
    }
}

/// Keys that every request has, or every one that a service of AWS's makes with a role (source: IAM User Guide, "AWS
/// global condition context keys").
const GLOBAL_KEYS: [&str; 3] = ["aws:PrincipalArn", "aws:SourceAccount", "aws:SourceArn"];

/// Examines a document. `reason` is the stated reason for a statement, by its `Sid`.
pub fn lint(
    name: &str,
    document: &Value,
    purpose: Use,
    reason: impl Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |statement: &str, problem: String| {
        findings.push(Finding { document: name.to_owned(), statement: statement.to_owned(), problem });
    };
    let length = document.to_string().chars().filter(|c| !c.is_whitespace()).count();
    if length > purpose.limit() {
        found("", format!("has {length} characters, and IAM takes {}", purpose.limit()));
    }
    let mut sids = BTreeSet::new();
    for (index, statement) in list(&document["Statement"]).iter().enumerate() {
        let sid = statement["Sid"].as_str().unwrap_or_default();
        if sid.is_empty() || !sid.chars().all(|c| c.is_ascii_alphanumeric()) {
            found(sid, format!("statement {} needs a Sid of letters and digits", index + 1));
        }
        if !sids.insert(sid) {
            found(sid, "two statements have this Sid".to_owned());
        }
        if reason(sid).is_none_or(|reason| reason.trim().is_empty()) {
            found(sid, "says nowhere why it is needed".to_owned());
        }
        for negation in ["NotAction", "NotResource", "NotPrincipal"] {
            if statement.get(negation).is_some() {
                found(sid, format!("{negation} allows whatever AWS adds later: name what is meant"));
            }
        }
        if texts(&statement["Principal"]).contains(&"*") {
            found(sid, "everybody is its principal".to_owned());
        }
        for problem in actions(statement) {
            found(sid, problem);
        }
    }
    findings
}

/// What is wrong with a statement's actions on their resources, under their conditions.
fn actions(statement: &Value) -> Vec<String> {
    let reference = Reference::pinned();
    let mut problems = Vec::new();
    let everything = texts(&statement["Resource"]).contains(&"*");
    let keys: Vec<&str> = statement["Condition"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, keys)| keys.as_object())
        .flat_map(|keys| keys.keys().map(String::as_str))
        .collect();
    for action in texts(&statement["Action"]) {
        if action.contains(['*', '?']) {
            problems.push(format!("{action} is a wildcard: name the actions"));
        } else if !reference.has(action) {
            problems.push(format!("{action} is no action of AWS's, see policies/reference/"));
        } else if let Some(types) = reference.action(action) {
            if everything && types.keys().any(|name| !name.is_empty()) {
                problems.push(format!("{action} can be limited to resources, and is not"));
            }
            for key in &keys {
                let known = types.values().any(|row| row.knows(key));
                if !known && !GLOBAL_KEYS.contains(key) && !is_of_federation(key) {
                    problems
                        .push(format!("IAM knows no condition key {key} for {action}: it would never match"));
                }
            }
        } else {
            problems
                .push(format!("{action} has no details in policies/reference/: add it to extract.py there"));
        }
    }
    problems
}

/// Keys of a token that an identity provider made are named after the provider.
fn is_of_federation(key: &str) -> bool {
    key.split_once(':').is_some_and(|(provider, _)| provider.contains('.'))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// All texts in a value, however deep.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// The comment right above each statement of a document in YAML: the reason for it.
pub fn comment_above(yaml: &str, sid: &str) -> Option<String> {
    let lines: Vec<&str> = yaml.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| *line == format!("- Sid: {sid}"))?;
    let comment = lines[..at].iter().rev().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let comment: Vec<&str> = comment.collect();
    (!comment.is_empty()).then(|| comment.into_iter().rev().collect::<Vec<_>>().join(" "))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { document, statement, problem } = self;
        if statement.is_empty() {
            write!(f, "{document}: {problem}")
        } else {
            write!(f, "{document}: {statement}: {problem}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(statement: &Value) -> Vec<String> {
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] });
        let findings = lint("doc", &document, Use::Inline, |_| Some("because".to_owned()));
        findings.into_iter().map(|finding| finding.problem).collect()
    }

    /// A reviewer reads what the documents say; this finds what they do not see.
    #[test]
    fn mistakes_are_found_and_named() {
        let good = json!({
            "Sid": "A", "Effect": "Allow", "Action": "ec2:DeleteSnapshot",
            "Resource": "arn:aws:ec2:eu-central-1::snapshot/*",
            "Condition": { "StringEquals": { "aws:ResourceTag/snapwarden:environment": "prod" } },
        });
        assert_eq!(problems(&good), Vec::<String>::new());
        for (pointer, value, part) in [
            ("/Sid", json!("a b"), "letters and digits"),
            ("/Action", json!("ec2:*"), "ec2:* is a wildcard"),
            (
                "/Action",
                json!(["ec2:DeleteSnapshot", "ec2:DeleteSnapshotz"]),
                "ec2:DeleteSnapshotz is no action",
            ),
            ("/Action", json!("ec3:DeleteSnapshot"), "is no action"),
            ("/Action", json!("ec2:RunInstances"), "has no details"),
            ("/Resource", json!("*"), "can be limited to resources"),
            ("/Condition", json!({ "StringEquals": { "ec2:Ownr": "self" } }), "no condition key ec2:Ownr"),
            (
                "/Condition",
                json!({ "StringEquals": { "aws:RequestTag/a": "b" } }),
                "no condition key aws:RequestTag/a for ec2:DeleteSnapshot",
            ),
        ] {
            let mut statement = good.clone();
            *statement.pointer_mut(pointer).unwrap() = value;
            let problems = problems(&statement);
            assert!(problems.iter().any(|problem| problem.contains(part)), "{statement}: {problems:?}");
        }
        let anybody =
            json!({ "Sid": "A", "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "AWS": "*" } });
        assert_eq!(problems(&anybody), ["everybody is its principal"]);
    }

    #[test]
    fn the_document_as_a_whole_is_examined() {
        let one = |sid: &str, resource: &str| json!({ "Sid": sid, "Effect": "Allow", "Action": "sqs:SendMessage", "Resource": resource });
        let document = json!({ "Statement": [one("A", "arn:aws:sqs:::q"), one("A", &"x".repeat(11_000))] });
        let findings = lint("doc", &document, Use::Inline, |_| None);
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("doc: has 11"), "{texts:?}");
        assert!(texts.contains(&"doc: A: two statements have this Sid".to_owned()), "{texts:?}");
        assert!(texts.contains(&"doc: A: says nowhere why it is needed".to_owned()), "{texts:?}");
    }

    #[test]
    fn a_reason_is_the_comment_right_above() {
        let yaml = "Statement:\n  # Why A\n  # is needed.\n  - Sid: A\n    Effect: Allow\n  - Sid: B\n";
        assert_eq!(comment_above(yaml, "A").as_deref(), Some("Why A is needed."));
        assert_eq!((comment_above(yaml, "B"), comment_above(yaml, "C")), (None, None));
    }
}

//! IAM policy documents: read from `policies/*.yaml`, filled from the scope, and compared by meaning.

pub mod copies;
pub mod deployer;
pub mod lint;
pub mod reference;
pub mod stack;
pub mod trust;

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::lint::{Finding, Use, lint};

use self::copies::{error_in_yaml, for_each, holes_of_other, holes_of_target, other_accounts};
use crate::environment::{CopyTarget, Environment, KmsKey};
use crate::scope::{Function, Scope};

/// What one of our roles may do, and who may assume it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolePolicies {
    /// One sentence for IAM's console.
    pub description: String,
    /// Who may assume the role.
    pub trust: PolicyDocument,
    /// What the role may do.
    pub permissions: PolicyDocument,
}

/// The roles that an environment has, by purpose, with the text of their documents.
const DOCUMENTS: [(&str, &str); 3] = [
    ("backup", include_str!("../../policies/backup.yaml")),
    ("cleanup", include_str!("../../policies/cleanup.yaml")),
    ("scheduler", include_str!("../../policies/scheduler.yaml")),
];

/// Why a policy document cannot be used; a mistake in `policies/`, not in an environment file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is no YAML or lacks a part.
    #[error("policies/{document}.yaml: {source}")]
    Syntax {
        /// The document's name.
        document: &'static str,
        /// What is wrong.
        source: serde_yaml::Error,
    },
    /// A `${…}` names nothing that we know.
    #[error("policies/{document}.yaml: `${{{hole}}}` is not a value of the scope; there are {known}")]
    UnknownHole {
        /// The document's name.
        document: &'static str,
        /// What stands between the braces.
        hole: String,
        /// What may stand there.
        known: String,
    },
}

/// What the roles are for, which is also part of their names.
pub fn purposes() -> impl Iterator<Item = &'static str> {
    DOCUMENTS.into_iter().map(|(purpose, _)| purpose)
}

/// The text of every role's document, as it stands in `policies/`.
pub fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCUMENTS.into_iter()
}

/// What is wrong with the documents of all roles, see [`lint`].
pub fn lint_roles(environment: &Environment, scope: &Scope) -> Result<Vec<Finding>, PolicyError> {
    let mut findings = Vec::new();
    for (purpose, policies) in role_policies(environment, scope)? {
        let text = DOCUMENTS.iter().find(|(document, _)| *document == purpose).map_or("", |(_, text)| text);
        let name = format!("policies/{purpose}.yaml");
        for (document, of) in [(policies.permissions, Use::Inline), (policies.trust, Use::Trust)] {
            findings.extend(lint(&name, &document.0, of, |sid| reason(text, sid)));
        }
    }
    Ok(findings)
}

/// The policies of every role of an environment, by the role's purpose.
pub fn role_policies(
    environment: &Environment,
    scope: &Scope,
) -> Result<BTreeMap<&'static str, RolePolicies>, PolicyError> {
    DOCUMENTS
        .into_iter()
        .map(|(document, text)| Ok((document, read(document, text, environment, scope)?)))
        .collect()
}

/// What whoever restores may do; no role of ours has it.
const RESTORER: (&str, &str) = ("restorer", include_str!("../../policies/restorer.yaml"));

/// The policy of whoever restores an environment's snapshots.
pub fn restorer_policy(environment: &Environment, scope: &Scope) -> Result<PolicyDocument, PolicyError> {
    read(RESTORER.0, RESTORER.1, environment, scope)
}

/// What is wrong with that document, see [`lint`].
pub fn lint_restorer(environment: &Environment, scope: &Scope) -> Result<Vec<Finding>, PolicyError> {
    let document = restorer_policy(environment, scope)?;
    Ok(lint("policies/restorer.yaml", &document.0, Use::Managed, |sid| reason(RESTORER.1, sid)))
}

/// The reason for a statement; for one that stands once for each Region of copies, its number aside.
fn reason(text: &str, sid: &str) -> Option<String> {
    let unnumbered = sid.trim_end_matches(|end: char| end.is_ascii_digit());
    lint::comment_above(text, sid).or_else(|| lint::comment_above(text, unnumbered))
}

/// Reads a document and fills it in.
fn read<T: DeserializeOwned>(
    document: &'static str,
    text: &str,
    environment: &Environment,
    scope: &Scope,
) -> Result<T, PolicyError> {
    let syntax = |source| PolicyError::Syntax { document, source };
    let value: Value = serde_yaml::from_str(text).map_err(syntax)?;
    let in_own = |target: &&CopyTarget| target.role.is_none();
    let own = environment.copy_to.iter().filter(in_own).map(|target| holes_of_target(scope, target));
    let others = other_accounts(environment).into_iter().map(holes_of_other);
    let value = for_each(value, "${target_", &own.collect::<Vec<_>>());
    let value = value.and_then(|value| for_each(value, "${other_", &others.collect::<Vec<_>>()));
    let value = value.map_err(|error| syntax(error_in_yaml(error)))?;
    let value = without_absent(value, environment);
    let filled = filled(document, value, environment, scope)?;
    serde_json::from_value(filled).map_err(|error| syntax(error_in_yaml(error)))
}

/// A document with its holes filled in.
fn filled(
    document: &'static str,
    value: Value,
    environment: &Environment,
    scope: &Scope,
) -> Result<Value, PolicyError> {
    let holes = holes(environment, scope);
    fill(value, &holes).map_err(|hole| PolicyError::UnknownHole {
        document,
        hole,
        known: holes.keys().copied().collect::<Vec<_>>().join(", "),
    })
}

/// Everything that a policy document may name.
fn holes(environment: &Environment, scope: &Scope) -> BTreeMap<&'static str, String> {
    let select = &environment.backup.select;
    let (partition, region, account) = (scope.partition(), &scope.region, &scope.account);
    let sealing = environment.encryption.sealing_key(&scope.environment);
    let sealing = sealing.as_ref();
    let topic = environment.topic_key().unwrap_or_default();
    let queue = environment.encryption.at_rest_key(&scope.environment);
    let queue = queue.as_ref().map(KmsKey::to_string).unwrap_or_default();
    let of_key = |text: Option<&str>| text.unwrap_or_default().to_owned();
    BTreeMap::from([
        ("topic_key_arn", topic.clone()),
        ("topic_key_alias", topic),
        ("queue_key_arn", queue.clone()),
        ("queue_key_alias", queue),
        ("copy_any_key_arn", format!("arn:{partition}:kms:{region}:{account}:key/*")),
        ("copy_source_arn", format!("arn:{partition}:ec2:{region}::snapshot/snap-*")),
        ("sealing_copy_arn", format!("arn:{partition}:ec2:{region}::snapshot/*")),
        ("sealing_key_arn", of_key(sealing.and_then(KmsKey::arn))),
        ("sealing_key_alias", of_key(sealing.and_then(KmsKey::alias))),
        ("any_key_arn", format!("arn:{partition}:kms:{region}:{account}:key/*")),
        ("partition", scope.partition().to_owned()),
        ("account", scope.account.to_string()),
        ("region", scope.region.to_string()),
        ("environment", scope.environment.to_string()),
        ("select_tag", literal(&select.tag)),
        ("select_value", literal(&select.value)),
        ("backup_log_group_arn", scope.log_group_arn(&scope.log_group(Function::Backup))),
        ("cleanup_log_group_arn", scope.log_group_arn(&scope.log_group(Function::Cleanup))),
        ("backup_alias_arn", scope.alias_arn(Function::Backup)),
        ("cleanup_alias_arn", scope.alias_arn(Function::Cleanup)),
        ("dead_letter_queue_arn", scope.dead_letter_queue_arn()),
        ("topic_arn", scope.topic_arn()),
        ("schedule_group_arn", scope.schedule_group_arn()),
    ])
}

/// IAM takes `${…}` in a policy for a variable of its own; `${$}` is its way to write a dollar sign
/// (source: IAM User Guide, "IAM policy elements: Variables and tags").
fn literal(text: &str) -> String {
    text.replace("${", "${$}{")
}

/// Replaces every `${name}` in keys and values; an unknown name is the error.
fn fill(value: Value, holes: &BTreeMap<&'static str, String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill_text(&text, holes)?),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| fill(item, holes)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| Ok((fill_text(&key, holes)?, fill(value, holes)?)))
                .collect::<Result<Map<_, _>, String>>()?,
        ),
        other => other,
    })
}

/// Leaves out the statements about what the environment does not have: those with a hole that only it fills.
fn without_absent(mut value: Value, environment: &Environment) -> Value {
    let sealing = environment.encryption.sealing_key(&environment.environment);
    let sealing = sealing.as_ref();
    let (topic, queue) =
        (environment.topic_key(), environment.encryption.at_rest_key(&environment.environment));
    let copies_in_own = environment.copy_to.iter().any(|target| target.role.is_none());
    let begins = |key: Option<&str>, with: &str| key.is_some_and(|key| key.starts_with(with));
    let (topic, queue) = (topic.as_deref(), queue.as_ref().map(KmsKey::as_str));
    let absent: Vec<&str> = [
        ("${topic_key_arn}", begins(topic, "arn:")),
        ("${topic_key_alias}", begins(topic, "alias/")),
        ("${queue_key_arn}", begins(queue, "arn:")),
        ("${queue_key_alias}", begins(queue, "alias/")),
        ("${copy_source_arn}", sealing.is_some() || copies_in_own),
        ("${copy_any_key_arn}", copies_in_own),
        ("${sealing_copy_arn}", sealing.is_some()),
        ("${sealing_key_arn}", sealing.is_some_and(|key| key.arn().is_some())),
        ("${sealing_key_alias}", sealing.is_some_and(|key| key.alias().is_some())),
    ]
    .into_iter()
    .filter_map(|(hole, is_there)| (!is_there).then_some(hole))
    .collect();
    for statements in statements_of(&mut value) {
        statements.retain(|statement| {
            let text = statement.to_string();
            !absent.iter().any(|hole| text.contains(hole))
        });
    }
    value
}

/// The statements of a document, or of each document in it.
fn statements_of(value: &mut Value) -> Vec<&mut Vec<Value>> {
    let documents = match value {
        document if document.get("Statement").is_some() => vec![document],
        several => several.as_object_mut().into_iter().flat_map(Map::values_mut).collect(),
    };
    documents.into_iter().filter_map(|document| document.get_mut("Statement")?.as_array_mut()).collect()
}

fn fill_text(text: &str, holes: &BTreeMap<&'static str, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or_else(|| after.to_owned())?;
        filled.push_str(before);
        filled.push_str(holes.get(name).ok_or_else(|| name.to_owned())?);
        rest = tail;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A policy document in a form in which two that mean the same are equal: IAM returns documents reordered, with lists
/// of one as plain values, and URL-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub struct PolicyDocument(Value);

impl PolicyDocument {
    /// Reads what IAM returned. What is no JSON stays as it is, so that it shows as a difference.
    pub fn from_iam(encoded: &str) -> Self {
        let text = percent_decode_str(encoded).decode_utf8_lossy();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|_| Value::String(text.into_owned())).into()
    }

    /// A document that allows whatever one of the two allows: this one's statements, and those of the other's that it
    /// lacks. IAM wants every `Sid` once, so what is another statement of the same name gets a name of its own.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let statements = |document: &Self| document.0["Statement"].as_array().cloned().unwrap_or_default();
        let mut all = statements(self);
        // A statement that denies would narrow what the other document allows.
        let allows = |statement: &Value| statement["Effect"] == "Allow";
        for mut statement in statements(other).into_iter().filter(allows) {
            if all.contains(&statement) {
                continue;
            }
            if let Some(sid) = statement["Sid"].as_str() {
                let is_taken = |sid: &str| all.iter().any(|statement| statement["Sid"] == sid);
                let base = sid.trim_end_matches(|end: char| end.is_ascii_digit());
                let base = base.strip_suffix(BEFORE).unwrap_or(sid).to_owned();
                let mut names = std::iter::once(sid.to_owned())
                    .chain([format!("{base}{BEFORE}")])
                    .chain((2..).map(|number: u32| format!("{base}{BEFORE}{number}")));
                statement["Sid"] = names.find(|name| !is_taken(name)).unwrap_or_default().into();
            }
            all.push(statement);
        }
        let mut document = self.0.clone();
        if let Some(fields) = document.as_object_mut() {
            fields.insert("Statement".to_owned(), Value::Array(all));
        }
        document.into()
    }

    /// The document as compact JSON, as IAM takes it.
    pub fn to_json(&self) -> String {
        self.0.to_string()
    }
}

/// What the names of statements end with that only the release before needs.
const BEFORE: &str = "Before";

impl From<Value> for PolicyDocument {
    fn from(value: Value) -> Self {
        let Value::Object(mut document) = value else { return Self(value) };
        if let Some(statements) = document.remove("Statement") {
            let mut statements: Vec<Value> = list(statements).into_iter().map(normal_statement).collect();
            statements.sort_by_key(ToString::to_string);
            document.insert("Statement".to_owned(), Value::Array(statements));
        }
        Self(Value::Object(document))
    }
}

impl From<PolicyDocument> for Value {
    fn from(document: PolicyDocument) -> Self {
        document.0
    }
}

/// Everything in a statement that may be one value or a list becomes a sorted list.
fn normal_statement(statement: Value) -> Value {
    let Value::Object(fields) = statement else { return statement };
    let normal = fields.into_iter().map(|(key, value)| {
        let value = match key.as_str() {
            "Action" | "NotAction" | "Resource" | "NotResource" => sorted(value),
            "Principal" | "NotPrincipal" => each_value(value, sorted),
            "Condition" => each_value(value, |keys| each_value(keys, sorted)),
            _ => value,
        };
        (key, value)
    });
    Value::Object(normal.collect())
}

fn each_value(value: Value, change: impl Fn(Value) -> Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, change(value))).collect(),
        other => other,
    }
}

fn sorted(value: Value) -> Value {
    let mut items = list(value);
    items.sort_by_key(ToString::to_string);
    items.dedup();
    Value::Array(items)
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        single => vec![single],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_that_mean_the_same_are_equal() {
        let ours = PolicyDocument::from(json!({
            "Version": "2012-10-17",
            "Statement": [
                { "Sid": "B", "Effect": "Allow", "Action": ["b:Two", "a:One"], "Resource": ["*"] },
                { "Sid": "A", "Effect": "Allow", "Action": "c:Three", "Resource": "*",
                  "Condition": { "StringEquals": { "aws:SourceAccount": ["1"] } } },
            ],
        }));
        let returned = r#"{"Statement":[
            {"Resource":"*","Effect":"Allow","Action":["c:Three"],"Sid":"A",
             "Condition":{"StringEquals":{"aws:SourceAccount":"1"}}},
            {"Sid":"B","Effect":"Allow","Action":["a:One","b:Two"],"Resource":"*"}],"Version":"2012-10-17"}"#;
        let encoded =
            percent_encoding::utf8_percent_encode(returned, percent_encoding::NON_ALPHANUMERIC).to_string();
        assert_eq!(ours, PolicyDocument::from_iam(&encoded));
        assert_eq!(ours, PolicyDocument::from_iam(returned));
    }

    #[test]
    fn documents_that_differ_are_not_equal() {
        let one = |action: &str| PolicyDocument::from(json!({ "Statement": { "Action": action } }));
        assert_ne!(one("ec2:DeleteSnapshot"), one("ec2:*"));
        assert_ne!(one("ec2:DeleteSnapshot"), PolicyDocument::from_iam("not json"));
    }

    /// A right that is missing while the alias moves fails a run of the one release or of the other.
    #[test]
    fn a_union_allows_what_either_document_allows_and_adds_nothing_when_made_again() {
        let document = |tag: &str, more: &[&str]| {
            let mut statements = vec![
                json!({ "Sid": "Select", "Effect": "Allow", "Action": "ec2:CreateSnapshots", "Resource": "*",
                        "Condition": { "StringEquals": { "aws:ResourceTag/key": tag } } }),
                json!({ "Sid": "Log", "Effect": "Allow", "Action": "logs:PutLogEvents", "Resource": "*" }),
            ];
            statements.extend(more.iter().map(
                |action| json!({ "Sid": "More", "Effect": "Allow", "Action": action, "Resource": "*" }),
            ));
            PolicyDocument::from(json!({ "Version": "2012-10-17", "Statement": statements }))
        };
        let sids = |document: &PolicyDocument| -> Vec<String> {
            let statements = document.0["Statement"].as_array().unwrap();
            let mut sids: Vec<String> =
                statements.iter().map(|statement| statement["Sid"].as_str().unwrap().to_owned()).collect();
            sids.sort();
            sids
        };
        let (old, new) = (document("a", &["ec2:One"]), document("b", &[]));
        let both = new.union(&old);
        assert_eq!(sids(&both), ["Log", "More", "Select", "SelectBefore"]);
        assert_eq!(new.union(&both), both, "widened once, it stays as it is");
        assert_eq!(new.union(&new), new);
        // A third release, begun before the second was narrowed.
        let three = document("c", &["ec2:Two"]).union(&both);
        assert_eq!(sids(&three), ["Log", "More", "MoreBefore", "Select", "SelectBefore", "SelectBefore2"]);
        let denying = PolicyDocument::from(json!({ "Statement": { "Effect": "Deny", "Action": "*" } }));
        assert_eq!(new.union(&denying), new, "what somebody denied by hand is not kept");
        assert_eq!(new.union(&PolicyDocument::from_iam("not json")), new);
    }

    #[test]
    fn a_tag_value_cannot_smuggle_in_a_policy_variable() {
        let holes = BTreeMap::from([("v", literal("${aws:username}"))]);
        assert_eq!(fill_text("is ${v}", &holes).unwrap(), "is ${$}{aws:username}");
        assert_eq!(fill_text("is ${w}", &holes), Err("w".to_owned()));
    }
}

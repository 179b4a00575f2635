//! Whether IAM allows a request: the part of its evaluation logic that our documents use.
//!
//! One policy is judged by itself: an explicit deny wins, then an allow, else the request is denied. What the
//! evaluator does not know (an operator, a `NotAction`) is an error and never a guess. Its own tests are what AWS
//! documents, in `evaluator/examples.rs`. The library for this, `iam-rs` 0.8, fails 8 of those 59: it resolves `${$}`
//! and variables without a value to nothing, takes a star in a variable's value for a wildcard, lets wildcards of
//! `ArnLike` reach over colons, knows none in `ArnEquals`, and refuses ARNs whose parts are left out.
//!
//! Source: IAM User Guide, "Policy evaluation logic" and the reference of the policy elements.

mod condition;
mod examples;
mod pattern;

use std::collections::BTreeMap;

use serde_json::Value;

pub(crate) use condition::Condition;
pub(crate) use pattern::Pattern;

/// What IAM is asked: may this action be done to this resource, under these circumstances?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    /// Such as `ec2:CreateSnapshots`.
    pub(crate) action: String,
    /// The resource's ARN, or `*` for an action that knows no resources.
    pub(crate) resource: String,
    /// The values of the condition keys that are present.
    pub(crate) context: Context,
}

/// Values by condition key. IAM does not distinguish upper and lower case in the keys' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// With one more value of a key.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.entry(key.to_lowercase()).or_default().push(value.to_owned());
        self
    }

    /// Without a key.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.remove(&key.to_lowercase());
        self
    }

    pub(crate) fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_lowercase()).map(Vec::as_slice)
    }

    /// The names of the keys that are present, in lower case.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// IAM's answer, with the `Sid` that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A statement allows it, and none denies it.
    Allowed(String),
    /// A statement denies it.
    Denied(String),
    /// No statement is about it.
    NotAllowed,
}

/// A policy document that is understood completely.
#[derive(Clone, Debug)]
pub(crate) struct Policy(Vec<Statement>);

#[derive(Clone, Debug)]
struct Statement {
    sid: String,
    allows: bool,
    actions: Vec<Pattern>,
    /// `None` in a trust policy, whose resource is the role itself.
    resources: Option<Vec<String>>,
    /// Services, accounts and federations; empty in a permissions policy.
    principals: Vec<String>,
    conditions: Vec<Condition>,
}

/// What a document says that the evaluator does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unsupported(String);

impl Policy {
    /// Reads a document.
    pub(crate) fn read(document: &Value) -> Result<Self, Unsupported> {
        for key in document.as_object().into_iter().flatten().map(|(key, _)| key) {
            supported(key, &["Version", "Id", "Statement"])?;
        }
        items(&document["Statement"]).map(Statement::read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the holder of this policy may do it.
    pub(crate) fn evaluate(&self, request: &Request) -> Decision {
        self.decide(|statement| statement.applies(request))
    }

    /// Whether this trust policy lets a service, an account or a federation assume the role.
    pub(crate) fn trusts(&self, principal: &str, request: &Request) -> Decision {
        self.decide(|statement| {
            statement.principals.iter().any(|trusted| trusted == principal) && statement.applies(request)
        })
    }

    fn decide(&self, applies: impl Fn(&Statement) -> bool) -> Decision {
        let deciding = |allows| self.0.iter().find(|one| one.allows == allows && applies(one));
        match (deciding(false), deciding(true)) {
            (Some(denying), _) => Decision::Denied(denying.sid.clone()),
            (None, Some(allowing)) => Decision::Allowed(allowing.sid.clone()),
            (None, None) => Decision::NotAllowed,
        }
    }
}

impl Decision {
    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl Statement {
    fn read(value: &Value) -> Result<Self, Unsupported> {
        let known = ["Sid", "Effect", "Action", "Resource", "Condition", "Principal"];
        for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
            supported(key, &known)?;
        }
        let allows = match value["Effect"].as_str() {
            Some("Allow") => true,
            Some("Deny") => false,
            other => return Err(Unsupported(format!("the effect {other:?}"))),
        };
        let principals = value["Principal"].as_object().into_iter().flatten();
        Ok(Self {
            sid: value["Sid"].as_str().unwrap_or_default().to_owned(),
            allows,
            actions: texts(&value["Action"])?.iter().map(|action| Pattern::ignoring_case(action)).collect(),
            resources: value.get("Resource").map(texts).transpose()?,
            principals: principals.map(|(_, ids)| texts(ids)).collect::<Result<Vec<_>, _>>()?.concat(),
            conditions: Condition::read(value.get("Condition").unwrap_or(&Value::Null))?,
        })
    }

    fn applies(&self, request: &Request) -> bool {
        let on_resource = self.resources.as_ref().is_none_or(|resources| {
            let mut patterns = resources.iter().filter_map(|text| Pattern::resolving(text, &request.context));
            patterns.any(|pattern| pattern.matches_arn(&request.resource))
        });
        let lowercase = request.action.to_lowercase();
        on_resource
            && self.actions.iter().any(|action| action.matches(&lowercase))
            && self.conditions.iter().all(|condition| condition.holds(&request.context))
    }
}

fn supported(key: &str, known: &[&str]) -> Result<(), Unsupported> {
    if known.contains(&key) { Ok(()) } else { Err(Unsupported(format!("`{key}` is not supported"))) }
}

/// A value that stands for a list of itself, or a list.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter()
}

fn texts(value: &Value) -> Result<Vec<String>, Unsupported> {
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(item.to_string()),
        other => Err(Unsupported(format!("{other} where text is expected"))),
    };
    items(value).map(text).collect()
}

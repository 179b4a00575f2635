//! The conditions of a statement, all of which must hold.
//!
//! Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Single-valued vs. multivalued context
//! keys".

use serde_json::Value;

use super::{Context, Pattern, Unsupported, texts};

/// One key of one operator with the values that it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// The condition key, as written.
    pub(crate) key: String,
    values: Vec<String>,
    test: Test,
    /// Whether the test must fail instead.
    negated: bool,
    quantifier: Quantifier,
    if_exists: bool,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equals,
    EqualsIgnoringCase,
    Like,
    Arn,
    Bool,
    Null,
}

/// What becomes of a key with several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    /// The key has one value.
    Single,
    /// Every value must pass; none does.
    All,
    /// One value must pass.
    Any,
}

impl Condition {
    /// Reads a `Condition` element.
    pub(super) fn read(element: &Value) -> Result<Vec<Self>, Unsupported> {
        let mut conditions = Vec::new();
        for (operator, keys) in element.as_object().into_iter().flatten() {
            let (quantifier, name) = match operator.split_once(':') {
                Some(("ForAllValues", name)) => (Quantifier::All, name),
                Some(("ForAnyValue", name)) => (Quantifier::Any, name),
                _ => (Quantifier::Single, operator.as_str()),
            };
            let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
            let (test, negated) = match name {
                "StringEquals" => (Test::Equals, false),
                "StringNotEquals" => (Test::Equals, true),
                "StringEqualsIgnoreCase" => (Test::EqualsIgnoringCase, false),
                "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoringCase, true),
                "StringLike" => (Test::Like, false),
                "StringNotLike" => (Test::Like, true),
                "ArnEquals" | "ArnLike" => (Test::Arn, false),
                "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
                "Bool" => (Test::Bool, false),
                "Null" => (Test::Null, false),
                _ => {
                    return Err(Unsupported(format!("the condition operator `{operator}` is not supported")));
                }
            };
            for (key, values) in keys.as_object().into_iter().flatten() {
                let (key, values) = (key.clone(), texts(values)?);
                conditions.push(Self { key, values, test, negated, quantifier, if_exists });
            }
        }
        Ok(conditions)
    }

    /// Whether it holds.
    pub(super) fn holds(&self, context: &Context) -> bool {
        let found = context.get(&self.key);
        if matches!(self.test, Test::Null) {
            return self.values.iter().any(|value| value == if found.is_none() { "true" } else { "false" });
        }
        let Some(found) = found else {
            // A key that is absent passes what is negated, what asks for "if it exists", and every value of none.
            return self.if_exists || self.negated || self.quantifier == Quantifier::All;
        };
        let mut passing = found.iter().map(|value| self.passes(value, context));
        match self.quantifier {
            Quantifier::All => passing.all(|passes| passes),
            Quantifier::Any => passing.any(|passes| passes),
            Quantifier::Single => found.len() == 1 && passing.all(|passes| passes),
        }
    }

    /// Whether one value passes: equal to one of ours, or with a negated operator to none.
    fn passes(&self, value: &str, context: &Context) -> bool {
        let mut patterns = self.values.iter().filter_map(|text| Pattern::resolving(text, context));
        let equal = patterns.any(|pattern| match self.test {
            Test::Equals => pattern.as_literal().matches(value),
            Test::EqualsIgnoringCase => pattern.as_literal().lowercase().matches(&value.to_lowercase()),
            Test::Like => pattern.matches(value),
            Test::Arn => pattern.matches_arn(value),
            Test::Bool => pattern.lowercase().matches(&value.to_lowercase()),
            Test::Null => false,
        });
        equal != self.negated
    }
}

//! Makes what kinds declare for one account and Region hold in any: a template says `${AWS::Region}`.
//!
//! Kinds know nothing of it. They declare for an account and a Region that stand nowhere in the environment's file, so
//! that wherever these show up in what they declared, the stack's own are meant, and what a user wrote stays as it is.

use serde_json::{Value, json};

use crate::environment::{AccountId, Environment, Region};
use crate::scope::Scope;

/// An account and a Region that nobody has.
#[derive(Clone, Debug)]
pub(super) struct Anywhere {
    account: AccountId,
    region: Region,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    /// One of CloudFormation's pseudo parameters.
    Pseudo(&'static str),
}

impl Anywhere {
    /// An account and a Region that the file does not name.
    pub(super) fn apart_from(environment: &Environment) -> Self {
        let file = json!(environment).to_string();
        let accounts = (0_u64..).filter_map(|number| AccountId::try_from(format!("{number:012}")).ok());
        let regions = (1_u64..).filter_map(|number| Region::try_from(format!("zz-anywhere-{number}")).ok());
        Self {
            account: accounts
                .take(file.len())
                .find(|account| !file.contains(account.as_str()))
                .unwrap_or_else(|| environment.account.clone()),
            region: regions
                .take(file.len())
                .find(|region| !file.contains(region.as_str()))
                .unwrap_or_else(|| environment.region.clone()),
        }
    }

    /// The environment as each of many accounts gets it: an ARN of the file's own account is one of each account's.
    pub(super) fn of_each_account(&self, environment: &Environment) -> Environment {
        let mut each = environment.clone();
        let own = format!(":{}:", environment.account);
        let boundary = each.iam.permissions_boundary.take();
        each.iam.permissions_boundary = boundary
            .map(|arn| arn.as_str().replace(&own, &format!(":{}:", self.account)).try_into().unwrap_or(arn));
        each
    }

    /// The environment's scope, there.
    pub(super) fn scope(&self, environment: &Environment) -> Scope {
        Scope { account: self.account.clone(), region: self.region.clone(), ..Scope::of(environment) }
    }

    /// A name as it is in the environment's own account and Region.
    pub(super) fn at_home(&self, name: &str, environment: &Environment) -> String {
        name.replace(self.account.as_str(), environment.account.as_str())
            .replace(self.region.as_str(), environment.region.as_str())
    }

    /// Puts pseudo parameters wherever a text names the account, the Region, or the partition they would be in.
    pub(super) fn with_pseudo_parameters(&self, value: Value) -> Value {
        match value {
            Value::String(text) => joined(&self.parts(&text)).unwrap_or(Value::String(text)),
            Value::Array(items) => {
                items.into_iter().map(|item| self.with_pseudo_parameters(item)).collect::<Vec<_>>().into()
            }
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, value)| (key, self.with_pseudo_parameters(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other,
        }
    }

    fn parts<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        // The Region that nobody has is in the partition `aws`.
        let known = [
            (self.account.as_str(), 0, "AWS::AccountId"),
            (self.region.as_str(), 0, "AWS::Region"),
            ("arn:aws:", "arn:".len(), "AWS::Partition"),
        ];
        let mut parts = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found = known.iter().filter_map(|(name, before, pseudo)| {
                let at = rest.find(name)? + before;
                let length = if *before == 0 { name.len() } else { "aws".len() };
                Some((at, length, *pseudo))
            });
            found.min_by_key(|(at, ..)| *at)
        };
        while let Some((at, length, pseudo)) = next(rest) {
            parts.extend([Part::Text(&rest[..at]), Part::Pseudo(pseudo)]);
            rest = &rest[at + length..];
        }
        parts.push(Part::Text(rest));
        parts.retain(|part| *part != Part::Text(""));
        parts
    }
}

/// The parts as CloudFormation puts them together; `None` where there is nothing but text.
fn joined(parts: &[Part<'_>]) -> Option<Value> {
    if let [Part::Pseudo(name)] = parts {
        return Some(json!({ "Ref": name }));
    }
    if !parts.iter().any(|part| matches!(part, Part::Pseudo(_))) {
        return None;
    }
    // `Fn::Sub` would take a `${` of the user's for one of its own.
    if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains("${"))) {
        let items = parts.iter().map(|part| match part {
            Part::Text(text) => json!(text),
            Part::Pseudo(name) => json!({ "Ref": name }),
        });
        return Some(json!({ "Fn::Join": ["", items.collect::<Vec<_>>()] }));
    }
    let text = parts.iter().map(|part| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Pseudo(name) => format!("${{{name}}}"),
    });
    Some(json!({ "Fn::Sub": text.collect::<String>() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::environment::parse;

    fn anywhere(team: &str) -> Anywhere {
        let text = include_str!("../../../environments/local.yaml");
        let text = text.replace("tags: { project: snapwarden }", &format!("tags: {{ team: \"{team}\" }}"));
        Anywhere::apart_from(&parse(Path::new("local.yaml"), &text).unwrap())
    }

    /// A template that names one account makes, in another, roles that let nobody in and nothing out.
    #[test]
    fn texts_name_the_account_the_region_and_the_partition_of_the_stack() {
        let here = anywhere("a");
        let (account, region) = (&here.account, &here.region);
        for (text, wanted) in [
            (account.to_string(), json!({ "Ref": "AWS::AccountId" })),
            (format!("role-{region}-x"), json!({ "Fn::Sub": "role-${AWS::Region}-x" })),
            (
                format!("arn:aws:sqs:{region}:{account}:q"),
                json!({ "Fn::Sub": "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:q" }),
            ),
            (
                format!("${{a}} in {region}"),
                json!({ "Fn::Join": ["", ["${a} in ", { "Ref": "AWS::Region" }]] }),
            ),
            ("aws and ${a}".to_owned(), json!("aws and ${a}")),
        ] {
            assert_eq!(here.with_pseudo_parameters(json!([text])), json!([wanted]), "{text}");
        }
    }

    /// What a user wrote is not the stack's, whatever it looks like.
    #[test]
    fn nothing_that_stands_in_the_file_is_taken_for_a_stand_in() {
        let usual = anywhere("a");
        let unusual = anywhere(&format!("{} in {}", usual.account, usual.region));
        assert_ne!(usual.account, unusual.account);
        assert_ne!(usual.region, unusual.region);
    }
}

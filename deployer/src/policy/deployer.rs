//! The policy of whoever deploys: what the kinds say that they need, scoped to one environment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use snapwarden_domain::owner::Owner;
use snapwarden_domain::tags;

use super::lint::{Finding, Use, lint};
use crate::environment::{CopyPlace, Engine, PolicyArn, Region};
use crate::rights::{Condition, OPERATING, PURGING, Purpose, Resources, Right, of_others, rights};
use crate::scope::Scope;

/// Which commands the policy is for, beside `plan`, `status` and the others that only look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `deploy` and `destroy`.
    pub deploy: bool,
    /// `destroy --snapshots purge`.
    pub purge: bool,
    /// `invoke` and `dead-letters`.
    pub operate: bool,
    /// What makes and changes what there is: CloudFormation does it with rights of its own.
    pub engine: Engine,
    /// What is about the environment's key.
    pub key: KeyRights,
}

/// Whether the rights to the key that a deploy makes, or that encrypts what lies at rest, are in the policy. With them it
/// may be longer than IAM takes for one policy, and then they are one of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyRights {
    /// In the same policy.
    #[default]
    With,
    /// In another one.
    Without,
    /// Nothing else.
    Only,
}

impl KeyRights {
    /// Whether the right is in the policy.
    pub(super) fn grants(self, right: &Right) -> bool {
        use Resources::{AnyKeyForOwn, OwnKey, OwnKeyAlias, SettingsKey};
        let is_about_key = [AnyKeyForOwn, OwnKey, OwnKeyAlias, SettingsKey].contains(&right.resources);
        match self {
            Self::With => true,
            Self::Without => !is_about_key,
            Self::Only => is_about_key,
        }
    }
}

impl Access {
    /// Nothing that changes anything.
    pub const READ_ONLY: Self =
        Self { deploy: false, purge: false, operate: false, engine: Engine::Direct, key: KeyRights::With };
    /// What a pipeline needs.
    pub const DEPLOY: Self = Self { deploy: true, ..Self::READ_ONLY };
    /// All commands but `adopt-snapshots`.
    pub const ALL: Self = Self { deploy: true, purge: true, operate: true, ..Self::READ_ONLY };

    fn rights(self) -> BTreeSet<Right> {
        let purposes: &[Purpose] = if self.deploy { &Purpose::ALL } else { &[Purpose::Observe] };
        let mut granted = rights(match self.engine {
            Engine::Direct => purposes,
            Engine::Cloudformation => &[Purpose::Observe],
        });
        granted.extend(of_others(purposes));
        for (given, more) in [(self.purge, PURGING), (self.operate, OPERATING)] {
            granted.extend(more.iter().copied().flatten().filter(|_| given));
        }
        granted.retain(|right| self.key.grants(right));
        granted
    }
}

/// The policy document for one environment.
pub fn deployer_policy(scope: &Scope, access: Access) -> Value {
    policy_of(deployer_statements(scope, access, &[]))
}

/// A policy of these statements.
pub(super) fn policy_of(statements: Vec<(&'static str, Value)>) -> Value {
    let statements: Vec<Value> = statements.into_iter().map(|(_, statement)| statement).collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The same, and the right of `principal`, a user or a role, to ask IAM before the first change whether it may do all
/// that a plan takes. IAM has no name for "oneself" in a policy, so it takes the ARN.
pub fn with_simulation(mut policy: Value, principal: &str) -> Value {
    let action = if principal.contains(":role/") {
        json!(["iam:GetRole", "iam:SimulatePrincipalPolicy"])
    } else {
        json!(["iam:SimulatePrincipalPolicy"])
    };
    let statement =
        json!({ "Sid": "AskAboutOneself", "Effect": "Allow", "Action": action, "Resource": [principal] });
    if let Some(statements) = policy["Statement"].as_array_mut() {
        statements.push(statement);
    }
    policy
}

/// The same, and what it takes to look at the copies elsewhere, and to delete them where it may purge. Those in another
/// account are looked at by a role that can delete them, so only who may purge may act as it.
pub fn with_copies(mut policy: Value, scope: &Scope, places: &[CopyPlace], access: Access) -> Value {
    let Some(statements) = policy["Statement"].as_array_mut() else { return policy };
    let roles: Vec<_> = places.iter().filter_map(|place| place.role.as_ref()).collect();
    if access.purge && !roles.is_empty() {
        statements.push(json!({
            "Sid": "ActInOtherAccounts",
            "Effect": "Allow",
            "Action": ["sts:AssumeRole"],
            "Resource": roles,
        }));
    }
    let in_own = places.iter().filter(|place| place.role.is_none());
    let regions: Vec<_> = in_own.map(|place| &place.region).collect();
    if regions.is_empty() {
        return policy;
    }
    statements.push(json!({
        "Sid": "LookAtCopies",
        "Effect": "Allow",
        "Action": ["ec2:DescribeSnapshots"],
        "Resource": ["*"],
        "Condition": { "StringEquals": { "ec2:Region": regions } },
    }));
    if access.purge {
        let (key, value) = Owner::of_copies(&scope.environment, scope.region.as_str()).tag();
        let arn = |region: &&Region| format!("arn:{}:ec2:{region}::snapshot/*", scope.partition());
        statements.push(json!({
            "Sid": "DeleteCopies",
            "Effect": "Allow",
            "Action": ["ec2:DeleteSnapshot"],
            "Resource": regions.iter().map(arn).collect::<Vec<_>>(),
            "Condition": { "StringEquals": { format!("aws:ResourceTag/{key}"): value } },
        }));
    }
    policy
}

/// What is wrong with that document. A statement on resources that are named needs no reason, a wildcard does.
pub fn lint_deployer(scope: &Scope, access: Access) -> Vec<Finding> {
    let name =
        if access == Access::READ_ONLY { "the deployer's read-only policy" } else { "the deployer's policy" };
    let statements = deployer_statements(scope, access, &[]);
    let reason = |sid: &str| {
        let (reason, _) = statements.iter().find(|(_, statement)| statement["Sid"] == sid)?;
        Some((*reason).to_owned())
    };
    lint(name, &deployer_policy(scope, access), Use::Managed, reason)
}

/// The statements of that document, and of what else is allowed, each with the reason for its wildcards.
pub(super) fn deployer_statements(
    scope: &Scope,
    access: Access,
    more: &[Right],
) -> Vec<(&'static str, Value)> {
    let of_one = |right: Right| match right.resources {
        Resources::Lock | Resources::Releases if access.deploy => {
            Right { resources: Resources::Parameters, ..right }
        }
        _ => right,
    };
    statements_of(scope, access.rights().into_iter().chain(more.iter().copied()).map(of_one).collect())
}

/// What it takes to give a log group a key, and to take it away again. IAM's limit for a policy leaves no room for them
/// where nobody asks for a key.
const ENCRYPTING_LOGS: [&str; 2] = ["logs:AssociateKmsKey", "logs:DisassociateKmsKey"];

/// Statements that give these rights.
pub(super) fn statements_of(scope: &Scope, rights: BTreeSet<Right>) -> Vec<(&'static str, Value)> {
    let bounded = scope.iam.permissions_boundary.is_some();
    let at_rest = scope.at_rest_key().is_some();
    let mut statements: BTreeMap<(Resources, Condition), BTreeSet<&str>> = BTreeMap::new();
    for Right { action, resources, condition } in rights {
        if !at_rest && ENCRYPTING_LOGS.contains(&action) {
            continue;
        }
        let condition = match condition {
            Condition::OnlyBounded if !bounded => continue,
            Condition::OnlyUnbounded if bounded => continue,
            Condition::OnlyBounded | Condition::Bounded if bounded => Condition::Bounded,
            Condition::OnlyBounded | Condition::Bounded | Condition::OnlyUnbounded => Condition::Always,
            other => other,
        };
        if !resources.arns(scope).is_empty() {
            statements.entry((resources, condition)).or_default().insert(action);
        }
    }
    let statements = statements.into_iter().map(|((resources, condition), actions)| {
        let mut statement = Map::from_iter([
            ("Sid".to_owned(), json!(sid(resources, condition))),
            ("Effect".to_owned(), json!("Allow")),
            ("Action".to_owned(), json!(actions)),
            ("Resource".to_owned(), json!(resources.arns(scope))),
        ]);
        let keys: BTreeMap<String, String> = condition_keys(condition, scope).into_iter().collect();
        if !keys.is_empty() {
            let mut conditions = json!({ "StringEquals": keys });
            if (resources, condition) == (Resources::OwnKey, Condition::Requested) {
                // A key that is being made has no alias yet; almost every other one has, and cannot be claimed.
                conditions["Null"] = json!({ "kms:ResourceAliases": "true" });
            }
            statement.insert("Condition".to_owned(), conditions);
        }
        let named = !resources.arns(scope).iter().any(|arn| arn.contains(['*', '?']));
        let reason = resources.why_wildcard().or(named.then_some("these resources by name"));
        (reason.unwrap_or_default(), Value::Object(statement))
    });
    statements.collect()
}

/// A statement's name says what it is about. IAM takes letters and digits.
fn sid(resources: Resources, condition: Condition) -> String {
    let suffix = match condition {
        Condition::Always => "",
        Condition::InRegion => "InRegion",
        Condition::Owned => "Owned",
        Condition::Requested => "Requested",
        Condition::ThroughLambda => "ThroughLambda",
        Condition::PassedTo(_) => "Passed",
        Condition::Bounded | Condition::OnlyBounded | Condition::OnlyUnbounded => "Bounded",
    };
    format!("{resources:?}{suffix}")
}

/// The condition keys, each with the value that it must have; none where nothing is limited.
pub(crate) fn condition_keys(condition: Condition, scope: &Scope) -> Vec<(String, String)> {
    let environment = scope.environment.to_string();
    let owned = || (format!("aws:ResourceTag/{}", tags::ENVIRONMENT), environment.clone());
    match condition {
        Condition::Always | Condition::OnlyUnbounded => Vec::new(),
        Condition::InRegion => vec![("ec2:Region".to_owned(), scope.region.to_string())],
        Condition::Owned => vec![owned()],
        Condition::Requested => vec![(format!("aws:RequestTag/{}", tags::ENVIRONMENT), environment)],
        // A key of the user's is named; ours carries the environment's tag.
        Condition::ThroughLambda => {
            let through = ("kms:ViaService".to_owned(), format!("lambda.{}.amazonaws.com", scope.region));
            let own = scope.encryption.made().map(|_| owned());
            std::iter::once(through).chain(own).collect()
        }
        Condition::PassedTo(service) => vec![("iam:PassedToService".to_owned(), service.to_owned())],
        Condition::Bounded | Condition::OnlyBounded => {
            let boundary = scope.iam.permissions_boundary.as_ref();
            let key = |arn: &PolicyArn| ("iam:PermissionsBoundary".to_owned(), arn.to_string());
            boundary.map(key).into_iter().collect()
        }
    }
}

//! What copies take where they are: the statements of `policies/` that name a `${target_…}`, once for each place, and the role
//! that another account has for them.

use serde_json::{Value, json};

use super::lint::{Finding, Use, lint};
use super::{DOCUMENTS, PolicyDocument, PolicyError, RESTORER, RolePolicies, filled, reason, statements_of};
use crate::environment::{CopyTarget, Environment, RoleArn};
use crate::scope::Scope;

/// What fills the holes of one place: `${…}` and its value.
pub(super) type Holes = Vec<(&'static str, String)>;

/// The role that another account has to have, as its owner makes it there. `principals` are the ARNs of users and roles of
/// the environment's account that may act as it beside the cleanup function.
///
/// What it may do is what cleanup's own role may do for copies in another Region of its account: the same statements, about
/// the other account.
pub fn role_in_other_account(
    environment: &Environment,
    scope: &Scope,
    role: &RoleArn,
    principals: &[String],
) -> Result<RolePolicies, PolicyError> {
    const ABOUT: [&str; 3] = ["${target_", "${copy_source_arn}", "${copy_any_key_arn}"];

    let (document, text) = cleanup();
    let is_about = |text: &str| ABOUT.iter().any(|hole| text.contains(hole));
    let targets = by_role(environment, role);
    let permissions = about_copies(document, text, environment, scope, &targets, is_about)?;
    Ok(RolePolicies {
        description: format!("Lets Snapwarden keep copies of environment {} here", scope.environment),
        trust: trust(scope, principals).into(),
        permissions: permissions["permissions"].clone().into(),
    })
}

/// The policy of whoever restores in another account.
pub fn restorer_in_other_account(
    environment: &Environment,
    scope: &Scope,
    account: &str,
) -> Result<PolicyDocument, PolicyError> {
    let is_there = |target: &&CopyTarget| target.place().account() == Some(account);
    let targets: Vec<_> = environment.copy_to.iter().filter(is_there).collect();
    // What names nothing of the environment's own Region is about the metric of a drill.
    let is_about = |text: &str| text.contains("${target_") || !text.contains("${");
    about_copies(RESTORER.0, RESTORER.1, environment, scope, &targets, is_about).map(PolicyDocument::from)
}

/// The accounts that hold copies, and the roles by which they do, each once.
pub fn other_accounts(environment: &Environment) -> Vec<&RoleArn> {
    let mut roles: Vec<_> = environment.copy_to.iter().filter_map(|target| target.role.as_ref()).collect();
    roles.sort();
    roles.dedup();
    roles
}

/// What is wrong with these documents, see [`lint`].
pub fn lint_copies(environment: &Environment, scope: &Scope) -> Result<Vec<Finding>, PolicyError> {
    let mut findings = Vec::new();
    for role in other_accounts(environment) {
        let RolePolicies { trust, permissions, .. } = role_in_other_account(environment, scope, role, &[])?;
        let because = |sid: &str| match sid {
            TRUST => Some("the cleanup function acts as the role".to_owned()),
            sid => reason(cleanup().1, sid),
        };
        for (document, of) in [(permissions, Use::Inline), (trust, Use::Trust)] {
            findings.extend(lint("the role for copies in another account", &document.0, of, because));
        }
        let restorer = restorer_in_other_account(environment, scope, role.account())?;
        let because = |sid: &str| reason(RESTORER.1, sid);
        let name = "the policy of whoever restores in another account";
        findings.extend(lint(name, &restorer.0, Use::Managed, because));
    }
    Ok(findings)
}

/// What the policy of a key in the environment's own account has to say so that another account can read what the key
/// encrypts (source: EBS user guide, "Share the KMS key used to encrypt a shared Amazon EBS snapshot"): for the roles that
/// make copies, and through EC2 only. Copying takes less than that page names, which is also about making volumes.
///
/// The account is the principal, since KMS refuses a policy with a role that is not there yet, and a role that is made anew
/// would be another one to it.
pub fn for_key_of_sources(environment: &Environment, scope: &Scope) -> Vec<Value> {
    let roles = other_accounts(environment);
    if roles.is_empty() {
        return Vec::new();
    }
    let mut accounts: Vec<_> = roles.iter().map(|role| root_of(scope, role.account())).collect();
    accounts.dedup();
    let mut condition = json!({
        "ArnEquals": { "aws:PrincipalArn": roles },
        "StringLike": { "kms:ViaService": "ec2.*.amazonaws.com" },
    });
    let reading = json!({
        "Sid": "OtherAccountsCopy",
        "Effect": "Allow",
        "Principal": { "AWS": accounts },
        "Action": ["kms:Decrypt", "kms:DescribeKey", "kms:ReEncryptFrom"],
        "Resource": "*",
        "Condition": condition,
    });
    condition["Bool"] = json!({ "kms:GrantIsForAWSResource": "true" });
    let granting = json!({
        "Sid": "EbsCopiesForOtherAccounts",
        "Effect": "Allow",
        "Principal": { "AWS": accounts },
        "Action": "kms:CreateGrant",
        "Resource": "*",
        "Condition": condition,
    });
    vec![reading, granting]
}

const TRUST: &str = "CleanupActs";

/// Who may act as the role: by name, and with the account for the principal, so that a cleanup role that was destroyed and
/// made anew is the same to it (source: IAM User Guide, "AWS JSON policy elements: Principal").
fn trust(scope: &Scope, principals: &[String]) -> Value {
    let mut names = vec![scope.role_arn("cleanup")];
    names.extend(principals.iter().cloned());
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": TRUST,
            "Effect": "Allow",
            "Principal": { "AWS": root_of(scope, scope.account.as_str()) },
            "Action": "sts:AssumeRole",
            "Condition": { "ArnEquals": { "aws:PrincipalArn": names } },
        }],
    })
}

fn root_of(scope: &Scope, account: &str) -> String {
    format!("arn:{}:iam::{account}:root", scope.partition())
}

fn cleanup() -> (&'static str, &'static str) {
    let named = DOCUMENTS.into_iter().find(|(document, _)| *document == "cleanup");
    named.unwrap_or_default()
}

fn by_role<'a>(environment: &'a Environment, role: &RoleArn) -> Vec<&'a CopyTarget> {
    environment.copy_to.iter().filter(|target| target.role.as_ref() == Some(role)).collect()
}

/// Of a document, the statements about these places. `is_about` says by its text which one is.
fn about_copies(
    document: &'static str,
    text: &'static str,
    environment: &Environment,
    scope: &Scope,
    targets: &[&CopyTarget],
    is_about: impl Fn(&str) -> bool,
) -> Result<Value, PolicyError> {
    let syntax = |source| PolicyError::Syntax { document, source };
    let mut value: Value = serde_yaml::from_str(text).map_err(syntax)?;
    for statements in statements_of(&mut value) {
        statements.retain(|statement| statement["Principal"].is_null() && is_about(&statement.to_string()));
    }
    let of_each: Vec<_> = targets.iter().map(|target| holes_of_target(scope, target)).collect();
    let value = for_each(value, "${target_", &of_each).map_err(|error| syntax(error_in_yaml(error)))?;
    filled(document, value, environment, scope)
}

/// What a place fills in.
pub(super) fn holes_of_target(scope: &Scope, target: &CopyTarget) -> Holes {
    let (partition, region, place) = (scope.partition(), target.region.as_str(), target.place());
    let account = place.account().unwrap_or(scope.account.as_str());
    let owner = scope.owner_of_copies(&place).tag().1;
    let mut holes = vec![
        ("${target_region}", region.to_owned()),
        ("${target_owner}", owner.clone()),
        ("${target_restored_by}", if target.role.is_some() { owner } else { scope.environment.to_string() }),
        ("${target_snapshot_arn}", format!("arn:{partition}:ec2:{region}::snapshot/*")),
        ("${target_volume_arn}", format!("arn:{partition}:ec2:{region}:{account}:volume/*")),
        ("${target_any_key_arn}", format!("arn:{partition}:kms:{region}:{account}:key/*")),
    ];
    holes.extend(target.kms_key.arn().map(|arn| ("${target_key_arn}", arn.to_owned())));
    holes.extend(target.kms_key.alias().map(|alias| ("${target_key_alias}", alias.to_owned())));
    holes
}

/// What a role in another account fills in.
pub(super) fn holes_of_other(role: &RoleArn) -> Holes {
    vec![("${other_role_arn}", role.to_string()), ("${other_account}", role.account().to_owned())]
}

/// Repeats the statements that name a hole of this beginning, once for each place or role. A list of all Regions and keys in
/// one statement would let the key of one be used in another.
pub(super) fn for_each(
    mut value: Value,
    beginning: &str,
    of_each: &[Holes],
) -> Result<Value, serde_json::Error> {
    for statements in statements_of(&mut value) {
        let all = std::mem::take(statements);
        for statement in all {
            let text = statement.to_string();
            if !text.contains(beginning) {
                statements.push(statement);
                continue;
            }
            for (number, holes) in of_each.iter().enumerate() {
                let filled = holes.iter().fold(text.clone(), |text, (hole, value)| text.replace(hole, value));
                // What is left of a hole is about what this one does not have, such as an alias.
                if filled.contains(beginning) {
                    continue;
                }
                let mut statement = serde_json::from_str::<Value>(&filled)?;
                if let Some(sid) = statement["Sid"].as_str() {
                    statement["Sid"] = format!("{sid}{}", number + 1).into();
                }
                statements.push(statement);
            }
        }
    }
    Ok(value)
}

/// What a value that breaks a document is, in the words of the document's errors.
pub(super) fn error_in_yaml(error: serde_json::Error) -> serde_yaml::Error {
    <serde_yaml::Error as serde::de::Error>::custom(error)
}

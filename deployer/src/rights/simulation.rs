//! Asking IAM before the first change whether the caller may do all that a plan takes: better to stop before it than
//! in the middle.
//!
//! It is a courtesy and no fence: who may not ask IAM, or is no role or user that can be asked about, goes on as if
//! there were no such question, and so does whoever gets no clear answer.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};

use super::{Condition, Purpose, Resources, Right};
use crate::aws::Aws;
use crate::error::{AwsError, Call, ErrorClass};
use crate::kinds::Registry;
use crate::plan::{Plan, Verb};
use crate::policy::deployer::condition_keys;
use crate::scope::Scope;

/// What IAM says that the caller lacks: actions, each with the resources that it is denied for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Without these the plan fails: making a resource takes all of its kind's rights.
    pub certainly: BTreeMap<String, BTreeSet<String>>,
    /// Without these it may fail: which of its kind's rights a change takes depends on what differs.
    pub possibly: BTreeMap<String, BTreeSet<String>>,
    /// Why IAM could not be asked about all of them, where it could not: what else is missing shows when it is needed.
    pub unasked: Option<String>,
}

/// Asks IAM what the caller lacks for the steps of a plan. `caller` is the ARN that STS says.
pub async fn missing(aws: &Aws, scope: &Scope, registry: Registry, plan: &Plan, caller: &str) -> Missing {
    let needed = needed(scope, registry, plan);
    // The root user lacks nothing.
    if needed.is_empty() || caller.ends_with(":root") {
        return Missing::default();
    }
    let principal = match principal(aws, caller).await {
        Ok(principal) => principal,
        Err(unasked) => return Missing { unasked: Some(unasked), ..Missing::default() },
    };
    let mut missing = Missing::default();
    for ((resources, condition), actions) in questions(&needed) {
        let question = Question {
            principal: &principal,
            resources: resources.arns(scope),
            keys: condition_keys(condition, scope),
        };
        let mut answers = question.ask(aws, actions.iter().copied()).await;
        if answers.as_ref().is_err_and(|error| error.code.starts_with("InvalidInput")) {
            // IAM does not take every action together with every other (M).
            answers = question.ask_singly(aws, actions).await;
        }
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                let ends = error.class == ErrorClass::AccessDenied;
                missing.unasked = Some(error.to_string());
                if ends {
                    break;
                }
                continue;
            }
        };
        for answer in answers {
            let action = &answer.eval_action_name;
            let is_certain =
                needed.iter().any(|(right, certain)| *certain && right.action == action.as_str());
            let list = if is_certain { &mut missing.certainly } else { &mut missing.possibly };
            for resource in denied(&answer) {
                list.entry(action.clone()).or_default().insert(resource);
            }
        }
    }
    missing
}

/// What is asked about several actions.
struct Question<'a> {
    principal: &'a str,
    resources: Vec<String>,
    /// Condition keys with their values.
    keys: Vec<(String, String)>,
}

impl Question<'_> {
    async fn ask(
        &self,
        aws: &Aws,
        actions: impl Iterator<Item = &'static str>,
    ) -> Result<Vec<EvaluationResult>, AwsError> {
        let call = aws.iam.simulate_principal_policy().policy_source_arn(self.principal);
        let call = call.set_action_names(Some(actions.map(str::to_owned).collect()));
        let call = call.set_resource_arns(Some(self.resources.clone()));
        let entry = |(key, value): &(String, String)| {
            let entry = ContextEntry::builder().context_key_name(key).context_key_values(value);
            entry.context_key_type(ContextKeyTypeEnum::String).build()
        };
        let entries: Vec<ContextEntry> = self.keys.iter().map(entry).collect();
        let call = call.set_context_entries((!entries.is_empty()).then_some(entries));
        let answers = call.into_paginator().items().send().collect::<Vec<_>>().await;
        answers.into_iter().map(|answer| answer.call("iam:SimulatePrincipalPolicy")).collect()
    }

    async fn ask_singly(
        &self,
        aws: &Aws,
        actions: BTreeSet<&'static str>,
    ) -> Result<Vec<EvaluationResult>, AwsError> {
        let mut answers = Vec::new();
        for action in actions {
            answers.extend(self.ask(aws, std::iter::once(action)).await?);
        }
        Ok(answers)
    }
}

/// The rights that the pending steps of a plan take, and whether it takes them whatever differs. Pure.
fn needed(scope: &Scope, registry: Registry, plan: &Plan) -> BTreeSet<(Right, bool)> {
    let bounded = scope.iam.permissions_boundary.is_some();
    let mut needed = BTreeSet::new();
    for step in plan.pending() {
        let (purposes, certain): (&[Purpose], bool) = match step.verb {
            Verb::Create => (&[Purpose::Create], true),
            Verb::Update => (&[Purpose::Update], false),
            Verb::Replace => (&[Purpose::Delete, Purpose::Create], false),
            Verb::Delete => (&[Purpose::Delete], false),
            Verb::Keep => continue,
        };
        let Some(kind) = registry.get(&step.resource.kind) else { continue };
        let rights = purposes.iter().flat_map(|purpose| kind.rights(*purpose));
        let applies = |right: &&Right| match right.condition {
            Condition::OnlyBounded => bounded,
            Condition::OnlyUnbounded => !bounded,
            _ => !right.resources.arns(scope).is_empty(),
        };
        needed.extend(rights.filter(applies).map(|right| (*right, certain)));
    }
    needed
}

/// What to ask together: the actions on the same resources under the same condition.
fn questions(needed: &BTreeSet<(Right, bool)>) -> BTreeMap<(Resources, Condition), BTreeSet<&'static str>> {
    let mut questions = BTreeMap::<_, BTreeSet<_>>::new();
    for (right, _) in needed {
        questions.entry((right.resources, right.condition)).or_default().insert(right.action);
    }
    questions
}

/// Whom IAM can be asked about: a user, or the role behind a session, whose path only IAM knows.
async fn principal(aws: &Aws, caller: &str) -> Result<String, String> {
    let resource = caller.splitn(6, ':').nth(5).unwrap_or_default();
    if resource.starts_with("user/") {
        return Ok(caller.to_owned());
    }
    let role = resource.strip_prefix("assumed-role/").and_then(|session| session.split('/').next());
    let role = role.ok_or_else(|| format!("{caller} is neither a user nor a role"))?;
    let answer = aws.iam.get_role().role_name(role).send().await.call("iam:GetRole");
    let found = answer.map_err(|error| error.to_string())?.role;
    found.map(|role| role.arn).ok_or_else(|| format!("IAM does not describe the role {role}"))
}

/// The resources that an answer clearly denies. Where the decision hangs on a key that we could not give, it says
/// nothing.
fn denied(answer: &EvaluationResult) -> Vec<String> {
    let is_denied = |decision: &PolicyEvaluationDecisionType, unknown: &[String]| {
        *decision != PolicyEvaluationDecisionType::Allowed && unknown.is_empty()
    };
    let each = answer.resource_specific_results();
    if each.is_empty() {
        let denied = is_denied(&answer.eval_decision, answer.missing_context_values());
        return denied.then(|| answer.eval_resource_name.clone().unwrap_or_default()).into_iter().collect();
    }
    each.iter()
        .filter(|one| is_denied(&one.eval_resource_decision, one.missing_context_values()))
        .map(|one| one.eval_resource_name.clone())
        .collect()
}

#[cfg(test)]
mod tests;

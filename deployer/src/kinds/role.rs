//! IAM roles with everything they may do: the trust, the inline policies, and whatever else is attached.
//!
//! Policies cannot be tagged and mean nothing without their role, so they are part of it: a policy that somebody
//! added shows as a difference of the role.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_iam::types::Tag;
use futures::future::try_join;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Alias, Blueprint, Context, FoundOf, Kind, LogGroup, StepError, alias_name, last_word, tags, under_names,
};
use crate::cloudformation::{self, Resource, logical_id};
use crate::error::{AwsError, Call, OrAbsent};
use crate::policy::PolicyDocument;
use crate::rights::{Condition, Purpose, Resources, Right};
use crate::scope::{Function, Scope};
use crate::wait;
use crate::world::{Found, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Role;

/// What is wanted of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    description: String,
    /// IAM's path, which names nothing but belongs to the ARN.
    path: String,
    /// The ARN of a managed policy that limits what the role may do.
    permissions_boundary: Option<String>,
    trust: PolicyDocument,
    /// Inline policies by name.
    policies: BTreeMap<String, PolicyDocument>,
    /// ARNs of managed policies. We attach none; one that is attached gives the role more than we vouch for.
    attached: Vec<String>,
    tags: BTreeMap<String, String>,
}

/// The name of the one inline policy.
const POLICY: &str = "snapwarden";

#[async_trait(?Send)]
impl Kind for Role {
    const NAME: &'static str = "role";
    type Properties = Properties;
    type Handle = ();
    const FIXED: &'static [&'static str] = &["path"];

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let roles = blueprint.policies.iter().map(|(purpose, policies)| {
            let properties = Properties {
                description: policies.description.clone(),
                path: blueprint.environment.iam.role_path.to_string(),
                permissions_boundary: blueprint
                    .environment
                    .iam
                    .permissions_boundary
                    .as_ref()
                    .map(ToString::to_string),
                trust: policies.trust.clone(),
                policies: BTreeMap::from([(POLICY.to_owned(), policies.permissions.clone())]),
                attached: Vec::new(),
                tags: blueprint.tags(),
            };
            (blueprint.scope.role(purpose), properties)
        });
        roles.collect()
    }

    fn released_with(name: &str, scope: &Scope) -> Option<ResourceId> {
        let function = Function::ALL.into_iter().find(|function| scope.role(function.as_str()) == name)?;
        Some(ResourceId::new(Alias::NAME, alias_name(scope, function)))
    }

    /// Roles have no versions: both releases run with the same, so it first gets the rights of both, and loses those of
    /// the one before when the new one is live.
    fn interim(found: &Properties, wanted: &Properties) -> Option<Properties> {
        let (before, policy) = (found.policies.get(POLICY)?, wanted.policies.get(POLICY)?);
        let both = policy.union(before);
        let mut policies = wanted.policies.clone();
        (both != *policy).then(|| {
            policies.insert(POLICY.to_owned(), both);
            Properties { policies, ..wanted.clone() }
        })
    }

    /// The log groups remember the roles' names, see [`crate::role_prefix`], so they are the last to go.
    fn needs(_: &str, scope: &Scope) -> Vec<ResourceId> {
        Function::ALL.map(|function| ResourceId::new(LogGroup::NAME, scope.log_group(function))).into()
    }

    fn why(_: &str, property: &str) -> Option<String> {
        let extra = |rest: &str| !rest.starts_with(POLICY);
        let why = match property {
            "attached" => "an attached policy gives the role more than Snapwarden vouches for",
            "permissions_boundary" => {
                "iam.permissions_boundary in the environment file; another one can take away what the role needs"
            }
            "path" => {
                "iam.role_path in the environment file; it is part of the ARN that functions and schedules name"
            }
            "description" | "trust.Version" => return None,
            _ if property.starts_with("trust.") => "who may assume the role: policies/ in the checkout",
            _ if property.strip_prefix("policies.").is_some_and(extra) => {
                "an inline policy that Snapwarden did not write"
            }
            _ if property.starts_with("policies.") => "what the role may do: policies/ in the checkout",
            _ => return None,
        };
        Some(why.to_owned())
    }

    fn describe(found: &FoundOf<Self>) -> String {
        found.properties.description.clone()
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let policies = wanted.policies.iter().map(
            |(policy, document)| json!({ "PolicyName": policy, "PolicyDocument": Value::from(document.clone()) }),
        );
        let properties = json!({
            "RoleName": name,
            "Description": wanted.description,
            "Path": wanted.path,
            "PermissionsBoundary": wanted.permissions_boundary,
            "AssumeRolePolicyDocument": Value::from(wanted.trust.clone()),
            "Policies": policies.collect::<Vec<_>>(),
            "ManagedPolicyArns": wanted.attached,
            "Tags": cloudformation::tags(&wanted.tags),
        });
        vec![Resource::new(logical_id(last_word(name), "Role"), "AWS::IAM::Role", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::Roles, "iam:GetRole"),
                        Right::on(Resources::Roles, "iam:ListRolePolicies"),
                        Right::on(Resources::Roles, "iam:GetRolePolicy"),
                        Right::on(Resources::Roles, "iam:ListAttachedRolePolicies"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Roles, "iam:CreateRole").when(Condition::Bounded),
                        Right::on(Resources::Roles, "iam:PutRolePolicy").when(Condition::Bounded),
                        Right::on(Resources::Roles, "iam:TagRole"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Roles, "iam:UpdateAssumeRolePolicy"),
                        Right::on(Resources::Roles, "iam:UpdateRole"),
                        Right::on(Resources::Roles, "iam:PutRolePermissionsBoundary")
                            .when(Condition::OnlyBounded),
                        Right::on(Resources::Roles, "iam:DeleteRolePermissionsBoundary")
                            .when(Condition::OnlyUnbounded),
                        Right::on(Resources::Roles, "iam:PutRolePolicy").when(Condition::Bounded),
                        Right::on(Resources::Roles, "iam:DeleteRolePolicy"),
                        Right::on(Resources::Roles, "iam:DetachRolePolicy"),
                        Right::on(Resources::Roles, "iam:TagRole"),
                        Right::on(Resources::Roles, "iam:UntagRole"),
                    ]
                }
            }
            Purpose::Delete => {
                const {
                    &[
                        Right::on(Resources::Roles, "iam:DeleteRolePolicy"),
                        Right::on(Resources::Roles, "iam:DetachRolePolicy"),
                        Right::on(Resources::Roles, "iam:DeleteRole"),
                    ]
                }
            }
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let names = crate::policy::purposes().map(|purpose| cx.scope.role(purpose));
        under_names(names, async |name| {
            let properties = observe_role(cx, name).await?;
            Ok(properties.map(|properties| {
                let tags = Some(properties.tags.clone());
                Found { properties, handle: (), tags, revision: None }
            }))
        })
        .await
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let call = cx.aws.iam.create_role().role_name(name).description(&wanted.description);
        let call = call.path(&wanted.path).set_permissions_boundary(wanted.permissions_boundary.clone());
        let call =
            call.assume_role_policy_document(wanted.trust.to_json()).set_tags(Some(iam_tags(&wanted.tags)?));
        call.send().await.call("iam:CreateRole")?;
        for (policy, document) in &wanted.policies {
            put_policy(cx, name, policy, document).await?;
        }
        Ok(())
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let found = &found.properties;
        if found.trust != wanted.trust {
            let call = cx
                .aws
                .iam
                .update_assume_role_policy()
                .role_name(name)
                .policy_document(wanted.trust.to_json());
            call.send().await.call("iam:UpdateAssumeRolePolicy")?;
        }
        if found.description != wanted.description {
            let call = cx.aws.iam.update_role().role_name(name).description(&wanted.description);
            call.send().await.call("iam:UpdateRole")?;
        }
        if found.permissions_boundary != wanted.permissions_boundary {
            put_boundary(cx, name, wanted.permissions_boundary.as_deref()).await?;
        }
        for (policy, document) in &wanted.policies {
            if found.policies.get(policy) != Some(document) {
                put_policy(cx, name, policy, document).await?;
            }
        }
        remove_policies(cx, name, found, &wanted.policies).await?;
        let write = tags::to_write(&wanted.tags, &found.tags);
        if !write.is_empty() {
            let call = cx.aws.iam.tag_role().role_name(name).set_tags(Some(iam_tags(&write)?));
            call.send().await.call("iam:TagRole")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.tags);
        if !remove.is_empty() {
            let call = cx.aws.iam.untag_role().role_name(name).set_tag_keys(Some(remove));
            call.send().await.call("iam:UntagRole")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, found: &FoundOf<Self>) -> Result<(), StepError> {
        // IAM deletes only a role that nothing hangs on.
        remove_policies(cx, name, &found.properties, &BTreeMap::new()).await?;
        wait::retry(cx, &[wait::ROLE_IN_USE], async || {
            cx.aws.iam.delete_role().role_name(name).send().await.call("iam:DeleteRole").or_absent()
        })
        .await?;
        Ok(())
    }
}

impl Properties {
    /// What the role may do, by the policy that is ours.
    pub(crate) fn policy(&self) -> Option<&PolicyDocument> {
        self.policies.get(POLICY)
    }
}

impl Role {
    /// Makes a wanted role one that may do just this.
    pub(crate) fn set_policy(wanted: &mut Value, policy: &PolicyDocument) {
        wanted["policies"] = json!({ POLICY: policy });
        wanted["attached"] = json!([]);
    }
}

async fn observe_role(cx: &Context, name: &str) -> Result<Option<Properties>, AwsError> {
    let answer = cx.aws.iam.get_role().role_name(name).send().await.call("iam:GetRole").or_absent()?;
    let Some(role) = answer.and_then(|answer| answer.role) else { return Ok(None) };
    let (policies, attached) = try_join(inline_policies(cx, name), attached_policies(cx, name)).await?;
    Ok(Some(Properties {
        description: role.description.unwrap_or_default(),
        path: role.path,
        permissions_boundary: role
            .permissions_boundary
            .and_then(|boundary| boundary.permissions_boundary_arn),
        trust: PolicyDocument::from_iam(&role.assume_role_policy_document.unwrap_or_default()),
        policies,
        attached,
        tags: tags::without_reserved(
            role.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)),
        ),
    }))
}

/// Right after its creation, IAM may know a role in one call and not yet in another.
async fn inline_policies(cx: &Context, role: &str) -> Result<BTreeMap<String, PolicyDocument>, AwsError> {
    let listed = cx.aws.iam.list_role_policies().role_name(role).into_paginator().items().send();
    let mut policies = BTreeMap::new();
    for policy in listed.collect::<Vec<_>>().await {
        let Some(policy) = policy.call("iam:ListRolePolicies").or_absent()? else { break };
        let call = cx.aws.iam.get_role_policy().role_name(role).policy_name(&policy);
        if let Some(answer) = call.send().await.call("iam:GetRolePolicy").or_absent()? {
            policies.insert(policy, PolicyDocument::from_iam(&answer.policy_document));
        }
    }
    Ok(policies)
}

async fn attached_policies(cx: &Context, role: &str) -> Result<Vec<String>, AwsError> {
    let listed = cx.aws.iam.list_attached_role_policies().role_name(role).into_paginator().items().send();
    let mut attached = Vec::new();
    for policy in listed.collect::<Vec<_>>().await {
        let Some(policy) = policy.call("iam:ListAttachedRolePolicies").or_absent()? else { break };
        attached.extend(policy.policy_arn);
    }
    attached.sort();
    Ok(attached)
}

async fn put_policy(
    cx: &Context,
    role: &str,
    policy: &str,
    document: &PolicyDocument,
) -> Result<(), StepError> {
    let call =
        cx.aws.iam.put_role_policy().role_name(role).policy_name(policy).policy_document(document.to_json());
    call.send().await.call("iam:PutRolePolicy")?;
    Ok(())
}

async fn put_boundary(cx: &Context, role: &str, boundary: Option<&str>) -> Result<(), StepError> {
    if let Some(arn) = boundary {
        let call = cx.aws.iam.put_role_permissions_boundary().role_name(role).permissions_boundary(arn);
        call.send().await.call("iam:PutRolePermissionsBoundary")?;
    } else {
        let call = cx.aws.iam.delete_role_permissions_boundary().role_name(role);
        call.send().await.call("iam:DeleteRolePermissionsBoundary").or_absent()?;
    }
    Ok(())
}

/// Takes away every policy that is not wanted, inline or attached.
async fn remove_policies(
    cx: &Context,
    role: &str,
    found: &Properties,
    wanted: &BTreeMap<String, PolicyDocument>,
) -> Result<(), StepError> {
    for policy in found.policies.keys().filter(|policy| !wanted.contains_key(*policy)) {
        let call = cx.aws.iam.delete_role_policy().role_name(role).policy_name(policy);
        call.send().await.call("iam:DeleteRolePolicy").or_absent()?;
    }
    for arn in &found.attached {
        let call = cx.aws.iam.detach_role_policy().role_name(role).policy_arn(arn);
        call.send().await.call("iam:DetachRolePolicy").or_absent()?;
    }
    Ok(())
}

fn iam_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, StepError> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect::<Result<_, _>>()
        .map_err(|error| StepError::Malformed(error.to_string()))
}

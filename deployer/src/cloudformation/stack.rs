//! The stack of an environment: whose it is, what state it is in, and how it gets out of a bad one.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_cloudformation::types::TemplateStage;
use serde::Serialize;
use serde_json::Value;
use snapwarden_domain::tags;

use crate::error::{AwsError, Call};
use crate::kinds::{Context, StepError};
use crate::scope::Scope;
use crate::wait;

/// What CloudFormation says of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// Its ARN, which no other stack of the same name ever has.
    pub id: String,
    /// Such as `UPDATE_ROLLBACK_FAILED`.
    pub status: String,
    /// Why it is in that state.
    pub reason: Option<String>,
    /// Whether CloudFormation refuses to delete it.
    pub protected: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What can be done with a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds nothing yet: somebody has only looked at what it would.
    InReview,
    /// It can be changed.
    Ready,
    /// Something changes it right now.
    Busy,
    /// It can only be deleted; says why.
    Failed(&'static str),
    /// CloudFormation could not undo a failed change.
    Stuck,
    /// It is gone, or as good as gone.
    Gone,
}

impl Stack {
    /// What can be done with it (source: CloudFormation User Guide, "Stack status codes").
    pub fn state(&self) -> State {
        match self.status.as_str() {
            "REVIEW_IN_PROGRESS" => State::InReview,
            "DELETE_COMPLETE" => State::Gone,
            "ROLLBACK_COMPLETE" => State::Failed("it could not be made, and what was made of it is undone"),
            "CREATE_FAILED" => State::Failed("it could not be made"),
            "ROLLBACK_FAILED" => State::Failed("it could not be made, nor could that be undone"),
            "DELETE_FAILED" => State::Failed("it could not be deleted as a whole"),
            "UPDATE_ROLLBACK_FAILED" | "UPDATE_FAILED" | "IMPORT_ROLLBACK_FAILED" => State::Stuck,
            status if status.ends_with("_IN_PROGRESS") => State::Busy,
            // Among them `UPDATE_ROLLBACK_COMPLETE`: a change failed and is undone.
            _ => State::Ready,
        }
    }

    /// Whether its tags say that it is the environment's.
    pub fn is_of(&self, scope: &Scope) -> bool {
        scope.owns(&self.tags)
    }

    /// The environment that its tags name.
    pub fn owner(&self) -> Option<&str> {
        self.tags.get(tags::ENVIRONMENT).map(String::as_str)
    }

    /// Whether it holds nothing yet: nobody has made it so far, or the import that was to make it failed and was undone.
    pub fn is_new(&self) -> bool {
        let import_failed = self.status == "IMPORT_ROLLBACK_COMPLETE" && self.owner().is_none();
        self.state() == State::InReview || import_failed
    }

    /// How it gets out of its state, for people; nothing where it needs to get out of none.
    pub fn way_out(&self, scope: &Scope) -> Option<String> {
        let (name, env) = (scope.stack(), &scope.environment);
        match self.state() {
            State::Failed(why) => Some(format!(
                "{why}, and CloudFormation can only delete it: `cargo xtask destroy --env {env}`, then deploy again"
            )),
            State::Stuck if self.status.starts_with("IMPORT") => Some(format!(
                "an import failed and CloudFormation could not let go of it again: mend what the events name (`aws \
                 cloudformation describe-stack-events --stack-name {name}`), then delete the stack, which leaves what \
                 was imported as it is (`aws cloudformation delete-stack --stack-name {name}`), and deploy --adopt again"
            )),
            State::Stuck => Some(format!(
                "a change failed and CloudFormation could not undo it: mend what the events name (`aws cloudformation \
                 describe-stack-events --stack-name {name}`), then let it go on undoing with `aws cloudformation \
                 continue-update-rollback --stack-name {name}`, and deploy again"
            )),
            State::Busy => Some(format!(
                "something changes it right now: wait until `aws cloudformation describe-stacks --stack-name {name}` \
                 says that it is done"
            )),
            State::InReview | State::Ready | State::Gone => None,
        }
    }
}

/// The stack of that name; `None` where there is none any more.
pub async fn find(cx: &Context) -> Result<Option<Stack>, AwsError> {
    describe(cx, &cx.scope.stack()).await
}

/// The stack of that name or ARN. By its ARN CloudFormation still knows a deleted one.
pub async fn describe(cx: &Context, name: &str) -> Result<Option<Stack>, AwsError> {
    let answer = cx.aws.cloudformation.describe_stacks().stack_name(name).send().await;
    let answer = match answer.call("cloudformation:DescribeStacks") {
        Err(error) if is_absent(&error) => return Ok(None),
        answer => answer?,
    };
    let stack = answer.stacks.unwrap_or_default().into_iter().next();
    Ok(stack.map(|stack| Stack {
        id: stack.stack_id.unwrap_or_default(),
        status: stack.stack_status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
        reason: stack.stack_status_reason.filter(|reason| !reason.is_empty()),
        protected: stack.enable_termination_protection.unwrap_or_default(),
        tags: stack
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value?)))
            .collect(),
    }))
}

/// The stack's template as it was handed in: ours is JSON.
pub async fn template(cx: &Context) -> Result<Value, StepError> {
    let call = cx.aws.cloudformation.get_template().stack_name(cx.scope.stack());
    let call = call.template_stage(TemplateStage::Original);
    let body = call.send().await.call("cloudformation:GetTemplate")?.template_body.unwrap_or_default();
    serde_json::from_str(&body).map_err(|error| StepError::Failed {
        what: "the stack's template is none of Snapwarden's; deploy first",
        state: error.to_string(),
    })
}

/// To CloudFormation an unknown name is a wrong request.
pub(super) fn is_absent(error: &AwsError) -> bool {
    error.code == "ValidationError" && error.message.contains("does not exist")
}

/// Switches CloudFormation's own protection of the stack on or off.
pub async fn protect(cx: &Context, protected: bool) -> Result<(), AwsError> {
    let call = cx.aws.cloudformation.update_termination_protection().stack_name(cx.scope.stack());
    let call = call.enable_termination_protection(protected);
    call.send().await.call("cloudformation:UpdateTerminationProtection").map(drop)
}

/// Begins to delete the stack; `token` marks what happens because of it.
pub async fn delete(cx: &Context, id: &str, role: Option<&str>, token: &str) -> Result<(), AwsError> {
    let call = cx.aws.cloudformation.delete_stack().stack_name(id).set_role_arn(role.map(str::to_owned));
    call.client_request_token(token).send().await.call("cloudformation:DeleteStack").map(drop)
}

/// The longest that any change of a stack is waited for: an hour.
pub(super) const LIMIT: Duration = Duration::from_hours(1);

/// Waits until what changes the stack right now is done; `None` where it is gone then.
pub async fn settled(cx: &Context, id: &str) -> Result<Option<Stack>, AwsError> {
    let mut last = None;
    wait::until(cx, "CloudFormation to finish what it does with the stack", LIMIT, async || {
        last = describe(cx, id).await?;
        Ok((last.as_ref().is_none_or(|stack| stack.state() != State::Busy)).then_some(()))
    })
    .await?;
    Ok(last.filter(|stack| stack.state() != State::Gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(status: &str) -> Stack {
        Stack {
            id: "arn".to_owned(),
            status: status.to_owned(),
            reason: None,
            protected: false,
            tags: BTreeMap::new(),
        }
    }

    /// Whoever meets one of these at night needs to be told what to do, and by us rather than by a search engine.
    #[test]
    fn every_state_that_takes_a_person_says_the_way_out() {
        for (status, says) in [
            ("ROLLBACK_COMPLETE", Some("can only delete it: `cargo xtask destroy --env local`")),
            ("ROLLBACK_FAILED", Some("cargo xtask destroy")),
            ("CREATE_FAILED", Some("cargo xtask destroy")),
            ("DELETE_FAILED", Some("cargo xtask destroy")),
            ("UPDATE_ROLLBACK_FAILED", Some("continue-update-rollback --stack-name snapwarden-local")),
            ("UPDATE_IN_PROGRESS", Some("something changes it right now")),
            ("UPDATE_ROLLBACK_IN_PROGRESS", Some("something changes it right now")),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Some("something changes it right now")),
            ("UPDATE_ROLLBACK_COMPLETE", None),
            ("CREATE_COMPLETE", None),
            ("UPDATE_COMPLETE", None),
            ("IMPORT_ROLLBACK_COMPLETE", None),
            ("IMPORT_ROLLBACK_FAILED", Some("delete-stack --stack-name snapwarden-local")),
            ("REVIEW_IN_PROGRESS", None),
        ] {
            let way_out = stack(status).way_out(&crate::cloudformation::tests::scope());
            match says {
                Some(text) => {
                    assert!(
                        way_out.as_deref().is_some_and(|way| way.contains(text)),
                        "{status}: {way_out:?}"
                    );
                }
                None => assert_eq!(way_out, None, "{status}"),
            }
        }
    }
}

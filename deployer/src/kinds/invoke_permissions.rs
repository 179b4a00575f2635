//! Who may invoke a function besides those whose own policies let them: the statements of its resource policy.
//!
//! Snapwarden adds none, so every one that is found is somebody else's and goes away.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, StepError};
use crate::error::{AwsError, Call, OrAbsent};
use crate::policy::PolicyDocument;
use crate::wait;

/// Statements by their `Sid`, without what is the same in all of them.
pub(super) type Permissions = BTreeMap<String, Value>;

/// Why a statement goes away.
pub(super) const WHY: &str = "it lets somebody else invoke the function";

/// The statements about a function or, with `qualifier`, about one of its aliases.
pub(super) async fn observe(
    cx: &Context,
    function: &str,
    qualifier: Option<&str>,
) -> Result<Permissions, AwsError> {
    let call = cx.aws.lambda.get_policy().function_name(function).set_qualifier(qualifier.map(str::to_owned));
    let answer = call.send().await.call("lambda:GetPolicy").or_absent()?;
    let Some(policy) = answer.and_then(|answer| answer.policy) else { return Ok(Permissions::new()) };
    let arn = cx.scope.arn("lambda", &format!("function:{function}"));
    Ok(statements(&policy, &qualifier.map_or(arn.clone(), |qualifier| format!("{arn}:{qualifier}"))))
}

/// Those that are found and not wanted.
pub(super) fn unwanted(found: &Permissions, wanted: &Permissions) -> Permissions {
    let unwanted = found.iter().filter(|(sid, statement)| wanted.get(*sid) != Some(statement));
    unwanted.map(|(sid, statement)| (sid.clone(), statement.clone())).collect()
}

/// Takes all of them away.
pub(super) async fn remove(
    cx: &Context,
    function: &str,
    qualifier: Option<&str>,
    permissions: &Permissions,
) -> Result<(), StepError> {
    for sid in permissions.keys() {
        wait::retry(cx, &[wait::FUNCTION_BUSY], async || {
            let call = cx.aws.lambda.remove_permission().function_name(function).statement_id(sid);
            let call = call.set_qualifier(qualifier.map(str::to_owned));
            call.send().await.call("lambda:RemovePermission").or_absent()
        })
        .await?;
    }
    Ok(())
}

/// The statements of a policy that are about `resource`, and about no version or alias of it.
fn statements(policy: &str, resource: &str) -> Permissions {
    let Value::Object(mut document) = PolicyDocument::from_iam(policy).into() else {
        return Permissions::new();
    };
    let statements = document.remove("Statement").unwrap_or_default();
    let mut found = Permissions::new();
    for statement in statements.as_array().into_iter().flatten() {
        let about = statement["Resource"].as_array().into_iter().flatten();
        let Some(mut fields) = statement.as_object().cloned() else { continue };
        if about.filter_map(Value::as_str).any(|arn| arn == resource) {
            let sid = fields.remove("Sid").as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            fields.remove("Resource");
            found.insert(sid, Value::Object(fields));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_statement_belongs_to_the_function_or_to_one_alias() {
        let statement = |sid: &str, resource: &str| json!({ "Sid": sid, "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": resource });
        let policy =
            json!({ "Statement": [statement("a", "arn:f"), statement("b", "arn:f:live")] }).to_string();
        let sids = |resource| statements(&policy, resource).into_keys().collect::<Vec<_>>();
        assert_eq!((sids("arn:f"), sids("arn:f:live")), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!(statements(&policy, "arn:f")["a"]["Action"], json!(["lambda:InvokeFunction"]));
        assert_eq!(statements("not json", "arn:f"), Permissions::new());
    }
}

//! Lambda's revisions as a fence: a change that was meant for another state of a function is refused.
//!
//! A revision also changes without anybody's doing, when Lambda finishes a change, and through our own call, when the
//! SDK repeats it after its answer was lost. So a refusal is looked into before it is believed.

use super::function::Version;
use super::key::OwnKey;
use super::{Context, StepError};
use crate::error::{AwsError, Call};

/// Lambda's answer to a revision that is not the present one (source: AWS Lambda API, `UpdateFunctionCode`).
const REFUSED: &str = "PreconditionFailedException";

/// How often a change is tried with a newer revision of the same state.
const ATTEMPTS: u32 = 3;

/// Changes `$LATEST` from one state to another, unless it is in neither: then somebody else is changing it.
pub(super) async fn change_function(
    cx: &Context,
    name: &str,
    (from, to): (&Version, &Version),
    revision: Option<String>,
    mut call: impl AsyncFnMut(Option<String>) -> Result<(), AwsError>,
) -> Result<(), StepError> {
    let mut revision = revision;
    for _ in 0..ATTEMPTS {
        match call(revision).await {
            Err(error) if error.code == REFUSED => {}
            result => return Ok(result?),
        }
        let own_key = OwnKey::of(&cx.aws, &cx.scope).await?;
        let look =
            cx.aws.lambda.get_function().function_name(name).send().await.call("lambda:GetFunction")?;
        let Some(now) = look.configuration else { break };
        match Version::found(&now, &own_key)? {
            state if state == *to => return Ok(()),
            state if state == *from => revision = now.revision_id,
            _ => break,
        }
    }
    Err(StepError::Changed { what: name.to_owned() })
}

/// Moves an alias from one version to another, unless it serves neither.
pub(super) async fn move_alias(
    cx: &Context,
    (function, alias): (&str, &str),
    (from, to): (&str, &str),
    revision: Option<String>,
    mut call: impl AsyncFnMut(Option<String>) -> Result<(), AwsError>,
) -> Result<(), StepError> {
    let mut revision = revision;
    for _ in 0..ATTEMPTS {
        match call(revision).await {
            Err(error) if error.code == REFUSED => {}
            result => return Ok(result?),
        }
        let look = cx.aws.lambda.get_alias().function_name(function).name(alias).send().await;
        let now = look.call("lambda:GetAlias")?;
        match now.function_version.as_deref() {
            Some(version) if version == to && now.routing_config.is_none() => return Ok(()),
            Some(version) if version == from || version == to => revision = now.revision_id,
            _ => break,
        }
    }
    Err(StepError::Changed { what: format!("{function}:{alias}") })
}

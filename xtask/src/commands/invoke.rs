//! `cargo xtask invoke`: runs a deployed function now and shows its report.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use snapwarden_deployer::invoke::invoke;
use snapwarden_deployer::scope::Function;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{BackupReport, CleanupReport};

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `invoke`.
#[derive(Args, Debug)]
pub(crate) struct InvokeArgs {
    /// The function
    function: FunctionName,
    /// Decide everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FunctionName {
    /// Snapshot the volumes of the selected instances
    Backup,
    /// Delete the snapshots whose day has come
    Cleanup,
}

impl From<FunctionName> for Function {
    fn from(name: FunctionName) -> Self {
        match name {
            FunctionName::Backup => Self::Backup,
            FunctionName::Cleanup => Self::Cleanup,
        }
    }
}

/// Invokes the released version and waits for its report.
pub(crate) fn cmd_invoke(context: &Context, args: &InvokeArgs) -> CommandResult {
    let function = args.function.into();
    let answer = block_on(async {
        let session = Session::open(context).await?;
        let event = Event::manual(Timestamp::now(), args.dry_run);
        let task = context.progress().start(format!("running {}", session.scope.function(function)));
        let answer =
            invoke(&session.aws, &session.scope.alias_arn(function), &event).await.map_err(|error| {
                let missing = error.code == "ResourceNotFoundException";
                let failure = Failure::from(error);
                if missing {
                    failure.hint("nothing is deployed yet: run `cargo xtask deploy` first")
                } else {
                    failure
                }
            })?;
        task.done(if answer.failed { "FAILED" } else { "" });
        Ok(answer)
    })?;
    if context.verbose() || answer.failed {
        context.progress().note(answer.log_tail.trim_end());
    }
    if let Some(message) = answer.error_message() {
        if context.json() {
            output::result(context, &answer.payload, "")?;
        }
        return Err(Failure::new(Exit::Failed, format!("{} failed: {message}", function.as_str())));
    }
    output::result(context, &answer.payload, text(function, &answer.payload))
}

/// A report as text; one of another version of the functions, which may not be understood, as it is.
pub(crate) fn text(function: Function, payload: &Value) -> String {
    let understood = match function {
        Function::Backup => BackupReport::deserialize(payload).map(|report| render::report::backup(&report)),
        Function::Cleanup => {
            CleanupReport::deserialize(payload).map(|report| render::report::cleanup(&report))
        }
    };
    understood.unwrap_or_else(|error| {
        format!("the report of another version, as it is ({error}); deploy to have both of one version\n{payload:#}")
    })
}

//! `cargo xtask invoke`: runs a deployed function now and shows its report.

use std::num::NonZeroU16;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use snapwarden_deployer::invoke::invoke;
use snapwarden_deployer::scope::Function;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{BackupReport, CleanupReport, SealingReport};
use snapwarden_domain::run::RunId;
use snapwarden_domain::settings::CleanupPolicy;

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `invoke`.
#[derive(Args, Debug)]
pub(crate) struct InvokeArgs {
    /// What to run
    task: Task,
    /// Decide everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Let this run of cleanup delete so many snapshots, instead of the environment's `max_deletes`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CleanupPolicy::HIGHEST_MAX_DELETES)))]
    max_deletes: Option<u32>,
    /// Let this run of cleanup delete however large a share of all snapshots
    #[arg(long)]
    allow_mass_deletion: bool,
    /// Go on with this run, as reports name it, instead of starting one of now; at most 48 hours old
    #[arg(long, value_name = "RUN")]
    run: Option<RunId>,
    /// Go at so many times EC2's published request rates; only for the local environment
    #[arg(long, value_name = "TIMES")]
    pace: Option<NonZeroU16>,
}

impl InvokeArgs {
    fn event(&self, now: Timestamp) -> Event {
        let event = Event {
            seal: matches!(self.task, Task::Seal),
            max_deletes: self.max_deletes,
            allow_mass_deletion: self.allow_mass_deletion,
            pace: self.pace,
            ..Event::manual(now, self.dry_run)
        };
        match &self.run {
            Some(run) => {
                Event { scheduled_at: run.scheduled_at(), schedule: run.schedule().clone(), ..event }
            }
            None => event,
        }
    }
}

/// What the functions can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Snapshot the volumes of the selected instances
    Backup,
    /// Delete the snapshots whose day has come
    Cleanup,
    /// Replace snapshots in clear text by encrypted copies, and make the copies elsewhere; the cleanup function does it
    Seal,
}

impl Task {
    pub(crate) fn function(self) -> Function {
        match self {
            Self::Backup => Function::Backup,
            Self::Cleanup | Self::Seal => Function::Cleanup,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Cleanup => "cleanup",
            Self::Seal => "seal",
        }
    }
}

/// A function.
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
    let function = args.task.function();
    if args.task != Task::Cleanup && (args.max_deletes.is_some() || args.allow_mass_deletion) {
        return Err(Failure::new(Exit::Usage, "--max-deletes and --allow-mass-deletion are for cleanup"));
    }
    let answer = block_on(async {
        let session = Session::open(context).await?;
        let event = args.event(Timestamp::now());
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
        return Err(Failure::new(Exit::Failed, format!("{} failed: {message}", args.task.as_str())));
    }
    output::result(context, &answer.payload, text(args.task, &answer.payload, context.verbose()))?;
    if answer.payload.get("handed_on") == Some(&Value::Bool(true)) {
        let logs = context.command_line(&format!("logs {}", args.task.function().as_str()));
        return Err(Failure::new(
            Exit::GoesOn,
            "the run goes on by itself in further invocations: how it ends is not known yet",
        )
        .hint(format!("see `{logs}`, or `{}` once it has ended", context.command_line("status"))));
    }
    Ok(())
}

/// A report as text; one of another version of the functions, which may not be understood, as it is.
pub(crate) fn text(task: Task, payload: &Value, all: bool) -> String {
    let understood = match task {
        Task::Backup => BackupReport::deserialize(payload).map(|report| render::report::backup(&report)),
        Task::Cleanup => {
            CleanupReport::deserialize(payload).map(|report| render::report::cleanup(&report, all))
        }
        Task::Seal => SealingReport::deserialize(payload).map(|report| render::report::sealing(&report)),
    };
    understood.unwrap_or_else(|error| {
        format!("the report of another version, as it is ({error}); deploy to have both of one version\n{payload:#}")
    })
}

//! `cargo xtask dead-letters`: the events of runs that were given up, and how to make up for them.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use snapwarden_deployer::dead_letters::{self, DeadLetter, Sender};
use snapwarden_deployer::environment::Cloud;
use snapwarden_domain::event::Event;

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::render::table::table;
use crate::session::Session;

/// Flags of `dead-letters`.
#[derive(Args, Debug)]
pub(crate) struct DeadLettersArgs {
    /// Delete those that are listed, and no others
    #[arg(long)]
    purge: bool,
    /// Go ahead without a question
    #[arg(long, requires = "purge")]
    yes: bool,
}

/// What lies in the queue.
#[derive(Debug, Serialize)]
struct Letters {
    /// The queue's name.
    queue: String,
    /// The events, the oldest first.
    events: Vec<DeadLetter>,
    /// The ids of those that were deleted.
    deleted: Vec<String>,
    /// Those that were to be deleted and are still there, each with the reason.
    remaining: BTreeMap<String, String>,
}

/// Lists them, and deletes what was listed where that is asked for.
pub(crate) fn cmd_dead_letters(context: &Context, args: &DeadLettersArgs) -> CommandResult {
    let letters = block_on(async {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Failed, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        let queue = session.scope.dead_letter_queue();
        let Some(events) = dead_letters::list(&session.aws, &session.scope).await? else {
            return Err(Failure::new(Exit::Failed, format!("there is no queue {queue}"))
                .hint(format!("deploy first: {}", context.command_line("deploy"))));
        };
        let mut letters = Letters { queue, events, deleted: Vec::new(), remaining: BTreeMap::new() };
        if args.purge && !letters.events.is_empty() {
            if session.environment.cloud == Cloud::Aws && !args.yes {
                let listed = text(context, &letters, Timestamp::now());
                let question = format!("Delete these {} from {}?", letters.events.len(), letters.queue);
                output::confirm(context, &listed, &question)?;
            }
            letters.remaining = dead_letters::delete(&session.aws, &session.scope, &letters.events).await?;
            let ids = letters.events.iter().map(|letter| letter.message.clone());
            letters.deleted = ids.filter(|id| !letters.remaining.contains_key(id)).collect();
        }
        Ok(letters)
    })?;
    output::result(context, &letters, text(context, &letters, Timestamp::now()))?;
    match letters.remaining.len() {
        0 => Ok(()),
        left => Err(Failure::new(Exit::Failed, format!("{left} events could not be deleted"))
            .hint("run the command again")),
    }
}

fn text(context: &Context, letters: &Letters, now: Timestamp) -> String {
    let Letters { queue, events, deleted, remaining } = letters;
    if events.is_empty() {
        return format!("{queue} is empty");
    }
    let rows = events.iter().map(|letter| {
        let function = letter.function.map(|function| function.as_str()).unwrap_or_default();
        let from = match letter.from {
            Sender::Scheduler => "EventBridge Scheduler",
            Sender::Lambda => "Lambda",
            Sender::Unknown => "unknown",
        };
        [
            letter.at.map(|at| at.strftime("%F %H:%M UTC").to_string()).unwrap_or_default(),
            function.to_owned(),
            letter.run.as_ref().map(ToString::to_string).unwrap_or_default(),
            from.to_owned(),
            letter.reason.clone(),
        ]
    });
    let mut text = table(["SINCE", "FUNCTION", "RUN", "GIVEN UP BY", "REASON"], rows);
    text.push_str("\n\n");
    for (id, reason) in remaining {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id} is still there: {reason}");
    }
    if !deleted.is_empty() {
        let _ = write!(text, "{} deleted", deleted.len());
        return text;
    }
    text.push_str(&next(context, events, now));
    text
}

/// What makes up for a lost run: the run itself while it is young enough, else one of now.
fn next(context: &Context, events: &[DeadLetter], now: Timestamp) -> String {
    let mut commands: Vec<String> = Vec::new();
    for letter in events {
        let Some(function) = letter.function else { continue };
        let young =
            |at: Timestamp| now.duration_since(at) < Event::MAX_DISTANCE - SignedDuration::from_hours(1);
        let run = letter.run.as_ref().filter(|run| young(run.scheduled_at()));
        let again = run.map(|run| format!(" --run {run}")).unwrap_or_default();
        let command = context.command_line(&format!("invoke {}{again}", function.as_str()));
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let purge = context.command_line("dead-letters --purge");
    let again = match commands.as_slice() {
        [] => String::new(),
        commands => format!("run what is missing:\n  {}\n", commands.join("\n  ")),
    };
    format!("{again}then empty the queue: {purge}")
}

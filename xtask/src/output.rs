//! Results on stdout, and questions to a person.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};

/// Prints a result: its JSON with `--json`, else its text.
pub(crate) fn result(context: &Context, value: &impl Serialize, text: impl Display) -> CommandResult {
    let written = if context.json() {
        serde_json::to_string_pretty(value)
            .map_err(io::Error::from)
            .and_then(|json| writeln!(io::stdout(), "{json}"))
    } else {
        let text = text.to_string();
        writeln!(anstream::stdout(), "{}", text.trim_end())
    };
    match written {
        // `… | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::caused_by(Exit::Failed, &error).context("cannot write the result"))
        }
        _ => Ok(()),
    }
}

/// The same as [`confirm`] where a lock has to be renewed while a person thinks.
pub(crate) async fn confirm_meanwhile(context: &Context, plan: &str, question: &str) -> CommandResult {
    let (context, plan, question) = (context.clone(), plan.to_owned(), question.to_owned());
    let asked = tokio::task::spawn_blocking(move || confirm(&context, &plan, &question));
    asked.await.unwrap_or_else(|error| Err(Failure::caused_by(Exit::Failed, &error).context("cannot ask")))
}

/// Shows what is about to be done and asks a person for a yes. Without a terminal there is nobody to ask, and a program
/// that reads JSON does not answer: there the flag has to say it.
pub(crate) fn confirm(context: &Context, plan: &str, question: &str) -> CommandResult {
    if context.json() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} There is nobody to ask"))
            .hint("add --yes to go ahead without a question"));
    }
    let mut screen = anstream::stderr();
    let mut answer = String::new();
    let asked = write!(screen, "{plan}\n\n{question} [y/N] ").and_then(|()| screen.flush());
    asked
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot ask"))?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "not confirmed: nothing was changed"))
    }
}

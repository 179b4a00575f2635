//! `cargo xtask logs`: what a function wrote, as lines that people can read.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use snapwarden_deployer::logs::{self, Line, Position};
use snapwarden_deployer::scope::Function;

use super::invoke::FunctionName;
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::render;
use crate::session::Session;

/// Flags of `logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The function
    function: FunctionName,
    /// How far back: a duration such as 30m, 2h or 3d, or a time such as 2026-11-24T02:00:00Z
    #[arg(long, value_name = "WHEN", default_value = "1d", value_parser = since)]
    since: Since,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Ago(SignedDuration),
    At(Timestamp),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Since::At(at));
    }
    let unit = text.chars().last().unwrap_or_default();
    let minutes = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        _ => 0,
    };
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(number @ 1..=1_000_000) if minutes > 0 => {
            Ok(Since::Ago(SignedDuration::from_mins(i64::from(number) * minutes)))
        }
        _ => Err("use a duration such as 30m, 2h or 3d, or a time such as 2026-11-24T02:00:00Z".to_owned()),
    }
}

/// How often CloudWatch Logs is asked for new lines.
const LOOK: Duration = Duration::from_secs(2);

/// Prints the lines, the oldest first.
pub(crate) fn cmd_logs(context: &Context, args: &LogsArgs) -> CommandResult {
    let function: Function = args.function.into();
    block_on(async {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Failed, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        let group = session.scope.log_group(function);
        let now = Timestamp::now();
        let from = match args.since {
            Since::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
            Since::At(at) => at,
        };
        let mut position = Position::after(from);
        loop {
            let Some(lines) = logs::read(&session.aws, &group, &mut position).await? else {
                return Err(Failure::new(Exit::Failed, format!("there is no log group {group}"))
                    .hint(format!("deploy first: {}", context.command_line("deploy"))));
            };
            if !print(context, &lines)? || !args.follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// Prints lines; `false` where nobody reads them any more.
fn print(context: &Context, lines: &[Line]) -> Result<bool, Failure> {
    let mut out = anstream::stdout().lock();
    for line in lines {
        let text = if context.json() {
            serde_json::json!({ "at": line.at, "message": line.message }).to_string()
        } else {
            let Some(text) = render::log::text(line, context.verbose()) else { continue };
            text
        };
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => {
                return Err(Failure::caused_by(Exit::Failed, &error).context("cannot write the log"));
            }
            Ok(()) => {}
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_duration_or_a_time() {
        assert_eq!(since("30m"), Ok(Since::Ago(SignedDuration::from_mins(30))));
        assert_eq!(since("2d"), Ok(Since::Ago(SignedDuration::from_hours(48))));
        assert_eq!(since("1970-01-01T00:00:00Z"), Ok(Since::At(Timestamp::UNIX_EPOCH)));
        for bad in ["", "h", "0h", "-1h", "2w", "2", "yesterday", "9999999d", "ü"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}

//! Running other programs: their output goes to a log file, and an error shows the end of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How much of a failed program's output an error shows.
const LINES_SHOWN: usize = 12;

/// Runs `command` to its end with all its output in `log`, which is replaced.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<(), CommandError> {
    let status = spawn(command, log)?.wait().map_err(not_started(command))?;
    check(command, status, log)
}

/// Like [`run_logged`], but ends the program after `limit`: for those that wait long for a network that is not there.
pub(crate) fn run_bounded(command: &mut Command, log: &Path, limit: Duration) -> Result<(), CommandError> {
    let mut child = spawn(command, log)?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(not_started(command))? {
            return check(command, status, log);
        }
        if Instant::now() >= deadline {
            // It may have ended by itself just now; either way it is gone after this.
            drop(child.kill());
            drop(child.wait());
            return Err(CommandError::Timeout { program: described(command), limit });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `command` and returns what it writes to stdout, without the white space around it.
pub(crate) fn capture(command: &mut Command) -> Result<String, CommandError> {
    let output = command.stdin(Stdio::null()).output().map_err(not_started(command))?;
    if !output.status.success() {
        let said = last_lines(&output.stderr);
        return Err(CommandError::Exit { program: described(command), status: output.status, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The program is not installed.
    #[error("`{program}` is not installed: it is not on the PATH")]
    NotFound {
        /// The program's name.
        program: String,
    },
    /// The program is there but could not be run.
    #[error("cannot run `{program}`")]
    Start {
        /// The program with its arguments.
        program: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("`{program}` failed ({status}){said}")]
    Exit {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output, each on a line of its own; empty when it said nothing.
        said: String,
    },
    /// The program took too long and was ended.
    #[error("`{program}` was not done after {} s", limit.as_secs())]
    Timeout {
        /// The program with its arguments.
        program: String,
        /// The time it had.
        limit: Duration,
    },
    /// The log file could not be written.
    #[error("cannot write {}", log.display())]
    Log {
        /// The log file.
        log: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child, CommandError> {
    let (stdout, stderr) =
        log_handles(log).map_err(|source| CommandError::Log { log: log.to_owned(), source })?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().map_err(not_started(command))
}

fn log_handles(log: &Path) -> io::Result<(File, File)> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let stdout = File::create(log)?;
    let stderr = stdout.try_clone()?;
    Ok((stdout, stderr))
}

fn check(command: &Command, status: ExitStatus, log: &Path) -> Result<(), CommandError> {
    if status.success() {
        return Ok(());
    }
    // Without its log the error is shorter, but still says what failed.
    let said = last_lines(&fs::read(log).unwrap_or_default());
    Err(CommandError::Exit { program: described(command), status, said })
}

/// The end of a program's output, indented to stand below the line that says that it failed.
fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].iter();
    shown.fold(String::new(), |said, line| said + "\n    " + line.trim_end())
}

fn not_started(command: &Command) -> impl FnOnce(io::Error) -> CommandError + use<> {
    let name = command.get_program().to_string_lossy().into_owned();
    let program = described(command);
    move |source| match source.kind() {
        io::ErrorKind::NotFound => CommandError::NotFound { program: name },
        _ => CommandError::Start { program, source },
    }
}

/// The command as one would type it, without the folder of the program.
fn described(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    command.get_args().fold(name, |text, argument| text + " " + &argument.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_shows_the_end_of_what_the_program_said() {
        let place = tempfile::tempdir().unwrap();
        let error = run_logged(&mut shell("seq 1 40; echo why >&2; exit 3"), &place.path().join("logs/log"));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("failed (exit status: 3)\n    30\n") && text.ends_with("\n    why"), "{text}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let place = tempfile::tempdir().unwrap();
        let limit = Duration::from_millis(200);
        let error = run_bounded(Command::new("sleep").arg("60"), &place.path().join("log"), limit);
        assert!(matches!(error, Err(CommandError::Timeout { .. })), "{error:?}");
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_fails() {
        let error = capture(&mut Command::new("no-such-program-here"));
        assert!(matches!(error, Err(CommandError::NotFound { .. })), "{error:?}");
        assert_eq!(capture(&mut shell("echo ' yes '")).unwrap(), "yes");
    }
}

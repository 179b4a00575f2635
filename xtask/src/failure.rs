//! The one place where errors become an exit code and a message for people.

use std::error::Error;
use std::fmt;

/// Why the process ends with a code other than 0. The table in README.md documents these codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something was tried and did not succeed.
    Failed = 1,
    /// A flag or a file of the user's is wrong; nothing was tried.
    Usage = 2,
    /// `plan --exit-code` found changes.
    ChangesPending = 3,
    /// A guard said no: wrong account, protected, stale plan, unowned namesake.
    Refused = 4,
    /// `status` found something that needs a person.
    Attention = 5,
    /// `invoke` saw the beginning of a run that goes on by itself.
    GoesOn = 6,
}

/// An error on its way to the user: what failed and why, what to do next, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with the given exit code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// An exit code whose reason the result on stdout has said already.
    pub(crate) fn said(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Whether there is nothing more to say.
    pub(crate) fn is_said(&self) -> bool {
        self.message.is_empty()
    }

    /// A failure that renders `error` and everything that caused it.
    pub(crate) fn caused_by(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, with_causes(error))
    }

    /// Says in front what was being done, such as `cannot start the local environment`.
    pub(crate) fn context(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The process's exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The hint, where there is one.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `error: cause: cause`, leaving out a cause that the text before it already says.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What every command returns.
pub(crate) type CommandResult = Result<(), Failure>;

//! How a command that failed says so.

use serde_json::json;

use super::style::{BAD, BOLD, painted};
use crate::failure::Failure;

/// The message with its hint, or one line of JSON.
pub(crate) fn text(failure: &Failure, as_json: bool) -> String {
    let exit = failure.exit() as u8;
    if as_json {
        let hint = failure.hint_text();
        return json!({ "event": "failed", "exit": exit, "error": failure.to_string(), "hint": hint })
            .to_string();
    }
    let mut text = format!("{} {failure}", painted(BAD.bold(), "error:"));
    if let Some(hint) = failure.hint_text() {
        text = format!("{text}\n{} {hint}", painted(BOLD, "hint:"));
    }
    text
}

//! A function's log as text.

use serde_json::Value;
use snapwarden_deployer::logs::Line;

use super::style::{BAD, NOTICE, painted};

/// Fields that have a place of their own in a line, or say nothing to people.
const PLACED: [&str; 6] = ["timestamp", "level", "message", "span", "outcome", "error_type"];

/// A line for people: time, level, message, and what else it says. Lambda's own lines and metrics are left out unless
/// `all` are wanted.
pub(crate) fn text(line: &Line, all: bool) -> Option<String> {
    let at = line.at.strftime("%F %H:%M:%S");
    let message = line.message.trim_end();
    let Ok(Value::Object(fields)) = serde_json::from_str(message) else {
        let is_lambdas =
            ["START ", "END ", "REPORT ", "INIT_START "].iter().any(|word| message.starts_with(word));
        return (all || !is_lambdas).then(|| format!("{at}       {message}"));
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let Some(message) = text("message") else {
        // Lambda's own, or metrics.
        return all.then(|| format!("{at}       {message}"));
    };
    let level = text("level").unwrap_or_default();
    let others = fields.iter().filter(|(key, _)| !PLACED.contains(&key.as_str()));
    let others: Vec<String> = others
        .map(|(key, value)| {
            format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    let details = if others.is_empty() { String::new() } else { format!("  {}", others.join(" ")) };
    let level = match level {
        "ERROR" => painted(BAD, format!("{level:5}")).to_string(),
        "WARN" => painted(NOTICE, format!("{level:5}")).to_string(),
        _ => format!("{level:5}"),
    };
    Some(format!("{at} {level} {message}{details}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn shown(message: &str, all: bool) -> Option<String> {
        text(&Line { at: Timestamp::UNIX_EPOCH, message: message.to_owned() }, all)
    }

    #[test]
    fn people_read_what_happened_and_to_what() {
        let line = r#"{"timestamp":"x","level":"INFO","message":"backed up","instance":"i-1","n":2,"span":{"run":"r"}}"#;
        assert_eq!(shown(line, false).unwrap(), "1970-01-01 00:00:00 INFO  backed up  instance=i-1 n=2");
        assert_eq!(shown("panicked\n", false).unwrap(), "1970-01-01 00:00:00       panicked");
        for own in [r#"{"type":"platform.start"}"#, r#"{"_aws":{}}"#, "REPORT RequestId: a"] {
            assert_eq!(shown(own, false), None, "{own}");
            assert!(shown(own, true).unwrap().ends_with(own), "{own}");
        }
    }
}

//! What a function wrote into its log.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    /// What was written, mostly JSON.
    pub message: String,
}

/// How far a log has been read: from where on the next look asks, and what of that is known already.
#[derive(Clone, Debug)]
pub struct Position {
    from: Timestamp,
    seen: BTreeSet<String>,
}

impl Position {
    /// Before everything that was written at `from` or later.
    pub fn after(from: Timestamp) -> Self {
        Self { from, seen: BTreeSet::new() }
    }
}

/// Lines can show up this much later than others that were written after them, in milliseconds.
const LAG: i64 = 30_000;

/// The lines since the last look, the oldest first; `None` where there is no such log group.
pub async fn read(
    aws: &Aws,
    log_group: &str,
    position: &mut Position,
) -> Result<Option<Vec<Line>>, AwsError> {
    let call = aws.logs.filter_log_events().log_group_name(log_group);
    let mut pages = call.start_time(position.from.as_millisecond()).into_paginator().send();
    let mut lines = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.call("logs:FilterLogEvents").or_absent()? else { return Ok(None) };
        for event in page.events.unwrap_or_default() {
            let at = event.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
            let Some((at, message)) = at.zip(event.message) else { continue };
            let id = event.event_id.unwrap_or_else(|| format!("{at} {message}"));
            if !position.seen.contains(&id) {
                lines.push(Line { at, message });
            }
            seen.insert(id);
        }
    }
    lines.sort_by_key(|line| line.at);
    if let Some(last) = lines.last() {
        let overlap = Timestamp::from_millisecond(last.at.as_millisecond() - LAG).unwrap_or(position.from);
        position.from = position.from.max(overlap);
    }
    // What the next look asks for again is all that has to be known then.
    position.seen = seen;
    Ok(Some(lines))
}

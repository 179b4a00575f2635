//! An environment at one moment, as text.

use std::fmt::Write;

use snapwarden_domain::verdict::Tally;

use super::style::{BOLD, NOTICE, painted};
use super::table::table;
use crate::commands::status::{Firing, Resource, Status};

/// Everything that `status` knows.
pub(crate) fn text(status: &Status) -> String {
    let Status { environment, account, region, .. } = status;
    let title = format!("environment {environment}, account {account}, {region}");
    let mut text = format!("{}\n\n", painted(BOLD, title));
    if status.resources.is_empty() {
        text.push_str("nothing is deployed\n");
    } else {
        text.push_str(&inventory(&status.resources, &status.schedules));
    }
    let Tally { due, held, .. } = status.expiry;
    let fate =
        |count: usize, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
    let _ = writeln!(
        text,
        "\nsnapshots: {}{}{}",
        status.snapshots,
        fate(due, "go with the next cleanup"),
        fate(held, "held although due"),
    );
    for line in &status.notes {
        let _ = writeln!(text, "{line}");
    }
    for line in &status.attention {
        let _ = writeln!(text, "{} {line}", painted(NOTICE, "attention:"));
    }
    text
}

/// What exists, and when it runs next.
pub(crate) fn inventory(resources: &[Resource], firings: &[Firing]) -> String {
    let rows = resources.iter().map(|r| [r.id.kind.clone(), r.id.name.clone(), r.detail.clone()]);
    let mut text = table(["KIND", "NAME", "DETAIL"], rows);
    text.push_str("\n\n");
    for firing in firings {
        let _ = match (&firing.next, &firing.next_local) {
            (Some(next), _) if firing.timezone == "UTC" => {
                writeln!(text, "next {}: {}", firing.schedule, next.strftime("%F %H:%M UTC"))
            }
            (Some(next), Some(local)) => {
                writeln!(text, "next {}: {} ({local})", firing.schedule, next.strftime("%F %H:%M UTC"))
            }
            _ => writeln!(text, "next {}: {}", firing.schedule, painted(NOTICE, "never")),
        };
    }
    text
}

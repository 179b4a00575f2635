//! `cargo xtask destroy --snapshots purge`: stops the runs, and deletes the environment's snapshots.

use std::collections::BTreeSet;

use jiff::Timestamp;
use snapwarden_deployer::apply::Guard;
use snapwarden_deployer::environment::{CopyPlace, Identity};
use snapwarden_deployer::inventory::Snapshot;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, owned, plan};
use snapwarden_deployer::purge::{Purged, purge};
use snapwarden_deployer::quiesce::{halted, wait_for_runs};
use snapwarden_deployer::world::Observed;

use super::deploy::apply_plan;
use crate::context::Context;
use crate::elsewhere::Elsewhere;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::table::table;
use crate::session::Session;

/// Keeps new runs from starting, waits for those in flight, and deletes all of the environment's snapshots and its copies in
/// other places: also those that a run has made since somebody looked.
pub(super) async fn halt_and_purge(
    context: &Context,
    session: &Session<Identity>,
    observed: &Observed,
    copies: &BTreeSet<CopyPlace>,
    guard: &dyn Guard,
    command: &str,
) -> Result<Purged, Failure> {
    let (aws, scope) = (&session.aws, &session.scope);
    let ours = owned(&registry(), scope, observed);
    let halt = plan(&registry(), scope, &halted(&ours), &ours, &Options::default())?;
    apply_plan(context, session, None, &halt, guard, command).await?;

    let waiting = std::cell::RefCell::new(context.progress().start("waiting for runs in flight"));
    let ended = wait_for_runs(aws, scope, &ours, Timestamp::now(), guard, &|open, waited| {
        let open = open.map_or("no log to tell".to_owned(), |open| format!("{open} in flight"));
        waiting.borrow_mut().wait(&open, waited);
    })
    .await
    .map_err(|error| {
        let text = format!(
            "no snapshot was deleted, but the schedules are gone and the functions do not start any more: {error}"
        );
        Failure::new(Exit::Failed, text).hint(format!(
            "go on with `{}`, or make backups again with `{}`",
            context.command_line(command),
            context.command_line("deploy")
        ))
    })?;
    waiting.into_inner().done(&format!("{ended} ended"));

    let task = context.progress().start("deleting the snapshots");
    let purged =
        purge(aws, scope, copies, guard, &|done, all| task.update(&format!("{done} of {all}"))).await?;
    task.done(&format!("{} deleted", purged.deleted.len()));
    Ok(purged)
}

/// What is about to be deleted.
pub(super) fn listing(snapshots: &[Snapshot]) -> String {
    const SHOWN: usize = 20;
    let rows = snapshots.iter().take(SHOWN).map(|snapshot| {
        [
            snapshot.snapshot.clone(),
            snapshot.volume.clone(),
            snapshot.instance.clone().unwrap_or_default(),
            snapshot.delete_on.clone().unwrap_or_default(),
            format!("{} GiB", snapshot.size_gib),
        ]
    });
    let table = table(["SNAPSHOT", "VOLUME", "INSTANCE", "DELETE ON", "SIZE"], rows);
    match snapshots.len().saturating_sub(SHOWN) {
        0 => table,
        more => format!("{table}\nand {more} more"),
    }
}

/// `3 snapshots`.
pub(super) fn counted(snapshots: &[Snapshot]) -> String {
    match snapshots.len() {
        1 => "1 snapshot".to_owned(),
        count => format!("{count} snapshots"),
    }
}

/// `3 copies`.
pub(super) fn copies_of(copies: &[Snapshot]) -> String {
    if copies.len() == 1 { "1 copy".to_owned() } else { format!("{} copies", copies.len()) }
}

/// Says where a purge deletes beside the environment's own Region.
pub(super) fn tell_of_copies(context: &Context, elsewhere: &Elsewhere) {
    for (place, copies) in elsewhere.copies.iter().filter(|(_, copies)| !copies.is_empty()) {
        context.progress().note(&format!("among them: {} in {place}", copies_of(copies)));
    }
}

/// A purge that left something behind is no success, also where nobody knew of it: `left` is what there is at the end.
pub(super) fn all_or_failure(purged: &Purged, left: &[Snapshot]) -> CommandResult {
    if left.is_empty() {
        return Ok(());
    }
    let reason = |id: &str| {
        let known = purged.remaining.iter().find(|remaining| remaining.snapshot == id);
        known.map_or("it appeared while the others were deleted", |remaining| remaining.reason.as_str())
    };
    let lines = left.iter().map(|left| format!("  {}: {}", left.snapshot, reason(&left.snapshot)));
    let lines: Vec<_> = lines.collect();
    let message = format!("{} snapshots could not be deleted:\n{}", lines.len(), lines.join("\n"));
    Err(Failure::new(Exit::Failed, message)
        .hint("look at the reasons (an AMI to deregister, a lock to end, a snapshot that is still being made), then run \
               the command again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str) -> Snapshot {
        Snapshot {
            delete_on: None,
            snapshot: id.to_owned(),
            volume: "vol-1".to_owned(),
            instance: None,
            state: "completed".to_owned(),
            encrypted: true,
            size_gib: 1,
            started_at: None,
        }
    }

    /// A pipeline that reads success stops looking, and pays for what is left for ever.
    #[test]
    fn a_purge_that_leaves_anything_fails_and_names_it() {
        let purged = Purged {
            deleted: vec!["snap-0".to_owned()],
            remaining: vec![snapwarden_deployer::purge::Remaining {
                snapshot: "snap-1".to_owned(),
                reason: "an AMI holds it".to_owned(),
            }],
        };
        assert!(all_or_failure(&Purged::default(), &[]).is_ok());
        let failure = all_or_failure(&purged, &[snapshot("snap-1"), snapshot("snap-2")]).unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.exit(), Exit::Failed);
        assert!(text.contains("snap-1: an AMI holds it") && text.contains("snap-2: it appeared"), "{text}");
    }
}

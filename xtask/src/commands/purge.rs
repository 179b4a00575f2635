//! `cargo xtask destroy --snapshots purge`: stops the runs, and deletes the environment's snapshots.

use jiff::Timestamp;
use snapwarden_deployer::apply::Guard;
use snapwarden_deployer::environment::Identity;
use snapwarden_deployer::inventory::Snapshot;
use snapwarden_deployer::kinds::registry;
use snapwarden_deployer::plan::{Options, plan};
use snapwarden_deployer::purge::{Purged, purge};
use snapwarden_deployer::quiesce::{halted, wait_for_runs};
use snapwarden_deployer::world::Observed;

use super::deploy::apply_plan;
use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::render::table::table;
use crate::session::Session;

/// Keeps new runs from starting, waits for those in flight, and deletes the snapshots that somebody has seen.
pub(super) async fn halt_and_purge(
    context: &Context,
    session: &Session<Identity>,
    observed: Observed,
    doomed: &[Snapshot],
    guard: &dyn Guard,
) -> Result<Purged, Failure> {
    let (aws, scope) = (&session.aws, &session.scope);
    let mut ours = observed;
    let strangers = plan(&registry(), scope, &Default::default(), &ours, &Options::default())?.left_alone;
    ours.retain(|id, _| !strangers.contains(id));
    let halt = plan(&registry(), scope, &halted(&ours), &ours, &Options::default())?;
    let command = "destroy --snapshots purge";
    apply_plan(context, session, None, &halt, guard, command).await?;

    let waiting = std::cell::RefCell::new(context.progress().start("waiting for runs in flight"));
    let ended = wait_for_runs(aws, scope, &ours, Timestamp::now(), &|open, waited| {
        waiting.borrow_mut().wait(&format!("{open} in flight"), waited);
    })
    .await?;
    waiting.into_inner().done(&format!("{ended} ended"));

    let stopped = |halt: snapwarden_deployer::apply::Halt| {
        Failure::new(Exit::Failed, format!("no snapshot was deleted: {halt}"))
            .hint(context.command_line(command))
    };
    guard.check().await.map_err(stopped)?;
    let task = context.progress().start(format!("deleting {}", counted(doomed)));
    let purged =
        purge(aws, scope, doomed, &|done| task.update(&format!("{done} of {}", doomed.len()))).await?;
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

/// A purge that left something behind is no success.
pub(super) fn all_or_failure(purged: &Purged) -> CommandResult {
    if purged.remaining.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> =
        purged.remaining.iter().map(|left| format!("  {}: {}", left.snapshot, left.reason)).collect();
    let message = format!("{} snapshots could not be deleted:\n{}", lines.len(), lines.join("\n"));
    Err(Failure::new(Exit::Failed, message)
        .hint("free them (deregister the AMI, end the lock), then run the command again"))
}

//! What a changed policy would delete, as text.

use super::style::{BAD, painted};
use super::table::table;
use crate::commands::cleanup_diff::CleanupDiff;

/// The snapshots by volume, and a line that counts them.
pub(crate) fn text(diff: &CleanupDiff) -> String {
    let Some(deployed) = diff.deployed else {
        return "the file's cleanup policy deletes what the deployed one does".to_owned();
    };
    let at = diff.at.strftime("%F %H:%M UTC");
    let count = diff.new_deletions.len();
    let line = format!("the cleanup of {at} would delete {} more ({deployed})", snapshots(count));
    if count == 0 {
        return line;
    }
    let rows = diff.new_deletions.iter().map(|new| {
        let snapshot = &new.snapshot;
        [
            snapshot.volume.clone().unwrap_or_default(),
            snapshot.instance.clone().unwrap_or_default(),
            match (&new.region, &new.account) {
                (None, _) => snapshot.snapshot.clone(),
                (Some(region), None) => format!("{} in {region}", snapshot.snapshot),
                (Some(region), Some(account)) => {
                    format!("{} in {region} of account {account}", snapshot.snapshot)
                }
            },
            snapshot.delete_on.clone().unwrap_or_default(),
            new.kept_so_far.clone(),
        ]
    });
    let table = table(["VOLUME", "INSTANCE", "SNAPSHOT", "DELETE ON", "KEPT SO FAR"], rows);
    format!("{table}\n\n{}", painted(BAD, line))
}

/// `1 snapshot`, `2 snapshots`.
pub(crate) fn snapshots(count: usize) -> String {
    format!("{count} snapshot{}", if count == 1 { "" } else { "s" })
}

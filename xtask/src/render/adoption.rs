//! Snapshots to adopt, as text.

use snapwarden_deployer::adoption::{Candidate, Prospect};

use super::cleanup_diff::snapshots;
use super::table::table;
use crate::commands::adopt_snapshots::Adoption;

/// The candidates, and what was done.
pub(crate) fn text(adoption: &Adoption) -> String {
    let Adoption { environment, candidates, adopted } = adoption;
    if !adopted.is_empty() {
        return format!("environment {environment} has adopted {}", snapshots(adopted.len()));
    }
    let adoptable = candidates.iter().filter(|one| one.prospect != Prospect::Unadoptable).count();
    if candidates.is_empty() {
        return "no snapshot carries DeleteOn without belonging to an environment: nothing to adopt"
            .to_owned();
    }
    format!(
        "{}\n\n{} could be adopted by environment {environment}: name them, or all with --all",
        preview(candidates),
        snapshots(adoptable)
    )
}

/// What would become of each.
pub(crate) fn preview(candidates: &[Candidate]) -> String {
    let rows = candidates.iter().map(|one| {
        let snapshot = &one.snapshot;
        [
            snapshot.volume.clone().unwrap_or_default(),
            snapshot.snapshot.clone(),
            snapshot.started_at.map(|at| at.strftime("%F").to_string()).unwrap_or_default(),
            snapshot.delete_on.clone().unwrap_or_default(),
            snapshot.size_gib.to_string(),
            one.meaning.clone(),
        ]
    });
    table(["VOLUME", "SNAPSHOT", "STARTED", "DELETE ON", "GIB", "ONCE ADOPTED"], rows)
}

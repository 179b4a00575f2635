//! Snapshots to adopt, as text.

use snapwarden_deployer::adoption::Prospect;

use super::cleanup_diff::snapshots;
use super::table::table;
use crate::commands::adopt_snapshots::{Adoption, NotAdopted};

/// The candidates, and what was done.
pub(crate) fn text(adoption: &Adoption) -> String {
    let Adoption { environment, candidates, adopted, failed, .. } = adoption;
    if !adopted.is_empty() || !failed.is_empty() {
        let done = format!("environment {environment} has adopted {}", snapshots(adopted.len()));
        let not =
            failed.iter().map(|NotAdopted { snapshot, reason }| format!("{snapshot} NOT adopted: {reason}"));
        return std::iter::once(done).chain(not).collect::<Vec<_>>().join("\n");
    }
    let adoptable = candidates.iter().filter(|one| one.prospect != Prospect::Unadoptable).count();
    if candidates.is_empty() {
        return "no snapshot carries DeleteOn without belonging to an environment: nothing to adopt"
            .to_owned();
    }
    format!(
        "{}\n\n{} could be adopted by environment {environment}: name them, or all with --all",
        preview(adoption),
        snapshots(adoptable)
    )
}

/// What would become of each, and whether anything would.
pub(crate) fn preview(adoption: &Adoption) -> String {
    let rows = adoption.candidates.iter().map(|one| {
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
    let table = table(["VOLUME", "SNAPSHOT", "STARTED", "DELETE ON", "GIB", "ONCE ADOPTED"], rows);
    match &adoption.mass_deletion {
        None => table,
        Some(stop) => format!(
            "{table}\n\nadopted all at once, they make the next cleanup stop: {stop}. Adopt fewer at a time, or let one \
             run through with `cargo xtask invoke cleanup --allow-mass-deletion`"
        ),
    }
}

//! What the cleanup function did in the places that hold copies: other Regions, and other accounts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    CleanupReport, DueSnapshot, FailedSnapshot, Failure, HeldSnapshot, SealedSnapshot, UnsealedSnapshot,
};
use crate::place::place;
use crate::settings::CopyTarget;
use crate::verdict::MassDeletion;

/// What a pass did to have copies in one place; docs/copies.md explains it to users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceCopies {
    /// The Region.
    pub region: String,
    /// The account, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Whether the environment file says that no more copies are begun.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Whether it could not be looked at, for the reason in `problems`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// The copies begun, or that a dry run would have begun: at most 20.
    pub begun: Vec<SealedSnapshot>,
    /// Those that are being made.
    pub copying: Vec<SealedSnapshot>,
    /// How many snapshots that should have a copy have one, completed and checked.
    pub copied: usize,
    /// The moment that the newest of those hold.
    pub newest: Option<Timestamp>,
    /// How many hours ago the oldest backup was due that should have a copy, completed and checked, and has none; 0 where
    /// all have one. Nothing where the place is paused, or could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_hours: Option<u64>,
    /// How many wait for a place among the copies.
    pub waiting: usize,
    /// How many are in clear text, and wait until they are sealed.
    pub unsealed: usize,
    /// How many snapshots are shared with the other account after it, so that it can copy them; nothing where there is no
    /// other account, or it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<usize>,
    /// Copies of no more use that were deleted, or would have been: second ones, and those that failed long ago.
    pub superfluous: Vec<String>,
    /// Copies that are not what they should be, up to [`super::SealingReport::MAX_LISTED`].
    pub held: Vec<UnsealedSnapshot>,
    /// How many more there are than listed.
    pub held_unlisted: usize,
    /// What failed, was refused, or may or may not have been begun, and deletions that failed; up to
    /// [`super::SealingReport::MAX_LISTED`].
    pub failed: Vec<UnsealedSnapshot>,
    /// How many more failed than listed.
    pub failed_unlisted: usize,
    /// Why the place could not be looked at, deletions there could not be verified, or sharing could not be taken back.
    pub problems: Vec<Failure>,
}

const UNSEEN: &str = "could NOT be looked at";

impl PlaceCopies {
    /// A pass that has not looked yet.
    pub fn at(target: &CopyTarget) -> Self {
        Self {
            region: target.region.clone(),
            account: target.account().map(str::to_owned),
            paused: target.paused,
            ..Self::default()
        }
    }

    /// Where the copies are.
    pub fn place(&self) -> String {
        place(&self.region, self.account.as_deref())
    }

    pub(super) fn failed_count(&self) -> usize {
        self.failed.len() + self.failed_unlisted + self.problems.len()
    }

    pub(super) fn summary(&self, dry_run: bool) -> String {
        let copies = |count: usize| if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") };
        let more = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let shared = self.shared.and_then(|shared| more(shared, "shared"));
        if self.unseen {
            let parts: Vec<_> = [UNSEEN.to_owned()].into_iter().chain(shared).collect();
            return format!("{}: {}", self.place(), parts.join(", "));
        }
        let begun = copies(self.begun.len());
        let mut parts =
            vec![if dry_run { format!("{begun} would be begun") } else { format!("{begun} begun") }];
        parts.extend(more(self.copying.len(), "being made"));
        parts.extend(more(
            self.waiting,
            if self.paused { "not copied: paused" } else { "waiting for a place" },
        ));
        parts.extend(more(self.unsealed, "waiting to be sealed"));
        parts.extend(more(self.held.len() + self.held_unlisted, "not as they should be"));
        parts.extend(more(self.failed_count(), "FAILED"));
        parts.push(format!("{} there", self.copied));
        let behind = self.behind_hours.filter(|hours| *hours > 0);
        parts.extend(behind.map(|hours| format!("{hours} h behind")));
        parts.extend(shared);
        format!("{}: {}", self.place(), parts.join(", "))
    }

    /// What makes a pass that a person waits for a failure: of a dry run, only that nobody could look.
    pub(super) fn failures(&self, dry_run: bool) -> impl Iterator<Item = String> {
        let failed = self.failed.iter().filter(move |_| !dry_run);
        let failed = failed.map(|one| format!("{}, {}: {}", self.place(), one.snapshot, one.failure));
        self.problems.iter().map(|problem| format!("{}: {problem}", self.place())).chain(failed)
    }
}

/// What a cleanup did about the copies in one place: the same as in its own, see [`CleanupReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaceCleanup {
    /// The Region.
    pub region: String,
    /// The account, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Whether it could not be looked at, for the reason in `problems`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// How many copies of the environment's are there.
    pub managed: usize,
    /// Those deleted, and seen to be gone unless `problems` says that nobody could look.
    pub deleted: Vec<DueSnapshot>,
    /// Those that a dry run would have deleted.
    pub would_delete: Vec<DueSnapshot>,
    /// Why the run deleted nothing there, or would not have in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass_deletion: Option<MassDeletion>,
    /// Those that a fence holds although they are due, up to [`Self::MAX_HELD`].
    pub held: Vec<HeldSnapshot>,
    /// How many more are held than listed.
    pub held_unlisted: usize,
    /// How many are due, but left to the next run.
    pub postponed: usize,
    /// How many are due, but were not reached before the function's timeout came near.
    pub out_of_time: usize,
    /// How many are not due.
    pub not_due: usize,
    /// Those whose deletion failed.
    pub failed: Vec<FailedSnapshot>,
    /// What else went wrong there.
    pub problems: Vec<Failure>,
}

impl PlaceCleanup {
    /// The most held copies listed of a Region: a report lists several, and has to fit Lambda's 6 MB.
    pub const MAX_HELD: usize = 500;

    /// A place that could not be looked at.
    pub fn unseen(target: &CopyTarget, failure: Failure) -> Self {
        let account = target.account().map(str::to_owned);
        let problems = vec![failure];
        Self { region: target.region.clone(), account, unseen: true, problems, ..Self::default() }
    }

    /// Where the copies are.
    pub fn place(&self) -> String {
        place(&self.region, self.account.as_deref())
    }

    /// The part of a report that is about a place.
    pub fn of(target: &CopyTarget, report: CleanupReport) -> Self {
        let mut report = report.grouped();
        let more = report.held.len().saturating_sub(Self::MAX_HELD);
        report.held.truncate(Self::MAX_HELD);
        Self {
            region: target.region.clone(),
            account: target.account().map(str::to_owned),
            unseen: false,
            managed: report.managed,
            deleted: report.deleted,
            would_delete: report.would_delete,
            mass_deletion: report.mass_deletion,
            held: report.held,
            held_unlisted: report.held_unlisted + more,
            postponed: report.postponed,
            out_of_time: report.out_of_time,
            not_due: report.not_due,
            failed: report.failed,
            problems: report.problems,
        }
    }

    pub(super) fn summary(&self, dry_run: bool) -> String {
        if self.unseen {
            return format!("{}: {UNSEEN}", self.place());
        }
        let copies = |count: usize| if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") };
        let mut parts = vec![match (&self.mass_deletion, dry_run) {
            (Some(stop), _) => format!("STOPPED before the first deletion: {stop}"),
            (None, true) => format!("{} would be deleted", copies(self.would_delete.len())),
            (None, false) => format!("{} deleted", copies(self.deleted.len())),
        }];
        let more = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        parts.extend(more(self.held.len() + self.held_unlisted, "held"));
        parts.extend(more(self.postponed, "left to the next run"));
        parts.extend(more(self.out_of_time, "not reached IN TIME"));
        parts.push(format!("{} not due", self.not_due));
        parts.extend(more(self.failed.len() + self.problems.len(), "FAILED"));
        format!("{}: {}", self.place(), parts.join(", "))
    }

    /// What failed there with no copy in particular.
    pub(super) fn failures(&self, dry_run: bool) -> impl Iterator<Item = String> {
        let place = self.place();
        let stopped = self.mass_deletion.filter(|_| !dry_run).map(|stop| {
            let failure = Failure::new(
                format!("{place}: nothing was deleted there: {stop}"),
                "look at `cargo xtask invoke cleanup --dry-run`; if it is right, let one run through with \
                 `cargo xtask invoke cleanup --allow-mass-deletion`",
            );
            failure.to_string()
        });
        self.problems.iter().map(move |problem| format!("{place}: {problem}")).chain(stopped)
    }
}

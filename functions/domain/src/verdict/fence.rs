//! The conditions that stop a deletion.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::inventory::Snapshot;

/// A condition that stops a deletion. Reads as the reason after "kept: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fence {
    /// The ownership tag does not name this environment.
    NotOurs,
    /// AWS Backup manages the snapshot.
    AwsBackup,
    /// `DeleteOn` is missing, or not a date of the form `YYYY-MM-DD`.
    UnreadableDeleteOn,
    /// `DeleteOn` lies in the future: the ordinary case.
    NotDue,
    /// The snapshot is neither completed nor failed.
    Unsettled,
    /// The snapshot lies in the archive tier, where somebody moved it on purpose.
    Archived,
    /// A snapshot lock protects it.
    Locked,
    /// An AMI or fast snapshot restore uses the snapshot.
    InUse,
    /// The snapshot has lost the tags that say which set it belongs to, so whether it is a last copy is unknown.
    Unplaced,
    /// The snapshot belongs to one of the newest complete sets of its instance.
    Floor,
    /// The snapshot is one of the newest copies of its volume, and no set of its instance stands for it.
    VolumeFloor,
    /// The snapshot belongs to a set of which a volume is missing, or whose volumes are not of one moment, and that is
    /// newer than the last whole one of its instance. It may be all that is left of what came since; and half of it
    /// deleted, the other half could look whole.
    Patchwork,
    /// The snapshot failed, and the rest of its set is still there: without this trace it would look complete.
    FailedPart,
    /// The run has deleted as many snapshots as it may, its repetitions in the same process together.
    RunLimit,
    /// The run came too close to the function's timeout.
    OutOfTime,
}

impl Fence {
    /// The reason why this snapshot stays, for people.
    pub fn reason(self, snapshot: &Snapshot) -> String {
        match (self, &snapshot.image) {
            (Self::InUse, Some(image)) => format!("{image} is made of it"),
            _ => self.to_string(),
        }
    }

    /// Whether only a person can take the fence away, so that somebody has to be told.
    pub fn is_for_good(self) -> bool {
        matches!(self, Self::NotOurs | Self::AwsBackup | Self::UnreadableDeleteOn | Self::Unplaced)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "its snapwarden:environment tag does not name this environment",
            Self::AwsBackup => "AWS Backup manages it, and only AWS Backup may delete it",
            Self::UnreadableDeleteOn => "its DeleteOn tag is missing or not a date of the form YYYY-MM-DD",
            Self::NotDue => "its DeleteOn has not come",
            Self::Unsettled => "it is neither completed nor failed",
            Self::Archived => "it lies in the archive tier",
            Self::Locked => "a snapshot lock protects it",
            Self::InUse => "an AMI or fast snapshot restore uses it",
            Self::Unplaced => {
                "it has no snapwarden:instance or snapwarden:run tag, so it may be its instance's last copy"
            }
            Self::Floor => "it is one of its instance's newest complete copies (cleanup.floor)",
            Self::VolumeFloor => "it is one of its volume's newest copies (cleanup.floor)",
            Self::Patchwork => {
                "its set lacks a volume or was made in several attempts, and there is no newer whole copy"
            }
            Self::FailedPart => "it marks its set as incomplete, and goes once the rest of the set is gone",
            Self::RunLimit => "this run has reached max_deletes; the next run goes on",
            Self::OutOfTime => "this run was out of time; the next run goes on",
        })
    }
}

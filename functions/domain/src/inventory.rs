//! What EC2 shows of an account in one Region, as far as cleanup decides by it.
//!
//! The function and the deployer read it with the same code and judge it with [`crate::verdict`], so that a preview
//! and the run cannot disagree.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::retention::DeleteOn;

/// Everything that verdicts and the audit go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The snapshots that carry the environment's ownership tag.
    pub snapshots: Vec<Snapshot>,
    /// Every instance, selected for backup or not.
    pub instances: Vec<Instance>,
    /// The ids of all volumes that exist, attached or not.
    pub volumes: BTreeSet<String>,
    /// The ids of those that are not encrypted, so that their snapshots are not either.
    pub clear_volumes: BTreeSet<String>,
}

/// A snapshot as EC2 shows it; the tags as they are written, readable or not.
///
/// The default is one of which nothing is known. No such snapshot is ever deleted.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and they occur together")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, `snap-…`.
    pub id: String,
    /// The volume it was made of; of an encrypted copy, the one that its source was made of.
    pub volume: Option<String>,
    /// The size of that volume in GiB. What the snapshot itself takes is less: it holds only what changed.
    pub size_gib: u32,
    /// How far it is.
    pub state: State,
    /// What EC2 says about a snapshot that failed.
    pub state_message: Option<String>,
    /// Whether it lies in the archive tier.
    pub archived: bool,
    /// Whether a snapshot lock protects it.
    pub locked: bool,
    /// Whether AWS Backup manages it, which is then the only one who may delete it.
    pub aws_backup: bool,
    /// An AMI of this account that is made of it, disabled or not.
    pub image: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Where it is a copy that Snapwarden made: of what.
    pub copy: Option<CopyOf>,
    /// When it was started, or its source, where it is a copy; the same for all snapshots of a set.
    pub started_at: Option<Timestamp>,
    /// The tag [`crate::tags::ENVIRONMENT`].
    pub environment: Option<String>,
    /// The tag [`crate::tags::INSTANCE`].
    pub instance: Option<String>,
    /// The tag [`crate::tags::RUN`].
    pub run: Option<String>,
    /// The tag [`crate::tags::VOLUMES`], which older snapshots lack: of how many volumes its set was made.
    pub set_volumes: Option<usize>,
    /// Whether it carries the tag [`crate::tags::ADOPTED`]: another program made it.
    pub adopted: bool,
    /// The tag [`crate::tags::DELETE_ON`].
    pub delete_on: Option<String>,
}

/// What a copy is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOf {
    /// The id of the snapshot in clear text: the tag [`crate::tags::SOURCE_SNAPSHOT`].
    pub source: String,
    /// When the copy itself was begun.
    pub begun_at: Option<Timestamp>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It can be restored from.
    Completed,
    /// It failed and holds nothing.
    Error,
    /// It is being made.
    Pending,
    /// Anything else, such as coming back from the Recycle Bin.
    #[default]
    Unsettled,
}

/// An instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its id, `i-…`.
    pub id: String,
    /// Its `Name` tag.
    pub name: Option<String>,
    /// Whether a backup would select it: it carries the tag, and its state is one that can be backed up.
    pub selected: bool,
    /// Its EBS volumes.
    pub volumes: Vec<AttachedVolume>,
}

/// An EBS volume of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachedVolume {
    /// Its id, `vol-…`.
    pub id: String,
    /// When it was attached.
    pub attached_at: Option<Timestamp>,
    /// Whether the instance's tags leave it out of the backup.
    pub excluded: bool,
}

/// The volume id that EC2 shows for copies, and for other snapshots that were made of no volume (source: EC2 API,
/// `CopySnapshot`: "arbitrary volume IDs that should not be used for any purpose").
const NO_VOLUME: &str = "vol-ffffffff";

impl Snapshot {
    /// The volume it was made of, where EC2 tells a real one.
    pub fn source_volume(&self) -> Option<&str> {
        self.volume.as_deref().filter(|volume| *volume != NO_VOLUME)
    }

    /// The id of the snapshot that the volume's contents were first held by: a copy and its source have the same.
    pub fn origin(&self) -> &str {
        self.copy.as_ref().map_or(&self.id, |copy| &copy.source)
    }

    /// The day from which on it may go, where the tag is readable.
    pub fn due(&self) -> Option<DeleteOn> {
        self.delete_on.as_ref()?.parse().ok()
    }

    /// Whether it carries this environment's ownership tag.
    pub fn belongs_to(&self, environment: &str) -> bool {
        self.environment.as_deref() == Some(environment)
    }

    /// Whether a volume can be made of it at once. An archived snapshot takes days to come back.
    pub fn is_restorable(&self) -> bool {
        self.state == State::Completed && !self.archived
    }

    /// Its age in whole days, counted from when it was started.
    pub fn age_days(&self, now: Timestamp) -> Option<i64> {
        Some((now.duration_since(self.started_at?).as_hours() / 24).max(0))
    }
}

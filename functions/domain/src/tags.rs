//! Keys of the tags that Snapwarden reads and writes.

/// Says which environment a resource belongs to. Whatever lacks it is not ours: never changed, never deleted.
pub const ENVIRONMENT: &str = "snapwarden:environment";

/// The run that made a snapshot, see [`crate::run::RunId`].
pub const RUN: &str = "snapwarden:run";

/// Which invocation of the run made a snapshot, where it was not the first: see [`crate::event::Event::hop`].
pub const HOP: &str = "snapwarden:hop";

/// The instance whose volume a snapshot holds.
pub const INSTANCE: &str = "snapwarden:instance";

/// When a snapshot that another program had made was adopted. It belongs to no set, so the floor goes by its volume.
pub const ADOPTED: &str = "snapwarden:adopted";

/// On an instance: `true` leaves its root volume out of the backup.
pub const EXCLUDE_BOOT: &str = "BackupExcludeBoot";

/// On an instance: the ids of volumes to leave out of the backup, separated by spaces or commas.
pub const EXCLUDE_VOLUMES: &str = "BackupExcludeVolumes";

/// The day (`YYYY-MM-DD`, in the environment's time zone) from which on cleanup may delete a snapshot.
pub const DELETE_ON: &str = "DeleteOn";

/// AWS's own convention for the name that consoles show.
pub const NAME: &str = "Name";

//! Keys of the tags that Snapwarden reads and writes.

/// What the keys of all tags begin with that only Snapwarden sets.
pub const PREFIX: &str = "snapwarden:";

/// Says which environment a resource belongs to. Whatever lacks it is not ours: never changed, never deleted.
pub const ENVIRONMENT: &str = "snapwarden:environment";

/// The run that made a snapshot, see [`crate::run::RunId`].
pub const RUN: &str = "snapwarden:run";

/// Which invocation of the run made a snapshot, where it was not the first: see [`crate::event::Event::hop`].
pub const HOP: &str = "snapwarden:hop";

/// The instance whose volume a snapshot holds.
pub const INSTANCE: &str = "snapwarden:instance";

/// On an encrypted copy: the snapshot in clear text that it is a copy of. EC2 forgets that, and what the next two say.
pub const SOURCE_SNAPSHOT: &str = "snapwarden:source-snapshot";

/// On an encrypted copy: the volume that its source was made of.
pub const SOURCE_VOLUME: &str = "snapwarden:source-volume";

/// On an encrypted copy: when its source was started, as `2026-11-22T02:00:09Z`; the moment that it holds.
pub const STARTED_AT: &str = "snapwarden:started-at";

/// On a copy in another Region or account, in place of [`ENVIRONMENT`]: whose it is, see [`crate::owner::Owner`].
pub const COPIED_BY: &str = "snapwarden:copied-by";

/// Of how many volumes the set was made that a snapshot belongs to, so that a set shows when one of it is missing.
pub const VOLUMES: &str = "snapwarden:volumes";

/// When a snapshot that another program had made was adopted. It belongs to no set, so the floor goes by its volume.
pub const ADOPTED: &str = "snapwarden:adopted";

/// The day (`YYYY-MM-DD`, in the environment's time zone) from which on cleanup may delete a snapshot.
pub const DELETE_ON: &str = "DeleteOn";

/// AWS's own convention for the name that consoles show.
pub const NAME: &str = "Name";

/// On an instance, by its owner: how many days to keep its daily snapshots, instead of the environment's `daily_days`.
pub const RETENTION_DAYS: &str = "BackupRetentionDays";

/// On an instance, by its owner: `true` leaves its boot volume out.
pub const EXCLUDE_BOOT: &str = "BackupExcludeBoot";

/// On an instance, by its owner: ids of volumes to leave out, separated by commas or spaces.
pub const EXCLUDE_VOLUMES: &str = "BackupExcludeVolumes";

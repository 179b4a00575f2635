//! Plans and applies everything that a Snapwarden environment holds, straight through the AWS APIs.
//!
//! The library never prints and keeps no state: what exists is found by deterministic names and an ownership tag.
//! [`plan`] is pure: no client, no clock, no randomness; [`apply`] does what a plan says. ARCHITECTURE.md has the map.

pub mod adoption;
pub mod alarms;
pub mod apply;
pub mod aws;
mod backup_interval;
pub mod bundle;
pub mod cloudformation;
pub mod dashboard;
pub mod dead_letters;
pub mod draining;
pub mod environment;
pub mod error;
pub mod event;
pub mod heartbeat;
pub mod inventory;
pub mod invoke;
pub mod kinds;
pub mod lock;
pub mod logs;
pub mod metrics;
pub mod monitoring;
pub mod plan;
pub mod policy;
pub mod policy_gate;
pub mod property;
pub mod purge;
pub mod quiesce;
pub mod quota;
pub mod release;
pub mod restore;
pub mod rights;
pub mod role_prefix;
pub mod runs;
pub mod saved_plan;
pub mod scope;
pub mod wait;
pub mod world;

//! What the functions are told, in the very types that they read.

use snapwarden_domain::notification::Notifications;
use snapwarden_domain::settings::{BackupSettings, CleanupPolicy, CleanupSettings};

use crate::backup_interval;
use crate::draining::Draining;
use crate::environment::{CopyTarget, Environment, Requirement};
use crate::kinds::{Blueprint, asynchronous_invocation};
use crate::scope::{Function, Scope};

/// The function's settings in the very types that it reads them with.
pub(super) fn settings_json(blueprint: &Blueprint<'_>, function: Function) -> String {
    let file = blueprint.environment;
    let settings = match function {
        Function::Backup => serde_json::json!(BackupSettings {
            environment: file.environment.clone(),
            alias_arn: blueprint.scope.alias_arn(function),
            timezone: file.timezone.clone(),
            select: file.backup.select.clone(),
            retention: file.backup.retention,
            allow_no_instances: file.backup.allow_no_instances,
            requires_encryption: file.encryption.require != Requirement::Off,
        }),
        Function::Cleanup => {
            serde_json::json!(cleanup_settings(file, blueprint.scope, blueprint.draining))
        }
    };
    settings.to_string()
}

/// Whom the function tells that a run failed for good.
pub(super) fn notifications_json(scope: &Scope, function: Function) -> String {
    let notifications = Notifications {
        topic_arn: scope.topic_arn(),
        environment: scope.environment.clone(),
        function: function.as_str().to_owned(),
        attempts: asynchronous_invocation::ATTEMPTS,
    };
    serde_json::json!(notifications).to_string()
}

/// What the cleanup function goes by.
pub fn cleanup_settings(file: &Environment, scope: &Scope, draining: Option<Draining>) -> CleanupSettings {
    let cleanup = &file.cleanup;
    CleanupSettings {
        environment: file.environment.clone(),
        alias_arn: scope.alias_arn(Function::Cleanup),
        timezone: file.timezone.clone(),
        policy: CleanupPolicy {
            floor: if draining.is_some_and(|draining| draining.without_floor) {
                0
            } else {
                cleanup.floor.get()
            },
            orphan_floor_days: cleanup.orphan_floor_days.get(),
            max_deletes: cleanup.max_deletes.get(),
            // Nothing new is made while an environment drains, so in the end a night takes all that is left.
            mass_deletion_percent: if draining.is_some() { 100 } else { cleanup.mass_deletion_percent.get() },
        },
        select: file.backup.select.clone(),
        backup_interval_hours: backup_interval::hours(file),
        encryption: file.encryption.settings(&file.environment),
        copy_to: file.copy_to.iter().map(CopyTarget::settings).collect(),
    }
}

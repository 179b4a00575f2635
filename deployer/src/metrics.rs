//! The metrics that alarms and the dashboard look at: what the functions write, and what AWS measures of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snapwarden_domain::metrics::{DIMENSION, NAMESPACE};

use crate::scope::{Function, Scope};

/// Names of what the functions write into their logs in CloudWatch's embedded metric format.
pub use snapwarden_domain::metrics as names;

/// One metric of CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metric {
    /// Whose it is, such as `AWS/Lambda`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from others of its name.
    pub dimensions: BTreeMap<String, String>,
}

impl Metric {
    /// What the environment's functions write.
    pub fn own(scope: &Scope, name: &str) -> Self {
        Self::of(NAMESPACE, name, DIMENSION, scope.environment.as_str())
    }

    /// What Lambda measures of a function, over all of its versions (source: Lambda developer guide, "Types of metrics
    /// for Lambda functions").
    pub fn lambda(scope: &Scope, function: Function, name: &str) -> Self {
        Self::of("AWS/Lambda", name, "FunctionName", &scope.function(function))
    }

    /// What SQS measures of the dead-letter queue (source: SQS developer guide, "Available CloudWatch metrics").
    pub fn queue(scope: &Scope, name: &str) -> Self {
        Self::of("AWS/SQS", name, "QueueName", &scope.dead_letter_queue())
    }

    /// What EventBridge Scheduler measures of the schedules (source: EventBridge Scheduler user guide, "Monitoring
    /// Amazon EventBridge Scheduler with CloudWatch").
    pub fn scheduler(scope: &Scope, name: &str) -> Self {
        Self::of("AWS/Scheduler", name, "ScheduleGroup", &scope.schedule_group())
    }

    fn of(namespace: &str, name: &str, dimension: &str, value: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dimensions: BTreeMap::from([(dimension.to_owned(), value.to_owned())]),
        }
    }
}

/// The metric of the runs of a function that ended: its heartbeat.
pub fn runs(function: Function) -> &'static str {
    match function {
        Function::Backup => names::BACKUP_RUNS,
        Function::Cleanup => names::CLEANUP_RUNS,
    }
}

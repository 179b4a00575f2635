//! What a command needs from IAM to run: each kind states its own rights, and what is no kind states them here.
//!
//! From these come the policy that [`crate::policy::deployer`] writes and the check before a deploy. That they are
//! enough, and none too many, is proven with the recorded calls of all commands in `tests/least_privilege/`.

pub mod simulation;

use std::collections::BTreeSet;

use crate::kinds::{KINDS, key};
use crate::scope::{Function, Scope};
use crate::{dead_letters, inventory, invoke, lock, purge, quiesce, release};

/// One action on some resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Such as `logs:CreateLogGroup`.
    pub action: &'static str,
    /// What it may be done to.
    pub resources: Resources,
    /// When it may be done.
    pub condition: Condition,
}

/// What a right is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To find what there is: all that a plan needs.
    Observe,
    /// To make a resource.
    Create,
    /// To change one, whatever differs.
    Update,
    /// To delete one.
    Delete,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Create, Self::Update, Self::Delete];
}

/// The resources that rights are about, all of them an environment's own where IAM can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resources {
    /// Every resource, for actions that IAM knows no resources for.
    Everything,
    /// Every snapshot; it takes a condition to tell ours.
    Snapshots,
    /// The log groups as the tagging actions name them.
    LogGroups,
    /// The log groups as all other actions name them.
    LogGroupContents,
    /// The dead-letter queue.
    DeadLetterQueue,
    /// The schedule group.
    ScheduleGroup,
    /// The schedules in it.
    Schedules,
    /// The roles of the functions and of EventBridge Scheduler.
    Roles,
    /// The roles of the functions.
    FunctionRoles,
    /// The role of EventBridge Scheduler.
    SchedulerRole,
    /// The functions.
    Functions,
    /// Their aliases and versions.
    FunctionVersions,
    /// The lock.
    Lock,
    /// The records of the releases.
    Releases,
    /// Both of the above, where one statement for them keeps a policy short enough for IAM.
    Parameters,
    /// The topic.
    Topic,
    /// The environment's alarms.
    Alarms,
    /// Every alarm, for a listing.
    AllAlarms,
    /// The dashboard.
    Dashboard,
    /// The stack, where CloudFormation is the engine.
    Stack,
    /// Every key, for a listing and for a key to be made; only where a deploy makes one.
    AnyKeyForOwn,
    /// The key that a deploy makes, where it makes one; it takes a condition to tell it.
    OwnKey,
    /// Its alias.
    OwnKeyAlias,
    /// The key that encrypts the functions' settings, where one does; where a deploy makes it, it takes a condition to
    /// tell it.
    SettingsKey,
}

/// What limits a right beyond its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The call goes to the environment's Region.
    InRegion,
    /// The resource carries the environment's tag.
    Owned,
    /// The call gives it the environment's tag.
    Requested,
    /// Lambda uses the key, in the name of whoever calls it.
    ThroughLambda,
    /// The role is handed to this service.
    PassedTo(&'static str),
    /// The role has, or gets, the permissions boundary of the environment file, where there is one.
    Bounded,
    /// The same, of a right that is only needed where there is one.
    OnlyBounded,
    /// The environment file names no permissions boundary: one that somebody set may be taken away.
    OnlyUnbounded,
}

impl Right {
    /// A right that nothing limits but its resources.
    pub const fn on(resources: Resources, action: &'static str) -> Self {
        Self { action, resources, condition: Condition::Always }
    }

    /// The same, under a condition.
    #[must_use]
    pub const fn when(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }
}

impl Resources {
    /// Their ARNs; none where the environment has no such thing.
    pub fn arns(self, scope: &Scope) -> Vec<String> {
        let functions = |suffix: &str| {
            Function::ALL.map(|function| format!("{}{suffix}", scope.function_arn(function))).into()
        };
        let log_groups = |suffix: &str| {
            let arn = |function| format!("{}{suffix}", scope.log_group_arn(&scope.log_group(function)));
            Function::ALL.map(arn).into()
        };
        let own_key = |arns| if scope.encryption.made().is_some() { arns } else { Vec::new() };
        match self {
            Self::Everything => vec!["*".to_owned()],
            Self::Snapshots => vec![format!("arn:{}:ec2:{}::snapshot/*", scope.partition(), scope.region)],
            Self::LogGroups => log_groups(""),
            Self::LogGroupContents => log_groups(":*"),
            Self::DeadLetterQueue => vec![scope.dead_letter_queue_arn()],
            Self::ScheduleGroup => vec![scope.schedule_group_arn()],
            Self::Schedules => vec![scope.schedule_arn("*")],
            Self::Roles => crate::policy::purposes().map(|purpose| scope.role_arn(purpose)).collect(),
            Self::FunctionRoles => Function::ALL.map(|function| scope.role_arn(function.as_str())).into(),
            Self::SchedulerRole => vec![scope.role_arn("scheduler")],
            Self::Functions => functions(""),
            Self::FunctionVersions => functions(":*"),
            Self::Topic => vec![scope.topic_arn()],
            Self::Alarms => vec![scope.alarm_arn(&scope.alarm("*"))],
            Self::AllAlarms => vec![scope.alarm_arn("*")],
            Self::Dashboard => vec![scope.dashboard_arn()],
            Self::Stack => vec![scope.arn("cloudformation", &format!("stack/{}/*", scope.stack()))],
            Self::Lock => vec![scope.arn("ssm", &format!("parameter{}", scope.lock_parameter()))],
            Self::Releases => vec![scope.arn("ssm", &format!("parameter{}", scope.releases_parameter()))],
            Self::AnyKeyForOwn => own_key(vec!["*".to_owned()]),
            Self::OwnKey => own_key(vec![scope.arn("kms", "key/*")]),
            Self::OwnKeyAlias => own_key(vec![scope.arn("kms", &scope.key_alias())]),
            Self::SettingsKey => match scope.at_rest_key() {
                Some(alias) if alias == scope.key_alias() => vec![scope.arn("kms", "key/*")],
                key => key.into_iter().collect(),
            },
            Self::Parameters => [Self::Lock.arns(scope), Self::Releases.arns(scope)].concat(),
        }
    }

    /// Why the ARNs hold a wildcard, where they do.
    pub fn why_wildcard(self) -> Option<&'static str> {
        Some(match self {
            Self::Everything | Self::AnyKeyForOwn => "IAM knows no resources for these actions",
            Self::Snapshots => "EC2 makes the ids; the tag in the condition tells ours",
            Self::LogGroupContents => {
                "the form in which CloudWatch Logs authorises all but tagging: the group with its streams"
            }
            Self::Schedules => "whatever is in our group is ours, also schedules that are no longer wanted",
            Self::Alarms => {
                "whatever begins with the environment's name, also alarms that are no longer wanted"
            }
            Self::AllAlarms => "CloudWatch authorises a listing for all alarms",
            Self::FunctionVersions => "Lambda numbers the versions",
            Self::Stack => "CloudFormation makes the last part of a stack's ARN",
            Self::OwnKey | Self::SettingsKey => "KMS makes the ids; the condition tells ours",
            _ => return None,
        })
    }
}

/// The rights that commands need whatever their kinds are.
const OTHERS: [(Purpose, &[Right]); 5] = [
    (Purpose::Observe, inventory::RIGHTS),
    (Purpose::Observe, release::READING),
    (Purpose::Update, lock::RIGHTS),
    (Purpose::Update, release::RECORDING),
    (Purpose::Delete, release::FORGETTING),
];

/// What a destroy takes beyond its own rights where it purges the snapshots.
pub const PURGING: &[&[Right]] = &[quiesce::RIGHTS, purge::RIGHTS, key::ENDING];

/// What it takes to run the functions by hand, and to see to runs that were lost. Adopting snapshots is not among it:
/// whoever may tag any snapshot as an environment's can have it deleted.
pub const OPERATING: &[&[Right]] = &[invoke::RIGHTS, dead_letters::RIGHTS];

/// All rights that are needed for these purposes, of all kinds.
pub fn rights(purposes: &[Purpose]) -> BTreeSet<Right> {
    of_kinds(purposes).chain(of_others(purposes)).collect()
}

/// Those that kinds need.
pub(crate) fn of_kinds(purposes: &[Purpose]) -> impl Iterator<Item = Right> {
    purposes.iter().flat_map(|purpose| KINDS.iter().flat_map(|kind| kind.rights(*purpose))).copied()
}

/// Those that commands need whatever the engine is.
pub(crate) fn of_others(purposes: &[Purpose]) -> impl Iterator<Item = Right> {
    let others = OTHERS.iter().filter(|(purpose, _)| purposes.contains(purpose));
    others.flat_map(|(_, rights)| rights.iter()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::tests::scope;

    /// Whoever may deploy `prod` must not be able to silence the alarms of `prod-eu`, in the same account.
    #[test]
    fn environments_whose_names_begin_alike_share_no_resource() {
        let (prod, neighbour) = (scope("prod"), scope("prod-eu"));
        let shared = [Resources::Everything, Resources::Snapshots, Resources::AllAlarms];
        for Right { resources, .. } in rights(&Purpose::ALL) {
            for ours in resources.arns(&prod).iter().filter(|_| !shared.contains(&resources)) {
                let begins = ours.strip_suffix('*').unwrap_or(ours);
                assert!(!begins.contains('*'), "{ours}: the wildcard is not its end");
                for theirs in resources.arns(&neighbour) {
                    let reached = if begins == ours { theirs == *ours } else { theirs.starts_with(begins) };
                    assert!(!reached, "{ours} reaches {theirs}");
                }
            }
        }
    }
}

//! The kinds of resources that an environment is made of, one file each.
//!
//! To add a kind: write its file, and add one line to [`KINDS`].

mod alarm;
mod alias;
mod asynchronous_invocation;
mod dashboard;
mod dead_letter_queue;
pub(crate) mod function;
mod invoke_permissions;
pub mod key;
mod log_group;
mod registry;
mod revision;
mod role;
mod schedule;
mod schedule_group;
mod subscription;
mod tags;
mod topic;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aws::Aws;
use crate::bundle::Bundle;
use crate::cloudformation::Resource;
use crate::draining::Draining;
use crate::environment::Environment;
use crate::error::AwsError;
use crate::event::{Event, Listener};
use crate::policy::RolePolicies;
use crate::release::canary::Canary;
use crate::rights::{Purpose, Right};
use crate::scope::{Function, Scope};
use crate::world::{Found, ResourceId};

pub use alarm::Alarm;
pub use alias::{Alias, alias_name};
pub use asynchronous_invocation::AsynchronousInvocation;
pub use dashboard::Dashboard;
pub use dead_letter_queue::DeadLetterQueue;
pub use function::{LambdaFunction, cleanup_settings};
pub use key::Key;
pub use log_group::LogGroup;
pub use registry::{AnyKind, Registry, read, registry};
pub use role::Role;
pub use schedule::Schedule;
pub use schedule_group::ScheduleGroup;
pub use subscription::{Subscription, endpoints, name as subscription_name};
pub use topic::Topic;

pub(crate) use registry::erased;

/// All kinds, in the order in which plans list them: a parent before its children.
pub static KINDS: &[&dyn AnyKind] = &[
    erased::<Key>(),
    erased::<LogGroup>(),
    erased::<DeadLetterQueue>(),
    erased::<ScheduleGroup>(),
    erased::<Role>(),
    erased::<LambdaFunction>(),
    erased::<Alias>(),
    erased::<AsynchronousInvocation>(),
    erased::<Schedule>(),
    erased::<Topic>(),
    erased::<Subscription>(),
    erased::<Alarm>(),
    erased::<Dashboard>(),
];

/// One kind of resource: what an environment wants of it, and how AWS is asked to have it so.
#[async_trait(?Send)]
pub trait Kind: Send + Sync + 'static {
    /// The kind's name for people, such as `log group`.
    const NAME: &'static str;
    /// What can be wanted of it, and is read back from AWS in the same form.
    type Properties: Serialize + DeserializeOwned + Send + Sync;
    /// What AWS needs to name it again but nobody wants: a URL, a version, a time.
    type Handle: Serialize + DeserializeOwned + Send + Sync;

    /// The properties that AWS cannot change: where one differs, the resource is replaced.
    const FIXED: &'static [&'static str] = &[];

    /// The resources that the environment should have. Pure.
    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Self::Properties)>;

    /// The resource that owns one that cannot carry tags. Pure.
    fn parent(_name: &str, _scope: &Scope) -> Option<ResourceId> {
        None
    }

    /// What has to be there before it is made, and may only be deleted after it; at least its parent. Pure.
    fn needs(name: &str, scope: &Scope) -> Vec<ResourceId> {
        Self::parent(name, scope).into_iter().collect()
    }

    /// Whether AWS lets nobody delete it and lets it go by itself. Pure.
    fn goes_by_itself(_found: &FoundOf<Self>) -> bool {
        false
    }

    /// Where a property's wanted value comes from, or what another one would do: what somebody who reads a plan
    /// wants to know of a change. Pure.
    fn why(_name: &str, _property: &str) -> Option<String> {
        None
    }

    /// The resource whose change makes the release live that this one belongs to: before it, what this one is now is
    /// still needed. Pure.
    fn released_with(_name: &str, _scope: &Scope) -> Option<ResourceId> {
        None
    }

    /// What it has to be until then, so that the release before can go on and the new one be tried; `None` where what
    /// is wanted serves both. Pure.
    fn interim(_found: &Self::Properties, _wanted: &Self::Properties) -> Option<Self::Properties> {
        None
    }

    /// Whether a change of it is rehearsed, see [`Kind::rehearse`].
    const REHEARSED: bool = false;

    /// Tries what a change would make live. No change of a kind that is rehearsed begins before all rehearsals of the
    /// plan went well; `None` where there was nothing to try.
    async fn rehearse(
        _cx: &Context,
        _name: &str,
        _found: Option<&FoundOf<Self>>,
        _wanted: &Self::Properties,
    ) -> Result<Option<Canary>, StepError> {
        Ok(None)
    }

    /// What is worth knowing of one at a glance. Pure.
    fn describe(found: &FoundOf<Self>) -> String;

    /// How a CloudFormation template asks for the same: first the resource of that name, which others need, and then
    /// what belongs to it. Names, accounts and Regions are those of the blueprint. Pure.
    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Self::Properties) -> Vec<Resource>;

    /// The rights that it takes to do this with resources of this kind. A call without its right, and a right without
    /// its call, fail the proofs in `tests/least_privilege/`. Pure.
    fn rights(_purpose: Purpose) -> &'static [Right] {
        &[]
    }

    /// Finds the environment's resources, wanted or not, and whatever has one of their names.
    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError>;

    /// Makes a resource, owned from its first moment.
    async fn create(cx: &Context, name: &str, wanted: &Self::Properties) -> Result<(), StepError>;

    /// Changes a resource in place, with the fewest calls.
    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Self::Properties,
    ) -> Result<(), StepError>;

    /// Deletes a resource; one that is gone already is fine.
    async fn delete(cx: &Context, name: &str, found: &FoundOf<Self>) -> Result<(), StepError>;
}

/// What a kind found.
pub type FoundOf<K> = Found<<K as Kind>::Properties, <K as Kind>::Handle>;

/// What there is under each of these names, which are all looked at together: a call takes as long as the way to AWS.
async fn under_names<P, H>(
    names: impl IntoIterator<Item = String>,
    look: impl AsyncFn(&str) -> Result<Option<Found<P, H>>, AwsError>,
) -> Result<Vec<(String, Found<P, H>)>, AwsError> {
    let look = &look;
    let found = names.into_iter().map(async |name| {
        let found = look(&name).await?;
        Ok(found.map(|found| (name, found)))
    });
    Ok(futures::future::try_join_all(found).await?.into_iter().flatten().collect())
}

/// Everything that kinds declare from.
#[derive(Clone, Debug)]
pub struct Blueprint<'a> {
    /// The environment file.
    pub environment: &'a Environment,
    /// Names and ARNs.
    pub scope: &'a Scope,
    /// The policies of each role, by purpose.
    pub policies: &'a BTreeMap<&'static str, RolePolicies>,
    /// The code of each function, as Lambda's `CodeSha256`.
    pub code: &'a BTreeMap<Function, String>,
    /// Whether backups have ended and only cleanup goes on.
    pub draining: Option<Draining>,
}

/// What tells a resource from others of its environment and kind: `backup` of `snapwarden-prod-backup`.
pub(crate) fn last_word(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

impl Blueprint<'_> {
    /// The tags of every resource.
    pub fn tags(&self) -> BTreeMap<String, String> {
        self.scope.tags(self.environment)
    }
}

/// What effects need.
#[derive(Clone)]
pub struct Context {
    /// The clients.
    pub aws: Aws,
    /// Names and ARNs.
    pub scope: Scope,
    /// The code to deploy; absent where nothing is deployed.
    pub bundle: Option<std::sync::Arc<Bundle>>,
    listener: Listener,
    resource: Option<ResourceId>,
    caller: Option<String>,
    /// Whether a new version has to do a dry run before it goes live.
    pub(crate) with_canary: bool,
    /// The endpoints of subscriptions by name: they are in no plan, since they may be secrets.
    endpoints: BTreeMap<String, String>,
}

impl Context {
    /// A context whose events go to `listener`.
    pub fn new(aws: Aws, scope: Scope, bundle: Option<std::sync::Arc<Bundle>>, listener: Listener) -> Self {
        Self {
            aws,
            scope,
            bundle,
            listener,
            resource: None,
            caller: None,
            with_canary: true,
            endpoints: BTreeMap::new(),
        }
    }

    /// The same context, with what [`endpoints`] says.
    #[must_use]
    pub fn with_endpoints(self, endpoints: BTreeMap<String, String>) -> Self {
        Self { endpoints, ..self }
    }

    /// The same context, for somebody whose name goes with what is released.
    #[must_use]
    pub fn on_behalf_of(self, caller: &str) -> Self {
        Self { caller: Some(caller.to_owned()), ..self }
    }

    /// The same context, in which versions go live untried.
    #[must_use]
    pub fn without_canary(self) -> Self {
        Self { with_canary: false, ..self }
    }

    /// Who releases what, for people: `commit 0a1b2c3d4e5f, by user/ann`. Lambda takes 256 characters.
    pub(crate) fn release_note(&self) -> Option<String> {
        let git = self.bundle.as_ref().and_then(|bundle| bundle.manifest.git.as_ref());
        let commit = git.map(|git| {
            let commit: String = git.commit.chars().take(12).collect();
            format!("commit {commit}{}", if git.dirty { " with changes" } else { "" })
        });
        let caller = self.caller.as_ref().map(|caller| format!("by {caller}"));
        let parts: Vec<String> = commit.into_iter().chain(caller).collect();
        (!parts.is_empty()).then(|| parts.join(", ").chars().take(256).collect())
    }

    /// The same context, for one resource.
    pub(crate) fn for_resource(&self, resource: &ResourceId) -> Self {
        Self { resource: Some(resource.clone()), ..self.clone() }
    }

    /// Sends an event about the current resource.
    pub(crate) fn tell(&self, event: impl FnOnce(ResourceId) -> Event) {
        if let Some(resource) = &self.resource {
            (self.listener)(event(resource.clone()));
        }
    }

    /// The zip with the given `CodeSha256`.
    pub(crate) fn zip(&self, code_sha256: &str) -> Result<Vec<u8>, StepError> {
        self.bundle
            .as_ref()
            .and_then(|bundle| bundle.zip(code_sha256))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StepError::NoCode { code_sha256: code_sha256.to_owned() })
    }
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// AWS refused, or did not answer.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The bundle does not hold the code that the plan deploys.
    #[error("the bundle does not hold the code {code_sha256}; build it again and plan anew")]
    NoCode {
        /// The code that the plan deploys.
        code_sha256: String,
    },
    /// AWS accepted a call but did not get ready in time.
    #[error("{what} within {seconds} s: {state}")]
    NotReady {
        /// What was expected.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// What AWS last said.
        state: String,
    },
    /// AWS accepted a call and then could not carry it out.
    #[error("{what}: {state}")]
    Failed {
        /// What was expected.
        what: &'static str,
        /// What AWS says.
        state: String,
    },
    /// A new version failed its dry run, so it does not go live.
    #[error(
        "version {version} of {function} failed its canary, and {function}:live is left as it was: {why}"
    )]
    Canary {
        /// The function's name.
        function: String,
        /// The version's number.
        version: String,
        /// What the dry run ended with.
        why: String,
    },
    /// It is not deleted, since something could not be read without it.
    #[error("{what} is left, since it is needed by {by}")]
    Needed {
        /// The resource.
        what: String,
        /// What needs it.
        by: String,
    },
    /// Somebody else changed the resource while we did.
    #[error("{what} is not what was deployed a moment ago: somebody else is changing it; plan anew")]
    Changed {
        /// The resource.
        what: String,
    },
    /// Nothing more may begin.
    #[error("{0}")]
    Halted(String),
    /// A saved plan holds properties that this version does not understand.
    #[error("the plan's properties do not fit this version: {0}")]
    Malformed(String),
}

#[cfg(test)]
mod bad_answers;
#[cfg(test)]
mod tests;

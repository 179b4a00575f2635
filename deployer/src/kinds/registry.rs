//! Kinds behind one face, so that plan and apply need to know none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Blueprint, Context, FoundOf, KINDS, Kind, StepError};
use crate::cloudformation::Resource;
use crate::error::AwsError;
use crate::plan::{Order, Plan, Verb};
use crate::release::canary::Canary;
use crate::rights::{Purpose, Right};
use crate::scope::{PROTECTED_TAG, Scope};
use crate::world::{Desired, Found, Observed, ResourceId};
use crate::{draining, role_prefix};

/// A [`Kind`] whose types are hidden behind JSON.
#[async_trait(?Send)]
pub trait AnyKind: Send + Sync {
    /// [`Kind::NAME`].
    fn name(&self) -> &'static str;
    /// [`Kind::declare`].
    fn declare(&self, blueprint: &Blueprint<'_>) -> Vec<(String, Value)>;
    /// [`Kind::render`] of everything that the kind declares, by name.
    fn render(&self, blueprint: &Blueprint<'_>) -> Vec<(String, Vec<Resource>)>;
    /// [`Kind::render`] of one resource; nothing where the properties are not those of this kind.
    fn render_one(&self, blueprint: &Blueprint<'_>, name: &str, wanted: &Value) -> Vec<Resource>;
    /// [`Kind::parent`].
    fn parent(&self, name: &str, scope: &Scope) -> Option<ResourceId>;
    /// [`Kind::needs`].
    fn needs(&self, name: &str, scope: &Scope) -> Vec<ResourceId>;
    /// [`Kind::FIXED`].
    fn fixed(&self) -> &'static [&'static str];
    /// [`Kind::goes_by_itself`].
    fn goes_by_itself(&self, found: &Found) -> bool;
    /// [`Kind::why`].
    fn why(&self, name: &str, property: &str) -> Option<String>;
    /// [`Kind::released_with`].
    fn released_with(&self, name: &str, scope: &Scope) -> Option<ResourceId>;
    /// [`Kind::interim`]; nothing where the properties are not those of this kind.
    fn interim(&self, found: &Found, wanted: &Value) -> Option<Value>;
    /// [`Kind::REHEARSED`].
    fn is_rehearsed(&self) -> bool;
    /// [`Kind::rehearse`].
    async fn rehearse(
        &self,
        cx: &Context,
        name: &str,
        found: Option<&Found>,
        wanted: &Value,
    ) -> Result<Option<Canary>, StepError>;
    /// [`Kind::describe`]; nothing where the properties are not those of this kind.
    fn describe(&self, found: &Found) -> String;
    /// [`Kind::rights`].
    fn rights(&self, purpose: Purpose) -> &'static [Right];
    /// [`Kind::observe`].
    async fn observe(&self, cx: &Context) -> Result<Vec<(String, Found)>, AwsError>;
    /// [`Kind::create`].
    async fn create(&self, cx: &Context, name: &str, wanted: &Value) -> Result<(), StepError>;
    /// [`Kind::update`].
    async fn update(&self, cx: &Context, name: &str, found: &Found, wanted: &Value) -> Result<(), StepError>;
    /// [`Kind::delete`].
    async fn delete(&self, cx: &Context, name: &str, found: &Found) -> Result<(), StepError>;
}

struct Erased<K>(PhantomData<K>);

/// A kind for the registry.
pub(crate) const fn erased<K: Kind>() -> &'static dyn AnyKind {
    &Erased::<K>(PhantomData)
}

#[async_trait(?Send)]
impl<K: Kind> AnyKind for Erased<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn declare(&self, blueprint: &Blueprint<'_>) -> Vec<(String, Value)> {
        K::declare(blueprint).into_iter().map(|(name, properties)| (name, to_value(&properties))).collect()
    }

    fn render(&self, blueprint: &Blueprint<'_>) -> Vec<(String, Vec<Resource>)> {
        let render = |(name, wanted): (String, K::Properties)| {
            let resources = K::render(blueprint, &name, &wanted);
            (name, resources)
        };
        K::declare(blueprint).into_iter().map(render).collect()
    }

    fn render_one(&self, blueprint: &Blueprint<'_>, name: &str, wanted: &Value) -> Vec<Resource> {
        from_value(wanted).map(|wanted| K::render(blueprint, name, &wanted)).unwrap_or_default()
    }

    fn parent(&self, name: &str, scope: &Scope) -> Option<ResourceId> {
        K::parent(name, scope)
    }

    fn needs(&self, name: &str, scope: &Scope) -> Vec<ResourceId> {
        K::needs(name, scope)
    }

    fn fixed(&self) -> &'static [&'static str] {
        K::FIXED
    }

    fn goes_by_itself(&self, found: &Found) -> bool {
        read::<K>(found).is_ok_and(|found| K::goes_by_itself(&found))
    }

    fn why(&self, name: &str, property: &str) -> Option<String> {
        K::why(name, property)
    }

    fn released_with(&self, name: &str, scope: &Scope) -> Option<ResourceId> {
        K::released_with(name, scope)
    }

    fn interim(&self, found: &Found, wanted: &Value) -> Option<Value> {
        let found = read::<K>(found).ok()?;
        K::interim(&found.properties, &from_value(wanted).ok()?).map(|interim| to_value(&interim))
    }

    fn is_rehearsed(&self) -> bool {
        K::REHEARSED
    }

    async fn rehearse(
        &self,
        cx: &Context,
        name: &str,
        found: Option<&Found>,
        wanted: &Value,
    ) -> Result<Option<Canary>, StepError> {
        let found = found.map(read::<K>).transpose()?;
        K::rehearse(cx, name, found.as_ref(), &from_value(wanted)?).await
    }

    fn describe(&self, found: &Found) -> String {
        read::<K>(found).map(|found| K::describe(&found)).unwrap_or_default()
    }

    fn rights(&self, purpose: Purpose) -> &'static [Right] {
        K::rights(purpose)
    }

    async fn observe(&self, cx: &Context) -> Result<Vec<(String, Found)>, AwsError> {
        let found = K::observe(cx).await?;
        Ok(found
            .into_iter()
            .map(|(name, found)| {
                let Found { properties, handle, tags, revision } = found;
                (name, Found { properties: to_value(&properties), handle: to_value(&handle), tags, revision })
            })
            .collect())
    }

    async fn create(&self, cx: &Context, name: &str, wanted: &Value) -> Result<(), StepError> {
        K::create(cx, name, &from_value(wanted)?).await
    }

    async fn update(&self, cx: &Context, name: &str, found: &Found, wanted: &Value) -> Result<(), StepError> {
        K::update(cx, name, &read::<K>(found)?, &from_value(wanted)?).await
    }

    async fn delete(&self, cx: &Context, name: &str, found: &Found) -> Result<(), StepError> {
        K::delete(cx, name, &read::<K>(found)?).await
    }
}

/// What was found, in the kind's own types.
pub fn read<K: Kind>(found: &Found) -> Result<FoundOf<K>, StepError> {
    Ok(Found {
        properties: from_value(&found.properties)?,
        handle: from_value(&found.handle)?,
        tags: found.tags.clone(),
        revision: found.revision.clone(),
    })
}

/// Properties are plain data with text keys, which JSON can always hold.
fn to_value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, StepError> {
    T::deserialize(value).map_err(|error| StepError::Malformed(error.to_string()))
}

/// A set of kinds. The engine's own tests use one of toy kinds.
#[derive(Clone, Copy)]
pub struct Registry(pub &'static [&'static dyn AnyKind]);

/// The kinds that Snapwarden manages.
pub fn registry() -> Registry {
    Registry(KINDS)
}

impl Registry {
    /// The kind of that name.
    pub fn get(self, name: &str) -> Option<&'static dyn AnyKind> {
        self.0.iter().copied().find(|kind| kind.name() == name)
    }

    /// What has to be there before the resource, see [`Kind::needs`].
    pub fn needs(self, resource: &ResourceId, scope: &Scope) -> Vec<ResourceId> {
        self.get(&resource.kind).map(|kind| kind.needs(&resource.name, scope)).unwrap_or_default()
    }

    /// Everything the environment should hold.
    pub fn declare(self, blueprint: &Blueprint<'_>) -> Desired {
        let kinds = self.0.iter().copied();
        kinds
            .flat_map(|kind| {
                kind.declare(blueprint)
                    .into_iter()
                    .map(|(name, wanted)| (ResourceId::new(kind.name(), name), wanted))
            })
            .collect()
    }

    /// Everything the environment should hold, as a CloudFormation template asks for it.
    pub fn render(self, blueprint: &Blueprint<'_>) -> BTreeMap<ResourceId, Vec<Resource>> {
        let kinds = self.0.iter().copied();
        kinds
            .flat_map(|kind| {
                let rendered = kind.render(blueprint).into_iter();
                rendered.map(|(name, resources)| (ResourceId::new(kind.name(), name), resources))
            })
            .collect()
    }

    /// Everything the environment holds. Only asks, never changes.
    pub async fn observe(self, cx: &Context) -> Result<Observed, AwsError> {
        self.observe_kinds(cx, |_| true).await
    }

    /// The same a moment after `before`, where nothing but the plan's steps has come in between: only the kinds that
    /// it changes are asked for again.
    pub async fn observe_after(
        self,
        cx: &Context,
        before: &Observed,
        plan: &Plan,
    ) -> Result<Observed, AwsError> {
        let steps = plan.steps.iter().filter(|step| step.verb != Verb::Keep);
        let changed: BTreeSet<&str> = steps.map(|step| step.resource.kind.as_str()).collect();
        let mut now = self.observe_kinds(cx, |kind| changed.contains(kind)).await?;
        let unchanged = before.iter().filter(|(resource, _)| !changed.contains(resource.kind.as_str()));
        now.extend(unchanged.map(|(resource, found)| (resource.clone(), found.clone())));
        Ok(now)
    }

    async fn observe_kinds(self, cx: &Context, which: impl Fn(&str) -> bool) -> Result<Observed, AwsError> {
        let kinds = self.0.iter().copied().filter(|kind| which(kind.name()));
        let found = futures::future::try_join_all(kinds.map(|kind| observe(kind, cx))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The same of all kinds that can be observed, with the others and why they cannot: for a look, which is of use
    /// without them. Nothing may be changed by it.
    pub async fn observe_readable(self, cx: &Context) -> (Observed, BTreeMap<&'static str, AwsError>) {
        let kinds = self.0.iter().copied();
        let found = futures::future::join_all(kinds.map(async |kind| (kind.name(), observe(kind, cx).await)));
        let (mut observed, mut unreadable) = (Observed::new(), BTreeMap::new());
        for (kind, found) in found.await {
            match found {
                Ok(found) => observed.extend(found),
                Err(error) => drop(unreadable.insert(kind, error)),
            }
        }
        (observed, unreadable)
    }
}

async fn observe(kind: &dyn AnyKind, cx: &Context) -> Result<Vec<(ResourceId, Found)>, AwsError> {
    let found = kind.observe(cx).await?;
    Ok(found.into_iter().map(|(name, found)| (ResourceId::new(kind.name(), name), found)).collect())
}

impl Order for Registry {
    fn kinds(&self) -> Vec<&'static str> {
        self.0.iter().map(|kind| kind.name()).collect()
    }

    fn parent(&self, resource: &ResourceId, scope: &Scope) -> Option<ResourceId> {
        self.get(&resource.kind)?.parent(&resource.name, scope)
    }

    fn is_fixed(&self, resource: &ResourceId, property: &str) -> bool {
        self.get(&resource.kind).is_some_and(|kind| kind.fixed().contains(&property))
    }

    fn goes_by_itself(&self, resource: &ResourceId, found: &Found) -> bool {
        self.get(&resource.kind).is_some_and(|kind| kind.goes_by_itself(found))
    }

    fn released_with(&self, resource: &ResourceId, scope: &Scope) -> Option<ResourceId> {
        self.get(&resource.kind)?.released_with(&resource.name, scope)
    }

    fn interim(&self, resource: &ResourceId, found: &Found, wanted: &Value) -> Option<Value> {
        self.get(&resource.kind)?.interim(found, wanted)
    }

    fn why(&self, resource: &ResourceId, property: &str) -> Option<String> {
        if let Some(key) = property.strip_prefix("tags.") {
            let why = match key {
                PROTECTED_TAG => {
                    "protect in the environment file: what is protected is destroyed only by name"
                }
                role_prefix::TAG => {
                    "iam.role_name_prefix in the environment file, for a destroy without the file"
                }
                draining::TAG => "backups have ended, and no deploy may start them again unasked",
                _ if key.starts_with("snapwarden:") => "how Snapwarden knows its own",
                _ => "tags in the environment file",
            };
            return Some(why.to_owned());
        }
        self.get(&resource.kind)?.why(&resource.name, property)
    }
}

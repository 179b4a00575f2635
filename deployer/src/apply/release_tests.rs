//! The order of a release over toy kinds: rights widened, everything tried, then live, then rights narrowed.

use std::cell::RefCell;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::aws::{Aws, LocalEndpoints};
use crate::cloudformation::Resource;
use crate::error::AwsError;
use crate::kinds::{Blueprint, FoundOf, Kind, erased};
use crate::plan::{Options, plan};
use crate::release::canary;
use crate::scope::Scope;
use crate::world::{Desired, Found, Observed};

thread_local! {
    /// What was done, in its order.
    static DONE: RefCell<Vec<String>> = RefCell::default();
    /// The resource whose rehearsal fails.
    static FAILS: RefCell<Option<&'static str>> = RefCell::default();
}

fn log(what: String) {
    DONE.with_borrow_mut(|done| done.push(what));
}

fn done() -> Vec<String> {
    DONE.with_borrow(Clone::clone)
}

/// Rights of what is live under the same name: a list.
struct Rights;

/// What is live.
struct Live;

#[async_trait(?Send)]
impl Kind for Rights {
    const NAME: &'static str = "rights";
    type Properties = Value;
    type Handle = ();

    fn declare(_: &Blueprint<'_>) -> Vec<(String, Value)> {
        Vec::new()
    }

    fn released_with(name: &str, _: &Scope) -> Option<ResourceId> {
        Some(ResourceId::new("live", name))
    }

    fn interim(found: &Value, wanted: &Value) -> Option<Value> {
        let both = json!({ "may": format!("{}+{}", found["may"].as_str()?, wanted["may"].as_str()?) });
        Some(if found["may"].as_str()?.contains('+') { found.clone() } else { both })
    }

    fn describe(_: &FoundOf<Self>) -> String {
        String::new()
    }

    fn render(_: &Blueprint<'_>, _: &str, _: &Value) -> Vec<Resource> {
        Vec::new()
    }

    async fn observe(_: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        Ok(Vec::new())
    }

    async fn create(_: &Context, _: &str, _: &Value) -> Result<(), StepError> {
        Ok(())
    }

    async fn update(_: &Context, name: &str, found: &FoundOf<Self>, wanted: &Value) -> Result<(), StepError> {
        log(format!("{name} may {} instead of {}", wanted["may"], found.properties["may"]));
        Ok(())
    }

    async fn delete(_: &Context, _: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        Ok(())
    }
}

#[async_trait(?Send)]
impl Kind for Live {
    const NAME: &'static str = "live";
    type Properties = Value;
    type Handle = ();
    const REHEARSED: bool = true;

    fn declare(_: &Blueprint<'_>) -> Vec<(String, Value)> {
        Vec::new()
    }

    async fn rehearse(
        _: &Context,
        name: &str,
        _: Option<&FoundOf<Self>>,
        wanted: &Value,
    ) -> Result<Option<Canary>, StepError> {
        log(format!("{name} tries {wanted}"));
        if FAILS.with_borrow(|fails| *fails == Some(name)) {
            let (function, version) = (name.to_owned(), wanted.to_string());
            return Err(StepError::Canary { function, version, why: "as arranged".to_owned() });
        }
        let outcome = canary::Outcome::Passed;
        Ok(Some(Canary { version: wanted.to_string(), outcome, summary: String::new() }))
    }

    fn describe(_: &FoundOf<Self>) -> String {
        String::new()
    }

    fn render(_: &Blueprint<'_>, _: &str, _: &Value) -> Vec<Resource> {
        Vec::new()
    }

    async fn observe(_: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        Ok(Vec::new())
    }

    async fn create(_: &Context, _: &str, _: &Value) -> Result<(), StepError> {
        Ok(())
    }

    async fn update(_: &Context, name: &str, _: &FoundOf<Self>, wanted: &Value) -> Result<(), StepError> {
        log(format!("{name} is {wanted}"));
        Ok(())
    }

    async fn delete(_: &Context, _: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        Ok(())
    }
}

static KINDS: &[&dyn AnyKind] = &[erased::<Rights>(), erased::<Live>()];

struct Free;

#[async_trait(?Send)]
impl Guard for Free {
    async fn check(&self) -> Result<(), Halt> {
        Ok(())
    }
}

/// Two functions that go from release 1, whose rights are as given, to release 2.
async fn release(may: &str) -> Report {
    let scope = Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "test".parse().unwrap(),
        iam: crate::environment::Iam::default(),
        encryption: crate::environment::Encryption::default(),
    };
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    let aws = Aws::local(&scope.region, &nowhere);
    let tags = [("snapwarden:environment".to_owned(), "test".to_owned())];
    let found = |value: Value| Found {
        properties: value,
        handle: Value::Null,
        tags: Some(tags.clone().into()),
        revision: None,
    };
    let (mut desired, mut observed) = (Desired::new(), Observed::new());
    for name in ["backup", "cleanup"] {
        let rights = ResourceId::new("rights", name);
        observed.insert(rights.clone(), found(json!({ "may": may })));
        desired.insert(rights, json!({ "may": "new" }));
        observed.insert(ResourceId::new("live", name), found(json!(1)));
        desired.insert(ResourceId::new("live", name), json!(2));
    }
    let registry = Registry(KINDS);
    let plan = plan(&registry, &scope, &desired, &observed, &Options::default()).unwrap();
    apply(registry, &Context::new(aws, scope, None, Arc::new(|_| ())), &plan, &Free).await
}

/// A night between two of these would run without its rights, or in a version that does not work.
#[tokio::test]
async fn rights_are_widened_before_and_narrowed_after_and_nothing_is_live_untried() {
    let report = release("old").await;
    assert!(report.succeeded(), "{report:?}");
    let done = done();
    let position = |what: &str| {
        done.iter().position(|done| done == what).unwrap_or_else(|| panic!("no {what}: {done:?}"))
    };
    for name in ["backup", "cleanup"] {
        let widened = position(&format!("{name} may \"old+new\" instead of \"old\""));
        let narrowed = position(&format!("{name} may \"new\" instead of \"old+new\""));
        let live = position(&format!("{name} is 2"));
        assert!(widened < position(&format!("{name} tries 2")) && live < narrowed, "{done:?}");
        for other in ["backup", "cleanup"] {
            assert!(
                position(&format!("{other} tries 2")) < live,
                "both are tried before any is live: {done:?}"
            );
        }
    }
    let canaries: Vec<_> = report.steps.iter().filter_map(|step| step.canary.as_ref()).collect();
    assert_eq!(canaries.len(), 2);
}

#[tokio::test]
async fn when_one_of_them_fails_neither_is_live_and_the_rights_stay_wide() {
    FAILS.with_borrow_mut(|fails| *fails = Some("cleanup"));
    let report = release("old").await;
    assert!(
        done().iter().all(|done| !done.contains(" is 2") && !done.contains("may \"new\"")),
        "{:?}",
        done()
    );
    let outcome = |kind: &str, name: &str| {
        let id = ResourceId::new(kind, name);
        report.steps.iter().find(|step| step.resource == id).map(|step| step.outcome.clone()).unwrap()
    };
    assert_eq!(outcome("rights", "backup"), Outcome::Prepared);
    assert!(matches!(outcome("live", "cleanup"), Outcome::Failed { .. }));
    assert_ne!(outcome("live", "backup"), Outcome::Done);
}

/// After an interruption the rights are wide already.
#[tokio::test]
async fn what_is_in_its_interim_state_is_not_changed_twice() {
    assert!(release("old+older").await.succeeded());
    let changes: Vec<String> = done().into_iter().filter(|done| done.contains(" may ")).collect();
    assert_eq!(changes.len(), 2, "{changes:?}");
}

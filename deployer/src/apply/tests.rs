//! The engine over toy kinds: no AWS, and a failure wherever one can happen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::aws::{Aws, LocalEndpoints};
use crate::cloudformation::Resource;
use crate::error::AwsError;
use crate::kinds::{Blueprint, FoundOf, Kind, erased};
use crate::plan::{Options, plan};
use crate::scope::Scope;
use crate::world::{Desired, Found, Observed};

/// What the toy cloud holds, and what it will do wrong.
#[derive(Default)]
struct Cloud {
    resources: BTreeMap<(&'static str, String), Value>,
    /// Counts down with every call that changes something; the call at 0 goes wrong.
    trouble_in: Option<(usize, Trouble)>,
    changes: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// The call is refused and changes nothing.
    Refused,
    /// The call is carried out, and then its answer is lost.
    AnswerLost,
    /// The call is carried out twice, as when the SDK repeats one whose answer was lost.
    Repeated,
}

thread_local! {
    static CLOUD: RefCell<Cloud> = RefCell::default();
}

fn error(class: ErrorClass) -> StepError {
    AwsError { call: "toy:Change", class, code: "Trouble".to_owned(), message: "as arranged".to_owned() }
        .into()
}

/// Changes the cloud, unless it is time for trouble.
fn change(creates: bool, effect: impl FnOnce(&mut Cloud)) -> Result<(), StepError> {
    CLOUD.with_borrow_mut(|cloud| {
        let trouble = match &mut cloud.trouble_in {
            Some((0, trouble)) => Some(*trouble),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if trouble.is_some() {
            cloud.trouble_in = None;
        }
        if trouble == Some(Trouble::Refused) {
            return Err(error(ErrorClass::Other));
        }
        cloud.changes += 1;
        effect(cloud);
        match trouble {
            Some(Trouble::Repeated) if creates => Err(error(ErrorClass::AlreadyExists)),
            Some(Trouble::AnswerLost) => Err(error(ErrorClass::NoAnswer)),
            _ => Ok(()),
        }
    })
}

/// Declares a toy kind; one with a parent carries no tags.
macro_rules! toy {
    ($kind:ident, $name:literal, $parent:expr) => {
        struct $kind;

        #[async_trait(?Send)]
        impl Kind for $kind {
            const NAME: &'static str = $name;
            type Properties = Value;
            type Handle = ();

            fn declare(_: &Blueprint<'_>) -> Vec<(String, Value)> {
                Vec::new()
            }

            fn parent(name: &str, _: &Scope) -> Option<ResourceId> {
                let parent: Option<&str> = $parent;
                parent.map(|kind| ResourceId::new(kind, name))
            }

            fn describe(_: &FoundOf<Self>) -> String {
                String::new()
            }

            fn render(_: &Blueprint<'_>, _: &str, _: &Value) -> Vec<Resource> {
                Vec::new()
            }

            async fn observe(_: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
                CLOUD.with_borrow(|cloud| {
                    let ours = cloud.resources.iter().filter(|((kind, _), _)| *kind == $name);
                    Ok(ours
                        .map(|((_, name), value)| {
                            (name.clone(), found(value, Self::parent(name, &scope()).as_ref()))
                        })
                        .collect())
                })
            }

            async fn create(_: &Context, name: &str, wanted: &Value) -> Result<(), StepError> {
                change(true, |cloud| drop(cloud.resources.insert(($name, name.to_owned()), wanted.clone())))
            }

            async fn update(
                _: &Context,
                name: &str,
                _: &FoundOf<Self>,
                wanted: &Value,
            ) -> Result<(), StepError> {
                change(false, |cloud| drop(cloud.resources.insert(($name, name.to_owned()), wanted.clone())))
            }

            async fn delete(_: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
                change(false, |cloud| drop(cloud.resources.remove(&($name, name.to_owned()))))
            }
        }
    };
}

toy!(Tree, "tree", None);
toy!(Leaf, "leaf", Some("tree"));

static TOYS: &[&dyn AnyKind] = &[erased::<Tree>(), erased::<Leaf>()];

fn found(value: &Value, parent: Option<&ResourceId>) -> Found<Value, ()> {
    let tags = parent.is_none().then(|| serde_json::from_value(value["tags"].clone()).unwrap_or_default());
    Found { properties: value.clone(), handle: (), tags, revision: None }
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".to_owned().try_into().unwrap(),
        region: "eu-central-1".to_owned().try_into().unwrap(),
        environment: "test".parse().unwrap(),
        iam: crate::environment::Iam::default(),
        encryption: crate::environment::Encryption::default(),
    }
}

fn context() -> Context {
    let nowhere = LocalEndpoints { general: "http://127.0.0.1:9".into(), ec2: "http://127.0.0.1:9".into() };
    Context::new(Aws::local(&scope().region, &nowhere), scope(), None, Arc::new(|_| ()))
}

/// Three trees with a leaf each.
fn forest(colour: &str) -> Desired {
    let tree = json!({ "colour": colour, "tags": { "snapwarden:environment": "test" } });
    let leaf = json!({ "colour": colour });
    let of =
        |kind, value: &Value| ["ash", "elm", "oak"].map(|name| (ResourceId::new(kind, name), value.clone()));
    of("tree", &tree).into_iter().chain(of("leaf", &leaf)).collect()
}

async fn observe() -> Observed {
    Registry(TOYS).observe(&context()).await.unwrap()
}

/// Nobody else is there.
struct Free;

#[async_trait(?Send)]
impl Guard for Free {
    async fn check(&self) -> Result<(), Halt> {
        Ok(())
    }
}

async fn converge(desired: &Desired) -> Report {
    let plan = plan(&Registry(TOYS), &scope(), desired, &observe().await, &Options::default()).unwrap();
    apply(Registry(TOYS), &context(), &plan, &Free).await
}

fn arrange(trouble_in: Option<(usize, Trouble)>) {
    CLOUD.with_borrow_mut(|cloud| cloud.trouble_in = trouble_in);
}

fn held() -> usize {
    CLOUD.with_borrow(|cloud| cloud.resources.len())
}

fn changes() -> usize {
    CLOUD.with_borrow(|cloud| cloud.changes)
}

/// A deploy that cannot be repeated after a failure leaves somebody to clean up by hand at night.
#[tokio::test]
async fn whatever_fails_and_however_running_again_converges() {
    let nothing = Desired::new();
    for trouble in [Trouble::Refused, Trouble::AnswerLost, Trouble::Repeated] {
        for at in 0..6 {
            for (goal, size) in [(forest("green"), 6), (forest("red"), 6), (nothing.clone(), 0)] {
                arrange(Some((at, trouble)));
                let report = converge(&goal).await;
                let failed =
                    report.steps.iter().filter(|step| matches!(step.outcome, Outcome::Failed { .. })).count();
                let expected = usize::from(trouble != Trouble::Repeated);
                assert_eq!(failed, expected, "the failure is reported, and just once: {report:?}");

                arrange(None);
                assert!(converge(&goal).await.succeeded());
                assert_eq!(held(), size);
                let before = changes();
                assert!(converge(&goal).await.steps.is_empty(), "planning again makes no changes");
                assert_eq!(changes(), before);
            }
        }
    }
}

/// A leaf that is begun although its tree failed would fail too and hide the reason.
#[tokio::test]
async fn after_a_failure_nothing_of_a_later_tier_begins() {
    arrange(Some((0, Trouble::Refused)));
    let report = converge(&forest("green")).await;
    for step in &report.steps {
        let attempted = step.outcome != Outcome::NotAttempted;
        assert_eq!(attempted, step.resource.kind == "tree", "{report:?}");
    }
    let hintless = Outcome::Failed { error: "toy:Change: Trouble: as arranged".to_owned(), hint: None };
    assert_eq!(report.steps[0].outcome, hintless);
    assert_eq!(held(), 2, "the other trees, which ran beside it, were waited for");
}

/// What somebody else made must survive every one of our commands.
#[tokio::test]
async fn a_stranger_is_neither_taken_nor_deleted_nor_are_its_leaves() {
    let stranger = json!({ "colour": "blue", "tags": { "snapwarden:environment": "other" } });
    CLOUD.with_borrow_mut(|cloud| {
        cloud.resources.insert(("tree", "oak".to_owned()), stranger.clone());
        cloud.resources.insert(("leaf", "oak".to_owned()), json!({ "colour": "blue" }));
    });
    let refused = plan(&Registry(TOYS), &scope(), &forest("green"), &observe().await, &Options::default());
    let taken = ["leaf", "tree"].map(|kind| (ResourceId::new(kind, "oak"), "other".to_owned()));
    assert_eq!(refused.unwrap_err().foreign, taken);
    let adopting = Options { adopt: true, ..Options::default() };
    assert!(plan(&Registry(TOYS), &scope(), &forest("green"), &observe().await, &adopting).is_err());

    assert!(converge(&Desired::new()).await.steps.is_empty());
    assert_eq!(held(), 2);
}

/// Whoever comes from hand-made resources of the same names must be able to keep them.
#[tokio::test]
async fn what_belongs_to_nobody_is_adopted_on_request_only() {
    let unclaimed = json!({ "colour": "blue", "tags": {} });
    CLOUD.with_borrow_mut(|cloud| drop(cloud.resources.insert(("tree", "oak".to_owned()), unclaimed)));
    let refused = plan(&Registry(TOYS), &scope(), &forest("green"), &observe().await, &Options::default());
    assert_eq!(refused.unwrap_err().unclaimed, [ResourceId::new("tree", "oak")]);

    let destroy =
        plan(&Registry(TOYS), &scope(), &Desired::new(), &observe().await, &Options::default()).unwrap();
    assert_eq!((destroy.is_empty(), destroy.left_alone), (true, vec![ResourceId::new("tree", "oak")]));

    let adopting = Options { adopt: true, ..Options::default() };
    let plan = plan(&Registry(TOYS), &scope(), &forest("green"), &observe().await, &adopting).unwrap();
    assert!(apply(Registry(TOYS), &context(), &plan, &Free).await.succeeded());
    assert!(converge(&forest("green")).await.steps.is_empty());
}

/// The functions' way from role to schedule is the longest; with a dozen alarms before it, a deploy takes longer.
#[test]
fn what_most_hangs_on_begins_first() {
    // 0 alone; 1 before 2 before 4; 3 before 4.
    assert_eq!(hanging(&[vec![], vec![], vec![1], vec![], vec![2, 3]]), [0, 2, 1, 1, 0]);
    assert_eq!(hanging(&[]), [0; 0]);
}

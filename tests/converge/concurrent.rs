//! Two commands at once: they change the environment one after the other.

use std::thread;
use std::time::Duration;

use snapwarden_tests::proxy::{Call, Calls, Effect, Proxy, Rule};
use snapwarden_tests::{Local, block_on, bundle};

use super::inventory::inventory;
use super::{assert_no_changes, deployed};

const SLOW: &str = "lambda:UpdateFunctionConfiguration";

/// Two people deploy the same change at once, and the first one's calls are slow. `meanwhile` happens when the second
/// has found the lock taken. Answers the exit code of each, and what each has changed.
fn two_deploys(local: &Local, meanwhile: impl FnOnce(&Proxy)) -> [(i32, Vec<Call>); 2] {
    local.edit("memory_mb: 256", "memory_mb: 512");
    let (first, second) = (Proxy::of(local), Proxy::of(local));
    let bundle = bundle();
    let deploy = ["deploy", "--bundle", &bundle];
    thread::scope(|threads| {
        let delay = Rule::first(100, Calls::Action(SLOW), Effect::Delay(Duration::from_secs(3)));
        let one = threads.spawn(|| first.run(local, &deploy, vec![delay]));
        first.wait_for(SLOW);
        let other = threads.spawn(|| second.run(local, &deploy, Vec::new()));
        second.wait_for("ssm:GetParameter");
        meanwhile(&first);
        let codes = [one.join().unwrap().code, other.join().unwrap().code];
        [(codes[0], changes(&first)), (codes[1], changes(&second))]
    })
}

/// What changed something, but for the lock itself, the release's record and its canary, a dry run.
fn changes(proxy: &Proxy) -> Vec<Call> {
    let counted = |action: &str| !action.starts_with("ssm:") && action != "lambda:InvokeFunction";
    proxy.mutations().into_iter().filter(|call| counted(&call.action)).collect()
}

/// Two pipelines that deploy into one another leave a mixture that nobody has approved.
#[test]
fn of_two_deploys_the_second_waits_and_then_has_nothing_to_do() {
    let local = deployed();
    let [(first, made), (second, none)] = two_deploys(&local, |_| ());
    assert_eq!((first, second), (0, 0));
    assert_eq!(made.len(), 6, "{made:?}");
    assert!(none.is_empty(), "{none:?}");
    assert_no_changes(&local, "after two deploys");
    let left = inventory(&local.aws());
    assert!(
        !left.iter().any(|name| name.starts_with("parameter") && name.ends_with("/lock")),
        "the lock is still there: {left:?}"
    );
}

/// Whoever waits for a deploy that has died must not wait for ever, nor be asked to break a lock at three at night.
#[test]
fn a_deploy_that_waits_for_a_dead_one_takes_over() {
    let local = deployed();
    let [(first, _), (second, finished)] = two_deploys(&local, Proxy::kill);
    assert_eq!((first, second), (-1, 0));
    assert!(!finished.is_empty());
    assert_no_changes(&local, "after a deploy that died");
}

/// What lies in the lock's place and is no lock may be somebody's own: it is taken on word only.
#[test]
fn a_parameter_of_somebody_elses_is_named_and_taken_only_on_word() {
    let local = deployed();
    let ssm = local.aws().ssm;
    let put = ssm.put_parameter().name("/snapwarden/local/lock").value("mine");
    block_on(put.r#type("String".into()).send()).unwrap();
    local.edit("memory_mb: 256", "memory_mb: 512");
    let refused = local.run(&["deploy", "--bundle", &bundle()]);
    assert!(refused.code == 4 && refused.stderr.contains("no lock"), "{refused:?}");
    assert!(refused.stderr.contains("--break-lock"), "{refused:?}");
    local.ok(&["deploy", "--break-lock", "--bundle", &bundle()]);
    assert_no_changes(&local, "after a lock was broken");
}

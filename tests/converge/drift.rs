//! Whatever is changed behind our back shows in the plan, in words, and the next deploy repairs it.

mod iam;
mod lambda;
mod notifications;
mod queue_and_logs;
mod scheduler;

use snapwarden_deployer::aws::Aws;
use snapwarden_tests::bundle;

use super::{assert_no_changes, deployed};

/// One thing that somebody does by hand, and the lines by which the plan tells of it.
struct Drift {
    what: &'static str,
    change: Box<dyn Fn(&Aws)>,
    lines: &'static [&'static str],
}

fn drift(what: &'static str, change: impl Fn(&Aws) + 'static, lines: &'static [&'static str]) -> Drift {
    Drift { what, change: Box::new(change), lines }
}

/// The value of a variable that somebody sets. Nobody knows whether such a value is a secret, so it is shown nowhere.
const SECRET: &str = "hunter2-of-somebody";

/// Somebody who "just quickly" changes something in the console must neither be overlooked nor stop the backups.
#[test]
fn every_change_by_hand_shows_in_words_is_repaired_and_gone() {
    let local = deployed();
    let aws = local.aws();
    let table = [
        lambda::drifts(),
        scheduler::drifts(),
        iam::drifts(),
        queue_and_logs::drifts(),
        notifications::drifts(),
    ];
    let table: Vec<Drift> = table.into_iter().flatten().collect();
    assert!(table.len() >= 20);
    let mut unseen = Vec::new();
    for Drift { what, change, lines } in &table {
        change(&aws);
        let file = local.path("plan.json").display().to_string();
        let plan = local.run(&["plan", "--bundle", &bundle(), "--exit-code", "--out", &file]);
        let json = local.run(&["plan", "--bundle", &bundle(), "--verbose", "--json"]);
        for text in [&plan.stdout, &plan.stderr, &json.stdout, &std::fs::read_to_string(&file).unwrap()] {
            assert!(!text.contains(SECRET), "{what}: the plan tells a secret");
        }
        for line in lines.iter().filter(|line| !plan.stdout.contains(*line)) {
            unseen.push(format!("{what}: no `{line}` in {plan:?}"));
        }
        assert!(plan.code == 3 || !unseen.is_empty(), "{what}: {plan:?}");
        let repaired = local.run(&["deploy", "--bundle", &bundle()]);
        assert_eq!(repaired.code, 0, "{what}: {repaired:?}");
        assert_no_changes(&local, what);
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n\n"));
    println!("{} kinds of drift found and repaired", table.len());
}

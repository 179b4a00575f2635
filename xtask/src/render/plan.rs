//! A plan as text.

use std::fmt::Write;

use snapwarden_deployer::plan::{Plan, Step, Verb};
use snapwarden_deployer::property::Change;

use super::style::{BAD, GOOD, NOTICE, painted};

/// Every step that does something, each with its changes, and a line that counts them.
pub(crate) fn text(plan: &Plan, verbose: bool) -> String {
    let mut text = String::new();
    for step in plan.pending() {
        text.push_str(&step_text(step, verbose));
    }
    if !plan.is_empty() {
        text.push('\n');
    }
    text + &summary(plan)
}

/// The plan in one line.
pub(crate) fn summary(plan: &Plan) -> String {
    let kept = plan.count(Verb::Keep);
    if plan.is_empty() {
        // CloudFormation lists only what changes.
        let all = if kept == 0 {
            "everything is as it".to_owned()
        } else {
            format!("{kept} resources are as they")
        };
        return format!("no changes: {all} should be");
    }
    let replaced = match plan.count(Verb::Replace) {
        0 => String::new(),
        count => format!("{count} to replace, "),
    };
    format!(
        "{} to create, {} to change, {replaced}{} to delete, {kept} to keep",
        plan.count(Verb::Create),
        plan.count(Verb::Update),
        plan.count(Verb::Delete),
    )
}

fn step_text(step: &Step, verbose: bool) -> String {
    let style = match step.verb {
        Verb::Create => GOOD,
        Verb::Update | Verb::Keep => NOTICE,
        Verb::Delete | Verb::Replace => BAD,
    };
    let mut text = format!("{} {}\n", painted(style, step.verb.symbol()), step.resource);
    // All properties of a new resource are new: a list of them says little unless somebody asks.
    if matches!(step.verb, Verb::Update | Verb::Replace) || verbose {
        for change in &step.changes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    {}", change_text(change));
        }
    }
    if step.interim.is_some() {
        text.push_str(
            "    first with the rights of both releases; the old ones go when the new one is live\n",
        );
    }
    text
}

fn change_text(change: &Change) -> String {
    let Change { property, from, to, why } = change;
    let text = match (from, to) {
        (Some(from), Some(to)) => format!("{property}: {from} → {to}"),
        (None, Some(to)) => format!("{property}: {to} (not set now)"),
        (Some(from), None) => format!("{property}: {from} (goes away)"),
        (None, None) => property.clone(),
    };
    why.as_ref().map_or(text.clone(), |why| format!("{text}   # {why}"))
}

//! `cargo xtask releases`: what was live in an environment, who brought it there, and what proved it.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use snapwarden_deployer::release::history::History;
use snapwarden_deployer::release::{Content, Release};

use super::health::short;
use super::release::history;
use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::render::table::table;
use crate::session::Session;

/// Flags of `releases`.
#[derive(Args, Debug)]
pub(crate) struct ReleasesArgs {}

/// A release as this command shows it: with digests in the place of whole policies.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    record: Value,
    /// Whether it is what is live now.
    live: bool,
    /// The same in a line.
    #[serde(skip)]
    pub(crate) line: String,
}

impl Shown {
    /// A release, by whether its content is what is live.
    pub(crate) fn of(release: &Release, live: bool) -> Self {
        let mut record = json!(release);
        let digest = |document: String| hex::encode(Sha256::digest(document));
        let policies = &release.content.policies;
        let policies: BTreeMap<_, _> =
            policies.iter().map(|(role, policy)| (role, digest(policy.to_json()))).collect();
        record["policies"] = json!(policies);
        let (number, how, by) = (release.number, &release.how, &release.by);
        let (at, commit, proof) = (short(release.at), commit(release), proof(release));
        let line = format!("release {number}: {how} {at} by {by}, commit {commit}, canary {proof}");
        Self { record, live, line }
    }
}

/// Lists the releases, the newest first; changes nothing.
pub(crate) fn cmd_releases(context: &Context, _: &ReleasesArgs) -> CommandResult {
    let (scope, history, live) = block_on(async {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Attention, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        let observed = session.observe().await?;
        let live = Content::of(&observed, &session.scope);
        Ok((session.scope.clone(), history(&session).await?, live))
    })?;
    let newest_like = newest_like(&history, live.as_ref());
    let is_live = |release: &Release| Some(release.number) == newest_like;
    let shown: Vec<Shown> =
        history.releases.iter().rev().map(|release| Shown::of(release, is_live(release))).collect();
    let value = json!({
        "environment": scope.environment,
        "releases": shown,
        "unrecorded": live.is_some() && newest_like.is_none(),
        "unreadable": history.unreadable,
    });
    output::result(context, &value, text(&history, newest_like, live.is_some()))
}

/// The number of the newest release that is what is live.
fn newest_like(history: &History, live: Option<&Content>) -> Option<i64> {
    let newest = history.releases.iter().rev().find(|release| live == Some(&release.content));
    newest.map(|release| release.number)
}

fn text(history: &History, live: Option<i64>, is_deployed: bool) -> String {
    let rows = history.releases.iter().rev().map(|release| {
        let mark = if Some(release.number) == live { "*" } else { "" };
        let versions = release.content.functions.values().map(|served| served.version.clone());
        [
            format!("{}{mark}", release.number),
            short(release.at),
            release.by.clone(),
            versions.collect::<Vec<_>>().join(", "),
            commit(release),
            proof(release),
            release.how.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let mut text = if rows.is_empty() {
        "no releases are recorded".to_owned()
    } else {
        table(["RELEASE", "LIVE SINCE", "BY", "VERSIONS", "COMMIT", "CANARY", "HOW"], rows)
    };
    if is_deployed && live.is_none() {
        text.push_str(
            "\n\nwhat is live is none of these: a command was interrupted, or somebody changed it by hand",
        );
    }
    if !history.unreadable.is_empty() {
        let numbers: Vec<_> = history.unreadable.iter().map(ToString::to_string).collect();
        text = format!("{text}\n\nrecords that this version cannot read: {}", numbers.join(", "));
    }
    text
}

/// The commit, shortened.
pub(crate) fn commit(release: &Release) -> String {
    release.git.as_ref().map_or_else(
        || "unknown".to_owned(),
        |git| {
            let commit: String = git.commit.chars().take(12).collect();
            format!("{commit}{}", if git.dirty { " with changes" } else { "" })
        },
    )
}

/// Whether both functions passed their canary.
pub(crate) fn proof(release: &Release) -> String {
    if release.is_proven() { "passed".to_owned() } else { "NOT PASSED".to_owned() }
}

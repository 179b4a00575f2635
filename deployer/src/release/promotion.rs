//! Whether a release of one environment may go to another. Pure.
//!
//! What goes is what the source serves now, if that is what was recorded, its canary passed, nothing about the source
//! has been changed by hand, and it has been live long enough. Every reason against it is found, not only the first.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::history::History;
use super::{Content, Release};
use crate::scope::Function;

/// Everything that a promotion is judged by.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The source's records.
    pub source: &'a History,
    /// What the source serves now.
    pub live: Option<&'a Content>,
    /// The source's resources that are not as its file and its release say.
    pub drift: &'a [String],
    /// The code of the bundle that is to be deployed.
    pub code: &'a BTreeMap<Function, String>,
    /// The documents in which the bundle's checkout differs from this one.
    pub documents: &'a [String],
    /// The target's records.
    pub target: &'a History,
    /// How long a release must have been live in the source.
    pub soak: SignedDuration,
    /// The time.
    pub now: Timestamp,
    /// Whether an older release may replace a newer one.
    pub allow_downgrade: bool,
}

/// A reason not to promote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The source has no release.
    NothingReleased,
    /// What the source serves is not what was recorded.
    Unrecorded {
        /// The newest record.
        release: i64,
    },
    /// The source is not what its file and its release say.
    Drift {
        /// What differs.
        resources: Vec<String>,
    },
    /// A version went live without its dry run, or after one that failed.
    Unproven {
        /// The release.
        release: i64,
        /// The function.
        function: Function,
        /// What the record says.
        why: String,
    },
    /// It has not been live for long enough.
    TooYoung {
        /// The release.
        release: i64,
        /// How long it has been live.
        age: SignedDuration,
        /// How long it has to be.
        soak: SignedDuration,
    },
    /// The bundle is not the one that the source runs.
    OtherCode {
        /// The function.
        function: Function,
        /// What the bundle holds.
        bundle: String,
        /// What the source serves.
        served: String,
    },
    /// The bundle was built with other policies than would be deployed with it.
    OtherDocuments {
        /// Which.
        documents: Vec<String>,
    },
    /// The target runs something newer.
    Downgrade {
        /// The target's newest release.
        release: i64,
        /// How that is known.
        why: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingReleased => f.write_str("the source has no release: nothing is deployed there"),
            Self::Unrecorded { release } => {
                write!(
                    f,
                    "the source serves something else than its newest release, {release}: a deploy was interrupted, or somebody moved an alias by hand"
                )
            }
            Self::Drift { resources } => {
                write!(f, "the source is not what its file and this checkout say: {}", resources.join("; "))
            }
            Self::Unproven { release, function, why } => {
                write!(f, "release {release} is not proven: {}: {why}", function.as_str())
            }
            Self::TooYoung { release, age, soak } => {
                write!(f, "release {release} has been live for {age:#}, and has to be for {soak:#}")
            }
            Self::OtherCode { function, bundle, served } => {
                let function = function.as_str();
                write!(
                    f,
                    "the bundle's {function} function is {bundle}, and the source serves {served}: it was rebuilt, or is of another commit"
                )
            }
            Self::OtherDocuments { documents } => {
                write!(
                    f,
                    "the bundle was built from a checkout that differs from this one in {}",
                    documents.join(", ")
                )
            }
            Self::Downgrade { release, why } => {
                write!(f, "the target's release {release} is newer: {why}")
            }
        }
    }
}

impl Candidate<'_> {
    /// The release that is to be promoted, or everything that speaks against it.
    pub fn judge(&self) -> Result<&Release, Vec<Refusal>> {
        let Some(release) = self.source.newest() else { return Err(vec![Refusal::NothingReleased]) };
        let number = release.number;
        let mut refusals = Vec::new();
        if self.live != Some(&release.content) {
            refusals.push(Refusal::Unrecorded { release: number });
        }
        if !self.drift.is_empty() {
            refusals.push(Refusal::Drift { resources: self.drift.to_vec() });
        }
        refusals.extend(unproven(release));
        // AWS's clock, by which a release is recorded, may be ahead of this machine's.
        let age = self.now.duration_since(release.at).max(SignedDuration::ZERO);
        if age < self.soak {
            // Whole seconds are enough to read.
            let age = SignedDuration::from_secs(age.as_secs());
            refusals.push(Refusal::TooYoung { release: number, age, soak: self.soak });
        }
        for (function, served) in release.content.code() {
            let bundle = self.code.get(&function).cloned().unwrap_or_default();
            if bundle != served {
                refusals.push(Refusal::OtherCode { function, bundle, served });
            }
        }
        if !self.documents.is_empty() {
            refusals.push(Refusal::OtherDocuments { documents: self.documents.to_vec() });
        }
        if !self.allow_downgrade {
            refusals.extend(self.downgrade(release));
        }
        if refusals.is_empty() { Ok(release) } else { Err(refusals) }
    }

    /// A target that has moved on from this code, or was built from a later commit, would go back.
    fn downgrade(&self, release: &Release) -> Option<Refusal> {
        let newest = self.target.newest()?;
        let code = release.content.code();
        if newest.content.code() == code {
            return None;
        }
        let refused = |why: String| Some(Refusal::Downgrade { release: newest.number, why });
        if let Some(before) = self.target.releases.iter().find(|before| before.content.code() == code) {
            return refused(format!("it replaced this very code, which was release {}", before.number));
        }
        let committed = |release: &Release| release.git.as_ref().and_then(|git| git.committed_at);
        match (committed(release), committed(newest)) {
            (Some(ours), Some(theirs)) if ours < theirs => {
                refused(format!("its commit is of {theirs}, and this one of {ours}"))
            }
            _ => None,
        }
    }
}

fn unproven(release: &Release) -> Vec<Refusal> {
    let why = |function: &Function| match release.canary.get(function) {
        Some(canary) => (canary.outcome != super::canary::Outcome::Passed).then(|| canary.to_string()),
        None => Some("it was never tried".to_owned()),
    };
    let functions = release.content.functions.keys();
    functions
        .filter_map(|function| {
            Some(Refusal::Unproven { release: release.number, function: *function, why: why(function)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::canary::Outcome;
    use super::super::tests::{committed, release};
    use super::*;

    fn history(releases: Vec<Release>) -> History {
        History { releases, unreadable: Vec::new() }
    }

    /// What is refused about release 3 of version 7 after an hour, when one thing is not as it should be.
    fn refused(change: impl FnOnce(&mut History, &mut Candidate<'_>)) -> Vec<String> {
        let mut source = history(vec![release(3, 7)]);
        let (live, code) = (source.releases[0].content.clone(), source.releases[0].content.code());
        let target = history(vec![]);
        let given = source.clone();
        let mut candidate = Candidate {
            source: &given,
            live: Some(&live),
            drift: &[],
            code: &code,
            documents: &[],
            target: &target,
            soak: SignedDuration::from_mins(30),
            now: source.releases[0].at + SignedDuration::from_hours(1),
            allow_downgrade: false,
        };
        change(&mut source, &mut candidate);
        let candidate = Candidate { source: &source, ..candidate };
        candidate.judge().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    fn refused_target(newer: Release, allow_downgrade: bool) -> Vec<String> {
        let target = history(vec![release(1, 7), newer]);
        let target: &'static History = Box::leak(Box::new(target));
        refused(|_, candidate| {
            candidate.target = target;
            candidate.allow_downgrade = allow_downgrade;
        })
    }

    /// Prod runs what staging proved, or nothing new.
    #[test]
    fn whatever_staging_has_not_proven_is_refused_with_its_reason() {
        static CHANGED: &[String] = &[];
        assert_eq!(refused(|_, candidate| candidate.drift = CHANGED), [""; 0], "all is well");
        let drift: &'static [String] = Box::leak(Box::new(["role x differs in policies".to_owned()]));
        let none: &'static BTreeMap<Function, String> = Box::leak(Box::default());
        for (refusals, why) in [
            (refused(|source, _| source.releases.clear()), "no release"),
            (refused(|_, candidate| candidate.live = None), "serves something else"),
            (refused(|_, candidate| candidate.drift = drift), "role x differs in policies"),
            (refused(|source, _| source.releases[0].canary.clear()), "never tried"),
            (
                refused(|source, _| {
                    for canary in source.releases[0].canary.values_mut() {
                        canary.outcome = Outcome::Skipped;
                    }
                }),
                "goes live untried",
            ),
            (
                refused(|_, candidate| candidate.soak = SignedDuration::from_hours(2)),
                "live for 1h, and has to be for 2h",
            ),
            (refused(|_, candidate| candidate.documents = drift), "a checkout that differs from this one"),
            (refused(|_, candidate| candidate.code = none), "rebuilt, or is of another commit"),
        ] {
            assert!(
                !refusals.is_empty() && refusals.iter().all(|refusal| refusal.contains(why)),
                "{why}: {refusals:?}"
            );
        }
        let ahead = refused(|source, candidate| {
            candidate.soak = SignedDuration::ZERO;
            candidate.now = source.releases[0].at - SignedDuration::from_secs(1);
        });
        assert_eq!(ahead, [""; 0], "a clock that is a second slow is no reason");
        let all = refused(|source, candidate| {
            source.releases[0].canary.clear();
            candidate.drift = drift;
        });
        assert_eq!(all.len(), 3, "all reasons at once, not one after the other: {all:?}");
    }

    #[test]
    fn a_target_that_has_moved_on_goes_back_only_on_request() {
        let moved_on = release(2, 8);
        let refusals = refused_target(moved_on.clone(), false);
        assert!(refusals[0].contains("replaced this very code, which was release 1"), "{refusals:?}");
        assert_eq!(refused_target(moved_on, true), [""; 0]);
        assert_eq!(refused_target(release(2, 7), false), [""; 0], "the same code is no downgrade");
    }

    #[test]
    fn an_older_commit_is_a_downgrade() {
        let judge = |ours: &str, theirs: &str| {
            let source = history(vec![committed(release(3, 7), ours)]);
            let target = history(vec![committed(release(1, 8), theirs)]);
            let (live, code) = (source.releases[0].content.clone(), source.releases[0].content.code());
            let candidate = Candidate {
                source: &source,
                live: Some(&live),
                drift: &[],
                code: &code,
                documents: &[],
                target: &target,
                soak: SignedDuration::ZERO,
                now: source.releases[0].at,
                allow_downgrade: false,
            };
            candidate.judge().is_ok()
        };
        assert!(judge("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"));
        assert!(!judge("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"));
    }
}

//! Releases to try everything on.

use std::path::Path;

use super::*;
use crate::environment::parse;
use crate::policy::role_policies;

/// A proven release that serves the given version of both functions.
pub(super) fn release(number: i64, version: u64) -> Release {
    let served = |function: Function| Served {
        version: version.to_string(),
        code_sha256: format!("{function:?} {version}"),
    };
    let canary = Canary {
        version: version.to_string(),
        outcome: canary::Outcome::Passed,
        summary: "dry run: 2 instances would be backed up, 3 snapshots made".to_owned(),
    };
    Release {
        number,
        by: "assumed-role/snapwarden-deploy-prod/deploy-1234567890".to_owned(),
        at: "2026-11-22T12:00:00Z".parse().unwrap(),
        how: How::Deployed,
        git: None,
        content: Content {
            functions: Function::ALL.map(|function| (function, served(function))).into(),
            policies: BTreeMap::new(),
        },
        plan: Some("0".repeat(64)),
        canary: Function::ALL.map(|function| (function, canary.clone())).into(),
        previous: Some(number - 1),
    }
}

/// The same, of a commit of that time.
pub(super) fn committed(release: Release, at: &str) -> Release {
    let git = Git { commit: "c".repeat(40), dirty: false, committed_at: Some(at.parse().unwrap()) };
    Release { git: Some(git), ..release }
}

/// The same, with the policies that an environment's roles have.
pub(super) fn with_policies_of(file: &str, mut release: Release) -> Release {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
    let path = folder.join(format!("{file}.yaml"));
    let environment = parse(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    let policies = role_policies(&environment, &Scope::of(&environment)).unwrap();
    release.content.policies =
        policies.into_iter().map(|(role, policies)| (role.to_owned(), policies.permissions)).collect();
    committed(release, "2026-11-22T11:00:00Z")
}

/// An interrupted deploy leaves an environment that only looks recorded.
#[test]
fn a_release_is_proven_only_when_every_function_passed() {
    let whole = release(1, 1);
    assert!(whole.is_proven());
    let mut half = whole.clone();
    half.canary.remove(&Function::Cleanup);
    assert!(!half.is_proven());
    let mut skipped = whole;
    skipped.canary.insert(Function::Backup, Canary::skipped("1"));
    assert!(!skipped.is_proven());
}

//! Deletes the published versions that no kept release serves: Lambda keeps all for ever, and stores 75 GB of code in
//! an account and Region (source: AWS Lambda Developer Guide, "Lambda quotas").

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Release, versions};
use crate::aws::Aws;
use crate::error::{AwsError, Call, OrAbsent};
use crate::scope::{Function, Scope};

/// A version that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The function.
    pub function: Function,
    /// The version's number.
    pub version: String,
}

/// Deletes what none of the newest `keep` releases serves. Those are in the order of their numbers; the last one is
/// live.
pub async fn prune(
    aws: &Aws,
    scope: &Scope,
    releases: &[Release],
    keep: usize,
) -> Result<Vec<Pruned>, AwsError> {
    let mut pruned = Vec::new();
    for function in Function::ALL {
        let name = scope.function(function);
        let published = versions(aws, &name).await?;
        let published = published.iter().filter_map(|version| version.version()?.parse().ok());
        for version in superfluous(published.collect(), releases, function, keep) {
            // A number, never nothing: without a qualifier Lambda deletes the function.
            let call = aws.lambda.delete_function().function_name(&name).qualifier(version.to_string());
            call.send().await.call("lambda:DeleteFunction").or_absent()?;
            pruned.push(Pruned { function, version: version.to_string() });
        }
    }
    Ok(pruned)
}

/// The versions that nothing needs any more. One that is newer than all that are kept was published by a deploy that
/// did not come to its end, and may still. Pure.
fn superfluous(
    published: BTreeSet<u64>,
    releases: &[Release],
    function: Function,
    keep: usize,
) -> BTreeSet<u64> {
    let served = |release: &Release| release.content.functions.get(&function)?.version.parse::<u64>().ok();
    // A return to a release makes a record of its own, which keeps no further version.
    let mut kept = BTreeSet::new();
    for version in releases.iter().rev().filter_map(served) {
        if kept.len() >= keep.max(1) {
            break;
        }
        kept.insert(version);
    }
    let Some(newest) = kept.last().copied() else { return BTreeSet::new() };
    published.into_iter().filter(|version| *version < newest && !kept.contains(version)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::release;
    use super::*;

    fn superfluous_of(published: &[u64], served: &[u64], keep: usize) -> Vec<u64> {
        let releases: Vec<Release> =
            (1..).zip(served).map(|(number, version)| release(number, *version)).collect();
        let published = published.iter().copied().collect();
        superfluous(published, &releases, Function::Backup, keep).into_iter().collect()
    }

    /// A version that is gone is a release that nobody can return to; one that is live is a night without a backup.
    #[test]
    fn what_the_last_releases_serve_is_kept_and_what_is_live_always() {
        assert_eq!(superfluous_of(&[1, 2, 3, 4], &[1, 2, 3, 4], 2), [1, 2]);
        assert_eq!(superfluous_of(&[1, 2, 3], &[1, 2, 3], 5), [0; 0]);
        assert_eq!(
            superfluous_of(&[1, 2, 3], &[1, 2, 3], 0),
            [1, 2],
            "the live one stays whatever the limit"
        );
        assert_eq!(
            superfluous_of(&[1, 2, 3], &[1, 2, 3, 1], 2),
            [2],
            "rolled back to 1, and 3 can be returned to"
        );
        assert_eq!(superfluous_of(&[1, 2, 3, 4], &[1, 3], 2), [2], "2 never went live, 4 may be about to");
        assert_eq!(superfluous_of(&[1, 2], &[], 1), [0; 0], "nothing is recorded, so nothing is known");
    }
}

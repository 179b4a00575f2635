//! What the names of an environment's roles began with when it was deployed.
//!
//! Every other name derives from the environment's, so it is found whatever the file says by now. `iam.role_name_prefix`
//! is part of the names of roles alone: a file that lost it, or says another one, would leave roles behind that may
//! delete snapshots. So it is remembered as a tag of everything.

use crate::environment::RolePrefix;
use crate::error::AwsError;
use crate::kinds::{Context, Kind, Role, registry};
use crate::scope::Scope;
use crate::world::Observed;

/// The tag that remembers the prefix; none where there is none.
pub const TAG: &str = "snapwarden:role-name-prefix";

/// The scope under whose names the environment was deployed, where that is another one. Pure.
fn remembered(observed: &Observed, scope: &Scope) -> Option<Scope> {
    let tags = observed.values().filter_map(|found| found.tags.as_ref()).filter(|tags| scope.owns(tags));
    // Somebody may have removed the tag here and there, but nobody writes it by chance.
    let prefixes = tags.map(|tags| tags.get(TAG).map(String::as_str).unwrap_or_default());
    let prefix: RolePrefix = prefixes.max_by_key(|prefix| prefix.len())?.to_owned().try_into().ok()?;
    (prefix != scope.iam.role_name_prefix).then(|| {
        let mut former = scope.clone();
        former.iam.role_name_prefix = prefix;
        former
    })
}

/// The scope under whose names the environment still has roles, where that is another one.
pub async fn former(cx: &Context, observed: &Observed) -> Result<Option<Scope>, AwsError> {
    let Some(former) = remembered(observed, &cx.scope) else { return Ok(None) };
    let Some(kind) = registry().get(Role::NAME) else { return Ok(None) };
    let mut there = cx.clone();
    there.scope = former.clone();
    let roles = kind.observe(&there).await?;
    let ours = roles.iter().any(|(_, role)| role.tags.as_ref().is_some_and(|tags| former.owns(tags)));
    Ok(ours.then_some(former))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use snapwarden_domain::tags;

    use super::*;
    use crate::scope::tests::scope;
    use crate::world::{Found, ResourceId};

    fn observed(resources: &[&[(&str, &str)]]) -> Observed {
        let found = |own: &[(&str, &str)]| Found {
            properties: Value::Null,
            handle: Value::Null,
            tags: Some(
                own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
            ),
            revision: None,
        };
        let resources = resources.iter().enumerate();
        resources.map(|(index, own)| (ResourceId::new("kind", index.to_string()), found(own))).collect()
    }

    /// A role that nobody looks for any more keeps its right to delete snapshots.
    #[test]
    fn what_roles_were_called_is_read_from_what_is_there() {
        let ours = (tags::ENVIRONMENT, "prod");
        let acme = (TAG, "acme-");
        let prefixed = |prefix: &str| {
            let mut scope = scope("prod");
            scope.iam.role_name_prefix = prefix.to_owned().try_into().unwrap();
            scope
        };
        for (resources, now, expected) in [
            (&[][..], "", None),
            (&[&[ours][..]], "", None),
            (&[&[ours]], "acme-", Some("")),
            (&[&[ours, acme]], "acme-", None),
            (&[&[ours, acme]], "", Some("acme-")),
            (&[&[ours], &[ours, acme]], "", Some("acme-")),
            (&[&[acme], &[(tags::ENVIRONMENT, "dev"), acme]], "", None),
            (&[&[ours, (TAG, "no/prefix")]], "", None),
        ] {
            let found = remembered(&observed(resources), &prefixed(now));
            assert_eq!(found, expected.map(prefixed), "{resources:?} {now}");
        }
    }
}

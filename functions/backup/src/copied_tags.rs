//! Whether the volumes' own tags fit on their snapshots, beside ours. Pure.

use std::collections::{BTreeMap, BTreeSet};

use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;

/// The most tags that a resource takes (source: EC2 user guide, "Tag your Amazon EC2 resources"); those of `aws:` do
/// not count.
const MAX_TAGS: usize = 50;

/// The tags that every snapshot gets, apart from `Name`.
const OURS: [&str; 5] = [tags::DELETE_ON, tags::ENVIRONMENT, tags::RUN, tags::HOP, tags::INSTANCE];

/// Those that an encrypted copy of it gets beside them. On a snapshot they would say that it is a copy.
const OF_COPIES: [&str; 3] = [tags::SOURCE_SNAPSHOT, tags::SOURCE_VOLUME, tags::STARTED_AT];

/// The tags' keys of volumes, by the volume's id; of those volumes that EC2 told about.
pub(crate) type VolumeTags = BTreeMap<String, BTreeSet<String>>;

/// What to do with the volumes' tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// They are copied, in the call that makes the snapshots.
    Copy {
        /// Whether the snapshots get the instance's name. Not if a volume has a `Name` of its own, which is then the
        /// snapshot's.
        with_name: bool,
    },
    /// They are not, for this reason: EC2 would refuse the whole set, and no tag is worth a backup.
    Leave(String),
}

/// Decides for the volumes of one instance.
///
/// EC2 documents neither what becomes of a copied key that we set too, nor of tags beyond the limit, so neither is
/// tried where the volumes' tags are known. Where they are not, EC2's answer decides: see [`is_about_tags`].
pub(crate) fn decide(volumes: &BTreeSet<String>, known: &VolumeTags) -> Copying {
    let tags_of = |volume: &String| known.get(volume);
    let with_name = !volumes.iter().filter_map(tags_of).any(|keys| keys.contains(tags::NAME));
    let ours = OURS.len() + usize::from(with_name);
    for volume in volumes {
        let Some(keys) = tags_of(volume) else { continue };
        if let Some(key) = OURS.into_iter().chain(OF_COPIES).find(|key| keys.contains(*key)) {
            return Copying::Leave(format!("{volume} has a tag {key} of its own"));
        }
        let copied = keys.iter().filter(|key| !key.starts_with("aws:")).count();
        if copied + ours > MAX_TAGS {
            return Copying::Leave(format!(
                "{volume} has {copied} tags, and {MAX_TAGS} is EC2's limit with ours"
            ));
        }
    }
    Copying::Copy { with_name }
}

/// Whether EC2 may have refused a set for the sake of copied tags. In doubt it may: to ask once more without them
/// costs a call, to give up costs a backup.
pub(crate) fn is_about_tags(refusal: &Failure) -> bool {
    let code = refusal.code.as_deref().unwrap_or_default();
    // A policy above the role may forbid a tag's key, which reads like any other denial.
    code.starts_with("InvalidParameter") || code.contains("Tag") || code == "UnauthorizedOperation"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_for(tags: &[(&str, &[&str])]) -> Copying {
        let volumes = ["vol-1", "vol-2"].map(str::to_owned).into();
        let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
        decide(&volumes, &tags.iter().map(|(volume, tags)| ((*volume).to_owned(), keys(tags))).collect())
    }

    #[test]
    fn volumes_keep_their_tags_on_their_snapshots() {
        let with_name = Copying::Copy { with_name: true };
        assert_eq!(decide_for(&[("vol-1", &["team"]), ("vol-2", &[])]), with_name);
        assert_eq!(decide_for(&[]), with_name, "unknown: EC2 will say");
        assert_eq!(decide_for(&[("vol-9", &["DeleteOn"])]), with_name, "another instance's");
        assert_eq!(decide_for(&[("vol-2", &["Name"])]), Copying::Copy { with_name: false });
    }

    #[test]
    fn a_tag_that_would_collide_with_ours_never_costs_the_backup() {
        for key in [
            "DeleteOn",
            "snapwarden:environment",
            "snapwarden:run",
            "snapwarden:hop",
            "snapwarden:instance",
            "snapwarden:source-snapshot",
        ] {
            let Copying::Leave(reason) = decide_for(&[("vol-2", &[key])]) else { panic!("{key}") };
            assert!(reason.contains("vol-2") && reason.contains(key), "{reason}");
        }
    }

    #[test]
    fn tags_beyond_ec2s_limit_never_cost_the_backup() {
        let keys: Vec<String> = (0..45).map(|n| format!("key-{n}")).chain(["aws:stack".to_owned()]).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(matches!(decide_for(&[("vol-1", &keys)]), Copying::Leave(_)));
        assert!(matches!(decide_for(&[("vol-1", &keys[1..])]), Copying::Copy { .. }));
    }

    #[test]
    fn what_has_nothing_to_do_with_tags_is_not_asked_twice() {
        let is_about_tags = |code: &str| {
            is_about_tags(&Failure { code: Some(code.to_owned()), ..Failure::new("as asked", "none") })
        };
        for code in
            ["InvalidParameterValue", "TagLimitExceeded", "TagPolicyViolation", "UnauthorizedOperation"]
        {
            assert!(is_about_tags(code), "{code}");
        }
        for code in ["InvalidInstanceID.NotFound", "RequestLimitExceeded", "SnapshotLimitExceeded"] {
            assert!(!is_about_tags(code), "{code}");
        }
    }
}

//! Whether the volumes' own tags fit on their snapshots, beside ours. Pure.

use std::collections::{BTreeMap, BTreeSet};

use snapwarden_domain::report::Failure;
use snapwarden_domain::tags;

/// The most tags that a resource takes (source: EC2 user guide, "Tag your Amazon EC2 resources"); those of `aws:` do
/// not count.
const MAX_TAGS: usize = 50;

/// How many tags a snapshot gets beside the copies, apart from `Name`: `DeleteOn`, environment, run, hop, instance, volumes.
const OURS: usize = 6;

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
/// tried; nor is anything copied that is not known. A `DeleteOn` of the volume's in place of ours could let the snapshot
/// go the same night.
pub(crate) fn decide(volumes: &BTreeSet<String>, known: &VolumeTags) -> Copying {
    let with_name = !volumes.iter().filter_map(|id| known.get(id)).any(|keys| keys.contains(tags::NAME));
    let ours = OURS + usize::from(with_name);
    for volume in volumes {
        let Some(keys) = known.get(volume) else {
            return Copying::Leave(format!("the tags of {volume} are not known"));
        };
        if let Some(key) = keys.iter().find(|key| is_ours(key)) {
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

/// Whether a tag of this key would say something to cleanup. Not only those that a backup sets: a snapshot with a copied
/// `snapwarden:adopted`, say, would belong to no set.
fn is_ours(key: &str) -> bool {
    key == tags::DELETE_ON || key.starts_with(tags::PREFIX)
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
        let (one, two) = (("vol-1", &["team"][..]), ("vol-2", &[][..]));
        assert_eq!(decide_for(&[one, two]), with_name);
        assert_eq!(decide_for(&[one, two, ("vol-9", &["DeleteOn"])]), with_name, "another instance's");
        assert_eq!(decide_for(&[one, ("vol-2", &["Name"])]), Copying::Copy { with_name: false });
    }

    /// Who copies blindly may copy a `DeleteOn` of long ago, and tonight's backup is deleted tonight.
    #[test]
    fn tags_that_are_not_known_are_not_copied() {
        for known in [&[][..], &[("vol-1", &["team"][..])]] {
            let Copying::Leave(reason) = decide_for(known) else { panic!("{known:?}") };
            assert!(reason.ends_with("are not known"), "{reason}");
        }
    }

    #[test]
    fn a_tag_that_would_say_something_to_cleanup_is_never_copied() {
        for key in [
            "DeleteOn",
            "snapwarden:environment",
            "snapwarden:run",
            "snapwarden:hop",
            "snapwarden:instance",
            "snapwarden:source-snapshot",
            "snapwarden:adopted",
            "snapwarden:whatever-comes",
        ] {
            let Copying::Leave(reason) = decide_for(&[("vol-1", &[]), ("vol-2", &[key])]) else {
                panic!("{key}")
            };
            assert!(reason.contains("vol-2") && reason.contains(key), "{reason}");
        }
    }

    #[test]
    fn tags_beyond_ec2s_limit_never_cost_the_backup() {
        let keys: Vec<String> = (0..44).map(|n| format!("key-{n}")).chain(["aws:stack".to_owned()]).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(matches!(decide_for(&[("vol-1", &keys), ("vol-2", &[])]), Copying::Leave(_)));
        assert!(matches!(decide_for(&[("vol-1", &keys[1..]), ("vol-2", &[])]), Copying::Copy { .. }));
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

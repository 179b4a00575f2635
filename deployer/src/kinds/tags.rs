//! How two sets of tags differ.

use std::collections::BTreeMap;

/// A resource's tags.
pub(super) type Tags = BTreeMap<String, String>;

/// The tags to write, because they are missing or different.
pub(super) fn to_write(wanted: &Tags, found: &Tags) -> Tags {
    wanted
        .iter()
        .filter(|(key, value)| found.get(*key) != Some(value))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The keys to remove, because nothing wants them.
pub(super) fn to_remove(wanted: &Tags, found: &Tags) -> Vec<String> {
    found.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect()
}

/// The tags that people can set: those of AWS itself are not ours to see or change.
pub(super) fn without_reserved<K: Into<String>>(tags: impl IntoIterator<Item = (K, String)>) -> Tags {
    tags.into_iter()
        .map(|(key, value)| (key.into(), value))
        .filter(|(key, _)| !key.starts_with("aws:"))
        .collect()
}

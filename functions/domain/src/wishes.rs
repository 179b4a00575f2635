//! What an instance's owner asks for with tags on it. Pure.
//!
//! A wish that cannot be read never costs a backup: more is backed up, or kept longer, and the report says why.

use std::collections::BTreeSet;

use crate::retention::Days;
use crate::tags;

/// The wishes of one instance's tags, as far as they are readable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Instead of the environment's `daily_days`.
    pub retention_days: Option<Days>,
    /// Whether to leave the boot volume out.
    pub exclude_boot: bool,
    /// Volumes to leave out.
    pub exclude_volumes: BTreeSet<String>,
    /// What was not readable.
    pub warnings: Vec<String>,
}

/// Reads the wishes from an instance's tags.
pub fn read<'a>(tag: impl Fn(&str) -> Option<&'a str>) -> Wishes {
    let mut wishes = Wishes::default();
    if let Some(text) = tag(tags::RETENTION_DAYS) {
        wishes.retention(text.trim());
    }
    if let Some(text) = tag(tags::EXCLUDE_BOOT) {
        wishes.boot(text.trim());
    }
    for text in tag(tags::EXCLUDE_VOLUMES).into_iter().flat_map(|text| text.split([',', ' '])) {
        wishes.volume(text.trim());
    }
    wishes
}

impl Wishes {
    fn retention(&mut self, text: &str) {
        let days = text.parse::<u32>().ok().and_then(|days| Days::try_from(days).ok());
        // A number that is too large asks for long, not for the default.
        let is_huge =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse() != Ok(0_u32);
        let (kept, instead) = match days {
            Some(days) => (Some(days), None),
            None if is_huge => (Some(Days::MAX), Some(format!("its snapshots are kept for {}", Days::MAX))),
            None => (None, Some("the environment's retention applies".to_owned())),
        };
        self.retention_days = kept;
        self.warnings.extend(instead.map(|instead| {
            let (min, max) = (Days::MIN.get(), Days::MAX.get());
            format!("{}={text} is no number of days from {min} to {max}: {instead}", tags::RETENTION_DAYS)
        }));
    }

    fn boot(&mut self, text: &str) {
        self.exclude_boot = text.eq_ignore_ascii_case("true");
        if !self.exclude_boot && !text.eq_ignore_ascii_case("false") {
            let key = tags::EXCLUDE_BOOT;
            self.warnings
                .push(format!("{key}={text} is neither true nor false: the boot volume is backed up"));
        }
    }

    fn volume(&mut self, text: &str) {
        let is_id = text.strip_prefix("vol-").is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if is_id {
            self.exclude_volumes.insert(text.to_owned());
        } else if !text.is_empty() {
            let key = tags::EXCLUDE_VOLUMES;
            self.warnings.push(format!("{key} names {text}, which is no volume's id: it leaves nothing out"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(tags: &[(&str, &'static str)]) -> Wishes {
        read(|key| tags.iter().find(|(known, _)| *known == key).map(|(_, value)| *value))
    }

    #[test]
    fn an_instance_without_such_tags_is_backed_up_whole() {
        assert_eq!(of(&[("Backup", "true"), ("backupexcludeboot", "true")]), Wishes::default());
    }

    #[test]
    fn retention_of_an_instance_is_its_own() {
        for (text, days, warned) in [
            ("30", Some(30), false),
            (" 30 ", Some(30), false),
            ("36500", Some(36_500), false),
            ("36501", Some(36_500), true),
            ("99999999999999999999", Some(36_500), true),
            ("0", None, true),
            ("-3", None, true),
            ("7.5", None, true),
            ("a month", None, true),
            ("", None, true),
        ] {
            let wishes = of(&[("BackupRetentionDays", text)]);
            assert_eq!(wishes.retention_days.map(Days::get), days, "{text:?}");
            assert_eq!(wishes.warnings.len(), usize::from(warned), "{text:?}: {:?}", wishes.warnings);
        }
    }

    #[test]
    fn what_is_no_clear_wish_to_leave_a_volume_out_leaves_none_out() {
        for (text, excluded, warned) in
            [("true", true, false), ("True", true, false), ("false", false, false), ("yes", false, true)]
        {
            let wishes = of(&[("BackupExcludeBoot", text)]);
            assert_eq!((wishes.exclude_boot, !wishes.warnings.is_empty()), (excluded, warned), "{text}");
        }
        let wishes = of(&[("BackupExcludeVolumes", "vol-1a, vol-2b,,vol-3c vol- data-disk VOL-4")]);
        assert_eq!(wishes.exclude_volumes.into_iter().collect::<Vec<_>>(), ["vol-1a", "vol-2b", "vol-3c"]);
        assert_eq!(wishes.warnings.len(), 3);
        assert!(wishes.warnings[1].contains("names data-disk"), "{:?}", wishes.warnings);
    }

    proptest! {
        #[test]
        fn no_tag_value_is_silently_misread(text in ".{0,40}") {
            let of = |key: &'static str| {
                let text = text.as_str();
                read(move |asked| (asked == key).then_some(text))
            };
            let retention = of("BackupRetentionDays");
            let is_exact = retention.retention_days.is_some_and(|days| text.trim().parse() == Ok(days.get()));
            prop_assert!(is_exact != !retention.warnings.is_empty());
            let boot = of("BackupExcludeBoot");
            prop_assert!(!boot.exclude_boot || text.trim().eq_ignore_ascii_case("true"));
            prop_assert!(of("BackupExcludeVolumes").exclude_volumes.iter().all(|id| text.contains(id.as_str())));
        }
    }
}

//! What is not encrypted: a snapshot is encrypted exactly if its volume is, so a volume in clear text yields backups
//! in clear text, whatever the account's other disks are like (source: EBS user guide, "Amazon EBS encryption").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inventory::{Inventory, State};
use crate::report::{counted, cut};
use crate::settings::CleanupSettings;

/// The environment's snapshots in clear text, and the volumes that they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearText {
    /// How many snapshots are not encrypted, completed or being made. One that failed holds nothing.
    pub unencrypted_snapshots: usize,
    /// The volumes that have such snapshots, or are selected and will have them, up to [`Self::MAX_LISTED`].
    pub volumes: Vec<ClearVolume>,
    /// How many more there are than listed.
    pub volumes_unlisted: usize,
}

/// A volume whose snapshots are in clear text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearVolume {
    /// Its id, `vol-…`; absent for snapshots that do not tell.
    pub volume: Option<String>,
    /// The instance that it is, or was, attached to.
    pub instance: Option<String>,
    /// That instance's `Name` tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many snapshots in clear text it has.
    pub snapshots: usize,
}

impl ClearText {
    /// The most volumes listed: a report has to fit Lambda's 6 MB, and the longest of cleanup nearly fills them.
    pub const MAX_LISTED: usize = 100;

    /// The longest `Name` and instance listed, in bytes.
    const MAX_TEXT: usize = 60;

    /// Looks at every snapshot, and at every selected volume.
    pub fn of(inventory: &Inventory, settings: &CleanupSettings) -> Self {
        let environment = settings.environment.as_str();
        let mut volumes: BTreeMap<Option<&str>, ClearVolume> = BTreeMap::new();
        let blank = |volume: Option<&str>| ClearVolume {
            volume: volume.map(str::to_owned),
            instance: None,
            name: None,
            snapshots: 0,
        };
        for instance in inventory.instances.iter().filter(|instance| instance.selected) {
            for volume in instance.volumes.iter().filter(|volume| !volume.excluded) {
                if inventory.clear_volumes.contains(&volume.id) {
                    let listed = ClearVolume {
                        instance: Some(instance.id.clone()),
                        name: instance.name.as_ref().map(|name| cut(name, Self::MAX_TEXT)),
                        ..blank(Some(&volume.id))
                    };
                    volumes.insert(Some(&volume.id), listed);
                }
            }
        }
        let mut unencrypted_snapshots = 0;
        for snapshot in &inventory.snapshots {
            if snapshot.encrypted || snapshot.state == State::Error || !snapshot.belongs_to(environment) {
                continue;
            }
            unencrypted_snapshots += 1;
            let volume = snapshot.source_volume();
            let listed = volumes.entry(volume).or_insert_with(|| blank(volume));
            listed.snapshots += 1;
            if listed.instance.is_none() {
                listed.instance = snapshot.instance.as_ref().map(|id| cut(id, Self::MAX_TEXT));
            }
        }
        let mut volumes: Vec<_> = volumes.into_values().collect();
        volumes.sort_by(|a, b| (&a.instance, &a.volume).cmp(&(&b.instance, &b.volume)));
        Self {
            unencrypted_snapshots,
            volumes_unlisted: volumes.len().saturating_sub(Self::MAX_LISTED),
            volumes: volumes.into_iter().take(Self::MAX_LISTED).collect(),
        }
    }

    /// How many volumes there are, listed or not.
    pub fn volume_count(&self) -> usize {
        self.volumes.len() + self.volumes_unlisted
    }

    /// What people should look at, where there is anything.
    pub fn warning(&self) -> Option<String> {
        let first = self.volumes.first()?;
        Some(format!(
            "not encrypted: {} of {}, the first is {first}",
            counted(self.unencrypted_snapshots, "snapshot"),
            counted(self.volume_count(), "volume"),
        ))
    }
}

impl std::fmt::Display for ClearVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.volume.as_deref().unwrap_or("an unknown volume"))?;
        self.instance.as_ref().map_or(Ok(()), |instance| write!(f, " of {instance}"))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{AttachedVolume, Instance, Snapshot};

    fn settings() -> CleanupSettings {
        serde_json::from_str(
            r#"{"environment": "prod", "alias_arn": "arn", "timezone": "UTC", "backup_interval_hours": 24,
                "policy": {"floor": 1, "orphan_floor_days": 90, "max_deletes": 9, "mass_deletion_percent": 50},
                "select": {"tag": "Backup", "value": "true"}, "encryption": {"require": "report"}}"#,
        )
        .unwrap()
    }

    fn snapshot(volume: &str, encrypted: bool) -> Snapshot {
        Snapshot {
            volume: Some(volume.to_owned()),
            instance: Some("i-gone".to_owned()),
            environment: Some("prod".to_owned()),
            state: State::Completed,
            encrypted,
            ..Snapshot::default()
        }
    }

    fn instance(selected: bool, volumes: &[(&str, bool)]) -> Instance {
        let volume = |(id, excluded): &(&str, bool)| AttachedVolume {
            id: (*id).to_owned(),
            excluded: *excluded,
            ..AttachedVolume::default()
        };
        Instance {
            id: "i-1".to_owned(),
            name: Some("web".to_owned()),
            selected,
            volumes: volumes.iter().map(volume).collect(),
        }
    }

    /// Nobody looks for what they do not know of: a volume is named before its first backup, and after its end.
    #[test]
    fn volumes_in_clear_text_are_named_whether_they_have_snapshots_or_are_about_to() {
        let inventory = Inventory {
            snapshots: vec![
                snapshot("vol-gone", false),
                snapshot("vol-sealed", true),
                Snapshot { state: State::Error, ..snapshot("vol-failed", false) },
                Snapshot { environment: Some("staging".to_owned()), ..snapshot("vol-foreign", false) },
                Snapshot { volume: None, state: State::Pending, ..snapshot("", false) },
            ],
            instances: vec![
                instance(true, &[("vol-new", false), ("vol-excluded", true), ("vol-encrypted", false)]),
                instance(false, &[("vol-unselected", false)]),
            ],
            clear_volumes: ["vol-new", "vol-excluded", "vol-unselected"].map(str::to_owned).into(),
            ..Inventory::default()
        };
        let found = ClearText::of(&inventory, &settings());
        assert_eq!((found.unencrypted_snapshots, found.volume_count()), (2, 3));
        let named: Vec<_> = found.volumes.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["vol-new of i-1 (web)", "an unknown volume of i-gone", "vol-gone of i-gone"]);
        assert_eq!(
            found.warning().unwrap(),
            "not encrypted: 2 snapshots of 3 volumes, the first is vol-new of i-1 (web)"
        );
    }

    #[test]
    fn where_everything_is_encrypted_nothing_is_said() {
        let inventory = Inventory { snapshots: vec![snapshot("vol-1", true)], ..Inventory::default() };
        assert_eq!(ClearText::of(&inventory, &settings()).warning(), None);
    }
}

//! What the page says, before it is HTML.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use snapwarden_deployer::environment::{CopyPlace, Pricing};
use snapwarden_deployer::inventory::{Snapshot, Volume};
use snapwarden_deployer::scope::Scope;
use snapwarden_domain::event::day;
use snapwarden_domain::inventory::Instance;
use snapwarden_domain::names::Zone;

/// Everything that a page is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Where the environment is.
    pub(crate) scope: &'a Scope,
    /// Whose days are counted.
    pub(crate) zone: &'a Zone,
    /// What a GiB costs.
    pub(crate) pricing: &'a Pricing,
    /// The environment's snapshots.
    pub(crate) snapshots: &'a [Snapshot],
    /// The volumes there are, by id.
    pub(crate) volumes: &'a BTreeMap<String, Volume>,
    /// The instances that a backup selects.
    pub(crate) selected: &'a [Instance],
    /// The copies in each place that may hold some.
    pub(crate) elsewhere: &'a BTreeMap<CopyPlace, Vec<Snapshot>>,
    /// Where there may be more copies, which cannot be seen.
    pub(crate) unseen: &'a [CopyPlace],
    /// When all of it was found.
    pub(crate) now: Timestamp,
}

/// What the page says.
#[derive(Clone, Debug)]
pub(crate) struct Page<'a> {
    /// What it was made of.
    pub(crate) facts: Facts<'a>,
    /// The days of the calendar, today first: on a phone, what lies to the right is out of sight.
    pub(crate) days: Vec<Date>,
    /// Every volume that has a snapshot or should have one, by instance.
    pub(crate) rows: Vec<Row<'a>>,
    /// What expires when, the next day first.
    pub(crate) expiries: BTreeMap<Date, Share>,
    /// Snapshots that should be gone, and are not.
    pub(crate) held: Vec<&'a Snapshot>,
    /// Snapshots of volumes that are gone.
    pub(crate) orphaned: Vec<&'a Snapshot>,
    /// Snapshots that are not encrypted, those that failed not counted.
    pub(crate) clear: Vec<&'a Snapshot>,
    /// All of them.
    pub(crate) all: Share,
    /// What other places hold.
    pub(crate) elsewhere: Vec<Elsewhere<'a>>,
}

/// The copies that one place holds.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere<'a> {
    /// Where.
    pub(crate) place: &'a CopyPlace,
    /// Copies that can be restored.
    pub(crate) complete: Share,
    /// How many are being made.
    pub(crate) pending: usize,
    /// How many failed.
    pub(crate) failed: usize,
    /// Hours since the newest backup was begun that can be restored there.
    pub(crate) age_hours: Option<i64>,
    /// Volumes that have a backup at home, and none there.
    pub(crate) without: Vec<&'a str>,
}

/// One volume and its snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    /// Its id.
    pub(crate) volume: &'a str,
    /// The instance that it belonged to.
    pub(crate) instance: Option<&'a str>,
    /// Whether it still exists.
    pub(crate) exists: bool,
    /// Whether a backup selects it.
    pub(crate) selected: bool,
    /// The calendar's cells, one a day.
    pub(crate) cells: Vec<Cell>,
    /// Its snapshots, the newest first.
    pub(crate) snapshots: Vec<&'a Snapshot>,
    /// Hours since its newest completed snapshot was begun.
    pub(crate) age_hours: Option<i64>,
}

/// A volume's snapshots of one day. The order is that of what shows where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// There is none.
    Nothing,
    /// One failed.
    Failed,
    /// One is being made.
    Pending,
    /// One is complete.
    Complete,
}

/// A number of snapshots, and what they may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// How many there are.
    pub(crate) snapshots: usize,
    /// The sizes of their volumes: the most that they can take, since snapshots share what did not change.
    pub(crate) gib: i64,
}

impl Share {
    /// Of these snapshots.
    pub(crate) fn of<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Self {
        snapshots.into_iter().fold(Self::default(), |share, snapshot| Self {
            snapshots: share.snapshots + 1,
            gib: share.gib + i64::from(snapshot.size_gib),
        })
    }
}

/// How many days the calendar shows: five weeks.
const DAYS: i32 = 35;

impl<'a> Page<'a> {
    /// Sorts the facts into what the page says.
    pub(crate) fn of(facts: Facts<'a>) -> Self {
        let today = day(facts.now, facts.zone);
        let days: Vec<Date> = (0..DAYS).filter_map(|ago| today.checked_sub(ago.days()).ok()).collect();
        let mut by_volume: BTreeMap<(Option<&str>, &str), Vec<&Snapshot>> = BTreeMap::new();
        let mut expiries: BTreeMap<Date, Share> = BTreeMap::new();
        let mut held = Vec::new();
        for snapshot in facts.snapshots {
            let key = (snapshot.instance.as_deref(), snapshot.volume.as_str());
            by_volume.entry(key).or_default().push(snapshot);
            match snapshot.delete_on.as_deref().and_then(|date| date.parse::<Date>().ok()) {
                Some(due) if due > today => {
                    let share = expiries.entry(due).or_default();
                    share.snapshots += 1;
                    share.gib += i64::from(snapshot.size_gib);
                }
                _ => held.push(snapshot),
            }
        }
        let selected: BTreeMap<&str, &str> = selected(facts.selected).collect();
        let known: BTreeSet<&str> = facts.snapshots.iter().map(|snapshot| snapshot.volume.as_str()).collect();
        for (volume, instance) in selected.iter().filter(|(volume, _)| !known.contains(*volume)) {
            by_volume.insert((Some(*instance), *volume), Vec::new());
        }
        let row = |((instance, volume), snapshots)| Row {
            selected: selected.contains_key(volume),
            ..row(facts, &days, instance, volume, snapshots)
        };
        let clear = facts.snapshots.iter().filter(|it| !it.encrypted && cell(it) != Cell::Failed).collect();
        let orphaned = facts.snapshots.iter().filter(|it| !facts.volumes.contains_key(&it.volume)).collect();
        let rows: Vec<_> = by_volume.into_iter().map(row).collect();
        let elsewhere =
            facts.elsewhere.iter().map(|(place, copies)| elsewhere(facts, &rows, place, copies)).collect();
        Self {
            facts,
            rows,
            elsewhere,
            days,
            expiries,
            held,
            orphaned,
            clear,
            all: Share::of(facts.snapshots),
        }
    }

    /// Volumes that a backup selects, and that nobody could restore.
    pub(crate) fn never_backed_up(&self) -> impl Iterator<Item = &Row<'a>> {
        self.rows.iter().filter(|row| row.selected && row.age_hours.is_none())
    }

    /// The age of the newest backup of the volume, of those that still exist, whose newest one is oldest.
    pub(crate) fn oldest_hours(&self) -> Option<i64> {
        self.rows.iter().filter(|row| row.exists).filter_map(|row| row.age_hours).max()
    }
}

/// The volumes that a backup selects, each with its instance.
fn selected(instances: &[Instance]) -> impl Iterator<Item = (&str, &str)> {
    instances.iter().flat_map(|instance| {
        let wanted = instance.volumes.iter().filter(|volume| !volume.excluded);
        wanted.map(move |volume| (volume.id.as_str(), instance.id.as_str()))
    })
}

fn row<'a>(
    facts: Facts<'a>,
    days: &[Date],
    instance: Option<&'a str>,
    volume: &'a str,
    mut snapshots: Vec<&'a Snapshot>,
) -> Row<'a> {
    snapshots.sort_by_key(|snapshot| (std::cmp::Reverse(snapshot.started_at), &snapshot.snapshot));
    let mut cells = vec![Cell::Nothing; days.len()];
    for snapshot in &snapshots {
        let Some(begun) = snapshot.started_at.map(|at| day(at, facts.zone)) else { continue };
        let Some(index) = days.iter().position(|day| *day == begun) else { continue };
        cells[index] = cells[index].max(cell(snapshot));
    }
    let newest = snapshots.iter().find(|snapshot| cell(snapshot) == Cell::Complete);
    let age = newest.and_then(|snapshot| Some(facts.now.duration_since(snapshot.started_at?)));
    Row {
        volume,
        instance,
        exists: facts.volumes.contains_key(volume),
        selected: false,
        cells,
        age_hours: age.map(|age| age.as_hours()),
        snapshots,
    }
}

fn elsewhere<'a>(
    facts: Facts<'a>,
    rows: &[Row<'a>],
    place: &'a CopyPlace,
    copies: &'a [Snapshot],
) -> Elsewhere<'a> {
    let all = |wanted: Cell| copies.iter().filter(move |copy| cell(copy) == wanted);
    let newest = all(Cell::Complete).filter_map(|copy| copy.started_at).max();
    let there: BTreeSet<&str> = all(Cell::Complete).map(|copy| copy.volume.as_str()).collect();
    let at_home = rows.iter().filter(|row| row.exists && row.age_hours.is_some()).map(|row| row.volume);
    Elsewhere {
        place,
        complete: Share::of(all(Cell::Complete)),
        pending: all(Cell::Pending).count(),
        failed: all(Cell::Failed).count(),
        age_hours: newest.map(|newest| facts.now.duration_since(newest).as_hours()),
        without: at_home.filter(|volume| !there.contains(volume)).collect(),
    }
}

fn cell(snapshot: &Snapshot) -> Cell {
    match snapshot.state.as_str() {
        "completed" => Cell::Complete,
        "error" => Cell::Failed,
        _ => Cell::Pending,
    }
}

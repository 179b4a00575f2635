//! One pass: what `domain::sealing` decides, done in EC2; and after it, in `copies`, what other places lack.
//!
//! A pass remembers nothing and waits for no copy: how far each snapshot is shows in EC2. What it has no time for, or
//! no place, is the next one's.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use snapwarden_domain::inventory::{Snapshot, State};
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::{Failure, SealedSnapshot, SealingReport, UnsealedSnapshot};
use snapwarden_domain::sealing::{Sealing, Stage, Survey};
use snapwarden_domain::settings::{CleanupSettings, Encryption};
use snapwarden_runtime::{Ec2, Invocation, ec2 as shared, inventory};

use crate::copies;
use crate::copy::{Answer, Order, copy, denial, is_for_all, tags_of_copy};
use crate::ec2::{self, Deletion};
use crate::share::Shared;

/// How many deletions are under way at a time.
const CONCURRENCY: usize = 8;

/// The tags of the snapshots in clear text, by their ids: a copy carries them.
type Tags = BTreeMap<String, BTreeMap<String, String>>;

/// Begins copies, deletes what they make superfluous, and says how far everything is.
pub(crate) async fn seal(invocation: Invocation<CleanupSettings>) -> Result<SealingReport, Failure> {
    let Invocation { settings, event, ec2: client, .. } = &invocation;
    if !settings.has_passes() {
        return Err(Failure::new(
            "nothing is to be sealed: encryption.require is not `enforce`, and there is no copy_to",
            "set one of them in the environment file and deploy",
        ));
    }
    let kms_key = match &settings.encryption {
        Encryption::Enforce { kms_key } => Some(kms_key.as_str()),
        Encryption::Off | Encryption::Report => None,
    };
    let seals = kms_key.is_some();
    let report = SealingReport::new(settings.environment.clone(), event.run(), event.dry_run, seals);
    let mut pass = Pass {
        invocation: &invocation,
        kms_key: kms_key.unwrap_or_default(),
        report,
        owner: settings.owner(),
    };

    // First, see there.
    let mut shared = Vec::new();
    for target in &settings.copy_to {
        shared.push(Shared::read(&invocation, target).await);
    }
    let (mut snapshots, tags) = listed(client, settings).await?;
    if seals && is_about_anything(&snapshots) {
        let inventory =
            inventory::read_around(client, snapshots, &settings.select, invocation.is_emulated).await?;
        let today = invocation.clock.today(&settings.timezone);
        let survey = Survey::of(&inventory, today, invocation.clock.now(), settings);
        pass.tell(&survey);
        if event.dry_run {
            pass.would(&survey, &tags).await;
        } else {
            pass.delete(&survey).await;
            pass.copy(&survey, &tags).await;
        }
        snapshots = inventory.snapshots;
    }
    // Afterwards, since a place that does not answer takes its time.
    for (target, shared) in settings.copy_to.iter().zip(shared) {
        // One file may be deployed to several Regions.
        if target.role.is_none() && client.region() == Some(&target.region) {
            let region = &target.region;
            pass.report
                .warnings
                .push(format!("copy_to names {region}, which is this Region: nothing is copied"));
            continue;
        }
        let (there, warnings) = copies::copy_to(&invocation, target, shared, &snapshots).await;
        pass.report.copy_to.push(there);
        pass.report.warnings.extend(warnings);
    }
    pass.report.effort = invocation.effort();
    Ok(pass.report.shortened())
}

/// All of the environment's snapshots, and the tags of those that may be copied.
async fn listed(client: &Ec2, settings: &CleanupSettings) -> Result<(Vec<Snapshot>, Tags), Failure> {
    let found = shared::snapshots(client, &settings.environment, Vec::new(), |listed| {
        let snapshot = inventory::read_snapshot(listed)?;
        let pair = |tag: &aws_sdk_ec2::types::Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
        let tags = is_clear(&snapshot).then(|| listed.tags().iter().filter_map(pair).collect());
        Some((snapshot, tags))
    });
    let (mut snapshots, mut all) = (Vec::new(), Tags::new());
    for (snapshot, tags) in found.await? {
        all.extend(tags.map(|tags| (snapshot.id.clone(), tags)));
        snapshots.push(snapshot);
    }
    Ok((snapshots, all))
}

fn is_clear(snapshot: &Snapshot) -> bool {
    !snapshot.encrypted && snapshot.state != State::Error
}

/// Whether a look at anything else could find work: mostly, everything has been sealed long ago.
fn is_about_anything(snapshots: &[Snapshot]) -> bool {
    let mut origins = BTreeSet::new();
    let is_second = |snapshot: &Snapshot| !origins.insert(snapshot.origin().to_owned());
    snapshots.iter().any(is_clear) || snapshots.iter().any(is_second)
}

/// A pass on its way.
struct Pass<'a> {
    invocation: &'a Invocation<CleanupSettings>,
    kms_key: &'a str,
    report: SealingReport,
    owner: Owner,
}

impl Pass<'_> {
    /// How far everything is.
    fn tell(&mut self, survey: &Survey<'_>) {
        let report = &mut self.report;
        report.unencrypted_snapshots = survey.sealings.len();
        report.waiting = survey.waiting();
        for Sealing { snapshot, stage } in &survey.sealings {
            match stage {
                Stage::Pending => report.pending += 1,
                Stage::Expiring => report.expiring += 1,
                Stage::Copying(copy) => report.copying.push(SealedSnapshot::of(snapshot, Some(&copy.id))),
                Stage::Held(fence) => {
                    let reason = fence.reason(snapshot);
                    let failure = Failure { code: None, message: reason, hint: None };
                    report.held.push(unsealed(snapshot, failure));
                }
                Stage::Doubtful(copy, doubt) => {
                    let failure = Failure::new(
                        format!("its copy {} {doubt}", copy.id),
                        "look at both; where the copy is wrong, delete it, and another one is made",
                    );
                    report.held.push(unsealed(snapshot, failure));
                }
                Stage::Failed(copy) => {
                    let why = copy.state_message.as_deref().unwrap_or("EC2 does not say why");
                    let failure = Failure::new(
                        format!("its copy {} failed: {why}", copy.id),
                        "see encryption.kms_key and its key policy; it is tried again after six hours, or once the \
                         failed copy is deleted",
                    );
                    tracing::error!(snapshot = snapshot.id, copy = copy.id, "{failure}");
                    report.failed.push(unsealed(snapshot, failure));
                }
                Stage::Clear | Stage::Sealed(_) => {}
            }
        }
        if let Some(first) = report.held.first() {
            let count = report.held.len();
            let warning =
                format!("{count} stay in clear text, {} the first: {}", first.snapshot, first.failure);
            report.warnings.push(warning);
        }
    }

    /// Says what would be done, and lets EC2 confirm the rights to, by the first of each.
    async fn would(&mut self, survey: &Survey<'_>, tags: &Tags) {
        let client = &self.invocation.ec2;
        for snapshot in survey.to_copy() {
            self.report.begun.push(SealedSnapshot::of(snapshot, None));
        }
        for (gone, stays) in survey.to_delete() {
            self.deleted(gone, stays);
        }
        if let Some(first) = survey.to_copy().first() {
            let (tags, _) = tags_of_copy(first, tags.get(&first.id).unwrap_or(&BTreeMap::new()));
            let copied = copy(client, self.order(first, &tags), true).await;
            self.report.problems.extend(denial(copied).0);
        }
        if let Some((first, _)) = survey.to_delete().first() {
            self.report.problems.extend(ec2::may_delete(client, &first.id).await.err());
        }
    }

    /// Deletes what has a checked copy, or is superfluous itself, after one more look at what stays.
    async fn delete(&mut self, survey: &Survey<'_>) {
        let Invocation { ec2: client, deadline, .. } = self.invocation;
        let wanted = survey.to_delete();
        let stays: BTreeSet<_> = wanted.iter().map(|(_, stays)| stays.id.clone()).collect();
        let there = match ec2::completed(client, &self.owner, &stays).await {
            Ok(there) => there,
            Err(failure) => {
                let failure = failure.during("nothing was deleted: the copies could not be looked at again");
                return self.report.problems.push(failure);
            }
        };
        // What has changed since the list was made is the next pass's.
        let wanted: Vec<_> = wanted.into_iter().filter(|(_, stays)| there.contains(&stays.id)).collect();
        let mut deletions = stream::iter(&wanted)
            .map(async |(gone, stays)| (*gone, *stays, ec2::delete(client, &gone.id, *deadline).await))
            .buffer_unordered(CONCURRENCY);
        let mut claimed = BTreeMap::new();
        while let Some((gone, stays, outcome)) = deletions.next().await {
            match outcome {
                None => {}
                Some(Ok(Deletion::Done)) => _ = claimed.insert(gone.id.clone(), (gone, stays)),
                Some(Ok(Deletion::Held(fence))) => {
                    let failure = Failure { code: None, message: fence.reason(gone), hint: None };
                    self.report.held.push(unsealed(gone, failure));
                }
                Some(Err(failure)) => self.fail(gone, failure.during("not deleted")),
            }
        }
        drop(deletions);
        let left = self.still_there(claimed.keys().cloned().collect()).await;
        for (id, (gone, stays)) in claimed {
            if left.contains(&id) {
                let failure = Failure::new(
                    "EC2 accepted the deletion, but still lists the snapshot",
                    "the next pass tries again",
                );
                self.fail(gone, failure);
            } else {
                tracing::info!(snapshot = gone.id, volume = gone.volume, stays = stays.id, "deleted");
                self.deleted(gone, stays);
            }
        }
    }

    fn deleted(&mut self, gone: &Snapshot, stays: &Snapshot) {
        if gone.copy.is_some() {
            self.report.superfluous.push(gone.id.clone());
            return;
        }
        self.report.sealed.push(SealedSnapshot::of(gone, Some(&stays.id)));
        if !self.report.dry_run {
            self.report.unencrypted_snapshots -= 1;
        }
    }

    /// Those that EC2 still lists after some seconds; all, where it cannot be asked.
    async fn still_there(&mut self, ids: BTreeSet<String>) -> BTreeSet<String> {
        let Invocation { ec2: client, deadline, .. } = self.invocation;
        let (doubtful, looked) =
            ec2::left(client, &self.owner, ids, *deadline, "the next pass looks again").await;
        self.report
            .problems
            .extend(looked.err().map(|failure| failure.during("deletions could not be verified")));
        doubtful
    }

    fn order<'b>(&'b self, snapshot: &'b Snapshot, tags: &'b BTreeMap<String, String>) -> Order<'b> {
        let from = self.invocation.ec2.region().unwrap_or_default();
        Order { snapshot, from, tags, key: self.kms_key, presigned_url: None }
    }

    /// Begins copies, until all are, EC2 has no place for more, or the time is up. One that cannot be begun takes no place from
    /// the next.
    async fn copy(&mut self, survey: &Survey<'_>, tags: &Tags) {
        let (clear, mut places) = (survey.clear().collect::<Vec<_>>(), survey.places());
        let nothing = BTreeMap::new();
        for (index, snapshot) in clear.iter().enumerate() {
            self.report.waiting = clear.len() - index;
            if places == 0 || self.invocation.deadline.has_passed() {
                return;
            }
            let (tags, dropped) = tags_of_copy(snapshot, tags.get(&snapshot.id).unwrap_or(&nothing));
            if dropped > 0 {
                self.report
                    .warnings
                    .push(format!("{dropped} tags of {} do not fit on its copy", snapshot.id));
            }
            match copy(&self.invocation.ec2, self.order(snapshot, &tags), false).await {
                Ok(id) => {
                    tracing::info!(snapshot = snapshot.id, volume = snapshot.volume, copy = id, "copy begun");
                    self.report.begun.push(SealedSnapshot::of(snapshot, Some(&id)));
                    places -= 1;
                }
                Err(Answer::NoPlace) => {
                    self.report.warnings.push(
                        "EC2 takes no more copies for now: 20 run at a time for all of the account, and the rest waits"
                            .to_owned(),
                    );
                    return;
                }
                Err(Answer::NotNow) => self.report.pending += 1,
                Err(Answer::Unclear(failure)) => {
                    self.fail(snapshot, failure.during("a copy may have been begun; the next pass looks"));
                    places -= 1;
                }
                Err(Answer::Refused(failure)) => {
                    let ends = is_for_all(&failure);
                    self.fail(snapshot, failure.during("not copied"));
                    // The role may copy all of the environment's snapshots, or none.
                    if ends {
                        self.report.waiting -= 1;
                        return;
                    }
                }
            }
        }
        self.report.waiting = 0;
    }

    fn fail(&mut self, snapshot: &Snapshot, failure: Failure) {
        tracing::error!(snapshot = snapshot.id, volume = snapshot.volume, "{failure}");
        self.report.failed.push(unsealed(snapshot, failure));
    }
}

pub(crate) fn unsealed(snapshot: &Snapshot, failure: Failure) -> UnsealedSnapshot {
    UnsealedSnapshot { snapshot: snapshot.id.clone(), volume: snapshot.volume.clone(), failure }
}

#[cfg(test)]
mod tests;

//! What a run does for the places that hold copies, other Regions and other accounts: a pass begins what is missing there,
//! a cleanup deletes what is due.
//!
//! Whatever goes wrong in one place is told in its part of the report, and stops nothing in any other.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::config::SharedCredentialsProvider;
use snapwarden_domain::continuation::Continuation;
use snapwarden_domain::copying::{Copies, Stage, Superfluous, Wanted};
use snapwarden_domain::inventory::{Inventory, Snapshot};
use snapwarden_domain::owner::Owner;
use snapwarden_domain::report::{CleanupReport, Failure, RegionCleanup, RegionCopies, SealedSnapshot};
use snapwarden_domain::settings::{CleanupSettings, CopyTarget};
use snapwarden_domain::verdict::judge;
use snapwarden_runtime::sharing::{self, Sharing, shared_with};
use snapwarden_runtime::{Ec2, Invocation, ec2 as listing, inventory, presign};

use crate::copy::{Copied, Order, copy, tags_of_copy_elsewhere};
use crate::ec2::{self, Deletion};
use crate::handler::{Run, begun};
use crate::seal::unsealed;
use crate::spent::Spent;

/// A place that holds copies, as an invocation reaches it.
struct Place {
    /// EC2 there.
    client: Ec2,
    /// Whose the copies are.
    owner: Owner,
    /// What calls there are signed with.
    credentials: Option<SharedCredentialsProvider>,
}

impl Place {
    async fn reach(invocation: &Invocation<CleanupSettings>, target: &CopyTarget) -> Result<Self, Failure> {
        let Invocation { settings, ec2: home, roles, .. } = invocation;
        let owner = settings.owner_of_copies(home.region().unwrap_or_default(), target);
        let of_role = match &target.role {
            Some(role) => Some(roles.assume(role, &settings.environment).await?),
            None => None,
        };
        let client = home.elsewhere(&target.region, of_role.clone());
        Ok(Self { client, owner, credentials: of_role.or_else(|| roles.own().cloned()) })
    }

    /// The copies that it holds.
    async fn list(&self) -> Result<Vec<Snapshot>, Failure> {
        let Self { client, owner, .. } = self;
        listing::snapshots(client, owner, Vec::new(), |listed| inventory::read_copy(listed, owner)).await
    }
}

/// Begins the copies that a place lacks, deletes those of no more use, and says how far everything is.
pub(crate) async fn copy_to(
    invocation: &Invocation<CleanupSettings>,
    target: &CopyTarget,
    sources: &[Snapshot],
) -> (RegionCopies, Vec<String>) {
    let mut report = RegionCopies::at(target);
    let place = match Place::reach(invocation, target).await {
        Ok(place) => place,
        Err(failure) => {
            tracing::error!(place = %target, "{failure}");
            report.problems.push(failure);
            return (report, Vec::new());
        }
    };
    let mut pass = Pass { invocation, target, place, shared: BTreeSet::new(), report, warnings: Vec::new() };
    if let Err(failure) = pass.go(sources).await {
        tracing::error!(place = %target, "{failure}");
        pass.report.problems.push(failure);
    }
    pass.report.shared = pass.report.shared.map(|_| pass.shared.len());
    (pass.report, pass.warnings)
}

/// A pass on its way in one place.
struct Pass<'a> {
    invocation: &'a Invocation<CleanupSettings>,
    target: &'a CopyTarget,
    place: Place,
    /// The snapshots at home that the other account may read.
    shared: BTreeSet<String>,
    report: RegionCopies,
    warnings: Vec<String>,
}

impl Pass<'_> {
    async fn go(&mut self, sources: &[Snapshot]) -> Result<(), Failure> {
        let Invocation { settings, clock, event, is_emulated, ec2: home, .. } = self.invocation;
        let today = clock.today(&settings.timezone);
        let mut there = self.place.list().await?;
        if let Some(account) = self.target.account() {
            self.shared = shared_with(home, &settings.owner(), account).await?;
            self.report.shared = Some(self.shared.len());
        }
        if !Copies::of(sources, &there, today, clock.now(), self.target, settings).superfluous.is_empty() {
            // Mostly there is nothing to delete, and nobody has to know what holds each.
            there = inventory::with_holders(&self.place.client, there, *is_emulated).await?;
        }
        let copies = Copies::of(sources, &there, today, clock.now(), self.target, settings);
        self.tell(&copies);
        if event.dry_run {
            self.would(&copies).await;
        } else {
            self.withdraw(copies.to_withdraw(sources, &self.shared)).await;
            self.delete(&copies.superfluous).await?;
            self.copy(&copies.to_copy()).await?;
        }
        Ok(())
    }

    /// How far everything is.
    fn tell(&mut self, copies: &Copies<'_>) {
        let now = self.invocation.clock.now();
        let report = &mut self.report;
        report.waiting = copies.waiting();
        // A backup that is to be made is behind by nothing.
        let hours = |since| u64::try_from(now.duration_since(since).as_hours()).unwrap_or_default();
        report.behind_hours = (!copies.is_paused).then(|| copies.behind_since().map_or(0, hours));
        for Wanted { source, stage, .. } in &copies.wanted {
            match stage {
                Stage::Missing => {}
                Stage::Unsealed => report.unsealed += 1,
                Stage::Copying(copy) => report.copying.push(SealedSnapshot::of(source, Some(&copy.id))),
                Stage::Copied(_) => {
                    report.copied += 1;
                    report.newest = report.newest.max(source.started_at);
                }
                Stage::Doubtful(copy, doubt) => {
                    let failure = Failure::new(
                        format!("its copy {} {doubt}", copy.id),
                        "look at both; where the copy is wrong, delete it, and another one is made",
                    );
                    report.held.push(unsealed(source, failure));
                }
                Stage::Failed(copy) => {
                    let why = copy.state_message.as_deref().unwrap_or("EC2 does not say why");
                    let failure = Failure::new(
                        format!("its copy {} failed: {why}", copy.id),
                        "see the key of this Region in copy_to, its key policy, and that of the source's key; it is tried \
                         again after six hours, or once the failed copy is deleted",
                    );
                    tracing::error!(snapshot = source.id, copy = copy.id, "{failure}");
                    report.failed.push(unsealed(source, failure));
                }
            }
        }
    }

    /// Says what would be done, and lets EC2 confirm the rights to, by the first of each.
    async fn would(&mut self, copies: &Copies<'_>) {
        let wanted = copies.to_copy();
        self.report.begun.extend(wanted.iter().map(|one| SealedSnapshot::of(one.source, None)));
        self.report.superfluous.extend(copies.superfluous.iter().map(|one| one.copy.id.clone()));
        if let Some(first) = wanted.first() {
            self.report.problems.extend(self.grant(&first.source.id, true).await.err());
            let (tags, _) = tags_of_copy_elsewhere(first, &BTreeMap::new(), &self.place.owner);
            let denial = match self.order(first.source, &tags).await {
                Ok(order) => copy(&self.place.client, order, true).await.denial(),
                Err(failure) => Some(failure),
            };
            self.report.problems.extend(denial);
        }
        if let Some(first) = copies.superfluous.first() {
            self.report.problems.extend(ec2::may_delete(&self.place.client, &first.copy.id).await.err());
        }
    }

    /// Takes back what the other account needs to read no more.
    async fn withdraw(&mut self, ids: Vec<String>) {
        let Invocation { ec2: home, deadline, .. } = self.invocation;
        let Some(account) = self.target.account() else { return };
        for id in ids {
            if deadline.has_passed() {
                return;
            }
            match sharing::change(home, &id, account, Sharing::Withdrawn, false).await {
                Ok(()) => _ = self.shared.remove(&id),
                Err(failure) => {
                    let is_for_all = is_for_all(&failure);
                    let failure = failure.during(&format!("{id} is still shared with account {account}"));
                    tracing::error!("{failure}");
                    self.report.problems.push(failure);
                    if is_for_all {
                        return;
                    }
                }
            }
        }
    }

    /// Lets the other account at a snapshot, unless there is none, or it may read it already.
    async fn share(&mut self, id: &str) -> Result<(), Failure> {
        if self.target.role.is_some() && !self.shared.contains(id) {
            self.grant(id, false).await?;
            self.shared.insert(id.to_owned());
        }
        Ok(())
    }

    async fn grant(&self, id: &str, dry_run: bool) -> Result<(), Failure> {
        let Some(account) = self.target.account() else { return Ok(()) };
        let granted = sharing::change(&self.invocation.ec2, id, account, Sharing::Granted, dry_run).await;
        granted.map_err(|failure| {
            let failure = failure.during(&format!("could not be shared with account {account}"));
            if is_for_all(&failure) {
                return failure;
            }
            let hint = "what AWS's own key, alias/aws/ebs, encrypts cannot be shared: copy it under a key of yours, see \
                        docs/copies.md";
            Failure { hint: Some(hint.to_owned()), ..failure }
        })
    }

    /// Deletes copies of no more use, after one more look at what stays.
    async fn delete(&mut self, superfluous: &[Superfluous<'_>]) -> Result<(), Failure> {
        let deadline = self.invocation.deadline;
        let stays: BTreeSet<_> = superfluous.iter().filter_map(|one| Some(one.stays?.id.clone())).collect();
        let there =
            ec2::completed(&self.place.client, &self.place.owner, &stays).await.map_err(|failure| {
                failure.during("nothing was deleted: the copies could not be looked at again")
            })?;
        let mut claimed = BTreeMap::new();
        for Superfluous { copy, stays } in superfluous {
            // What has changed since the list was made is the next pass's.
            if stays.is_some_and(|stays| !there.contains(&stays.id)) {
                continue;
            }
            match ec2::delete(&self.place.client, &copy.id, deadline).await {
                None => break,
                Some(Ok(Deletion::Done)) => _ = claimed.insert(copy.id.clone(), *copy),
                // A lock or an AMI that nobody saw a moment ago: the next pass sees it.
                Some(Ok(Deletion::Held(_))) => {}
                Some(Err(failure)) => self.fail(copy, failure.during("not deleted")),
            }
        }
        let ids = claimed.keys().cloned().collect();
        let then = "the next pass looks again";
        let (left, looked) = ec2::left(&self.place.client, &self.place.owner, ids, deadline, then).await;
        let unseen = looked.err().map(|failure| failure.during("deletions could not be verified"));
        self.report.problems.extend(unseen);
        for (id, copy) in claimed {
            if left.contains(&id) {
                let still_there = "EC2 accepted the deletion, but still lists the snapshot";
                self.fail(copy, Failure::new(still_there, "the next pass tries again"));
            } else {
                tracing::info!(snapshot = id, place = %self.target, "deleted");
                self.report.superfluous.push(id);
            }
        }
        Ok(())
    }

    /// Begins copies, until all are, EC2 has no place for more, or the time is up.
    async fn copy(&mut self, wanted: &[Wanted<'_>]) -> Result<(), Failure> {
        let Invocation { ec2: home, settings, deadline, .. } = self.invocation;
        let ids: BTreeSet<_> = wanted.iter().map(|one| one.source.id.clone()).collect();
        let tags = ec2::tags_of_completed(home, &settings.owner(), &ids).await?;
        for (index, one) in wanted.iter().enumerate() {
            let left = wanted.len() - index;
            if deadline.has_passed() {
                self.report.waiting += left;
                break;
            }
            // Gone meanwhile, which a sealing pass beside this one may do: the next pass sees what took its place.
            let Some(tags) = tags.get(&one.source.id) else { continue };
            let (tags, dropped) = tags_of_copy_elsewhere(one, tags, &self.place.owner);
            if dropped > 0 {
                self.warnings.push(format!("{dropped} tags of {} do not fit on its copy", one.source.id));
            }
            if let Err(failure) = self.share(&one.source.id).await {
                let is_for_all = is_for_all(&failure);
                self.fail(one.source, failure.during("not copied"));
                if is_for_all {
                    self.report.waiting += left - 1;
                    break;
                }
                continue;
            }
            let order = self.order(one.source, &tags).await?;
            match copy(&self.place.client, order, false).await {
                Copied::Begun(id) => {
                    let (place, snapshot) = (self.target, &one.source.id);
                    tracing::info!(snapshot, %place, copy = id, "copy begun");
                    self.report.begun.push(SealedSnapshot::of(one.source, Some(&id)));
                }
                Copied::NoPlace => {
                    self.report.waiting += left;
                    self.warnings.push(format!(
                        "EC2 takes no more copies in {} for now: 20 run at a time for all of the account, and the rest \
                         waits",
                        self.target
                    ));
                    break;
                }
                Copied::NotNow => {}
                Copied::Unclear(failure) => {
                    self.fail(one.source, failure.during("a copy may have been begun; the next pass looks"));
                }
                Copied::Refused(failure) => {
                    let is_for_all = is_for_all(&failure);
                    self.fail(one.source, failure.during("not copied"));
                    // The role may copy all of the environment's snapshots, or none.
                    if is_for_all {
                        self.report.waiting += left - 1;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn order<'b>(
        &'b self,
        snapshot: &'b Snapshot,
        tags: &'b BTreeMap<String, String>,
    ) -> Result<Order<'b>, Failure> {
        let from = self.invocation.ec2.region().unwrap_or_default();
        let regions = (from, self.target.region.as_str());
        let credentials = self.place.credentials.as_ref();
        let presigned_url = if from == self.target.region {
            None
        } else {
            Some(presign::copy_url(credentials, regions, &snapshot.id).await?)
        };
        Ok(Order { snapshot, from, tags, key: &self.target.kms_key, presigned_url })
    }

    fn fail(&mut self, snapshot: &Snapshot, failure: Failure) {
        tracing::error!(snapshot = snapshot.id, place = %self.target, "{failure}");
        self.report.failed.push(unsealed(snapshot, failure));
    }
}

/// Whether a failure says that the role lacks a right, which it has for all of the environment's snapshots or for none.
fn is_for_all(failure: &Failure) -> bool {
    failure.code.as_deref() == Some("UnauthorizedOperation")
}

/// Deletes in every place the copies that no fence holds, by the same verdicts as at home: the floor keeps the newest
/// whole sets of an instance there as well, as long as the instance exists, which is at home.
///
/// `listed` is how many snapshots a dry run would have deleted so far: the limit of a run is for all places together.
pub(crate) async fn clean_up(
    invocation: &Invocation<CleanupSettings>,
    home: &Inventory,
    spent: &Spent,
    mut listed: usize,
) -> Vec<RegionCleanup> {
    let mut all = Vec::new();
    for target in &invocation.settings.copy_to {
        let read = async {
            let place = Place::reach(invocation, target).await?;
            let Place { client, owner, .. } = &place;
            let inventory = inventory::read_copies(client, owner, home, invocation.is_emulated).await?;
            Ok((place, inventory))
        };
        let read = invocation.deadline.before_the_end(read).await;
        let out_of_time = || Err(Failure::new("the function was out of time", "the next run looks again"));
        let part = match read.unwrap_or_else(out_of_time) {
            Ok((place, inventory)) => {
                let report = clean_up_place(invocation, &place, &inventory, spent, listed).await;
                RegionCleanup::of(target, report)
            }
            Err(failure) => {
                tracing::error!(place = %target, "the copies could not be looked at: {failure}");
                RegionCleanup::unseen(target, failure.during("the copies could not be looked at"))
            }
        };
        listed += part.would_delete.len();
        all.push(part);
    }
    all
}

async fn clean_up_place(
    invocation: &Invocation<CleanupSettings>,
    place: &Place,
    inventory: &Inventory,
    spent: &Spent,
    listed: usize,
) -> CleanupReport {
    let Invocation { settings, event, clock, .. } = invocation;
    let verdicts = judge(inventory, clock.today(&settings.timezone), settings);
    let before = event.continuation.as_ref();
    let handed_on = before.map_or(0, |before| before.done);
    let listed = u64::try_from(listed).unwrap_or(u64::MAX);
    let deleted_earlier = spent.before(&event.run(), handed_on).saturating_add(listed);
    let mut run = Run {
        invocation,
        ec2: &place.client,
        owner: place.owner.clone(),
        spent,
        failures: before.map(Continuation::failures_by_resource).unwrap_or_default(),
        report: begun(invocation, &verdicts, deleted_earlier),
    };
    run.carry_out(&verdicts).await;
    run.report
}

#[cfg(test)]
mod tests;

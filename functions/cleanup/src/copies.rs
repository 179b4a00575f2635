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
use snapwarden_domain::report::{CleanupReport, Failure, PlaceCleanup, PlaceCopies, SealedSnapshot};
use snapwarden_domain::settings::{CleanupSettings, CopyTarget};
use snapwarden_domain::verdict::judge;
use snapwarden_runtime::{Ec2, Invocation, ec2 as listing, inventory, presign};

use crate::copy::{Answer, Order, copy, denial, is_for_all, tags_of_copy_elsewhere};
use crate::ec2::{self, Deletion};
use crate::handler::{Run, begun};
use crate::seal::unsealed;
use crate::share::Shared;
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

/// Begins the copies that a place lacks, deletes those of no more use, and says how far everything is. `shared` is what the
/// place's account may read.
pub(crate) async fn copy_to(
    invocation: &Invocation<CleanupSettings>,
    target: &CopyTarget,
    shared: Result<Option<Shared<'_>>, Failure>,
    sources: &[Snapshot],
) -> (PlaceCopies, Vec<String>) {
    let mut report = PlaceCopies::at(target);
    let mut shared = match shared {
        Ok(shared) => shared,
        Err(failure) => return (unseen(target, report, failure), Vec::new()),
    };
    let looked = async {
        let place = Place::reach(invocation, target).await?;
        let there = place.list().await?;
        Ok((place, there))
    };
    let (place, there) = match looked.await {
        Ok(looked) => looked,
        Err(failure) => {
            report = unseen(target, report, failure);
            // Else nobody could ever give the place up.
            if let Some(shared) = shared.as_mut().filter(|_| target.paused && !invocation.event.dry_run) {
                let all = shared.ids().iter().cloned().collect();
                report.problems.extend(shared.withdraw(all, invocation.deadline).await);
            }
            report.shared = shared.map(|shared| shared.ids().len());
            return (report, Vec::new());
        }
    };
    let mut pass = Pass { invocation, target, place, shared, report, warnings: Vec::new() };
    if let Err(failure) = pass.go(there, sources).await {
        tracing::error!(place = %target, "{failure}");
        pass.report.problems.push(failure);
    }
    pass.report.shared = pass.shared.map(|shared| shared.ids().len());
    (pass.report, pass.warnings)
}

/// The report of a place that could not be looked at.
fn unseen(target: &CopyTarget, mut report: PlaceCopies, failure: Failure) -> PlaceCopies {
    tracing::error!(place = %target, "{failure}");
    report.unseen = true;
    report.problems.push(failure);
    report
}

/// A pass on its way in one place.
struct Pass<'a> {
    invocation: &'a Invocation<CleanupSettings>,
    target: &'a CopyTarget,
    place: Place,
    /// What the other account may read, where there is one.
    shared: Option<Shared<'a>>,
    report: PlaceCopies,
    warnings: Vec<String>,
}

impl Pass<'_> {
    async fn go(&mut self, mut there: Vec<Snapshot>, sources: &[Snapshot]) -> Result<(), Failure> {
        let Invocation { settings, clock, event, is_emulated, deadline, .. } = self.invocation;
        let today = clock.today(&settings.timezone);
        if !Copies::of(sources, &there, today, clock.now(), self.target, settings).superfluous.is_empty() {
            // Mostly there is nothing to delete, and nobody has to know what holds each.
            there = inventory::with_holders(&self.place.client, there, *is_emulated).await?;
        }
        let copies = Copies::of(sources, &there, today, clock.now(), self.target, settings);
        self.tell(&copies);
        if event.dry_run {
            self.would(&copies).await;
            return Ok(());
        }
        if let Some(shared) = &mut self.shared {
            let withdrawn = shared.withdraw(copies.to_withdraw(sources, shared.ids()), *deadline).await;
            self.report.problems.extend(withdrawn);
        }
        self.delete(&copies.superfluous).await?;
        self.copy(&copies).await
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
            if let Some(shared) = &self.shared {
                self.report.problems.extend(shared.may_grant(&first.source.id).await.err());
            }
            let (tags, _) = tags_of_copy_elsewhere(first, &BTreeMap::new(), &self.place.owner);
            let (denial, is_untold) = match self.order(first.source, &tags).await {
                Ok(order) => denial(copy(&self.place.client, order, true).await),
                Err(failure) => (Some(failure), false),
            };
            self.report.problems.extend(denial);
            if is_untold {
                self.warnings.push(format!(
                    "EC2 does not say whether {} could be copied to {}: a dry run shares nothing",
                    first.source.id, self.target
                ));
            }
        }
        if let Some(first) = copies.superfluous.first() {
            self.report.problems.extend(ec2::may_delete(&self.place.client, &first.copy.id).await.err());
        }
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

    /// Begins copies, until all are, EC2 has no place for more, or the time is up. One that cannot be begun takes no place from
    /// the next.
    async fn copy(&mut self, copies: &Copies<'_>) -> Result<(), Failure> {
        /// How many sources' tags are read at a time: mostly, no more copies than that are begun.
        const CHUNK: usize = 40;

        let Invocation { ec2: home, settings, deadline, .. } = self.invocation;
        let mut places = copies.places();
        let missing: Vec<_> = copies.missing().collect();
        let mut tags = BTreeMap::new();
        for (index, one) in missing.iter().enumerate() {
            let id = &one.source.id;
            self.report.waiting = missing.len() - index;
            if places == 0 || deadline.has_passed() {
                return Ok(());
            }
            if index % CHUNK == 0 {
                let ids = missing[index..].iter().take(CHUNK).map(|one| one.source.id.clone()).collect();
                tags = ec2::tags_of_completed(home, &settings.owner(), &ids).await?;
            }
            // Gone meanwhile, which a sealing pass beside this one may do: the next pass sees what took its place.
            let Some(tags) = tags.get(id) else { continue };
            let (tags, dropped) = tags_of_copy_elsewhere(one, tags, &self.place.owner);
            if dropped > 0 {
                self.warnings.push(format!("{dropped} tags of {id} do not fit on its copy"));
            }
            match self.begin(one.source, &tags).await? {
                Ok(copy) => {
                    tracing::info!(snapshot = id, place = %self.target, copy, "copy begun");
                    self.report.begun.push(SealedSnapshot::of(one.source, Some(&copy)));
                    places -= 1;
                }
                Err(Answer::NoPlace) => {
                    self.warnings.push(format!(
                        "EC2 takes no more copies in {} for now: 20 run at a time for all of the account, and the rest \
                         waits",
                        self.target
                    ));
                    return Ok(());
                }
                Err(Answer::NotNow) => {}
                Err(Answer::Unclear(failure)) => {
                    self.fail(one.source, failure.during("a copy may have been begun; the next pass looks"));
                    places -= 1;
                }
                Err(Answer::Refused(failure)) => {
                    let ends = is_for_all(&failure);
                    self.fail(one.source, failure.during("not copied"));
                    if let Some(shared) = self.shared.as_mut().filter(|shared| shared.ids().contains(id)) {
                        let withdrawn = shared.withdraw(vec![id.clone()], *deadline).await;
                        self.report.problems.extend(withdrawn);
                    }
                    // The role may copy all of the environment's snapshots, or none.
                    if ends {
                        self.report.waiting -= 1;
                        return Ok(());
                    }
                }
            }
        }
        self.report.waiting = 0;
        Ok(())
    }

    /// Begins one copy, of what the other account may read by then.
    async fn begin(
        &mut self,
        source: &Snapshot,
        tags: &BTreeMap<String, String>,
    ) -> Result<Result<String, Answer>, Failure> {
        if let Some(shared) = &mut self.shared
            && let Err(answer) = shared.grant(&source.id).await
        {
            return Ok(Err(answer));
        }
        let order = self.order(source, tags).await?;
        Ok(copy(&self.place.client, order, false).await)
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

/// Deletes in every place the copies that no fence holds, by the same verdicts as at home: the floor keeps the newest
/// whole sets of an instance there as well, as long as the instance exists, which is at home.
///
/// `listed` is how many snapshots a dry run would have deleted so far: the limit of a run is for all places together.
pub(crate) async fn clean_up(
    invocation: &Invocation<CleanupSettings>,
    home: &Inventory,
    spent: &Spent,
    mut listed: usize,
) -> Vec<PlaceCleanup> {
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
                PlaceCleanup::of(target, report)
            }
            Err(failure) => {
                tracing::error!(place = %target, "the copies could not be looked at: {failure}");
                PlaceCleanup::unseen(target, failure.during("the copies could not be looked at"))
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

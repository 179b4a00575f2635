//! What other Regions and accounts hold of an environment's copies, as far as the caller may see it; and the fence that none
//! of them is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use snapwarden_deployer::environment::{AccountId, CopyPlace, CopyTarget, Environment, Region};
use snapwarden_deployer::error::AwsError;
use snapwarden_deployer::inventory::{self, Snapshot};
use snapwarden_deployer::invoke::invoke;
use snapwarden_deployer::policy_gate::{copy_places, is_paused};
use snapwarden_deployer::scope::{Function, Scope};
use snapwarden_deployer::world::Observed;
use snapwarden_domain::event::Event;
use snapwarden_domain::report::{CleanupReport, PlaceCleanup};

use crate::context::Context;
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;

/// What other places hold.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// The copies in each that can be seen.
    pub(crate) copies: BTreeMap<CopyPlace, Vec<Snapshot>>,
    /// Those where only the cleanup function looks, and who may act as its role there.
    pub(crate) unseen: Vec<CopyPlace>,
}

impl Elsewhere {
    /// Looks at all of these places, and says of which it could not.
    pub(crate) async fn look<E>(
        context: &Context,
        session: &Session<E>,
        places: &BTreeSet<CopyPlace>,
    ) -> Result<Self, Failure> {
        let mut elsewhere = Self::default();
        for place in places {
            match inventory::copies(&session.aws, &session.scope, place).await {
                Ok(copies) => _ = elsewhere.copies.insert(place.clone(), copies),
                Err(error) if place.is_closed(&error) => {
                    context.progress().warn(&unseen(place));
                    elsewhere.unseen.push(place.clone());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(elsewhere)
    }

    /// The copies of all places that can be seen.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Snapshot> {
        self.copies.values().flatten()
    }
}

/// What there is to say of a place that cannot be seen.
pub(crate) fn unseen(place: &CopyPlace) -> String {
    let role = place.role.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("the copies in {place} cannot be seen from here, except by whoever may act as {role}")
}

/// Why a place cannot be purged, with what it takes.
pub(crate) fn out_of_reach(error: AwsError, place: &CopyPlace) -> Failure {
    if !place.is_closed(&error) {
        return error.into();
    }
    let what = format!("the copies in {place} are out of reach, and nothing was deleted");
    Failure::from(error).context(&what).hint(
        "who purges has to be let act as the role there: by its trust policy, `cargo xtask policies copies --principal ARN`, \
         and by `cargo xtask policies deployer --purge`",
    )
}

/// The place of copies that flags name.
pub(crate) fn place_of_copies(
    environment: &Environment,
    region: &Region,
    account: Option<&AccountId>,
) -> Result<CopyPlace, Failure> {
    let Some(account) = account.filter(|account| **account != environment.account) else {
        return Ok(CopyPlace { region: region.clone(), role: None });
    };
    let mut places = environment.copy_to.iter().map(CopyTarget::place);
    let is_meant = |place: &CopyPlace| place.region == *region && place.account() == Some(account.as_str());
    places.find(is_meant).ok_or_else(|| {
        let name = &environment.environment;
        Failure::new(Exit::Usage, format!("copy_to has no copies in {region} of account {account}"))
            .hint(format!("see copy_to in the file of environment {name}, and docs/copies.md"))
    })
}

/// Refuses to forget a place of copies: what is there would stay for ever, and what is shared with it would stay so. `kept`
/// are the places that cleanup is going to look after by the word of `whose`, the environment file or an earlier release.
pub(crate) async fn refuse_forgotten(
    context: &Context,
    session: &Session,
    observed: &Observed,
    kept: &BTreeSet<CopyPlace>,
    whose: &str,
) -> CommandResult {
    let environment = &session.scope.environment;
    let places = copy_places(observed, &session.scope, []);
    for place in places.iter().filter(|place| !kept.iter().any(|kept| kept.is_same(place))) {
        let refused = |message: String, hint: String| Err(Failure::new(Exit::Refused, message).hint(hint));
        let paused = format!("have copy_to name {place}, with `paused: true`, and deploy that");
        if let Some(account) = place.account() {
            let shared = inventory::shared(&session.aws, &session.scope, account).await?;
            if !shared.is_empty() {
                let count = counted(shared.len());
                let by_hand = take_back(&session.scope, account, &shared);
                return refused(
                    format!(
                        "account {account} may still read {count} of environment {environment}, and {whose} does not name \
                         it: nobody would ever take that back"
                    ),
                    format!("{paused}: the next pass takes that back; or by hand, {by_hand}"),
                );
            }
            // Else a pass could share more between this look and the deploy.
            if !is_paused(observed, &session.scope, place) {
                let message =
                    format!("what is deployed still copies to {place}, which {whose} does not name");
                return refused(message, paused);
            }
        }
        let left = match inventory::copies(&session.aws, &session.scope, place).await {
            Ok(copies) => copies.len(),
            Err(error) if place.is_closed(&error) => ask_cleanup(context, session, place).await?,
            Err(error) => return Err(error.into()),
        };
        if left > 0 {
            let status = context.command_line("status");
            return refused(
                format!(
                    "{place} holds {left} copies of environment {environment}, and {whose} does not name it: nobody would \
                     ever delete them"
                ),
                format!("{paused}, until it is empty, or delete them by hand; see `{status}`"),
            );
        }
    }
    Ok(())
}

/// How many copies a place holds, by a dry run of the deployed cleanup, which may look where the caller may not. Where not
/// even that can, to keep the place would help nobody.
async fn ask_cleanup(context: &Context, session: &Session, place: &CopyPlace) -> Result<usize, Failure> {
    let task = context.progress().start(format!("asking the cleanup function what {place} holds"));
    let target = session.scope.alias_arn(Function::Cleanup);
    let answer = invoke(&session.aws, &target, &Event::manual(Timestamp::now(), true)).await?;
    task.done("");
    let report = serde_json::from_value::<CleanupReport>(answer.payload.clone()).ok();
    let is_meant = |part: &&PlaceCleanup| {
        part.region == place.region.as_str() && part.account.as_deref() == place.account()
    };
    // A failed run answers with Lambda's error, which has the first problem in words.
    let part = report.as_ref().and_then(|report| report.copies.iter().find(is_meant));
    match (part, answer.error_message()) {
        (Some(part), _) if part.problems.is_empty() => Ok(part.managed),
        (Some(_), _) | (None, Some(_)) => {
            context.progress().warn(&format!(
                "not even the cleanup function can look at {place} any more: whatever it holds, nobody deletes it from now on"
            ));
            Ok(0)
        }
        (None, None) => {
            let message =
                format!("whether {place} still holds copies cannot be told: cleanup's report does not say");
            Err(Failure::new(Exit::Refused, message))
        }
    }
}

/// Which of the environment's snapshots other accounts may still read, by account.
pub(crate) async fn shared<E>(
    session: &Session<E>,
    places: &BTreeSet<CopyPlace>,
) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let mut shared = BTreeMap::new();
    for account in places.iter().filter_map(CopyPlace::account) {
        let ids = inventory::shared(&session.aws, &session.scope, account).await?;
        if !ids.is_empty() {
            shared.insert(account.to_owned(), ids);
        }
    }
    Ok(shared)
}

/// How a person takes back what an account may still read.
pub(crate) fn take_back(scope: &Scope, account: &str, ids: &BTreeSet<String>) -> String {
    let first = ids.first().map(String::as_str).unwrap_or_default();
    let region = &scope.region;
    format!(
        "for each of them, {first} the first, run `aws ec2 modify-snapshot-attribute --region {region} --attribute \
         createVolumePermission --operation-type remove --user-ids {account} --snapshot-id {first}`"
    )
}

fn counted(snapshots: usize) -> String {
    if snapshots == 1 { "1 snapshot".to_owned() } else { format!("{snapshots} snapshots") }
}

//! `cargo xtask adopt-snapshots`: takes over snapshots that another program made, so that they expire.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use snapwarden_deployer::adoption::{self, Candidate, Prospect};
use snapwarden_deployer::environment::Cloud;
use snapwarden_deployer::inventory;
use snapwarden_deployer::kinds::cleanup_settings;
use snapwarden_domain::event::day;
use snapwarden_domain::inventory::Inventory;
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_domain::verdict::MassDeletion;

use crate::context::{Context, block_on};
use crate::failure::{CommandResult, Exit, Failure};
use crate::session::Session;
use crate::{output, render};

/// Flags of `adopt-snapshots`.
#[derive(Args, Debug)]
pub(crate) struct AdoptSnapshotsArgs {
    /// The snapshots to adopt; without any, they are only listed
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Adopt every snapshot that is listed
    #[arg(long, conflicts_with = "snapshots")]
    all: bool,
    /// Go ahead without a question
    #[arg(long)]
    yes: bool,
}

/// What could be adopted, and what was.
#[derive(Debug, Serialize)]
pub(crate) struct Adoption {
    /// The environment's name.
    pub(crate) environment: String,
    /// The snapshots that carry `DeleteOn` and no ownership tag; with a choice, only the chosen ones.
    pub(crate) candidates: Vec<Candidate>,
    /// Why the next cleanup would delete nothing at all, were all candidates adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mass_deletion: Option<MassDeletion>,
    /// The ids of those that were adopted, and seen to be.
    pub(crate) adopted: Vec<String>,
    /// Those that were to be, and were not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<NotAdopted>,
}

/// A snapshot that could not be adopted.
#[derive(Debug, Serialize)]
pub(crate) struct NotAdopted {
    /// Its id.
    pub(crate) snapshot: String,
    /// What EC2 says.
    pub(crate) reason: String,
}

/// Lists the candidates, and tags the chosen ones as this environment's.
pub(crate) fn cmd_adopt_snapshots(context: &Context, args: &AdoptSnapshotsArgs) -> CommandResult {
    let adoption = block_on(async {
        let session = Session::open(context).await?;
        let survey = Survey::of(&session).await?;
        let mut ids = survey.unowned.clone();
        let is_chosen = args.all || !args.snapshots.is_empty();
        if is_chosen {
            // What becomes of one depends on which others are adopted with it.
            ids = chosen(&survey.candidates(&ids), args)?;
        }
        let mut adoption = Adoption {
            environment: session.scope.environment.to_string(),
            candidates: survey.candidates(&ids),
            mass_deletion: survey.mass_deletion(&ids),
            adopted: Vec::new(),
            failed: Vec::new(),
        };
        if is_chosen {
            adopt(context, &session, &mut adoption, args.yes).await?;
        }
        Ok(adoption)
    })?;
    output::result(context, &adoption, render::adoption::text(&adoption))?;
    match adoption.failed.len() {
        0 => Ok(()),
        failed => {
            let count = render::cleanup_diff::snapshots(failed);
            Err(Failure::new(Exit::Failed, format!("{count} could not be adopted"))
                .hint("run the command again: those that are adopted are not listed any more"))
        }
    }
}

/// The environment's snapshots and those that belong to none.
struct Survey {
    inventory: Inventory,
    unowned: BTreeSet<String>,
    settings: CleanupSettings,
}

impl Survey {
    async fn of(session: &Session) -> Result<Self, Failure> {
        let settings = cleanup_settings(&session.environment, &session.scope, None);
        let snapshots = adoption::unowned(&session.aws).await?;
        let unowned = snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
        let is_emulated = session.environment.cloud == Cloud::Local;
        let inventory = inventory::of_cleanup(&session.aws, &settings, snapshots, is_emulated).await?;
        Ok(Self { inventory, unowned, settings })
    }

    fn candidates(&self, ids: &BTreeSet<String>) -> Vec<Candidate> {
        adoption::candidates(&self.inventory, ids, self.today(), &self.settings)
    }

    fn mass_deletion(&self, ids: &BTreeSet<String>) -> Option<MassDeletion> {
        adoption::mass_deletion(&self.inventory, ids, self.today(), &self.settings)
    }

    fn today(&self) -> Date {
        day(Timestamp::now(), &self.settings.timezone)
    }
}

/// The ids that the flags name. To name one that cannot be adopted is an error; `--all` leaves it out.
fn chosen(candidates: &[Candidate], args: &AdoptSnapshotsArgs) -> Result<BTreeSet<String>, Failure> {
    let can_be = |one: &Candidate| one.prospect != Prospect::Unadoptable;
    if args.all {
        let all = candidates.iter().filter(|one| can_be(one));
        return Ok(all.map(|one| one.snapshot.snapshot.clone()).collect());
    }
    for id in &args.snapshots {
        let problem = match candidates.iter().find(|one| one.snapshot.snapshot == *id) {
            None => "there is no such snapshot with DeleteOn and without an environment's tag".to_owned(),
            Some(one) if !can_be(one) => one.meaning.clone(),
            Some(_) => continue,
        };
        return Err(Failure::new(Exit::Usage, format!("{id}: {problem}; nothing was adopted"))
            .hint("`cargo xtask adopt-snapshots` lists those that can be"));
    }
    Ok(args.snapshots.iter().cloned().collect())
}

/// Asks, tags, and looks whether the tags are there.
async fn adopt(
    context: &Context,
    session: &Session,
    adoption: &mut Adoption,
    yes: bool,
) -> Result<(), Failure> {
    let ids: Vec<String> = adoption.candidates.iter().map(|one| one.snapshot.snapshot.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let preview = render::adoption::preview(adoption);
    if yes {
        context.progress().note(&preview);
    } else {
        let environment = &session.scope.environment;
        let count = render::cleanup_diff::snapshots(ids.len());
        output::confirm(context, &preview, &format!("Let environment {environment} adopt {count}?"))?;
    }
    let refused = adoption::adopt(&session.aws, &session.scope, &ids, Timestamp::now()).await;
    let refused: BTreeMap<_, _> = refused.into_iter().collect();

    let owned = inventory::snapshots(&session.aws, &session.scope).await?;
    let owned: BTreeSet<_> = owned.into_iter().map(|snapshot| snapshot.snapshot).collect();
    for snapshot in ids {
        if owned.contains(&snapshot) {
            adoption.adopted.push(snapshot);
            continue;
        }
        let reason = match refused.get(&snapshot) {
            Some(error) => error.to_string(),
            None => "tagged, but EC2 does not list it with the tag yet".to_owned(),
        };
        adoption.failed.push(NotAdopted { snapshot, reason });
    }
    Ok(())
}

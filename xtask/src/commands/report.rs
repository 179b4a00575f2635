//! `cargo xtask report`: a page about the backups, for people who do not use a terminal.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use snapwarden_deployer::environment::{Cloud, CopyTarget};
use snapwarden_deployer::inventory;

use crate::context::{Context, block_on};
use crate::elsewhere::Elsewhere;
use crate::failure::{CommandResult, Exit, Failure};
use crate::output;
use crate::page::{Facts, Page, html};
use crate::session::Session;

/// Flags of `report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Where to write the page
    #[arg(long, value_name = "FILE", default_value = "backups.html")]
    out: PathBuf,
}

/// Writes the page.
pub(crate) fn cmd_report(context: &Context, args: &ReportArgs) -> CommandResult {
    let (page, snapshots) = block_on(async {
        let Some(session) = Session::open_running(context).await? else {
            return Err(Failure::new(Exit::Failed, "the local environment is not running")
                .hint("start it with `cargo xtask local up`"));
        };
        let snapshots = inventory::snapshots(&session.aws, &session.scope).await?;
        let volumes = inventory::volumes(&session.aws).await?;
        let environment = &session.environment;
        let is_emulated = environment.cloud == Cloud::Local;
        let selected =
            inventory::selected_instances(&session.aws, &environment.backup.select, is_emulated).await?;
        let places: BTreeSet<_> = environment.copy_to.iter().map(CopyTarget::place).collect();
        let elsewhere = Elsewhere::look(context, &session, &places).await?;
        let facts = Facts {
            scope: &session.scope,
            zone: &environment.timezone,
            pricing: &environment.pricing,
            snapshots: &snapshots,
            volumes: &volumes,
            selected: &selected,
            elsewhere: &elsewhere.copies,
            unseen: &elsewhere.unseen,
            now: Timestamp::now(),
        };
        Ok((html(&Page::of(facts)), snapshots.len()))
    })?;
    std::fs::write(&args.out, page).map_err(|error| {
        Failure::caused_by(Exit::Failed, &error).context(&format!("cannot write {}", args.out.display()))
    })?;
    let value = json!({ "page": args.out, "snapshots": snapshots });
    output::result(context, &value, format!("{}: {snapshots} snapshots", args.out.display()))
}

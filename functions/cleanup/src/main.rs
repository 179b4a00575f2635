//! Deletes this environment's expired snapshots, and nothing that any fence holds; replaces snapshots in clear text by
//! encrypted copies; and keeps copies in other Regions and accounts.
//!
//! The decisions are `snapwarden_domain`'s: `verdict`, `sealing` and `copying`. `handler` and `seal` walk through a run,
//! `copies` through what it does for another place, which `share` lets at the snapshots; `ec2` and `copy` make the calls;
//! `spent` remembers how much of its limit a run has used.

mod copies;
mod copy;
mod ec2;
mod handler;
mod seal;
mod share;
mod spent;

use snapwarden_domain::report::{CleanupAnswer, Failure};
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_runtime::{Ended, Invocation};

use spent::Spent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let spent = &Spent::default();
    snapwarden_runtime::run("CleanupFailed", move |invocation| serve(invocation, spent)).await
}

async fn serve(
    invocation: Invocation<CleanupSettings>,
    spent: &Spent,
) -> Result<Ended<CleanupAnswer>, Failure> {
    if invocation.event.seal {
        let report = seal::seal(invocation).await?;
        return Ok(Ended::Finished(CleanupAnswer::Sealing(Box::new(report))));
    }
    let ended = handler::clean_up(invocation, spent).await?;
    Ok(ended.map(|report| CleanupAnswer::Cleanup(Box::new(report))))
}

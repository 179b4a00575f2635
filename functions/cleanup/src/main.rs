//! Deletes this environment's expired snapshots, and nothing that any fence holds; and replaces snapshots in clear text
//! by encrypted copies.
//!
//! The decisions are `snapwarden_domain::verdict`'s and `snapwarden_domain::sealing`'s; `handler` and `seal` walk through
//! a run; `ec2` and `copy` make the calls.

mod copy;
mod ec2;
mod handler;
mod seal;

use snapwarden_domain::report::{CleanupAnswer, Failure};
use snapwarden_domain::settings::CleanupSettings;
use snapwarden_runtime::{Ended, Invocation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    snapwarden_runtime::run("CleanupFailed", serve).await
}

async fn serve(invocation: Invocation<CleanupSettings>) -> Result<Ended<CleanupAnswer>, Failure> {
    if invocation.event.seal {
        let report = seal::seal(invocation).await?;
        return Ok(Ended::Finished(CleanupAnswer::Sealing(Box::new(report))));
    }
    let ended = handler::clean_up(invocation).await?;
    Ok(ended.map(|report| CleanupAnswer::Cleanup(Box::new(report))))
}

//! Deletes this environment's expired snapshots, and nothing that any fence holds.
//!
//! The decisions are `snapwarden_domain::verdict`'s; `handler` walks through a run; `ec2` makes the calls.

mod ec2;
mod handler;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    snapwarden_runtime::run("CleanupFailed", handler::clean_up).await
}

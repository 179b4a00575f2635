//! Deletes this environment's expired snapshots, and nothing that any fence holds.
//!
//! The decisions are `snapwarden_domain::verdict`'s; `handler` walks through a run; `ec2` makes the calls; `spent` remembers
//! how much of its limit a run has used.

mod ec2;
mod handler;
mod spent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let spent = &spent::Spent::default();
    snapwarden_runtime::run("CleanupFailed", move |invocation| handler::clean_up(invocation, spent)).await
}

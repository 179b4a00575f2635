//! Snapshots every volume of the selected EC2 instances, one crash-consistent set an instance.
//!
//! `decide` says, without any effect, what an instance needs; `handler` walks through a run; `ec2` makes the calls.

mod decide;
mod ec2;
mod handler;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    snapwarden_runtime::run("BackupFailed", handler::back_up).await
}

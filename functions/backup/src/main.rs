//! Snapshots every volume of the selected EC2 instances, one crash-consistent set an instance.
//!
//! `decide` says, without any effect, what an instance needs, and `copied_tags` whether its volumes' tags fit; `handler`
//! walks through a run, `fleet` through its instances; `set` makes one instance's snapshots once; `ec2` makes the calls.

mod copied_tags;
mod decide;
mod ec2;
mod fleet;
mod handler;
#[cfg(test)]
mod model;
mod set;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    snapwarden_runtime::run("BackupFailed", handler::back_up).await
}

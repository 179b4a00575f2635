//! What the emulator's CloudFormation leaves out: it does not hand `RecursiveLoop` on to Lambda, as AWS's does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_sdk_lambda::types::RecursiveLoop;
use snapwarden_deployer::aws::Aws;

use crate::{Local, block_on};

/// Sets it for the functions of the environments `local` and `local-next`, for as long as it lives.
pub struct RecursiveLoops {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RecursiveLoops {
    /// For the functions of a local environment, whenever they are there.
    pub fn of(local: &Local) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (end, aws) = (over.clone(), local.aws());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                block_on(allow(&aws));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for RecursiveLoops {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn allow(aws: &Aws) {
    for function in ["local-backup", "local-cleanup", "local-next-backup", "local-next-cleanup"] {
        let function = format!("snapwarden-{function}");
        let call = aws.lambda.put_function_recursion_config().function_name(function);
        // Before and after its time the function is not there.
        drop(call.recursive_loop(RecursiveLoop::Allow).send().await);
    }
}

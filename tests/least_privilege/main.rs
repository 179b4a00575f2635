//! No right missing, no right unused: every policy that we write, held against every call that was recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what a test cannot do fails it")]

mod attacks;
mod authorization;
mod deployer;
mod documents;
mod evaluator;
mod minimality;
mod recording;
mod roles;

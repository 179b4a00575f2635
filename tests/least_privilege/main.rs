//! No right missing, no right unused: every policy that we write, held against every call that was recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what a test cannot do fails it")]
#![allow(
    clippy::too_many_lines,
    clippy::trivially_copy_pass_by_ref,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    reason = "tables are long, and read best when what fills them is short"
)]

mod account;
mod attacks;
mod authorization;
mod copies;
mod deployer;
mod documents;
mod evaluator;
mod key;
mod minimality;
mod recording;
mod restorer;
mod roles;
mod stack;

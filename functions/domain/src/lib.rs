//! Vocabulary that the Lambda functions and the deployer share.
//!
//! Nothing here knows AWS's SDK, a clock or the network: everything is data and pure functions, so that what a
//! function decides can be tested, shown in a dry run and replayed by the deployer without any of them.

pub mod audit;
pub mod checked;
pub mod clear_text;
pub mod continuation;
pub mod copying;
pub mod event;
pub mod excerpt;
pub mod inventory;
pub mod metrics;
pub mod moment;
pub mod names;
pub mod notification;
pub mod owner;
pub mod place;
pub mod report;
pub mod retention;
pub mod run;
#[cfg(feature = "schema")]
mod schema;
pub mod sealing;
pub mod settings;
pub mod snapshot_set;
pub mod tags;
pub mod verdict;
pub mod wishes;

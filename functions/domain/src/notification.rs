//! What people are told of a run that failed for good.

use serde::{Deserialize, Serialize};

use crate::names::EnvironmentName;
use crate::report::cut;

/// The environment variable that holds a function's [`Notifications`] as JSON. They are apart from its settings: no run
/// depends on whom it is told to.
pub const VARIABLE: &str = "SNAPWARDEN_NOTIFICATIONS";

/// Whom to tell of a run that failed, and what the message names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    /// The ARN of the SNS topic.
    pub topic_arn: String,
    /// The environment.
    pub environment: EnvironmentName,
    /// `backup` or `cleanup`.
    pub function: String,
    /// How often Lambda tries a run in all.
    pub attempts: u32,
}

/// SNS's limit of a message in bytes: 256 KiB (source: SNS API, `Publish`).
pub const MAX_MESSAGE: usize = 256 * 1024;

/// What all around the failures may take of it.
const FRAME: usize = 4 * 1024;

impl Notifications {
    /// One line of ASCII of at most 100 characters, as SNS takes it.
    pub fn subject(&self) -> String {
        format!("Snapwarden {}: {} failed", self.environment, self.function)
    }

    /// What failed, what that means, and the next command, in plain text; `error` is what the run ended with.
    pub fn message(&self, error: &str) -> String {
        let Self { topic_arn, environment, function, attempts } = self;
        let mut place = topic_arn.split(':').skip(3);
        let (region, account) = (place.next().unwrap_or_default(), place.next().unwrap_or_default());
        let error = cut(error, MAX_MESSAGE - FRAME);
        let consequence = match function.as_str() {
            "backup" => {
                "What was backed up stays so. What failed has no backup of this run: the newest one is that of the run \
                 before."
            }
            _ => {
                "Nothing is lost: what could not be deleted stays, and is billed, until a later run deletes it."
            }
        };
        format!(
            "A {function} run of environment {environment} failed, and after {attempts} attempts nothing tries it again.\n\
             \n{error}\n\n{consequence}\n\n\
             See how the environment is, then run it again:\n\n  \
             cargo xtask status --env {environment}\n  \
             cargo xtask invoke {function} --env {environment}\n\n\
             All lines of the failed run:\n\n  \
             cargo xtask logs {function} --env {environment} --since 2h\n\n\
             Account {account}, {region}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifications() -> Notifications {
        Notifications {
            topic_arn: "arn:aws:sns:eu-central-1:123456789012:snapwarden-prod-notifications".to_owned(),
            environment: "prod".parse().unwrap(),
            function: "backup".to_owned(),
            attempts: 3,
        }
    }

    #[test]
    fn a_person_at_three_in_the_morning_knows_what_to_type() {
        let error = "run snapwarden-prod/backup@2026-11-22T02:00:00Z: 11 instances backed up, 12 snapshots made, 1 \
                     FAILED\n- i-1 (web): UnauthorizedOperation: not allowed (hint: deploy again)";
        assert_eq!(notifications().subject(), "Snapwarden prod: backup failed");
        assert_eq!(
            notifications().message(error),
            "A backup run of environment prod failed, and after 3 attempts nothing tries it again.\n\n\
             run snapwarden-prod/backup@2026-11-22T02:00:00Z: 11 instances backed up, 12 snapshots made, 1 FAILED\n\
             - i-1 (web): UnauthorizedOperation: not allowed (hint: deploy again)\n\n\
             What was backed up stays so. What failed has no backup of this run: the newest one is that of the run \
             before.\n\n\
             See how the environment is, then run it again:\n\n  cargo xtask status --env prod\n  \
             cargo xtask invoke backup --env prod\n\n\
             All lines of the failed run:\n\n  cargo xtask logs backup --env prod --since 2h\n\n\
             Account 123456789012, eu-central-1\n"
        );
    }

    #[test]
    fn the_longest_message_fits_sns_and_is_cut_between_characters() {
        let longest = notifications().message(&"ü".repeat(MAX_MESSAGE));
        assert!(longest.len() <= MAX_MESSAGE, "{}", longest.len());
        assert!(
            longest.contains("ü…\n\nWhat was backed up") && longest.contains("cargo xtask invoke backup")
        );
        let name = "a".repeat(EnvironmentName::MAX_LEN);
        let subject = Notifications { environment: name.parse().unwrap(), ..notifications() }.subject();
        assert!(subject.len() <= 100 && subject.is_ascii());
    }
}

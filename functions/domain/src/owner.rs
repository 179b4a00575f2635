//! Whose a snapshot is: the tag by which it is found, and without which it is never deleted.

use crate::names::EnvironmentName;
use crate::tags;

/// Who looks after snapshots.
///
/// Copies elsewhere carry another tag than the environment's own: there may be an environment of the same name, whose
/// cleanup, purge and restore have nothing to do with them, nor its role's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An environment, in its own Region: [`tags::ENVIRONMENT`] is its name.
    Environment(EnvironmentName),
    /// An environment, of its copies elsewhere: [`tags::COPIED_BY`] is its name and Region, as `prod/eu-central-1`; in
    /// another account, which may hold the copies of several, its account as well, as `prod/eu-central-1/123456789012`.
    Copies {
        /// The environment.
        environment: EnvironmentName,
        /// The Region that it is in.
        region: String,
        /// The account that it is in, where the copies are in another one.
        account: Option<String>,
    },
}

impl Owner {
    /// Of the copies that an environment of this Region has in others of its account.
    pub fn of_copies(environment: &EnvironmentName, region: &str) -> Self {
        Self::Copies { environment: environment.clone(), region: region.to_owned(), account: None }
    }

    /// Of the copies that an environment of this Region and account has in another account.
    pub fn of_copies_in_another_account(environment: &EnvironmentName, region: &str, account: &str) -> Self {
        let (environment, region) = (environment.clone(), region.to_owned());
        Self::Copies { environment, region, account: Some(account.to_owned()) }
    }

    /// The environment.
    pub fn environment(&self) -> &EnvironmentName {
        match self {
            Self::Environment(environment) | Self::Copies { environment, .. } => environment,
        }
    }

    /// The key and the value of the tag.
    pub fn tag(&self) -> (&'static str, String) {
        match self {
            Self::Environment(environment) => (tags::ENVIRONMENT, environment.to_string()),
            Self::Copies { environment, region, account: None } => {
                (tags::COPIED_BY, format!("{environment}/{region}"))
            }
            Self::Copies { environment, region, account: Some(account) } => {
                (tags::COPIED_BY, format!("{environment}/{region}/{account}"))
            }
        }
    }
}

impl From<&EnvironmentName> for Owner {
    fn from(environment: &EnvironmentName) -> Self {
        Self::Environment(environment.clone())
    }
}

impl From<&Self> for Owner {
    fn from(owner: &Self) -> Self {
        owner.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment of the same name may live in the Region that the copies are in; and in an account that holds copies
    /// of several others, each of these may have one.
    #[test]
    fn copies_are_never_taken_for_an_environments_own() {
        let prod: EnvironmentName = "prod".parse().unwrap();
        let (own, copies) = (Owner::from(&prod), Owner::of_copies(&prod, "eu-central-1"));
        assert_eq!(own.tag(), ("snapwarden:environment", "prod".to_owned()));
        assert_eq!(copies.tag(), ("snapwarden:copied-by", "prod/eu-central-1".to_owned()));
        assert_eq!(copies.environment(), own.environment());
        let elsewhere = Owner::of_copies_in_another_account(&prod, "eu-central-1", "123456789012");
        assert_eq!(elsewhere.tag(), ("snapwarden:copied-by", "prod/eu-central-1/123456789012".to_owned()));
    }
}

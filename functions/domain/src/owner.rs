//! Whose a snapshot is: the tag by which it is found, and without which it is never deleted.

use crate::names::EnvironmentName;
use crate::tags;

/// Who looks after snapshots.
///
/// Copies in another Region carry another tag than the environment's own: in that Region there may be an environment of
/// the same name, whose cleanup, purge and restore have nothing to do with them, nor its role's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An environment, in its own Region: [`tags::ENVIRONMENT`] is its name.
    Environment(EnvironmentName),
    /// An environment, of its copies in other Regions: [`tags::COPIED_BY`] is its name and Region, as
    /// `prod/eu-central-1`.
    Copies {
        /// The environment.
        environment: EnvironmentName,
        /// The Region that it is in.
        region: String,
    },
}

impl Owner {
    /// Of the copies that an environment of this Region has in others.
    pub fn of_copies(environment: &EnvironmentName, region: &str) -> Self {
        Self::Copies { environment: environment.clone(), region: region.to_owned() }
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
            Self::Copies { environment, region } => (tags::COPIED_BY, format!("{environment}/{region}")),
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

    /// An environment of the same name may live in the Region that the copies are in.
    #[test]
    fn copies_are_never_taken_for_an_environments_own() {
        let prod: EnvironmentName = "prod".parse().unwrap();
        let (own, copies) = (Owner::from(&prod), Owner::of_copies(&prod, "eu-central-1"));
        assert_eq!(own.tag(), ("snapwarden:environment", "prod".to_owned()));
        assert_eq!(copies.tag(), ("snapwarden:copied-by", "prod/eu-central-1".to_owned()));
        assert_eq!(copies.environment(), own.environment());
    }
}

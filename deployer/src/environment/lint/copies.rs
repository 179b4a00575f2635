//! Copies that could never be made.

use super::{Finding, Severity, warning};
use crate::environment::{CopyTarget, Environment};
use crate::scope::Scope;

/// What stands in the way of copies, whatever AWS is asked: each would be found out by a copy that is missing on the day that
/// it is for.
pub(super) fn never_made(environment: &Environment) -> impl Iterator<Item = Finding> {
    [at_home, by_own_role, cannot_be_shared, in_another_partition, of_a_fleet]
        .into_iter()
        .filter_map(move |find| find(environment))
}

/// A copy beside the original is lost with it.
fn at_home(environment: &Environment) -> Option<Finding> {
    let region = &environment.region;
    let is_at_home = |target: &&CopyTarget| target.role.is_none() && target.region == *region;
    environment.copy_to.iter().find(is_at_home)?;
    Some(Finding {
        severity: Severity::Error,
        ..warning(
            "copy_to",
            format!("{region} is the environment's own Region"),
            "name another one, or a role in another account; what is in clear text here is encrypted by `encryption`",
        )
    })
}

/// A role of the own account gives no more protection than none, and what it is called would say otherwise.
fn by_own_role(environment: &Environment) -> Option<Finding> {
    let roles = environment.copy_to.iter().filter_map(|target| target.role.as_ref());
    let role = roles.into_iter().find(|role| role.account() == environment.account.as_str())?;
    Some(Finding {
        severity: Severity::Error,
        ..warning(
            "copy_to",
            format!("{role} is of the environment's own account"),
            "name a role of another account, or leave `role` out for copies in another Region of this one",
        )
    })
}

/// Accounts of another partition share nothing with this one.
fn in_another_partition(environment: &Environment) -> Option<Finding> {
    let partition = Scope::of(environment).partition();
    let roles = environment.copy_to.iter().filter_map(|target| target.role.as_ref());
    let role = roles.into_iter().find(|role| role.as_str().split(':').nth(1) != Some(partition))?;
    Some(Finding {
        severity: Severity::Error,
        ..warning(
            "copy_to",
            format!("{role} is not of the partition `{partition}`, where the environment is"),
            "name a role of an account there",
        )
    })
}

/// A role trusts the cleanup of one account and Region; of a fleet's, it would refuse all but one.
fn of_a_fleet(environment: &Environment) -> Option<Finding> {
    environment.fleet.as_ref()?;
    environment.copy_to.iter().find(|target| target.role.is_some())?;
    Some(Finding {
        severity: Severity::Error,
        ..warning(
            "copy_to",
            "a fleet has no copies in another account: a role there trusts one environment in one account"
                .to_owned(),
            "copy to another Region, or deploy these accounts one by one, each with a file and a role of its own",
        )
    })
}

/// EC2 shares nothing that AWS's own key encrypts: no copy would ever be made of what is sealed with it.
fn cannot_be_shared(environment: &Environment) -> Option<Finding> {
    let key = environment.encryption.sealing_key(&environment.environment)?;
    environment.copy_to.iter().find(|target| target.role.is_some())?;
    (key.alias() == Some("alias/aws/ebs")).then(|| Finding {
        severity: Severity::Error,
        ..warning(
            "encryption.kms_key",
            "what AWS's own key encrypts cannot be shared with the account that copy_to names".to_owned(),
            "name a key of yours, or { create: true }",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;

    /// Each would be found out by a copy that is missing on the day that it is for.
    #[test]
    fn copies_that_could_never_be_made_are_an_error() {
        let found = |account: &str, region: &str, rest: &str| {
            let role = format!("role: \"arn:aws:iam::{account}:role/copies\", ");
            let role = if account.is_empty() { "" } else { role.as_str() };
            let copy_to = format!(
                "logs: delete\ncopy_to: [{{ region: {region}, {role}kms_key: alias/b, retention: {{ daily_days: 9 }} }}]{rest}"
            );
            found(&[("logs: delete", &copy_to)]).join("\n")
        };
        let none = String::new();
        assert_eq!(found("", "eu-west-1", ""), none);
        assert_eq!(found("210987654321", "eu-central-1", ""), none);
        assert!(found("", "eu-central-1", "").contains("eu-central-1 is the environment's own Region"));
        assert!(found("123456789012", "eu-west-1", "").contains("is of the environment's own account"));
        let sealed = |key: &str| format!("\nencryption: {{ require: enforce, kms_key: {key} }}");
        assert_eq!(found("210987654321", "eu-west-1", &sealed("alias/backup")), none);
        let by_aws = found("210987654321", "eu-west-1", &sealed("alias/aws/ebs"));
        assert!(by_aws.contains("cannot be shared with the account that copy_to names"), "{by_aws}");
        assert_eq!(found("", "eu-west-1", &sealed("alias/aws/ebs")), none);
        let fleet = "\nfleet: { accounts: [\"111122223333\"], regions: [eu-west-1] }";
        let of_fleet = found("210987654321", "eu-west-1", fleet);
        assert!(of_fleet.contains("a fleet has no copies in another account"), "{of_fleet}");
    }
}

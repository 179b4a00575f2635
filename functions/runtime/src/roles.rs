//! The function's own role, and those in other accounts that it may act as.

use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_sts::error::SdkError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use snapwarden_domain::names::EnvironmentName;
use snapwarden_domain::report::Failure;

use crate::ec2::failure;

/// Whose rights calls are made with.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    own: Option<SharedCredentialsProvider>,
    sts: Option<aws_sdk_sts::Client>,
}

impl Roles {
    /// With these credentials, and what STS makes of them.
    pub fn new(own: SharedCredentialsProvider, sts: aws_sdk_sts::Client) -> Self {
        Self { own: Some(own), sts: Some(sts) }
    }

    pub(crate) fn of(configuration: &SdkConfig) -> Self {
        Self { own: configuration.credentials_provider(), sts: Some(aws_sdk_sts::Client::new(configuration)) }
    }

    /// The credentials of the function itself, for what has to be signed beside the calls themselves.
    pub fn own(&self) -> Option<&SharedCredentialsProvider> {
        self.own.as_ref()
    }

    /// Credentials of the role with this ARN. They last an hour, which no invocation does (source: STS API, `AssumeRole`).
    pub async fn assume(
        &self,
        role: &str,
        environment: &EnvironmentName,
    ) -> Result<SharedCredentialsProvider, Failure> {
        let Some(sts) = &self.sts else { return Err(without_credentials()) };
        let given = assume(sts, role, &format!("snapwarden-{environment}")).await;
        let given = given.map_err(|error| refused(role, failure(&error)))?;
        given.ok_or_else(|| Failure::new(format!("STS gave no credentials of {role}"), "run again later"))
    }
}

/// Credentials of a role, for an hour; nothing where STS says yes and gives none. `session` is what the other account's logs
/// show, beside who it was that assumed the role.
pub async fn assume(
    sts: &aws_sdk_sts::Client,
    role: &str,
    session: &str,
) -> Result<Option<SharedCredentialsProvider>, SdkError<AssumeRoleError>> {
    let answer = sts.assume_role().role_arn(role).role_session_name(session).send().await?;
    Ok(answer.credentials().map(|given| {
        let expires = u64::try_from(given.expiration().secs()).unwrap_or_default();
        let expires = Some(UNIX_EPOCH + Duration::from_secs(expires));
        let (key, secret, token) = (given.access_key_id(), given.secret_access_key(), given.session_token());
        SharedCredentialsProvider::new(Credentials::new(
            key,
            secret,
            Some(token.to_owned()),
            expires,
            "AssumeRole",
        ))
    }))
}

fn refused(role: &str, failure: Failure) -> Failure {
    if failure.code.as_deref() != Some("AccessDenied") {
        return failure.during(&format!("could not act as {role}"));
    }
    // STS does not tell the two apart, and takes many words for it.
    let message = format!("could not act as {role}: it is not there, or does not trust this function's role");
    let hint = "`cargo xtask policies copies` writes what it has to be";
    Failure { code: failure.code, message, hint: Some(hint.to_owned()) }
}

pub(crate) fn without_credentials() -> Failure {
    Failure::new("the function has no credentials", "look at its role, and run again")
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::config::ProvideCredentials as _;
    use aws_sdk_sts::Client;
    use aws_sdk_sts::error::ErrorMetadata;
    use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;
    use aws_sdk_sts::primitives::DateTime;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    use super::*;

    const ROLE: &str = "arn:aws:iam::210987654321:role/copies";

    fn roles(sts: Client) -> Roles {
        let own = Credentials::new("own", "secret", None, None, "test");
        Roles::new(SharedCredentialsProvider::new(own), sts)
    }

    /// With its own credentials instead, the function would copy into its own account and call it another.
    #[tokio::test]
    async fn credentials_of_a_role_are_the_roles_own() {
        let rule = mock!(Client::assume_role)
            .match_requests(|request| {
                request.role_arn() == Some(ROLE) && request.role_session_name() == Some("snapwarden-prod")
            })
            .then_output(|| {
                let given = aws_sdk_sts::types::Credentials::builder()
                    .access_key_id("theirs")
                    .secret_access_key("secret")
                    .session_token("token")
                    .expiration(DateTime::from_secs(0))
                    .build()
                    .unwrap();
                AssumeRoleOutput::builder().credentials(given).build()
            });
        let roles = roles(mock_client!(aws_sdk_sts, RuleMode::Sequential, [&rule]));
        let given = roles.assume(ROLE, &"prod".parse().unwrap()).await.unwrap();
        let given = given.provide_credentials().await.unwrap();
        assert_eq!((given.access_key_id(), given.session_token()), ("theirs", Some("token")));
    }

    #[tokio::test]
    async fn a_role_that_does_not_trust_the_function_is_named_with_the_way_out() {
        let rule = mock!(Client::assume_role).then_error(|| {
            let error = ErrorMetadata::builder().code("AccessDenied").message("is not authorized").build();
            AssumeRoleError::generic(error)
        });
        let roles = roles(mock_client!(aws_sdk_sts, RuleMode::Sequential, [&rule]));
        let text = roles.assume(ROLE, &"prod".parse().unwrap()).await.unwrap_err().to_string();
        assert!(text.contains(ROLE) && text.contains("policies copies"), "{text}");
    }
}

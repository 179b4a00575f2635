//! What AWS's errors become: the call, the code, the message, and a class that code can decide on.

use std::fmt;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::lock::LeaseOver;

/// A failed call to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// The call as IAM names it, such as `iam:CreateRole`.
    pub call: &'static str,
    /// What the error means for us.
    pub class: ErrorClass,
    /// AWS's error code; empty when no answer came.
    pub code: String,
    /// AWS's message, or why no answer came.
    pub message: String,
}

/// What a failed call means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The resource does not exist.
    NotFound,
    /// A resource of that name exists already.
    AlreadyExists,
    /// The resource is being changed or deleted right now.
    Conflict,
    /// The caller lacks a right.
    AccessDenied,
    /// The credentials are missing, wrong or expired.
    Credentials,
    /// AWS takes fewer calls at a time, and went on to after several attempts.
    Throttled,
    /// A quota of the account is used up.
    Quota,
    /// No answer came, so nobody knows whether the call was carried out.
    NoAnswer,
    /// It was not sent, since the environment's lock may be somebody else's by now.
    LeaseOver,
    /// Anything else that AWS answered.
    Other,
}

impl AwsError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self.class {
            ErrorClass::AccessDenied => {
                Some("the caller's IAM identity lacks this right; give it, then run the command again")
            }
            ErrorClass::Credentials => Some(
                "sign in, for example with `aws sso login`, or choose a profile with AWS_PROFILE; in a Region that \
                     accounts have to opt in to, enable it",
            ),
            ErrorClass::NoAnswer => {
                Some("check the network, then run the command again: it goes on where it stopped")
            }
            ErrorClass::LeaseOver => {
                Some("look at what another command has done meanwhile, then run the command again")
            }
            ErrorClass::Throttled => {
                Some("run the command again in some minutes: it goes on where it stopped")
            }
            ErrorClass::Quota => Some(
                "delete what is not needed any more, or have the quota raised in the Service Quotas console",
            ),
            ErrorClass::NotFound | ErrorClass::AlreadyExists | ErrorClass::Conflict | ErrorClass::Other => {
                None
            }
        }
    }

    /// The same error, where more is known than the code says: the resource exists already.
    pub(crate) fn already_exists(mut self) -> Self {
        self.class = ErrorClass::AlreadyExists;
        self
    }

    /// An error that AWS answered with.
    pub(crate) fn answered(call: &'static str, code: Option<String>, message: Option<String>) -> Self {
        let code = code.unwrap_or_else(|| "unknown error".to_owned());
        let message = message.unwrap_or_else(|| "AWS gave no message".to_owned());
        Self { call, class: class_of(&code, &message), code, message }
    }

    fn new<E, R>(call: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug + 'static,
    {
        if let Some(answer) = error.as_service_error() {
            return Self::answered(
                call,
                answer.code().map(str::to_owned),
                answer.message().map(str::to_owned),
            );
        }
        let causes = causes(error);
        // Not merely "token", which is also what a parser calls what it did not expect.
        let about_credentials = |cause: &String| {
            let cause = cause.to_lowercase();
            ["credential", "sso token", "token file", "web identity", "imds"]
                .iter()
                .any(|word| cause.contains(word))
        };
        let class = if is_caused_by::<LeaseOver>(error) {
            ErrorClass::LeaseOver
        } else if causes.iter().any(about_credentials) {
            ErrorClass::Credentials
        } else {
            ErrorClass::NoAnswer
        };
        // The last causes say most: the SDK wraps them in layers that only say "dispatch failure".
        let shown = if class == ErrorClass::LeaseOver { 1 } else { 2 };
        let message = causes[causes.len().saturating_sub(shown)..].join(": ");
        Self { call, class, code: String::new(), message }
    }
}

/// Codes as the services we use write them.
fn class_of(code: &str, message: &str) -> ErrorClass {
    match code {
        "ResourceNotFoundException"
        | "NoSuchEntity"
        | "NoSuchEntityException"
        | "ParameterNotFound"
        | "NotFound"
        | "NotFoundException"
        | "ResourceNotFound"
        | "DashboardNotFoundError"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => ErrorClass::NotFound,
        "ResourceAlreadyExistsException"
        | "AlreadyExistsException"
        | "EntityAlreadyExists"
        | "EntityAlreadyExistsException"
        | "ParameterAlreadyExists"
        | "QueueAlreadyExists"
        | "QueueNameExists" => ErrorClass::AlreadyExists,
        // Lambda says both "it exists" and "it is being changed" with one code.
        "ResourceConflictException" if message.contains("already exist") => ErrorClass::AlreadyExists,
        "ConflictException"
        | "ResourceConflictException"
        | "OperationAbortedException"
        | "ConcurrentModification" => ErrorClass::Conflict,
        // SNS has a code of its own.
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthorizationError"
        | "AuthorizationErrorException"
        | "UnauthorizedOperation" => ErrorClass::AccessDenied,
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "Throttled"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "TooManyUpdates" => ErrorClass::Throttled,
        "LimitExceeded"
        | "LimitExceededException"
        | "LimitExceededFault"
        | "ServiceQuotaExceededException"
        | "CodeStorageExceededException"
        | "TopicLimitExceeded"
        | "TopicLimitExceededException"
        | "SubscriptionLimitExceeded"
        | "SubscriptionLimitExceededException"
        | "ParameterLimitExceeded" => ErrorClass::Quota,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "AuthFailure" => ErrorClass::Credentials,
        _ => ErrorClass::Other,
    }
}

/// An error and everything that caused it, the outermost first.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

fn is_caused_by<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<E>)
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() && self.class == ErrorClass::Credentials {
            write!(f, "{}: no usable AWS credentials: {}", self.call, self.message)
        } else if self.class == ErrorClass::LeaseOver {
            write!(f, "{}: not sent: {}", self.call, self.message)
        } else if self.code.is_empty() {
            write!(f, "{}: no answer: {}", self.call, self.message)
        } else {
            write!(f, "{}: {}: {}", self.call, self.code, self.message)
        }
    }
}

impl std::error::Error for AwsError {}

/// Turns an SDK's result into ours.
pub trait Call<T> {
    /// Says which call it was, as IAM names it.
    fn call(self, call: &'static str) -> Result<T, AwsError>;
}

impl<T, E, R> Call<T> for Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug + 'static,
{
    fn call(self, call: &'static str) -> Result<T, AwsError> {
        self.map_err(|error| AwsError::new(call, &error))
    }
}

/// Treats "it is not there" as an answer.
pub trait OrAbsent<T> {
    /// `None` where the resource does not exist.
    fn or_absent(self) -> Result<Option<T>, AwsError>;
}

impl<T> OrAbsent<T> for Result<T, AwsError> {
    fn or_absent(self) -> Result<Option<T>, AwsError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.class == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: &str) -> ErrorClass {
        AwsError::answered("a:B", Some(code.to_owned()), None).class
    }

    /// Each service has its own word for the same trouble (source: the errors of each call in the service's API
    /// reference). One that is not understood leaves people without the next thing to do.
    #[test]
    fn every_services_own_codes_are_understood() {
        for (expected, codes) in [
            (ErrorClass::AccessDenied, &["AccessDenied", "AuthorizationError", "UnauthorizedOperation"][..]),
            (ErrorClass::AlreadyExists, &["QueueAlreadyExists", "QueueNameExists", "EntityAlreadyExists"]),
            (ErrorClass::Throttled, &["ThrottlingException", "TooManyRequestsException", "TooManyUpdates"]),
            (
                ErrorClass::Quota,
                &[
                    "LimitExceeded",
                    "LimitExceededException",
                    "ServiceQuotaExceededException",
                    "CodeStorageExceededException",
                ],
            ),
            (ErrorClass::Other, &["ValidationException", "InvalidParameterValueException"]),
        ] {
            for code in codes {
                assert_eq!(class(code), expected, "{code}");
            }
        }
        for class in [ErrorClass::Throttled, ErrorClass::Quota] {
            let error = AwsError { call: "a:B", class, code: String::new(), message: String::new() };
            assert!(error.hint().is_some(), "{class:?}");
        }
    }

    /// Sent to sign in again, somebody behind a captive portal does so for ever.
    #[test]
    fn what_cannot_be_parsed_is_no_matter_of_credentials() {
        let failed = |cause: &str| {
            let error: SdkError<aws_smithy_types::error::ErrorMetadata, ()> =
                SdkError::construction_failure(std::io::Error::other(cause.to_owned()));
            AwsError::new("a:B", &error).class
        };
        assert_eq!(failed("expected token `{`, found `<`"), ErrorClass::NoAnswer);
        assert_eq!(failed("the SSO token has expired"), ErrorClass::Credentials);
        assert_eq!(failed("no credentials in the chain"), ErrorClass::Credentials);
    }
}

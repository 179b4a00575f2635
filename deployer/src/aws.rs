//! The clients, and who is calling.

use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sts::config::{Credentials, SharedAsyncSleep, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use snapwarden_runtime::roles::assume;

use crate::environment::CopyPlace;
use crate::environment::Region;
use crate::error::{AwsError, Call, ErrorClass};
use crate::lock::Lease;

/// One client for each service that the deployer talks to.
#[derive(Clone, Debug)]
pub struct Aws {
    /// IAM: the roles.
    pub iam: aws_sdk_iam::Client,
    /// KMS: the environment's own key.
    pub kms: aws_sdk_kms::Client,
    /// Lambda: the functions and their releases.
    pub lambda: aws_sdk_lambda::Client,
    /// CloudFormation: the stack, where it is the engine.
    pub cloudformation: aws_sdk_cloudformation::Client,
    /// S3: what CloudFormation takes the code from.
    pub s3: aws_sdk_s3::Client,
    /// CloudWatch: the alarms and the dashboard.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// CloudWatch Logs: the log groups.
    pub logs: aws_sdk_cloudwatchlogs::Client,
    /// EventBridge Scheduler: the schedule group and the schedules.
    pub scheduler: aws_sdk_scheduler::Client,
    /// SNS: the topic and its subscriptions.
    pub sns: aws_sdk_sns::Client,
    /// SQS: the dead-letter queue.
    pub sqs: aws_sdk_sqs::Client,
    /// SSM: the lock.
    pub ssm: aws_sdk_ssm::Client,
    /// STS: who is calling.
    pub sts: aws_sdk_sts::Client,
    /// STS, to act as a role in another account; in the local environment that of EC2's emulator, which knows accounts.
    pub roles: aws_sdk_sts::Client,
    /// EC2: the snapshots.
    pub ec2: aws_sdk_ec2::Client,
    /// Whether the lock that these clients' calls need is still held; the lock's own calls and STS's need none.
    pub lease: Lease,
}

/// Who is calling, as STS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account that the credentials belong to.
    pub account: String,
    /// The caller's ARN.
    pub arn: String,
}

/// Where the emulators of the local environment listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoints {
    /// Everything but EC2.
    pub general: String,
    /// EC2.
    pub ec2: String,
}

/// How often a call is tried that AWS throttles, fails to answer, or answers with an error of its own.
const ATTEMPTS: u32 = 5;

const ASSUME_ROLE: &str = "sts:AssumeRole";

impl CopyPlace {
    /// Whether an error says no more than that the caller may not act as the role by which this place is reached: then
    /// only the cleanup function looks there, and whoever may.
    pub fn is_closed(&self, error: &AwsError) -> bool {
        self.role.is_some() && error.call == ASSUME_ROLE && error.class == ErrorClass::AccessDenied
    }
}

/// Every call but an invocation answers within seconds; a connection that is dead must not hold a deploy for ever.
fn patience() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_mins(1))
        .build()
}

impl Aws {
    /// Clients for AWS itself, with the credentials of a profile or those that the SDK's default chain finds.
    pub async fn connect(region: &Region, profile: Option<&str>) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = profile {
            // Only from there: credentials in variables would come first otherwise, and be another account's.
            let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
            loader = loader.profile_name(profile).credentials_provider(credentials);
        }
        let config = loader
            .region(aws_types::region::Region::new(region.to_string()))
            .http_client(http_client())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(patience())
            .load()
            .await;
        Self::from_config(&config, &config)
    }

    /// Clients for the emulators: the same in every respect but endpoint and credentials, without TLS, and deaf to the
    /// caller's AWS configuration, so that nothing meant for the emulators can reach an account.
    pub fn local(region: &Region, endpoints: &LocalEndpoints) -> Self {
        Self::local_through(region, endpoints, &aws_smithy_http_client::Builder::new().build_http())
    }

    pub(crate) fn local_through(
        region: &Region,
        endpoints: &LocalEndpoints,
        http: &SharedHttpClient,
    ) -> Self {
        let config = |endpoint: &str| {
            let credentials = Credentials::new("local", "local", None, None, "local environment");
            SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(aws_types::region::Region::new(region.to_string()))
                .http_client(http.clone())
                .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .timeout_config(patience())
                .credentials_provider(SharedCredentialsProvider::new(credentials))
                .endpoint_url(endpoint)
                .build()
        };
        Self::from_config(&config(&endpoints.general), &config(&endpoints.ec2))
    }

    fn from_config(general: &SdkConfig, ec2: &SdkConfig) -> Self {
        let lease = Lease::default();
        macro_rules! fenced {
            ($sdk:ident, $config:expr) => {
                $sdk::Client::from_conf(
                    $sdk::config::Builder::from($config).interceptor(lease.clone()).build(),
                )
            };
        }
        Self {
            iam: fenced!(aws_sdk_iam, general),
            kms: fenced!(aws_sdk_kms, general),
            lambda: fenced!(aws_sdk_lambda, general),
            cloudformation: fenced!(aws_sdk_cloudformation, general),
            s3: fenced!(aws_sdk_s3, general),
            cloudwatch: fenced!(aws_sdk_cloudwatch, general),
            logs: fenced!(aws_sdk_cloudwatchlogs, general),
            scheduler: fenced!(aws_sdk_scheduler, general),
            sns: fenced!(aws_sdk_sns, general),
            sqs: fenced!(aws_sdk_sqs, general),
            ssm: aws_sdk_ssm::Client::new(general),
            sts: aws_sdk_sts::Client::new(general),
            roles: aws_sdk_sts::Client::new(ec2),
            ec2: fenced!(aws_sdk_ec2, ec2),
            lease,
        }
    }

    /// EC2 where copies are, under the same lease: in another Region with the same credentials, in another account with
    /// those of its role.
    pub async fn ec2_at(&self, place: &CopyPlace) -> Result<aws_sdk_ec2::Client, AwsError> {
        let region = aws_types::region::Region::new(place.region.to_string());
        let mut config = self.ec2.config().to_builder().region(region);
        if let Some(role) = &place.role {
            let given = assume(&self.roles, role.as_str(), "snapwarden-xtask").await.call(ASSUME_ROLE)?;
            let given = given.ok_or_else(|| AwsError::answered(ASSUME_ROLE, None, None))?;
            config = config.credentials_provider(given);
        }
        Ok(aws_sdk_ec2::Client::from_conf(config.build()))
    }

    /// Asks STS who is calling; the first call, so that wrong credentials show before anything else.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        let identity = self.sts.get_caller_identity().send().await.call("sts:GetCallerIdentity")?;
        Ok(Caller { account: identity.account.unwrap_or_default(), arn: identity.arn.unwrap_or_default() })
    }
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https()
}

//! What a published version of a function would freeze.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_lambda::types::{
    ApplicationLogLevel, Architecture, Environment as Variables, FunctionConfiguration, LogFormat,
    LoggingConfig, Runtime, SystemLogLevel,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapwarden_domain::{notification, settings};

use super::settings::{notifications_json, settings_json};
use crate::error::AwsError;
use crate::kinds::key::{self, OwnKey};
use crate::kinds::{Blueprint, Context};
use crate::scope::Function;

/// Everything that makes two versions of a function behave differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Base64 of the zip's SHA-256.
    pub code_sha256: String,
    pub(super) role: String,
    pub(super) runtime: String,
    pub(super) architecture: String,
    pub(super) handler: String,
    pub(super) memory_mb: i32,
    pub(super) timeout_seconds: i32,
    /// Environment variables.
    pub(super) environment: BTreeMap<String, String>,
    /// The key that encrypts these; without one, a key of Lambda's own does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kms_key: Option<String>,
    pub(super) log_group: String,
    pub(super) log_format: String,
    /// The least that is logged of what the function says, and of what Lambda does. Lines without a level count as INFO
    /// (source: AWS Lambda Developer Guide, "Log-level filtering"): a higher level drops the metrics.
    pub(super) application_log_level: String,
    pub(super) system_log_level: String,
    /// ARNs of layers. We use none: their code runs beside ours, with the role's rights.
    pub(super) layers: Vec<String>,
    /// Subnets that it is tied to. We want none: from within a VPC it may not reach EC2.
    pub(super) subnets: Vec<String>,
}

impl Version {
    /// How long one invocation may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.try_into().unwrap_or_default())
    }

    /// What the environment wants of a version.
    pub(in crate::kinds) fn declare(blueprint: &Blueprint<'_>, function: Function) -> Self {
        let functions = &blueprint.environment.functions;
        Self {
            code_sha256: blueprint.code.get(&function).cloned().unwrap_or_default(),
            role: blueprint.scope.role_arn(function.as_str()),
            runtime: Runtime::Providedal2023.as_str().to_owned(),
            architecture: Architecture::Arm64.as_str().to_owned(),
            handler: "bootstrap".to_owned(),
            memory_mb: functions.memory_mb.as_i32(),
            timeout_seconds: functions.timeout_seconds.as_i32(),
            environment: BTreeMap::from([
                (settings::VARIABLE.to_owned(), settings_json(blueprint, function)),
                (notification::VARIABLE.to_owned(), notifications_json(blueprint.scope, function)),
            ]),
            kms_key: blueprint.scope.at_rest_key(),
            log_group: blueprint.scope.log_group(function),
            log_format: LogFormat::Json.as_str().to_owned(),
            application_log_level: ApplicationLogLevel::Info.as_str().to_owned(),
            system_log_level: SystemLogLevel::Info.as_str().to_owned(),
            layers: Vec::new(),
            subnets: Vec::new(),
        }
    }

    /// See [`Kind::why`].
    pub(in crate::kinds) fn why(property: &str) -> Option<String> {
        let why = match property {
            "code_sha256" => "the code of the bundle",
            "memory_mb" => "functions.memory_mb in the environment file",
            "timeout_seconds" => "functions.timeout_seconds in the environment file",
            "kms_key" => key::WHY_AT_REST,
            "role" | "log_group" => "named after the environment",
            "application_log_level" => {
                "with a higher level the metrics are not logged, and alarms ring or stay silent"
            }
            "system_log_level" => "with a higher level nobody can tell when a run began and ended",
            "layers" => "a layer's code would run beside ours, with the role's rights",
            "subnets" => "from within a VPC the function may not reach EC2",
            _ if property.starts_with("environment.") => match property.split('.').nth(1) {
                Some(settings::VARIABLE) => "the settings that the environment file asks for",
                Some(notification::VARIABLE) => "who is told of a run that failed for good",
                _ => "a variable that Snapwarden does not set",
            },
            _ => return None,
        };
        Some(why.to_owned())
    }

    /// What Lambda says of a version.
    pub(in crate::kinds) fn found(
        configuration: &FunctionConfiguration,
        own_key: &OwnKey,
    ) -> Result<Self, AwsError> {
        // Not "no variables": that would be repaired, time and again.
        if let Some(error) = configuration.environment().and_then(|environment| environment.error()) {
            let text = |text: Option<&str>| text.map(str::to_owned);
            return Err(AwsError::answered("kms:Decrypt", text(error.error_code()), text(error.message())));
        }
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let variables = configuration.environment().and_then(|environment| environment.variables());
        let logging = configuration.logging_config();
        Ok(Self {
            code_sha256: text(configuration.code_sha256()),
            role: text(configuration.role()),
            runtime: text(configuration.runtime().map(Runtime::as_str)),
            architecture: text(configuration.architectures().first().map(Architecture::as_str)),
            handler: text(configuration.handler()),
            memory_mb: configuration.memory_size().unwrap_or_default(),
            timeout_seconds: configuration.timeout().unwrap_or_default(),
            environment: variables.into_iter().flatten().map(|(k, v)| (k.clone(), shown(k, v))).collect(),
            log_group: text(logging.and_then(LoggingConfig::log_group)),
            log_format: text(logging.and_then(LoggingConfig::log_format).map(LogFormat::as_str)),
            // Lambda's defaults, where nothing is set.
            application_log_level: logging.and_then(LoggingConfig::application_log_level).map_or_else(
                || ApplicationLogLevel::Info.as_str().to_owned(),
                |level| text(Some(level.as_str())),
            ),
            system_log_level: logging
                .and_then(LoggingConfig::system_log_level)
                .map_or_else(|| SystemLogLevel::Info.as_str().to_owned(), |level| text(Some(level.as_str()))),
            layers: configuration.layers().iter().map(|layer| text(layer.arn())).collect(),
            subnets: configuration.vpc_config().map(|vpc| vpc.subnet_ids().to_vec()).unwrap_or_default(),
            kms_key: own_key.shown(configuration.kms_key_arn()),
        })
    }

    /// The key as Lambda takes it, which wants ARNs.
    pub(super) async fn named_key(&self, cx: &Context) -> Result<Option<String>, AwsError> {
        match self.kms_key.as_deref() {
            Some(key) => OwnKey::of(&cx.aws, &cx.scope).await?.named(Some(key)),
            None => Ok(None),
        }
    }

    pub(super) fn variables(&self) -> Variables {
        // Of one that is not ours there is only a checksum here, which must not overwrite its value.
        let ours = self.environment.iter().filter(|(name, _)| is_ours(name));
        let variables: HashMap<_, _> = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
        Variables::builder().set_variables(Some(variables)).build()
    }

    pub(super) fn logging(&self) -> LoggingConfig {
        LoggingConfig::builder()
            .log_group(&self.log_group)
            .log_format(LogFormat::from(self.log_format.as_str()))
            .application_log_level(ApplicationLogLevel::from(self.application_log_level.as_str()))
            .system_log_level(SystemLogLevel::from(self.system_log_level.as_str()))
            .build()
    }
}

/// Whether Snapwarden sets the variable of this name.
pub(crate) fn is_ours(variable: &str) -> bool {
    [settings::VARIABLE, notification::VARIABLE].contains(&variable)
}

/// A variable's value as plans may show it. Of one that is not ours nobody knows whether it is a secret, so only its
/// checksum leaves this place: enough to see a change by, and too little to confirm a guess with.
fn shown(name: &str, value: &str) -> String {
    if is_ours(name) {
        return value.to_owned();
    }
    format!("(hidden, checksum {})", &hex::encode(Sha256::digest(value))[..4])
}

//! Functions and their aliases.

use aws_sdk_lambda::types::{
    AliasRoutingConfiguration, ApplicationLogLevel, Environment, LogFormat, LoggingConfig,
};
use snapwarden_deployer::aws::Aws;
use snapwarden_tests::{block_on, bundle};

use super::{Drift, SECRET, drift};

const BACKUP: &str = "snapwarden-local-backup";
const CLEANUP: &str = "snapwarden-local-cleanup";

pub(super) fn drifts() -> Vec<Drift> {
    [configuration(), function(), alias()].into_iter().flatten().collect()
}

/// What a version of the function would freeze.
fn configuration() -> Vec<Drift> {
    vec![
        drift(
            "memory",
            |aws| memory(aws, 128),
            &["~ function snapwarden-local-backup", "version.memory_mb: 128 → 256"],
        ),
        drift(
            "timeout",
            |aws| {
                let call = aws.lambda.update_function_configuration().function_name(CLEANUP).timeout(3);
                block_on(call.send()).unwrap();
            },
            &["~ function snapwarden-local-cleanup", "version.timeout_seconds: 3 → 900"],
        ),
        drift(
            "a variable added",
            |aws| {
                let mut variables = variables(aws);
                variables.insert("DB_PASSWORD".to_owned(), SECRET.to_owned());
                set_variables(aws, variables);
            },
            &["version.environment.DB_PASSWORD: (hidden, checksum "],
        ),
        drift(
            "a setting edited",
            |aws| {
                let mut variables = variables(aws);
                for settings in variables.values_mut() {
                    *settings = settings.replace("\"daily_days\":7", "\"daily_days\":1");
                }
                set_variables(aws, variables);
            },
            &["version.environment.SNAPWARDEN_SETTINGS.retention.daily_days: 1 → 7"],
        ),
        drift(
            "logging reconfigured",
            |aws| {
                let logging =
                    LoggingConfig::builder().log_format(LogFormat::Text).log_group("/elsewhere").build();
                let call = aws.lambda.update_function_configuration().function_name(BACKUP);
                block_on(call.logging_config(logging).send()).unwrap();
            },
            &[
                "version.log_format: Text → JSON",
                "version.log_group: /elsewhere → /aws/lambda/snapwarden-local-backup",
            ],
        ),
        drift(
            "lines without a level dropped, the metrics among them",
            |aws| {
                let logging = LoggingConfig::builder()
                    .log_format(LogFormat::Json)
                    .log_group("/aws/lambda/snapwarden-local-backup")
                    .application_log_level(ApplicationLogLevel::Warn);
                let call = aws.lambda.update_function_configuration().function_name(BACKUP);
                block_on(call.logging_config(logging.build()).send()).unwrap();
            },
            &["version.application_log_level: WARN → INFO"],
        ),
        drift(
            "another role",
            |aws| {
                let role = "arn:aws:iam::123456789012:role/snapwarden-local-eu-central-1-cleanup";
                let call = aws.lambda.update_function_configuration().function_name(BACKUP).role(role);
                block_on(call.send()).unwrap();
            },
            &["-cleanup → arn:aws:iam::123456789012:role/snapwarden-local-eu-central-1-backup"],
        ),
    ]
}

/// The function's code, and what belongs to it but to none of its versions.
fn function() -> Vec<Drift> {
    vec![
        drift(
            "code replaced",
            |aws| {
                let zip = std::fs::read(format!("{}/cleanup.zip", bundle())).unwrap();
                let call = aws.lambda.update_function_code().function_name(BACKUP).zip_file(zip.into());
                block_on(call.send()).unwrap();
            },
            &["~ function snapwarden-local-backup", "version.code_sha256: "],
        ),
        drift(
            "throttled to nothing",
            |aws| {
                let call = aws.lambda.put_function_concurrency().function_name(BACKUP);
                block_on(call.reserved_concurrent_executions(0).send()).unwrap();
            },
            &["reserved_concurrency: 0 (goes away)"],
        ),
        drift(
            "somebody else let in",
            |aws| permit(aws, None),
            &["~ function snapwarden-local-backup", "permissions.eve.Principal.AWS: ", "666666666666"],
        ),
        drift(
            "function: tag changed",
            |aws| tag(aws, "project", "other"),
            &["tags.project: other → snapwarden"],
        ),
        drift("function: tag added", |aws| tag(aws, "owner", "eve"), &["tags.owner: eve (goes away)"]),
        drift(
            "function: tag removed",
            |aws| {
                block_on(aws.lambda.untag_resource().resource(arn()).tag_keys("project").send()).unwrap();
            },
            &["tags.project: snapwarden (not set now)"],
        ),
        drift(
            "function deleted",
            |aws| {
                block_on(aws.lambda.delete_function().function_name(BACKUP).send()).unwrap();
            },
            &["+ function snapwarden-local-backup", "+ alias snapwarden-local-backup:live"],
        ),
    ]
}

/// The alias, which decides what runs at night, and what belongs to it.
fn alias() -> Vec<Drift> {
    vec![
        drift(
            "somebody else let in at the alias",
            |aws| permit(aws, Some("live")),
            &["~ alias snapwarden-local-backup:live", "permissions.eve.Principal.AWS: ", "666666666666"],
        ),
        drift(
            "failed events thrown away",
            |aws| {
                let call =
                    aws.lambda.put_function_event_invoke_config().function_name(BACKUP).qualifier("live");
                block_on(call.maximum_retry_attempts(0).send()).unwrap();
            },
            &[
                "~ asynchronous invocation snapwarden-local-backup:live",
                "retry_attempts: 0 → 2",
                "destinations.on_failure: ",
            ],
        ),
        drift(
            "settings of asynchronous invocations deleted",
            |aws| {
                let call =
                    aws.lambda.delete_function_event_invoke_config().function_name(BACKUP).qualifier("live");
                block_on(call.send()).unwrap();
            },
            &["+ asynchronous invocation snapwarden-local-backup:live"],
        ),
        drift(
            "alias moved to the unpublished code",
            |aws| point_alias(aws, "$LATEST"),
            &["published: false → true"],
        ),
        drift(
            "alias moved to another version",
            |aws| point_alias(aws, &other_version(aws)),
            &["serves.memory_mb: 300 → 256"],
        ),
        drift(
            "a share of the traffic moved",
            |aws| {
                let other = other_version(aws);
                let routing =
                    AliasRoutingConfiguration::builder().additional_version_weights(other, 0.5).build();
                let call =
                    aws.lambda.update_alias().function_name(BACKUP).name("live").routing_config(routing);
                block_on(call.send()).unwrap();
            },
            &["~ alias snapwarden-local-backup:live", "also_serves: ", "(goes away)"],
        ),
        drift(
            "alias deleted",
            |aws| {
                block_on(aws.lambda.delete_alias().function_name(BACKUP).name("live").send()).unwrap();
            },
            &["+ alias snapwarden-local-backup:live"],
        ),
    ]
}

fn arn() -> String {
    format!("arn:aws:lambda:eu-central-1:123456789012:function:{BACKUP}")
}

fn tag(aws: &Aws, key: &str, value: &str) {
    block_on(aws.lambda.tag_resource().resource(arn()).tags(key, value).send()).unwrap();
}

fn memory(aws: &Aws, memory_mb: i32) {
    let call = aws.lambda.update_function_configuration().function_name(BACKUP).memory_size(memory_mb);
    block_on(call.send()).unwrap();
}

fn permit(aws: &Aws, qualifier: Option<&str>) {
    let call = aws.lambda.add_permission().function_name(BACKUP).set_qualifier(qualifier.map(str::to_owned));
    let call = call.statement_id("eve").action("lambda:InvokeFunction").principal("666666666666");
    block_on(call.send()).unwrap();
}

type Variables = std::collections::HashMap<String, String>;

fn variables(aws: &Aws) -> Variables {
    let now = block_on(aws.lambda.get_function_configuration().function_name(BACKUP).send()).unwrap();
    now.environment.and_then(|environment| environment.variables).unwrap()
}

fn set_variables(aws: &Aws, variables: Variables) {
    let environment = Environment::builder().set_variables(Some(variables)).build();
    let call = aws.lambda.update_function_configuration().function_name(BACKUP).environment(environment);
    block_on(call.send()).unwrap();
}

/// Publishes a version that behaves otherwise, and leaves the function as it was.
fn other_version(aws: &Aws) -> String {
    memory(aws, 300);
    let published = block_on(aws.lambda.publish_version().function_name(BACKUP).send()).unwrap();
    memory(aws, 256);
    published.version.unwrap()
}

fn point_alias(aws: &Aws, version: &str) {
    let call = aws.lambda.update_alias().function_name(BACKUP).name("live").function_version(version);
    block_on(call.send()).unwrap();
}

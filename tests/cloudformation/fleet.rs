//! A fleet from its first plan to its end, through the real command line, on the emulator that knows StackSets.

use std::process::Output;

use aws_sdk_s3::types::CreateBucketConfiguration;
use serde_json::{Value, json};
use snapwarden_deployer::aws::{Aws, LocalEndpoints};
use snapwarden_deployer::environment::Region;
use snapwarden_tests::{Local, block_on, bundle};

const FLEET: &str = "cloud: local\ncloudformation: { artifact_bucket: acme }\n\
                     fleet: { accounts: [\"111122223333\", \"444455556666\"], regions: [eu-central-1, eu-west-1] }";

/// Where every service is on the emulator that knows StackSets.
fn endpoint(local: &Local) -> String {
    local.json(&["local", "status"])["endpoint_ec2"].as_str().unwrap().to_owned()
}

/// The buckets of a company that makes its own: of a policy's conditions, such as ours has, the emulator knows nothing.
fn make_buckets(local: &Local) {
    for name in ["eu-central-1", "eu-west-1"] {
        let endpoints = LocalEndpoints { general: endpoint(local), ec2: endpoint(local) };
        let aws = Aws::local(&Region::try_from(name.to_owned()).unwrap(), &endpoints);
        let place = CreateBucketConfiguration::builder().location_constraint(name.into()).build();
        let call = aws.s3.create_bucket().bucket(format!("acme-{name}")).create_bucket_configuration(place);
        block_on(call.send()).unwrap();
    }
}

/// `cargo xtask …`, with every service on the emulator that knows StackSets.
fn run(local: &Local, arguments: &[&str]) -> Output {
    let endpoint = endpoint(local);
    let mut command = local.command(arguments);
    command.env("SNAPWARDEN_LOCAL_ENDPOINT", &endpoint).env("SNAPWARDEN_LOCAL_ENDPOINT_EC2", &endpoint);
    command.output().unwrap()
}

fn ok(local: &Local, arguments: &[&str]) -> Value {
    let output = run(local, &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn steps(plan: &Value) -> Vec<String> {
    let steps = plan["plan"]["steps"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    steps.map(|step| format!("{} {}", text(&step["verb"]), text(&step["resource"]["name"]))).collect()
}

/// Whoever has a hundred accounts needs to know of each one whether it has backups.
#[test]
fn a_fleet_is_planned_made_looked_at_enlarged_and_deleted() {
    let local = Local::with("cloud: local", FLEET);
    local.ok(&["local", "up"]);
    make_buckets(&local);
    let bundle = bundle();
    let plan = |local: &Local| steps(&ok(local, &["fleet", "plan", "--bundle", &bundle]));
    assert_eq!(
        plan(&local),
        [
            "create snapwarden-local",
            "create 111122223333 in eu-central-1",
            "create 111122223333 in eu-west-1",
            "create 444455556666 in eu-central-1",
            "create 444455556666 in eu-west-1",
        ]
    );
    let absent = run(&local, &["fleet", "status"]);
    assert_eq!(absent.status.code(), Some(5));

    let deployed = ok(&local, &["fleet", "deploy", "--bundle", &bundle]);
    assert_eq!(deployed["instances"].as_array().map(Vec::len), Some(4), "{deployed:#}");
    let status = ok(&local, &["fleet", "status"]);
    assert!(
        status["instances"].as_array().unwrap().iter().all(|stack| stack["status"] == "CURRENT"),
        "{status:#}"
    );
    assert!(plan(&local).iter().all(|step| step.starts_with("keep ")));

    // One account more, one Region less.
    local.edit(
        "\"444455556666\"], regions: [eu-central-1, eu-west-1]",
        "\"777788889999\"], regions: [eu-central-1]",
    );
    assert_eq!(
        plan(&local),
        [
            "keep snapwarden-local",
            "keep 111122223333 in eu-central-1",
            "delete 111122223333 in eu-west-1",
            "delete 444455556666 in eu-central-1",
            "delete 444455556666 in eu-west-1",
            "create 777788889999 in eu-central-1",
        ]
    );
    let deployed = ok(&local, &["fleet", "deploy", "--bundle", &bundle]);
    assert_eq!(deployed["instances"].as_array().map(Vec::len), Some(2), "{deployed:#}");

    let destroyed = ok(&local, &["fleet", "destroy"]);
    assert_eq!(destroyed["deleted"], json!(2));
    let nothing = ok(&local, &["fleet", "destroy"]);
    assert_eq!(nothing["deleted"], json!(0));
}

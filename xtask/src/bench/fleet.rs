//! Backup and cleanup of a fleet against EC2's token buckets.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use snapwarden_deployer::environment::Environment;
use snapwarden_deployer::kinds::{Blueprint, Kind, LambdaFunction};
use snapwarden_deployer::policy::role_policies;
use snapwarden_deployer::scope::{Function, Scope as Names};
use snapwarden_proxy::{Buckets, Count, Latency, Proxy, Scenario};

use super::cloud::Cloud;
use super::lambda::{Invoked, invoke};
use super::native::{self, Profile};
use super::{Outcome, Row, Scope, number};
use crate::failure::{Exit, Failure};
use crate::tools::venv::{self, Venv};

/// What EC2 takes to answer, in milliseconds, on a good day within a Region.
const LATENCY_MS: u32 = 30;

/// Volumes of each instance: most have one for the system and one for data.
const VOLUMES: usize = 2;

/// A fleet, and how many times as quick as AWS's the buckets are.
#[derive(Clone, Copy)]
struct Fleet {
    instances: usize,
    scale: u16,
}

/// Backs up and cleans up fleets with our functions and with the usual script.
pub(super) fn against_python(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let fleets: &[Fleet] = if scope.is_short {
        &[Fleet { instances: 50, scale: 1 }, Fleet { instances: 100, scale: 10 }]
    } else {
        &[
            Fleet { instances: 50, scale: 1 },
            Fleet { instances: 500, scale: 1 },
            Fleet { instances: 2_000, scale: 10 },
        ]
    };
    let profile = if scope.is_short { Profile::Dev } else { Profile::Lambda };
    let ours = Ours::new(scope, profile)?;
    let peers = venv::ensure(scope.context.workspace(), &venv::PEERS, scope.context.progress())?;
    let mut rows = Vec::new();
    for fleet in fleets {
        for function in Function::ALL {
            let name = function.as_str();
            let what = format!("{name} of {} instances, buckets × {}", fleet.instances, fleet.scale);
            let task = scope.context.progress().start(&what);
            let mine = measure(*fleet, function, |proxy| ours.invoke(function, *fleet, proxy))?;
            let theirs = measure(*fleet, function, |proxy| python(&peers, function, proxy))?;
            task.done("");
            let ratio = |name| mine.figure(name) / theirs.figure(name);
            let (wall, calls, memory) = (ratio("wall"), ratio("calls"), ratio("peak memory"));
            rows.push(Row { what: format!("{what}: snapwarden"), ..mine });
            rows.push(Row { what: format!("{what}: boto3"), ..theirs });
            let row = Row::new(format!("{what}: ratio")).with("wall", wall, "×").with("calls", calls, "×");
            rows.push(row.with("peak memory", memory, "×"));
        }
    }
    Ok(Outcome {
        name: "fleet",
        about: "Two volumes an instance, 30 ms a call, EC2's published token buckets. The script lists, snapshots \
                volume by volume, tags, and deletes one by one.",
        rows,
    })
}

/// How close to EC2's rate our functions come.
pub(super) fn bucket_use(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let profile = if scope.is_short { Profile::Dev } else { Profile::Lambda };
    let ours = Ours::new(scope, profile)?;
    let fleet = Fleet { instances: if scope.is_short { 120 } else { 500 }, scale: 1 };
    let mut rows = Vec::new();
    for (function, action) in
        [(Function::Backup, "ec2:CreateSnapshots"), (Function::Cleanup, "ec2:DeleteSnapshot")]
    {
        let what = format!("{} of {} instances", function.as_str(), fleet.instances);
        let task = scope.context.progress().start(&what);
        let (row, count) =
            measure_calls(fleet, function, action, |proxy| ours.invoke(function, fleet, proxy))?;
        task.done("");
        // What a bucket of 100 and 5 a second gives at best.
        let possible = (number(count.calls) - 100.0) / 5.0;
        let used = possible / row.figure("wall");
        rows.push(Row { what, ..row }.with("possible", possible, "s").with("use", used, "ratio"));
    }
    Ok(Outcome {
        name: "buckets",
        about: "Use: the shortest time in which EC2's bucket (100, then 5 a second) gives so many tokens, by the time \
                taken. Three percent are left to others on purpose.",
        rows,
    })
}

/// Our functions, and what they are told.
pub(super) struct Ours {
    programs: std::path::PathBuf,
    variables: Vec<(Function, Vec<(String, String)>)>,
}

impl Ours {
    pub(super) fn new(scope: Scope<'_>, profile: Profile) -> Result<Self, Failure> {
        let environment = scope.context.environment()?;
        let programs = native::programs(scope, profile)?;
        Ok(Self { programs, variables: variables(&environment)? })
    }

    fn invoke(&self, function: Function, fleet: Fleet, proxy: &Proxy) -> Result<Invoked, Failure> {
        let mut event = json!({
            "scheduled_at": jiff::Timestamp::now(),
            "schedule": "manual",
            "pace": fleet.scale,
        });
        if function == Function::Cleanup {
            event["max_deletes"] = json!(20_000);
            event["allow_mass_deletion"] = json!(true);
        }
        self.run(function, &event, proxy.ec2())
    }

    /// Runs one of them to its end.
    pub(super) fn run(&self, function: Function, event: &Value, ec2: &str) -> Result<Invoked, Failure> {
        let mut command = Command::new(self.programs.join(format!("snapwarden-{}", function.as_str())));
        command.env_clear().env("AWS_ENDPOINT_URL_EC2", ec2);
        let variables = self.variables.iter().filter(|(of, _)| *of == function);
        command.envs(variables.flat_map(|(_, variables)| variables.clone()));
        invoked(invoke(command, event))
    }
}

/// Environment variables, by name.
type Variables = Vec<(String, String)>;

/// The environment variables that a deploy gives each function.
fn variables(environment: &Environment) -> Result<Vec<(Function, Variables)>, Failure> {
    let names = Names::of(environment);
    let policies = role_policies(environment, &names).map_err(|error| failed(&error))?;
    let code = std::collections::BTreeMap::new();
    let blueprint =
        Blueprint { environment, scope: &names, policies: &policies, code: &code, draining: None };
    let declared = LambdaFunction::declare(&blueprint);
    let of = |function: Function| {
        let (_, properties) = declared.iter().find(|(name, _)| *name == names.function(function))?;
        let properties = serde_json::to_value(properties).ok()?;
        let variables = properties["version"]["environment"].as_object()?.clone();
        let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
        // Without the topic: there is none.
        Some(
            variables
                .into_iter()
                .filter(|(name, _)| name == "SNAPWARDEN_SETTINGS")
                .filter_map(text)
                .collect(),
        )
    };
    Ok(Function::ALL.into_iter().filter_map(|function| Some((function, of(function)?))).collect())
}

/// The usual way, in a process of its own like ours.
fn python(peers: &Venv, function: Function, proxy: &Proxy) -> Result<Invoked, Failure> {
    let script = peers.folder().join("handler.py");
    write(&script, include_str!("peers/handler.py"))?;
    let mut command = Command::new(peers.program("python"));
    command.arg("-I").arg(script).arg(function.as_str());
    command.env_clear().env("AWS_ENDPOINT_URL_EC2", proxy.ec2());
    invoked(invoke(command, &json!({})))
}

pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused_by(Exit::Failed, error)
}

/// Writes a file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        Failure::caused_by(Exit::Failed, &error).context(&format!("cannot write {}", path.display()))
    })
}

fn invoked(result: std::io::Result<Invoked>) -> Result<Invoked, Failure> {
    let invoked = result
        .map_err(|error| Failure::caused_by(Exit::Failed, &error).context("cannot invoke the function"))?;
    if invoked.failed {
        return Err(Failure::new(Exit::Failed, format!("the function failed: {}", invoked.payload)));
    }
    Ok(invoked)
}

fn measure(
    fleet: Fleet,
    function: Function,
    run: impl FnOnce(&Proxy) -> Result<Invoked, Failure>,
) -> Result<Row, Failure> {
    measure_calls(fleet, function, "", run).map(|(row, _)| row)
}

/// Runs a function against a fleet of its own, and counts its calls, all of them and those of one action.
fn measure_calls(
    fleet: Fleet,
    function: Function,
    action: &str,
    run: impl FnOnce(&Proxy) -> Result<Invoked, Failure>,
) -> Result<(Row, Count), Failure> {
    let cloud = Cloud::with_instances(fleet.instances, VOLUMES).map_err(|error| failed(&error))?;
    let volumes = fleet.instances * VOLUMES;
    let before = match function {
        Function::Backup => 0,
        Function::Cleanup => {
            cloud.make_sets(1, "2026-01-01");
            cloud.make_sets(1, "2099-01-01");
            2 * volumes
        }
    };
    let proxy = Proxy::listen(0, 0).map_err(|error| failed(&error))?;
    proxy.connect(&cloud.url(), &cloud.url()).map_err(|error| failed(&std::io::Error::other(error)))?;
    proxy.play(&Scenario {
        latency: Latency { ms: LATENCY_MS, ms_per_call_under_way: 0 },
        buckets: Some(Buckets { scale: f64::from(fleet.scale) }),
        ..Scenario::default()
    });
    let invoked = run(&proxy)?;
    let expected = if function == Function::Backup { volumes } else { before - volumes };
    if cloud.snapshots() != expected {
        let message = format!("{} snapshots are there, and {expected} should be", cloud.snapshots());
        return Err(Failure::new(Exit::Failed, message));
    }
    let counts = proxy.counts();
    let sum = |of: fn(&Count) -> u64| number(counts.values().map(of).sum());
    let (calls, throttles) = (sum(|count| count.calls), sum(|count| count.throttles));
    let row = Row::new("")
        .with("wall", invoked.took.as_secs_f64(), "s")
        .with("calls", calls, "")
        .with("throttles", throttles, "")
        .with("throttled", 100.0 * throttles / calls, "%")
        .with("peak memory", invoked.peak_mb, "MB");
    Ok((row, counts.get(action).copied().unwrap_or_default()))
}

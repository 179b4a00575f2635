//! What ever more snapshots cost.

use serde_json::json;
use snapwarden_deployer::scope::Function;

use super::cloud::Cloud;
use super::fleet::{Ours, failed};
use super::local::Local;
use super::native::Profile;
use super::{Outcome, Row, Scope};
use crate::failure::Failure;

/// Instances with two volumes each; of every volume there are as many snapshots as it takes.
const INSTANCES: usize = 50;

/// Plans, reports on, and cleans up (in a dry run) ever more snapshots.
pub(super) fn run(scope: Scope<'_>) -> Result<Outcome, Failure> {
    let progress = scope.context.progress();
    let folder = scope.bundle()?.display().to_string();
    let sizes: &[usize] = if scope.is_short { &[100, 5_000] } else { &[100, 1_000, 10_000, 100_000] };
    let ours = Ours::new(scope, if scope.is_short { Profile::Dev } else { Profile::Lambda })?;
    let local = Local::start(scope)?;
    local.run(&["deploy", "--bundle", &folder, "--yes"], &[])?;
    // Another floor asks what it would delete: a plan that reads all snapshots.
    local.environment(&local.text().replace("floor: 1 ", "floor: 2 "))?;
    let page = local.path("report.html");
    let mut rows = Vec::new();
    for size in sizes {
        let task = progress.start(format!("{size} snapshots"));
        let cloud = Cloud::with_instances(INSTANCES, 2).map_err(|error| failed(&error))?;
        cloud.make_sets(size / (2 * INSTANCES), "2099-01-01");
        let url = cloud.url();
        let through = [("SNAPWARDEN_LOCAL_ENDPOINT_EC2", url.as_str())];
        for (what, arguments) in [
            ("plan of another floor", &["plan", "--bundle", &folder][..]),
            ("report", &["report", "--out", &page]),
        ] {
            let ran = local.run(arguments, &through)?;
            let row = Row::new(format!("{what}, {size} snapshots")).with("wall", ran.wall.as_secs_f64(), "s");
            rows.push(row.with("peak memory", ran.peak_mb, "MB"));
        }
        let event = json!({
            "scheduled_at": jiff::Timestamp::now(), "schedule": "manual", "dry_run": true, "pace": 100,
        });
        let invoked = ours.run(Function::Cleanup, &event, &url)?;
        let row = Row::new(format!("cleanup function, dry run, {size} snapshots"));
        let row = row.with("wall", invoked.took.as_secs_f64(), "s");
        rows.push(row.with("peak memory", invoked.peak_mb, "MB"));
        task.done("");
    }
    Ok(Outcome {
        name: "growth",
        about: "No latency. Commands are the development build, the function is compiled as for Lambda (in a short run \
                as for development). EC2 lists 1,000 snapshots a page.",
        rows,
    })
}

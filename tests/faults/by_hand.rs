//! Faults by hand: `cargo xtask local up --faults FILE`.

use serde_json::json;
use snapwarden_tests::Local;

/// Who tries a bad day out on their own machine must get the one that the file says, and must get rid of it.
#[test]
fn a_file_disturbs_commands_and_functions_until_another_one_does_not() {
    let local = Local::new();
    let (bad, good, wrong) = (local.path("bad.yaml"), local.path("good.yaml"), local.path("wrong.yaml"));
    std::fs::write(&bad, "rules: [{ calls: all, fault: throttle, every: 4 }]").unwrap();
    std::fs::write(&good, "latency: { ms: 1 }").unwrap();
    std::fs::write(&wrong, "rules: [{ calls: al, fault: throttle }]").unwrap();
    let file = |path: &std::path::Path| path.display().to_string();

    let refused = local.run(&["local", "up", "--faults", &file(&wrong)]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("`al` is none of"), "{refused:?}");

    local.ok(&["local", "up", "--faults", &file(&bad)]);
    local.deploy();
    local.json(&["local", "seed"]);
    let report = local.json(&["invoke", "backup"]);
    assert_eq!(report["snapshots_created"], json!(3), "{report}");
    assert!(report["throttles"].as_u64() > Some(0), "the function was disturbed as well: {report}");
    let counts = local.json(&["local", "faults"]);
    assert!(counts["lambda:CreateFunction"]["calls"].as_u64() >= Some(2), "{counts}");
    let disturbed = counts.as_object().unwrap().values().filter(|count| count["faults"] != json!(0)).count();
    assert!(disturbed > 5, "{counts}");

    local.ok(&["local", "up", "--faults", &file(&good)]);
    local.json(&["status"]);
    let counts = local.json(&["local", "faults"]);
    assert!(counts.as_object().unwrap().values().all(|count| count["faults"] == json!(0)), "{counts}");

    // What the environment holds outlives the faults.
    local.ok(&["local", "down"]);
    local.ok(&["local", "up"]);
    let none = local.run(&["local", "faults"]);
    assert_eq!(none.code, 1, "{none:?}");
    assert_eq!(local.snapshots().len(), 3);
    let refused = local.run(&["local", "up", "--faults", &file(&bad)]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("local down"), "{refused:?}");
}

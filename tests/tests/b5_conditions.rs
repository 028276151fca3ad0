//! A node that never comes to run is told of: in the timeline, once, and in the instance's condition.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::time::Duration;

use bmi_tests::{Client, Deployment, STORE_SMALL, until};
use serde_json::{Value, json};

const MAC: &str = "52:54:00:b5:00:01";
const PATH: &str = "/v1/projects/lab/instances/node-a";
const PATIENCE: Duration = Duration::from_secs(30);

fn count(deployment: &Deployment, stage: &str) -> usize {
    let timeline = deployment.api.get(&format!("{PATH}/timeline")).expect(200);
    timeline["stages"].as_array().unwrap().iter().filter(|found| found["stage"] == stage).count()
}

fn await_condition(deployment: &Deployment, condition: &Value) {
    until(&format!("the condition is {condition}"), PATIENCE, || {
        (deployment.api.get(PATH).expect(200)["condition"] == *condition).then_some(())
    });
}

#[test]
fn b5_never_booted_and_boot_loops_raise_events() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.control_plane_configure(
        "[boot]\nnever_after_seconds = 3\nloop_boots = 3\nloop_within_seconds = 600",
    );
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.image("lab", "small");
    deployment.api.node_of("node-a", MAC, "lab");
    let instance = deployment.api.instance("lab", "node-a", "small", &json!({}));
    assert_eq!(instance["condition"], Value::Null);
    let node = Client::new(&deployment, "a", MAC);

    // It boots and does not log in.
    let (_, url) = node.dhcp();
    let script = node.script(&url);
    await_condition(&deployment, &json!("boot.never"));
    assert_eq!(count(&deployment, "boot.never"), 1);
    let shown = deployment.cli("lab").run(&["instance", "show", "node-a"]);
    assert!(shown.out.contains("boot.never"), "{shown:?}");
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(count(&deployment, "boot.never"), 1, "told once");

    // It logs in, and that is over.
    assert!(node.login(&script));
    await_condition(&deployment, &Value::Null);

    // Again and again it boots, logs in and does not run.
    for boot in 2..=3 {
        let (_, url) = node.dhcp();
        assert!(node.login(&node.script(&url)), "boot {boot}");
    }
    await_condition(&deployment, &json!("boot.loop"));
    let (_, url) = node.dhcp();
    assert!(node.login(&node.script(&url)));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(count(&deployment, "boot.loop"), 1, "told once");
    let timeline = deployment.cli("lab").run(&["instance", "timeline", "node-a"]);
    assert!(timeline.out.contains("boot.loop") && timeline.out.contains("boots=3"), "{timeline:?}");
}

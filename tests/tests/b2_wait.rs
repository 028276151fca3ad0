//! A node without an instance waits, and boots by itself when it gets one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::time::Duration;

use bmi_tests::{Deployment, Firmware, Node, STORE_LARGE};
use serde_json::{Value, json};

/// Three emulated machines share the processors until their firmware is done.
const FIRMWARE: Duration = Duration::from_secs(180);
/// From asking again to the login of the kernel's boot loader.
const BOOT: Duration = Duration::from_secs(120);

const UNKNOWN: &str = "52:54:00:b2:00:01";
const ASSIGNED: &str = "52:54:00:b2:00:02";
const RELEASED: &str = "52:54:00:b2:00:03";

/// What firmware and iPXE print when they were given something they cannot use.
const ERRORS: [&str; 6] =
    ["<html", "HTTP 4", "HTTP 5", "Could not boot", "No more network devices", "urn:bmi:problem"];

fn assert_waits(who: &str, node: &mut Node) {
    node.wait(&format!("the {who} node asks again"), FIRMWARE, |console| console.contains("asking again in"));
    // It goes on asking: the second round shows the line again.
    node.wait(&format!("the {who} node asks a second time"), FIRMWARE, |console| {
        console.matches("asking again in").count() >= 2
    });
    let console = node.console();
    for error in ERRORS {
        assert!(!console.contains(error), "the {who} node was shown `{error}`:\n{console}");
    }
}

#[test]
fn b2_nodes_without_an_instance_wait_and_boot_when_they_get_one() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    let _ = deployment.golden_import("lab");
    api.node_of("assigned", ASSIGNED, "lab");
    api.node_of("released", RELEASED, "lab");
    api.instance("lab", "released", "debian-12", &json!({}));
    api.instance_remove("lab", "released");
    api.post("/v1/nodes/released/release", &json!({})).expect(200);

    let mut unknown = Node::start(&deployment, UNKNOWN, Firmware::Bios);
    let mut released = Node::start(&deployment, RELEASED, Firmware::Bios);
    let mut assigned = Node::start(&deployment, ASSIGNED, Firmware::Bios);
    assert_waits("unknown", &mut unknown);
    assert_waits("released", &mut released);
    assert_waits("assigned", &mut assigned);
    drop((unknown, released));

    api.instance("lab", "assigned", "debian-12", &json!({}));
    let timeline = "/v1/projects/lab/instances/assigned/timeline";
    let stages = || -> Vec<Value> { api.get(timeline).expect(200)["stages"].as_array().unwrap().clone() };
    assigned.wait("the waiting node boots by itself", BOOT, |_| {
        stages().iter().any(|stage| stage["stage"] == "login")
            && stages().iter().any(|stage| stage["stage"] == "script")
    });
    let stages = stages();
    let at = |name: &str| stages.iter().position(|stage| stage["stage"] == name);
    assert!(at("script") < at("login"), "{stages:#?}");
    assert_eq!(api.get("/v1/projects/lab/instances/assigned").expect(200)["state"], "running");
}

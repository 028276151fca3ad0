//! An agent's host that is cut off from the control plane, and one that is lost: what its nodes notice, and that a standby
//! takes over, with the volumes fenced and the same addresses, while a node writes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints how long a takeover took"
)]

use std::time::{Duration, Instant};

use bmi_tests::engine::Kind::{Docker, Podman};
use bmi_tests::{
    AgentHost, Ceph, Client, Deployment, Disk, Management, Switch, Writes, operation_end, output, until,
};
use serde_json::{Value, json};

/// How long what is repeated takes at the longest.
const SOON: Duration = Duration::from_secs(120);
/// Blocks that a node writes around a fault, and of these before it.
const BLOCKS: u32 = 600;
const BEFORE: usize = 100;
const MAC: &str = "52:54:00:a9:00:01";

fn agents(deployment: &Deployment) -> Vec<Value> {
    deployment.api.list("/v1/agents")
}

#[test]
fn k2_a_lost_host_is_replaced_while_a_node_writes_and_nothing_is_lost() {
    let _management = Management::enter();
    // Of this test's own: it is where the management network is.
    let ceph = Ceph::start();
    let deployment = Deployment::start_for_agents(&ceph, MAC);
    let switch = Switch::new("rack");
    let mut hosts = pair(&deployment, &switch);
    hosts[0].listens(&deployment, "provisioning");
    let standing = |state: &str| {
        let all = agents(&deployment);
        let mut found = all.into_iter().filter(|agent| agent["state"] == state);
        found.next().unwrap_or_else(|| panic!("no agent is {state}"))
    };
    let (lost, standby) = (standing("active"), standing("standby"));

    let shown = deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&switch, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();
    let mut writes = Writes::start(&disk, directory.path(), BLOCKS, 1);
    assert_eq!(writes.acknowledged(BEFORE), BEFORE);
    assert_eq!(hosts[1].engine.containers().len(), 0, "who stands by runs nothing");

    hosts[0].power_off(&switch);
    let begun = Instant::now();
    let path = format!("/v1/agents/{}/replace", lost["id"].as_str().unwrap());
    deployment.api.post(&path, &json!({})).expect(200);
    println!("fenced and handed over: {:.1} s", begun.elapsed().as_secs_f64());
    writes.finish(&disk, BEFORE);
    println!("the node has written on: {:.1} s", begun.elapsed().as_secs_f64());

    let now = agents(&deployment);
    let state = |id: &Value| now.iter().find(|agent| agent["id"] == *id).unwrap()["state"].clone();
    assert_eq!((state(&lost["id"]), state(&standby["id"])), (json!("revoked"), json!("active")));
    let after = deployment.api.get("/v1/projects/lab/instances/node-1").expect(200);
    assert_eq!(after["target_address"], shown["target_address"], "the same address");
    // Two containers: the boot services and the target.
    assert_eq!(hosts[1].engine.containers().len(), 2);
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}

/// Two agents of one network, the first of which has it.
fn pair(deployment: &Deployment, switch: &Switch) -> [AgentHost; 2] {
    [(11, Docker), (12, Podman)].map(|(number, kind)| {
        let mut host = AgentHost::new(deployment, number, "provisioning", kind);
        host.plug(switch);
        host.token_give(&deployment.api.join_token("provisioning"));
        host.agent_start();
        until("it has joined", SOON, || (agents(deployment).len() == usize::from(number) - 10).then_some(()));
        host
    })
}

#[test]
fn k2_a_host_that_comes_back_after_it_was_replaced_takes_down_what_it_ran() {
    let _management = Management::enter();
    // Of this test's own: it is where the management network is.
    let ceph = Ceph::start();
    let deployment = Deployment::start_for_agents(&ceph, MAC);
    let switch = Switch::new("rack");
    let hosts = pair(&deployment, &switch);
    hosts[0].listens(&deployment, "provisioning");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&switch, "node-1", MAC);
    let first = client.script(&client.dhcp().1);
    assert!(client.login(&first));
    until("the control plane has heard of it", SOON, || {
        let timeline = deployment.api.get("/v1/projects/lab/instances/node-1/timeline").expect(200);
        timeline["stages"].as_array().unwrap().iter().any(|stage| stage["stage"] == "login").then_some(())
    });
    let active = agents(&deployment).into_iter().find(|agent| agent["state"] == "active").unwrap();
    hosts[0].cut_off(true);
    deployment
        .api
        .post(&format!("/v1/agents/{}/replace", active["id"].as_str().unwrap()), &json!({}))
        .expect(200);
    until("the next one serves", SOON, || (hosts[1].engine.containers().len() == 2).then_some(()));
    assert_eq!(hosts[0].engine.containers().len(), 2, "it does not know yet");

    hosts[0].cut_off(false);
    until("the old one runs nothing", SOON, || hosts[0].engine.containers().is_empty().then_some(()));
    let bridge = ["-n", &hosts[0].namespace, "link", "show", "bmi0"];
    until("nor has it the network", SOON, || (!output("ip", &bridge).status.success()).then_some(()));
    assert!(hosts[0].log().contains("another agent has the network"));
    // A node boots from the one that has it; what logged in before, on the other host, is spent here.
    // Switches and the node have to learn first where the addresses are.
    until("it boots", SOON, || {
        let script = client.script(&client.dhcp().1);
        (script.contains("iscsi:") && client.login(&script)).then_some(())
    });
    assert!(!client.login(&first), "an older boot's secret");
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}

#[test]
fn k2_an_agent_that_is_cut_off_serves_on_and_does_what_it_missed() {
    let _management = Management::enter();
    // Of this test's own: it is where the management network is.
    let ceph = Ceph::start();
    let deployment = Deployment::start_for_agents(&ceph, MAC);
    let mut host = AgentHost::new(&deployment, 11, "provisioning", Docker);
    host.token_give(&deployment.api.join_token("provisioning"));
    host.agent_start();
    host.listens(&deployment, "provisioning");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&host, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();

    host.cut_off(true);
    // What is asked for meanwhile waits; what runs is served, and a machine that boots is answered.
    deployment.api.node_of("node-2", "52:54:00:a9:00:02", "lab");
    let body = json!({"name": "node-2", "node": "node-2", "image": "noise", "network": "provisioning"});
    let waiting = deployment.api.post("/v1/projects/lab/instances", &body).expect(202);
    let writes = Writes::start(&disk, directory.path(), BLOCKS, 1);
    writes.finish(&disk, 0);
    assert!(client.script(&client.dhcp().1).contains("iscsi:"), "it boots again");
    let path = format!("/v1/operations/{}", waiting["id"].as_str().unwrap());
    assert_eq!(deployment.api.get(&path).expect(200)["state"], "running");

    host.cut_off(false);
    assert_eq!(operation_end(&deployment.api, &waiting)["state"], "succeeded");
    drop(client);
    for node in ["node-1", "node-2"] {
        deployment.api.instance_remove("lab", node);
    }
    until("only the boot services are left", SOON, || (host.engine.containers().len() == 1).then_some(()));
}

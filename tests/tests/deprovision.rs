//! What deprovision leaves: nothing. The world before a provision is compared with the world after it was taken away.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, processes, tree, until};
use serde_json::{Value, json};

/// Everything that a provision touches, as others see it: iproute2, nft, the kernel, the file system, the API.
#[derive(Debug, PartialEq)]
struct World {
    links: Vec<String>,
    addresses: Vec<String>,
    rules: Value,
    processes: Vec<(u32, String)>,
    store: BTreeMap<String, (u32, u32)>,
    agent: BTreeMap<String, (u32, u32)>,
    lists: BTreeMap<String, Value>,
}

/// Rules without what counts: handles and counters.
fn without_counters(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["handle", "packets", "bytes", "metainfo", "expires"] {
                map.remove(key);
            }
            map.values_mut().for_each(without_counters);
        }
        Value::Array(all) => all.iter_mut().for_each(without_counters),
        _ => {}
    }
}

fn names(json: &str, field: &str) -> Vec<String> {
    let all: Value = serde_json::from_str(json).unwrap();
    let mut names: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one[field].as_str().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    names
}

fn world(deployment: &Deployment) -> World {
    let mut rules: Value =
        serde_json::from_str(&deployment.inside("nft", &["-j", "list", "ruleset"])).unwrap();
    without_counters(&mut rules);
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let mut running: Vec<(u32, String)> = processes()
        .into_iter()
        .filter(|one| uids.contains(&one.uid))
        .map(|one| (one.uid, one.command))
        .collect();
    running.sort();
    let api = &deployment.api;
    let mut lists = BTreeMap::new();
    for path in ["/v1/projects", "/v1/projects/lab/images", "/v1/projects/lab/instances"] {
        lists.insert(path.to_owned(), api.list(path).into());
    }
    let mut nodes = api.list("/v1/nodes");
    for node in &mut nodes {
        node.as_object_mut().unwrap().remove("version");
    }
    lists.insert("/v1/nodes".to_owned(), nodes.into());
    World {
        links: names(&deployment.inside("ip", &["-j", "link"]), "ifname"),
        addresses: names(&deployment.inside("ip", &["-j", "neigh"]), "dst"),
        rules,
        processes: running,
        store: tree(&deployment.store()),
        agent: tree(&deployment.data.join("agent")),
        lists,
    }
}

#[test]
fn nothing_is_left_of_a_deprovisioned_instance() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    api.image("lab", "small");
    for number in 1..=2 {
        api.node_of(&format!("node-{number}"), &format!("52:54:00:de:00:0{number}"), "lab");
    }
    // The store makes folders of a project when they are first needed, and the agent writes its ledger.
    let before = world(&deployment);
    for round in 1..=2 {
        for node in ["node-1", "node-2"] {
            api.instance("lab", node, "small", &json!({"user_data": "#!/bin/sh\n"}));
        }
        let during = world(&deployment);
        assert_eq!(during.links.len(), before.links.len() + 2, "a port a target: {:?}", during.links);
        assert_eq!(
            during.processes.len(),
            before.processes.len() + 2,
            "a process a target: {:?}",
            during.processes
        );
        assert!(during.store.len() > before.store.len() && during.rules != before.rules);
        api.instance_remove("lab", "node-1");
        let half = world(&deployment);
        assert_eq!(half.processes.len(), before.processes.len() + 1, "the other one stays");
        api.instance_remove("lab", "node-2");
        until("the last process of the targets is gone", Duration::from_secs(10), || {
            (world(&deployment).processes == before.processes).then_some(())
        });
        assert_eq!(world(&deployment), before, "round {round}");
    }
    let ledger = std::fs::read_to_string(deployment.data.join("agent/agent/ledger.json")).unwrap();
    assert!(!ledger.contains("boot_key"), "a key of an instance that ended: {ledger}");
    deployment.assert_alive();
}

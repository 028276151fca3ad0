//! Many callers at once want the same few nodes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::sync::Barrier;

use bmi_tests::{Deployment, STORE_SMALL};
use serde_json::json;

const NODES: usize = 10;
const CALLERS: usize = 100;

#[test]
fn k3_hundred_provisions_of_ten_nodes_exactly_ten_win() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.image("lab", "small");
    for node in 0..NODES {
        api.node_of(&format!("node-{node}"), &format!("52:54:00:b3:00:{node:02x}"), "lab");
    }

    let gate = Barrier::new(CALLERS);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let gate = &gate;
                scope.spawn(move || {
                    let body = json!({
                        "name": format!("instance-{caller}"),
                        "node": format!("node-{}", caller % NODES),
                        "image": "small",
                        "network": "provisioning",
                    });
                    gate.wait();
                    (caller, api.post("/v1/projects/lab/instances", &body))
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });

    let instances = api.list("/v1/projects/lab/instances");
    let won: Vec<_> = answers.iter().filter(|(_, answer)| answer.status == 202).collect();
    assert_eq!(won.len(), NODES);
    for (caller, answer) in &answers {
        if answer.status == 202 {
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (409, "in-use"), "{}", answer.json());
        // The loser is told who has the node: the one instance that won it.
        let blockers = answer.json()["blockers"].clone();
        assert_eq!(blockers.as_array().map(Vec::len), Some(1), "{blockers}");
        let winner = won.iter().find(|(winner, _)| winner % NODES == caller % NODES).unwrap().0;
        assert_eq!(blockers[0]["name"], format!("instance-{winner}"));
    }

    assert_eq!(instances.len(), NODES);
    for field in ["node", "node_address", "target_address", "target", "id"] {
        let mut values: Vec<String> = instances.iter().map(|instance| instance[field].to_string()).collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), NODES, "every instance has its own {field}");
    }
    assert!(api.list("/v1/nodes").iter().all(|node| node["state"] == "in-use"));
    let operations = api.list("/v1/operations");
    let provisions = operations.iter().filter(|operation| operation["kind"] == "provision");
    assert_eq!(provisions.count(), NODES);
}

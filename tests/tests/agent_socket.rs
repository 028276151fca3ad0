//! The socket of the local agent: who connects to it speaks for one network and learns of no other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use bmi_tests::{Deployment, STORE_SMALL};

fn get(deployment: &Deployment, network: &str) -> String {
    let path = format!("/agent/v1/networks/{network}/desired?generation=0&wait=0");
    deployment.agent_ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

#[test]
fn s1_the_agents_socket_speaks_for_one_network() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.network("provisioning", "10.77.0.0/24");
    api.network("foreign", "10.78.0.0/24");
    assert!(get(&deployment, "provisioning").starts_with("HTTP/1.1 200"));

    let before = api.get("/v1/networks/foreign").json();
    let status = r#"{"version":"0","generation_observed":9,"netboot":{"state":"listening"},"instances":[]}"#;
    let refused = [
        get(&deployment, "foreign"),
        deployment.agent_post("foreign", "status", status),
        deployment.agent_post("foreign", "events", r#"{"events":[]}"#),
        get(&deployment, before["id"].as_str().unwrap()),
        get(&deployment, "absent"),
    ];
    for answer in &refused {
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(!answer.contains("10.78.0"), "{answer}");
    }
    assert_eq!(api.get("/v1/networks/foreign").json(), before, "nothing was written for the other network");
    assert!(deployment.agent_post("provisioning", "status", status).starts_with("HTTP/1.1 204"));
}

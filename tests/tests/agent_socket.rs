//! The socket of the local agent: who connects to it speaks for one network and learns of no other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bmi_tests::{Deployment, STORE_SMALL};

/// Sends one request and answers the status line and the rest.
fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(socket: &Path, network: &str) -> String {
    let path = format!("/agent/v1/networks/{network}/desired?generation=0&wait=0");
    ask(socket, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn post(socket: &Path, network: &str, what: &str, body: &str) -> String {
    let head =
        format!("POST /agent/v1/networks/{network}/{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let length = body.len();
    ask(socket, &format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
}

#[test]
fn s1_the_agents_socket_speaks_for_one_network() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.network("provisioning", "10.77.0.0/24");
    api.network("foreign", "10.78.0.0/24");
    let socket = deployment.data.join("control-plane/agent.sock");
    assert!(get(&socket, "provisioning").starts_with("HTTP/1.1 200"));

    let before = api.get("/v1/networks/foreign").json();
    let status = r#"{"version":"0","generation_observed":9,"netboot":{"state":"listening"},"instances":[]}"#;
    let refused = [
        get(&socket, "foreign"),
        post(&socket, "foreign", "status", status),
        post(&socket, "foreign", "events", r#"{"events":[]}"#),
        get(&socket, before["id"].as_str().unwrap()),
        get(&socket, "absent"),
    ];
    for answer in &refused {
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(!answer.contains("10.78.0"), "{answer}");
    }
    assert_eq!(api.get("/v1/networks/foreign").json(), before, "nothing was written for the other network");
    assert!(post(&socket, "provisioning", "status", status).starts_with("HTTP/1.1 204"));
}

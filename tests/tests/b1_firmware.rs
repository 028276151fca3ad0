//! Every kind of firmware gets the right file, once. BIOS and UEFI PXE are in `boot.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::time::Duration;

use bmi_tests::{Deployment, Firmware, Node, STORE_LARGE, until};
use serde_json::{Value, json};

/// Two emulated machines share the processors.
const LOGIN: Duration = Duration::from_secs(600);

const HTTP: &str = "52:54:00:b1:01:01";
const IPXE: &str = "52:54:00:b1:01:02";

fn stages(deployment: &Deployment, node: &str) -> Vec<Value> {
    let path = format!("/v1/projects/lab/instances/{node}");
    until("the first write is in the timeline", Duration::from_secs(30), || {
        let timeline = deployment.api.get(&format!("{path}/timeline")).expect(200);
        let stages = timeline["stages"].as_array().unwrap().clone();
        stages.iter().any(|stage| stage["stage"] == "write.first").then_some(stages)
    })
}

fn details<'a>(stages: &'a [Value], stage: &str) -> Vec<&'a Value> {
    stages.iter().filter(|found| found["stage"] == stage).map(|found| &found["detail"]).collect()
}

/// What firmware was told, before the operating system asked for its address.
fn files(stages: &[Value]) -> Vec<String> {
    let told = details(stages, "dhcp").into_iter().filter_map(|detail| detail["file"].as_str());
    told.map(str::to_owned).collect()
}

#[test]
fn b1_uefi_http_boot_and_ipxe_in_rom_boot_to_login_without_a_loop() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    deployment.agent_start();
    let _ = deployment.golden_import("lab");
    for (name, mac) in [("http", HTTP), ("ipxe", IPXE)] {
        deployment.api.node_of(name, mac, "lab");
        deployment.api.instance("lab", name, "debian-12", &json!({}));
    }
    let mut http = Node::start(&deployment, HTTP, Firmware::UefiHttp);
    let mut ipxe = Node::start(&deployment, IPXE, Firmware::UefiIpxe);
    http.wait_for("http login:", LOGIN);
    ipxe.wait_for("ipxe login:", LOGIN);

    let stages_http = stages(&deployment, "http");
    let loaders = details(&stages_http, "loader");
    assert_eq!(loaders.len(), 1, "the loader once: {stages_http:#?}");
    assert_eq!((&loaders[0]["file"], &loaders[0]["protocol"]), (&json!("snponly.efi"), &json!("http")));
    assert_eq!(details(&stages_http, "script").len(), 1, "the script once");
    assert_eq!(files(&stages_http), ["http://10.77.0.2/loaders/snponly.efi", "boot script"]);
    assert_eq!(details(&stages_http, "dhcp")[0]["architecture"], "16");

    let stages_ipxe = stages(&deployment, "ipxe");
    assert_eq!(details(&stages_ipxe, "loader").len(), 0, "iPXE needs no loader: {stages_ipxe:#?}");
    assert_eq!(details(&stages_ipxe, "script").len(), 1, "the script once");
    assert_eq!(files(&stages_ipxe), ["boot script"]);
    assert_eq!(details(&stages_ipxe, "dhcp")[0]["architecture"], "7", "it is UEFI's iPXE");
}

#[test]
fn b1_two_nics_boot_to_login() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    deployment.agent_start();
    let _ = deployment.golden_import("lab");
    let (first, second) = ("52:54:00:b1:02:01", "52:54:00:b1:02:02");
    let node = json!({"name": "nics", "nics": [{"mac": first}, {"mac": second}]});
    deployment.api.post("/v1/nodes", &node).expect(201);
    deployment.api.post("/v1/nodes/nics/assign", &json!({"project": "lab"})).expect(200);
    deployment.api.instance("lab", "nics", "debian-12", &json!({}));
    let mut node = Node::start_with(&deployment, &[first, second], Firmware::Uefi);
    node.wait_for("nics login:", LOGIN);
    let stages = stages(&deployment, "nics");
    let booted = details(&stages, "script");
    assert_eq!((booted.len(), &booted[0]["mac"]), (1, &json!(second)), "the NIC that the firmware chose");
    let instance = deployment.api.get("/v1/projects/lab/instances/nics").expect(200);
    assert_eq!(booted[0]["address"], instance["node_address"], "the address is with it");
    assert!(stages.iter().all(|stage| stage["stage"] != "mac.conflict"), "two NICs are no conflict");
}

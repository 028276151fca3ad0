//! Beside a running dnsmasq: it gives the addresses, BMI the boot information, or nothing but files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test ends by panicking")]

use std::time::Duration;

use bmi_tests::{Deployment, Dnsmasq, Firmware, Node, STORE_LARGE, until};
use serde_json::{Value, json};

/// Emulated machines share the processors.
const LOGIN: Duration = Duration::from_secs(600);
const WRITE: Duration = Duration::from_secs(30);

fn timeline(deployment: &Deployment, node: &str) -> Vec<Value> {
    let path = format!("/v1/projects/lab/instances/{node}/timeline");
    until("the first write is in the timeline", WRITE, || {
        let stages = deployment.api.get(&path).expect(200)["stages"].as_array().unwrap().clone();
        stages.iter().any(|stage| stage["stage"] == "write.first").then_some(stages)
    })
}

/// The address is dnsmasq's, and it is what the instance and the timeline show.
fn assert_address(deployment: &Deployment, dnsmasq: &Dnsmasq, (node, mac): (&str, &str), stages: &[Value]) {
    let given = dnsmasq.gave(mac).unwrap_or_else(|| panic!("{node}: no lease in {}", dnsmasq.said()));
    let instance = deployment.api.get(&format!("/v1/projects/lab/instances/{node}")).expect(200);
    assert_eq!(instance["node_address"], given.as_str(), "{instance:#}");
    let script = stages.iter().find(|stage| stage["stage"] == "script").unwrap();
    assert_eq!(script["detail"]["address"], given.as_str());
    let mut own = stages.iter().filter(|stage| stage["stage"] == "dhcp");
    assert!(own.all(|stage| stage["detail"]["address"].is_null()), "BMI gave no address");
}

#[test]
fn b6_proxy_beside_a_running_dnsmasq_boots_every_firmware() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    let dnsmasq = deployment.agent_start_beside("proxy", |deployment| Dnsmasq::start(deployment, &[]));
    let _ = deployment.golden_import("lab");
    let nodes = [
        ("bios", "52:54:00:b6:00:01", Firmware::Bios),
        ("uefi", "52:54:00:b6:00:02", Firmware::Uefi),
        ("http", "52:54:00:b6:00:03", Firmware::UefiHttp),
    ];
    for (name, mac, _) in nodes {
        deployment.api.node_of(name, mac, "lab");
        let instance = deployment.api.instance("lab", name, "debian-12", &json!({}));
        assert_eq!(instance["node_address"], Value::Null, "not known before it boots");
    }
    let mut waiting = Node::start(&deployment, "52:54:00:b6:00:09", Firmware::Bios);
    waiting.wait("a machine without an instance asks again", LOGIN, |console| {
        console.matches("asking again in").count() >= 2
    });
    drop(waiting);
    // All at once: firmware waits more than it computes.
    let booting = nodes.map(|(name, mac, firmware)| (name, mac, Node::start(&deployment, mac, firmware)));
    for (name, mac, mut node) in booting {
        node.wait_for(&format!("{name} login:"), LOGIN);
        let stages = timeline(&deployment, name);
        assert_address(&deployment, &dnsmasq, (name, mac), &stages);
        for wanted in ["dhcp", "script", "login", "read.first", "write.first"] {
            assert!(
                stages.iter().any(|stage| stage["stage"] == wanted),
                "{name}: no {wanted} in {stages:#?}"
            );
        }
    }
    assert!(!dnsmasq.said().contains("option: 67"), "dnsmasq named no file");
}

#[test]
fn b6_off_a_dnsmasq_that_names_our_files_boots_a_node() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    let dnsmasq = deployment.agent_start_beside("off", |deployment| {
        let options = [
            "--dhcp-match=set:ipxe,175",
            "--dhcp-match=set:efi,option:client-arch,7",
            "--dhcp-boot=tag:ipxe,http://10.77.0.2/boot",
            "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi,,10.77.0.2",
            "--dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe,,10.77.0.2",
        ];
        Dnsmasq::start(deployment, &options)
    });
    let _ = deployment.golden_import("lab");
    let (name, mac) = ("uefi", "52:54:00:b6:01:01");
    deployment.api.node_of(name, mac, "lab");
    let mut node = Node::start(&deployment, mac, Firmware::Uefi);
    node.wait("a node without an instance asks again", LOGIN, |console| {
        console.matches("asking again in").count() >= 2
    });
    deployment.api.instance("lab", name, "debian-12", &json!({}));
    node.wait_for(&format!("{name} login:"), LOGIN);
    let stages = timeline(&deployment, name);
    assert_address(&deployment, &dnsmasq, (name, mac), &stages);
    assert!(stages.iter().all(|stage| stage["stage"] != "dhcp"), "BMI answered no DHCP: {stages:#?}");
}

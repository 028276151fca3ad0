//! Real boots: a QEMU node without a disk comes to its login prompt from a clone of the golden image.
//!
//! One boot a firmware, shared by the tests of this file when they run in one process.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it measured; the record of a boot is shared"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bmi_tests::{Deployment, Firmware, Node, STORE_LARGE, output, processes, sha256, tree, until};
use bmi_types::{BootKey, BootNumber, BootUser, boot_secret};
use serde_json::{Value, json};

/// An emulated processor beside other work on two cores takes a minute or two.
const LOGIN: Duration = Duration::from_secs(420);
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmiTestsKeyOfAPersonWhoMayComeIn00000000 person@bmi";
const MARKER: &str = "user-data-marker-7f3a";

/// What a boot left behind to look at. The deployment it ran in is gone.
struct Boot {
    console: String,
    stages: Vec<Value>,
    instance: Value,
    /// As the API says, and as the file says after the boot. Only looked at once, since it takes half a minute.
    image_sha256: Option<[String; 2]>,
    volume_differs: bool,
    volumes: usize,
    leaks: Vec<String>,
    /// Requests to the disk that `/metrics` tells of: reads, writes.
    requests: [f64; 2],
}

fn boot(firmware: Firmware, mac: &str) -> Boot {
    let deployment = {
        let mut deployment = Deployment::start(STORE_LARGE);
        deployment.api.project("lab");
        deployment.agent_start();
        deployment
    };
    let api = &deployment.api;
    let image = deployment.golden_import("lab");
    let golden = golden_file(&deployment);
    api.node_of("node-b", mac, "lab");
    let script = format!(
        "#!/bin/sh\nsed 's/^/authorized: /' /root/.ssh/authorized_keys\necho {MARKER} on $(hostname)\n"
    );
    let instance =
        api.instance("lab", "node-b", "debian-12", &json!({"ssh_keys": [SSH_KEY], "user_data": script}));
    assert_eq!(instance["state"], "ready");
    let begun = Instant::now();
    let mut node = Node::start(&deployment, mac, firmware);
    node.wait_for("login:", LOGIN);
    println!("{firmware:?}: power on to login prompt {:.1} s", begun.elapsed().as_secs_f64());
    let path = "/v1/projects/lab/instances/node-b";
    let stages = until("the first write is in the timeline", Duration::from_secs(30), || {
        let stages = api.get(&format!("{path}/timeline")).expect(200)["stages"].as_array().unwrap().clone();
        stages.iter().any(|stage| stage["stage"] == "write.first").then_some(stages)
    });
    let requests = until("the metrics tell what the node reads", Duration::from_secs(30), || {
        let samples = api.samples();
        let count = |kind: &str| {
            let name = "bmi_target_request_duration_seconds_count{";
            let of = |sample: &&String| sample.starts_with(name) && sample.contains(kind);
            samples.keys().find(of).map_or(0.0, |sample| samples[sample])
        };
        let counts = ["kind=\"read\"", "kind=\"write\""].map(count);
        counts.iter().all(|count| *count > 0.0).then_some(counts)
    });
    let leaks = secrets_seen(&deployment, &stages, instance["id"].as_str().unwrap());
    let console = node.console();
    drop(node);
    let volumes = files_of(&deployment, "volumes");
    let disk = volumes.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    Boot {
        console,
        stages,
        instance: api.get(path).expect(200),
        image_sha256: (firmware == Firmware::Bios)
            .then(|| [image["sha256"].as_str().unwrap().to_owned(), sha256(&golden)]),
        volume_differs: !output("cmp", &["-s", golden.to_str().unwrap(), disk.to_str().unwrap()])
            .status
            .success(),
        volumes: volumes.len(),
        leaks,
        requests,
    }
}

fn files_of(deployment: &Deployment, folder: &str) -> Vec<std::path::PathBuf> {
    let root = deployment.store().join(folder);
    tree(&root).keys().map(|name| root.join(name)).filter(|path| path.is_file()).collect()
}

fn golden_file(deployment: &Deployment) -> std::path::PathBuf {
    let files = files_of(deployment, "images");
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Places where the key of this boot's instance or the CHAP secret of one of its boots can be read.
fn secrets_seen(deployment: &Deployment, stages: &[Value], instance: &str) -> Vec<String> {
    let ledger = std::fs::read(deployment.data.join("agent/agent/ledger.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    let hex = ledger["desired"]["instances"][0]["boot_key"].as_str().unwrap().to_owned();
    let key = BootKey::from_hex(&hex).unwrap();
    let boots: Vec<u64> =
        stages.iter().filter_map(|stage| stage["detail"]["boot"].as_str()?.parse().ok()).collect();
    assert!(!boots.is_empty(), "the timeline says which boot it was");
    let mut secrets = vec![hex];
    for boot in boots {
        let user = BootUser { instance: instance.parse().unwrap(), boot: BootNumber(boot) };
        secrets.push(boot_secret(&key, user).expose().to_owned());
    }
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    for folder in ["log", "console", "control-plane"] {
        for name in tree(&deployment.data.join(folder)).keys().filter(|name| !name.starts_with("store")) {
            let path = deployment.data.join(folder).join(name);
            // The loop file of the store holds the node's own disk.
            if path.is_file() && !name.ends_with(".xfs") {
                places.push((format!("{folder}/{name}"), std::fs::read(path).unwrap()));
            }
        }
    }
    for process in processes() {
        places.push((format!("command line of {}", process.pid), process.command.into_bytes()));
    }
    let path = format!("/v1/projects/lab/instances/{instance}");
    for path in [path.clone(), format!("{path}/timeline"), "/v1/operations".to_owned()] {
        places.push((path.clone(), deployment.api.get(&path).body));
    }
    let holds = |bytes: &[u8]| {
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|at| at == secret.as_bytes()))
    };
    places.into_iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place).collect()
}

fn bios() -> &'static Boot {
    static BOOT: OnceLock<Boot> = OnceLock::new();
    BOOT.get_or_init(|| boot(Firmware::Bios, "52:54:00:b1:00:01"))
}

fn uefi() -> &'static Boot {
    static BOOT: OnceLock<Boot> = OnceLock::new();
    BOOT.get_or_init(|| boot(Firmware::Uefi, "52:54:00:b1:00:02"))
}

/// The first of each stage of a boot came after the first of the one before.
fn assert_in_order(boot: &Boot) {
    let mut last = 0;
    for wanted in
        ["provision.requested", "target", "dhcp", "loader", "script", "login", "read.first", "write.first"]
    {
        if wanted == "loader"
            && !boot.console.contains("NBP file")
            && boot.stages.iter().all(|s| s["stage"] != wanted)
        {
            // iPXE in the NIC's ROM needs no other loader.
            continue;
        }
        let found = boot.stages.iter().find(|stage| stage["stage"] == wanted);
        let at = found.unwrap_or_else(|| panic!("no {wanted} in {:#?}", boot.stages))["offset_us"]
            .as_u64()
            .unwrap();
        assert!(at >= last, "{wanted} came too early: {:#?}", boot.stages);
        last = at;
    }
}

#[test]
fn b1_bios_pxe_boots_to_login() {
    let boot = bios();
    assert!(boot.console.contains("node-b login:"));
    assert_eq!(boot.instance["state"], "running");
    assert_eq!(boot.instance["target_state"], "listening");
    assert!(boot.instance["traffic"]["read"].as_u64().unwrap() > 0, "{}", boot.instance);
    let [reads, writes] = boot.requests;
    assert!(reads > 100.0 && writes > 0.0, "/metrics tells of {reads} reads and {writes} writes");
}

#[test]
fn b1_uefi_pxe_boots_to_login() {
    let boot = uefi();
    assert!(boot.console.contains("node-b login:"));
    assert_eq!(boot.instance["state"], "running");
    let file = boot
        .stages
        .iter()
        .find(|stage| stage["stage"] == "loader")
        .map(|stage| stage["detail"]["file"].clone());
    assert_eq!(file, Some(json!("snponly.efi")));
}

#[test]
fn b5_bios_every_stage_is_in_the_timeline_in_order() {
    assert_in_order(bios());
}

#[test]
fn b5_uefi_every_stage_is_in_the_timeline_in_order() {
    assert_in_order(uefi());
}

#[test]
fn b7_node_reads_the_config_volume() {
    let boot = bios();
    assert!(
        boot.console.contains(&format!("{MARKER} on node-b")),
        "host name and user data\n{}",
        boot.console
    );
    assert!(boot.console.contains(&format!("authorized: {SSH_KEY}")), "SSH key\n{}", boot.console);
    assert!(boot.console.contains("node-b login:"), "host name");
}

#[test]
fn the_nodes_disk_is_its_own_clone() {
    let boot = bios();
    let [sealed, after] = boot.image_sha256.as_ref().unwrap();
    assert_eq!(sealed, after, "booting changed the golden image");
    assert!(boot.volume_differs, "the node wrote to its own disk");
    assert_eq!(boot.volumes, 2, "a boot volume and a config volume");
}

#[test]
fn s8_no_boot_secret_is_left_lying_about() {
    assert_eq!(bios().leaks, Vec::<String>::new());
}

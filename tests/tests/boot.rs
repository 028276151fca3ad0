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

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bmi_tests::{
    Deployment, Firmware, Login, Node, STORE_LARGE, Wiretap, output, processes, sha256, tree, until,
};
use bmi_types::{BootKey, BootNumber, BootUser, boot_secret};
use serde_json::{Value, json};

/// An emulated processor beside other work on two cores takes a minute or two.
const LOGIN: Duration = Duration::from_secs(420);
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmiTestsKeyOfAPersonWhoMayComeIn00000000 person@bmi";
/// iPXE: an ISID by enterprise number, which is 10019, and random bytes (RFC 7143 section 11.12.5).
const IPXE_ISID: [u8; 4] = [0x40, 0, 0x27, 0x23];
/// open-iscsi: an ISID by OUI, and the number of the session, which is 1 after every start.
const OPEN_ISCSI_ISID: [u8; 6] = [0, 0x02, 0x3d, 0, 0, 1];
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
    logins: Vec<Login>,
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
    let wiretap = Wiretap::start(&deployment, &node);
    node.wait_for("login:", LOGIN);
    println!("{firmware:?}: power on to login prompt {:.1} s", begun.elapsed().as_secs_f64());
    let path = "/v1/projects/lab/instances/node-b";
    // The last login is that of the system's own iscsid.
    let stages = until("first write and last login are in the timeline", Duration::from_secs(60), || {
        let stages = api.get(&format!("{path}/timeline")).expect(200)["stages"].as_array().unwrap().clone();
        let logins = wiretap.logins();
        let told = |login: &Login| {
            stages.iter().any(|it| it["stage"] == "login" && it["detail"]["peer"] == login.peer.to_string())
        };
        let system = logins.iter().filter(|login| login.isid == OPEN_ISCSI_ISID).nth(1);
        (system.is_some_and(told) && stages.iter().any(|it| it["stage"] == "write.first")).then_some(stages)
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
    let logins = wiretap.logins();
    for login in &logins {
        println!("{firmware:?}: {login:x?}");
    }
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
        logins,
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
    // Of the last session only: that of the running system, which may be young.
    assert!(reads > 0.0 && writes > 0.0, "/metrics tells of {reads} reads and {writes} writes");
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

/// All logins have one name, and each asks for a session of its own. iPXE has a new ISID each time (BIOS: it looks at the
/// disk before it boots from it, and closes that connection). Its last session is still open when the initramfs logs in with
/// another ISID: nothing comes from it for a second and it is fenced, or the new kernel resets the connection it does not know.
/// The system's iscsid closes the connection of the initramfs and logs in with the same ISID.
#[test]
fn b3_the_second_login_after_ipxe_is_what_the_takeover_rule_expects() {
    for boot in [bios(), uefi()] {
        let mut told = boot.stages.iter().filter_map(|stage| {
            let peer = stage["detail"]["peer"].as_str()?.parse::<SocketAddr>().ok()?;
            Some((peer, stage["detail"]["reason"].as_str().unwrap_or("login")))
        });
        let [ipxe @ .., initramfs, system] = &boot.logins[..] else { panic!("{:x?}", boot.logins) };
        assert_eq!((initramfs.isid, system.isid), (OPEN_ISCSI_ISID, OPEN_ISCSI_ISID));
        assert!(!ipxe.is_empty() && ipxe.iter().all(|login| login.isid[..4] == IPXE_ISID), "{ipxe:x?}");
        assert!(ipxe.windows(2).all(|two| two[0].isid != two[1].isid), "{ipxe:x?}");
        for (at, login) in boot.logins.iter().enumerate() {
            assert_eq!((login.status, login.tsih), (0, 0), "a new session, which it gets: {login:x?}");
            assert_ne!(login.given, 0, "the session has a handle");
            assert_eq!(login.initiator, system.initiator, "the name goes on by way of the iBFT");
            assert_eq!(told.next(), Some((login.peer, "login")), "{login:x?}");
            if login == system {
                break;
            }
            let (peer, end) = told.next().unwrap();
            let fenced = end == "fenced" && at + 1 == ipxe.len();
            assert!(peer == login.peer && (end == "disconnected" || fenced), "{login:x?}: {peer} {end}");
            println!("{:x?} ended: {end}", login.isid);
        }
        assert_eq!(told.next(), None);
    }
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

//! A real boot from a stock iSCSI server: a QEMU node without a disk comes to its login prompt from the tgtd that `driver = "tgt"`
//! has in the place of our target, also after its power was cut.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it measured; clippy knows only functions marked as tests"
)]

use std::time::{Duration, Instant};

use bmi_tests::{Client, Deployment, Firmware, Node, STORE_LARGE, processes, until};
use bmi_types::{BootKey, BootNumber, BootUser, boot_secret};
use serde_json::{Value, json};

/// An emulated processor beside other work on two cores takes a minute or two.
const LOGIN: Duration = Duration::from_secs(420);
/// What is told once a second, and sent after that.
const TOLD: Duration = Duration::from_secs(30);
const MAC: &str = "52:54:00:79:00:01";

/// What the firmware left for the system (iBFT), and which units the system finds: `unit HOST:CHANNEL:TARGET:LUN TYPE VENDOR`.
const LOOK: &str = "#!/bin/sh
cd /sys/firmware/ibft/target0
for it in lun chap-name target-name; do echo ibft $it: $(cat $it); done
for it in /sys/class/iscsi_session/*/username; do echo session: $(cat $it); done
for it in /sys/class/scsi_device/*; do echo unit ${it##*/} $(cat $it/device/type) $(cat $it/device/vendor); done
";

/// What follows a word at the beginning of a line of the console.
fn said<'a>(console: &'a str, word: &str) -> Vec<&'a str> {
    console.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
}

/// The processes of a deployment that are tgtd.
fn tgtds(deployment: &Deployment) -> Vec<u32> {
    let users = deployment.uid_base..deployment.uid_base + 100;
    let is_tgtd =
        |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("tgtd"));
    processes().iter().filter(|it| users.contains(&it.uid) && is_tgtd(it.pid)).map(|it| it.pid).collect()
}

/// A boot script's line with another boot's user and secret.
fn script_of(deployment: &Deployment, script: &str, instance: &str, boot: u64) -> String {
    let ledger = std::fs::read(deployment.data.join("agent/agent/ledger.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    let key = BootKey::from_hex(ledger["desired"]["instances"][0]["boot_key"].as_str().unwrap()).unwrap();
    let user = BootUser { instance: instance.parse().unwrap(), boot: BootNumber(boot) };
    let lines = script.lines().map(|line| match line.rsplit_once(' ') {
        Some(("set username", _)) => format!("set username {user}\n"),
        Some(("set password", _)) => format!("set password {}\n", boot_secret(&key, user).expose()),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Switches the node on, and waits for its login prompt and for the timeline to tell of it. Gives the boot's number and what it printed.
fn boot(deployment: &Deployment) -> (Node, u64, String) {
    let path = "/v1/projects/lab/instances/node-t/timeline";
    let stages = || deployment.api.get(path).expect(200)["stages"].as_array().unwrap().clone();
    let before = stages().len();
    let begun = Instant::now();
    let mut node = Node::start(deployment, MAC, Firmware::Bios);
    node.wait_for("node-t login:", LOGIN);
    println!("power on to login prompt: {:.1} s", begun.elapsed().as_secs_f64());
    let number = |stage: &Value| stage["detail"]["boot"].as_str()?.parse::<u64>().ok();
    let number = until("the timeline tells of script and login", TOLD, || {
        let stages = stages().split_off(before);
        let of = |name: &str| stages.iter().rfind(|stage| stage["stage"] == name).and_then(number);
        (of("script").is_some() && of("script") == of("login")).then(|| of("login").unwrap())
    });
    let console = node.console();
    assert!(console.contains(&format!(", boot {number}\n")), "its script tells which boot it is\n{console}");
    assert!(!console.contains("of 5 failed"), "the first attempt is let in\n{console}");
    (node, number, console)
}

#[test]
fn tgt_a_node_boots_to_login_from_a_stock_target_and_again_after_its_power_was_cut() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.driver_use("tgt");
    deployment.api.project("lab");
    deployment.agent_start();
    let _ = deployment.golden_import("lab");
    deployment.api.node_of("node-t", MAC, "lab");
    let instance = deployment.api.instance("lab", "node-t", "debian-12", &json!({"user_data": LOOK}));
    let id = instance["id"].as_str().unwrap();
    assert_eq!(tgtds(&deployment).len(), 1, "a stock tgtd, and nothing of ours in its place");

    // A boot before: somebody in the node's place, whose script is good then.
    let earlier = Client::new(&deployment, "earlier", MAC);
    let script = earlier.script(&earlier.dhcp().1);
    until("the earlier boot may log in", TOLD, || earlier.login(&script).then_some(()));
    drop(earlier);

    let (node, first, console) = boot(&deployment);
    // tgt's own controller is LUN 0, so the disk cannot be: the script has the number that tgtd reported.
    assert!(script.contains("::3260:1:iqn."), "{script}");
    let user = format!("{id}-{first}");
    let ibft = |name: &str| said(&console, &format!("ibft {name}:")).concat();
    // Eight bytes (SAM-5 section 4.7.3), as the kernel prints them: the second is the number.
    assert_eq!(ibft("lun"), "01000000", "{console}");
    assert_eq!(ibft("chap-name"), user, "iPXE logged in by CHAP, with the secret of this boot");
    assert!(ibft("target-name").ends_with(id), "{}", ibft("target-name"));
    let sessions = said(&console, "session:");
    assert!(
        !sessions.is_empty() && sessions.iter().all(|name| *name == user),
        "so did the system: {sessions:?}"
    );
    let units = said(&console, "unit ");
    let has = |number: &str, kind: &str| {
        units.iter().any(|unit| unit.contains(&format!(":{number} {kind} ")) && unit.ends_with("IET"))
    };
    assert!(has("0", "12") && has("1", "0") && has("2", "0"), "controller, disk, config volume: {units:?}");
    let now = deployment.api.get("/v1/projects/lab/instances/node-t").expect(200);
    assert_eq!((&now["state"], &now["target_state"]), (&json!("running"), &json!("listening")));

    // Its power is cut, so that tgtd keeps a session that nobody ends, and it is switched on again.
    drop(node);
    let (node, second, _) = boot(&deployment);
    assert!(second > first, "another boot: {first}, {second}");
    drop(node);

    // In the node's place, with its MAC and its address: only the newest boot's secret opens the disk.
    let place = Client::new(&deployment, "place", MAC);
    let _ = place.dhcp();
    let of = |boot| script_of(&deployment, &script, id, boot);
    until("the newest boot's secret is good", TOLD, || place.login(&of(second)).then_some(()));
    assert!(!place.login(&of(first)), "the boot before");
    assert!(!place.login(&script), "the boot before that");
    assert!(place.login(&of(second)), "and the newest still");
    drop(place);

    let _ = deployment.api.instance_remove("lab", "node-t");
    assert_eq!(tgtds(&deployment), [0; 0], "nothing is left");
    deployment.assert_alive();
}

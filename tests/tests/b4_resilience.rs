//! One node runs and writes all the time, while everything around it is killed, one after the other; and at the end
//! the node itself. What it was told is on the disk, must be there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints how long each interruption took"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bmi_tests::{Deployment, Firmware, Node, Process, STORE_LARGE, processes, run, tree, until};
use serde_json::json;

const MAC: &str = "52:54:00:b4:00:01";
/// An emulated processor beside other work on two cores takes a minute or two.
const LOGIN: Duration = Duration::from_secs(420);
/// open-iscsi takes a session up again after seconds; a loaded machine a while longer.
const RESUME: Duration = Duration::from_secs(180);
/// Where the root file system is in the golden image: partition 3, in bytes.
const ROOT_OFFSET: u64 = 133_120 * 512;

/// Counts, writes each number durably, and only then says so on the console.
const WRITER: &str = "#!/bin/sh
(n=0; while :; do n=$((n + 1)); echo $n >/root/mark.new && sync /root/mark.new && mv /root/mark.new /root/mark &&
sync /root && echo \"acked $n\" >/dev/console; sleep 0.2; done) </dev/null >/dev/null 2>&1 &
";

/// The last number that the node was told is on the disk.
fn acked(node: &Node) -> u64 {
    let console = node.console();
    let numbers = console.lines().filter_map(|line| line.trim().strip_prefix("acked ")?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// Waits until the node's writes go on.
fn goes_on(node: &mut Node, what: &str) {
    let (begun, before) = (Instant::now(), acked(node));
    // More than what may have been on its way to the console.
    node.wait(&format!("writes go on after {what}"), RESUME, |console| {
        let numbers = console.lines().filter_map(|line| line.trim().strip_prefix("acked ")?.parse().ok());
        numbers.max().unwrap_or(0) >= before + 5
    });
    println!("{what}: five writes more after {:.1} s", begun.elapsed().as_secs_f64());
}

/// Processes of the deployment whose command line begins with a program's name.
fn own(deployment: &Deployment, program: &str) -> Vec<Process> {
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let mut found = processes();
    // In a container, its program is below the root.
    found.retain(|one| uids.contains(&one.uid) && one.command.trim_start_matches('/').starts_with(program));
    found
}

fn kill(process: &Process) {
    run("kill", &["-9", &process.pid.to_string()]);
}

fn one(mut all: Vec<Process>) -> Process {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// The number that is on the disk: a copy of it is mounted, as the next boot would.
fn on_disk(deployment: &Deployment) -> u64 {
    let volumes = deployment.store().join("volumes");
    let files = tree(&volumes).into_keys().map(|name| volumes.join(name)).filter(|path| path.is_file());
    let disk = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let (copy, mount): (PathBuf, PathBuf) =
        (deployment.store().join("copy.raw"), deployment.data.join("disk"));
    run("cp", &["--reflink=always", disk.to_str().unwrap(), copy.to_str().unwrap()]);
    std::fs::create_dir_all(&mount).unwrap();
    let options = format!("loop,offset={ROOT_OFFSET}");
    run("mount", &["-t", "ext4", "-o", &options, copy.to_str().unwrap(), mount.to_str().unwrap()]);
    let mark = std::fs::read_to_string(mount.join("root/mark"));
    run("umount", &[mount.to_str().unwrap()]);
    std::fs::remove_file(copy).unwrap();
    mark.unwrap().trim().parse().unwrap()
}

#[test]
fn b4_k2_a_running_node_outlives_everything_around_it_and_loses_nothing() {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    deployment.agent_start();
    let _ = deployment.golden_import("lab");
    deployment.api.node_of("node-r", MAC, "lab");
    deployment.api.instance("lab", "node-r", "debian-12", &json!({"user_data": WRITER}));
    let mut node = Node::start(&deployment, MAC, Firmware::Bios);
    node.wait_for("login:", LOGIN);
    goes_on(&mut node, "the boot");

    // The control plane is not in the data path.
    deployment.control_plane_kill();
    goes_on(&mut node, "the control plane was killed");

    // Nor is the agent; the next one adopts the target. (The control plane is still away.)
    let target = one(own(&deployment, "bmi-target"));
    deployment.agent_kill();
    goes_on(&mut node, "the agent was killed");
    deployment.control_plane_start();
    deployment.agent_start_on("provisioning");
    assert_eq!(one(own(&deployment, "bmi-target")), target, "the same target, adopted");

    let netboot = one(own(&deployment, "bmi-netboot"));
    kill(&netboot);
    goes_on(&mut node, "the boot services were killed");
    until("the agent starts other boot services", Duration::from_secs(60), || {
        own(&deployment, "bmi-netboot").into_iter().find(|now| now.pid != netboot.pid)
    });

    // The target is: the node waits for it, and goes on.
    kill(&target);
    goes_on(&mut node, "the target was killed");
    assert_ne!(one(own(&deployment, "bmi-target")).pid, target.pid);

    // The host restarts: every process dies at once, the store is not mounted any more, the bridge is gone. Everything
    // comes back from the data directory, by itself.
    deployment.host_dies();
    assert_eq!(own(&deployment, "bmi-"), []);
    deployment.control_plane_start();
    deployment.agent_start_on("provisioning");
    until("the bridge is there again", Duration::from_secs(60), || node.plug_in(&deployment).then_some(()));
    goes_on(&mut node, "the host restarted");

    // The node loses power while it writes, and boots again: nobody holds its session against it.
    let last = acked(&node);
    drop(node);
    let kept = on_disk(&deployment);
    assert!(kept >= last, "{last} was acknowledged, {kept} is on the disk");
    let mut node = Node::start(&deployment, MAC, Firmware::Bios);
    node.wait_for("node-r login:", LOGIN);
    let timeline = deployment.api.get("/v1/projects/lab/instances/node-r/timeline").expect(200);
    let stages: Vec<&str> =
        timeline["stages"].as_array().unwrap().iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert!(!stages.contains(&"session.conflict"), "{stages:?}");
    assert!(Path::new(&deployment.store()).join("volumes").exists());
}

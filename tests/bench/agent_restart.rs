//! One agent with many targets that is killed and started again, and one whose targets are all killed.
//!
//! What counts is what the control plane hears: a report of the agent that was made after the fault, with every target
//! listening. Nothing else was changed meanwhile: a target that was to be adopted is the very process that it was.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use bmi_tests::{Deployment, run, until};
use bmi_types::Timestamp;

use crate::Figure;
use crate::agent::{DRIVERS, Effort, STORE, deployment, instances, targets};
use crate::provision::Order;

/// Targets of the agent.
const TARGETS: usize = 200;
/// How many are asked for at once.
const AT_ONCE: usize = 24;
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Waits until the agent has reported after a moment, and all targets listen.
fn all_listen(deployment: &Deployment, after: Timestamp) {
    until("all targets listen", PATIENCE, || {
        let network = deployment.api.get("/v1/networks/provisioning").expect(200);
        let seen: Timestamp = serde_json::from_value(network["agent"]["last_seen"].clone()).unwrap();
        let listens = || instances(&deployment.api).iter().all(|it| it["target_state"] == "listening");
        (seen > after && network["agent"]["netboot"] == "listening" && listens()).then_some(())
    });
}

/// The targets that run, and when each began, since a number is given again: as the kernel counts (proc(5): starttime).
fn running(deployment: &Deployment) -> BTreeSet<(u32, String)> {
    let begun = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, stat.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned()))
    };
    targets(deployment).into_iter().filter_map(begun).collect()
}

/// Seconds until a killed agent has adopted its targets, and until killed targets listen again.
fn measure(deployment: &mut Deployment, count: usize) -> [f64; 2] {
    let mut order = Order::of_lab("small", count);
    let nodes = std::mem::take(&mut order.nodes);
    for wave in nodes.chunks(AT_ONCE) {
        order.nodes = wave.to_vec();
        order.place(&deployment.api);
    }
    let before = running(deployment);
    assert_eq!(before.len(), count);

    deployment.agent_kill();
    let (begun, at) = (Instant::now(), Timestamp::now());
    deployment.agent_begin(&[]);
    all_listen(deployment, at);
    let adopted = begun.elapsed().as_secs_f64();
    assert_eq!(running(deployment), before, "all were adopted");

    let numbers: Vec<String> = before.iter().map(|(pid, _)| pid.to_string()).collect();
    let words: Vec<&str> = ["-9"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let begun = Instant::now();
    run("kill", &words);
    until("every target runs again", PATIENCE, || {
        let now = running(deployment);
        (now.len() == count && now.is_disjoint(&before)).then_some(())
    });
    all_listen(deployment, Timestamp::now());
    [adopted, begun.elapsed().as_secs_f64()]
}

pub(crate) fn run_all(effort: Effort) -> Vec<Figure> {
    let count = TARGETS.min(effort.nodes);
    let [process, docker, podman] = DRIVERS.map(|(_, kind)| {
        let mut deployment = deployment(kind, STORE, count);
        measure(&mut deployment, count)
    });
    let whats = ["agent killed: all adopted and reported", "all targets killed: all listen again"];
    let engines = [("docker", docker), ("podman", podman)];
    let figures = engines.into_iter().flat_map(|(engine, seconds)| {
        whats.into_iter().enumerate().map(move |(at, what)| Figure {
            what: format!("restart: {count} targets, {what}, {engine}"),
            ours: seconds[at],
            peer: Some(("process", process[at])),
            unit: "s",
        })
    });
    figures.collect()
}

//! What an agent does: provision to the portal with each driver, and what an idle target takes. `agent_restart.rs` and
//! `agent_scale.rs` have many targets and many agents.
//!
//! The `process` driver is the peer: the same agent, the same programs and rules, without an engine. `agent_ceph.rs` does the same
//! with volumes in Ceph. Deliberately absent: agents on hosts of their own; here all share the processor.

use bmi_tests::engine::Kind;
use bmi_tests::{Api, Deployment, Durability, Postgres, STORE_LARGE, STORE_SMALL, processes};
use serde_json::{Value, json};

use crate::provision::{Order, Round, round};
use crate::target::status;
use crate::{Figure, agent_ceph, agent_restart, agent_scale, median};

/// The most nodes at once, and the targets of one agent that is started again.
pub(crate) const AT_ONCE: usize = 24;
/// How often: once at a time is short.
pub(crate) const REPEATS: [usize; 2] = [7, 3];
/// The drivers, the peer first.
pub(crate) const DRIVERS: [(&str, Option<Kind>); 3] =
    [("process", None), ("docker", Some(Kind::Docker)), ("podman", Some(Kind::Podman))];
/// The project with everything in it.
pub(crate) const PROJECT: &str = "lab";

/// Where the control plane that has many agents keeps what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// In a file.
    Sqlite,
    /// In a server of its own, which makes writes durable.
    Postgres,
}

impl Database {
    /// By the word of `infra/bench --database`.
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "sqlite" => Self::Sqlite,
            "postgres" => Self::Postgres,
            other => panic!("there is no database `{other}`"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL 15, on the same machine, its files in memory (tmpfs)",
        }
    }

    /// The server, where there is one.
    pub(crate) fn server(self) -> Option<Postgres> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Postgres::start(Durability::Full)),
        }
    }
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Nodes of the control plane that has many agents; what is smaller by default follows when this is.
    pub(crate) nodes: usize,
    /// Its database.
    pub(crate) database: Database,
}

/// What is measured by default.
pub(crate) const EFFORT: Effort = Effort { nodes: 10_000, database: Database::Sqlite };

/// A deployment with a driver, an image and nodes, on a network of 1 022 addresses.
pub(crate) fn deployment(kind: Option<Kind>, store: &str, nodes: usize) -> Deployment {
    furnished(Deployment::start(store), kind, nodes)
}

/// The same of a deployment that has its store.
pub(crate) fn furnished(mut deployment: Deployment, kind: Option<Kind>, nodes: usize) -> Deployment {
    if let Some(kind) = kind {
        deployment.engine_use(kind);
    }
    let api = &deployment.api;
    api.project(PROJECT);
    api.network("provisioning", "10.77.0.0/22");
    api.image(PROJECT, "small");
    for number in 1..=nodes {
        let mac = format!("52:54:00:be:{:02x}:{:02x}", number / 256, number % 256);
        api.node_of(&format!("node-{number}"), &mac, PROJECT);
    }
    deployment.agent_start_on("provisioning");
    deployment
}

/// The targets that run: their processes' numbers, by what they execute.
pub(crate) fn targets(deployment: &Deployment) -> Vec<u32> {
    running(deployment, "bmi-target")
}

/// The processes of a deployment that execute a program.
pub(crate) fn running(deployment: &Deployment, program: &str) -> Vec<u32> {
    let users = deployment.uid_base..deployment.uid_base + 1000;
    let executes =
        |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(program));
    let found = processes().into_iter().filter(|process| users.contains(&process.uid));
    found.map(|process| process.pid).filter(|pid| executes(*pid)).collect()
}

/// The instances of the network.
pub(crate) fn instances(api: &Api) -> Vec<Value> {
    api.list(&format!("/v1/projects/{PROJECT}/instances"))
}

/// Request to portal and deprovision, the drivers in turns.
fn provision(effort: Effort) -> Vec<Figure> {
    let most = AT_ONCE.min(effort.nodes);
    let deployments = DRIVERS.map(|(_, kind)| deployment(kind, STORE_SMALL, most));
    let mut figures = Vec::new();
    for (count, repeats) in [1, most].into_iter().zip(REPEATS) {
        let mut rounds: [Vec<Round>; DRIVERS.len()] = Default::default();
        for _ in 0..repeats {
            for (deployment, rounds) in deployments.iter().zip(&mut rounds) {
                rounds.push(round(deployment, &Order::of_lab("small", count)));
            }
        }
        for (at, what) in ["request to portal", "deprovision"].into_iter().enumerate() {
            let seconds = |round: &Round| [round.portal, round.removal][at];
            let [process, engines @ ..] = rounds.each_ref().map(|rounds| median(rounds.iter().map(seconds)));
            for ((engine, _), ours) in DRIVERS[1..].iter().zip(engines) {
                let what = format!("provision: {what}, {count} at once, {engine}");
                figures.push(Figure { what, ours, peer: Some(("process", process)), unit: "s" });
            }
        }
    }
    figures
}

/// Memory of a process in MiB: resident, and what of it is its own alone.
pub(crate) fn memory(pid: u32) -> [f64; 2] {
    ["VmRSS", "RssAnon"].map(|field| status(pid, field) / 1024.0)
}

/// A process's parent.
pub(crate) fn parent(pid: u32) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// What one target takes that nobody has logged in to, and the engine's process that holds it: containerd's shim, or conmon. A
/// sandboxed process has none: the agent's one helper is its parent.
fn idle() -> Vec<Figure> {
    let taken = DRIVERS.map(|(_, kind)| {
        let deployment = deployment(kind, STORE_SMALL, 1);
        deployment.api.instance(PROJECT, "node-1", "small", &json!({}));
        let target = targets(&deployment)[0];
        let holder = parent(target);
        let name = std::fs::read_to_string(format!("/proc/{holder}/comm")).unwrap().trim().to_owned();
        (memory(target), memory(holder), name)
    });
    let [(process, helper, _), engines @ ..] = taken;
    let mut figures = Vec::new();
    for (at, kind) in ["resident", "anonymous"].into_iter().enumerate() {
        let mut add = |what: String, ours: f64, peer: Option<f64>| {
            let (what, peer) = (format!("memory: {what}, {kind}"), peer.map(|peer| ("process", peer)));
            figures.push(Figure { what, ours, peer, unit: "MiB" });
        };
        for ((engine, _), (target, holder, name)) in DRIVERS[1..].iter().zip(&engines) {
            add(format!("an idle target, {engine}"), target[at], Some(process[at]));
            add(format!("what holds each, {engine}'s {name}"), holder[at], None);
        }
        add("the helper that holds all targets, process".to_owned(), helper[at], None);
    }
    figures
}

pub(crate) fn run(effort: Effort, only: Option<&str>) -> Vec<Figure> {
    let parts: [(&str, &dyn Fn() -> Vec<Figure>); 5] = [
        ("provision", &|| provision(effort)),
        ("memory", &idle),
        ("ceph", &|| agent_ceph::run(effort)),
        ("restart", &|| agent_restart::run_all(effort)),
        ("scale", &|| agent_scale::run(effort)),
    ];
    let mut figures = Vec::new();
    for (_, part) in parts.into_iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        let found = part();
        found.iter().for_each(Figure::print);
        figures.extend(found);
    }
    figures
}

/// What the figures are of.
pub(crate) fn conditions(effort: Effort) -> Value {
    let simulated = "simulated: the agent's protocol by mutual TLS, with events of boots and a renewal each, no host behind them";
    json!({
        "nodes": effort.nodes,
        "image": "1 MiB, in the local store, on an XFS in a loop device; of `ceph` in a one-machine Ceph",
        "process": "the same agent with its `process` driver, in the same run, in turns",
        "engines": "each in a network namespace, with directories of its own; podman with the vfs storage driver and runc",
        "agents of scale": format!("{simulated}; nodes by SQL; {}", effort.database.name()),
        "database of scale": effort.database.name(),
    })
}

/// The store for many instances, each with a config volume.
pub(crate) const STORE: &str = STORE_LARGE;

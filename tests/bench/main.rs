//! `bmi-bench`: measures a real deployment beside a peer, in one run, and prints ratios. `infra/bench` starts it.
//!
//! ```text
//! provision.rs   request → portal for 1, 8 and 24 nodes at once, deprovision, clone; beside tgt and a full copy
//! boot.rs        bytes read and time to the login prompt; beside the same VM with the image as a local disk
//! target.rs      the iSCSI target beside tgt on the same file, in turns: speed, processor, memory
//! initiator.rs   the load: several commands open, every block that is read is checked
//! ceph.rs        an image of Ceph through target and broker, beside librbd itself, tgt-rbd and qemu-storage-daemon
//! ceph_store.rs  what the control plane does in Ceph: clone, tag, roll back; 24 nodes at once; what their boots read
//! tgt.rs         the peer: a stock tgtd
//! decision.rs    what the policy takes with 10 000 bindings, beside Casbin asked about all rules
//! api.rs         the API over HTTP with 100 000 nodes, on both databases and with two replicas
//! load.rs        the load: kept connections, each answer timed
//! fill.rs        many nodes and bindings, by SQL
//! agent.rs       an agent with each driver: provision, memory; with Ceph (agent_ceph.rs), many targets (agent_restart.rs), many
//!                agents (agent_scale.rs)
//! fleet.rs       simulated agents: one of them (fleet_agent.rs), and what happens on its host (fleet_host.rs)
//! ```
//!
//! Deliberately absent: a verdict. Numbers of a shared machine are for people to judge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that cannot be made ends the run, and its results go to standard output"
)]

mod agent;
mod agent_ceph;
mod agent_restart;
mod agent_scale;
mod api;
mod boot;
mod ceph;
mod ceph_store;
mod decision;
mod fill;
mod fleet;
mod fleet_agent;
mod fleet_host;
mod initiator;
mod load;
mod provision;
mod target;
mod tgt;

use std::path::PathBuf;

use serde_json::{Value, json};

/// A figure: what, ours, the peer's, and the unit.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) ours: f64,
    pub(crate) peer: Option<(&'static str, f64)>,
    pub(crate) unit: &'static str,
}

impl Figure {
    fn json(&self) -> Value {
        let mut value = json!({"what": self.what, "ours": self.ours, "unit": self.unit});
        if let Some((name, peer)) = self.peer {
            value["peer"] = json!({"name": name, "value": peer});
            value["ratio_ours_to_peer"] = json!(self.ours / peer);
        }
        value
    }

    fn print(&self) {
        print!("  {:<64}{:>12.3} {}", self.what, self.ours, self.unit);
        match self.peer {
            Some((name, peer)) => {
                println!("   {name} {peer:.3} {}   ratio {:.2}", self.unit, self.ours / peer);
            }
            None => println!(),
        }
    }
}

/// The value in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that a share of all, in percent, does not exceed.
pub(crate) fn percentile(values: &[f64], share: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() * share / 100).min(values.len() - 1)]
}

/// A number of the environment, where it says one.
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(out)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        println!("usage: bmi-bench provision|boot|target|ceph|api|agent FILE.json (infra/bench calls it)");
        std::process::exit(2);
    };
    let only = std::env::var("BMI_BENCH_ONLY").ok();
    let only = only.as_deref();
    let mut conditions = Value::Null;
    // Figures that were shown when they were there.
    let mut shown = 0;
    let figures = match name.as_str() {
        "provision" => provision::run(),
        "boot" => boot::run(),
        "target" => {
            let effort = target::Effort {
                seconds: number("BMI_BENCH_SECONDS").unwrap_or(target::EFFORT).into(),
                repetitions: number("BMI_BENCH_REPETITIONS").unwrap_or(target::EFFORT),
            };
            target::run_all(effort, only)
        }
        "ceph" => {
            let effort = ceph::Effort {
                repetitions: number("BMI_BENCH_REPETITIONS").unwrap_or(ceph::EFFORT.repetitions),
                times: number("BMI_BENCH_SECONDS").unwrap_or(ceph::EFFORT.times),
            };
            let nodes = number("BMI_BENCH_NODES").map_or(ceph_store::NODES, |nodes| nodes as usize);
            let mut figures = ceph::run_all(effort, only);
            figures.extend(ceph_store::run_all(effort.repetitions, nodes, only));
            shown = figures.len();
            figures
        }
        "api" => {
            let effort = api::Effort {
                seconds: number("BMI_BENCH_SECONDS").map_or(api::EFFORT.seconds, u64::from),
                nodes: number("BMI_BENCH_NODES").map_or(api::EFFORT.nodes, |nodes| nodes as usize),
            };
            conditions = api::conditions(&effort);
            let mut figures = decision::run(only);
            figures.iter().for_each(Figure::print);
            figures.extend(api::run(&effort, only));
            shown = figures.len();
            figures
        }
        "agent" => {
            let nodes = number("BMI_BENCH_NODES").map_or(agent::EFFORT.nodes, |nodes| nodes as usize);
            let database = std::env::var("BMI_BENCH_DATABASE");
            let database = database.map_or(agent::EFFORT.database, |word| agent::Database::of(&word));
            let effort = agent::Effort { nodes, database };
            conditions = agent::conditions(effort);
            let figures = agent::run(effort, only);
            shown = figures.len();
            figures
        }
        other => panic!("there is no measurement `{other}`"),
    };
    println!("{name}");
    figures.iter().skip(shown).for_each(Figure::print);
    let machine = json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    });
    let mut kept = json!({
        "name": name,
        "at": bmi_types::Timestamp::now(),
        "profile": std::env::var("BMI_PROFILE").unwrap_or_else(|_| "debug".to_owned()),
        "machine": machine,
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    if !conditions.is_null() {
        kept["conditions"] = conditions;
    }
    std::fs::write(&out, serde_json::to_string_pretty(&kept).unwrap() + "\n").unwrap();
    println!("  kept in {}", out.display());
}

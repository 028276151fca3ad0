//! One control plane with many simulated agents and many nodes: its memory, a full resync, and what provisioning takes
//! meanwhile; how far behind it is when all nodes boot at once, and how long until all agents have renewed their certificates.
//!
//! Memory and processor are the control plane's alone: what PostgreSQL takes is not in them. Nodes and bindings are put into the
//! database by SQL; networks, agents and instances are made as anybody makes them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bmi_tests::{Deployment, Postgres, until};
use serde_json::json;

use crate::agent::{Effort, STORE};
use crate::fleet::Fleet;
use crate::provision::{Order, round};
use crate::target::{cpu, status};
use crate::{Figure, fill, median, percentile};

/// The most agents: one for each hundred nodes.
const AGENTS: usize = 100;
const NODES_OF_AN_AGENT: usize = 100;
/// The fewest nodes: half of them can have instances.
const NODES_MIN: usize = 200;
/// Instances of each that stay, and how many are made at once besides.
const INSTANCES: usize = 10;
const AT_ONCE: usize = 24;
/// How often.
const REPEATS: usize = 3;
/// How often at most all agents start again while something else is measured.
const RESYNC_EVERY: Duration = Duration::from_millis(200);
/// How long nothing happens when idling is measured: every agent's poll ends once.
const IDLE: Duration = Duration::from_secs(40);
/// The longest that another authority may take: it is settled after five seconds, and an agent hears of it with its next report.
const ROTATION: Duration = Duration::from_secs(300);
/// What DESIGN wants.
const MEMORY: (&str, f64) = ("wanted", 512.0);
const RESYNC: (&str, f64) = ("wanted", 60.0);

/// A node of [`fill::LARGE`]: every second one is.
fn node(number: usize) -> String {
    format!("n-{:012x}", 2 * number)
}

fn network(number: usize) -> String {
    format!("net-{number:03}")
}

/// A control plane with nodes, networks and an image.
fn world(nodes: usize, agents: usize, database: Option<String>) -> Deployment {
    let mut deployment = Deployment::start_on(STORE, database);
    for number in 0..fill::PROJECTS {
        deployment.api.project(&fill::project(number));
    }
    deployment.control_plane_stop();
    match &deployment.database {
        Some(url) => fill::postgres(url, nodes),
        None => fill::sqlite(&deployment, nodes),
    }
    deployment.control_plane_start();
    deployment.agents_configure("127.0.0.1", 86_400);
    for number in 0..agents {
        deployment.api.network(&network(number), &format!("10.200.{number}.0/24"));
    }
    deployment.api.image(fill::LARGE, "small");
    deployment
}

/// Instances on a network: nodes from a number on.
fn order(at: usize, nodes: std::ops::Range<usize>) -> Order {
    Order {
        project: fill::LARGE.to_owned(),
        image: "small".to_owned(),
        network: network(at),
        nodes: nodes.map(node).collect(),
    }
}

/// Provisions so often; gives the seconds to the last portal.
fn provisions(deployment: &Deployment, order: &Order) -> f64 {
    median((0..REPEATS).map(|_| round(deployment, order).portal))
}

/// The nodes of which the control plane knows that they have booted.
fn running(deployment: &Deployment) -> usize {
    let instances = deployment.api.list(&format!("/v1/projects/{}/instances", fill::LARGE));
    instances.iter().filter(|instance| instance["state"] == "running").count()
}

/// Makes another authority; gives the seconds until every agent has a certificate of it.
fn rotate(deployment: &Deployment, fleet: &Fleet, agents: usize) -> f64 {
    let (api, before, begun) = (&deployment.api, fleet.renewals().len(), Instant::now());
    api.post("/v1/authorities", &json!({})).expect(201);
    until("every agent has renewed its certificate", ROTATION, || {
        fleet.assert_alive();
        let renewed = fleet.renewals().len() >= before + agents && api.authorities()[0]["agents"] == 0;
        renewed.then_some(())
    });
    begun.elapsed().as_secs_f64()
}

pub(crate) fn run(effort: Effort) -> Vec<Figure> {
    let nodes = effort.nodes.max(NODES_MIN);
    let (agents, at_once) = (AGENTS.min(nodes / NODES_OF_AN_AGENT), AT_ONCE);
    // Before the deployment, so that it ends after it.
    let server = effort.database.server();
    let deployment = world(nodes, agents, server.as_ref().map(Postgres::database));
    let pid = deployment.control_plane_pid();
    let resident = |field: &str| status(pid, field) / 1024.0;
    let mut figures = Vec::new();
    let mut add = |what: String, ours, peer, unit| {
        figures.push(Figure { what: format!("scale: {what}"), ours, peer, unit });
    };
    let with = format!("{nodes} nodes, {agents} agents");
    add(format!("control plane, {nodes} nodes, no agent: resident"), resident("VmRSS"), None, "MiB");

    let networks: BTreeSet<String> = (0..agents).map(network).collect();
    let begun = Instant::now();
    let mut fleet = Fleet::join(&deployment, &networks);
    add(format!("{agents} agents join, one after another"), begun.elapsed().as_secs_f64(), None, "s");
    fleet.start();
    let begun = Instant::now();
    for at in 0..agents {
        order(at, at * INSTANCES..(at + 1) * INSTANCES).place(&deployment.api);
    }
    let instances = agents * INSTANCES;
    let made = begun.elapsed().as_secs_f64();
    add(format!("{instances} instances made, {INSTANCES} at once"), made, None, "s");
    fleet.settle();
    let (booted, all) = (running(&deployment) as f64, Some(("instances", instances as f64)));
    add("nodes that have booted, as the control plane knows".to_owned(), booted, all, "nodes");

    let (before, begun) = (cpu(pid), Instant::now());
    std::thread::sleep(IDLE);
    let share = (cpu(pid) - before) / begun.elapsed().as_secs_f64() * 100.0;
    add(format!("{with}, {instances} instances, nothing happens: of a processor"), share, None, "%");
    add(format!("{with}, {instances} instances: resident"), resident("VmRSS"), Some(MEMORY), "MiB");
    add(format!("{with}, {instances} instances: anonymous"), resident("RssAnon"), Some(MEMORY), "MiB");

    let resync = median((0..REPEATS).map(|_| fleet.start().as_secs_f64()));
    add(format!("{with}, {instances} instances: full resync"), resync, Some(RESYNC), "s");

    let waited = fleet.boot();
    let what = format!("{with}, {instances} nodes boot at once: an event until it is taken");
    add(format!("{what}, median of batches"), median(waited.iter().copied()), None, "s");
    add(format!("{what}, longest"), percentile(&waited, 100), None, "s");
    let rotated = rotate(&deployment, &fleet, agents);
    add(format!("{with}: another authority until all have renewed"), rotated, None, "s");
    add(format!("{with}: a renewal, longest"), percentile(&fleet.renewals(), 100), None, "s");

    let more = order(0, instances..instances + at_once);
    let alone = provisions(&deployment, &more);
    add(format!("request to portal, {at_once} at once, agents wait"), alone, None, "s");
    let done = AtomicBool::new(false);
    let mut resyncs = Vec::new();
    let meanwhile = std::thread::scope(|scope| {
        let provisioning = scope.spawn(|| {
            let took = provisions(&deployment, &more);
            done.store(true, Ordering::Relaxed);
            took
        });
        while !done.load(Ordering::Relaxed) && !provisioning.is_finished() {
            let resync = fleet.start();
            resyncs.push(resync.as_secs_f64());
            // A few agents would be so fast that they are told to wait.
            std::thread::sleep(RESYNC_EVERY.saturating_sub(resync));
        }
        provisioning.join().unwrap()
    });
    let what = format!("request to portal, {at_once} at once, agents resync without pause");
    add(what, meanwhile, Some(("agents wait", alone)), "s");
    add("full resync meanwhile".to_owned(), median(resyncs), Some(RESYNC), "s");
    add("control plane, the most it had: resident".to_owned(), resident("VmHWM"), Some(MEMORY), "MiB");
    fleet.settle();
    let [events, batches] = fleet.events();
    add("events of hosts and nodes taken".to_owned(), events as f64, None, "events");
    add("batches of them".to_owned(), batches as f64, None, "batches");
    let (renewed, each) = (fleet.renewals().len() as f64, Some(("agents", agents as f64)));
    add("certificates renewed".to_owned(), renewed, each, "certificates");
    fleet.stop();
    figures
}

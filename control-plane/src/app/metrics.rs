//! How the service does, as metrics in the OpenMetrics text format.
//!
//! Requests are counted as they are answered; everything else is read when it is asked for, so that it is right after
//! a restart and on every replica.
//!
//! Invariant: labels are ids and words of ours, never names that somebody chose.

mod sessions;

use std::fmt;
use std::time::Duration;

use bmi_agent_api::status::Dropped;
use bmi_api::{InstanceState, NodeState, OperationKind, OperationState, TargetState};
use bmi_auth::{Action, Caller, Domain};
use bmi_db::counts::{ByState, Counts, TargetCount};
use bmi_drivers::store::Usage;
use bmi_types::ByteSize;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::App;
use crate::error::AppError;
use crate::reconcile::Found;

/// Bounds of the request times: from 1 ms, doubling, to about 8 s.
const FASTEST_S: f64 = 0.001;
const BOUNDS: u16 = 14;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    method: String,
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: u16,
}

/// What is counted while the server runs.
pub struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    duration: Family<Route, Histogram, fn() -> Histogram>,
    set_aside: Counter,
    missing: Gauge,
    abandoned: Counter,
}

fn bounds() -> Histogram {
    Histogram::new(exponential_buckets(FASTEST_S, 2.0, BOUNDS))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("bmi");
        let answered = Family::default();
        let duration = Family::new_with_constructor(bounds as fn() -> Histogram);
        registry.register("http_requests", "Requests answered", answered.clone());
        let unit = Unit::Seconds;
        registry.register_with_unit("http_request_duration", "Time to an answer", unit, duration.clone());
        let (set_aside, missing, abandoned) = (Counter::default(), Gauge::default(), Counter::default());
        registry.register("store_set_aside", "Things in the store that nobody knew", set_aside.clone());
        registry.register("store_missing", "Volumes and images that should be in the store", missing.clone());
        registry.register(
            "instances_abandoned",
            "Instances found without their operation",
            abandoned.clone(),
        );
        Self { registry, answered, duration, set_aside, missing, abandoned }
    }
}

impl Metrics {
    /// Takes what the reconciler found.
    pub(crate) fn reconciled(&self, found: &Found, missing: usize) {
        self.set_aside.inc_by(found.set_aside);
        self.missing.set(i64::try_from(missing).unwrap_or(i64::MAX));
        self.abandoned.inc_by(found.abandoned);
    }

    /// Counts a request. One that no route takes has no path of its own: whoever asks chooses the path.
    pub fn request(&self, method: &str, route: Option<String>, status: u16, took: Duration) {
        let (method, route) = match route {
            Some(route) => (method.to_owned(), route),
            None => ("any".to_owned(), "none".to_owned()),
        };
        self.duration
            .get_or_create(&Route { method: method.clone(), route: route.clone() })
            .observe(took.as_secs_f64());
        self.answered.get_or_create(&Answered { method, route, status }).inc();
    }
}

/// All metrics as text.
///
/// # Errors
/// When the caller may not see them, or the database or the store fails.
pub async fn metrics(app: &App, caller: &Caller) -> Result<String, AppError> {
    app.permit(caller, Action::MetricsRead, Domain::Everywhere).await?;
    let counts = app.db.system_read(|tx| Ok::<_, AppError>(bmi_db::counts::all(tx)?)).await?;
    let store = app.store.usage().await?;
    let mut text = String::new();
    write(&mut text, app, &counts, &store)
        .map_err(|error| AppError::Defect(format!("the metrics cannot be written: {error}")))?;
    Ok(text)
}

/// One label and its value.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;

fn write(text: &mut String, app: &App, counts: &Counts, store: &Usage) -> fmt::Result {
    encode_registry(text, &app.metrics.registry)?;
    let mut registry = Registry::with_prefix("bmi");
    let build = gauges(&mut registry, "build_info", "The version that runs");
    set(&build, [("version", env!("CARGO_PKG_VERSION").to_owned())], 1);
    set(&gauges(&mut registry, "projects", "Projects"), [], counts.projects);
    let nodes = NodeState::ALL.iter().map(|state| state.as_str());
    by_state(&gauges(&mut registry, "nodes", "Nodes by state"), nodes, &counts.nodes);
    let images = bmi_api::ImageState::ALL.iter().map(|state| state.as_str());
    by_state(&gauges(&mut registry, "images", "Images by state"), images, &counts.images);
    let instances = InstanceState::ALL.iter().map(|state| state.as_str());
    by_state(&gauges(&mut registry, "instances", "Instances by state"), instances, &counts.instances);
    let operations = gauges(&mut registry, "operations", "Operations kept, by kind and state");
    for kind in OperationKind::ALL {
        for state in OperationState::ALL {
            let of = |(k, s, _): &&(String, String, i64)| k == kind.as_str() && s == state.as_str();
            let count = counts.operations.iter().find(of).map_or(0, |(_, _, count)| *count);
            set(&operations, [("kind", kind.to_string()), ("state", state.to_string())], count);
        }
    }
    let bytes = |size: ByteSize| i64::try_from(size.bytes()).unwrap_or(i64::MAX);
    let capacity = gauges(&mut registry, "store_capacity_bytes", "Bytes the data store can hold");
    set(&capacity, [], bytes(store.capacity));
    set(&gauges(&mut registry, "store_used_bytes", "Bytes of the data store in use"), [], bytes(store.used));
    agents(&mut registry, counts);
    targets(&mut registry, counts);
    sessions::register(&mut registry, &counts.targets);
    encode_registry(text, &registry)?;
    encode_eof(text)
}

fn agents(registry: &mut Registry, counts: &Counts) {
    let generation = gauges(registry, "network_generation", "The newest desired state of a network");
    let observed =
        gauges(registry, "agent_generation_observed", "The desired state that the agent carried out");
    let seen = gauges(registry, "agent_last_seen_timestamp_seconds", "When the agent last reported");
    let netboot = gauges(registry, "netboot_listening", "Whether the boot services answer");
    let dropped = gauges(
        registry,
        "firewall_dropped_packets",
        "Packets that rules of the agent's host dropped: the bridge's, the boot services', each target's and broker's",
    );
    for agent in &counts.agents {
        let network = || [("network", agent.network.to_string())];
        set(&generation, network(), agent.generation);
        let Some((carried_out, state, at)) = &agent.reported else { continue };
        set(&observed, network(), *carried_out);
        set(&seen, network(), at.micros() / 1_000_000);
        set(&netboot, network(), i64::from(state == TargetState::Listening.as_str()));
        let text = agent.dropped.as_deref().unwrap_or_default();
        for one in serde_json::from_str::<Vec<Dropped>>(text).unwrap_or_default() {
            let labels = [("network", agent.network.to_string()), ("by", one.by)];
            set(&dropped, labels, i64::try_from(one.packets).unwrap_or(i64::MAX));
        }
    }
}

fn targets(registry: &mut Registry, counts: &Counts) {
    let listening = gauges(registry, "target_listening", "Whether an instance's target accepts logins");
    let read = gauges(registry, "target_read_bytes", "Bytes read by the node since its target started");
    let written =
        gauges(registry, "target_written_bytes", "Bytes written by the node since its target started");
    for target in &counts.targets {
        let labels = || target_labels(target);
        set(&listening, labels(), i64::from(target.state == TargetState::Listening.as_str()));
        set(&read, labels(), target.read_bytes);
        set(&written, labels(), target.written_bytes);
    }
}

fn target_labels(target: &TargetCount) -> [(&'static str, String); 3] {
    [
        ("instance", target.instance.to_string()),
        ("project", target.project.to_string()),
        ("network", target.network.to_string()),
    ]
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn set<const N: usize>(family: &Gauges, labels: [(&'static str, String); N], value: i64) {
    family.get_or_create(&labels.to_vec()).set(value);
}

/// A gauge for each state, also for those that nothing is in: a series that vanishes cannot be alerted on.
fn by_state(family: &Gauges, states: impl Iterator<Item = &'static str>, counts: &ByState) {
    for state in states {
        let count = counts.iter().find(|(known, _)| known == state).map_or(0, |(_, count)| *count);
        set(family, [("state", state.to_owned())], count);
    }
}

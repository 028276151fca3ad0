//! The API over HTTP: a server with one instance, 10 000 bindings and 100 000 nodes, on SQLite, on PostgreSQL, and two
//! replicas on PostgreSQL.
//!
//! Nodes and bindings are put into the database by SQL; everything else is made through the API.

use std::time::{Duration, Instant};

use bmi_tests::{Api, Deployment, Durability, Postgres, STORE_SMALL};
use serde_json::{Value, json};

use crate::load::Load;
use crate::{Figure, fill, median};

/// Connections that are kept at the same time.
const CONNECTIONS: [usize; 3] = [1, 8, 32];
/// How often a role is given, to see how long that takes.
const GIFTS: usize = 20;
/// How much is done.
pub(crate) struct Effort {
    /// Seconds of each load, after a fifth of that to warm up.
    pub(crate) seconds: u64,
    /// Nodes in the database.
    pub(crate) nodes: usize,
}

/// What is measured by default.
pub(crate) const EFFORT: Effort = Effort { seconds: 10, nodes: 100_000 };

/// What is asked for.
struct Case {
    name: &'static str,
    paths: Vec<String>,
    /// Somebody else than the local admin.
    token: Option<String>,
}

/// The cursors behind some pages of a list, about half way and near its end.
fn deep(api: &Api, path: &str, count: usize) -> Vec<String> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut next: Vec<String> = Vec::new();
    for _ in 0..count / 500 {
        let cursor = next.last().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = api.get(&format!("{path}{joint}limit=500{cursor}")).expect(200);
        let Some(cursor) = page["next"].as_str() else { break };
        next.push(cursor.to_owned());
    }
    // The very last page may have a single item.
    let last = next.len() - 2;
    [last / 2, last * 3 / 4, last].iter().map(|&at| format!("{path}{joint}cursor={}", next[at])).collect()
}

fn cases(api: &Api, effort: &Effort, token: &str) -> Vec<Case> {
    let case = |name, path: &str| Case { name, paths: vec![path.to_owned()], token: None };
    let of_lab = format!("/v1/nodes?project={}", fill::LARGE);
    vec![
        case("GET /healthz, anonymous", "/healthz"),
        case("whoami", "/v1/whoami"),
        Case { token: Some(token.to_owned()), ..case("whoami, service account", "/v1/whoami") },
        case("nodes, first page", "/v1/nodes"),
        Case { paths: deep(api, "/v1/nodes", effort.nodes), ..case("nodes, deep pages", "") },
        case("nodes of a large project, first page", &of_lab),
        Case {
            paths: deep(api, &of_lab, effort.nodes / 2),
            ..case("nodes of a large project, deep pages", "")
        },
        Case { token: Some(token.to_owned()), ..case("nodes as a service account", "/v1/nodes") },
        case("instance", "/v1/projects/lab/instances/web"),
    ]
}

/// Everything that is made through the API; gives a service account's token.
fn world(deployment: &mut Deployment) -> String {
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    api.node_of("web", "52:54:00:be:00:01", "lab");
    api.image("lab", "small");
    api.instance("lab", "web", "small", &json!({}));
    for number in 0..fill::PROJECTS {
        api.project(&fill::project(number));
    }
    let account = json!({"name": "reader", "role": "project-viewer", "scopes": ["*"], "expires_days": 1});
    let path = format!("/v1/projects/{}/service-accounts", fill::SMALL);
    api.post(&path, &account).expect(201)["token"].as_str().unwrap().to_owned()
}

/// How long it takes to give a role, and to have the policy with it in force.
fn gift(api: &Api, place: &str) -> Figure {
    let times = (0..GIFTS).map(|number| {
        let member = json!({"subject": format!("user:corp:new-{number}"), "role": "project-viewer"});
        let begun = Instant::now();
        api.post("/v1/projects/lab/members", &member).expect(201);
        begun.elapsed().as_secs_f64() * 1e3
    });
    let what = format!("{place}: a role given, in force when answered, median");
    let figure = Figure { what, ours: median(times), peer: None, unit: "ms" };
    figure.print();
    figure
}

fn measure(servers: &[Api], place: &str, effort: &Effort, token: &str, only: Option<&str>) -> Vec<Figure> {
    let duration = Duration::from_secs(effort.seconds);
    let mut figures = Vec::new();
    let mut floor: Vec<f64> = Vec::new();
    println!("  {place:<42}{:>8}{:>12}{:>13}{:>10}", "at once", "answers/s", "median, ms", "p99, ms");
    for case in cases(&servers[0], effort, token) {
        let is_floor = floor.is_empty();
        if only.is_some_and(|only| !is_floor && !case.name.contains(only)) {
            continue;
        }
        let authorization = case.token.as_ref().map(|token| format!("Bearer {token}"));
        let servers: Vec<Api> = servers
            .iter()
            .map(|api| match &authorization {
                Some(text) => api.authorized(Some(text)),
                None => api.clone(),
            })
            .collect();
        for (position, connections) in CONNECTIONS.into_iter().enumerate() {
            let load =
                Load { servers: &servers, paths: &case.paths, connections, warm_up: duration / 5, duration };
            let loaded = load.run();
            println!(
                "    {:<40}{connections:>8}{:>12.0}{:>13.2}{:>10.2}",
                case.name, loaded.per_second, loaded.p50_ms, loaded.p99_ms
            );
            let peer = floor.get(position).map(|&peer| ("/healthz", peer));
            if is_floor {
                floor.push(loaded.per_second);
            }
            let what = |text: &str| format!("{place}: {}, {connections} at once, {text}", case.name);
            let figure = |text: &str, ours, unit| Figure { what: what(text), ours, peer: None, unit };
            figures.push(Figure { peer, ..figure("answers", loaded.per_second, "/s") });
            figures.push(figure("median", loaded.p50_ms, "ms"));
            figures.push(figure("p99", loaded.p99_ms, "ms"));
        }
    }
    figures
}

pub(crate) fn run(effort: &Effort, only: Option<&str>) -> Vec<Figure> {
    if only == Some("decision") {
        return Vec::new();
    }
    let mut figures = Vec::new();
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    let token = world(&mut deployment);
    deployment.control_plane_stop();
    fill::sqlite(&deployment, effort.nodes);
    deployment.control_plane_start();
    figures.extend(measure(&[deployment.api.clone()], "SQLite", effort, &token, only));
    figures.push(gift(&deployment.api, "SQLite"));
    drop(deployment);

    let server = Postgres::start(Durability::Full);
    let database = server.database();
    let mut deployment = Deployment::start_on(STORE_SMALL, Some(database.clone()));
    let token = world(&mut deployment);
    deployment.control_plane_stop();
    fill::postgres(&database, effort.nodes);
    deployment.control_plane_start();
    let first = deployment.api.clone();
    figures.extend(measure(std::slice::from_ref(&first), "PostgreSQL", effort, &token, only));
    figures.push(gift(&first, "PostgreSQL"));
    let mut second = deployment.replica("second");
    second.start();
    let both = [first, second.api.clone()];
    figures.extend(measure(&both, "PostgreSQL, 2 replicas", effort, &token, only));
    second.stop();
    figures
}

/// What the figures are of, for who reads them later.
pub(crate) fn conditions(effort: &Effort) -> Value {
    json!({
        "nodes": effort.nodes,
        "bindings": fill::BINDINGS,
        "seconds": effort.seconds,
        "made by SQL": "nodes, NICs and bindings; all else through the API",
        "load": "kept connections in a closed loop, by a generator that shares the cores with servers and database",
        "PostgreSQL": "15, on the same machine, its files in memory (tmpfs)",
        "log": "one line for each request (level info) to a file, as by default",
        "rate limits": "raised",
    })
}

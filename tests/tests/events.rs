//! Server-sent events: what a watcher is told of an operation and of an instance.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use bmi_tests::{Api, Deployment, STORE_SMALL, operation_end};
use serde_json::{Value, json};

/// One event: its name, its id and its data.
type Event = (String, String, Value);

/// A watcher.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn new(api: &Api, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = api.open(format!("{}\r\n", api.head("GET", path, headers)).as_bytes());
        let mut watcher = Self(BufReader::new(stream));
        let head: Vec<String> =
            std::iter::from_fn(|| watcher.line().filter(|line| !line.is_empty())).collect();
        assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
        assert!(
            head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")),
            "{head:?}"
        );
        watcher
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; nothing at the end of the stream. Sizes of chunks and comments are passed over.
    fn next(&mut self) -> Option<Event> {
        let mut event = (String::new(), String::new(), Value::Null);
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.0),
                Some(("id", id)) => id.clone_into(&mut event.1),
                Some(("data", data)) => {
                    event.2 = serde_json::from_str(data).unwrap();
                    return Some(event);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_watcher_follows_an_operation_to_its_end() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    let import = api.post("/v1/projects/lab/images", &json!({"name": "golden", "import_file": "small.raw"}));
    let operation = import.expect(202);
    let path = format!("/v1/operations/{}/events", operation["id"].as_str().unwrap());
    let mut watcher = Watcher::new(api, &path, &[]);
    let told: Vec<Event> = std::iter::from_fn(|| watcher.next()).collect();
    assert!(told.iter().all(|(name, _, data)| name == "operation" && data["id"] == operation["id"]));
    let (_, id, last) = told.last().unwrap();
    assert_eq!((id.as_str(), &last["state"]), ("end", &json!("succeeded")));
    assert!(told.iter().rev().skip(1).all(|(_, id, data)| id.is_empty() && data["state"] != "succeeded"));
    // One who comes late is told the end at once; one who was told it need not come again.
    let mut late = Watcher::new(api, &path, &[]);
    assert_eq!(late.next().unwrap().2, *last);
    assert_eq!(late.next(), None);
    assert_eq!(api.send("GET", &path, &[("Last-Event-ID", "end")], None).status, 204);
    assert_eq!(api.get("/v1/operations/01a21053-6083-733d-995f-029a4fcaa00d/events").status, 404);
}

#[test]
fn a_watcher_of_an_instance_sees_its_stages_and_its_end() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    api.node_of("node-1", "52:54:00:ee:00:01", "lab");
    api.image("lab", "golden");
    let body = json!({"name": "node-1", "node": "node-1", "image": "golden", "network": "provisioning"});
    let operation = api.post("/v1/projects/lab/instances", &body).expect(202);
    let mut watcher = Watcher::new(api, "/v1/projects/lab/instances/node-1/events", &[]);
    let first = watcher.next().unwrap();
    assert_eq!((first.0.as_str(), &first.2["name"]), ("instance", &json!("node-1")));
    assert_eq!(operation_end(api, &operation)["state"], "succeeded");
    // Whoever is slower than the instance need not be told every state: this one waits for it.
    let mut told = vec![first];
    let has = |told: &[Event], key: &str, value: &str| told.iter().any(|(.., data)| data[key] == value);
    while !has(&told, "state", "ready") || !has(&told, "stage", "target") {
        told.push(watcher.next().unwrap());
    }
    let ending = api.delete("/v1/projects/lab/instances/node-1").expect(202);
    assert_eq!(operation_end(api, &ending)["state"], "succeeded");
    told.extend(std::iter::from_fn(|| watcher.next()));
    let instances: Vec<&Value> =
        told.iter().filter(|(name, ..)| name == "instance").map(|(.., data)| data).collect();
    assert!(
        instances.array_windows().all(|[one, next]| one != next),
        "no change is told twice: {instances:?}"
    );
    // An instance changes in other things than its state too, and is told again.
    let mut states: Vec<&Value> = instances.iter().map(|instance| &instance["state"]).collect();
    states.dedup();
    assert_eq!(states[..2], [&json!("provisioning"), &json!("ready")], "{states:?}");
    let mut stages: Vec<&str> = told
        .iter()
        .filter(|(name, ..)| name == "stage")
        .filter_map(|(.., data)| data["stage"].as_str())
        .collect();
    for wanted in ["provision.requested", "prepare-image", "expose-target", "target", "deprovision.requested"]
    {
        assert!(stages.contains(&wanted), "{wanted}: {stages:?}");
    }
    let all = stages.len();
    stages.sort_unstable();
    stages.dedup();
    assert_eq!(stages.len(), all, "no stage is told twice");
    assert_eq!(told.last().map(|(name, id, _)| (name.as_str(), id.as_str())), Some(("gone", "end")));
}

#[test]
fn a_server_that_stops_ends_its_streams() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.api.network("provisioning", "10.77.0.0/24");
    deployment.api.node_of("node-1", "52:54:00:ee:00:02", "lab");
    deployment.api.image("lab", "golden");
    // No agent: the operation goes on until the server stops.
    let body = json!({"name": "node-1", "node": "node-1", "image": "golden", "network": "provisioning"});
    let operation = deployment.api.post("/v1/projects/lab/instances", &body).expect(202);
    let path = format!("/v1/operations/{}/events", operation["id"].as_str().unwrap());
    let mut watcher = Watcher::new(&deployment.api, &path, &[]);
    assert!(watcher.next().is_some());
    let ended = std::thread::spawn(move || while watcher.next().is_some() {});
    deployment.control_plane_stop();
    ended.join().unwrap();
}

#[test]
fn s2_a_watcher_whose_token_or_rights_have_ended_is_told_nothing_more() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    api.node_of("node-1", "52:54:00:ee:00:03", "lab");
    api.image("lab", "golden");
    api.instance("lab", "node-1", "golden", &json!({}));
    let accounts = "/v1/projects/lab/service-accounts";
    let account = |name: &str| {
        let body =
            json!({"name": name, "role": "project-viewer", "scopes": ["instance:read"], "expires_days": 1});
        let made = api.post(accounts, &body).expect(201);
        let token = made["token"].as_str().unwrap();
        let path = "/v1/projects/lab/instances/node-1/events";
        Watcher::new(&api.authorized(Some(&format!("Bearer {token}"))), path, &[])
    };
    let watchers = [account("stays"), account("revoked"), account("narrowed")];
    api.delete(&format!("{accounts}/revoked")).expect(204);
    api.json("PATCH", &format!("{accounts}/narrowed"), &json!({"scopes": ["image:read"]})).expect(200);
    // The policy of a removed account counts within a second; its token, and the scopes, at once.
    let ending = api.delete("/v1/projects/lab/instances/node-1").expect(202);
    assert_eq!(operation_end(api, &ending)["state"], "succeeded");
    let told = watchers.map(|mut watcher| -> Vec<Event> { std::iter::from_fn(|| watcher.next()).collect() });
    let of_the_end = |told: &[Event]| {
        told.iter().filter(|(name, _, data)| name == "gone" || data["operation"] == ending["id"]).count()
    };
    assert!(of_the_end(&told[0]) > 2, "{:?}", told[0]);
    assert_eq!((of_the_end(&told[1]), of_the_end(&told[2])), (0, 0), "{told:?}");
}

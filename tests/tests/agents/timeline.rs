//! The timeline of a network: what its agent tells of its work, and who its agents are.

use std::time::Duration;

use bmi_agent_api::event::SessionStatistics;
use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, operation_end, until};
use bmi_types::Timestamp;
use serde_json::{Value, json};

fn deployment() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", 86_400);
    deployment.api.network("red", "10.78.0.0/24");
    deployment.api.network("blue", "10.79.0.0/24");
    deployment
}

fn events(deployment: &Deployment, network: &str) -> Vec<Value> {
    let timeline = deployment.api.get(&format!("/v1/networks/{network}/timeline")).expect(200);
    timeline["events"].as_array().unwrap().clone()
}

fn names(deployment: &Deployment, network: &str) -> Vec<String> {
    let events = events(deployment, network).into_iter();
    events.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

fn said(process: &str, said: &Value) -> Value {
    json!({"at": "2026-01-01T00:00:00Z", "from": {"process": process, "said": said}})
}

#[test]
fn an_agents_faults_and_its_own_story_are_in_the_networks_timeline() {
    let deployment = deployment();
    let (agent, identity, _) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap();
    let fault = json!({"event": "fault", "about": "network", "reason": "x".repeat(2000)});
    let batch = json!({"events": [
        said("agent", &fault),
        // Of a later release: what is not known costs nothing else its place.
        said("agent", &json!({"event": "of-tomorrow"})),
        json!({"at": "2026-01-01T00:00:00Z", "from": {"process": "of-tomorrow"}}),
        17,
        said("agent", &json!({"event": "mended", "about": "network"})),
    ]});
    let _ = agent.post("/agent/v1/networks/red/events", &batch).unwrap().expect(204);
    let now = events(&deployment, "red");
    let told: Vec<&Value> = now.iter().filter(|event| event["detail"]["about"] == "network").collect();
    assert_eq!(told.len(), 2, "{now:#?}");
    assert_eq!((&told[0]["event"], &told[1]["event"]), (&json!("fault"), &json!("mended")));
    assert_eq!(told[0]["detail"]["reason"].as_str().unwrap().len(), 500, "bounded");

    // A clock that is off, to either side, and right again: once each.
    let report = |offset: i64| {
        let at = bmi_types::Timestamp::from_micros(bmi_types::Timestamp::now().micros() + offset * 1_000_000);
        json!({"version": "test", "generation_observed": 0, "netboot": {"state": "absent"}, "instances": [],
            "sent_at": at.to_string()})
    };
    for offset in [0, -600, -600, 0, 0, 600, 600, 0] {
        let _ = agent.post("/agent/v1/networks/red/status", &report(offset)).unwrap().expect(204);
    }
    let clock: Vec<String> = events(&deployment, "red")
        .into_iter()
        .filter(|event| event["event"] == "agent.clock")
        .map(|event| event["detail"]["reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(clock.len(), 4, "{clock:?}");
    assert!(clock[0].contains("behind the control plane's") && clock[1].contains("right again"), "{clock:?}");
    assert!(clock[2].contains("ahead of the control") && clock[3].contains("right again"), "{clock:?}");

    // Another key for it, approved or not, a replacement, and the end.
    let nobody = Member::nobody(deployment.agents_address(), &deployment.api.authority_certificates());
    for decision in ["reject", "approve"] {
        let key = AgentKey::default();
        let token = deployment.api.join_token("red");
        let _ = nobody.enrol(&token, "red", Some(id), &key.request()).unwrap().expect(202);
        match decision {
            "approve" => deployment.api.key_approve(id),
            _ => deployment.api.post(&format!("/v1/agents/{id}/{decision}"), &json!({})).expect(200),
        };
    }
    let (_, next, _) = deployment.member("red");
    let next = next["agent"].as_str().unwrap();
    deployment.api.post(&format!("/v1/agents/{id}/replace"), &json!({})).expect(200);
    deployment.api.post(&format!("/v1/agents/{next}/revoke"), &json!({})).expect(200);
    assert_eq!(
        names(&deployment, "red"),
        [
            "agent.joined",
            "fault",
            "mended",
            "agent.clock",
            "agent.clock",
            "agent.clock",
            "agent.clock",
            "agent.key-pending",
            "agent.rejected",
            "agent.key-pending",
            "agent.approved",
            "agent.joined",
            "agent.replaced",
            "agent.active",
            "agent.revoked",
        ]
    );
    assert!(names(&deployment, "blue").is_empty(), "another network's is another's");
}

#[test]
fn a_token_that_is_refused_is_told_on_its_network() {
    let deployment = deployment();
    let nobody = Member::nobody(deployment.agents_address(), &deployment.api.authority_certificates());
    let token = deployment.api.join_token("red");
    let key = AgentKey::default();
    let elsewhere = nobody.enrol(&token, "blue", None, &key.request()).unwrap();
    assert_eq!(elsewhere.code(403), "join-token-refused");
    let _ = nobody.enrol(&token, "red", None, &key.request()).unwrap().expect(200);
    let again = nobody.enrol(&token, "red", None, &AgentKey::default().request()).unwrap();
    assert_eq!(again.code(403), "join-token-refused");
    let refused: Vec<Value> =
        events(&deployment, "red").into_iter().filter(|event| event["event"] == "token.refused").collect();
    assert_eq!(refused.len(), 2);
    let reason = |at: usize| refused[at]["detail"]["reason"].as_str().unwrap();
    assert!(
        reason(0).contains("not for network `blue`") && reason(1).contains("used already"),
        "{refused:?}"
    );
    assert!(names(&deployment, "blue").is_empty());
    let secret = token.split('.').next().unwrap();
    assert!(!serde_json::to_string(&refused).unwrap().contains(secret));
}

#[test]
fn an_agent_that_tells_many_faults_hides_nothing_but_older_faults() {
    let deployment = deployment();
    let (agent, _, _) = deployment.member("red");
    for round in 0..2 {
        let faults: Vec<Value> = (0..150)
            .map(|number| {
                let reason = format!("{}", round * 150 + number);
                // Its clock may say what it likes.
                let at = format!("20{:02}-01-01T00:00:00Z", 99 - round);
                let said = json!({"event": "fault", "about": "host", "reason": reason});
                json!({"at": at, "from": {"process": "agent", "said": said}})
            })
            .collect();
        let _ = agent.post("/agent/v1/networks/red/events", &json!({"events": faults})).unwrap().expect(204);
    }
    let kept = events(&deployment, "red");
    assert_eq!(kept[0]["event"], "agent.joined");
    let reasons: Vec<&str> =
        kept[1..].iter().map(|event| event["detail"]["reason"].as_str().unwrap()).collect();
    assert_eq!((reasons.len(), reasons[0], reasons[199]), (200, "100", "299"));
}

/// A deployment in which red has an instance that is made, and its agent.
fn with_instance() -> (Deployment, Member) {
    let deployment = deployment();
    let api = &deployment.api;
    api.project("lab");
    api.image("lab", "golden");
    api.node_of("node-1", "52:54:00:a2:00:01", "lab");
    let body = json!({"name": "web", "node": "node-1", "image": "golden", "network": "red"});
    api.post("/v1/projects/lab/instances", &body).expect(202);
    let (agent, _, _) = deployment.member("red");
    (deployment, agent)
}

/// The instance, as its agent is told of it.
fn published(agent: &Member) -> Value {
    until("the instance is published", Duration::from_secs(60), || {
        let state = agent.desired("red", 0, 0).unwrap().expect(200);
        state["instances"].as_array().unwrap().first().cloned()
    })
}

/// An agent sends a batch again whose answer it has not heard.
#[test]
fn a_batch_that_is_sent_again_is_told_once() {
    let (deployment, agent) = with_instance();
    let instance = published(&agent);
    let of_target = |at: &str, said: Value| json!({"at": at, "from": {"process": "target", "instance": instance["id"], "said": said}});
    let login = json!({"event": "login", "initiator": "iqn.x:y", "peer": "10.78.0.99:1000", "boot": 7});
    let refused =
        |port: u16| json!({"event": "login.refused", "peer": format!("10.78.0.99:{port}"), "reason": "chap"});
    let batch = json!({"events": [
        of_target("2026-01-01T00:00:00Z", login.clone()),
        // Two of one moment are two; and what is said of the traffic is another thing the second time.
        of_target("2026-01-01T00:00:00Z", refused(1001)),
        of_target("2026-01-01T00:00:00Z", refused(1002)),
        of_target("2026-01-01T00:00:01Z", json!({"event": "traffic", "read_bytes": 4096, "written_bytes": 512})),
        of_target("2026-01-01T00:00:02Z", login),
        said("agent", &json!({"event": "fault", "about": "host", "reason": "x"})),
    ]});
    for _ in 0..2 {
        let _ = agent.post("/agent/v1/networks/red/events", &batch).unwrap().expect(204);
    }
    let timeline = deployment.api.get("/v1/projects/lab/instances/web/timeline").expect(200);
    let stages = timeline["stages"].as_array().unwrap().iter();
    let stages: Vec<&str> = stages.map(|stage| stage["stage"].as_str().unwrap()).collect();
    let count = |name: &str| stages.iter().filter(|stage| **stage == name).count();
    assert_eq!((count("login"), count("login.refused")), (2, 2), "{stages:?}");
    let faults = events(&deployment, "red").into_iter().filter(|event| event["event"] == "fault").count();
    assert_eq!(faults, 1);
}

/// A node that was on and asked again and again logs in as soon as its target is there, and may be heard before its target is.
#[test]
fn a_node_that_logs_in_before_its_instance_is_ready_is_running_then() {
    let deployment = deployment();
    let api = &deployment.api;
    api.project("lab");
    api.image("lab", "golden");
    let (agent, _, _) = deployment.member("red");
    for (number, said) in [
        json!({"event": "login", "initiator": "iqn.x:y", "peer": "10.78.0.99:1000", "boot": 7}),
        // Its login was lost, and it is heard of later.
        json!({"event": "session.statistics", "peer": "10.78.0.99:1000", "statistics": SessionStatistics::default()}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("node-{number}");
        api.node_of(&name, &format!("52:54:00:a2:00:1{number}"), "lab");
        let body = json!({"name": name, "node": name, "image": "golden", "network": "red"});
        let operation = api.post("/v1/projects/lab/instances", &body).expect(202);
        let (generation, instances) = until("the instance is published", Duration::from_secs(60), || {
            let state = agent.desired("red", 0, 0).unwrap().expect(200);
            let instances = state["instances"].as_array().unwrap().clone();
            (instances.len() == number + 1).then(|| (state["generation"].clone(), instances))
        });
        let shown = || api.get(&format!("/v1/projects/lab/instances/{name}")).expect(200)["state"].clone();
        let id = api.get(&format!("/v1/projects/lab/instances/{name}")).expect(200)["id"].clone();
        let tell = || {
            let event = json!({"at": Timestamp::now().to_string(), "from": {"process": "target", "instance": id, "said": said}});
            let _ = agent.post("/agent/v1/networks/red/events", &json!({"events": [event]})).unwrap().expect(204);
        };
        let is_late = said["event"] != "login";
        if !is_late {
            tell();
        }
        assert_eq!(shown(), "provisioning");
        let listening = json!({"state": "listening"});
        let each: Vec<Value> = instances
            .iter()
            .map(|instance| json!({"id": instance["id"], "target": listening, "boot_lun": 0}))
            .collect();
        let report = json!({"version": "test", "generation_observed": generation, "netboot": listening, "instances": each});
        let _ = agent.post("/agent/v1/networks/red/status", &report).unwrap().expect(204);
        assert_eq!(operation_end(api, &operation)["state"], "succeeded");
        if is_late {
            assert_eq!(shown(), "ready");
            tell();
        }
        assert_eq!(shown(), "running", "{said}");
    }
}

#[test]
fn the_boot_that_logged_in_last_is_told_to_whoever_serves_the_network_next() {
    let (deployment, agent) = with_instance();
    let instance = published(&agent);
    assert_eq!(instance["boot_floor"], 0);
    let login = |boot: u64| {
        json!({"events": [{"at": "2026-01-01T00:00:00Z", "from": {
            "process": "target", "instance": instance["id"],
            "said": {"event": "login", "initiator": "iqn.x:y", "peer": "10.78.0.99:1000", "boot": boot},
        }}]})
    };
    for boot in [7, 5] {
        let _ = agent.post("/agent/v1/networks/red/events", &login(boot)).unwrap().expect(204);
    }
    assert_eq!(published(&agent)["boot_floor"], 7, "the highest");
    // An agent that lies harms its own nodes only, and a number beyond all does not either.
    let (blue, _, _) = deployment.member("blue");
    let _ = blue.post("/agent/v1/networks/blue/events", &login(99)).unwrap().expect(204);
    assert_eq!(published(&agent)["boot_floor"], 7);
    let _ = agent.post("/agent/v1/networks/red/events", &login(u64::MAX)).unwrap().expect(204);
    assert_eq!(published(&agent)["boot_floor"], i64::MAX);
}

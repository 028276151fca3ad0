//! A replacement in which the control plane is killed: whoever asks for the same again completes it, and at no time have two
//! agents the network.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, Told, until};
use serde_json::{Value, json};

use crate::joining::nobody;

/// A certificate lasts for longer than any test.
const LONG: u64 = 86_400;
/// How long a request may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after it was asked the control plane is killed, in milliseconds: from before it begins until it has ended.
const DELAYS_MS: [u64; 8] = [0, 2, 5, 8, 12, 20, 40, 80];
/// Has an agent that stands by take over for minutes. Nothing else in the database is slower.
const SLOW: [&str; 2] = [
    "CREATE TABLE many AS \
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n",
    "CREATE TRIGGER slow BEFORE UPDATE ON enrolled_agents \
     WHEN OLD.state = 'standby' AND NEW.state = 'active' \
     BEGIN SELECT count(*) FROM many AS a, many AS b, many AS c; END",
];
const AS_BEFORE: [&str; 2] = ["DROP TRIGGER slow", "DROP TABLE many"];

fn sql(deployment: &Deployment, statements: &[&str]) {
    for statement in statements {
        let _ = deployment.sql(statement);
    }
}

/// An agent that joined.
struct Joined {
    id: String,
    identity: Value,
    key: AgentKey,
}

impl Joined {
    fn new(deployment: &Deployment, network: &str) -> Self {
        let (_, identity, key) = deployment.member(network);
        Self { id: identity["agent"].as_str().unwrap().to_owned(), identity, key }
    }

    /// The agent, where the control plane listens now.
    fn member(&self, deployment: &Deployment) -> Member {
        Member::identified(deployment.agents_address(), &self.identity, &self.key)
    }

    fn state(&self, deployment: &Deployment) -> String {
        let shown = deployment.api.get(&format!("/v1/agents/{}", self.id)).expect(200);
        shown["state"].as_str().unwrap().to_owned()
    }
}

/// Two agents of a network, the first of which has it.
struct Pair {
    network: String,
    old: Joined,
    next: Joined,
}

impl Pair {
    fn join(deployment: &Deployment, network: &str, cidr: &str) -> Self {
        deployment.api.network(network, cidr);
        let (old, next) = (Joined::new(deployment, network), Joined::new(deployment, network));
        let pair = Self { network: network.to_owned(), old, next };
        assert_eq!(pair.states(deployment), ["active", "standby"]);
        pair
    }

    /// Where the first is to be replaced.
    fn path(&self) -> String {
        format!("/v1/agents/{}/replace", self.old.id)
    }

    fn states(&self, deployment: &Deployment) -> [String; 2] {
        [self.old.state(deployment), self.next.state(deployment)]
    }

    fn agents(&self, deployment: &Deployment) -> Vec<Value> {
        let found = deployment.api.get(&format!("/v1/agents?network={}", self.network)).expect(200);
        found["items"].as_array().unwrap().clone()
    }

    fn events(&self, deployment: &Deployment) -> Vec<Value> {
        let found = deployment.api.get(&format!("/v1/networks/{}/timeline", self.network)).expect(200);
        found["events"].as_array().unwrap().clone()
    }

    /// Which agents have the network.
    fn serving(&self, deployment: &Deployment) -> Vec<String> {
        let agents = self.agents(deployment).into_iter().filter(|agent| agent["serving"] == true);
        agents.map(|agent| agent["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Asks for it, and waits for no answer.
    fn begin(&self, deployment: &Deployment) -> TcpStream {
        let headers = [("Content-Type", "application/json"), ("Content-Length", "2")];
        let head = deployment.api.head("POST", &self.path(), &headers);
        deployment.api.open(format!("{head}\r\n{{}}").as_bytes())
    }

    /// The old agent is revoked, the other one has the network, and it was given to it once.
    fn assert_complete(&self, deployment: &Deployment) {
        assert_eq!(self.states(deployment), ["revoked", "active"]);
        assert_eq!(self.serving(deployment), [self.next.id.as_str()]);
        let events = self.events(deployment);
        assert_eq!(events.iter().filter(|event| event["event"] == "agent.active").count(), 1, "{events:#?}");
        let refused = self.old.member(deployment).status(&self.network).unwrap();
        assert_eq!(refused.code(403), "agent-replaced");
        let heard = self.next.member(deployment).status(&self.network).unwrap();
        assert_eq!((heard.status, heard.standing.as_str()), (204, "active"), "{}", heard.body);
    }

    /// Who asks once it is complete hears that it was done, and changes nothing.
    fn assert_over(&self, deployment: &Deployment) {
        let before = (self.agents(deployment), self.events(deployment));
        let more = deployment.api.post(&self.path(), &json!({})).expect(200);
        assert_eq!((&more["id"], &more["state"]), (&json!(self.next.id), &json!("active")));
        assert_eq!((self.agents(deployment), self.events(deployment)), before);
    }
}

#[test]
fn k1_a_replacement_that_is_killed_at_any_moment_is_completed_by_asking_again() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", LONG);
    for (round, delay) in DELAYS_MS.into_iter().enumerate() {
        let pair = Pair::join(&deployment, &format!("red-{round}"), &format!("10.{}.0.0/24", 78 + round));
        let asked = pair.begin(&deployment);
        std::thread::sleep(Duration::from_millis(delay));
        deployment.control_plane_kill();
        drop(asked);
        deployment.control_plane_start();

        let (states, serving) = (pair.states(&deployment), pair.serving(&deployment));
        let (old, next) = (pair.old.id.as_str(), pair.next.id.as_str());
        match [states[0].as_str(), states[1].as_str()] {
            ["active", "standby"] => assert_eq!(serving, [old], "after {delay} ms"),
            ["revoked", "standby"] => assert!(serving.is_empty(), "after {delay} ms: {serving:?}"),
            ["revoked", "active"] => assert_eq!(serving, [next], "after {delay} ms"),
            other => panic!("after {delay} ms: {other:?}"),
        }
        // Also where only the answer was lost.
        let again = deployment.api.post(&pair.path(), &json!({})).expect(200);
        assert_eq!(again["id"], json!(next), "after {delay} ms");
        pair.assert_complete(&deployment);
        pair.assert_over(&deployment);
    }
}

#[test]
fn k1_a_replacement_that_is_killed_after_the_revocation_is_completed_by_asking_again() {
    // Its database is a file: what makes it slow is written for SQLite.
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    deployment.agents_configure("127.0.0.1", LONG);
    let pair = Pair::join(&deployment, "red", "10.78.0.0/24");
    sql(&deployment, &SLOW);
    let replace = ["agent", "replace", pair.old.id.as_str()];
    let mut asking = deployment.cli("lab").command(&replace);
    let asking = asking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the old agent is revoked", PATIENCE, || (pair.old.state(&deployment) == "revoked").then_some(()));
    deployment.control_plane_kill();
    let said = asking.wait_with_output().unwrap();
    assert_eq!(said.status.code(), Some(6), "{}", String::from_utf8_lossy(&said.stderr));
    sql(&deployment, &AS_BEFORE);
    deployment.control_plane_start();

    // Nobody has the network: not the one that may be lost, and not yet the other.
    assert_eq!(pair.states(&deployment), ["revoked", "standby"]);
    assert!(pair.serving(&deployment).is_empty());
    assert_eq!(pair.old.member(&deployment).status("red").unwrap().code(403), "agent-refused");
    let next = pair.next.member(&deployment);
    assert_eq!(next.status("red").unwrap().standing, "standby");
    assert_eq!(next.desired("red", 0, 0).unwrap().status, 304, "it is told nothing");

    let taken = deployment.cli("lab").run(&[&replace[..], &["-o", "json"]].concat()).ok().json();
    assert_eq!((&taken["id"], &taken["state"]), (&json!(pair.next.id), &json!("active")));
    pair.assert_complete(&deployment);
    deployment.cli("lab").run(&replace).ok();
    pair.assert_over(&deployment);
    let _ = next.desired("red", 0, 0).unwrap().expect(200);
}

/// Whoever was away for longer than its certificate lasts has nothing but its key.
#[test]
fn s6_by_its_key_alone_an_agent_hears_whether_it_was_replaced_and_nothing_else() {
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    deployment.agents_configure("127.0.0.1", LONG);
    let pair = Pair::join(&deployment, "red", "10.78.0.0/24");
    let nobody = nobody(&deployment);
    let ask = |id: &str, key: &AgentKey| {
        nobody.post("/agent/v1/standing", &json!({"agent": id, "request": key.request()})).unwrap()
    };
    let refused = |said: &Told| {
        assert_eq!(said.code(403), "agent-refused");
        said.body["detail"].clone()
    };
    for agent in [&pair.old, &pair.next] {
        let said = ask(&agent.id, &agent.key);
        assert_eq!((said.status, &said.body), (204, &Value::Null));
    }
    // Not for another's key, and an agent that there is not is no other.
    let unknown = refused(&ask("0190163d-8694-739b-aea5-000000000001", &pair.old.key));
    for (id, key) in [(&pair.old.id, &pair.next.key), (&pair.next.id, &AgentKey::default())] {
        assert_eq!(refused(&ask(id, key)), unknown);
    }
    let bad = nobody.post("/agent/v1/standing", &json!({"agent": pair.old.id, "request": "x"})).unwrap();
    assert_eq!(bad.code(422), "invalid");
    // It is no way in.
    assert_eq!(nobody.status("red").unwrap().code(403), "agent-refused");

    deployment.api.post(&format!("/v1/agents/{}/revoke", pair.old.id), &json!({})).expect(200);
    assert_ne!(
        refused(&ask(&pair.old.id, &pair.old.key)),
        unknown,
        "it was revoked, and nobody has the network"
    );
    deployment.api.post(&pair.path(), &json!({})).expect(200);
    assert_eq!(ask(&pair.old.id, &pair.old.key).code(403), "agent-replaced");
    assert_eq!(refused(&ask(&pair.old.id, &pair.next.key)), unknown);
    assert_eq!(ask(&pair.next.id, &pair.next.key).status, 204);
}

/// Two people name two agents at the same time: one of them has it, and the other person hears that.
#[test]
fn of_two_replacements_at_once_by_different_agents_one_counts() {
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    deployment.agents_configure("127.0.0.1", LONG);
    for round in 0..8 {
        let network = format!("red-{round}");
        let pair = Pair::join(&deployment, &network, &format!("10.78.{round}.0/24"));
        let third = Joined::new(&deployment, &network);
        let generation = |agent: &Joined| {
            let told = agent.member(&deployment).desired(&network, 0, 0).unwrap().expect(200);
            told["generation"].as_u64().unwrap()
        };
        let before = generation(&pair.old);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking = [&pair.next, &third].map(|by| {
                let (api, path) = (&deployment.api, pair.path());
                scope.spawn(move || api.post(&path, &json!({"by": by.id})))
            });
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{answers:?}");
        let refused = answers.iter().find(|answer| answer.status == 409).unwrap();
        assert_eq!(refused.code(), "wrong-state", "{refused:?}");
        let taken = answers.iter().find(|answer| answer.status == 200).unwrap().json();
        let winner = [&pair.next, &third].into_iter().find(|it| taken["id"] == it.id).unwrap();
        assert_eq!(pair.serving(&deployment), [winner.id.as_str()]);
        // Whoever came second may have fenced the first one's volumes: that one is told the next keys.
        if refused.json()["detail"].as_str().unwrap().contains("meanwhile") {
            assert!(generation(winner) >= before + 2, "{before}");
        }
        assert_eq!(pair.old.state(&deployment), "revoked");
    }
}

//! S1: what an agent of one network, or somebody who pretends to be one, gets of another.

use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, TRUST_DOMAIN, until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

const LONG: u64 = 86_400;

/// A deployment with networks red and blue, and an instance on blue that waits for an agent.
fn deployment() -> (Deployment, Value) {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", LONG);
    let api = &deployment.api;
    api.network("red", "10.78.0.0/24");
    api.network("blue", "10.79.0.0/24");
    api.project("lab");
    api.image("lab", "golden");
    api.node_of("node-1", "52:54:00:a2:00:01", "lab");
    let body = json!({"name": "web", "node": "node-1", "image": "golden", "network": "blue"});
    api.post("/v1/projects/lab/instances", &body).expect(202);
    let instance = until("the instance is there", Duration::from_secs(60), || {
        let answer = api.get("/v1/projects/lab/instances/web");
        (answer.status == 200).then(|| answer.json())
    });
    (deployment, instance)
}

fn report(instance: &Value, state: &str) -> Value {
    json!({
        "version": "test", "generation_observed": 99, "netboot": {"state": "listening"},
        "instances": [{"id": instance["id"], "target": {"state": state}}],
    })
}

#[test]
fn s1_an_agent_of_one_network_asks_for_and_says_nothing_of_another() {
    let (deployment, instance) = deployment();
    let api = &deployment.api;
    let (red, _, _) = deployment.member("red");
    let (blue, _, _) = deployment.member("blue");
    let wanted = until("blue's instance is published", Duration::from_secs(60), || {
        let state = blue.desired("blue", 0, 0).unwrap().expect(200);
        (!state["instances"].as_array().unwrap().is_empty()).then_some(state)
    });
    assert_eq!(wanted["instances"][0]["id"], instance["id"]);
    let network = api.get("/v1/networks/blue").expect(200);
    let path = format!("/v1/projects/lab/instances/{}", instance["id"].as_str().unwrap());
    let targets = || api.get(&path).expect(200)["target_state"].clone();
    let timeline = || api.get(&format!("{path}/timeline")).expect(200)["stages"].clone();
    let (before, stages) = (targets(), timeline());
    let login = json!({"events": [{
        "at": "2026-01-01T00:00:00Z",
        "from": {
            "process": "target", "instance": instance["id"],
            "said": {"event": "login", "initiator": "iqn.2026-11.io.bmi:x", "peer": "10.79.0.9:1000", "boot": null},
        },
    }]});
    // By name or by id, another network is what does not exist.
    let id = network["id"].as_str().unwrap();
    for name in ["blue", id, "absent"] {
        let answers = [
            red.desired(name, 0, 0),
            red.post(&format!("/agent/v1/networks/{name}/status"), &report(&instance, "listening")),
            red.post(&format!("/agent/v1/networks/{name}/events"), &json!({"events": []})),
        ];
        let mut bodies = Vec::new();
        for answer in answers {
            let answer = answer.unwrap();
            assert_eq!(answer.code(404), "not-found");
            bodies.push(answer.body);
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    }
    // Of an instance of another network, what is said by the own name counts for nothing.
    let _ = red.post("/agent/v1/networks/red/status", &report(&instance, "listening")).unwrap().expect(204);
    let _ = red.post("/agent/v1/networks/red/events", &login).unwrap().expect(204);
    assert_eq!((targets(), timeline()), (before, stages.clone()));
    let _ = blue.post("/agent/v1/networks/blue/events", &login).unwrap().expect(204);
    assert_ne!(timeline(), stages, "from the right one it counts");
    assert_eq!(api.get("/v1/networks/blue").expect(200)["agent"], network["agent"]);
    let _ = blue.desired("blue", 0, 0).unwrap().expect(200);
}

#[test]
fn s1_nobody_without_a_certificate_of_ours_gets_anything() {
    let (deployment, _) = deployment();
    let (address, authorities) = (deployment.agents_address(), deployment.api.authority_certificates());
    let (member, identity, _) = deployment.member("blue");
    let nobody = Member::nobody(address, &authorities);
    for answer in [
        nobody.desired("blue", 0, 0),
        nobody.status("blue"),
        nobody.post("/agent/v1/networks/blue/events", &json!({"events": []})),
        nobody.post("/agent/v1/renew", &json!({"request": AgentKey::default().request()})),
    ] {
        assert_eq!(answer.unwrap().code(403), "agent-refused");
    }
    assert_eq!(nobody.get("/v1/networks").unwrap().status, 404, "the API is elsewhere");

    // The right name, signed by itself or by an authority that only claims to be ours.
    let name = format!(
        "spiffe://{TRUST_DOMAIN}/network/{}/agent/{}",
        identity["network"].as_str().unwrap(),
        identity["agent"].as_str().unwrap()
    );
    let mut wanted = CertificateParams::default();
    wanted.subject_alt_names = vec![SanType::URI(name.as_str().try_into().unwrap())];
    let key = AgentKey::default();
    let by_itself = wanted.self_signed(key.pair()).unwrap().pem();
    let ours = Issuer::from_ca_cert_pem(&authorities[0], KeyPair::generate().unwrap()).unwrap();
    let by_another_key = wanted.signed_by(key.pair(), &ours).unwrap().pem();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let another = Issuer::new(authority, KeyPair::generate().unwrap());
    let by_another = wanted.signed_by(key.pair(), &another).unwrap().pem();
    for certificate in [by_itself, by_another_key, by_another] {
        let forger = Member::of(address, &authorities, &certificate, &key);
        let said = forger.desired("blue", 0, 0);
        assert!(said.is_err(), "the connection must not come about: {said:?}");
    }
    let _ = member.desired("blue", 0, 0).unwrap().expect(200);
}

#[test]
fn an_agent_knows_another_control_plane_by_its_authority() {
    let (deployment, _) = deployment();
    let stranger = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let said = Member::nobody(deployment.agents_address(), &[stranger]).get("/agent/v1/authorities");
    assert!(said.unwrap_err().contains("UnknownIssuer"));
}

#[test]
fn an_agent_of_a_network_that_was_deleted_is_nobodys() {
    let (deployment, _) = deployment();
    let (member, _, _) = deployment.member("red");
    deployment.api.delete("/v1/networks/red").expect(204);
    deployment.api.network("red", "10.78.0.0/24");
    assert_eq!(member.desired("red", 0, 0).unwrap().code(403), "agent-refused");
}

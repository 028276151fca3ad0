//! S6: join tokens, changed keys, and revocation.

use std::time::Duration;

use bmi_auth::authority::{der_of, identity_of_certificate};
use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, TRUST_DOMAIN, until};
use rcgen::{CertificateParams, SanType};
use serde_json::{Value, json};

/// A certificate lasts for longer than any test.
const LONG: u64 = 86_400;

/// A deployment with two networks that agents join.
pub fn deployment() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", LONG);
    deployment.api.network("red", "10.78.0.0/24");
    deployment.api.network("blue", "10.79.0.0/24");
    deployment
}

/// Who has not joined.
pub fn nobody(deployment: &Deployment) -> Member {
    Member::nobody(deployment.agents_address(), &deployment.api.authority_certificates())
}

#[test]
fn s6_a_token_lets_one_agent_in_once() {
    let deployment = deployment();
    let token = deployment.api.join_token("red");
    let (address, authorities) = (deployment.agents_address(), deployment.api.authority_certificates());
    let gate = std::sync::Barrier::new(100);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let (somebody, key) = (Member::nobody(address, &authorities), AgentKey::default());
                    gate.wait();
                    somebody.enrol(&token, "red", None, &key.request()).unwrap()
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 99));
    for answer in &lost {
        assert_eq!(answer.code(403), "join-token-refused");
        assert!(answer.body["detail"].as_str().unwrap().contains("used already"), "{}", answer.body);
    }
    let agents = deployment.api.list("/v1/agents");
    assert_eq!(agents.len(), 1);
    assert_eq!((&agents[0]["id"], &agents[0]["state"]), (&won[0].body["agent"], &json!("active")));
}

#[test]
fn s6_a_token_that_has_expired_was_revoked_or_is_made_up_is_refused() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let refused = |token: &str, why: &str| {
        let answer = nobody.enrol(token, "red", None, &key.request()).unwrap();
        assert_eq!(answer.code(403), "join-token-refused");
        assert!(answer.body["detail"].as_str().unwrap().contains(why), "{why}: {}", answer.body);
    };
    let made = deployment.api.post("/v1/join-tokens", &json!({"network": "red", "ttl_s": 1})).expect(201);
    std::thread::sleep(Duration::from_millis(1100));
    refused(made["token"].as_str().unwrap(), "has expired");
    let made = deployment.api.post("/v1/join-tokens", &json!({"network": "red"})).expect(201);
    let id = made["join_token"]["id"].as_str().unwrap();
    deployment.api.delete(&format!("/v1/join-tokens/{id}")).expect(204);
    let token = made["token"].as_str().unwrap();
    refused(token, "no such token");
    refused(&token.replace("bmi-join-", "bmi-join-0"), "no join token");
    refused(&deployment.token(), "no join token");
    for ttl in [0, 3601, -1] {
        let body = json!({"network": "red", "ttl_s": ttl});
        assert_eq!(deployment.api.post("/v1/join-tokens", &body).status, 422, "{ttl}");
    }
    let absent = deployment.api.post("/v1/join-tokens", &json!({"network": "absent"}));
    assert_eq!(absent.faults(), ["network"]);
    assert!(deployment.api.list("/v1/agents").is_empty());
}

#[test]
fn s6_a_token_of_another_network_is_refused_and_still_good_for_its_own() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let token = deployment.api.join_token("blue");
    for network in ["red", "absent"] {
        let answer = nobody.enrol(&token, network, None, &key.request()).unwrap();
        assert_eq!(answer.code(403), "join-token-refused");
        assert!(!answer.body.to_string().contains("blue"), "it does not say whose: {}", answer.body);
    }
    assert!(deployment.api.list("/v1/agents").is_empty());
    let _ = nobody.enrol(&token, "blue", None, &key.request()).unwrap().expect(200);
}

#[test]
fn an_answer_that_was_lost_is_given_again_for_the_same_key_and_no_other() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let token = deployment.api.join_token("red");
    let first = nobody.enrol(&token, "red", None, &key.request()).unwrap().expect(200);
    let again = nobody.enrol(&token, "red", None, &key.request()).unwrap().expect(200);
    assert_eq!(first["certificate"], again["certificate"]);
    assert_eq!(first["agent"], again["agent"]);
    let other = nobody.enrol(&token, "red", None, &AgentKey::default().request()).unwrap();
    assert_eq!(other.code(403), "join-token-refused");
    assert_eq!(deployment.api.list("/v1/agents").len(), 1);
}

#[test]
fn a_request_is_given_nothing_that_it_asks_for() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let mut asked = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let nil = "00000000-0000-7000-8000-000000000000";
    let wish = format!("spiffe://{TRUST_DOMAIN}/network/{nil}/agent/{nil}");
    asked.subject_alt_names.push(SanType::URI(wish.as_str().try_into().unwrap()));
    let token = deployment.api.join_token("red");
    let identity = nobody.enrol(&token, "red", None, &key.request_for(&asked)).unwrap().expect(200);
    let given = identity_of_certificate(&der_of(identity["certificate"].as_str().unwrap()).unwrap()).unwrap();
    let network = deployment.api.get("/v1/networks/red").expect(200)["id"].clone();
    assert_eq!(json!(given.network.to_string()), network);
    assert_eq!(json!(given.agent.to_string()), identity["agent"]);
    assert_eq!(given.trust_domain, TRUST_DOMAIN);
}

#[test]
fn what_is_no_request_is_refused_and_burns_no_token() {
    let deployment = deployment();
    let (nobody, key) = (nobody(&deployment), AgentKey::default());
    let token = deployment.api.join_token("red");
    let good = key.request();
    let pem = key.pem();
    for request in ["", "x", &good[..good.len() / 2], &good.replace('M', "N"), &pem] {
        let answer = nobody.enrol(&token, "red", None, request).unwrap();
        assert_eq!(answer.code(422), "invalid", "{request}");
        assert!(!answer.body.to_string().contains("PRIVATE"), "{}", answer.body);
    }
    for (body, status) in [(&b"{"[..], 400), (b"[]", 422), (b"{\"token\": 1}", 422), (&[b' '; 20_000], 413)] {
        assert_eq!(nobody.post_bytes("/agent/v1/enrol", body).unwrap().status, status);
    }
    let _ = nobody.enrol(&token, "red", None, &good).unwrap().expect(200);
}

#[test]
fn s6_another_key_for_an_id_that_exists_waits_for_approval() {
    let deployment = deployment();
    let api = &deployment.api;
    let (old, identity, _) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap().to_owned();
    let (nobody, key, token) = (nobody(&deployment), AgentKey::default(), api.join_token("red"));
    let ask = || nobody.enrol(&token, "red", Some(&id), &key.request()).unwrap();
    assert_eq!(ask().expect(202)["agent"], json!(id));
    assert_eq!(ask().expect(202)["agent"], json!(id), "again, as often as one likes");
    let shown = api.get(&format!("/v1/agents/{id}")).expect(200);
    assert_eq!((&shown["state"], &shown["serving"]), (&json!("pending"), &json!(true)));
    // Whoever has the key that counts notices nothing.
    let _ = old.desired("red", 0, 0).unwrap().expect(200);
    let _ = old.status("red").unwrap().expect(204);

    let rejected = api.post(&format!("/v1/agents/{id}/reject"), &json!({})).expect(200);
    assert_eq!((&rejected["state"], &rejected["pending_key_sha256"]), (&json!("active"), &json!(null)));
    assert_eq!(ask().code(403), "join-token-refused");
    let _ = old.desired("red", 0, 0).unwrap().expect(200);

    let token = api.join_token("red");
    let ask = || nobody.enrol(&token, "red", Some(&id), &key.request()).unwrap();
    let _ = ask().expect(202);
    // Somebody else with a token does not take its place, and nobody approves what was not named.
    let (other, another) = (AgentKey::default(), api.join_token("red"));
    let instead = || nobody.enrol(&another, "red", Some(&id), &other.request()).unwrap();
    assert_eq!(instead().code(403), "join-token-refused");
    let waits = || api.get(&format!("/v1/agents/{id}")).expect(200)["pending_key_sha256"].clone();
    let seen = waits();
    let approve = |key: &Value| api.post(&format!("/v1/agents/{id}/approve"), &json!({"key_sha256": key}));
    api.post(&format!("/v1/agents/{id}/reject"), &json!({})).expect(200);
    let _ = instead().expect(202);
    assert_ne!(waits(), seen);
    assert_eq!(approve(&seen).code(), "wrong-state");
    assert_eq!(api.post(&format!("/v1/agents/{id}/approve"), &json!({})).code(), "invalid");
    assert_eq!(old.status("red").unwrap().status, 204, "nothing has changed");
    api.post(&format!("/v1/agents/{id}/reject"), &json!({})).expect(200);

    let token = api.join_token("red");
    let ask = || nobody.enrol(&token, "red", Some(&id), &key.request()).unwrap();
    let _ = ask().expect(202);
    assert_eq!(waits(), seen, "the same key");
    let approved = approve(&seen).expect(200);
    assert_eq!(approved["state"], "active");
    assert_eq!(old.desired("red", 0, 0).unwrap().code(403), "agent-refused");
    let identity = ask().expect(200);
    assert_eq!(identity["agent"], json!(id));
    assert_eq!(ask().expect(200)["certificate"], identity["certificate"], "an answer that was lost");
    let new = Member::identified(deployment.agents_address(), &identity, &key);
    let _ = new.desired("red", 0, 0).unwrap().expect(200);
    assert_eq!(approve(&seen).code(), "wrong-state");
}

#[test]
fn who_joins_again_with_its_key_keeps_its_id_and_needs_no_approval() {
    let deployment = deployment();
    let (_, identity, key) = deployment.member("red");
    let (nobody, token) = (nobody(&deployment), deployment.api.join_token("red"));
    let again = nobody.enrol(&token, "red", identity["agent"].as_str(), &key.request()).unwrap().expect(200);
    assert_eq!(again["agent"], identity["agent"]);
    assert_eq!(deployment.api.list("/v1/agents").len(), 1);
    // An id of another network is as good as none.
    let token = deployment.api.join_token("blue");
    let other = nobody.enrol(&token, "blue", identity["agent"].as_str(), &key.request()).unwrap().expect(200);
    assert_ne!(other["agent"], identity["agent"]);
}

#[test]
fn s6_a_revoked_agent_is_refused_on_its_next_request_and_while_it_waits() {
    let deployment = deployment();
    let api = &deployment.api;
    let (member, identity, key) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap();
    let generation = member.desired("red", 0, 0).unwrap().expect(200)["generation"].as_u64().unwrap();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| member.desired("red", generation, 50).unwrap());
        // Any moment after the wait began will do.
        std::thread::sleep(Duration::from_millis(300));
        api.post(&format!("/v1/agents/{id}/revoke"), &json!({})).expect(200);
        waiting.join().unwrap()
    });
    assert_eq!(waiting.code(403), "agent-refused");
    assert!(waiting.body["detail"].as_str().unwrap().contains("revoked"));
    assert_eq!(member.desired("red", 0, 0).unwrap().code(403), "agent-refused");
    assert_eq!(member.status("red").unwrap().code(403), "agent-refused");
    let renew = json!({"request": AgentKey::default().request()});
    assert_eq!(member.post("/agent/v1/renew", &renew).unwrap().code(403), "agent-refused");
    // Nor does another token help it: that id is over.
    let nobody = nobody(&deployment);
    for key in [&key, &AgentKey::default()] {
        let token = api.join_token("red");
        let answer = nobody.enrol(&token, "red", Some(id), &key.request()).unwrap();
        assert_eq!(answer.code(403), "join-token-refused");
    }
}

#[test]
fn the_second_agent_of_a_network_stands_by_and_takes_over_when_it_is_told_to() {
    let deployment = deployment();
    let api = &deployment.api;
    let (first, old, _) = deployment.member("red");
    let (second, next, _) = deployment.member("red");
    let (old, next) = (old["agent"].as_str().unwrap(), next["agent"].as_str().unwrap());
    let state = |id: &str| api.get(&format!("/v1/agents/{id}")).expect(200)["state"].clone();
    assert_eq!((state(old), state(next)), (json!("active"), json!("standby")));
    let told = second.desired("red", 0, 0).unwrap();
    assert_eq!((told.status, &*told.standing), (304, "standby"), "it is told nothing");
    assert_eq!(second.status("red").unwrap().standing, "standby");
    assert_eq!(first.status("red").unwrap().standing, "active");
    let events = json!({"events": []});
    assert_eq!(second.post("/agent/v1/networks/red/events", &events).unwrap().code(409), "wrong-state");
    let before = first.desired("red", 0, 0).unwrap().expect(200)["generation"].as_u64().unwrap();

    let replaced = api.post(&format!("/v1/agents/{old}/replace"), &json!({})).expect(200);
    assert_eq!((&replaced["id"], &replaced["state"]), (&json!(next), &json!("active")));
    assert_eq!(first.desired("red", 0, 0).unwrap().code(403), "agent-replaced");
    let taken = until("the new agent is told", Duration::from_secs(10), || {
        let answer = second.desired("red", 0, 0).unwrap();
        (answer.status == 200).then_some(answer)
    });
    // With the first answer that says what to do: what it was a moment ago would have it take everything down.
    assert_eq!(taken.standing, "active");
    let generation = taken.body["generation"].as_u64().unwrap();
    assert!(generation > before, "it takes everything over");
    let unchanged = second.desired("red", generation, 0).unwrap();
    assert_eq!((unchanged.status, &*unchanged.standing), (304, "active"));
    assert_eq!(state(old), json!("revoked"));
    let again = api.post(&format!("/v1/agents/{old}/replace"), &json!({})).expect(200);
    assert_eq!((&again["id"], &again["state"]), (&json!(next), &json!("active")), "it was done");
}

#[test]
fn s8_a_token_and_the_keys_of_an_authority_are_nowhere_in_clear() {
    let deployment = deployment();
    let token = deployment.api.join_token("red");
    let secret = token.split('.').next().unwrap();
    let key = AgentKey::default();
    let _ = nobody(&deployment).enrol(&token, "red", None, &key.request()).unwrap().expect(200);
    let dump = String::from_utf8_lossy(&deployment.database_bytes()).into_owned();
    assert!(dump.contains("join_tokens") && dump.contains("BEGIN CERTIFICATE"));
    assert!(!dump.contains(secret) && !dump.contains("PRIVATE KEY"));
    let log = deployment.control_plane_log();
    assert!(!log.contains(secret) && !log.contains("PRIVATE KEY"));
}

//! Two authorities at once, and one that is retired.

use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, until};
use serde_json::json;

fn deployment() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", 86_400);
    deployment.api.network("red", "10.78.0.0/24");
    deployment
}

#[test]
fn both_sides_trust_two_authorities_until_the_old_one_is_retired() {
    let mut deployment = deployment();
    let (member, identity, key) = deployment.member("red");
    let before = member.status("red").unwrap().authorities_mark;
    assert_eq!(json!(before), identity["authorities_mark"]);
    let api = deployment.api.clone();
    let first = api.authorities()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.delete(&format!("/v1/authorities/{first}")).code(), "wrong-state", "it issues");

    let wrong = json!({"after": "00000000-0000-7000-8000-000000000000"});
    assert_eq!(api.post("/v1/authorities", &wrong).code(), "wrong-state");
    let made = api.post("/v1/authorities", &json!({"after": first})).expect(201);
    assert_eq!(made["issuing"], true);
    assert_eq!(api.post("/v1/authorities", &json!({"after": first})).code(), "wrong-state", "twice is once");

    // The agent goes on as it is, and sees that there is something to learn.
    let mark = || member.status("red").unwrap().authorities_mark;
    until("it is told of another authority", Duration::from_secs(30), || (mark() != before).then_some(()));
    assert_eq!(api.delete(&format!("/v1/authorities/{first}")).code(), "in-use");
    // A token that is made now works with what the listener shows now.
    let token = api.join_token("red");
    assert!(token.ends_with(api.authorities()[0]["spki_sha256"].as_str().unwrap()));

    let next = AgentKey::default();
    let renewed = member.post("/agent/v1/renew", &json!({"request": next.request()})).unwrap().expect(200);
    assert_eq!(renewed["authorities"].as_array().unwrap().len(), 2);
    // Whoever has renewed and not been heard since may not know it: the answer may be lost.
    assert_eq!(api.delete(&format!("/v1/authorities/{first}")).code(), "in-use");
    let second = Member::identified(deployment.agents_address(), &renewed, &next);
    let _ = second.status("red").unwrap().expect(204);
    api.delete(&format!("/v1/authorities/{first}")).expect(204);
    assert_eq!(api.authorities().len(), 1);

    // The listener shows a certificate of the new one, which whoever renewed trusts.
    until("the old authority is trusted no more", Duration::from_secs(20), || {
        let stale = Member::identified(deployment.agents_address(), &identity, &key);
        stale.status("red").is_err().then_some(())
    });
    let fresh = Member::identified(deployment.agents_address(), &renewed, &next);
    let _ = fresh.status("red").unwrap().expect(204);
    // All of it is in the database.
    deployment.control_plane_stop();
    deployment.control_plane_start();
    let fresh = Member::identified(deployment.agents_address(), &renewed, &next);
    let _ = fresh.status("red").unwrap().expect(204);
}

#[test]
fn a_new_master_key_opens_the_authority_and_every_agent_stays() {
    let mut deployment = deployment();
    let (_, identity, key) = deployment.member("red");
    deployment.control_plane_stop();
    let done = deployment.control_plane_command(&["rekey"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    deployment.control_plane_start();
    let member = Member::identified(deployment.agents_address(), &identity, &key);
    let next = AgentKey::default();
    let _ = member.post("/agent/v1/renew", &json!({"request": next.request()})).unwrap().expect(200);
}

#[test]
fn without_a_listener_nobody_can_join_and_that_is_said() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.network("red", "10.78.0.0/24");
    assert!(api.authorities().is_empty());
    for (path, body) in [("/v1/join-tokens", json!({"network": "red"})), ("/v1/authorities", json!({}))] {
        let answer = api.post(path, &body);
        assert_eq!(answer.code(), "wrong-state");
        assert!(answer.json()["detail"].as_str().unwrap().contains("[agents]"));
    }
}

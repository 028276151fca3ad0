//! Agents and two replicas: one authority, one use of a token, and a revocation that counts at both.

use bmi_tests::{AgentKey, Deployment, Member, Postgres, STORE_SMALL, TRUST_DOMAIN};
use serde_json::json;

#[test]
fn s6_what_one_replica_knows_of_an_agent_counts_at_the_other() {
    let mut first = Deployment::start_on(STORE_SMALL, Some(Postgres::shared().database()));
    first.api.network("red", "10.78.0.0/24");
    // Nobody has made the authority yet: both make it at once.
    first.control_plane_stop();
    let text = std::fs::read_to_string(first.config()).unwrap();
    let agents = format!(
        "[agents]\nlisten = \"127.0.0.1:0\"\ntrust_domain = \"{TRUST_DOMAIN}\"\nnames = [\"127.0.0.1\"]\n"
    );
    std::fs::write(first.config(), format!("{text}{agents}")).unwrap();
    let mut second = first.replica("second");
    second.begin();
    first.control_plane_start();
    second.listening();
    let authorities = first.api.authority_certificates();
    assert_eq!(authorities.len(), 1);
    assert_eq!(second.api.authority_certificates(), authorities);

    // A token of one, used at both at once.
    let token = first.api.join_token("red");
    let addresses = [first.agents_address(), second.agents_address()];
    let gate = std::sync::Barrier::new(40);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..40)
            .map(|number| {
                let (authorities, token, gate) = (&authorities, &token, &gate);
                scope.spawn(move || {
                    let (somebody, key) =
                        (Member::nobody(addresses[number % 2], authorities), AgentKey::default());
                    gate.wait();
                    let answer = somebody.enrol(token, "red", None, &key.request()).unwrap();
                    (answer, key)
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
    });
    let mut won: Vec<_> = answers.into_iter().filter(|(answer, _)| answer.status == 200).collect();
    assert_eq!(won.len(), 1);
    let (answer, key) = won.pop().unwrap();
    let identity = answer.expect(200);
    let both = addresses.map(|address| Member::identified(address, &identity, &key));
    for member in &both {
        let _ = member.desired("red", 0, 0).unwrap().expect(200);
    }
    // Renewed at one, the new key counts at the other.
    let next = AgentKey::default();
    let renewed = both[0].post("/agent/v1/renew", &json!({"request": next.request()})).unwrap().expect(200);
    let renewed = addresses.map(|address| Member::identified(address, &renewed, &next));
    let _ = renewed[1].status("red").unwrap().expect(204);
    let id = identity["agent"].as_str().unwrap();
    first.api.post(&format!("/v1/agents/{id}/revoke"), &json!({})).expect(200);
    for member in &renewed {
        assert_eq!(member.desired("red", 0, 0).unwrap().code(403), "agent-refused");
    }
    // An authority that is made at one is trusted and shown by both.
    second.api.post("/v1/authorities", &json!({})).expect(201);
    assert_eq!(first.api.authorities(), second.api.authorities());
}

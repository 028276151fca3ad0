//! Certificates that end, and those that follow them.

use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Member, STORE_SMALL, until};
use serde_json::json;

/// As long as a certificate lasts here, in seconds: long enough for a few requests on a loaded machine.
const SHORT: u64 = 8;

fn deployment(certificate_s: u64) -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", certificate_s);
    deployment.api.network("red", "10.78.0.0/24");
    deployment
}

fn renew(member: &Member, key: &AgentKey) -> bmi_tests::Told {
    member.post("/agent/v1/renew", &json!({"request": key.request()})).unwrap()
}

#[test]
fn a_certificate_is_renewed_for_a_new_key_and_the_old_one_counts_until_that_is_used() {
    // A tenth of that is how long the old key counts beside the new one that was used.
    let deployment = deployment(20);
    let (first, identity, own) = deployment.member("red");
    assert_eq!(identity["renew_after_s"], json!(identity["lasts_s"].as_u64().unwrap() * 2 / 3));
    assert_eq!(renew(&first, &own).code(422), "invalid", "the same key is no new one");

    // An answer that was lost: the agent asks again, with another key, by the certificate that it has.
    let lost = AgentKey::default();
    let lost = (renew(&first, &lost).expect(200), lost);
    let key = AgentKey::default();
    let renewed = renew(&first, &key).expect(200);
    assert_eq!((&renewed["agent"], &renewed["network"]), (&identity["agent"], &identity["network"]));
    let _ = first.status("red").unwrap().expect(204);
    let ghost = Member::identified(deployment.agents_address(), &lost.0, &lost.1);
    assert_eq!(ghost.status("red").unwrap().code(403), "agent-refused", "nobody knows that key any more");

    let second = Member::identified(deployment.agents_address(), &renewed, &key);
    let _ = second.status("red").unwrap().expect(204);
    let refused = until("the old key is let go", Duration::from_secs(30), || {
        let answer = first.status("red").unwrap();
        (answer.status != 204).then_some(answer)
    });
    assert_eq!(refused.code(403), "agent-refused");
    assert!(refused.body["detail"].as_str().unwrap().contains("key"), "{}", refused.body);
    let _ = second.status("red").unwrap().expect(204);
}

#[test]
fn a_connection_does_not_outlive_its_certificate() {
    let deployment = deployment(SHORT);
    let (member, identity, key) = deployment.member("red");
    let _ = member.status("red").unwrap().expect(204);
    // Asked all the time, the connection stays open.
    let refused =
        until("the certificate has ended", Duration::from_secs(60), || match member.status("red") {
            Ok(answer) if answer.status == 204 => None,
            said => Some(said),
        });
    assert_eq!(refused.unwrap().code(403), "agent-refused");
    // TLS counts in whole seconds.
    until("a new connection does not come about", Duration::from_secs(30), || {
        let again = Member::identified(deployment.agents_address(), &identity, &key);
        again.status("red").err().filter(|error| error.contains("CertificateExpired"))
    });
    // With another token, its key and its id, it is back without approval.
    let nobody = Member::nobody(deployment.agents_address(), &deployment.api.authority_certificates());
    let token = deployment.api.join_token("red");
    let back = nobody.enrol(&token, "red", identity["agent"].as_str(), &key.request()).unwrap().expect(200);
    assert_eq!(back["agent"], identity["agent"]);
}

#[test]
fn the_listener_renews_its_own_certificate() {
    let deployment = deployment(9);
    let authorities = deployment.api.authority_certificates();
    let served = || {
        let somebody = Member::nobody(deployment.agents_address(), &authorities);
        let _ = somebody.get("/agent/v1/authorities").unwrap().expect(200);
    };
    served();
    // Longer than the first one lasts.
    std::thread::sleep(Duration::from_secs(12));
    served();
}

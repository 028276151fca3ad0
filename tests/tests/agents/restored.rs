//! A database that was restored from a backup, and agents that have gone on since.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bmi_tests::{AgentKey, Deployment, Management, Member, Postgres, STORE_SMALL, run, until};
use serde_json::{Value, json};

use crate::joining::nobody;

/// Longer than any test.
const LONG: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the guide says: a backup while the server runs.
fn back_up(deployment: &Deployment) {
    let backup = deployment.data.join("backup");
    let config = deployment.config();
    let words = ["--config", config.to_str().unwrap(), "backup", "--to", backup.to_str().unwrap()];
    run(deployment.program("bmi-control-plane"), &words);
}

/// Loses the database and every key, and restores the backup; the server is where it was.
fn restore(deployment: &mut Deployment) {
    deployment.control_plane_stop();
    let data = deployment.data.join("control-plane");
    for name in ["bmi.sqlite", "bmi.sqlite-wal", "bmi.sqlite-shm", "master.key", "audit.key", "admin.token"] {
        fs::remove_file(data.join(name)).ok();
    }
    deployment.database.iter().for_each(|url| Postgres::empty(url));
    let (backup, config) = (deployment.data.join("backup"), deployment.config());
    let words = ["--config", config.to_str().unwrap(), "restore", "--from", backup.to_str().unwrap()];
    run(deployment.program("bmi-control-plane"), &words);
    deployment.control_plane_start();
}

/// The process that serves an instance's volume.
fn target(deployment: &Deployment, instance: &str) -> u32 {
    let shown = deployment.api.get(&format!("/v1/projects/lab/instances/{instance}")).expect(200);
    let iqn = shown["target"].as_str().unwrap();
    let mut found = bmi_tests::processes().into_iter().filter(|it| it.command.contains(iqn));
    found.next().unwrap().pid
}

fn events(deployment: &Deployment, network: &str, event: &str) -> Vec<Value> {
    let timeline = deployment.api.get(&format!("/v1/networks/{network}/timeline")).expect(200);
    timeline["events"].as_array().unwrap().iter().filter(|it| it["event"] == event).cloned().collect()
}

#[test]
fn a_key_that_is_newer_than_the_restored_database_waits_for_approval() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", LONG);
    deployment.api.network("red", "10.78.0.0/24");
    deployment.api.network("blue", "10.79.0.0/24");
    let (old, identity, first_key) = deployment.member("red");
    let id = identity["agent"].as_str().unwrap();
    back_up(&deployment);
    // Since then: it has renewed, and another agent has joined. The first certificate's end is by the second.
    std::thread::sleep(Duration::from_millis(1100));
    let key = AgentKey::default();
    let renewed = old.post("/agent/v1/renew", &json!({"request": key.request()})).unwrap().expect(200);
    let (_, late, late_key) = deployment.member("blue");
    restore(&mut deployment);

    let here = deployment.agents_address();
    let agent = Member::identified(here, &renewed, &key);
    let refused = agent.status("red").unwrap();
    assert_eq!(refused.code(403), "agent-refused");
    assert!(refused.body["detail"].as_str().unwrap().contains("bmi agent approve"), "{}", refused.body);
    assert_eq!(agent.desired("red", 0, 0).unwrap().code(403), "agent-refused", "and hears nothing");
    let shown = || deployment.api.get(&format!("/v1/agents/{id}")).expect(200);
    assert_eq!(shown()["state"], "pending");
    assert_eq!(events(&deployment, "red", "agent.key-pending").len(), 1);
    // It asks again and again, and that is told once.
    let _ = agent.status("red").unwrap();
    assert_eq!(events(&deployment, "red", "agent.key-pending").len(), 1);
    let named = format!("bmi agent approve {id} --key {}", shown()["pending_key_sha256"].as_str().unwrap());
    assert!(agent.status("red").unwrap().body["detail"].as_str().unwrap().contains(&named), "{named}");
    let _ = deployment.api.key_approve(id);
    let _ = agent.status("red").unwrap().expect(204);
    let _ = agent.desired("red", 0, 0).unwrap().expect(200);
    assert_eq!(shown()["state"], "active");

    // The key that the backup knew counts no more.
    assert_eq!(
        Member::identified(here, &identity, &first_key).status("red").unwrap().code(403),
        "agent-refused"
    );
    // Who joined since is unknown, and joins again.
    let stranger = Member::identified(here, &late, &late_key);
    assert_eq!(stranger.status("blue").unwrap().code(403), "agent-refused");
    assert!(
        deployment.api.get("/v1/agents?network=blue").expect(200)["items"].as_array().unwrap().is_empty()
    );
    let _ = deployment.member("blue").0.status("blue").unwrap().expect(204);
}

#[test]
fn an_old_key_is_not_put_forward_for_approval_by_asking() {
    let mut deployment = Deployment::start(STORE_SMALL);
    // A tenth of that is how long the old key counts beside the new one that was used.
    deployment.agents_configure("127.0.0.1", 20);
    deployment.api.network("red", "10.78.0.0/24");
    let (old, identity, _) = deployment.member("red");
    std::thread::sleep(Duration::from_millis(1100));
    let key = AgentKey::default();
    let renewed = old.post("/agent/v1/renew", &json!({"request": key.request()})).unwrap().expect(200);
    let _ =
        Member::identified(deployment.agents_address(), &renewed, &key).status("red").unwrap().expect(204);
    until("the old key is let go", PATIENCE, || (old.status("red").unwrap().status == 403).then_some(()));
    let shown =
        deployment.api.get(&format!("/v1/agents/{}", identity["agent"].as_str().unwrap())).expect(200);
    assert_eq!(shown["state"], "active");
    assert!(events(&deployment, "red", "agent.key-pending").is_empty());
}

#[test]
fn an_agent_of_another_host_is_caught_up_with_after_a_restore_and_its_node_goes_on() {
    let _management = Management::enter();
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    let address = deployment.agents_cable();
    deployment.agents_configure(&address, LONG);
    deployment.agents_stay();
    deployment.api.project("lab");
    deployment.api.network("provisioning", "10.77.0.0/24");
    fs::write(deployment.agent_elsewhere(), deployment.api.join_token("provisioning")).unwrap();
    deployment.agent_start_on("provisioning");
    deployment.api.image("lab", "golden");
    for (node, mac) in [("node-1", "52:54:00:0d:00:01"), ("node-2", "52:54:00:0d:00:02")] {
        deployment.api.node_of(node, mac, "lab");
    }
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    let pid = target(&deployment, "node-1");
    back_up(&deployment);
    deployment.api.instance("lab", "node-2", "golden", &json!({}));
    restore(&mut deployment);

    // What the backup does not know goes, what it knows is served as before, by the same process, and new work is done.
    until("the agent is caught up with", PATIENCE, || {
        let network = deployment.api.get("/v1/networks/provisioning").expect(200);
        let (seen, newest) = (&network["agent"]["generation_observed"], &network["agent"]["generation"]);
        (seen == newest && !events(&deployment, "provisioning", "desired.ahead").is_empty()).then_some(())
    });
    assert_eq!(target(&deployment, "node-1"), pid);
    until("it is told that its target listens", PATIENCE, || {
        let now = deployment.api.get("/v1/projects/lab/instances/node-1").expect(200);
        (now["target_state"] == "listening").then_some(())
    });
    deployment.api.instance("lab", "node-2", "golden", &json!({}));
    let agents = deployment.api.list("/v1/agents");
    assert_eq!(agents.len(), 1, "it did not have to join again");

    // Once it is revoked, who joins next does not have the network: there may still be somebody with its nodes' disks open.
    let revoke = format!("/v1/agents/{}/revoke", agents[0]["id"].as_str().unwrap());
    deployment.api.post(&revoke, &json!({})).expect(200);
    let token = deployment.api.join_token("provisioning");
    let next =
        nobody(&deployment).enrol(&token, "provisioning", None, &AgentKey::default().request()).unwrap();
    assert_eq!(next.status, 200);
    let states = || {
        let all = deployment.api.list("/v1/agents");
        all.iter().map(|agent| agent["state"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(states(), BTreeSet::from(["revoked".to_owned(), "standby".to_owned()]));
    let replace = format!("/v1/agents/{}/replace", agents[0]["id"].as_str().unwrap());
    deployment.api.post(&replace, &json!({})).expect(200);
    assert_eq!(states(), BTreeSet::from(["revoked".to_owned(), "active".to_owned()]));
}

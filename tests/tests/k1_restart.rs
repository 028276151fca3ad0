//! A control plane that is killed in the middle of its work, and one that is started twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::process::Command;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, operation_end, until};
use serde_json::json;

/// Well below the 15 s after which a dead worker's lease ends by itself.
const SOON: Duration = Duration::from_secs(8);

/// The provision waits for an agent that is not there when the server is killed. The next server goes on with it at
/// once; when the agent comes, it succeeds, and it can be taken away again.
#[test]
fn k1_a_killed_control_plane_goes_on_where_it_was() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.api.network("provisioning", "10.77.0.0/24");
    deployment.api.node_of("node-1", "52:54:00:a7:00:01", "lab");
    deployment.api.image("lab", "golden");
    let new = json!({"name": "web", "node": "node-1", "image": "golden", "network": "provisioning"});
    let operation = deployment.api.post("/v1/projects/lab/instances", &new).expect(202);
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    let attempts = |deployment: &Deployment| {
        let now = deployment.api.get(&path).expect(200);
        let step = now["steps"].as_array().unwrap().iter().find(|step| step["name"] == "expose-target");
        step.unwrap()["attempts"].as_u64().unwrap()
    };
    until("the target is being exposed", SOON, || (attempts(&deployment) == 1).then_some(()));

    deployment.control_plane_kill();
    deployment.control_plane_start();
    // On PostgreSQL it cannot know that it is alone: it waits for the end of the lease.
    let patience = if deployment.database.is_some() { 4 * SOON } else { SOON };
    until("the next server tries again", patience, || (attempts(&deployment) >= 2).then_some(()));

    deployment.agent_start_on("provisioning");
    let ended = operation_end(&deployment.api, &operation);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let operation = deployment.api.delete("/v1/projects/lab/instances/web").expect(202);
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");
}

#[test]
fn a_data_directory_has_one_control_plane() {
    let deployment = Deployment::start(STORE_SMALL);
    let second = Command::new(deployment.program("bmi-control-plane"))
        .arg("--config")
        .arg(deployment.data.join("control-plane.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another control plane serves"), "{said}");
    deployment.api.get("/v1/whoami").expect(200);
}

//! Isolators in a whole deployment: what provisioning tells HIL, and what it has the agent do with ports of its host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bmi_tests::{
    Deployment, HIL_PASSWORD, HIL_USER, STORE_SMALL, SimulatedHil, operation_end, run, tree, until,
};
use serde_json::{Value, json};

const MAC: &str = "52:54:00:77:00:01";

#[test]
fn hil_is_told_of_what_is_provisioned_and_its_password_is_nowhere() {
    let hil = SimulatedHil::start(&["provisioning"]);
    hil.node("node-1", &[("em1", MAC)]);
    let mut deployment = Deployment::start(STORE_SMALL);
    let password = deployment.data.join("hil.password");
    std::fs::write(&password, format!("{HIL_PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let settings = format!(
        "[isolation]\nkind = \"hil\"\nurl = \"{}\"\nuser = \"{HIL_USER}\"\npassword_file = \"{}\"\n\
         request_timeout_s = 2\noperation_timeout_s = 2\n",
        hil.url(),
        password.display()
    );
    deployment.control_plane_configure(&settings);
    deployment.agent_start();
    let api = &deployment.api;
    api.project("lab");
    api.node_of("node-1", MAC, "lab");
    api.image("lab", "small");
    api.instance("lab", "node-1", "small", &Value::Null);
    let on = vec![("em1".to_owned(), "vlan/native".to_owned(), "provisioning".to_owned())];
    assert_eq!(hil.attachments("node-1"), on);

    // HIL ends; who asks for the node's end is told what is the matter, and the node stays where it is.
    hil.down(true);
    let operation = api.delete("/v1/projects/lab/instances/node-1").expect(202);
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    let stuck = until("the operation is stuck", Duration::from_secs(120), || {
        let now = api.get(&path).expect(200);
        (now["state"] == "stuck").then_some(now)
    });
    assert!(stuck["error"].as_str().unwrap().contains("HIL did not answer"), "{stuck:#}");
    assert_eq!(stuck["code"], "unavailable", "{stuck:#}");
    api.post("/v1/nodes/node-1/release", &json!({})).expect(409);
    assert_eq!(hil.attachments("node-1"), on);
    // It is tried again once a minute.
    hil.down(false);
    assert_eq!(operation_end(api, &operation)["state"], "succeeded");
    assert_eq!(hil.attachments("node-1"), []);
    api.post("/v1/nodes/node-1/release", &json!({})).expect(200);

    let encoded = "Ym1pOmhpbC1wYXNzd29y";
    for path in tree(&deployment.data).into_keys().map(std::path::PathBuf::from) {
        let path = deployment.data.join(path);
        // What is printed goes through pipes, which nobody writes to now.
        if !std::fs::symlink_metadata(&path).is_ok_and(|it| it.is_file()) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(path == password || !holds(HIL_PASSWORD) && !holds(encoded), "{}", path.display());
    }
}

#[test]
fn a_password_that_others_can_read_is_refused() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let password = deployment.data.join("hil.password");
    std::fs::write(&password, HIL_PASSWORD).unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).unwrap();
    deployment.control_plane_stop();
    let settings = format!(
        "[isolation]\nkind = \"hil\"\nurl = \"http://127.0.0.1:1\"\nuser = \"bmi\"\npassword_file = \"{}\"\n",
        password.display()
    );
    let config = deployment.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}{settings}")).unwrap();
    let output = deployment.control_plane_command(&[]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("hil.password has mode 644") && !told.contains(HIL_PASSWORD), "{told}");
    std::fs::write(&config, text).unwrap();
    deployment.control_plane_start();
}

#[test]
fn the_agent_puts_a_provisioned_nodes_port_into_its_bridge_and_back_into_quarantine() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment
        .control_plane_configure("[isolation]\nkind = \"bridge\"\n[isolation.ports]\nnode-1 = [\"card1\"]\n");
    deployment.agent_configure("node_ports = [\"card1\"]\n");
    let namespace = deployment.namespace.clone();
    let ip = |arguments: &[&str]| run("ip", &[&["-n", &namespace][..], arguments].concat());
    ip(&["link", "add", "card1", "type", "veth", "peer", "name", "node1"]);
    ip(&["link", "set", "card1", "up"]);
    let port = || -> (Value, bool) {
        let links: Value = serde_json::from_str(&ip(&["-j", "link", "show", "dev", "card1"])).unwrap();
        (links[0]["master"].clone(), links[0]["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"))
    };
    deployment.agent_start();
    let api = &deployment.api;
    api.project("lab");
    api.node_of("node-1", MAC, "lab");
    api.image("lab", "small");
    until("the port is in quarantine", Duration::from_secs(20), || {
        (port() == (Value::Null, false)).then_some(())
    });
    api.instance("lab", "node-1", "small", &Value::Null);
    assert_eq!(port(), (json!("bmi0"), true));
    api.instance_remove("lab", "node-1");
    assert_eq!(port(), (Value::Null, false));
}

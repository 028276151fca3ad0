//! S8: the values of all secrets are known to the test, and looked for wherever somebody could read them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::path::Path;

use bmi_tests::{Deployment, STORE_SMALL, processes, run, tree};
use serde_json::{Value, json};

const USER_DATA: &str = "#!/bin/sh\n# user-data-secret-5c1e9b\n";
const MARKER: &str = "user-data-secret-5c1e9b";
const SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyWhoseOwnerIsNobodysBusiness00 person@bmi";

struct Running {
    deployment: Deployment,
    /// Each with what it is.
    secrets: Vec<(&'static str, Vec<u8>)>,
}

fn running() -> Running {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = &deployment.api;
    api.image("lab", "small");
    api.node_of("node-1", "52:54:00:5e:00:01", "lab");
    let user_data = json!({"user_data": USER_DATA, "ssh_keys": [SSH_KEY]});
    api.instance("lab", "node-1", "small", &user_data);
    // A request with a key is kept, and one that is refused is told about: neither may hold what came with it.
    let mut again = json!({"name": "node-1", "node": "node-1", "image": "small", "network": "provisioning"});
    again.as_object_mut().unwrap().extend(user_data.as_object().unwrap().clone());
    assert_eq!(api.post_with_key("/v1/projects/lab/instances", "kept", &again).status, 409);
    again["user_data"] = json!({MARKER: 1});
    assert_eq!(api.post("/v1/projects/lab/instances", &again).status, 422);

    let ledger = std::fs::read(deployment.data.join("agent/agent/ledger.json")).unwrap();
    let ledger: Value = serde_json::from_slice(&ledger).unwrap();
    let hex = ledger["desired"]["instances"][0]["boot_key"].as_str().unwrap().to_owned();
    let raw: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let master = std::fs::read(deployment.data.join("control-plane/master.key")).unwrap();
    let secrets = vec![
        ("admin token", deployment.token().into_bytes()),
        ("master key", master.trim_ascii().to_vec()),
        ("boot key", hex.into_bytes()),
        ("boot key, raw", raw),
        ("user data", MARKER.as_bytes().to_vec()),
    ];
    assert!(secrets.iter().all(|(_, value)| value.len() >= 16));
    Running { deployment, secrets }
}

impl Running {
    /// Fails when one of the secrets is in some bytes.
    fn assert_clean(&self, place: &str, bytes: &[u8]) {
        for (what, secret) in &self.secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the {what} is in {place}");
        }
    }
}

#[test]
fn s8_no_secret_in_logs_processes_answers_or_the_database() {
    let running = running();
    let deployment = &running.deployment;
    for name in ["log/control-plane.log", "log/agent.log", "control-plane.out"] {
        running.assert_clean(name, &std::fs::read(deployment.data.join(name)).unwrap());
    }
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let data = deployment.data.to_str().unwrap();
    let mut own = processes();
    own.retain(|one| uids.contains(&one.uid) || one.command.contains(data));
    let commands: Vec<&str> = own.iter().map(|one| one.command.as_str()).collect();
    assert_eq!(
        own.len(),
        5,
        "control plane, two halves of the agent, boot services and a target: {commands:#?}"
    );
    for process in processes() {
        running.assert_clean(&format!("the command line `{}`", process.command), process.command.as_bytes());
    }
    for process in own {
        running.assert_clean(
            &format!("the environment of `{}`", process.command),
            process.environment.as_bytes(),
        );
    }
    let database = deployment.database_bytes();
    assert!(!database.is_empty());
    running.assert_clean("the database", &database);
    let key = SSH_KEY.as_bytes();
    assert!(
        !database.windows(key.len()).any(|window| window == key),
        "SSH keys are sealed with the user data"
    );
    let instance = "/v1/projects/lab/instances/node-1";
    let api = &deployment.api;
    for path in [
        instance,
        "/v1/projects/lab/instances",
        "/v1/operations",
        "/v1/networks/provisioning",
        "/v1/nodes",
        "/v1/whoami",
    ] {
        running.assert_clean(path, &api.get(path).body);
    }
    running.assert_clean("the timeline", &api.get(&format!("{instance}/timeline")).body);
    for operation in api.list("/v1/operations") {
        let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
        running.assert_clean(&path, &api.get(&path).body);
    }
}

#[test]
fn s8_files_with_secrets_are_for_their_owner_only() {
    let running = running();
    let deployment = &running.deployment;
    let modes = tree(&deployment.data);
    let files = modes.keys().filter(|name| name.starts_with("control-plane/bmi.sqlite")).map(String::as_str);
    let named = [
        "control-plane/admin.token",
        "control-plane/master.key",
        "agent/agent/ledger.json",
        "control-plane/store.xfs",
    ];
    for name in files.chain(named) {
        let (mode, owner) = modes[name];
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let wanted = if name.starts_with("agent/") { deployment.uid_base } else { 0 };
        assert_eq!(owner, wanted, "{name}");
    }
    // Whatever holds a secret, wherever it is: nobody can read it but its owner, and the group of the one target whose
    // config volume it is.
    for folder in ["agent", "control-plane", "log"] {
        for (name, (mode, _)) in tree(&deployment.data.join(folder)) {
            let path = deployment.data.join(folder).join(&name);
            if name.ends_with(".xfs") || !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let holds =
                running.secrets.iter().any(|(_, secret)| bytes.windows(secret.len()).any(|at| at == secret));
            assert!(!holds || mode & 0o007 == 0 || !passable(&path), "{folder}/{name} has mode {mode:o}");
        }
    }
    // A stranger of the machine can read none of them.
    let database = deployment.database.is_none().then_some("control-plane/bmi.sqlite");
    for name in ["control-plane/admin.token", "agent/agent/ledger.json"].into_iter().chain(database) {
        let path = deployment.data.join(name);
        let read = "head -c 1 \"$0\" >/dev/null 2>&1 && echo yes || echo no";
        let stranger =
            ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", read, path.to_str().unwrap()];
        assert_eq!(run("setpriv", &stranger).trim(), "no", "{name}");
    }
}

/// Whether others can get through every directory above a file.
fn passable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().skip(1).all(|above| above.metadata().unwrap().permissions().mode() & 1 == 1)
}

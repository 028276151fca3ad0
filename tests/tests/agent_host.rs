//! An agent's host that is cut off from the control plane, and one that is lost: what its nodes notice, and that a standby
//! takes over, with the volumes fenced and the same addresses, while a node writes. And where the secrets are that such a host
//! has (S8): with Docker on the one that was cut off, with Podman on the one that took over.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints how long a takeover took"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bmi_tests::engine::Kind::{Docker, Podman};
use bmi_tests::{
    AgentHost, Ceph, Client, Deployment, Disk, Switch, Writes, operation_end, output, processes, until,
};
use serde_json::{Value, json};

/// How long what is repeated takes at the longest.
const SOON: Duration = Duration::from_secs(120);
/// Blocks that a node writes around a fault, and of these before it.
const BLOCKS: u32 = 600;
const BEFORE: usize = 100;
const MAC: &str = "52:54:00:a9:00:01";

fn agents(deployment: &Deployment) -> Vec<Value> {
    deployment.api.list("/v1/agents")
}

/// What nobody else may learn.
struct Secret {
    what: &'static str,
    text: String,
    /// How the paths of the files end that it is for. The first is there in any case.
    belongs: &'static [&'static str],
}

/// The files below some places in which a text is. `grep` is told of it where nobody sees it.
fn holders(text: &str, places: &[&Path]) -> BTreeSet<String> {
    let mut grep = Command::new("grep")
        .args(["-rlaFs", "-D", "skip", "-f", "-", "--"])
        .args(places)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    grep.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = grep.wait_with_output().unwrap().stdout;
    String::from_utf8(said).unwrap().lines().map(str::to_owned).collect()
}

/// Gives a host a token to join with; gives its secret.
fn token_give(deployment: &Deployment, host: &AgentHost) -> String {
    let token = deployment.api.join_token("provisioning");
    host.token_give(&token);
    let secret = token.split('.').next().unwrap().to_owned();
    let holders = holders(&secret, &[&deployment.data]);
    assert!(holders.len() == 1 && holders.iter().all(|file| file.ends_with("/join.token")), "{holders:?}");
    secret
}

/// Boots a machine once more; gives the secret of that boot, which has been used.
fn boot_secret(client: &Client) -> String {
    let script = until("it boots once more", SOON, || {
        let script = client.script(&client.dhcp().1);
        (script.contains("set password ") && client.login(&script)).then_some(script)
    });
    let line = script.lines().find_map(|line| line.trim().strip_prefix("set password "));
    line.unwrap().trim().to_owned()
}

/// All secrets of a host that serves.
fn secrets(ceph: &Ceph, deployment: &Deployment, host: &AgentHost, token: &str, boot: &str) -> Vec<Secret> {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(host.data.join("agent/agent").join(name)).unwrap()).unwrap()
    };
    let key = read("identity.json")["key"].as_str().unwrap().to_owned();
    // The first line is much the same for every key of its kind.
    let key = key.lines().filter(|line| !line.starts_with("--")).nth(1).unwrap().to_owned();
    let secret = |what: &'static str, text: &str, belongs: &'static [&'static str]| Secret {
        what,
        text: text.to_owned(),
        belongs,
    };
    let mut all = vec![
        secret("join token", token, &["/join.token"]),
        secret("agent's key", &key, &["/agent/agent/identity.json"]),
        secret("secret of a boot", boot, &[]),
    ];
    for instance in read("ledger.json")["desired"]["instances"].as_array().unwrap() {
        let text = instance["boot_key"].as_str().unwrap();
        let belongs: &[&str] = &["/agent/agent/ledger.json", "/netboot.json", "/boot.json"];
        all.push(secret("key of boots", text, belongs));
    }
    let user = deployment.ceph_user.as_ref().unwrap();
    for volume in ceph.users(&format!("{user}-")).values() {
        let belongs: &[&str] = &["/agent/agent/ledger.json", "/broker.json", "/record.json"];
        all.push(secret("key of a volume", &volume.key, belongs));
    }
    let config = std::fs::read_to_string(deployment.config()).unwrap();
    let keyring = config.lines().find_map(|line| line.strip_prefix("keyring = ")).unwrap().trim_matches('"');
    let lines = std::fs::read_to_string(keyring).unwrap();
    let key = lines.lines().find_map(|line| line.trim().strip_prefix("key = ")).unwrap();
    assert_eq!(holders(key, &[Path::new(keyring)]).len(), 1, "the search finds what there is");
    all.push(secret("control plane's key of Ceph", key, &[]));
    assert!(all.iter().all(|one| one.text.len() >= 16) && all.len() >= 6);
    all
}

/// S8: a host's secrets are in the files that are for them, for their owners only; and nowhere else on it, in its engine, or at the
/// control plane.
fn s8_secrets_are_where_they_belong(deployment: &Deployment, host: &AgentHost, secrets: &[Secret]) {
    let socket = host.engine.socket();
    let engine = socket.parent().unwrap();
    assert!(!host.log().is_empty() && !deployment.control_plane_log().is_empty(), "there are logs");
    assert!(!holders("bmi-bmi0-netboot", &[engine]).is_empty(), "the engine keeps what it was asked for");
    for Secret { what, text, belongs } in secrets {
        let holders = holders(text, &[&deployment.data, engine]);
        let is_for = |file: &&String| belongs.iter().any(|end| file.ends_with(end));
        let others: Vec<_> = holders.iter().filter(|file| !is_for(file)).collect();
        assert!(others.is_empty(), "the {what} is in {others:?}");
        if let [first, ..] = belongs {
            assert!(holders.iter().any(|file| file.ends_with(first)), "the {what} is where it belongs");
        }
        for file in &holders {
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o007, 0, "{file} has mode {mode:o}");
        }
    }

    // Each place says something that is known to be there, and no secret.
    let clean = |place: &str, known: &str, text: &str| {
        assert!(text.contains(known), "{place}: {text}");
        for Secret { what, text: secret, .. } in secrets {
            assert!(!text.contains(secret), "the {what} is in {place}");
        }
    };
    for container in host.engine.containers() {
        let shown = host.engine.inspect(container["Id"].as_str().unwrap());
        clean("a container, as the engine shows it", "bmi.process", &shown.to_string());
    }
    let all = processes();
    let join = |part: fn(&bmi_tests::Process) -> &str| all.iter().map(part).collect::<Vec<_>>().join("\n");
    clean("command lines", host.data.to_str().unwrap(), &join(|process| &process.command));
    clean("environments", "PATH=", &join(|process| &process.environment));
    let database = deployment.database_bytes();
    clean("the database", "join_tokens", &String::from_utf8_lossy(&database));
    clean("answers", "node-1", &deployment.api.everything().to_string());
}

#[test]
fn k2_a_lost_host_is_replaced_while_a_node_writes_and_nothing_is_lost() {
    let (_management, ceph, deployment) = Deployment::start_for_agents(MAC);
    let switch = Switch::new("rack");
    let [(first, _), (second, token)] = pair(&deployment, &switch);
    let mut hosts = [first, second];
    hosts[0].listens(&deployment, "provisioning");
    let standing = |state: &str| {
        let all = agents(&deployment);
        let mut found = all.into_iter().filter(|agent| agent["state"] == state);
        found.next().unwrap_or_else(|| panic!("no agent is {state}"))
    };
    let (lost, standby) = (standing("active"), standing("standby"));

    let shown = deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&switch, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();
    let mut writes = Writes::start(&disk, directory.path(), BLOCKS, 1);
    assert_eq!(writes.acknowledged(BEFORE), BEFORE);
    assert_eq!(hosts[1].engine.containers().len(), 0, "who stands by runs nothing");

    hosts[0].power_off(&switch);
    let begun = Instant::now();
    let path = format!("/v1/agents/{}/replace", lost["id"].as_str().unwrap());
    deployment.api.post(&path, &json!({})).expect(200);
    println!("fenced and handed over: {:.1} s", begun.elapsed().as_secs_f64());
    writes.finish(&disk, BEFORE);
    println!("the node has written on: {:.1} s", begun.elapsed().as_secs_f64());

    let now = agents(&deployment);
    let state = |id: &Value| now.iter().find(|agent| agent["id"] == *id).unwrap()["state"].clone();
    assert_eq!((state(&lost["id"]), state(&standby["id"])), (json!("revoked"), json!("active")));
    let after = deployment.api.get("/v1/projects/lab/instances/node-1").expect(200);
    assert_eq!(after["target_address"], shown["target_address"], "the same address");
    // Two containers: the boot services and the target.
    assert_eq!(hosts[1].engine.containers().len(), 2);
    let secrets = secrets(&ceph, &deployment, &hosts[1], &token, &boot_secret(&client));
    s8_secrets_are_where_they_belong(&deployment, &hosts[1], &secrets);
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}

/// Two agents of one network, the first of which has it, and the secrets of the tokens that they joined with.
fn pair(deployment: &Deployment, switch: &Switch) -> [(AgentHost, String); 2] {
    [(11, Docker), (12, Podman)].map(|(number, kind)| {
        let mut host = AgentHost::new(deployment, number, "provisioning", kind);
        host.plug(switch);
        let token = token_give(deployment, &host);
        host.agent_start();
        until("it has joined", SOON, || (agents(deployment).len() == usize::from(number) - 10).then_some(()));
        (host, token)
    })
}

#[test]
fn k2_a_host_that_comes_back_after_it_was_replaced_takes_down_what_it_ran() {
    let (_management, _ceph, deployment) = Deployment::start_for_agents(MAC);
    let switch = Switch::new("rack");
    let hosts = pair(&deployment, &switch).map(|(host, _)| host);
    hosts[0].listens(&deployment, "provisioning");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&switch, "node-1", MAC);
    let first = client.script(&client.dhcp().1);
    assert!(client.login(&first));
    until("the control plane has heard of it", SOON, || {
        let timeline = deployment.api.get("/v1/projects/lab/instances/node-1/timeline").expect(200);
        timeline["stages"].as_array().unwrap().iter().any(|stage| stage["stage"] == "login").then_some(())
    });
    let active = agents(&deployment).into_iter().find(|agent| agent["state"] == "active").unwrap();
    hosts[0].cut_off(true);
    deployment
        .api
        .post(&format!("/v1/agents/{}/replace", active["id"].as_str().unwrap()), &json!({}))
        .expect(200);
    until("the next one serves", SOON, || (hosts[1].engine.containers().len() == 2).then_some(()));
    assert_eq!(hosts[0].engine.containers().len(), 2, "it does not know yet");

    hosts[0].cut_off(false);
    until("the old one runs nothing", SOON, || hosts[0].engine.containers().is_empty().then_some(()));
    let bridge = ["-n", &hosts[0].namespace, "link", "show", "bmi0"];
    until("nor has it the network", SOON, || (!output("ip", &bridge).status.success()).then_some(()));
    assert!(hosts[0].log().contains("another agent has the network"));
    // A node boots from the one that has it; what logged in before, on the other host, is spent here.
    // Switches and the node have to learn first where the addresses are.
    until("it boots", SOON, || {
        let script = client.script(&client.dhcp().1);
        (script.contains("iscsi:") && client.login(&script)).then_some(())
    });
    assert!(!client.login(&first), "an older boot's secret");
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}

#[test]
fn k2_an_agent_that_is_cut_off_serves_on_and_does_what_it_missed() {
    let (_management, ceph, deployment) = Deployment::start_for_agents(MAC);
    let mut host = AgentHost::new(&deployment, 11, "provisioning", Docker);
    let token = token_give(&deployment, &host);
    host.agent_start();
    host.listens(&deployment, "provisioning");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&host, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();

    host.cut_off(true);
    // What is asked for meanwhile waits; what runs is served, and a machine that boots is answered.
    deployment.api.node_of("node-2", "52:54:00:a9:00:02", "lab");
    let body = json!({"name": "node-2", "node": "node-2", "image": "noise", "network": "provisioning"});
    let waiting = deployment.api.post("/v1/projects/lab/instances", &body).expect(202);
    let writes = Writes::start(&disk, directory.path(), BLOCKS, 1);
    writes.finish(&disk, 0);
    assert!(client.script(&client.dhcp().1).contains("iscsi:"), "it boots again");
    let path = format!("/v1/operations/{}", waiting["id"].as_str().unwrap());
    assert_eq!(deployment.api.get(&path).expect(200)["state"], "running");

    host.cut_off(false);
    assert_eq!(operation_end(&deployment.api, &waiting)["state"], "succeeded");
    let secrets = secrets(&ceph, &deployment, &host, &token, &boot_secret(&client));
    s8_secrets_are_where_they_belong(&deployment, &host, &secrets);
    drop(client);
    for node in ["node-1", "node-2"] {
        deployment.api.instance_remove("lab", node);
    }
    until("only the boot services are left", SOON, || (host.engine.containers().len() == 1).then_some(()));
}

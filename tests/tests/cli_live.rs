//! The CLI while something happens: steps as they are done, progress, a server that is away for a moment.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, until};
use serde_json::json;

#[test]
fn a_user_who_waits_sees_every_step_and_outlives_a_restart_of_the_server() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.api.network("provisioning", "10.77.0.0/24");
    deployment.api.image("lab", "golden");
    deployment.api.node_of("node-1", "52:54:00:c2:00:01", "lab");
    // No agent yet: the provision waits for one.
    let provision =
        "instance provision node-1 --node node-1 --image golden --network provisioning --wait -o json";
    let mut waiting = deployment
        .cli("lab")
        .command(&provision.split(' ').collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the image is prepared", Duration::from_secs(30), || {
        let operations = deployment.api.list("/v1/operations");
        let provision = operations.iter().find(|operation| operation["kind"] == "provision")?;
        (provision["steps"][1]["state"] == "done").then_some(())
    });
    deployment.control_plane_restart_at_its_address();
    deployment.agent_start_on("provisioning");
    let ended = waiting.wait().unwrap();
    let err: Vec<String> =
        BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(ended.success(), "{err:#?}");
    let operation: serde_json::Value = serde_json::from_reader(waiting.stdout.take().unwrap()).unwrap();
    assert_eq!(operation["state"], "succeeded");
    for step in ["claim-node done", "prepare-image done", "prepare-network done", "expose-target done"] {
        assert_eq!(err.iter().filter(|line| line.contains(step)).count(), 1, "{step}: {err:#?}");
    }
}

#[test]
fn a_user_follows_the_timeline_until_the_instance_is_gone() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = deployment.api.clone();
    api.image("lab", "golden");
    api.node_of("node-1", "52:54:00:c2:00:02", "lab");
    api.instance("lab", "node-1", "golden", &json!({}));
    let mut following = deployment
        .cli("lab")
        .command(&["instance", "timeline", "node-1", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen: Vec<String> = lines.by_ref().take_while(|line| !line.contains("expose-target")).collect();
    api.instance_remove("lab", "node-1");
    seen.extend(lines);
    assert!(following.wait().unwrap().success());
    for stage in [" provision.requested", " prepare-image", " deprovision.requested"] {
        assert_eq!(seen.iter().filter(|line| line.contains(stage)).count(), 1, "{stage}: {seen:#?}");
    }
    assert_eq!(seen.last().map(String::as_str), Some("the instance is gone"));
    // By name it is not there any more.
    let lost = deployment.cli("lab").run(&["instance", "timeline", "node-1", "--follow"]);
    assert_eq!(lost.status, 4, "{lost:?}");
}

#[test]
fn a_failure_says_what_to_do() {
    let deployment = Deployment::start(STORE_SMALL);
    let cli = deployment.cli("lab");
    deployment.api.project("lab");
    deployment.api.network("provisioning", "10.77.0.0/24");
    deployment.api.image("lab", "golden");
    deployment.api.node("node-1", "52:54:00:c2:00:03");
    let provision = "instance provision node-1 --node node-1 --image golden --network provisioning";
    let provision: Vec<&str> = provision.split(' ').collect();
    let wrong_token = cli.clone().with("BMI_TOKEN_FILE", "/dev/null");
    for (ran, hint) in [
        (cli.run(&["node", "show", "nobody"]), "bmi NOUN list"),
        (cli.run(&provision), "bmi node assign NODE -p PROJECT"),
        (cli.run(&["node", "update", "node-1", "--name", "x", "--if-version", "9"]), "read it again"),
        (cli.clone().with("BMI_SERVER", "http://127.0.0.1:9").run(&["whoami"]), "BMI_SERVER"),
        (wrong_token.run(&["whoami"]), "token"),
    ] {
        assert!(ran.status != 0 && ran.err.contains(hint), "{hint}: {ran:?}");
    }
}

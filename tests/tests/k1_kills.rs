//! `kill -9` in the middle of provision, deprovision and import, of the control plane, the agent, or both; and
//! dependencies that stand still meanwhile. Afterwards every operation has ended, and there is no orphan.
//!
//! A sample, whose seed is printed and is `PROPTEST_RNG_SEED`; `BMI_FULL=1` kills at many more moments.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bmi_tests::{Deployment, Random, STORE_SMALL, operation_end, processes, tree, until};
use serde_json::{Value, json};

/// Operations and agents come to rest within this.
const SOON: Duration = Duration::from_secs(60);
/// Provision and deprovision take about 150 ms, an import of the small image less.
const WITHIN_MS: u64 = 180;

/// Everything outside the database that an operation makes.
#[derive(Debug, PartialEq)]
struct World {
    store: BTreeMap<String, (u32, u32)>,
    running: BTreeMap<String, usize>,
    links: usize,
}

fn world(deployment: &Deployment) -> World {
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let mut running = BTreeMap::new();
    for one in processes().into_iter().filter(|one| uids.contains(&one.uid)) {
        let program =
            one.command.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap().to_owned();
        *running.entry(program).or_default() += 1;
    }
    let links: Value = serde_json::from_str(&deployment.inside("ip", &["-j", "link"])).unwrap();
    World { store: tree(&deployment.store()), running, links: links.as_array().unwrap().len() }
}

fn images(deployment: &Deployment) -> usize {
    tree(&deployment.store().join("images")).len()
}

#[test]
fn k1_killed_at_any_moment_nothing_is_left_half_done() {
    let rounds = if std::env::var_os("BMI_FULL").is_some() { 120 } else { 12 };
    println!("{rounds} kills");
    let mut random = Random::of_the_run();
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.image("lab", "golden");
    deployment.api.node_of("node-1", "52:54:00:4b:00:01", "lab");
    // Once, so that folders which are made when first needed are there.
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    deployment.api.instance_remove("lab", "node-1");
    let (before, images_before) = (world(&deployment), images(&deployment));
    let instance = "/v1/projects/lab/instances/node-1";

    for round in 0..rounds {
        let (kind, victim, delay) = (random.below(3), random.below(3), random.below(WITHIN_MS));
        println!("round {round}: operation {kind}, victim {victim}, after {delay} ms");
        let body = json!({"name": "node-1", "node": "node-1", "image": "golden", "network": "provisioning"});
        let operation = match kind {
            0 => deployment.api.post("/v1/projects/lab/instances", &body).expect(202),
            1 => {
                deployment.api.instance("lab", "node-1", "golden", &json!({}));
                deployment.api.delete(instance).expect(202)
            }
            _ => {
                let body = json!({"name": format!("image-{round}"), "import_file": "small.raw"});
                deployment.api.post("/v1/projects/lab/images", &body).expect(202)
            }
        };
        std::thread::sleep(Duration::from_millis(delay));
        if victim != 1 {
            deployment.control_plane_kill();
        }
        if victim != 0 {
            deployment.agent_kill();
        }
        if victim != 1 {
            deployment.control_plane_start();
        }
        if victim != 0 {
            deployment.agent_start_on("provisioning");
        }
        let ended = operation_end(&deployment.api, &operation);
        assert_eq!(ended["state"], "succeeded", "round {round}: {ended:#}");
        let api = &deployment.api;
        match kind {
            0 => drop(api.instance_remove("lab", "node-1")),
            1 => assert_eq!(api.get(instance).status, 404),
            _ => {
                let image = format!("/v1/projects/lab/images/image-{round}");
                assert_eq!(api.get(&image).expect(200)["state"], "sealed");
                let removal = operation_end(api, &api.delete(&image).expect(202));
                assert_eq!(removal["state"], "succeeded", "{removal:#}");
            }
        }
        until(&format!("round {round} left nothing"), SOON, || (world(&deployment) == before).then_some(()));
        assert_eq!(images(&deployment), images_before);
    }
    deployment.assert_alive();
    let aside = tree(&deployment.store().join("aside"));
    assert!(aside.is_empty(), "no orphan was ever there to be found: {aside:?}");
}

/// The database is held by somebody else for longer than the server waits for it.
#[test]
fn k2_a_database_that_stands_still_delays_and_loses_nothing() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = deployment.api.clone();
    api.image("lab", "golden");
    api.node_of("node-1", "52:54:00:4b:00:02", "lab");
    let mut holder = deployment.database_hold(14);
    let body = json!({"name": "node-1", "node": "node-1", "image": "golden", "network": "provisioning"});
    let refused = api.post("/v1/projects/lab/instances", &body);
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    assert!(refused.header("retry-after").is_some());
    api.get("/v1/nodes/node-1").expect(200);
    holder.wait().unwrap();
    api.instance("lab", "node-1", "golden", &json!({}));
}

/// The agent stands still in the middle of a provision, for longer than one attempt waits for it.
#[test]
fn k2_an_agent_that_stands_still_delays_and_loses_nothing() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    let api = deployment.api.clone();
    api.image("lab", "golden");
    api.node_of("node-1", "52:54:00:4b:00:03", "lab");
    deployment.agent_signal("STOP");
    let body = json!({"name": "node-1", "node": "node-1", "image": "golden", "network": "provisioning"});
    let operation = api.post("/v1/projects/lab/instances", &body).expect(202);
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    until("a second attempt", SOON, || {
        let now = api.get(&path).expect(200);
        let steps = now["steps"].as_array().unwrap().clone();
        let step = steps.into_iter().find(|step| step["name"] == "expose-target").unwrap();
        (step["attempts"].as_u64().unwrap() >= 2).then_some(())
    });
    deployment.agent_signal("CONT");
    let ended = operation_end(&api, &operation);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}

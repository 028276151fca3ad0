//! Orphans: what somebody made by hand, or a restored database does not know, is found and taken away; what should be
//! there and is not, is told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, tree, until};
use serde_json::{Value, json};

/// The reconciler looks every second here.
const SOON: Duration = Duration::from_secs(60);

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn an_operator_finds_orphans_set_aside_and_everything_else_untouched() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.node_of("node-1", "52:54:00:0c:00:01", "lab");
    let image = deployment.api.image("lab", "golden");
    deployment
        .api
        .post("/v1/projects/lab/images", &json!({"name": "open", "virtual_size": 1 << 20}))
        .expect(201);
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    let store = deployment.store();
    let project = text(&image["project"]).to_owned();
    let mut whole = tree(&store);

    // A volume of a project that is there, images of one that is not, something half made; and what is none of ours.
    let stranger = "01a21053-6083-733d-995f-029a4fcaa00d";
    let orphans: [PathBuf; 4] = [
        store.join(format!("volumes/{project}/01a21053-6083-733d-995f-000000000001.raw")),
        store.join(format!("volumes/{project}/01a21053-6083-733d-995f-000000000002.tmp")),
        store.join(format!("images/{stranger}/01a21053-6083-733d-995f-000000000003.raw")),
        store.join(format!("images/{stranger}/01a21053-6083-733d-995f-000000000004.part")),
    ];
    for orphan in &orphans {
        fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        fs::write(orphan, "precious after all").unwrap();
    }
    let foreign = store.join("volumes/README");
    fs::write(&foreign, "mine").unwrap();
    whole.extend(tree(&store).into_iter().filter(|(name, _)| name == "volumes/README"));

    deployment.control_plane_configure("[reconcile]\nevery_s = 1");
    until("the orphans are gone", SOON, || orphans.iter().all(|orphan| !orphan.exists()).then_some(()));
    let aside = names(&store.join("aside"));
    assert_eq!(aside.len(), orphans.len(), "{aside:?}");
    for (orphan, kind) in orphans.iter().zip(["volume", "volume", "image", "image"]) {
        let name = orphan.file_name().unwrap().to_str().unwrap();
        let kept = aside.iter().find(|kept| kept.ends_with(name) && kept.contains(kind)).unwrap();
        assert_eq!(fs::read_to_string(store.join("aside").join(kept)).unwrap(), "precious after all");
    }
    assert!(!store.join("images").join(stranger).exists(), "the empty folder went too");
    let mut now = tree(&store);
    now.retain(|name, _| !name.starts_with("aside"));
    assert_eq!(now, whole, "what is known and what is none of ours is untouched");
    until("they are counted", SOON, || {
        let metrics = String::from_utf8(deployment.api.get("/metrics").body).unwrap();
        metrics.contains("bmi_store_set_aside_total 4\n").then_some(())
    });

    // Nothing is kept: it is removed at the next look.
    deployment.control_plane_configure("keep_days = 0");
    until("nothing is aside", SOON, || names(&store.join("aside")).is_empty().then_some(()));
}

/// A directory and a port of an instance that nobody wants, made by hand as the agent would; and a port of somebody
/// else's, which is left alone.
#[test]
fn the_agent_removes_what_nobody_wants_from_its_host() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.node_of("node-1", "52:54:00:0c:00:03", "lab");
    deployment.api.image("lab", "golden");
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    let links = |deployment: &Deployment| -> Vec<(String, String)> {
        let links: Value = serde_json::from_str(&deployment.inside("ip", &["-j", "link"])).unwrap();
        let field = |link: &Value, name: &str| link[name].as_str().unwrap_or_default().to_owned();
        let links = links.as_array().unwrap();
        links.iter().map(|link| (field(link, "ifname"), field(link, "ifalias"))).collect()
    };
    let before = links(&deployment);
    // The port of a target that was: its name is derived from its id, so it is taken from a real one that goes.
    let instance = deployment.api.get("/v1/projects/lab/instances/node-1").expect(200);
    let alias = format!("bmi:{}", text(&instance["id"]));
    let port = before.iter().find(|(_, of)| *of == alias).map(|(name, _)| name.clone()).unwrap();
    deployment.api.instance_remove("lab", "node-1");
    let without = links(&deployment);
    assert!(!without.iter().any(|(name, _)| *name == port));
    for (name, peer, alias) in [(port.as_str(), "peer0", alias.as_str()), ("foreign0", "peer1", "somebody's")]
    {
        deployment.inside("ip", &["link", "add", name, "type", "veth", "peer", "name", peer]);
        deployment.inside("ip", &["link", "set", name, "alias", alias, "master", "bmi0"]);
    }
    let stranger = deployment.data.join("agent/run/01a21053-6083-733d-995f-00000000000a");
    fs::create_dir(&stranger).unwrap();
    until("the agent has removed both", SOON, || {
        let port_is_there = links(&deployment).iter().any(|(name, _)| *name == port);
        (!port_is_there && !stranger.exists()).then_some(())
    });
    assert!(links(&deployment).iter().any(|(name, _)| name == "foreign0"), "it is not ours");
    deployment.assert_alive();
}

#[test]
fn a_volume_that_is_missing_is_told_once_in_the_timeline() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.node_of("node-1", "52:54:00:0c:00:02", "lab");
    let image = deployment.api.image("lab", "golden");
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    let volumes = deployment.store().join("volumes").join(text(&image["project"]));
    let lost = volumes.join(&names(&volumes)[0]);
    let kept = deployment.store().join("kept.raw");
    fs::rename(&lost, &kept).unwrap();
    deployment.control_plane_configure("[reconcile]\nevery_s = 1");
    let api = deployment.api.clone();
    let told = || {
        let timeline = api.get("/v1/projects/lab/instances/node-1/timeline").expect(200);
        let stages = timeline["stages"].as_array().unwrap().clone();
        stages.into_iter().filter(|stage| stage["stage"] == "volume.missing").collect::<Vec<_>>()
    };
    let first = until("it is told", SOON, || told().into_iter().next());
    assert_eq!(Some(text(&first["detail"]["volume"])), lost.file_stem().and_then(|stem| stem.to_str()));
    // Three more looks.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(told().len(), 1, "once");
    fs::rename(kept, &lost).unwrap();
    until("the metric says that nothing is missing", SOON, || {
        let metrics = String::from_utf8(api.get("/metrics").body).unwrap();
        metrics.contains("bmi_store_missing 0\n").then_some(())
    });
}

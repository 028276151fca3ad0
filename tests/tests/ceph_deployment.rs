//! A whole deployment whose store is a real Ceph: what it makes there, who gets to know a key, and what is left of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bmi_tests::{Ceph, Client, Deployment, Disk, User, mounts_below, operation_end, processes, tree, until};
use serde_json::{Value, json};

/// What runs in the background has run within this.
const SOON: Duration = Duration::from_secs(60);

/// Everything that a provision touches, in Ceph and on the host.
#[derive(Debug, PartialEq)]
struct World {
    images: BTreeSet<String>,
    users: BTreeMap<String, User>,
    processes: BTreeMap<String, usize>,
    files: BTreeMap<String, (u32, u32)>,
    mounts: Vec<String>,
    links: usize,
    rules: String,
}

fn world(ceph: &Ceph, deployment: &Deployment, namespace: &str) -> World {
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let mut running = BTreeMap::new();
    for one in processes().into_iter().filter(|one| uids.contains(&one.uid)) {
        let program = one.command.split(' ').next().unwrap_or_default();
        *running.entry(program.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    let links: Value = serde_json::from_str(&deployment.inside("ip", &["-j", "link"])).unwrap();
    World {
        images: ceph.images(namespace),
        users: ceph.users(&format!("{}-", deployment.ceph_user.as_ref().unwrap())),
        processes: running,
        files: tree(&deployment.data.join("agent")),
        mounts: mounts_below(&deployment.data),
        links: links.as_array().unwrap().len(),
        // A node that was there is known for a while in the kernel's tables, which are no rules.
        rules: deployment.inside("nft", &["--stateless", "list", "ruleset"]),
    }
}

/// A deployment with a project and an agent; and the project's namespace.
fn start(ceph: &Ceph) -> (Deployment, String) {
    let mut deployment = Deployment::start_in_ceph(ceph);
    let project = deployment.api.project("lab");
    deployment.agent_start();
    (deployment, project["id"].as_str().unwrap().to_owned())
}

/// The files of a deployment in which something is, from its directory on.
fn holding(deployment: &Deployment, what: &[u8]) -> BTreeSet<String> {
    let is_in = |name: &String| {
        let path = deployment.data.join(name);
        // Who opens a pipe waits for its other end.
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            return false;
        }
        let text = std::fs::read(path).unwrap_or_default();
        text.windows(what.len()).any(|window| window == what)
    };
    tree(&deployment.data).into_keys().filter(|name| !name.starts_with("bin/")).filter(is_in).collect()
}

/// The objects of images in a namespace, those in the trash included.
fn data_of(ceph: &Ceph, namespace: &str) -> Vec<String> {
    let found = ceph.rados(&["--pool", "bmi", "--namespace", namespace, "ls"]);
    let of_images = |name: &&str| name.starts_with("rbd_data.") || name.starts_with("rbd_header.");
    found.lines().filter(of_images).map(str::to_owned).collect()
}

#[test]
fn s8_an_instance_is_made_serves_and_leaves_nothing_and_nobody_else_learns_its_key() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    let api = &deployment.api;
    api.image("lab", "small");
    api.node_of("node-1", "52:54:00:ce:00:01", "lab");
    let small = deployment.data.join("images/small.raw");
    // The first instance makes directories that stay.
    api.instance("lab", "node-1", "small", &json!({}));
    api.instance_remove("lab", "node-1");
    until("what the first one had is gone", SOON, || (ceph.images(&namespace).len() == 1).then_some(()));
    let before = world(ceph, &deployment, &namespace);
    let golden = before.images.first().unwrap();
    assert!(golden.starts_with("image-") && before.users.is_empty(), "{before:#?}");

    let shown = api.instance("lab", "node-1", "small", &json!({"user_data": "#!/bin/sh\n"}));
    let during = world(ceph, &deployment, &namespace);
    let made: Vec<&String> = during.images.difference(&before.images).collect();
    assert!(made.len() == 2 && made.iter().all(|name| name.starts_with("volume-")), "{made:?}");
    assert_eq!(during.users.len(), 1, "a user for the boot volume: {:?}", during.users);
    for program in ["bmi-broker", "bmi-target"] {
        assert_eq!(during.processes.get(program), Some(&1), "{:?}", during.processes);
    }

    // The node has the image, and what it writes is kept.
    let client = Client::new(&deployment, "node-1", "52:54:00:ce:00:01");
    let disk = Disk::of(&client);
    assert!(disk.is_same_as(small.to_str().unwrap()));
    let done = disk.does(&["write -P 7 4k 8k", "flush", "read -P 7 4k 8k", "read 0 4k"]);
    assert!(done.contains("wrote 8192/8192") && !done.contains("failed"), "{done}");
    assert!(!disk.does(&["read -P 7 4k 8k"]).contains("failed"));

    // S8. Who has to have the key has it, and nobody else.
    let key = during.users.values().next().unwrap().key.clone();
    let bytes = STANDARD.decode(&key).unwrap();
    let secret = &bytes[12..];
    assert_eq!(secret.len(), 16, "a key is 12 bytes of header and the secret");
    let holders = holding(&deployment, key.as_bytes());
    let allowed = |name: &String| {
        name == "agent/agent/ledger.json" || name.ends_with("/broker.json") || name.ends_with("/record.json")
    };
    assert!(!holders.is_empty() && holders.iter().all(allowed), "{holders:?}");
    for holder in &holders {
        let mode = tree(&deployment.data)[holder].0;
        assert_eq!(mode & 0o007, 0, "{holder} has mode {mode:o}");
    }
    assert_eq!(holding(&deployment, secret), BTreeSet::new(), "nor as bytes");
    for process in processes() {
        assert!(!process.command.contains(&key), "in the arguments of {}", process.pid);
        assert!(!process.environment.contains(&key), "in the environment of {}", process.pid);
    }
    let answers = [
        api.everything(),
        api.get("/v1/projects/lab/instances/node-1/timeline").expect(200),
        api.get("/v1/nodes/node-1").expect(200),
        shown,
    ];
    assert!(answers.iter().all(|answer| !answer.to_string().contains(&key)));
    assert!(!String::from_utf8(api.get("/metrics").body).unwrap().contains(&key));

    drop(client);
    api.instance_remove("lab", "node-1");
    until("nothing is left", SOON, || (world(ceph, &deployment, &namespace) == before).then_some(()));
    assert_eq!(holding(&deployment, key.as_bytes()), BTreeSet::new(), "nobody keeps the key");

    let removed = operation_end(api, &api.delete("/v1/projects/lab/images/small").expect(202));
    assert_eq!(removed["state"], "succeeded", "{removed:#}");
    until("the namespace is empty", SOON, || ceph.images(&namespace).is_empty().then_some(()));
    until("its data are gone too", SOON, || data_of(ceph, &namespace).is_empty().then_some(()));
}

#[test]
fn k4_an_image_with_instances_stays_and_is_reclaimed_after_the_last_of_them() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    let api = &deployment.api;
    api.image("lab", "small");
    let path = "/v1/projects/lab/images/small";
    for number in 1..=2 {
        api.node_of(&format!("node-{number}"), &format!("52:54:00:ce:01:0{number}"), "lab");
        api.instance("lab", &format!("node-{number}"), "small", &json!({}));
    }
    let images = |beginning: &str| {
        let all = ceph.images(&namespace);
        all.into_iter().filter(|name| name.starts_with(beginning)).count()
    };
    for left in (1..=2).rev() {
        let blocked = api.delete(path);
        assert_eq!((blocked.status, blocked.code().as_str()), (409, "in-use"));
        let told = String::from_utf8_lossy(&blocked.body).into_owned();
        assert!((1..=left).all(|number| told.contains(&format!("node-{number}"))), "{told}");
        assert_eq!(told.contains("node-2"), left == 2, "{told}");
        // A boot volume and a config volume each.
        assert_eq!((images("image-"), images("volume-")), (1, 2 * left));
        api.instance_remove("lab", &format!("node-{left}"));
    }
    let removed = operation_end(api, &api.delete(path).expect(202));
    assert_eq!(removed["state"], "succeeded", "{removed:#}");
    assert_eq!(api.get(path).status, 404);
    until("the namespace is empty", SOON, || ceph.images(&namespace).is_empty().then_some(()));
    until("its data are gone too", SOON, || data_of(ceph, &namespace).is_empty().then_some(()));
}

#[test]
fn a_full_pool_is_told_to_the_node_that_writes_and_an_instance_can_be_removed_from_it() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    let api = &deployment.api;
    deployment.noise();
    api.image_of("lab", "noise", "noise.raw");
    for number in 1..=2 {
        api.node_of(&format!("node-{number}"), &format!("52:54:00:ce:02:0{number}"), "lab");
        api.instance("lab", &format!("node-{number}"), "noise", &json!({}));
    }
    let client = Client::new(&deployment, "node-1", "52:54:00:ce:02:01");
    let disk = Disk::of(&client);
    assert!(!disk.does(&["write -P 9 0 4k"]).contains("failed"));

    let full = ceph.fill();
    // A write that needs space is refused, and what was there is still there.
    let done = disk.does(&["write -P 3 8M 4k", "read -P 9 0 4k", "flush"]);
    assert!(done.contains("write failed: No space left on device"), "{done}");
    assert!(done.contains("read 4096/4096") && !done.contains("Pattern verification failed"), "{done}");

    // Who removes makes room, also where nothing was ever removed before.
    api.instance_remove("lab", "node-2");
    full.end();
    // `rbd` waits while a pool is full, also for a list.
    until("only the other one's volumes are left", SOON, || {
        let images = ceph.images(&namespace);
        (images.iter().filter(|name| name.contains("volume-")).count() == 2).then_some(())
    });
    let done = disk.does(&["write -P 3 8M 4k", "read -P 3 8M 4k", "read -P 9 0 4k"]);
    assert!(!done.contains("failed"), "{done}");
    drop(client);
    api.instance_remove("lab", "node-1");
}

//! What there is in the cluster that the attacker finds itself in.

use bmi_tests::{Api, Ceph, Deployment};
use serde_json::{Value, json};

const FEATURES: &str = "layering,exclusive-lock,object-map,fast-diff,deep-flatten";

fn image(ceph: &Ceph, namespace: &str, name: &str) -> Value {
    let path = if namespace.is_empty() { format!("bmi/{name}") } else { format!("bmi/{namespace}/{name}") };
    let info: Value = serde_json::from_str(&ceph.rbd(&["info", &path, "--format", "json"])).unwrap();
    let snapshots: Value =
        serde_json::from_str(&ceph.rbd(&["snap", "ls", &path, "--format", "json"])).unwrap();
    let snapshot = snapshots.get(0).map_or(Value::Null, |first| first["id"].clone());
    json!({"namespace": namespace, "name": name, "id": info["id"], "snapshot": snapshot})
}

fn create(ceph: &Ceph, path: &str) {
    ceph.rbd(&["create", path, "--size", "16M", "--image-feature", FEATURES]);
    ceph.rbd(&["bench", "--io-type", "write", "--io-size", "1M", "--io-total", "16M", path]);
    ceph.rbd(&["snap", "create", &format!("{path}@sealed")]);
}

/// Imports an image that everybody may use; gives it as the attacker names it, and its id in the API.
fn golden(ceph: &Ceph, api: &Api, name: &str) -> (Value, Value) {
    let made = api.image_of("golden", name, "noise.raw");
    let sharing = format!("/v1/projects/golden/images/{name}/sharing");
    api.json("PATCH", &sharing, &json!({"visibility": "public"})).expect(200);
    let namespace = made["project"].as_str().unwrap();
    let images = ceph.images(namespace).into_iter().filter(|name| name.starts_with("image-"));
    let newest = images.max().unwrap();
    (image(ceph, namespace, &newest), made["id"].clone())
}

/// Provisions an instance; gives its boot volume's user, and its volumes as the attacker names them: the boot volume, and
/// the config volume.
fn instance(
    ceph: &Ceph,
    deployment: &Deployment,
    (project, name): (&str, &str),
    image_id: &Value,
) -> (String, Vec<Value>) {
    let user = deployment.ceph_user.as_ref().unwrap();
    let known = ceph.users(&format!("{user}-"));
    let more = json!({"user_data": "#!/bin/sh\n"});
    let made = deployment.api.instance(project, name, image_id.as_str().unwrap(), &more);
    let mut users = ceph.users(&format!("{user}-"));
    users.retain(|user, _| !known.contains_key(user));
    let (user, found) = users.pop_first().unwrap();
    assert!(users.is_empty(), "a user a boot volume");
    let namespace = made["project"].as_str().unwrap();
    let names = found.osd.split("rbd_id.").skip(1).map(|rest| rest.split(',').next().unwrap().to_owned());
    (user, names.map(|name| image(ceph, namespace, &name)).collect())
}

/// Two golden images, two instances of one project and one of another, made by a deployment; one image of nobody's, and
/// other pools.
pub fn make(ceph: &Ceph) -> Value {
    let mut deployment = Deployment::start_in_ceph(ceph);
    deployment.noise();
    for project in ["golden", "a", "b"] {
        deployment.api.project(project);
    }
    deployment.agent_start();
    let api = deployment.api.clone();
    let (parent, parent_id) = golden(ceph, &api, "image");
    let (unrelated, _) = golden(ceph, &api, "unrelated");
    let [own, sibling, other] = [("a", "own"), ("a", "sibling"), ("b", "other")].map(|(project, name)| {
        let number = if name == "own" { 1 } else { 2 + u8::from(name == "other") };
        api.node_of(name, &format!("52:54:00:54:00:{number:02x}"), project);
        instance(ceph, &deployment, (project, name), &parent_id)
    });
    // What was made stays; who made it, and the brokers, would take part.
    assert_eq!(deployment.agent_stop(), Vec::<String>::new());
    drop(deployment);
    let (volume_user, own, sibling, other) = (own.0, own.1, sibling.1, other.1);
    for volume in own.iter().chain(&sibling).chain(&other) {
        let path =
            format!("bmi/{}/{}", volume["namespace"].as_str().unwrap(), volume["name"].as_str().unwrap());
        ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "64K", &path]);
    }
    ceph.rbd(&["namespace", "create", "bmi/empty"]);
    create(ceph, "bmi/plain");
    // A clone of the older kind is in a list of the pool.
    ceph.rbd(&["snap", "protect", "bmi/plain@sealed"]);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "1", "bmi/plain@sealed", "bmi/plain-clone"]);
    for image in [&parent, &own[0], &other[0]] {
        let path = format!("bmi/{}/trashed", image["namespace"].as_str().unwrap());
        ceph.rbd(&["create", &path, "--size", "1M"]);
        ceph.rbd(&["trash", "mv", &path]);
    }
    for pool in ["other", "doomed"] {
        ceph.ceph(&["osd", "pool", "create", pool, "1", "1"]);
    }
    ceph.rados(&["--pool", "other", "put", "secret", "/etc/hostname"]);
    ceph.ceph(&["config-key", "set", "secret", "value"]);
    ceph.ceph(&["config", "set", "mon", "mon_allow_pool_delete", "true"]);
    ceph.ceph(&["auth", "get-or-create", "client.doomed"]);
    let listed: serde_json::Map<String, Value> = [&sibling[0], &other[0], &parent]
        .map(|one| (one["namespace"].as_str().unwrap().to_owned(), json!([one["name"], one["id"]])))
        .into_iter()
        .collect();
    json!({
        "pool": ceph.pool(), "other_pool": "other", "doomed_pool": "doomed", "snapshot_name": "golden",
        "own": own[0], "config": own[1], "sibling": sibling[0], "sibling_config": sibling[1], "other": other[0],
        "golden": parent, "unrelated": unrelated, "plain": image(ceph, "", "plain"), "listed": listed,
        "volume_user": volume_user,
    })
}

/// The world, with who is in it.
pub fn held_by(ceph: &Ceph, world: &Value, user: &str) -> Value {
    let keyring = ceph.directory().join(format!("ceph.client.{user}.keyring"));
    if user != "admin" {
        let printed = ceph.ceph(&["auth", "print-key", &format!("client.{user}")]);
        std::fs::write(&keyring, format!("[client.{user}]\n\tkey = {printed}\n")).unwrap();
    }
    let mut world = world.clone();
    world["user"] = user.into();
    world["conf"] = ceph.conf().to_str().unwrap().into();
    world["keyring"] = keyring.to_str().unwrap().into();
    world
}

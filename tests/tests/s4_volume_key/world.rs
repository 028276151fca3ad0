//! What there is in the cluster that the attacker finds itself in.

use bmi_tests::Ceph;
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

fn clone(ceph: &Ceph, to: &str) {
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", "bmi/golden/image@sealed", to]);
    ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "64K", to]);
}

/// Two golden images, two volumes of one project, one of another, one image of nobody's, and other pools.
pub fn make(ceph: &Ceph) -> Value {
    for namespace in ["golden", "a", "b", "empty"] {
        ceph.rbd(&["namespace", "create", &format!("bmi/{namespace}")]);
    }
    for path in ["bmi/golden/image", "bmi/golden/unrelated", "bmi/plain"] {
        create(ceph, path);
    }
    for path in ["bmi/a/own", "bmi/a/sibling", "bmi/b/other"] {
        clone(ceph, path);
    }
    // A clone of the older kind is in a list of the pool.
    ceph.rbd(&["snap", "protect", "bmi/plain@sealed"]);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "1", "bmi/plain@sealed", "bmi/plain-clone"]);
    for namespace in ["bmi/golden", "bmi/a", "bmi/b"] {
        let path = format!("{namespace}/trashed");
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
    let (own, sibling, other) =
        (image(ceph, "a", "own"), image(ceph, "a", "sibling"), image(ceph, "b", "other"));
    let (golden, unrelated) = (image(ceph, "golden", "image"), image(ceph, "golden", "unrelated"));
    let listed = json!({
        "a": [sibling["name"], sibling["id"]], "b": [other["name"], other["id"]],
        "golden": [golden["name"], golden["id"]],
    });
    json!({
        "pool": ceph.pool(), "other_pool": "other", "doomed_pool": "doomed", "snapshot_name": "sealed",
        "own": own, "sibling": sibling, "other": other, "golden": golden, "unrelated": unrelated,
        "plain": image(ceph, "", "plain"), "listed": listed,
    })
}

/// The key of the volume `a/own`, as `client.volume`.
pub fn volume_key(ceph: &Ceph) {
    ceph.volume_key("volume", "a/own", "golden/image");
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

//! What a store in Ceph refuses, each with a code of its own, and nothing half made: by the API, by operations, and at the
//! start of the control plane.
//!
//! That a full pool is told to a node that writes is in `ceph_deployment`; what the store's driver does by itself, in
//! `ceph_conformance`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bmi_tests::{Answer, Ceph, Deployment, User, operation_end, sha256, until};
use serde_json::{Value, json};

const IMAGES: &str = "/v1/projects/lab/images";
/// What runs in the background has run within this.
const SOON: Duration = Duration::from_secs(60);

/// What is in the pool, and everybody who may use it.
#[derive(Debug, PartialEq)]
struct World {
    namespaces: BTreeSet<String>,
    /// What is in the test's own namespaces and where it imports from, the trash included. (What other deployments left, this
    /// one sets aside in its time.)
    images: BTreeMap<String, BTreeSet<String>>,
    users: BTreeMap<String, User>,
}

fn world(ceph: &Ceph, own: &[&str]) -> World {
    let images = own.iter().chain(&["import"]).map(|space| ((*space).to_owned(), ceph.images(space)));
    World { namespaces: ceph.namespaces(), images: images.collect(), users: ceph.users("") }
}

/// A deployment with a project, which imports from the namespace `import`; and the project's namespace.
fn start(ceph: &Ceph) -> (Deployment, String) {
    let mut deployment = Deployment::start_in_ceph(ceph);
    if !ceph.namespaces().contains("import") {
        ceph.rbd(&["namespace", "create", "bmi/import"]);
    }
    deployment.control_plane_configure("import_namespace = \"import\"");
    let project = deployment.api.project("lab");
    (deployment, project["id"].as_str().unwrap().to_owned())
}

/// Puts the small image into the namespace to import from, under a name of the test's own, with a snapshot `v1`.
fn put(ceph: &Ceph, deployment: &Deployment, name: &str) -> String {
    let file = deployment.data.join("images/small.raw");
    let place = format!("bmi/import/{name}");
    ceph.rbd(&["import", "--no-progress", file.to_str().unwrap(), &place]);
    ceph.rbd(&["snap", "create", "--no-progress", &format!("{place}@v1")]);
    place
}

fn import(deployment: &Deployment, name: &str, source: &str) -> Answer {
    deployment.api.post(IMAGES, &json!({"name": name, "import_rbd": source}))
}

/// An import that is taken must fail with a code, which its step has too, and the CLI.
fn fails(deployment: &Deployment, body: &Value, code: &str) -> Value {
    let ended = operation_end(&deployment.api, &deployment.api.post(IMAGES, body).expect(202));
    assert_eq!((ended["state"].as_str(), ended["code"].as_str()), (Some("failed"), Some(code)), "{ended:#}");
    let step = ended["steps"].as_array().unwrap().iter().find(|step| step["state"] == "failed").unwrap();
    assert_eq!((step["code"].as_str(), &step["error"]), (Some(code), &ended["error"]), "{ended:#}");
    let shown = deployment.cli("lab").run(&["operation", "show", ended["id"].as_str().unwrap()]);
    assert!(shown.ok().out.lines().any(|line| line.starts_with("CODE") && line.ends_with(code)), "{shown:?}");
    assert_eq!(deployment.api.list(IMAGES), Vec::<Value>::new(), "the image is gone with its operation");
    ended
}

/// What the control plane says when it does not start with other settings of its store.
fn start_refused(deployment: &mut Deployment, from: &str, to: &str) -> String {
    let config = deployment.config();
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&config, text.replace(from, to)).unwrap();
    let ended = deployment.control_plane_command(&[]).output().unwrap();
    std::fs::write(&config, text).unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.stdout.is_empty() && !ended.status.success(), "it started: {told}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with("bmi-control-plane: "), "{told}");
    last.replacen("bmi-control-plane: ", "", 1)
}

#[test]
fn a_pool_that_does_not_exist_or_a_setting_that_is_missing_ends_the_start_with_a_code() {
    let ceph = Ceph::shared();
    let (mut deployment, project) = start(ceph);
    deployment.control_plane_stop();
    ceph.ceph(&["osd", "pool", "create", "plain", "1"]);
    let before = world(ceph, &[]);
    let pool = "pool = \"bmi\"";
    for (from, to, beginning, mends) in [
        (pool, "pool = \"nope\"", "store-pool-absent: ", "ceph osd pool create nope"),
        (pool, "pool = \"plain\"", "store-pool-unfit: ", "ceph osd pool application enable plain rbd"),
        ("\"import\"", "\"nowhere\"", "store-pool-absent: ", "rbd namespace create bmi/nowhere"),
    ] {
        let told = start_refused(&mut deployment, from, to);
        assert!(told.starts_with(beginning) && told.contains(mends), "{told}");
    }
    // A project's namespace is its tenant's, and none to import from for everybody.
    let config = std::fs::read_to_string(deployment.config()).unwrap();
    std::fs::write(deployment.config(), config.replace("\"import\"", &format!("\"{project}\""))).unwrap();
    let checked = deployment.control_plane_command(&[]).output().unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.code() == Some(2) && told.contains("which is a project's"), "{told}");
    std::fs::write(deployment.config(), config).unwrap();
    assert_eq!(world(ceph, &[]), before);
    deployment.control_plane_start();
}

#[test]
fn a_pool_of_another_database_is_left_alone() {
    let ceph = Ceph::shared();
    let (mut first, project) = start(ceph);
    let image = first.api.image("lab", "small")["id"].as_str().unwrap().to_owned();
    let before = world(ceph, &[&project]);
    // Another installation, or this one with an empty database: it would know none of these images.
    first.control_plane_stop();
    let directory = first.data.join("control-plane");
    let rename = |from: &str, to: &str| {
        for end in ["", "-wal", "-shm"] {
            let (from, to) = (directory.join(format!("{from}{end}")), directory.join(format!("{to}{end}")));
            if from.exists() {
                std::fs::rename(from, to).unwrap();
            }
        }
    };
    rename("bmi.sqlite", "aside.sqlite");
    let told = start_refused(&mut first, "\n", "\n");
    assert!(told.starts_with("store-foreign: ") && told.contains("rados -p bmi rm bmi_owner"), "{told}");
    assert_eq!(world(ceph, &[&project]), before);
    // Its own database is let in again.
    rename("bmi.sqlite", "refused.sqlite");
    rename("aside.sqlite", "bmi.sqlite");
    first.control_plane_start();
    assert_eq!(first.api.get(&format!("{IMAGES}/{image}")).expect(200)["state"], "sealed");
    // And the operator may say that it is gone.
    first.control_plane_stop();
    rename("bmi.sqlite", "gone.sqlite");
    ceph.give_away();
    first.control_plane_start();
}

#[test]
fn a_key_without_rights_ends_the_start_with_a_code_and_an_operation_too() {
    let ceph = Ceph::shared();
    let (mut deployment, _) = start(ceph);
    let user = deployment.ceph_user.clone().unwrap();
    let entity = format!("client.{user}");
    let before = world(ceph, &[]);
    deployment.control_plane_stop();
    ceph.ceph(&["auth", "caps", &entity, "mon", "allow r"]);
    let told = start_refused(&mut deployment, "\n", "\n");
    assert!(told.starts_with("store-denied: ") && told.contains(&entity), "{told}");
    let told = start_refused(&mut deployment, &format!("user = \"{user}\""), "user = \"stranger\"");
    assert!(told.starts_with("store-denied: ") && told.contains("client.stranger"), "{told}");

    // One that may do what is tried at the start, and only look at a project's namespace.
    let osd = "profile rbd pool=bmi namespace=\"\", profile rbd pool=bmi namespace=bmi-preflight-*, \
               profile rbd-read-only pool=bmi";
    ceph.ceph(&["auth", "caps", &entity, "mon", "allow *", "osd", osd]);
    deployment.control_plane_start();
    fails(&deployment, &json!({"name": "small", "import_file": "small.raw"}), "store-denied");
    drop(ceph.control_plane_keyring(&user));
    assert_eq!(world(ceph, &[]), before);
}

#[test]
fn an_image_that_is_there_already_with_other_content_stays_as_it_is() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    let api = &deployment.api;
    let shown = api.image("lab", "golden");
    deployment.noise();
    put(ceph, &deployment, "again");
    let (before, operations) = (world(ceph, &[&namespace]), api.list("/v1/operations"));
    let bodies = [
        json!({"name": "golden", "import_file": "noise.raw"}),
        json!({"name": "golden", "import_rbd": "again"}),
        json!({"name": "golden", "virtual_size": 1 << 20}),
    ];
    for body in bodies {
        let refused = api.post(IMAGES, &body);
        assert_eq!((refused.status, refused.code().as_str()), (409, "duplicate"), "{body}");
    }
    assert_eq!(api.get(&format!("{IMAGES}/golden")).expect(200), shown);
    assert_eq!(api.list("/v1/operations"), operations);
    assert_eq!(world(ceph, &[&namespace]), before);
    assert_eq!(before.images[&namespace].len(), 1);
}

#[test]
fn an_rbd_image_with_clones_is_imported_at_a_snapshot_and_else_refused() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    let api = &deployment.api;
    let place = put(ceph, &deployment, "cloned");
    let snapshot = format!("{place}@v1");
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &snapshot, "bmi/import/a-clone"]);
    let before = world(ceph, &[]);
    let refused = import(&deployment, "golden", "cloned");
    assert_eq!((refused.status, refused.code().as_str()), (409, "image-has-clones"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("cloned@SNAPSHOT"), "{}", refused.json());
    for source in ["none", "cloned@none"] {
        let refused = import(&deployment, "golden", source);
        assert_eq!((refused.status, refused.code().as_str()), (422, "import-source-absent"), "{source}");
    }
    ceph.rbd(&["create", "bmi/import/odd", "--size", "1048577B"]);
    let refused = import(&deployment, "golden", "odd");
    assert_eq!((refused.status, refused.code().as_str()), (422, "image-refused"));
    ceph.rbd(&["rm", "--no-progress", "bmi/import/odd"]);
    assert_eq!((world(ceph, &[]), api.list("/v1/operations")), (before, Vec::new()));

    // With the CLI, as an operator does it.
    let made = deployment.cli("lab").run(&["image", "import", "golden", "--rbd", "cloned@v1", "--wait"]);
    made.ok();
    let image = api.get(&format!("{IMAGES}/golden")).expect(200);
    assert_eq!(image["state"], "sealed");
    assert_eq!(image["sha256"], sha256(Path::new(&deployment.data.join("images/small.raw"))));
    let copies = ceph.images(&namespace);
    assert!(copies.len() == 1 && copies.first().unwrap().starts_with("image-"), "{copies:?}");
    let copy = format!("bmi/{namespace}/{}", copies.first().unwrap());
    assert!(!ceph.rbd(&["info", &copy]).contains("parent: "), "it is a copy");
    ceph.rbd(&["rm", "--no-progress", "bmi/import/a-clone"]);
    ceph.rbd(&["snap", "rm", "--no-progress", &snapshot]);
    ceph.rbd(&["rm", "--no-progress", &place]);
}

#[test]
fn s1_a_name_to_import_reaches_nothing_but_what_the_operator_put_there() {
    let ceph = Ceph::shared();
    let (deployment, own) = start(ceph);
    let api = &deployment.api;
    // Another tenant's image, a volume by its whole name, and one in the pool's default namespace.
    let other = api.project("other")["id"].as_str().unwrap().to_owned();
    api.image("other", "secret");
    let secret = ceph.images(&other).first().unwrap().clone();
    ceph.rbd(&["create", "bmi/at-the-root", "--size", "4M"]);
    let before = world(ceph, &[&other]);
    let invalid = [
        format!("{other}/{secret}"),
        format!("bmi/{other}/{secret}"),
        format!("../{other}/{secret}"),
        format!("/{other}/{secret}@golden"),
        format!("{secret}@golden@golden"),
        format!("x@{other}/{secret}"),
        format!("{secret}\0"),
        "\0".to_owned(),
        "bmi/at-the-root".to_owned(),
        "/at-the-root".to_owned(),
        String::new(),
        "@golden".to_owned(),
        "x".repeat(5000),
    ];
    for name in &invalid {
        let refused = import(&deployment, "stolen", name);
        assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"), "{name:?}");
        assert_eq!(refused.faults(), ["import_rbd"], "{name:?}");
    }
    for name in [secret.as_str(), &format!("{secret}@golden"), "at-the-root", "rbd_directory", ".", ".."] {
        let refused = import(&deployment, "stolen", name);
        assert_eq!((refused.status, refused.code().as_str()), (422, "import-source-absent"), "{name:?}");
    }
    for field in ["import_file", "virtual_size", "file_size", "format"] {
        let body = json!({"name": "stolen", "import_rbd": "x", field: "raw"});
        assert_eq!(api.post(IMAGES, &body).faults(), [field], "nothing goes with it");
    }
    for body in [json!({"name": "stolen", "import_rbd": 7}), json!({"name": "stolen", "import_rbd": ["x"]})] {
        assert_eq!(api.post(IMAGES, &body).faults(), ["import_rbd"]);
    }
    assert_eq!(api.list(IMAGES), Vec::<Value>::new());
    assert_eq!(world(ceph, &[&other]), before);
    assert!(!before.namespaces.contains(&own));
    ceph.rbd(&["rm", "--no-progress", "bmi/at-the-root"]);
}

#[test]
fn a_namespace_with_strangers_in_it_is_not_used_and_they_stay() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    ceph.rbd(&["namespace", "create", &format!("bmi/{namespace}")]);
    let stranger = format!("bmi/{namespace}/accounting");
    ceph.rbd(&["create", &stranger, "--size", "4M"]);
    put(ceph, &deployment, "beside");
    let before = world(ceph, &[&namespace]);
    for body in [
        json!({"name": "small", "import_file": "small.raw"}),
        json!({"name": "small", "import_rbd": "beside@v1"}),
    ] {
        let ended = fails(&deployment, &body, "store-foreign");
        assert!(ended["error"].as_str().unwrap().contains("accounting"), "{ended:#}");
        assert_eq!(world(ceph, &[&namespace]), before);
    }
    let refused = deployment.api.post(IMAGES, &json!({"name": "small", "virtual_size": 1 << 20})).expect(201);
    let content = format!("{IMAGES}/{}/content", refused["id"].as_str().unwrap());
    let sent = deployment.api.send("PATCH", &content, &[("Upload-Offset", "0")], Some(&[1; 4096]));
    assert_eq!((sent.status, sent.code().as_str()), (409, "store-foreign"));
    assert_eq!(world(ceph, &[&namespace]), before);
}

#[test]
fn a_full_cluster_ends_an_import_with_a_code_and_has_nothing_of_it() {
    let ceph = Ceph::shared();
    let (deployment, namespace) = start(ceph);
    deployment.noise();
    let place = put(ceph, &deployment, "wanted");
    deployment.api.image("lab", "kept");
    // `rbd` waits while a pool is full, also for a list.
    let mut before = world(ceph, &[&namespace]);
    before.images.insert(namespace.clone(), BTreeSet::default());
    let full = ceph.fill();
    // Who removes makes room, also where nothing was ever removed before.
    let removed =
        operation_end(&deployment.api, &deployment.api.delete(&format!("{IMAGES}/kept")).expect(202));
    assert_eq!(removed["state"], "succeeded", "{removed:#}");
    for body in [
        json!({"name": "noise", "import_file": "noise.raw"}),
        json!({"name": "noise", "import_rbd": "wanted"}),
    ] {
        let ended = fails(&deployment, &body, "store-full");
        assert!(ended["error"].as_str().unwrap().starts_with("the store is full"), "{ended:#}");
    }
    full.end();
    until("nothing half made is left", SOON, || (world(ceph, &[&namespace]) == before).then_some(()));
    let made = operation_end(&deployment.api, &import(&deployment, "noise", "wanted").expect(202));
    assert_eq!(made["state"], "succeeded", "{made:#}");
    assert!(made.get("code").is_none() && made.get("error").is_none(), "{made:#}");
    ceph.rbd(&["snap", "purge", "--no-progress", &place]);
    ceph.rbd(&["rm", "--no-progress", &place]);
}

#[test]
fn without_a_namespace_to_import_from_nothing_of_the_pool_is_imported() {
    let ceph = Ceph::shared();
    let deployment = Deployment::start_in_ceph(ceph);
    deployment.api.project("lab");
    let before = world(ceph, &[]);
    let refused = import(&deployment, "golden", "anything");
    assert_eq!((refused.status, refused.code().as_str()), (422, "import-unsupported"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("store.import_namespace"));
    assert_eq!(world(ceph, &[]), before);
}

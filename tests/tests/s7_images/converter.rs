//! The converter: what it can do when the image has taken it over, and what is left when it is cut off.

use std::path::PathBuf;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, operation_end, processes, run, sha256, tree, until};
use serde_json::{Value, json};

use crate::{IMAGES, disk, file, qemu_img, text};

/// Who converters run as, unless configured.
const USER: u32 = 209_999;
const SOON: Duration = Duration::from_secs(20);

/// A deployment with `disk.raw`, `disk.qcow2` and a converter that can be replaced.
fn deployment() -> Deployment {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let raw = disk(&deployment);
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&file(&deployment, "disk.qcow2"))]);
    configure(&mut deployment, "");
    deployment
}

fn program(deployment: &Deployment) -> PathBuf {
    deployment.data.join("bin/qemu-img")
}

fn configure(deployment: &mut Deployment, more: &str) {
    let path = deployment.data.join("control-plane.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let convert = format!("{config}[convert]\nprogram = \"{}\"\n{more}", text(&program(deployment)));
    std::fs::write(&path, convert).unwrap();
    deployment.control_plane_stop();
    deployment.control_plane_start();
}

/// Puts a program in the converter's place, at once.
fn replace(deployment: &Deployment, make: impl FnOnce(&str)) {
    let ready = deployment.data.join("bin/qemu-img.ready");
    make(text(&ready));
    std::fs::rename(ready, program(deployment)).unwrap();
}

fn bad(deployment: &Deployment, what: &str) {
    let source = format!("{}/tests/s7_images/bad_qemu_img.c", env!("CARGO_MANIFEST_DIR"));
    let key = format!("-DPATH_KEY=\"{}\"", text(&deployment.data.join("control-plane/master.key")));
    replace(deployment, |to| {
        run("cc", &["-O1", &format!("-DWHAT={what}"), &key, "-o", to, &source]);
    });
}

fn good(deployment: &Deployment) {
    replace(deployment, |to| {
        std::fs::copy("/usr/bin/qemu-img", to).unwrap();
    });
}

fn import(deployment: &Deployment, name: &str) -> Value {
    let new = json!({"name": name, "import_file": "disk.qcow2", "format": "qcow2"});
    deployment.api.post(IMAGES, &new).expect(202)
}

fn converters() -> usize {
    processes().iter().filter(|process| process.uid == USER).count()
}

/// Waits until an import is in the middle of its conversion, as the tool says and the API shows.
fn in_the_middle(deployment: &Deployment, operation: &Value) {
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    until("42 % of the conversion", SOON, || {
        let now = deployment.api.get(&path).expect(200);
        let (done, total) = (now["progress"]["done"].as_u64()?, now["progress"]["total"].as_u64()?);
        (total == 64 << 20 && done * 100 / total == 41 || done * 100 / total == 42).then_some(())
    });
    assert_eq!(converters(), 1);
}

#[test]
fn s7_a_converter_that_was_taken_over_reaches_nothing() {
    let deployment = deployment();
    let stored = tree(&deployment.store());
    let cases = [
        ("SHADOW", "No such file or directory"),
        ("PASSWD", "No such file or directory"),
        ("KEY", "No such file or directory"),
        ("SOCKET", "seccomp"),
        ("FORK", "seccomp"),
        ("MOUNT", "seccomp"),
        ("EXEC", "No such file or directory"),
        ("BEYOND", "File too large"),
        ("MEMORY", "Cannot allocate memory"),
        ("CREATE", "Read-only file system"),
        ("SOURCE", "Permission denied"),
    ];
    for (what, reason) in cases {
        bad(&deployment, what);
        let ended = operation_end(&deployment.api, &import(&deployment, "bad"));
        assert_eq!(ended["state"], "failed", "{what}: {ended:#}");
        assert_eq!(ended["code"], "image-refused", "{what}: {ended:#}");
        let error = ended["error"].as_str().unwrap();
        assert!(error.contains(reason), "{what}: {error}");
        assert_eq!(tree(&deployment.store()), stored, "{what}: nothing is left");
        assert!(deployment.api.list(IMAGES).is_empty(), "{what}: the name is free");
    }
    assert_eq!(converters(), 0);
    good(&deployment);
    let ended = operation_end(&deployment.api, &import(&deployment, "bad"));
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}

#[test]
fn s7_k1_a_conversion_that_is_cut_off_goes_on_or_leaves_nothing() {
    let mut deployment = deployment();
    let expected = sha256(&file(&deployment, "disk.raw"));
    // The converter is killed: the next attempt succeeds.
    bad(&deployment, "SLOW");
    let operation = import(&deployment, "one");
    in_the_middle(&deployment, &operation);
    good(&deployment);
    let converter = processes().into_iter().find(|process| process.uid == USER).unwrap();
    run("kill", &["-9", &converter.pid.to_string()]);
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");

    // The server is killed: the converter dies with it, and the next server goes on.
    bad(&deployment, "SLOW");
    let operation = import(&deployment, "two");
    in_the_middle(&deployment, &operation);
    deployment.control_plane_kill();
    until("no converter is left", SOON, || (converters() == 0).then_some(()));
    good(&deployment);
    deployment.control_plane_start();
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");

    // The server is stopped: it does not wait for the conversion.
    bad(&deployment, "SLOW");
    let operation = import(&deployment, "three");
    in_the_middle(&deployment, &operation);
    deployment.control_plane_stop();
    until("no converter is left", SOON, || (converters() == 0).then_some(()));
    good(&deployment);
    deployment.control_plane_start();
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");
    for name in ["one", "two", "three"] {
        assert_eq!(deployment.api.get(&format!("{IMAGES}/{name}")).expect(200)["sha256"], expected, "{name}");
    }
    let left: Vec<String> = tree(&deployment.store())
        .into_keys()
        .filter(|name| name.ends_with("tmp") || name.ends_with("upload"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_a_converter_only_raw_is_taken() {
    let deployment = deployment();
    // `deployment` configured one that is not there yet.
    let new = json!({"name": "x", "import_file": "disk.qcow2", "format": "qcow2"});
    let answer = deployment.api.post(IMAGES, &new);
    assert_eq!((answer.status, answer.faults()), (422, vec!["format".to_owned()]));
    assert!(answer.json()["detail"].as_str().unwrap().contains("qemu-utils"), "{}", answer.json());
    let new = json!({"name": "x", "format": "qcow2", "virtual_size": 1 << 20, "file_size": 4096});
    assert_eq!(deployment.api.post(IMAGES, &new).faults(), ["format"]);
    let operation = deployment.api.post(IMAGES, &json!({"name": "x", "import_file": "disk.raw"})).expect(202);
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");
}

/// The launcher by itself, started by somebody who is not root: it has no way to fence the tool in, and starts nothing.
#[test]
fn the_launcher_does_nothing_without_root() {
    let launcher = Deployment::built("bmi-control-plane");
    let order = json!({
        "program": "/bin/true", "user": 1234, "source": "/dev/null", "format": "qcow2", "destination": "/dev/null",
        "size": 1 << 20, "processor_seconds": 1,
    });
    let script = format!("echo '{order}' | setpriv --reuid 12345 --clear-groups {} convert", text(&launcher));
    let ended = bmi_tests::output("sh", &["-c", &script]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(111), "{said}");
    assert!(said.contains("entering namespaces"), "{said}");
}

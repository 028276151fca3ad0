//! The bytes of images: hostile imports, and uploads that do not fit.

use std::path::Path;

use bmi_tests::Deployment;
use serde_json::json;

use crate::table::{Table, world};

/// Files that an import must not take, in the import directory and around it.
fn hostile_files(deployment: &Deployment) {
    let images = deployment.data.join("images");
    let disk = vec![7; 1 << 20];
    std::fs::write(deployment.data.join("secret.raw"), &disk).unwrap();
    std::os::unix::fs::symlink(deployment.data.join("secret.raw"), images.join("link.raw")).unwrap();
    std::os::unix::fs::symlink("small.raw", images.join("inner.raw")).unwrap();
    std::os::unix::fs::symlink(&deployment.data, images.join("up")).unwrap();
    std::fs::create_dir(images.join("folder")).unwrap();
    std::fs::write(images.join("odd.raw"), &disk[1..]).unwrap();
    std::fs::write(images.join("empty.raw"), b"").unwrap();
    let mut qcow2 = disk;
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    std::fs::write(images.join("lying.raw"), qcow2).unwrap();
    bmi_tests::run("mkfifo", &[images.join("pipe.raw").to_str().unwrap()]);
}

#[test]
fn s7_hostile_imports_are_refused_with_a_reason() {
    let deployment = world();
    hostile_files(&deployment);
    let stored = bmi_tests::tree(&deployment.store());
    let mut table = Table::new(&deployment);
    let absolute = deployment.data.join("images/small.raw").display().to_string();
    let files = [
        "../secret.raw",
        "folder/../../secret.raw",
        "./../images/small.raw",
        &absolute,
        "/etc/passwd",
        "link.raw",
        "inner.raw",
        "up/secret.raw",
        "folder",
        ".",
        "",
        "absent.raw",
        "odd.raw",
        "empty.raw",
        "lying.raw",
        "pipe.raw",
        "small.raw\0",
        "small.raw/",
        &"x".repeat(5000),
    ];
    for file in files {
        table.invalid(
            "POST",
            "/v1/projects/lab/images",
            &json!({"name": "new", "import_file": file}),
            &["import_file"],
        );
    }
    let answer =
        deployment.api.post("/v1/projects/lab/images", &json!({"name": "new", "import_file": "lying.raw"}));
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("qcow2"),
        "the reason is named: {}",
        answer.json()
    );
    let both = json!({"name": "new", "import_file": "small.raw", "virtual_size": 1 << 20});
    table.invalid("POST", "/v1/projects/lab/images", &both, &["virtual_size"]);
    for name in ["", "a/b", "@v1", "a@b@c", "a\0", "a\nb"] {
        let import = json!({"name": "new", "import_rbd": name});
        table.invalid("POST", "/v1/projects/lab/images", &import, &["import_rbd"]);
    }
    let both = json!({"name": "new", "import_rbd": "debian", "import_file": "small.raw"});
    table.invalid("POST", "/v1/projects/lab/images", &both, &["import_file"]);
    let import = json!({"name": "new", "import_rbd": "debian"});
    table.json("POST", "/v1/projects/lab/images", &import, 422, "import-unsupported");
    table.done();
    assert_eq!(bmi_tests::tree(&deployment.store()), stored, "nothing is left in the store");
    assert!(Path::new(&absolute).exists());
}

#[test]
fn bad_input_uploads() {
    let deployment = world();
    let api = &deployment.api;
    api.post("/v1/projects/lab/images", &json!({"name": "wide", "virtual_size": 6 << 20})).expect(201);
    let content = |image: &str| format!("/v1/projects/lab/images/{image}/content");
    let half = vec![1; 512 << 10];
    let at = |offset: &'static str| [("Upload-Offset", offset)];
    assert_eq!(api.send("PATCH", &content("open"), &at("0"), Some(&half)).status, 204);
    let mut table = Table::new(&deployment);
    for offset in ["0", "524287", "524289", "1048576", "18446744073709551615"] {
        let answer = api.send("PATCH", &content("open"), &at(offset), Some(&half));
        table.check(&format!("upload at {offset}"), &answer, 409, "wrong-offset");
        assert_eq!(answer.header("upload-offset"), Some("524288"), "it says where to go on");
    }
    for offset in ["", "x", "-1", "1.5", "18446744073709551616"] {
        let answer = api.send("PATCH", &content("open"), &at(offset), Some(&half));
        table.check(&format!("upload at `{offset}`"), &answer, 400, "bad-request");
    }
    let answer = api.send("PATCH", &content("open"), &[], Some(&half));
    table.check("upload without an offset", &answer, 400, "bad-request");
    let answer = api.send("PATCH", &content("open"), &at("524288"), Some(&vec![1; (512 << 10) + 1]));
    table.check("one byte beyond the size", &answer, 422, "invalid");
    // More than the server writes at once: it must not keep what it took before it saw that it is too much.
    let answer = api.send("PATCH", &content("wide"), &at("0"), Some(&vec![1; 9 << 20]));
    table.check("9 MiB into 6 MiB", &answer, 422, "invalid");
    let answer = api.send("PATCH", &content("golden"), &at("0"), Some(&half));
    table.check("upload to a sealed image", &answer, 409, "wrong-state");
    table.json("POST", "/v1/projects/lab/images/open/seal", &json!({}), 409, "wrong-state");
    let answer = api.post("/v1/projects/lab/images/open/seal", &json!({}));
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("524288"),
        "it says how much is missing: {}",
        answer.json()
    );
    table.done();
}

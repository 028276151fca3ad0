//! Good files: what is converted is what the file holds.

use std::os::unix::fs::MetadataExt;

use bmi_tests::{Deployment, STORE_SMALL, operation_end, run, sha256, tree};
use serde_json::json;

use crate::{IMAGES, disk, file, qemu_img, text};

/// Options of `qemu-img convert`, one good file each.
const KINDS: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("compressed", &["-c"]),
    ("zstd", &["-c", "-o", "compression_type=zstd"]),
    ("old", &["-o", "compat=0.10"]),
    ("small-clusters", &["-o", "cluster_size=4k"]),
    ("large-clusters", &["-o", "cluster_size=2M"]),
    ("preallocated", &["-o", "preallocation=metadata"]),
    ("lazy", &["-o", "lazy_refcounts=on"]),
];

#[test]
fn qcow2_imports_hold_what_the_file_holds() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agent_start();
    let api = &deployment.api;
    let project = api.project("lab");
    let raw = disk(&deployment);
    let expected = sha256(&raw);
    for (name, options) in KINDS {
        let path = file(&deployment, &format!("{name}.qcow2"));
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], *options, &[text(&raw), text(&path)]].concat());
        let new = json!({"name": name, "import_file": format!("{name}.qcow2"), "format": "qcow2"});
        let ended = operation_end(api, &api.post(IMAGES, &new).expect(202));
        assert_eq!(ended["state"], "succeeded", "{name}: {ended:#}");
        let image = api.get(&format!("{IMAGES}/{name}")).expect(200);
        let seen = (&image["state"], &image["format"], &image["virtual_size"], &image["sha256"]);
        assert_eq!(seen, (&json!("sealed"), &json!("qcow2"), &json!(64 << 20), &json!(expected)), "{name}");
        // The golden image is sparse, root's, and alone: the file it was made from is gone.
        let (project, id) = (project["id"].as_str().unwrap(), image["id"].as_str().unwrap());
        let golden = deployment.store().join(format!("images/{project}/{id}.raw"));
        let meta = std::fs::metadata(&golden).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o400), "{name}");
        assert!(meta.blocks() * 512 < 40 << 20, "{name}: {} blocks", meta.blocks());
        run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&golden), text(&path)]);
    }
    let uploads = tree(&deployment.store()).into_keys().filter(|name| !name.ends_with(".raw")).count();
    let folders = tree(&deployment.store()).into_keys().filter(|name| !name.contains('.')).count();
    assert_eq!(uploads, folders, "nothing but golden images: {:?}", tree(&deployment.store()));

    // What a node would boot from: the clone.
    api.node_of("node-1", "52:54:00:a7:07:01", "lab");
    let instance = api.instance("lab", "node-1", "compressed", &json!({}));
    let project = project["id"].as_str().unwrap();
    let volumes = std::fs::read_dir(deployment.store().join(format!("volumes/{project}"))).unwrap();
    let volumes: Vec<_> = volumes.map(|entry| entry.unwrap().path()).collect();
    let clone = volumes.iter().find(|path| std::fs::metadata(path).unwrap().len() == 64 << 20).unwrap();
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "qcow2", text(clone), text(&file(&deployment, "plain.qcow2"))],
    );
    drop(instance);
}

#[test]
fn the_cli_uploads_and_imports_qcow2() {
    let deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let raw = disk(&deployment);
    let path = file(&deployment, "disk.qcow2");
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&path)]);
    let cli = deployment.cli("lab");
    cli.run(&["image", "upload", "up", "--file", text(&path), "--format", "qcow2", "--seal", "--wait"]).ok();
    cli.run(&["image", "import", "in", "--file", "disk.qcow2", "--format", "qcow2", "--wait"]).ok();
    for name in ["up", "in"] {
        let image = cli.run(&["image", "show", name, "-o", "json"]).ok().json();
        assert_eq!((&image["state"], &image["sha256"]), (&json!("sealed"), &json!(sha256(&raw))), "{name}");
    }
    let lie = cli.run(&["image", "upload", "lie", "--file", text(&raw), "--format", "qcow2"]);
    assert_eq!(lie.status, 2, "{lie:?}");
    assert!(lie.err.contains("is not a qcow2 file"), "{lie:?}");
    let lie = cli.run(&["image", "upload", "lie", "--file", text(&path), "--seal", "--wait"]);
    assert_ne!(lie.status, 0, "{lie:?}");
    assert!(lie.err.contains("qcow2"), "{lie:?}");
}

//! Hostile image files: made by the real `qemu-img`, or patched by hand where it makes none.

use std::path::Path;

use bmi_tests::{Deployment, STORE_SMALL, operation_end, tree, until};
use serde_json::json;

use crate::{IMAGES, disk, file, patch, qemu_img, text};

/// A file, its declared format, and what the refusal must say.
type Case = (&'static str, &'static str, &'static str);

/// Everything that can be wrong with a file itself.
const CASES: &[Case] = &[
    ("backing.qcow2", "qcow2", "backing file"),
    ("data-file.qcow2", "qcow2", "another file"),
    ("empty.qcow2", "qcow2", "empty"),
    ("empty.raw", "raw", "empty"),
    ("truncated.qcow2", "qcow2", "cut short"),
    ("no-tables.qcow2", "qcow2", "cut short"),
    ("lying.raw", "raw", "first bytes say qcow2"),
    ("lying.qcow2", "qcow2", "declared as qcow2"),
    ("vmdk.raw", "raw", "first bytes say VMDK"),
    ("vhdx.raw", "raw", "first bytes say VHDX"),
    ("vdi.raw", "raw", "first bytes say VDI"),
    ("luks.raw", "raw", "first bytes say LUKS"),
    ("vmdk.qcow2", "qcow2", "first bytes say VMDK"),
    ("bomb.qcow2", "qcow2", "more than 100 times"),
    ("overlap.qcow2", "qcow2", "twice"),
    ("encrypted.qcow2", "qcow2", "encrypted"),
    ("snapshot.qcow2", "qcow2", "1 internal snapshots"),
    ("dirty.qcow2", "qcow2", "dirty"),
    ("corrupt.qcow2", "qcow2", "corrupt"),
    ("feature.qcow2", "qcow2", "features"),
    ("extended.qcow2", "qcow2", "extended table entries"),
    ("bitmap.qcow2", "qcow2", "bitmaps"),
    ("odd.qcow2", "qcow2", "multiple of 512"),
];

/// Where the first second table is, as the file says.
fn second_table(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let first = usize::try_from(number(40)).unwrap();
    number(first) & 0x00ff_ffff_ffff_fe00
}

fn entry(path: &Path, at: u64) -> [u8; 8] {
    let at = usize::try_from(at).unwrap();
    std::fs::read(path).unwrap()[at..at + 8].try_into().unwrap()
}

fn make(deployment: &Deployment) {
    let path = |name: &str| file(deployment, name);
    let raw = disk(deployment);
    let create = |name: &str, options: &[&str], size: &str| {
        qemu_img(&[&["create", "-q", "-f", "qcow2"], options, &[text(&path(name)), size]].concat());
    };
    let convert = |name: &str, options: &[&str]| {
        qemu_img(&[&["convert"], options, &["-f", "raw", text(&raw), text(&path(name))]].concat());
    };
    create("backing.qcow2", &["-b", "/etc/passwd", "-F", "raw"], "1M");
    let data = format!("data_file={}", text(&path("data.bin")));
    create("data-file.qcow2", &["-o", &data], "1M");
    std::fs::write(path("empty.qcow2"), b"").unwrap();
    std::fs::write(path("empty.raw"), b"").unwrap();
    for name in ["good.qcow2", "lying.raw", "truncated.qcow2", "no-tables.qcow2", "overlap.qcow2"] {
        convert(name, &["-O", "qcow2"]);
    }
    let cut = |name: &str, length: u64| {
        std::fs::OpenOptions::new().write(true).open(path(name)).unwrap().set_len(length).unwrap();
    };
    cut("truncated.qcow2", std::fs::metadata(path("good.qcow2")).unwrap().len() / 2);
    cut("no-tables.qcow2", 70_000);
    std::fs::write(path("lying.qcow2"), vec![7; 1 << 20]).unwrap();
    convert("vmdk.raw", &["-O", "vmdk"]);
    convert("vmdk.qcow2", &["-O", "vmdk"]);
    convert("vhdx.raw", &["-O", "vhdx"]);
    convert("vdi.raw", &["-O", "vdi"]);
    let secret = ["--object", "secret,id=s,data=secret"];
    let luks = ["create", "-q", "-f", "luks", "-o", "key-secret=s,iter-time=10"];
    qemu_img(&[&luks[..2], &secret, &luks[2..], &[text(&path("luks.raw")), "1M"]].concat());
    let encrypted = ["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"];
    create("encrypted.qcow2", &[&secret[..], &encrypted].concat(), "1M");
    for name in ["snapshot", "dirty", "corrupt", "feature", "bitmap", "odd"] {
        create(&format!("{name}.qcow2"), &[], "1M");
    }
    create("extended.qcow2", &["-o", "extended_l2=on"], "1M");
    qemu_img(&["snapshot", "-c", "before", text(&path("snapshot.qcow2"))]);
    qemu_img(&["bitmap", "--add", text(&path("bitmap.qcow2")), "changes"]);
    patch(&path("dirty.qcow2"), 79, &[1]);
    patch(&path("corrupt.qcow2"), 79, &[2]);
    patch(&path("feature.qcow2"), 72, &[0x80]);
    patch(&path("odd.qcow2"), 31, &[1]);

    // Two parts of the disk are the same part of the file.
    let overlap = path("overlap.qcow2");
    let table = second_table(&overlap);
    let used = (0..8192).map(|index| table + 8 * index).find(|at| entry(&overlap, *at) != [0; 8]).unwrap();
    patch(&overlap, used + 8, &entry(&overlap, used));
    // One compressed part of the file is the whole disk of 512 MiB.
    let bomb = path("bomb.qcow2");
    std::fs::write(path("text.raw"), b"bomb ".repeat(1 << 16)).unwrap();
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&path("text.raw")), text(&bomb)]);
    qemu_img(&["resize", "-q", "-f", "qcow2", text(&bomb), "512M"]);
    let table = second_table(&bomb);
    patch(&bomb, table, &entry(&bomb, table).repeat(8192));
}

#[test]
fn s7_hostile_files_are_refused_and_leave_nothing() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    make(&deployment);
    let stored = tree(&deployment.store());
    let unchanged = |what: &str| {
        until(what, std::time::Duration::from_secs(20), || {
            (tree(&deployment.store()) == stored && api.list(IMAGES).is_empty()).then_some(())
        });
    };
    let mut wrong = Vec::new();
    for (name, format, reason) in CASES {
        // Imported: refused at once, nothing begins.
        let answer = api.post(IMAGES, &json!({"name": "bad", "import_file": name, "format": format}));
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        if (answer.status, answer.code().as_str(), detail.contains(reason)) != (422, "invalid", true) {
            wrong.push(format!("import of {name}: {} {detail}", answer.status));
        }
        unchanged(&format!("import of {name} leaves nothing"));

        // Uploaded: refused when it is sealed, and removed.
        let bytes = std::fs::read(file(&deployment, name)).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let virtual_size = if *format == "raw" { bytes.len().next_multiple_of(512) } else { 64 << 20 };
        let mut new = json!({"name": "bad", "format": format, "virtual_size": virtual_size});
        if *format == "qcow2" {
            new["file_size"] = json!(bytes.len());
        }
        let mut content = bytes;
        content.resize(if *format == "raw" { virtual_size } else { content.len() }, 0);
        api.post(IMAGES, &new).expect(201);
        let sent =
            api.send("PATCH", &format!("{IMAGES}/bad/content"), &[("Upload-Offset", "0")], Some(&content));
        assert_eq!(sent.status, 204, "{name}");
        let answer = api.post(&format!("{IMAGES}/bad/seal"), &json!({}));
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        if (answer.status, answer.code().as_str(), detail.contains(reason)) != (422, "image-refused", true) {
            wrong.push(format!("upload of {name}: {} {detail}", answer.status));
        }
        unchanged(&format!("upload of {name} leaves nothing"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn s7_a_disk_larger_than_the_store_or_than_declared_is_refused() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    let raw = disk(&deployment);
    let good = file(&deployment, "good.qcow2");
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&good)]);
    let stored = tree(&deployment.store());
    // 200 KiB that declare 60 TiB.
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=2M",
        text(&file(&deployment, "huge.qcow2")),
        "60T",
    ]);
    let answer = api.post(IMAGES, &json!({"name": "huge", "import_file": "huge.qcow2", "format": "qcow2"}));
    assert_eq!((answer.status, answer.code().as_str()), (507, "store-full"), "{}", answer.json());

    // The disk in the file is not the one that was declared.
    let bytes = std::fs::read(&good).unwrap();
    let new = json!({"name": "lie", "format": "qcow2", "virtual_size": 32 << 20, "file_size": bytes.len()});
    api.post(IMAGES, &new).expect(201);
    let sent = api.send("PATCH", &format!("{IMAGES}/lie/content"), &[("Upload-Offset", "0")], Some(&bytes));
    assert_eq!(sent.status, 204);
    let answer = api.post(&format!("{IMAGES}/lie/seal"), &json!({}));
    assert_eq!((answer.status, answer.code().as_str()), (422, "image-refused"), "{}", answer.json());
    assert!(answer.json()["detail"].as_str().unwrap().contains("were declared"), "{}", answer.json());
    until("it is removed", std::time::Duration::from_secs(20), || {
        (tree(&deployment.store()) == stored && api.list(IMAGES).is_empty()).then_some(())
    });

    // What contradicts itself.
    for (body, field) in [
        (json!({"name": "x", "format": "vmdk", "virtual_size": 1 << 20}), "format"),
        (json!({"name": "x", "format": "qcow2", "virtual_size": 1 << 20}), "file_size"),
        (json!({"name": "x", "format": "qcow2", "virtual_size": 1 << 20, "file_size": 0}), "file_size"),
        (json!({"name": "x", "format": "raw", "virtual_size": 1 << 20, "file_size": 1 << 20}), "file_size"),
        (json!({"name": "x", "format": "qcow2", "import_file": "good.qcow2", "file_size": 1}), "file_size"),
        (json!({"name": "x", "format": "probe", "import_file": "good.qcow2"}), "format"),
        (json!({"name": "x", "import_file": "good.qcow2"}), "import_file"),
    ] {
        let answer = api.post(IMAGES, &body);
        assert_eq!((answer.status, answer.faults()), (422, vec![field.to_owned()]), "{body}");
    }

    // Somebody changes the file between the request and the copy: it is looked at again.
    let operation =
        api.post(IMAGES, &json!({"name": "swap", "import_file": "good.qcow2", "format": "qcow2"}));
    let operation = operation.expect(202);
    patch(&good, 8, &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 9]);
    let ended = operation_end(api, &operation);
    let copied_before = ended["state"] == "succeeded";
    assert!(copied_before || ended["error"].as_str().unwrap().contains("backing file"), "{ended:#}");
}

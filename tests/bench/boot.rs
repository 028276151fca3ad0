//! A boot over the network beside the same VM with the same image as its local disk.
//!
//! Both are measured from the console: kernel start is its first line, the end is the login prompt. Firmware and iPXE
//! are told apart, since a local disk has no network boot.

use std::path::Path;
use std::time::{Duration, Instant};

use bmi_tests::{Deployment, Firmware, Node, image_place, until};
use serde_json::json;

use crate::provision::run_deployment;
use crate::{Figure, median};

/// An emulated processor takes a minute or two.
const LOGIN: Duration = Duration::from_secs(600);
/// Boots of each kind, in turns; the median counts.
const BOOTS: usize = 3;
/// The kernel's first line.
const KERNEL: &str = "Linux version";

/// Seconds from power on.
pub(crate) struct Times {
    kernel: f64,
    login: f64,
}

fn watch(node: &mut Node, begun: Instant) -> Times {
    let mut kernel = None;
    node.wait("the login prompt", LOGIN, |console| {
        if kernel.is_none() && console.contains(KERNEL) {
            kernel = Some(begun.elapsed().as_secs_f64());
        }
        console.contains("login:")
    });
    Times { kernel: kernel.unwrap(), login: begun.elapsed().as_secs_f64() }
}

/// A boot over iSCSI from a fresh clone, and the bytes that were read to the login prompt.
pub(crate) fn network(deployment: &Deployment, number: usize) -> (Times, f64) {
    let (name, mac) = (format!("node-{number}"), format!("52:54:00:be:01:{number:02x}"));
    let api = &deployment.api;
    api.node_of(&name, &mac, "lab");
    api.instance("lab", &name, "debian-12", &json!({}));
    let begun = Instant::now();
    let mut node = Node::start(deployment, &mac, Firmware::Bios);
    let times = watch(&mut node, begun);
    let path = format!("/v1/projects/lab/instances/{name}");
    // Traffic is reported once a second.
    let read = until("the traffic stands still", Duration::from_secs(60), || {
        let read = || api.get(&path).expect(200)["traffic"]["read"].as_f64().unwrap();
        let before = read();
        std::thread::sleep(Duration::from_millis(1500));
        (read() == before).then_some(before)
    });
    drop(node);
    api.instance_remove("lab", &name);
    (times, read)
}

fn local(deployment: &Deployment, image: &Path, number: usize) -> Times {
    let disk = deployment.store().join(format!("local-{number}.raw"));
    let (from, to) = (image.to_str().unwrap(), disk.to_str().unwrap());
    bmi_tests::run("cp", &["--reflink=auto", "--sparse=always", from, to]);
    let begun = Instant::now();
    let mut node = Node::start_with_disk(deployment, &format!("52:54:00:be:02:{number:02x}"), &disk);
    let times = watch(&mut node, begun);
    drop(node);
    std::fs::remove_file(&disk).unwrap();
    times
}

pub(crate) fn run() -> Vec<Figure> {
    let deployment = run_deployment();
    let _ = deployment.golden_import("lab");
    let image = deployment.data.join("images/debian-12.raw");
    if !image.exists() {
        image_place(&image);
    }
    let (mut over_network, mut from_disk, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=BOOTS {
        let (times, bytes) = network(&deployment, number);
        over_network.push(times);
        read.push(bytes / 1e6);
        from_disk.push(local(&deployment, &image, number));
    }
    let of = |all: &[Times], field: fn(&Times) -> f64| median(all.iter().map(field));
    let figure = |what: &str, field: fn(&Times) -> f64| Figure {
        what: what.to_owned(),
        ours: of(&over_network, field),
        peer: Some(("local disk", of(&from_disk, field))),
        unit: "s",
    };
    vec![
        figure("kernel start to login", |times| times.login - times.kernel),
        figure("power on to login", |times| times.login),
        figure("power on to kernel (firmware, iPXE, loader)", |times| times.kernel),
        Figure { what: "read to the login prompt".to_owned(), ours: median(read), peer: None, unit: "MB" },
    ]
}

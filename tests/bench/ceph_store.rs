//! What the control plane does with volumes in a real Ceph, beside the `rbd` command doing the same or what stands for it;
//! whole provisions of many nodes at once, beside `rbd clone` and tgt-rbd by a script; and what boots read from the OSDs.
//!
//! Deliberately absent: the time of boots (`boot.rs`). The `rbd` command connects each time, which is a part of its figures; a
//! script would do the same.

use std::fs::File;
use std::time::Instant;

use bmi_drivers::store::{DataStore, Place};
use bmi_tests::{Ceph, Deployment, WaitingStore, image_place};
use bmi_types::{ProjectId, TagId, VolumeId};
use serde_json::Value;

use crate::provision::Order;
use crate::tgt::Tgt;
use crate::{Figure, boot, median, provision};

/// Nodes of the largest round, and boots whose bytes are counted.
pub(crate) const NODES: usize = 24;

/// What a node writes before its volume is tagged, and after.
const WRITTEN: &str = "64M";

/// The verbs in the order in which they are done, and the peer of each.
const VERBS: [(&str, &str); 5] = [
    ("clone of a golden image", "rbd cp"),
    ("tag", "rbd snap create"),
    ("roll back", "rbd snap rollback"),
    ("snapshot: an image of a tag, not sealed yet", "rbd cp of the snapshot"),
    ("removal of boot and config volume", "rbd snap purge, rbd rm"),
];

pub(crate) fn run_all(repetitions: u32, nodes: usize, only: Option<&str>) -> Vec<Figure> {
    let wanted = |what: &str| only.is_none_or(|only| what.contains(only));
    let mut figures = Vec::new();
    if wanted("verbs") {
        figures.extend(verbs(repetitions));
    }
    if wanted("provision") {
        figures.extend(provisions(repetitions, nodes));
    }
    if wanted("boots") {
        figures.extend(boots(nodes));
    }
    figures
}

fn timed<T>(samples: &mut Vec<f64>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    samples.push(begun.elapsed().as_secs_f64());
    done
}

/// The driver's verbs, with the rights of a control plane, on clones of the golden Debian image.
fn verbs(repetitions: u32) -> Vec<Figure> {
    let ceph = Ceph::start();
    let store = WaitingStore::open(&ceph);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("debian.raw");
    image_place(&file);
    let quiet = &|_: u64, _: u64| {};
    let golden = Place { project: ProjectId::generate(), volume: VolumeId::generate() };
    store.ask(async |store| {
        store.image_import(golden, File::open(&file).unwrap(), quiet).await.unwrap();
        store.image_seal(golden, quiet).await.unwrap();
    });
    let golden_name = format!("bmi/{}/image-{}@golden", golden.project, golden.volume);
    let write = |name: &str| {
        ceph.rbd(&["bench", "--io-type", "write", "--io-size", "1M", "--io-total", WRITTEN, name]);
    };

    let mut ours: [Vec<f64>; 5] = Default::default();
    let mut peers: [Vec<f64>; 5] = Default::default();
    for _ in 0..repetitions {
        let boot = Place { project: ProjectId::generate(), volume: VolumeId::generate() };
        let config = Place { project: boot.project, volume: VolumeId::generate() };
        let image = Place { project: boot.project, volume: VolumeId::generate() };
        let (tag, name) = (TagId::generate(), format!("bmi/{}/volume-{}", boot.project, boot.volume));
        timed(&mut ours[0], || store.ask(async |store| store.volume_clone(golden, boot).await.unwrap()));
        store.ask(async |store| {
            store.volume_put(config, vec![1; 65536].into()).await.unwrap();
            store.access_ensure(boot, config).await.unwrap();
        });
        write(&name);
        timed(&mut ours[1], || store.ask(async |store| store.tag_create(boot, config, tag).await.unwrap()));
        write(&name);
        timed(&mut ours[2], || {
            store.ask(async |store| store.roll_back(boot, config, tag, quiet).await.unwrap());
        });
        timed(&mut ours[3], || {
            store.ask(async |store| store.image_snapshot(boot, config, tag, image, quiet).await.unwrap());
        });
        timed(&mut ours[4], || {
            store.ask(async |store| {
                store.volume_remove(boot).await.unwrap();
                store.volume_remove(config).await.unwrap();
            });
        });
        store.ask(async |store| {
            store.image_remove(image).await.unwrap();
            store.reclaim().await.unwrap();
        });

        // The first is a full copy, which is what a clone saves; it is the volume of the others.
        timed(&mut peers[0], || ceph.rbd(&["cp", &golden_name, "bmi/peer"]));
        write("bmi/peer");
        timed(&mut peers[1], || ceph.rbd(&["snap", "create", "bmi/peer@tag"]));
        write("bmi/peer");
        timed(&mut peers[2], || ceph.rbd(&["snap", "rollback", "--no-progress", "bmi/peer@tag"]));
        timed(&mut peers[3], || ceph.rbd(&["cp", "--no-progress", "bmi/peer@tag", "bmi/peer-image"]));
        timed(&mut peers[4], || {
            ceph.rbd(&["snap", "purge", "--no-progress", "bmi/peer"]);
            ceph.rbd(&["rm", "--no-progress", "bmi/peer"])
        });
        ceph.rbd(&["rm", "--no-progress", "bmi/peer-image"]);
    }
    let figures: Vec<Figure> = VERBS
        .into_iter()
        .zip(ours.into_iter().zip(peers))
        .map(|((what, peer), (ours, peers))| {
            let peer = Some((peer, median(peers)));
            Figure { what: format!("verbs: {what}"), ours: median(ours), peer, unit: "s" }
        })
        .collect();
    figures.iter().for_each(Figure::print);
    figures
}

/// A deployment with the golden Debian image and nodes.
fn deployment(ceph: &Ceph, nodes: usize) -> Deployment {
    let mut deployment = Deployment::start_in_ceph(ceph);
    deployment.api.project("lab");
    deployment.agent_start();
    let _ = deployment.golden_import("lab");
    for number in 1..=nodes {
        deployment.api.node_of(&format!("node-{number}"), &format!("52:54:00:be:00:{number:02x}"), "lab");
    }
    deployment
}

fn provisions(repetitions: u32, nodes: usize) -> Vec<Figure> {
    let ceph = Ceph::start();
    let deployment = deployment(&ceph, nodes);
    let projects = deployment.api.get("/v1/projects/lab").expect(200);
    let space = format!("bmi/{}", projects["id"].as_str().unwrap());
    let image = ceph.rbd(&["ls", &space]).lines().find(|name| name.starts_with("image-")).unwrap().to_owned();
    let golden = format!("{space}/{image}@golden");
    let tgt = Tgt::start();
    let mut figures = Vec::new();
    for count in [1, nodes] {
        let (mut portal, mut removal, mut peers, mut removed) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..repetitions {
            let round = provision::round(&deployment, &Order::of_lab("debian-12", count));
            portal.push(round.portal);
            removal.push(round.removal);
            let name = |number: usize| format!("bmi/peer-{number}");
            timed(&mut peers, || {
                for number in 1..=count {
                    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &golden, &name(number)]);
                    tgt.expose_rbd(number, &name(number), &ceph.conf());
                }
            });
            timed(&mut removed, || {
                for number in 1..=count {
                    tgt.withdraw(number);
                    ceph.rbd(&["rm", "--no-progress", &name(number)]);
                }
            });
        }
        let mut add = |what: &str, ours, peers| {
            let peer = Some(("rbd and tgt-rbd by a script", median(peers)));
            let figure = Figure {
                what: format!("provision: {what}, {count} at once"),
                ours: median(ours),
                peer,
                unit: "s",
            };
            figure.print();
            figures.push(figure);
        };
        add("request to portal", portal, peers);
        add("deprovision", removal, removed);
    }
    figures
}

/// What the OSD has handed out to clients, in bytes.
fn handed_out(ceph: &Ceph) -> f64 {
    let counters: Value = serde_json::from_str(&ceph.ceph(&["tell", "osd.0", "perf", "dump"])).unwrap();
    counters["osd"]["op_out_bytes"].as_f64().unwrap()
}

/// Nodes that boot from fresh clones of one image, one after another: each reads the same, and nothing is kept for the next.
fn boots(nodes: usize) -> Vec<Figure> {
    let ceph = Ceph::start();
    let deployment = deployment(&ceph, 0);
    let begun = handed_out(&ceph);
    let (mut asked, mut handed) = (Vec::new(), Vec::new());
    for number in 1..=nodes {
        let before = handed_out(&ceph);
        let (_, read) = boot::network(&deployment, number);
        asked.push(read / 1e6);
        handed.push((handed_out(&ceph) - before) / 1e6);
    }
    let in_all = (handed_out(&ceph) - begun) / 1e6;
    let figure = |what: String, ours, peer| Figure { what: format!("boots: {what}"), ours, peer, unit: "MB" };
    let figures = vec![
        figure("read from Ceph by one, to the login prompt".to_owned(), median(handed), {
            Some(("asked for by the node", median(asked.iter().copied())))
        }),
        figure(format!("read from Ceph by {nodes} of one image"), in_all, {
            Some(("asked for by the nodes", asked.iter().sum()))
        }),
    ];
    figures.iter().for_each(Figure::print);
    figures
}

//! Provision and deprovision, of the golden Debian image in a local store.

use std::path::PathBuf;
use std::time::Instant;

use bmi_tests::{Api, Deployment, STORE_LARGE, operation_end, tree};
use serde_json::{Value, json};

use crate::tgt::Tgt;
use crate::{Figure, median};

/// Nodes at once.
const ROUNDS: [usize; 3] = [1, 8, 24];
/// One at a time is short: it is done several times, and the median counts.
const REPEATS: usize = 7;

fn seconds(from: &Value, to: &Value) -> f64 {
    let micros = |value: &Value| {
        let time: bmi_types::Timestamp = serde_json::from_value(value.clone()).unwrap();
        time.micros()
    };
    (micros(to) - micros(from)) as f64 / 1e6
}

/// What one round took: to the last portal, a single clone, and to the last removal.
pub(crate) struct Round {
    pub(crate) portal: f64,
    clone: f64,
    pub(crate) removal: f64,
    /// Until the last had done each step, by their names in their order.
    pub(crate) steps: Vec<(String, f64)>,
}

/// What is asked for, all of it at once.
pub(crate) struct Order {
    pub(crate) project: String,
    pub(crate) image: String,
    pub(crate) network: String,
    pub(crate) nodes: Vec<String>,
}

impl Order {
    /// An image of the project `lab` for its first nodes.
    pub(crate) fn of_lab(image: &str, count: usize) -> Self {
        Self {
            project: "lab".to_owned(),
            image: image.to_owned(),
            network: "provisioning".to_owned(),
            nodes: (1..=count).map(|number| format!("node-{number}")).collect(),
        }
    }

    /// Asks for it, and waits until all is there. Gives how it went.
    pub(crate) fn place(&self, api: &Api) -> Vec<Value> {
        let path = format!("/v1/projects/{}/instances", self.project);
        let operations: Vec<Value> = std::thread::scope(|scope| {
            let requests: Vec<_> = self
                .nodes
                .iter()
                .map(|node| {
                    let body =
                        json!({"name": node, "node": node, "image": self.image, "network": self.network});
                    let path = &path;
                    scope.spawn(move || api.post(path, &body).expect(202))
                })
                .collect();
            requests.into_iter().map(|request| request.join().unwrap()).collect()
        });
        let ended: Vec<Value> = operations.iter().map(|operation| operation_end(api, operation)).collect();
        assert!(ended.iter().all(|operation| operation["state"] == "succeeded"), "{ended:#?}");
        ended
    }
}

pub(crate) fn round(deployment: &Deployment, order: &Order) -> Round {
    let api = &deployment.api;
    let ended = order.place(api);
    let step = |operation: &Value, name: &str, field: &str| {
        let steps = operation["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap()[field].clone()
    };
    let first =
        ended.iter().map(|operation| &operation["created_at"]).min_by_key(|at| at.to_string()).unwrap();
    let portal = ended.iter().map(|operation| seconds(first, &step(operation, "expose-target", "ended_at")));
    let clone = ended.iter().map(|operation| {
        let begun = step(operation, "prepare-image", "started_at");
        seconds(&begun, &step(operation, "prepare-image", "ended_at"))
    });
    let (portal, clone) = (portal.fold(0.0, f64::max), median(clone));
    let steps = ended[0]["steps"].as_array().unwrap().iter().map(|one| {
        let name = one["name"].as_str().unwrap();
        let ends = ended.iter().map(|operation| seconds(first, &step(operation, name, "ended_at")));
        (name.to_owned(), ends.fold(0.0, f64::max))
    });
    let steps = steps.collect();
    let begun = Instant::now();
    let path = |node: &String| format!("/v1/projects/{}/instances/{node}", order.project);
    let removals: Vec<Value> = order.nodes.iter().map(|node| api.delete(&path(node)).expect(202)).collect();
    for removal in &removals {
        assert_eq!(operation_end(api, removal)["state"], "succeeded");
    }
    Round { portal, clone, removal: begun.elapsed().as_secs_f64(), steps }
}

pub(crate) fn run_all(deployment: &Deployment) -> Vec<Figure> {
    let images = deployment.store().join("images");
    let image: PathBuf =
        tree(&images).keys().map(|name| images.join(name)).find(|path| path.is_file()).unwrap();
    // On the same file system, so that both clone in the same way.
    let folder = deployment.store().join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let mut figures = Vec::new();
    let tgt = Tgt::start();
    for count in ROUNDS {
        let repeats = if count == 1 { REPEATS } else { 3 };
        // Taken in turns, so that what else the machine does meets both.
        let (mut ours, mut peers, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..repeats {
            ours.push(round(deployment, &Order::of_lab("debian-12", count)));
            peers.push(tgt.provision(&image, &folder, count));
            removed.push(tgt.deprovision(&folder, count));
        }
        let of = |field: fn(&Round) -> f64| median(ours.iter().map(field));
        let what = |text: &str| format!("{text}, {count} at once");
        let figure = |what, ours, peer| Figure { what, ours, peer: Some(("tgt", peer)), unit: "s" };
        figures.push(figure(what("request to portal"), of(|round| round.portal), median(peers)));
        figures.push(figure(what("deprovision"), of(|round| round.removal), median(removed)));
        if count == 1 {
            let begun = Instant::now();
            let copy = folder.join("copy.raw");
            let (from, to) = (image.to_str().unwrap(), copy.to_str().unwrap());
            bmi_tests::run("cp", &["--reflink=never", "--sparse=always", from, to]);
            bmi_tests::run("sync", &[to]);
            let copied = begun.elapsed().as_secs_f64();
            std::fs::remove_file(&copy).unwrap();
            figures.push(Figure {
                what: "clone (step prepare-image, both volumes)".to_owned(),
                ours: of(|round| round.clone),
                peer: Some(("full copy", copied)),
                unit: "s",
            });
        }
    }
    drop(tgt);
    std::fs::remove_dir_all(&folder).unwrap();
    figures
}

pub(crate) fn run_deployment() -> Deployment {
    let mut deployment = Deployment::start(STORE_LARGE);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment
}

pub(crate) fn run() -> Vec<Figure> {
    let deployment = run_deployment();
    let _ = deployment.golden_import("lab");
    for number in 1..=ROUNDS[ROUNDS.len() - 1] {
        deployment.api.node_of(&format!("node-{number}"), &format!("52:54:00:be:00:{number:02x}"), "lab");
    }
    run_all(&deployment)
}

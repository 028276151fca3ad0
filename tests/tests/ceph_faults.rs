//! What fails around nodes whose disks are in Ceph: brokers, OSDs, the monitor, the control plane. A node that writes goes on
//! and loses nothing that was acknowledged; an operation that was cut off is ended, with no orphan; and nothing is deleted
//! because something could not be read.
//!
//! The moments of kills are drawn by a seed that is printed and is `PROPTEST_RNG_SEED`; `BMI_FULL=1` kills more often, and
//! has everything stand still for longer than Ceph's own timeouts.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmi_tests::{
    Api, Ceph, Client, Deployment, Disk, Process, Random, Writes, operation_end, processes, run, until,
};
use serde_json::{Value, json};

/// What runs in the background has run within this.
const SOON: Duration = Duration::from_secs(120);
/// Blocks that a node writes around a fault, and of these before it.
const BLOCKS: u32 = 600;
const BEFORE: usize = 100;

/// What fails, and comes back.
type Fault = fn(&Ceph, &mut Deployment);

fn is_full() -> bool {
    std::env::var_os("BMI_FULL").is_some()
}

/// How long something stands still: shortly, or longer than any of Ceph's timeouts for clients and OSDs.
fn pause() {
    std::thread::sleep(Duration::from_secs(if is_full() { 60 } else { 4 }));
}

/// A deployment with a project, an agent and an image of noise; and the project's namespace.
fn start(ceph: &Ceph) -> (Deployment, String) {
    let mut deployment = Deployment::start_in_ceph(ceph);
    let project = deployment.api.project("lab");
    deployment.agent_start();
    deployment.noise();
    deployment.api.image_of("lab", "noise", "noise.raw");
    (deployment, project["id"].as_str().unwrap().to_owned())
}

/// The processes of a deployment's program.
fn of_program(deployment: &Deployment, program: &str) -> Vec<Process> {
    let uids = deployment.uid_base..deployment.uid_base + 100;
    // In a root directory of its own it has a path of its own.
    let named = |command: &str| {
        command.split(' ').next().is_some_and(|path| path.rsplit('/').next() == Some(program))
    };
    processes().into_iter().filter(|one| uids.contains(&one.uid) && named(&one.command)).collect()
}

fn signal(process: &Process, signal: &str) {
    run("kill", &[&format!("-{signal}"), &process.pid.to_string()]);
}

#[test]
fn a_node_writes_on_whatever_fails_and_loses_nothing() {
    let ceph = Ceph::shared();
    let (mut deployment, _) = start(ceph);
    deployment.api.node_of("node-1", "52:54:00:cf:00:01", "lab");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&deployment, "node-1", "52:54:00:cf:00:01");
    let disk = Disk::of(&client);
    let target = of_program(&deployment, "bmi-target");
    let faults: [(&str, Fault); 6] = [
        ("its broker is killed", |_, deployment| {
            let broker = of_program(deployment, "bmi-broker").remove(0);
            signal(&broker, "KILL");
            until("another broker", SOON, || {
                let now = of_program(deployment, "bmi-broker");
                (now.len() == 1 && now[0].pid != broker.pid).then_some(())
            });
        }),
        ("its broker is paused", |_, deployment| {
            let broker = of_program(deployment, "bmi-broker").remove(0);
            signal(&broker, "STOP");
            pause();
            signal(&broker, "CONT");
        }),
        ("the OSD crashes", |ceph, _| {
            ceph.osd_kill(0);
            ceph.osd_start(0);
        }),
        ("the OSD stands still", |ceph, _| {
            ceph.osd_pause(0);
            pause();
            ceph.osd_resume(0);
        }),
        ("the monitor stands still", |ceph, _| {
            ceph.mon_pause();
            pause();
            ceph.mon_resume();
        }),
        ("the control plane is gone", |_, deployment| {
            deployment.control_plane_kill();
            pause();
            deployment.control_plane_start();
        }),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (number, (name, fault)) in (0..).zip(faults) {
        let begun = std::time::Instant::now();
        let mut writes = Writes::start(&disk, directory.path(), BLOCKS, number);
        assert_eq!(writes.acknowledged(BEFORE), BEFORE);
        fault(ceph, &mut deployment);
        writes.finish(&disk, BEFORE);
        println!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    assert_eq!(of_program(&deployment, "bmi-target"), target, "the target never ended");
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
    deployment.assert_alive();
}

/// Everything that operations make outside the database.
#[derive(Debug, PartialEq)]
struct World {
    images: BTreeSet<String>,
    users: BTreeSet<String>,
    processes: BTreeMap<&'static str, usize>,
}

fn world(ceph: &Ceph, deployment: &Deployment, namespace: &str) -> World {
    let count = |program| (program, of_program(deployment, program).len());
    let user = deployment.ceph_user.as_ref().unwrap();
    World {
        images: ceph.images(namespace),
        users: ceph.users(&format!("{user}-")).into_keys().collect(),
        processes: ["bmi-target", "bmi-broker"].map(count).into_iter().collect(),
    }
}

fn begin(api: &Api, kind: u64, round: u64) -> Value {
    match kind {
        0 => {
            let body =
                json!({"name": "node-1", "node": "node-1", "image": "noise", "network": "provisioning"});
            api.post("/v1/projects/lab/instances", &body).expect(202)
        }
        1 => {
            api.instance("lab", "node-1", "noise", &json!({}));
            api.delete("/v1/projects/lab/instances/node-1").expect(202)
        }
        kind => {
            let (from, what) =
                if kind == 2 { ("import_file", "noise.raw") } else { ("import_rbd", "noise@v1") };
            let body = json!({"name": format!("image-{round}"), from: what});
            api.post("/v1/projects/lab/images", &body).expect(202)
        }
    }
}

/// Puts the noise where it can be imported from.
fn import_namespace(ceph: &Ceph, deployment: &mut Deployment) {
    let noise = deployment.data.join("images/noise.raw");
    ceph.rbd(&["namespace", "create", "bmi/import"]);
    ceph.rbd(&["import", "--no-progress", noise.to_str().unwrap(), "bmi/import/noise"]);
    ceph.rbd(&["snap", "create", "--no-progress", "bmi/import/noise@v1"]);
    deployment.control_plane_configure("import_namespace = \"import\"");
}

#[test]
fn k1_a_control_plane_killed_at_any_moment_leaves_nothing_half_done_in_ceph() {
    let ceph = Ceph::shared();
    let mut random = Random::of_the_run();
    let (mut deployment, namespace) = start(ceph);
    deployment.api.node_of("node-1", "52:54:00:cf:01:01", "lab");
    import_namespace(ceph, &mut deployment);
    let before = world(ceph, &deployment, &namespace);
    for round in 0..if is_full() { 80 } else { 4 } {
        // Each kind in turn; they take a second at most.
        let (kind, delay) = (round % 4, random.below(900));
        println!("round {round}: operation {kind}, after {delay} ms");
        let operation = begin(&deployment.api, kind, round);
        std::thread::sleep(Duration::from_millis(delay));
        deployment.control_plane_kill();
        deployment.control_plane_start();
        let api = &deployment.api;
        let ended = operation_end(api, &operation);
        assert_eq!(ended["state"], "succeeded", "round {round}: {ended:#}");
        match kind {
            0 => drop(api.instance_remove("lab", "node-1")),
            1 => assert_eq!(api.get("/v1/projects/lab/instances/node-1").status, 404),
            _ => {
                let image = format!("/v1/projects/lab/images/image-{round}");
                assert_eq!(api.get(&image).expect(200)["state"], "sealed");
                let removal = operation_end(api, &api.delete(&image).expect(202));
                assert_eq!(removal["state"], "succeeded", "{removal:#}");
            }
        }
        until(&format!("round {round} left nothing"), SOON, || {
            (world(ceph, &deployment, &namespace) == before).then_some(())
        });
    }
    deployment.assert_alive();
}

/// Ceph refuses every object to the control plane, which meanwhile looks for orphans and deletes an instance.
#[test]
fn k2_nothing_is_deleted_because_ceph_cannot_be_read() {
    let ceph = Ceph::shared();
    let (mut deployment, namespace) = start(ceph);
    for node in 1..=2 {
        let name = format!("node-{node}");
        deployment.api.node_of(&name, &format!("52:54:00:cf:02:0{node}"), "lab");
        deployment.api.instance("lab", &name, "noise", &json!({}));
    }
    let before = world(ceph, &deployment, &namespace);
    deployment.control_plane_configure("[reconcile]\nevery_s = 1");
    let client = Client::new(&deployment, "node-2", "52:54:00:cf:02:02");
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();
    let mut writes = Writes::start(&disk, directory.path(), BLOCKS, 1);
    let acknowledged = writes.acknowledged(1);

    let blocked = addresses(ceph, deployment.ceph_user.as_ref().unwrap());
    assert!(!blocked.is_empty());
    for address in &blocked {
        ceph.ceph(&["osd", "blocklist", "add", address, "3600"]);
    }
    let operation = deployment.api.delete("/v1/projects/lab/instances/node-1").expect(202);
    // A client never comes off the blocklist: only another process can go on.
    let status = deployment.control_plane_end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(ceph.images(&namespace), before.images, "nothing was deleted or set aside");
    writes.finish(&disk, acknowledged);

    deployment.control_plane_start();
    let ended = operation_end(&deployment.api, &operation);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    until("only the other instance's volumes are left", SOON, || {
        let left = ceph.images(&namespace);
        (left.len() + 2 == before.images.len() && left.is_subset(&before.images)).then_some(())
    });
    assert!(!disk.does(&["read 0 4k", "write 0 4k"]).contains("failed"));
    drop(client);
    deployment.api.instance_remove("lab", "node-2");
    for address in &blocked {
        ceph.ceph(&["osd", "blocklist", "rm", address]);
    }
}

/// The addresses of a user's connections to the monitor, as a blocklist has them.
fn addresses(ceph: &Ceph, user: &str) -> Vec<String> {
    let sessions: Value =
        serde_json::from_str(&ceph.ceph(&["tell", "mon.a", "sessions", "-f", "json"])).unwrap();
    let entity = format!("client.{user}");
    let of_user = |session: &&Value| session["entity_name"] == *entity;
    let sessions = sessions.as_array().unwrap().iter().filter(of_user);
    let address = |session: &Value| {
        let vector = session["addrs"]["addrvec"][0].clone();
        format!("{}/{}", vector["addr"].as_str().unwrap(), vector["nonce"])
    };
    sessions.map(address).collect()
}

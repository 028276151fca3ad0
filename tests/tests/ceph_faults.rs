//! What fails around nodes whose disks are in Ceph: brokers, OSDs, the monitor, the control plane. A node that writes goes on
//! and loses nothing that was acknowledged; an operation that was cut off, or that Ceph was away from, is ended, with no
//! orphan; and nothing is deleted because something could not be read.
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
use std::time::{Duration, Instant};

use bmi_tests::{
    Answer, Api, Ceph, Client, Deployment, Disk, Process, Random, Writes, operation_end, processes, run,
    sha256, until,
};
use serde_json::{Value, json};

/// What runs in the background has run within this.
const SOON: Duration = Duration::from_secs(120);
/// Blocks that a node writes around a fault, and of these before it.
const BLOCKS: u32 = 600;
const BEFORE: usize = 100;

/// What needs no Ceph is answered within this.
const PROMPT: Duration = Duration::from_secs(3);

/// What fails, and comes back.
type Fault = fn(&Ceph, &mut Deployment);
/// Makes something stand still, or lets it go on.
type Switch = fn(&Ceph);

fn is_full() -> bool {
    std::env::var_os("BMI_FULL").is_some()
}

/// How long something stands still: shortly, or longer than any of Ceph's timeouts for clients and OSDs.
fn still() -> Duration {
    Duration::from_secs(if is_full() { 60 } else { 4 })
}

fn pause() {
    std::thread::sleep(still());
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
fn b4_a_node_writes_on_whatever_fails_and_loses_nothing() {
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
        let begun = Instant::now();
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

/// An image that was removed, one that was set aside long ago, both kept for their clones; and one in the trash.
const RETIRED: &str = "retired-01a21053-6083-733d-995f-00000000000a";
const ASIDE: &str = "aside-1-image-01a21053-6083-733d-995f-00000000000b";
const TRASHED: &str = "image-01a21053-6083-733d-995f-00000000000c";

/// What a start needs at the OSDs: everything in the pool's default namespace, and in the one that it makes.
const OF_A_START: &str = "allow rwx pool=bmi namespace=\"\", allow rwx pool=bmi namespace=bmi-preflight-*";

/// Everything in a namespace, but to list its images: its objects, and of its directory all methods but that one.
fn all_but_listing(namespace: &str) -> String {
    let at = |object: &str| format!("pool=bmi namespace={namespace} object_prefix {object}");
    let objects = ["children", "data.", "header.", "id.", "info", "mirroring", "object_map.", "trash"];
    let methods = ["add_image", "get_id", "get_name", "remove_image", "rename_image", "state_assert"];
    let guard = format!("allow rwx {}", at("bmi.trash"));
    let objects = objects.iter().map(|object| format!("allow rwx {}", at(&format!("rbd_{object}"))));
    let directory = at("rbd_directory");
    let methods = methods.iter().map(|method| format!("allow class rbd dir_{method} {directory}"));
    std::iter::once(guard).chain(objects).chain(methods).collect::<Vec<String>>().join(", ")
}

/// Lets a user do something else at the OSDs, from the next connection on, and everything at the monitors.
fn allow(ceph: &Ceph, user: &str, osd: &str) {
    ceph.ceph(&["auth", "caps", &format!("client.{user}"), "mon", "allow *", "osd", osd]);
}

/// Makes an image with a snapshot, and a clone of it in the namespace `elsewhere`.
fn with_clone(ceph: &Ceph, namespace: &str, name: &str) {
    let image = format!("bmi/{namespace}/{name}");
    let (snapshot, clone) = (format!("{image}@golden"), format!("bmi/elsewhere/{name}"));
    ceph.rbd(&["create", &image, "--size", "4M"]);
    ceph.rbd(&["snap", "create", "--no-progress", &snapshot]);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &snapshot, &clone]);
}

/// Shows that a user can remove an image that has a clone, and a user.
fn removes(ceph: &Ceph, user: &str, namespace: &str, victim: &str) {
    let (image, other) = (format!("bmi/{namespace}/{victim}"), format!("client.{user}-{victim}"));
    with_clone(ceph, namespace, victim);
    ceph.ceph(&["auth", "get-or-create", &other]);
    ceph.rbd(&["--id", user, "snap", "rm", "--no-progress", &format!("{image}@golden")]);
    ceph.rbd(&["--id", user, "trash", "mv", &image]);
    ceph.ceph(&["--id", user, "auth", "rm", &other]);
}

/// How often the store was compared with the database in vain, because of a read.
fn in_vain(deployment: &Deployment, read: &str) -> usize {
    let what = "the store could not be compared with the database";
    let log = deployment.control_plane_log();
    log.lines().filter(|line| line.contains(what) && line.contains(read)).count()
}

/// Whether the control plane says that so many images and volumes are missing.
fn misses(deployment: &Deployment, count: usize) -> bool {
    let metrics = String::from_utf8(deployment.api.get("/metrics").body).unwrap();
    metrics.contains(&format!("bmi_store_missing {count}\n"))
}

/// Starts a control plane, which compares three times in vain because of a read, and ends it again.
fn compares_in_vain(deployment: &mut Deployment, read: &str) {
    assert_eq!(in_vain(deployment, read), 0);
    deployment.control_plane_start();
    until(&format!("it cannot {read}"), SOON, || (in_vain(deployment, read) >= 3).then_some(()));
    assert!(misses(deployment, 0), "what cannot be read is not missing");
    deployment.control_plane_stop();
}

/// The control plane's reads fail, or find nothing, while it may remove everything, as is shown each time.
#[test]
fn k2_nothing_is_deleted_because_a_read_fails_or_finds_nothing() {
    let ceph = Ceph::start();
    let (mut deployment, namespace) = start(&ceph);
    for node in 1..=2 {
        let name = format!("node-{node}");
        deployment.api.node_of(&name, &format!("52:54:00:cf:03:0{node}"), "lab");
        deployment.api.instance("lab", &name, "noise", &json!({}));
    }
    let (user, space) = (deployment.ceph_user.clone().unwrap(), format!("bmi/{namespace}"));
    ceph.rbd(&["namespace", "create", "bmi/elsewhere"]);
    deployment.control_plane_configure("[reconcile]\nevery_s = 1");
    deployment.control_plane_stop();

    // What goes when it has no clones has one, where the control plane may not look.
    let own = format!("{OF_A_START}, allow rwx pool=bmi namespace={namespace}");
    for (name, victim) in [(RETIRED, "victim-1"), (ASIDE, "victim-2")] {
        with_clone(&ceph, &namespace, name);
        allow(&ceph, &user, &own);
        removes(&ceph, &user, &namespace, victim);
        let before = world(&ceph, &deployment, &namespace);
        compares_in_vain(&mut deployment, &format!("list the clones of {space}/{name}"));
        assert_eq!(world(&ceph, &deployment, &namespace), before, "{name}");
    }

    // It cannot be told what is in the project's namespace.
    ceph.rbd(&["create", &format!("{space}/{TRASHED}"), "--size", "4M"]);
    ceph.rbd(&["trash", "mv", &format!("{space}/{TRASHED}")]);
    allow(&ceph, &user, &format!("{OF_A_START}, {}", all_but_listing(&namespace)));
    removes(&ceph, &user, &namespace, "victim-3");
    let before = world(&ceph, &deployment, &namespace);
    compares_in_vain(&mut deployment, &format!("list {space}"));
    assert_eq!(world(&ceph, &deployment, &namespace), before);

    // The project's namespace is not in the list of those, and all rights are there.
    let listed = ceph.rados(&["-p", "bmi", "listomapkeys", "rbd_namespace"]);
    let key = listed.lines().find(|key| key.ends_with(namespace.as_str())).unwrap();
    ceph.rados(&["-p", "bmi", "rmomapkey", "rbd_namespace", key]);
    drop(ceph.control_plane_keyring(&user));
    deployment.control_plane_start();
    until("an image and two volumes of each instance are missed", SOON, || {
        misses(&deployment, 5).then_some(())
    });
    // Three more looks.
    std::thread::sleep(Duration::from_secs(3));
    deployment.control_plane_stop();
    ceph.rbd(&["namespace", "create", &space]);
    assert_eq!(world(&ceph, &deployment, &namespace), before);

    // Everything is read again: now goes what is in the trash, and nothing else as long as it has clones.
    deployment.control_plane_start();
    let trashed = format!("trash: {TRASHED}");
    until("the trash is empty, and nothing is missed", SOON, || {
        let now = ceph.images(&namespace);
        let only = before.images.difference(&now).eq([&trashed]) && now.is_subset(&before.images);
        (only && misses(&deployment, 0)).then_some(())
    });
    for name in [RETIRED, ASIDE] {
        ceph.rbd(&["rm", "--no-progress", &format!("bmi/elsewhere/{name}")]);
    }
    until("what has no clones any more is gone", SOON, || {
        let kept = |name: &String| name.contains(RETIRED) || name.contains(ASIDE);
        (!ceph.images(&namespace).iter().any(kept)).then_some(())
    });
    let client = Client::new(&deployment, "node-2", "52:54:00:cf:03:02");
    let noise = deployment.data.join("images/noise.raw");
    assert!(Disk::of(&client).is_same_as(noise.to_str().unwrap()));
    drop(client);
    for (node, left) in [("node-1", 1), ("node-2", 0)] {
        deployment.api.instance_remove("lab", node);
        assert_eq!(ceph.users(&format!("{user}-")).len(), left, "a user for each boot volume");
        until(&format!("the volumes of {node} are gone"), SOON, || {
            let images = ceph.images(&namespace);
            (images.iter().filter(|name| name.contains("volume-")).count() == 2 * left).then_some(())
        });
    }
    deployment.assert_alive();
}

/// What is asked for around a fault.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// An image of the noise, by its name.
    Import(&'static str),
    /// An instance on a node.
    Provision(&'static str),
    /// The end of the instance on a node.
    Deprovision(&'static str),
}

impl Ask {
    fn send(self, api: &Api) -> Answer {
        match self {
            Self::Import(name) => {
                api.post("/v1/projects/lab/images", &json!({"name": name, "import_file": "noise.raw"}))
            }
            Self::Provision(node) => {
                let body = json!({"name": node, "node": node, "image": "noise", "network": "provisioning"});
                api.post("/v1/projects/lab/instances", &body)
            }
            Self::Deprovision(node) => api.delete(&format!("/v1/projects/lab/instances/{node}")),
        }
    }

    /// Sends it; gives what was begun.
    fn begin(self, api: &Api) -> (Self, Value) {
        (self, self.send(api).expect(202))
    }

    /// Waits for its end. Where that is a failure it says that something was away, and the same succeeds now.
    fn end(self, api: &Api, operation: &Value) {
        let ended = operation_end(api, operation);
        let steps = ended["steps"].as_array().unwrap();
        let failed: Vec<&str> = steps.iter().filter_map(|step| step["code"].as_str()).collect();
        println!("{self:?}: {}, on the way {failed:?}", ended["state"]);
        if ended["state"] == "succeeded" {
            return;
        }
        let told: &[&str] = match self {
            // What keeps a broker from its volume is told by the agent.
            Self::Provision(_) => &["unavailable", "agent-unavailable", "target-failed"],
            Self::Import(_) | Self::Deprovision(_) => &["unavailable"],
        };
        assert!(told.contains(&ended["code"].as_str().unwrap_or_default()), "{ended:#}");
        let again = operation_end(api, &self.send(api).expect(202));
        assert_eq!(again["state"], "succeeded", "{again:#}");
    }
}

/// Waits as long as something stands still, in which a control plane answers about itself and what its database knows.
fn answers_meanwhile(api: &Api) {
    let begun = Instant::now();
    while begun.elapsed() < still() {
        let asked = Instant::now();
        api.get("/healthz").expect(200);
        api.get("/v1/projects/lab/instances").expect(200);
        assert!(asked.elapsed() < PROMPT, "it waited for Ceph: {:?}", asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Checks what an image and two instances have become, and takes away what is there.
fn is_done(deployment: &Deployment, [image, made, ended]: [&str; 3]) {
    let (api, noise) = (&deployment.api, deployment.data.join("images/noise.raw"));
    let path = format!("/v1/projects/lab/images/{image}");
    assert_eq!(api.get(&path).expect(200)["sha256"], sha256(&noise));
    let removed = operation_end(api, &api.delete(&path).expect(202));
    assert_eq!(removed["state"], "succeeded", "{removed:#}");
    let shown = api.get(&format!("/v1/projects/lab/instances/{made}")).expect(200);
    assert_eq!(shown["state"], "ready", "{shown:#}");
    api.instance_remove("lab", made);
    assert_eq!(api.get(&format!("/v1/projects/lab/instances/{ended}")).status, 404);
}

#[test]
fn k2_operations_outlast_a_ceph_that_stands_still_and_leave_nothing() {
    let ceph = Ceph::start();
    let mut random = Random::of_the_run();
    let (mut deployment, namespace) = start(&ceph);
    for node in 1..=5 {
        deployment.api.node_of(&format!("node-{node}"), &format!("52:54:00:cf:04:0{node}"), "lab");
    }
    // An instance that nothing is asked of.
    deployment.api.instance("lab", "node-5", "noise", &json!({}));
    deployment.control_plane_configure("[reconcile]\nevery_s = 1");
    let api = deployment.api.clone();
    let (before, namespaces) = (world(&ceph, &deployment, &namespace), ceph.namespaces());
    let away: [(&str, Switch, Switch); 2] = [
        ("the monitor", Ceph::mon_pause, Ceph::mon_resume),
        ("the OSD", |ceph| ceph.osd_pause(0), |ceph| ceph.osd_resume(0)),
    ];
    for (what, stop, go_on) in away {
        for node in ["node-2", "node-4"] {
            api.instance("lab", node, "noise", &json!({}));
        }
        let (delay, begun) = (random.below(900), Instant::now());
        println!("{what} stands still, {delay} ms after operations were begun");
        let under_way = [Ask::Import("image-1"), Ask::Provision("node-1"), Ask::Deprovision("node-2")];
        let meanwhile = [Ask::Import("image-2"), Ask::Provision("node-3"), Ask::Deprovision("node-4")];
        let under_way = under_way.map(|ask| ask.begin(&api));
        std::thread::sleep(Duration::from_millis(delay));
        stop(&ceph);
        let meanwhile = meanwhile.map(|ask| ask.begin(&api));
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| api.get("/v1/datastores"));
            answers_meanwhile(&api);
            for (ask, operation) in &meanwhile {
                let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
                let now = api.get(&path).expect(200);
                let ended = matches!(now["state"].as_str(), Some("succeeded" | "failed"));
                assert!(!ended, "{ask:?} did not need {what}, or did not wait for it: {now:#}");
            }
            go_on(&ceph);
            asked.join().unwrap()
        });
        assert!(asked.status == 200 || asked.code() == "unavailable", "{} {}", asked.status, asked.json());
        for (ask, operation) in under_way.iter().chain(&meanwhile) {
            ask.end(&api, operation);
        }
        is_done(&deployment, ["image-1", "node-1", "node-2"]);
        is_done(&deployment, ["image-2", "node-3", "node-4"]);
        until(&format!("{what} left nothing over"), SOON, || {
            (world(&ceph, &deployment, &namespace) == before).then_some(())
        });
        assert_eq!(ceph.namespaces(), namespaces);
        deployment.assert_alive();
        println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    let client = Client::new(&deployment, "node-5", "52:54:00:cf:04:05");
    let noise = deployment.data.join("images/noise.raw");
    assert!(Disk::of(&client).is_same_as(noise.to_str().unwrap()), "what was there before is as it was");
    drop(client);
    deployment.api.instance_remove("lab", "node-5");
}

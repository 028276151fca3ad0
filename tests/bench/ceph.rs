//! One image of a real Ceph, by five ways in turns: straight (librbd inside `qemu-img bench`), through target and broker,
//! through tgt with its own librbd, and over NBD from the broker and from `qemu-storage-daemon`. One tool asks them all.
//!
//! Deliberately absent: any cache of librbd, in ours and in the peers, so that an answered write is in Ceph for all. The
//! cluster is on the same machine and takes most of the processor's time: figures of a real one are larger, and say more.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bmi_tests::{Ceph, run, until};
use serde_json::json;

use crate::target::{NAME, Ours, status};
use crate::tgt::{PORTAL, Tgt};
use crate::{Figure, median};

/// The image, and how far a request is from the one before: another object each time. Small ones are at another place in it,
/// large ones do not reach beyond the end.
const IMAGE: &str = "disk";
const SIZE: &str = "256M";
const STEP: &str = "4329472";
const STEP_LARGE: &str = "4194304";

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often each is measured; how many requests, in times of those below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) repetitions: u32,
    pub(crate) times: u32,
}

pub(crate) const EFFORT: Effort = Effort { repetitions: 3, times: 1 };

/// What is asked, and how often: a second or so of a small machine.
#[derive(Debug, Clone, Copy)]
struct Load {
    what: &'static str,
    size: u32,
    depth: u32,
    write: bool,
    count: u32,
}

const fn load(what: &'static str, size: u32, depth: u32, write: bool, count: u32) -> Load {
    Load { what, size, depth, write, count }
}

const WRITES: Load = load("4 KiB write, QD32", 4096, 32, true, 800);
const LOADS: [Load; 6] = [
    load("4 KiB read, QD1", 4096, 1, false, 1500),
    load("4 KiB read, QD32", 4096, 32, false, 6000),
    load("4 KiB write, QD1", 4096, 1, true, 60),
    WRITES,
    load("1 MiB read, QD8", 1 << 20, 8, false, 200),
    load("1 MiB write, QD8", 1 << 20, 8, true, 40),
];

/// A process that serves NBD, and a directory that goes with it.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn url(&self) -> String {
        format!("nbd+unix:///0?socket={}", self.directory.path().join("nbd").display())
    }

    fn broker(ceph: &Ceph) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, socket) = (directory.path().join("config"), directory.path().join("nbd"));
        let key = ceph.ceph(&["auth", "print-key", "client.admin"]);
        let export = json!({"name": "0", "namespace": "", "image": IMAGE, "read_only": false});
        let text = json!({
            "socket": socket, "mon_host": ceph.mon_host(), "pool": ceph.pool(), "user": "admin", "key": key.trim(),
            "exports": [export],
        });
        fs::write(&config, text.to_string()).unwrap();
        let program = std::env::current_exe().unwrap().with_file_name("bmi-broker");
        let mut broker = Command::new(program);
        broker.arg("--config").arg(&config).env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = broker.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("listening"), "the broker ended: {first}");
        Self { child, directory }
    }

    fn storage_daemon(conf: &Path, pool: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd");
        let image = format!("pool={pool},image={IMAGE},conf={},user=admin", conf.display());
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=rbd,node-name=disk,{image},cache.direct=on")])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
            .args(["--export", "type=nbd,id=e,node-name=disk,name=0,writable=on"])
            .spawn()
            .unwrap();
        until("qemu-storage-daemon listens", PATIENCE, || UnixStream::connect(&socket).ok());
        Self { child, directory }
    }
}

impl Drop for Server {
    /// Told, and not killed: the lock of the image is free for the next one.
    fn drop(&mut self) {
        run("kill", &[&self.child.id().to_string()]);
        self.child.wait().ok();
    }
}

/// A way to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    Tgt,
    Daemon,
    Broker,
    Target,
}

const WAYS: [Way; 5] = [Way::Straight, Way::Tgt, Way::Daemon, Way::Broker, Way::Target];

/// A way that is open: where, and who serves it. It ends in this order.
struct Open {
    url: String,
    pids: Vec<u32>,
    target: Option<Ours>,
    server: Option<Server>,
    peer: Option<Tgt>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // It closes the image, and is killed then.
        self.peer.iter().for_each(|tgt| tgt.withdraw(1));
    }
}

/// The cluster, with the image in it.
struct World {
    ceph: Ceph,
    path: String,
    conf: PathBuf,
}

impl World {
    fn make() -> Self {
        let ceph = Ceph::start();
        let path = format!("{}/{IMAGE}", ceph.pool());
        ceph.rbd(&["create", "--size", SIZE, &path]);
        ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4M", "--io-total", SIZE, &path]);
        // tgt has no option for it.
        let conf = ceph.directory().join("uncached.conf");
        let text = fs::read_to_string(ceph.conf()).unwrap();
        fs::write(&conf, format!("{text}\n[client]\nrbd cache = false\n")).unwrap();
        Self { ceph, path, conf }
    }

    fn open(&self, way: Way) -> Open {
        // Who comes next would wait for the lock of one that Ceph has not forgotten yet.
        until("nobody has the image", PATIENCE * 2, || {
            self.ceph.rbd(&["status", &self.path]).contains("Watchers: none").then_some(())
        });
        let mut open = Open { url: String::new(), pids: Vec::new(), target: None, server: None, peer: None };
        match way {
            Way::Straight => open.url = format!("rbd:{}:id=admin:conf={}", self.path, self.conf.display()),
            Way::Tgt => {
                let tgt = Tgt::start();
                let name = tgt.expose_rbd(1, &self.path, &self.conf);
                open.url = format!("iscsi://{PORTAL}/{name}/1");
                open.pids = vec![tgt.pid()];
                open.peer = Some(tgt);
            }
            Way::Daemon | Way::Broker => {
                let server = match way {
                    Way::Broker => Server::broker(&self.ceph),
                    _ => Server::storage_daemon(&self.conf, self.ceph.pool()),
                };
                (open.url, open.pids) = (server.url(), vec![server.child.id()]);
                open.server = Some(server);
            }
            Way::Target => {
                let server = Server::broker(&self.ceph);
                let target = Ours::start(&format!("0={}", server.url()));
                open.url = format!("iscsi://{}/{NAME}/0", target.address);
                open.pids = vec![server.child.id(), target.child.id()];
                (open.target, open.server) = (Some(target), Some(server));
            }
        }
        open
    }
}

/// Requests a second, as `qemu-img bench` sees them.
fn bench(url: &str, load: Load, times: u32) -> f64 {
    let count = load.count * times;
    let total = count.to_string();
    let (size, depth) = (load.size.to_string(), load.depth.to_string());
    let mut words = vec!["120", "qemu-img", "bench", "-f", "raw", "-t", "none", "-S"];
    words.push(if load.size > 4096 { STEP_LARGE } else { STEP });
    words.extend(["-c", &total, "-d", &depth, "-s", &size]);
    words.extend(load.write.then_some("-w"));
    words.push(url);
    let said = run("timeout", &words);
    let took =
        said.split("completed in ").nth(1).and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    f64::from(count) / took.unwrap()
}

/// Memory of processes, in MiB: what they have in use, and what of it nobody else can have a part of.
fn memory(pids: &[u32]) -> [f64; 2] {
    ["VmRSS", "RssAnon"].map(|field| pids.iter().map(|pid| status(*pid, field)).sum::<f64>() / 1024.0)
}

pub(crate) fn run_all(effort: Effort, only: Option<&str>) -> Vec<Figure> {
    let world = World::make();
    let mut figures = Vec::new();
    for load in LOADS.into_iter().filter(|load| only.is_none_or(|only| load.what.contains(only))) {
        let mut samples: [Vec<f64>; WAYS.len()] = std::array::from_fn(|_| Vec::new());
        for _ in 0..effort.repetitions {
            for (way, samples) in WAYS.into_iter().zip(&mut samples) {
                samples.push(bench(&world.open(way).url, load, effort.times));
            }
        }
        let [straight, tgt, daemon, broker, target] = samples.map(median);
        let mut add = |who: &str, ours, peer| {
            let what = format!("{}: {who}", load.what);
            let figure = Figure { what, ours, peer: Some(peer), unit: "/s" };
            figure.print();
            figures.push(figure);
        };
        add("target and broker", target, ("librbd in qemu-img", straight));
        add("target and broker", target, ("tgt-rbd", tgt));
        add("broker over NBD", broker, ("qemu-storage-daemon", daemon));
    }
    if only.is_none_or(|only| "memory".contains(only)) {
        figures.extend(memories(&world, effort).inspect(Figure::print));
    }
    figures
}

/// Of one volume: when nothing was asked yet, and after many writes at once.
fn memories(world: &World, effort: Effort) -> impl Iterator<Item = Figure> {
    let [target, tgt, broker, daemon] = [Way::Target, Way::Tgt, Way::Broker, Way::Daemon].map(|way| {
        let open = world.open(way);
        let idle = memory(&open.pids);
        bench(&open.url, WRITES, effort.times);
        [idle, memory(&open.pids)]
    });
    let pairs =
        [("target and broker", target, "tgt-rbd", tgt), ("broker", broker, "qemu-storage-daemon", daemon)];
    pairs.into_iter().flat_map(|(who, ours, peer, theirs)| {
        (0..4).map(move |at| {
            let when = ["idle", "after writes, QD32"][at / 2];
            let kind = ["resident", "resident, anonymous"][at % 2];
            let value = |of: [[f64; 2]; 2]| of[at / 2][at % 2];
            let what = format!("memory, one volume, {when}: {who}, {kind}");
            Figure { what, ours: value(ours), peer: Some((peer, value(theirs))), unit: "MiB" }
        })
    })
}

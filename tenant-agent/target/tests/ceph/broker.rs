//! A volume in Ceph, and brokers of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use bmi_tests::store::{Access, Backing, DataStore, Place};
use bmi_tests::{Ceph, WaitingStore, until};
use bmi_types::{ByteSize, ProjectId, VolumeId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::target::{Target, must};

/// The disk: few blocks, so that writes meet.
pub const BLOCKS: u64 = 1024;
pub const BLOCK_SIZE: usize = 4096;

/// How long a broker may take until it serves or has ended: a lock whose owner is dead is free after 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many volumes are made until one is as it is wanted.
const TRIES: u32 = 20;

/// A boot volume that is a clone of a golden image full of something, made by the control plane's store.
pub struct Volume<'a> {
    store: &'a WaitingStore,
    golden: Place,
    boot: Place,
    config: Place,
}

impl<'a> Volume<'a> {
    pub fn make(store: &'a WaitingStore) -> Self {
        let place = || Place { project: ProjectId::generate(), volume: VolumeId::generate() };
        let (golden, boot) = (place(), place());
        let config = Place { project: boot.project, volume: VolumeId::generate() };
        let quiet = &|_, _| {};
        store.ask(async |store| {
            let size = BLOCKS * BLOCK_SIZE as u64;
            store.image_create(golden, ByteSize::new(size)).await.unwrap();
            store.image_write(golden, 0, vec![0x5a; size as usize].into()).await.unwrap();
            store.image_seal(golden, quiet).await.unwrap();
            store.volume_clone(golden, boot).await.unwrap();
            store.volume_put(config, vec![1; 65536].into()).await.unwrap();
            store.access_ensure(boot, config).await.unwrap();
        });
        Self { store, golden, boot, config }
    }

    /// Keeps out whoever has it, and makes a new key.
    pub fn fence(&self) {
        self.store.ask(async |store| store.fence(self.boot, self.config).await.unwrap());
    }

    /// What a broker proves itself with now.
    pub fn access(&self) -> Access {
        let all = self.store.ask(async |store| store.access(&[self.boot]).await.unwrap());
        all[&self.boot.volume].clone()
    }

    /// Makes all of it zeros, which its golden image is not.
    pub fn zero(&self, target: &Target) {
        let zeros = format!("write -z 0 {}", BLOCKS * BLOCK_SIZE as u64);
        must("qemu-io", &["-f", "raw", "-c", &zeros, "-c", "flush", &target.url(0)]);
    }

    /// One whose data, and nothing else that a broker or a fence needs, are on the cluster's second OSD.
    pub fn make_apart(store: &'a WaitingStore, ceph: &Ceph) -> Self {
        let made = (0..TRIES).map(|_| Self::make(store));
        let mut apart = made.filter(|volume| {
            let (namespace, image) = volume.image();
            let image = format!("{}/{namespace}/{image}", ceph.pool());
            let info: Value = serde_json::from_str(&ceph.rbd(&["info", "--format", "json", &image])).unwrap();
            assert_eq!(info["objects"], 1);
            // A clone has no object of its own until it is written.
            ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K", &image]);
            let object = format!("{}.{:016x}", info["block_name_prefix"].as_str().unwrap(), 0);
            let golden = volume.golden.project.to_string();
            ceph.on_second(&namespace, &object, &["", &namespace, &golden])
        });
        apart.next().expect("objects are spread over placement groups")
    }

    fn export(&self) -> Value {
        let (namespace, image) = self.image();
        json!({"name": "0", "namespace": namespace, "image": image, "read_only": false})
    }

    /// Its namespace and name.
    fn image(&self) -> (String, String) {
        let backing = self.store.ask(async |store| store.backing(self.boot));
        let Backing::Rbd { namespace, image } = backing else { panic!("it is in Ceph") };
        (namespace, image)
    }

    /// Who has its lock, as Ceph's own tool says it; nothing when nobody has.
    pub fn lock_owners(&self, ceph: &Ceph) -> String {
        let (namespace, image) = self.image();
        ceph.rbd(&["lock", "ls", &format!("{}/{namespace}/{image}", ceph.pool())])
    }
}

/// Where brokers run that know of each other.
pub struct Host(tempfile::TempDir);

impl Host {
    pub fn new() -> Self {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("clients"), "").unwrap();
        Self(host)
    }

    /// Whether a broker was let in by the monitors, and noted that.
    pub fn has_client(&self) -> bool {
        !fs::read_to_string(self.0.path().join("clients")).unwrap().trim().is_empty()
    }
}

/// A running `bmi-broker`.
pub struct Broker {
    child: Child,
    socket: PathBuf,
}

impl Broker {
    /// Starts one and waits until it serves.
    pub fn start(host: &Host, volume: &Volume<'_>, access: &Access) -> Self {
        let mut broker = Self::spawn(host, volume, access);
        let (send, said) = channel();
        let out = broker.child.stdout.take().unwrap();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
        });
        let first: Value = serde_json::from_str(&said.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(first["event"], "listening", "{first}");
        broker
    }

    pub fn spawn(host: &Host, volume: &Volume<'_>, access: &Access) -> Self {
        let file = |name: &str| host.0.path().join(name);
        let config = json!({
            "socket": file("nbd"), "mon_host": access.mon_host, "pool": access.pool, "user": access.user,
            "key": access.key.expose(), "exports": [volume.export()],
        });
        fs::write(file("broker.json"), config.to_string()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_bmi-target")).with_file_name("bmi-broker");
        let mut command = Command::new(program);
        command.arg("--config").arg(file("broker.json")).arg("--clients").arg(file("clients"));
        let child = command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self { child: child.unwrap(), socket: file("nbd") }
    }

    /// How its target finds it.
    pub fn lun(&self) -> String {
        format!("0=nbd+unix:///0?socket={}", self.socket.display())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended by itself; gives its exit status.
    pub fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        let status = until("the broker ends", PATIENCE, || self.child.try_wait().unwrap());
        eprintln!("the broker ended after {:?}: {status}", begun.elapsed());
        status.code()
    }

    /// What one that has ended, and was not waited for when it started, has said.
    pub fn said(&mut self) -> String {
        std::io::read_to_string(self.child.stdout.take().unwrap()).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A volume in Ceph, and brokers of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use bmi_tests::{Ceph, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::target::{Target, must};

/// The disk: few blocks, so that writes meet.
pub const BLOCKS: u64 = 1024;
pub const BLOCK_SIZE: usize = 4096;

/// How long a broker may take until it serves or has ended: a lock whose owner is dead is free after 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A volume that is a clone of a golden image full of something, as a host knows it.
pub struct Volume {
    name: String,
    host: tempfile::TempDir,
}

impl Volume {
    pub fn make(ceph: &Ceph, name: &str) -> Self {
        let volume = Self::elsewhere(name);
        let there = ceph.rbd(&["namespace", "ls", "--format", "json", "bmi"]);
        for namespace in ["golden", "a"] {
            if !there.contains(&format!("\"{namespace}\"")) {
                ceph.rbd(&["namespace", "create", &format!("bmi/{namespace}")]);
            }
        }
        let image = volume.host.path().join("image");
        fs::write(&image, vec![0x5a; BLOCKS as usize * BLOCK_SIZE]).unwrap();
        let golden = format!("bmi/golden/{name}");
        ceph.rbd(&["import", "--no-progress", image.to_str().unwrap(), &golden]);
        ceph.rbd(&["snap", "create", "--no-progress", &format!("{golden}@sealed")]);
        let clone = ["clone", "--rbd-default-clone-format", "2"];
        ceph.rbd(&[&clone[..], &[&format!("{golden}@sealed"), &volume.path()]].concat());
        volume
    }

    /// A volume that there is, on another host.
    pub fn elsewhere(name: &str) -> Self {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("clients"), "").unwrap();
        Self { name: name.to_owned(), host }
    }

    fn path(&self) -> String {
        format!("bmi/a/{}", self.name)
    }

    /// Makes a user for it.
    pub fn key(&self, ceph: &Ceph, user: &str) {
        ceph.volume_key(user, &format!("a/{}", self.name), &format!("golden/{}", self.name));
    }

    /// Makes all of it zeros, which its golden image is not.
    pub fn zero(&self, target: &Target) {
        let zeros = format!("write -z 0 {}", BLOCKS * BLOCK_SIZE as u64);
        must("qemu-io", &["-f", "raw", "-c", &zeros, "-c", "flush", &target.url(0)]);
    }

    /// What a control plane does before somebody else may write (the driver's own is tested with the driver): the key
    /// goes; who has the lock and who watches are read from Ceph, and kept out; the lock is broken.
    pub fn fence(&self, ceph: &Ceph, user: &str) {
        ceph.ceph(&["auth", "rm", &format!("client.{user}")]);
        let list = |verb: &[&str]| -> Value {
            serde_json::from_str(&ceph.rbd(&[verb, &[&self.path(), "--format", "json"]].concat())).unwrap()
        };
        let locks = list(&["lock", "ls"]);
        let status = list(&["status"]);
        assert_eq!(status["watchers"], json!([]), "the pause was longer than Ceph waits");
        let lock = &locks[0];
        let word = |key: &str| lock[key].as_str().unwrap();
        ceph.ceph(&["osd", "blocklist", "add", word("address"), "31536000"]);
        // It would blocklist, too.
        let breaking =
            ["--rbd_blocklist_on_break_lock=false", "lock", "rm", &self.path(), word("id"), word("locker")];
        ceph.rbd(&breaking);
    }
}

/// A running `bmi-broker`.
pub struct Broker {
    child: Child,
    socket: PathBuf,
    pub user: String,
}

impl Broker {
    /// Starts one and waits until it serves.
    pub fn start(ceph: &Ceph, volume: &Volume, user: &str) -> Self {
        let mut broker = Self::spawn(ceph, volume, user);
        let (send, said) = channel();
        let out = broker.child.stdout.take().unwrap();
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
        });
        assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok(r#"{"event":"listening"}"#));
        broker
    }

    pub fn spawn(ceph: &Ceph, volume: &Volume, user: &str) -> Self {
        let file = |name: &str| volume.host.path().join(name);
        let config = json!({
            "socket": file("nbd"), "mon_host": ceph.mon_host(), "pool": ceph.pool(), "user": user,
            "key": key_of(ceph, user).unwrap_or_else(|| "AQBnAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==".to_owned()),
            "exports": [{"name": "0", "namespace": "a", "image": volume.name, "read_only": false}],
        });
        fs::write(file("broker.json"), config.to_string()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_bmi-target")).with_file_name("bmi-broker");
        let mut command = Command::new(program);
        command.arg("--config").arg(file("broker.json")).arg("--clients").arg(file("clients"));
        let child = command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self { child: child.unwrap(), socket: file("nbd"), user: user.to_owned() }
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key of a user; nothing when there is no such user.
fn key_of(ceph: &Ceph, user: &str) -> Option<String> {
    let users: Value = serde_json::from_str(&ceph.ceph(&["auth", "ls", "--format", "json"])).unwrap();
    let mut users = users["auth_dump"].as_array().unwrap().iter();
    let found = users.find(|it| it["entity"] == format!("client.{user}"))?;
    Some(found["key"].as_str().unwrap().to_owned())
}

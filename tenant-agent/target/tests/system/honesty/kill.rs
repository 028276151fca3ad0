//! The target is killed in the middle of writes, and started again on the same disk.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::nbd::{Server, Start};
use crate::target::Target;

use super::load::{self, Mix};
use super::look::check;
use super::random::Random;
use super::writes::{Loss, Writes};
use super::{BLOCKS, rounds};

/// More than can be sent before the end.
const MIX: Mix = Mix { commands: 1_000_000, unmap: true, forced: 30, flushes: 8 };

/// Sessions side by side.
const SESSIONS: u8 = 3;

/// A file of zeros.
fn disk(directory: &Path, block_size: usize) -> PathBuf {
    let file = directory.join("disk");
    std::fs::File::create(&file).unwrap().set_len(BLOCKS * block_size as u64).unwrap();
    file
}

/// Kills the target again and again, at a random moment; `end` is done at that moment, too.
fn kill_and_look(purpose: &str, few: u64, lun: &str, block_size: usize, mut end: impl FnMut()) {
    let mut random = Random::new(purpose);
    let writes = Mutex::new(Writes::new(random.next(), BLOCKS, block_size));
    let size = block_size.to_string();
    let arguments = ["--lun", lun, "--block-size", &size];
    for _ in 0..rounds(few) {
        let mut target = Target::start(&arguments);
        let before = writes.lock().unwrap().acknowledged;
        let running = target.process();
        load::run(&target, &writes, &mut random, SESSIONS, MIX, || {
            running.kill();
            end();
        });
        target.wait();
        assert!(writes.lock().unwrap().acknowledged > before + 20, "hardly anything was written");
        check(&Target::start(&arguments), &mut writes.lock().unwrap(), Loss::Process);
    }
    eprintln!("{purpose}: {} writes acknowledged", writes.lock().unwrap().acknowledged);
}

fn lun_of(server: &Server) -> String {
    format!("0=nbd+unix:///disk?socket={}", server.socket().display())
}

#[test]
fn t6_acknowledged_writes_survive_kill_9_of_the_target() {
    for block_size in [512, 4096] {
        for more in ["", ",direct"] {
            let directory = tempfile::tempdir().unwrap();
            let file = disk(directory.path(), block_size);
            let lun = format!("0=file:{}{more}", file.display());
            kill_and_look(&format!("file{more}, {block_size} bytes"), 2, &lun, block_size, || {});
        }
    }
}

#[test]
fn t6_acknowledged_writes_survive_kill_9_of_the_target_of_an_nbd_server() {
    let servers: [(&str, Start, usize); 2] =
        [("qemu-nbd", Server::qemu_nbd, 512), ("qemu-storage-daemon", Server::storage_daemon, 4096)];
    for (name, start, block_size) in servers {
        let directory = tempfile::tempdir().unwrap();
        let server = start(&disk(directory.path(), block_size), &directory.path().join("socket"));
        kill_and_look(name, 2, &lun_of(&server), block_size, || {});
    }
}

/// `nbdkit` is only here: it may well die by itself when a client does (1.32: an assertion in `connections.c`).
#[test]
fn t6_acknowledged_writes_survive_kill_9_of_the_target_and_of_its_nbd_server() {
    let servers: [(&str, Start, usize); 2] =
        [("qemu-nbd", Server::qemu_nbd, 512), ("nbdkit", Server::nbdkit, 4096)];
    for (name, start, block_size) in servers {
        let directory = tempfile::tempdir().unwrap();
        let (file, socket) = (disk(directory.path(), block_size), directory.path().join("socket"));
        let mut server = start(&file, &socket);
        let lun = lun_of(&server);
        kill_and_look(&format!("{name} killed, too"), 2, &lun, block_size, || {
            server.kill();
            server = start(&file, &socket);
        });
    }
}

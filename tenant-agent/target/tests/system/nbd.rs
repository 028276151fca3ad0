//! Units behind real NBD servers: `qemu-nbd`, `qemu-storage-daemon` and `nbdkit`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::target::{Target, must, run};
use crate::wire::{NO_TAG, Wire, pdu, ten};

/// Bytes of the disk.
const DISK: u64 = 64 * 1024 * 1024;

/// The longest a server may take until its socket is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that ends with the test.
pub struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(program: &str, arguments: &[String], socket: &Path) -> Self {
        let _ = fs::remove_file(socket);
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        let server = Self { child, socket: socket.to_owned() };
        let until = Instant::now() + PATIENCE;
        // A connection that says nothing is no client to any of these.
        while UnixStream::connect(&server.socket).is_err() {
            assert!(Instant::now() < until, "{program} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn qemu_nbd(file: &Path, socket: &Path) -> Self {
        let arguments = ["-f", "raw", "--persistent", "--shared=4", "--discard=unmap", "-x", "disk", "-k"];
        let arguments = arguments.map(str::to_owned).into_iter();
        let places = [socket.display().to_string(), file.display().to_string()];
        Self::start("qemu-nbd", &arguments.chain(places).collect::<Vec<_>>(), socket)
    }

    pub fn storage_daemon(file: &Path, socket: &Path) -> Self {
        let arguments = [
            "--blockdev".to_owned(),
            format!("driver=file,filename={},node-name=disk,discard=unmap", file.display()),
            "--nbd-server".to_owned(),
            format!("addr.type=unix,addr.path={}", socket.display()),
            "--export".to_owned(),
            "type=nbd,id=disk,node-name=disk,name=disk,writable=on".to_owned(),
        ];
        Self::start("qemu-storage-daemon", &arguments, socket)
    }

    pub fn nbdkit(file: &Path, socket: &Path) -> Self {
        Self::nbdkit_with(&[], file, &[], socket)
    }

    /// Its writes take half a second, and nothing else does.
    fn slow_nbdkit(file: &Path, socket: &Path) -> Self {
        Self::nbdkit_with(&["--filter=delay"], file, &["wdelay=500ms"], socket)
    }

    fn nbdkit_with(options: &[&str], file: &Path, parameters: &[&str], socket: &Path) -> Self {
        let (socket_name, file) = (socket.display().to_string(), file.display().to_string());
        let plugin = [&["-f", "-U", &socket_name], options, &["file", &file], parameters].concat();
        Self::start("nbdkit", &plugin.into_iter().map(str::to_owned).collect::<Vec<_>>(), socket)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn target(&self, more: &[&str]) -> Target {
        let lun = format!("0=nbd+unix:///disk?socket={}", self.socket.display());
        Target::start(&[&["--lun", &lun], more].concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A way to start a server with a file at a socket.
pub type Start = fn(&Path, &Path) -> Server;

const SERVERS: [(&str, Start); 3] = [
    ("qemu-nbd", Server::qemu_nbd),
    ("qemu-storage-daemon", Server::storage_daemon),
    ("nbdkit", Server::nbdkit),
];

/// What changes the medium, and what looks whether it did.
const SUITES: [&str; 9] = [
    "ALL.CompareAndWrite.Simple",
    "ALL.OrWrite.Simple",
    "ALL.Read16.Simple",
    "ALL.Unmap.Simple",
    "ALL.Unmap.ZeroBlocks",
    "ALL.Write16.DpoFua",
    "ALL.WriteSame16.Unmap",
    "ALL.WriteSame16.UnmapUnaligned",
    "ALL.WriteVerify16.Simple",
];

fn disk(directory: &Path) -> PathBuf {
    let disk = directory.join("disk");
    fs::File::create(&disk).unwrap().set_len(DISK).unwrap();
    disk
}

fn suites(target: &Target) {
    for suite in SUITES {
        let output = run("iscsi-test-cu", &["-d", "-n", "-t", suite, &target.url(0)]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("[SKIPPED]"), "{suite}: {text}");
    }
}

#[test]
fn t5_what_is_unmapped_reads_as_zeros_and_the_rest_is_right_behind_every_server() {
    for (name, start) in SERVERS {
        let directory = tempfile::tempdir().unwrap();
        let server = start(&disk(directory.path()), &directory.path().join("socket"));
        let target = server.target(&[]);
        eprintln!("{name}");
        suites(&target);
    }
}

#[test]
fn a_random_image_goes_in_and_comes_out_with_either_block_size() {
    for size in ["512", "4096"] {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let server = Server::qemu_nbd(&disk(directory.path()), &path("socket"));
        let target = server.target(&["--block-size", size]);
        let image = path("image").display().to_string();
        must("dd", &["if=/dev/urandom", &format!("of={image}"), "bs=1M", "count=64"]);
        must("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &target.url(0)]);
        must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &target.url(0)]);
    }
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_a_pause_and_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let file = disk(directory.path());
    let mut server = Server::qemu_nbd(&file, &path("socket"));
    let target = server.target(&[]);
    let url = target.url(0);
    let load = thread::spawn(move || {
        let arguments = ["bench", "-f", "raw", "-t", "none", "-w", "-c", "60000", "-d", "16", "-s", "4096"];
        run("qemu-img", &[&arguments[..], &["--pattern=165", &url]].concat())
    });
    thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        server.kill();
        thread::sleep(Duration::from_millis(300));
        // While the store is away, who asks for names is answered all the same.
        must("iscsi-ls", &[&format!("iscsi://{}", target.address)]);
        server = Server::qemu_nbd(&file, &path("socket"));
        thread::sleep(Duration::from_millis(300));
    }
    let output = load.join().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 165), "every write that was answered is there");
}

#[test]
fn a_reset_is_answered_when_the_server_has_done_what_another_session_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let file = disk(directory.path());
    let mut server = Server::qemu_nbd(&file, &path("socket"));
    let target = server.target(&["--sessions", "many"]);
    let [mut one, mut other] = [1, 2].map(|isid| Wire::log_in_as(isid, target.address, &[]));
    server.kill();
    let write = one.command(2, &ten(0x2a, 0, 1), 0xa0, 512).data(&[7; 512]);
    one.send(&write);
    // A NOP that is answered tells that the write is on its way.
    one.send(&pdu(0x40, 0x80).word(16, 3).word(20, NO_TAG).word(24, one.cmd_sn));
    assert_eq!(one.answer().unwrap().header[0], 0x20);
    other.send(&pdu(0x42, 0x85).word(16, 4).word(20, NO_TAG).word(24, other.cmd_sn));
    other.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let early = other.stream.peek(&mut [0]);
    assert!(early.is_err(), "the write may still land");
    let _server = Server::qemu_nbd(&file, &path("socket"));
    other.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = other.answer().unwrap();
    assert_eq!((answer.header[0], answer.header[2]), (0x22, 0));
    assert_eq!(fs::read(&file).unwrap()[..512], [7; 512], "it has landed before");
}

#[test]
fn the_write_cache_is_off_when_what_is_under_way_is_done_and_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::slow_nbdkit(&disk(directory.path()), &directory.path().join("socket"));
    let target = server.target(&[]);
    let mut wire = Wire::log_in(target.address, &[]);
    let write = wire.command(2, &ten(0x2a, 0, 1), 0xa0, 512).data(&[7; 512]);
    wire.send(&write);
    // MODE SELECT (6) of the caching page, without WCE.
    let mut list = [0; 24];
    (list[4], list[5]) = (0x08, 18);
    let select = wire.command(3, &[0x15, 0x10, 0, 0, 24, 0], 0xa0, 24).data(&list);
    wire.send(&select);
    // It could be flushed at once, but then the write that is answered later would not be.
    for tag in [2, 3] {
        let answer = wire.answer().unwrap();
        assert_eq!((answer.header[0], answer.header[3], answer.word(16)), (0x21, 0, tag));
    }
}

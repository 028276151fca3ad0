//! Servers of this test, each with a socket in a directory of its own. They end with the test, by their process.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bmi_block::nbd::Uri;
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// A server that can be killed and started again.
pub struct Server {
    directory: tempfile::TempDir,
    command: Vec<OsString>,
    child: Option<Child>,
}

impl Server {
    fn new(directory: tempfile::TempDir, command: Vec<OsString>) -> Self {
        let mut server = Self { directory, command, child: None };
        server.start();
        server
    }

    /// `nbdkit` with these arguments.
    pub fn nbdkit(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let mut command: Vec<OsString> =
            vec!["nbdkit".into(), "--foreground".into(), "--unix".into(), socket.into()];
        command.extend(arguments.iter().map(OsString::from));
        Self::new(directory, command)
    }

    /// `qemu-nbd` for a file of zeros of this size.
    pub fn qemu_nbd(size: u64, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (socket, disk) = (directory.path().join("socket"), directory.path().join("disk"));
        std::fs::File::create(&disk).unwrap().set_len(size).unwrap();
        let mut command: Vec<OsString> = vec!["qemu-nbd".into(), "--persistent".into(), "--shared=0".into()];
        command.extend([
            "--format=raw".into(),
            "--export-name=disk".into(),
            "--socket".into(),
            socket.into(),
        ]);
        command.extend(arguments.iter().map(OsString::from));
        command.push(disk.into());
        Self::new(directory, command)
    }

    /// `qemu-storage-daemon` for a file of zeros of this size.
    pub fn storage_daemon(size: u64, disk_options: &str, export_options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (socket, disk) = (directory.path().join("socket"), directory.path().join("disk"));
        std::fs::File::create(&disk).unwrap().set_len(size).unwrap();
        let mut command: Vec<OsString> = vec!["qemu-storage-daemon".into()];
        let blockdev = format!("driver=file,node-name=disk,filename={}{disk_options}", disk.display());
        let listen = format!("addr.type=unix,addr.path={}", socket.display());
        let export = format!("type=nbd,id=e,node-name=disk,name=disk{export_options}");
        for (flag, value) in [("--blockdev", blockdev), ("--nbd-server", listen), ("--export", export)] {
            command.extend([flag.into(), value.into()]);
        }
        Self::new(directory, command)
    }

    /// The file behind `qemu-nbd` and `qemu-storage-daemon`.
    pub fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// An export of it.
    pub fn uri(&self, export: &str) -> Uri {
        uri(&self.socket(), export)
    }

    /// Kills it as a machine that loses power would: nothing is tidied up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Lets it do nothing more, and not end.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Asks it to end; `meanwhile` is done until it has.
    pub fn terminate(&mut self, mut meanwhile: impl FnMut()) {
        self.signal(Signal::TERM);
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            meanwhile();
        }
        self.child = None;
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it, and returns when it listens.
    pub fn start(&mut self) {
        let (program, arguments) = self.command.split_first().unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; is it installed?", program.display()));
        let until = Instant::now() + START;
        // A connection that says nothing is no client to any of these.
        while UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{:?} ended: {status}", self.command);
            }
            assert!(Instant::now() < until, "{:?} does not listen", self.command);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    /// Changes what it will be started with.
    pub fn replace_argument(&mut self, from: &str, to: &str) {
        let argument = self.command.iter_mut().find(|argument| *argument == from).unwrap();
        *argument = to.into();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An export behind a socket, by way of its text.
pub fn uri(socket: &Path, export: &str) -> Uri {
    format!("nbd+unix:///{export}?socket={}", socket.display()).parse().unwrap()
}

//! A file whose file system forgets at a power loss what was not synchronized: the store of `store.rs` by way of FUSE,
//! which `qemu-storage-daemon` speaks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::store::Store;

/// How long the file may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mounted file. It is gone with this.
pub struct Mount {
    child: Child,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mount {
    pub fn start(store: &Store, size: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        std::fs::write(&file, []).unwrap();
        let server = format!("server.type=unix,server.path={}", store.socket().display());
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=nbd,node-name=disk,discard=unmap,export=disk,{server}")])
            .args([
                "--export",
                &format!("type=fuse,id=e,node-name=disk,mountpoint={},writable=on", file.display()),
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-storage-daemon is needed: {error}"));
        let mount = Self { child, file, _directory: directory };
        let until = Instant::now() + PATIENCE;
        while mount.file.metadata().unwrap().len() != size {
            assert!(Instant::now() < until, "there is no file; it needs root and /dev/fuse");
            thread::sleep(Duration::from_millis(10));
        }
        mount
    }

    /// Ends the file system at once. What is closed is flushed by it otherwise, also by a process that dies.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("--lazy").arg(&self.file).status();
    }
}

//! The real launcher without an agent: what it becomes, and how that ended.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bmi_sandbox::Barrier;
use serde_json::json;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It worked.
    Done,
    /// It was answered with this error.
    Error(i32),
    /// It ended by this signal.
    Signal(i32),
}

/// A place to launch from: a directory, a volume that is given, and one that is not.
pub struct Launchpad {
    pub directory: tempfile::TempDir,
    program: PathBuf,
    uid: u32,
}

impl Launchpad {
    /// Compiles the evil program and makes the volumes.
    pub fn new(uid: u32) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it launches as another user");
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for volume in ["given.raw", "foreign.raw"] {
            std::fs::write(path(volume), vec![0x5a; 1 << 20]).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/evil.c");
        let program = path("evil");
        let built = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::os::unix::fs::chown(directory.path(), Some(0), Some(uid)).unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        Self { directory, program, uid }
    }

    /// One attempt inside every barrier but those that are left out.
    pub fn attempt(
        &self,
        profile: &str,
        attempt: &str,
        argument: &str,
        without: &BTreeSet<Barrier>,
    ) -> Ended {
        // An attempt that went through may have made it larger.
        let given = std::fs::OpenOptions::new().write(true).open(self.directory.path().join("given.raw"));
        given.unwrap().set_len(1 << 20).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        // As the helper does: the first process of a process id namespace.
        let launcher = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_bmi-agent"), "launch"])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        ours.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"R");
        let luns = match profile {
            "bmi-target" => json!([{"lun": 0, "path": "given.raw", "read_only": false}]),
            _ => json!([]),
        };
        let order = json!({
            "program": self.program, "arguments": [attempt, argument], "uid": self.uid,
            "directory": self.directory.path(), "volume_dir": self.directory.path(), "luns": luns,
            "profile": profile, "shown": [], "ports": [3260], "without": without,
        });
        let order = order.to_string();
        ours.write_all(&u32::try_from(order.len()).unwrap().to_be_bytes()).unwrap();
        ours.write_all(order.as_bytes()).unwrap();
        let mut reason = String::new();
        ours.read_to_string(&mut reason).unwrap();
        let output = launcher.wait_with_output().unwrap();
        assert_eq!(reason, "", "{attempt} was not started: {output:?}");
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => Ended::Done,
            (Some(error), _) => Ended::Error(error),
            (None, signal) => Ended::Signal(signal.unwrap()),
        }
    }
}

//! A node's disk as its operating system has it: LUN 0 of its target, by QEMU's initiator, which logs in again and repeats
//! what was not answered when its connection breaks.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::host::until;

/// How long boot services may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The disk.
#[derive(Debug)]
pub struct Disk {
    namespace: String,
    secret: String,
    options: String,
}

impl Disk {
    /// The disk of a machine that boots: it asks DHCP, and does what the script says that it gets.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        // The boot services read what they are given a moment later.
        let script = until("a script with its disk", PATIENCE, || {
            Some(client.script(&client.dhcp().1)).filter(|script| script.contains("set password "))
        });
        let value = |key: &str| {
            let line = script.lines().find_map(|line| line.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("no '{key}' in {script}")).trim().to_owned()
        };
        let boot = script.split_whitespace().find_map(|word| word.strip_prefix("iscsi:")).unwrap();
        // iscsi:ADDRESS::3260:0:TARGET, and the target has colons.
        let (address, target) = boot.split_once("::3260:0:").unwrap();
        let options = format!(
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={address}:3260,file.target={target},file.lun=0,\
             file.user={},file.password-secret=chap,file.initiator-name={}",
            value("set username "),
            value("set initiator-iqn "),
        );
        let secret = format!("secret,id=chap,data={}", value("set password "));
        Self { namespace: client.namespace().to_owned(), secret, options }
    }

    /// `qemu-io` with a command a word, without a cache.
    #[must_use]
    pub fn io(&self, commands: &[&str]) -> Command {
        let mut io = self.tool("qemu-io");
        io.args(["-t", "none", "--object", &self.secret]);
        for command in commands {
            io.args(["-c", command]);
        }
        io.args(["--image-opts", &self.options]);
        io
    }

    /// Does it, and gives what `qemu-io` printed; it says `failed` of what failed.
    #[must_use]
    pub fn does(&self, commands: &[&str]) -> String {
        let ended = self.io(commands).output().unwrap();
        let (said, complaint) =
            (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(!said.trim().is_empty(), "qemu-io {commands:?}: {} {complaint}", ended.status);
        format!("{said}{complaint}")
    }

    /// Compares the disk with a file.
    #[must_use]
    pub fn is_same_as(&self, file: &str) -> bool {
        let other = format!("driver=raw,file.driver=file,file.filename={file}");
        let mut compare = self.tool("qemu-img");
        compare.args(["compare", "--object", &self.secret, "--image-opts", &self.options, &other]);
        compare.status().unwrap().success()
    }

    /// Starts to write: `count` blocks of 4 KiB full of one byte, one after the other, again from the start at the end.
    #[must_use]
    pub fn load(&self, pattern: u8, count: u32) -> Child {
        let mut bench = self.tool("qemu-img");
        bench.args(["bench", "-w", "-t", "none", "-d", "8", "-s", "4096"]);
        bench.args(["--pattern", &pattern.to_string(), "-c", &count.to_string()]);
        bench.args(["--object", &self.secret, "--image-opts", &self.options]);
        bench.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["180", "ip", "netns", "exec", &self.namespace, "stdbuf", "-oL", program]);
        command.stdin(Stdio::null());
        command
    }
}

/// A node that has its disk open: one session, as long as nothing breaks it.
#[derive(Debug)]
pub struct Session {
    io: Child,
    said: BufReader<ChildStdout>,
}

impl Session {
    /// Opens a disk.
    #[must_use]
    pub fn open(disk: &Disk) -> Self {
        let mut io = disk.io(&[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(io.stdout.take().unwrap());
        Self { io, said }
    }

    /// Does a command of `qemu-io` that reads or writes 4 KiB, and waits until it is done.
    pub fn does(&mut self, command: &str) {
        writeln!(self.io.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut lines = (&mut self.said).lines().map(Result::unwrap);
        let done = lines.find(|line| line.contains("failed") || line.contains("4096/4096 bytes"));
        assert!(done.as_ref().is_some_and(|line| !line.contains("failed")), "{command}: {done:?}");
    }

    /// Closes it.
    pub fn close(mut self) {
        drop(self.io.stdin.take());
        assert!(self.io.wait().unwrap().success());
    }
}

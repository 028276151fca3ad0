//! A running target, ended with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use bmi_agent_api::event::{Line, TargetEvent};

pub const NAME: &str = "iqn.2026-01.example:disk";

/// How long anything may take before a test fails. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Target {
    child: Child,
    pub address: SocketAddr,
    events: Receiver<TargetEvent>,
}

impl Target {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_logging(arguments, "warn", Stdio::inherit())
    }

    /// Starts one that logs so much, to there.
    pub fn start_logging(arguments: &[&str], log: &str, to: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bmi-target"))
            .args(["--listen", "127.0.0.1:0", "--target", NAME])
            .args(arguments)
            .env("RUST_LOG", log)
            .stdout(Stdio::piped())
            .stderr(to)
            .spawn()
            .unwrap();
        let (send, events) = channel();
        let out = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                // Strict: a line the agent could not read fails here.
                let line: Line<TargetEvent> = serde_json::from_str(&line.unwrap()).unwrap();
                assert!(line.at.is_some(), "it says when");
                if send.send(line.said).is_err() {
                    return;
                }
            }
        });
        let Ok(TargetEvent::Listening { address }) = events.recv_timeout(PATIENCE) else {
            panic!("the first line is not `listening`")
        };
        Self { child, address, events }
    }

    pub fn with_file(path: &Path, more: &[&str]) -> Self {
        let lun = format!("0=file:{}", path.display());
        Self::start(&[&["--lun", &lun], more].concat())
    }

    /// Memory it has in use, in KiB: `VmRSS` of `/proc/PID/status`.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Waits until it has no more descriptors open than this: it notices in a moment that a peer is gone.
    pub fn await_descriptors(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.descriptors() > count {
            assert!(Instant::now() < deadline, "{} descriptors instead of {count}", self.descriptors());
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn url(&self, lun: u8) -> String {
        format!("iscsi://{}/{NAME}/{lun}", self.address)
    }

    pub fn url_as(&self, user: &str, secret: &str) -> String {
        format!("iscsi://{user}%{secret}@{}/{NAME}/0", self.address)
    }

    /// Waits for an event of this kind and returns it; others before it are passed over.
    pub fn expect(&self, wanted: impl Fn(&TargetEvent) -> bool) -> TargetEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event did not come");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Its process, to be killed while others use the target.
    pub fn process(&self) -> Killer {
        Killer(rustix::process::Pid::from_child(&self.child))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the events that were left.
    pub fn stop(mut self) -> Vec<TargetEvent> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM must end it with status 0");
        let mut left = Vec::new();
        while let Ok(event) = self.events.recv_timeout(Duration::from_secs(5)) {
            left.push(event);
        }
        left
    }
}

/// Kills a target that was not waited for yet.
#[derive(Debug, Clone, Copy)]
pub struct Killer(rustix::process::Pid);

impl Killer {
    /// Sends SIGKILL.
    pub fn kill(self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a tool to its end, in bounded time.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["60", program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// Runs a tool that must succeed, and returns what it printed.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

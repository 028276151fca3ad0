//! What a process prints: bounded lines, passed on unread.
//!
//! Standard output is a FIFO that both ends hold open for reading and writing. So it never ends, a process that prints
//! while no helper is there neither blocks nor dies, and the next helper reads on. Standard error is one too. Too long or
//! not UTF-8: the line is dropped and counted. Too many: they wait in the FIFO, and nobody spends time on them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bmi_agent_api::event::LINE_MAX;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;

use super::super::NewsSink;
use crate::helper::verbs::Said;
use crate::plan::names::ProcessId;

/// File names in a process's directory.
pub const OUTPUT_FILE: &str = "stdout";
pub const ERROR_FILE: &str = "stderr";

/// Lines a second a process may print, and how many at once. A read without a whole line counts as one, so a line that never
/// ends is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// Of what serves one node: its boot prints about ten.
const OF_AN_INSTANCE: Rate = Rate { per_second: 50, burst: 200 };
/// Of the boot services, which serve all nodes of the network: they may be switched on at once.
const OF_THE_NETWORK: Rate = Rate { per_second: 200, burst: 4000 };
/// Bytes of their output that wait while no helper is there: some hundred boots.
const NETWORK_PIPE: i32 = 1 << 20;

impl Rate {
    const fn of(id: ProcessId) -> Self {
        match id {
            ProcessId::Netboot => OF_THE_NETWORK,
            ProcessId::Target(_) | ProcessId::Broker(_) => OF_AN_INSTANCE,
        }
    }

    fn step(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

/// Makes the FIFO when it is absent and opens the process's end.
///
/// # Errors
/// When the file system refuses.
pub fn open_for_process(directory: &Path, name: &str) -> io::Result<File> {
    let path = make(directory, name)?;
    OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Makes the FIFO when it is absent and opens the helper's end.
///
/// # Errors
/// When the file system refuses.
pub fn open_for_helper(id: ProcessId, directory: &Path, name: &str) -> io::Result<pipe::Receiver> {
    let opened = pipe::OpenOptions::new().read_write(true).open_receiver(make(directory, name)?)?;
    if id == ProcessId::Netboot
        && let Err(error) = fcntl(&opened, FcntlArg::F_SETPIPE_SZ(NETWORK_PIPE))
    {
        tracing::debug!(%error, "the boot services' output holds no more than others'");
    }
    Ok(opened)
}

fn make(directory: &Path, name: &str) -> io::Result<PathBuf> {
    let path = directory.join(name);
    match mkfifo(&path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(path),
        Err(error) => Err(error.into()),
    }
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    skipping: bool,
    dropped: u64,
}

impl Lines {
    /// Takes what arrived and gives the whole lines.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                match String::from_utf8(line) {
                    Ok(line) if !self.skipping => lines.push(line),
                    _ => self.dropped += 1,
                }
                self.skipping = false;
            } else if self.partial.len() + 1 < LINE_MAX {
                self.partial.push(*byte);
            } else {
                self.skipping = true;
            }
        }
        lines
    }
}

/// How many lines may pass now.
#[derive(Debug)]
struct Allowance {
    rate: Rate,
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_micros();
        let earned = passed / self.rate.step().as_micros().max(1);
        if earned > 0 {
            self.since = now;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.rate.burst);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// Passes lines on until it is aborted.
pub async fn pass_on(id: ProcessId, run: String, mut from: impl AsyncRead + Unpin, news: NewsSink) {
    let mut lines = Lines::default();
    let mut allowance = Allowance::new(Rate::of(id), Instant::now());
    let mut chunk = [0; 4096];
    let mut told = 0;
    loop {
        let length = match from.read(&mut chunk).await {
            Ok(length) if length > 0 => length,
            _ => return,
        };
        let bytes = chunk.get(..length).unwrap_or_default();
        let ended = bytes.iter().filter(|byte| **byte == b'\n').count();
        for _ in 0..ended.max(1) {
            while !allowance.take(Instant::now()) {
                tokio::time::sleep(allowance.rate.step()).await;
            }
        }
        for line in lines.take(bytes) {
            if news.send(Said::Line { id, run: run.clone(), line }).await.is_err() {
                return;
            }
        }
        if lines.dropped > told {
            told = lines.dropped.saturating_mul(2);
            tracing::warn!(process = %id, lines.dropped, "a process prints what is no line");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_cut_bounded_and_checked() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"{\"a\":1}\n{\"b\""), ["{\"a\":1}"]);
        assert_eq!(lines.take(b":2}\n"), ["{\"b\":2}"]);
        assert_eq!(lines.take(&[b'x'; 3 * LINE_MAX]), Vec::<String>::new());
        assert_eq!(lines.take(b"\nnext\n"), ["next"]);
        assert_eq!(lines.take(b"\xff\xfe\n"), Vec::<String>::new());
        assert_eq!(lines.dropped, 2);
        assert!(lines.partial.capacity() <= 2 * LINE_MAX);
    }

    #[test]
    fn a_chatterbox_is_slowed_down_and_a_whole_network_heard() {
        let target = ProcessId::Target(bmi_types::InstanceId::generate());
        for (id, rate) in [(target, OF_AN_INSTANCE), (ProcessId::Netboot, OF_THE_NETWORK)] {
            let start = Instant::now();
            let mut allowance = Allowance::new(Rate::of(id), start);
            let passed = (0..20_000).filter(|_| allowance.take(start)).count();
            assert_eq!(passed, usize::try_from(rate.burst).unwrap());
            let later = start + Duration::from_secs(1);
            let passed = (0..20_000).filter(|_| allowance.take(later)).count();
            assert_eq!(passed, usize::try_from(rate.per_second).unwrap());
        }
    }

    #[tokio::test]
    async fn a_chatterbox_waits_and_nobody_reads_on() {
        let directory = tempfile::tempdir().unwrap();
        let id = ProcessId::Target(bmi_types::InstanceId::generate());
        let mut fifo = open_for_process(directory.path(), OUTPUT_FILE).unwrap();
        let from = open_for_helper(id, directory.path(), OUTPUT_FILE).unwrap();
        let (news, mut said) = tokio::sync::mpsc::channel(1024);
        let reader = tokio::spawn(pass_on(id, String::new(), from, news));
        let mut written = 0;
        for _ in 0..50 {
            for _ in 0..100 {
                written += fifo.write(&[b"line\n".as_slice(); 800].concat()).unwrap_or(0);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(written < 256 * 1024, "the FIFO is full and stays full: {written}");
        reader.abort();
        let _ = reader.await;
        let mut passed = 0;
        while said.recv().await.is_some() {
            passed += 1;
        }
        assert!(passed <= 2 * OF_AN_INSTANCE.burst, "{passed}");
    }
}

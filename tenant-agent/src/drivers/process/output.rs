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
use nix::fcntl::OFlag;
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

/// Lines a second a process may print, and how many at once: a boot prints about ten. A read without a whole line counts
/// as one, so a line that never ends is not free.
const LINES_PER_SECOND: u32 = 50;
const LINES_BURST: u32 = 200;
const STEP: Duration = Duration::from_micros(1_000_000 / LINES_PER_SECOND as u64);

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
pub fn open_for_helper(directory: &Path, name: &str) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().read_write(true).open_receiver(make(directory, name)?)
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
    left: u32,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_micros() / STEP.as_micros().max(1);
        if earned > 0 {
            self.since = now;
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(LINES_BURST);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// Passes lines on until it is aborted.
pub async fn pass_on(id: ProcessId, run: String, mut from: impl AsyncRead + Unpin, news: NewsSink) {
    let mut lines = Lines::default();
    let mut allowance = Allowance { left: LINES_BURST, since: Instant::now() };
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
                tokio::time::sleep(STEP).await;
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
    fn a_chatterbox_is_slowed_down() {
        let start = Instant::now();
        let mut allowance = Allowance { left: LINES_BURST, since: start };
        let passed = (0..1000).filter(|_| allowance.take(start)).count();
        assert_eq!(passed, usize::try_from(LINES_BURST).unwrap());
        let later = start + Duration::from_secs(1);
        let passed = (0..1000).filter(|_| allowance.take(later)).count();
        assert_eq!(passed, usize::try_from(LINES_PER_SECOND).unwrap());
    }

    #[tokio::test]
    async fn a_chatterbox_waits_and_nobody_reads_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut fifo = open_for_process(directory.path(), OUTPUT_FILE).unwrap();
        let from = open_for_helper(directory.path(), OUTPUT_FILE).unwrap();
        let (news, mut said) = tokio::sync::mpsc::channel(1024);
        let reader = tokio::spawn(pass_on(ProcessId::Netboot, String::new(), from, news));
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
        assert!(passed <= 2 * LINES_BURST, "{passed}");
    }
}

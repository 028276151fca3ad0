//! The log of a process: what it prints on standard error, for looking at a fault. Bounded, and not a history.
//!
//! The process has no file to write, only a FIFO (see [`super::output`]); the helper writes the log. So it cannot be grown
//! by whoever is being logged, and what is printed while no helper is there waits in the FIFO.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::output;

/// File name in a process's directory. Only root reads it.
const LOG_FILE: &str = "log";

/// The log is emptied before it would be larger.
const LARGEST: u64 = 1024 * 1024;

/// How much is taken at once, and how long nothing is taken afterwards: 40 KiB/s at most, so that who prints without end
/// waits and takes nobody's time.
const CHUNK: usize = 4096;
const REST: Duration = Duration::from_millis(100);

/// The most that is taken when a process ended: the largest FIFO an unprivileged process can have.
const LEFT_MAX: u64 = 1024 * 1024;

/// How much of the end is quoted when a process ended by itself.
const QUOTED: u64 = 400;

/// Writes what arrives until it is aborted. A disk that is full loses it.
pub async fn keep(directory: PathBuf, mut from: impl AsyncRead + Unpin) {
    let mut chunk = [0; CHUNK];
    loop {
        let length = match from.read(&mut chunk).await {
            Ok(length) if length > 0 => length,
            _ => return,
        };
        let _ = append(&directory, chunk.get(..length).unwrap_or_default());
        tokio::time::sleep(REST).await;
    }
}

fn append(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(LOG_FILE))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if log.metadata()?.len().saturating_add(length) > LARGEST {
        log.set_len(0)?;
    }
    log.write_all(bytes)
}

/// The last line of a process that ended, for people: what it says when it cannot start. Printable and cut short. What is
/// still in its FIFO goes to the log first.
pub fn last_line(directory: &Path) -> Option<String> {
    let mut left = Vec::new();
    // Ends with an error when the FIFO is empty: both ends are open.
    let _ = output::open_for_process(directory, output::ERROR_FILE)
        .and_then(|fifo| fifo.take(LEFT_MAX).read_to_end(&mut left));
    let _ = append(directory, &left);
    let mut log = File::open(directory.join(LOG_FILE)).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(QUOTED))).ok()?;
    let mut end = Vec::new();
    log.take(QUOTED).read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end);
    let line = end.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_largest_size_and_its_last_line_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join(LOG_FILE);
        let largest = usize::try_from(LARGEST).unwrap();
        append(directory.path(), &vec![b'x'; largest]).unwrap();
        append(directory.path(), b"first\n").unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"first\n");
        let mut fifo = output::open_for_process(directory.path(), output::ERROR_FILE).unwrap();
        fifo.write_all(b"no \x1bvolume\n\n").unwrap();
        assert_eq!(last_line(directory.path()).as_deref(), Some("no volume"));
        fifo.write_all(b"again\n").unwrap();
        assert_eq!(last_line(directory.path()).as_deref(), Some("again"));
    }
}

//! What is written down about a process, so that the next helper knows it again.
//!
//! A process is the recorded one when its process id, its start time and the host's boot are the recorded ones: process
//! ids are used again, start times within one boot are not.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ledger::write_whole;
use crate::plan::spec::ProcessSpec;

/// File name in a process's directory. Only root reads it.
const RECORD_FILE: &str = "record.json";

/// One run of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its process id.
    pub pid: i32,
    /// When it started, in clock ticks since the host's boot.
    pub start_time: u64,
    /// Which boot of the host.
    pub boot_id: String,
}

/// What a process was started as, and its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// As what.
    pub spec: ProcessSpec,
    /// Which run.
    pub run: Run,
}

impl Run {
    /// The run that has this process id now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let start_time = start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid, start_time, boot_id })
    }

    /// Whether this very run lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// The run as one word.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}-{}", self.pid, self.start_time, self.boot_id)
    }
}

/// Field 22 of `/proc/PID/stat`; nothing for a zombie. The command in parentheses may hold anything.
///
/// A process whose first thread has ended is shown as a zombie while its other threads may still write (proc(5), field 20):
/// it lives.
fn start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    if state == "X" || (state == "Z" && threads <= 1) {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

impl Record {
    /// Reads a directory's record.
    #[must_use]
    pub fn load(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(RECORD_FILE)).ok()?).ok()
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        write_whole(directory, RECORD_FILE, &serde_json::to_vec(self)?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_run_is_recognized_and_another_is_not() {
        let own = Run::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.lives());
        assert!(!Run { start_time: own.start_time + 1, ..own.clone() }.lives());
        assert!(!Run { boot_id: String::new(), ..own }.lives());
    }

    #[test]
    fn a_zombie_and_an_odd_command_are_read_rightly() {
        let stat = |state, threads| {
            format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0")
        };
        assert_eq!(start_time(&stat("S", 1)), Some(4242));
        assert_eq!(start_time(&stat("Z", 1)), None);
        assert_eq!(start_time(&stat("Z", 2)), Some(4242), "its first thread has ended, another works");
    }
}

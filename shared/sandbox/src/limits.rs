//! Limits of the kernel on one process and its user.

use nix::sys::resource::{Resource, setrlimit};

/// How much a program gets. Both limits of each are set, so it cannot raise one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open files, sockets and pipes.
    pub open_files: u64,
    /// Processes and threads of its user.
    pub tasks: u64,
    /// The largest file it may write, in bytes.
    pub file_size: u64,
    /// Memory it can write to, in bytes: heap, stacks of threads, and private mappings.
    pub memory: u64,
    /// Seconds of processor time; nothing: no bound.
    pub processor_seconds: Option<u64>,
}

impl Limits {
    /// Sets them. Core files are never written: they would hold what was in memory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(&self) -> nix::Result<()> {
        let fixed = [
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_NOFILE, self.open_files),
            (Resource::RLIMIT_NPROC, self.tasks),
            (Resource::RLIMIT_FSIZE, self.file_size),
            (Resource::RLIMIT_DATA, self.memory),
            (Resource::RLIMIT_MEMLOCK, 0),
            (Resource::RLIMIT_MSGQUEUE, 0),
        ];
        let processor = self.processor_seconds.map(|seconds| (Resource::RLIMIT_CPU, seconds));
        for (resource, most) in fixed.into_iter().chain(processor) {
            setrlimit(resource, most, most)?;
        }
        Ok(())
    }
}

//! Disk work that would wait: a thread does it, so that the loop goes on answering NOPs, logins and aborts.
//!
//! The thread is started when it is first needed and ends when it was idle for a while: a target that serves from the
//! page cache has none.
//!
//! Invariant: as long as any work of a unit is here, all work of that unit comes here, and is done in the order it
//! came. So nothing overtakes a write that waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bmi_iscsi::{Outcome, TaskId, Work};
use rustix::event::{EventfdFlags, eventfd};

use super::statistics::Kind;
use crate::disk::{Disk, Moved};

/// How long the thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

/// Its stack: buffers are on the heap.
const STACK: usize = 128 * 1024;

/// Work to be done.
struct Job {
    peer: u64,
    task: TaskId,
    disk: Arc<Disk>,
    work: Work,
    /// For what is read.
    buffer: Vec<u8>,
    since: Instant,
}

/// Work that was done.
pub struct Done {
    pub peer: u64,
    pub task: TaskId,
    pub lun: u16,
    pub outcome: Outcome,
    /// A buffer that is not needed any more.
    pub spent: Vec<u8>,
    pub moved: Moved,
    pub kind: Kind,
    /// When it came.
    pub since: Instant,
    /// The bytes that it was expected to bring.
    pub size: usize,
}

/// What the thread and the loop share.
struct Bell {
    done: Mutex<VecDeque<Done>>,
    /// Readable when something is done.
    rung: OwnedFd,
}

impl Bell {
    fn done(&self) -> MutexGuard<'_, VecDeque<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker, as the loop sees it.
pub struct Worker {
    bell: Arc<Bell>,
    jobs: Option<Sender<Job>>,
    /// Unit, peer and beginning of everything that is not taken back yet, oldest first.
    pending: Vec<(u16, u64, Instant)>,
    idle_since: Instant,
}

impl Worker {
    /// A worker without a thread.
    ///
    /// # Errors
    /// When the kernel has no event descriptor for it.
    pub fn new() -> io::Result<Self> {
        let rung = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let bell = Arc::new(Bell { done: Mutex::default(), rung });
        Ok(Self { bell, jobs: None, pending: Vec::new(), idle_since: Instant::now() })
    }

    /// Readable when [`Self::take`] has something.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.rung.as_fd()
    }

    /// Whether work of a unit is here.
    pub fn has_work_of(&self, lun: u16) -> bool {
        self.pending.iter().any(|(pending, ..)| *pending == lun)
    }

    /// Whether work of a peer is here, or of one that is not among these any more.
    pub fn has_work_of_others_than(&self, living: &[u64]) -> bool {
        self.pending.iter().any(|(_, peer, _)| !living.contains(peer))
    }

    /// When the oldest work of a unit came.
    pub fn waits_since(&self, lun: u16) -> Option<Instant> {
        self.pending.iter().find(|(pending, ..)| *pending == lun).map(|(.., since)| *since)
    }

    /// Takes work on. It is done inline when no thread can be had: slow beats never.
    pub fn submit(&mut self, peer: u64, task: TaskId, disk: &Arc<Disk>, work: Work, buffer: Vec<u8>) {
        let since = Instant::now();
        let job = Job { peer, task, disk: Arc::clone(disk), work, buffer, since };
        self.pending.push((disk.unit.number, peer, since));
        if self.jobs.is_none() {
            self.jobs = start(&self.bell);
        }
        let refused = match &self.jobs {
            Some(jobs) => jobs.send(job).err().map(|error| error.0),
            None => Some(job),
        };
        if let Some(job) = refused {
            self.jobs = None;
            let done = work_on(job);
            self.bell.done().push_back(done);
            ring(&self.bell);
        }
    }

    /// Everything that was done since.
    pub fn take(&mut self) -> Vec<Done> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell.rung, &mut count);
        let done: Vec<Done> = self.bell.done().drain(..).collect();
        for one in &done {
            if let Some(at) =
                self.pending.iter().position(|(lun, peer, _)| (*lun, *peer) == (one.lun, one.peer))
            {
                self.pending.remove(at);
            }
        }
        if !done.is_empty() {
            self.idle_since = Instant::now();
        }
        done
    }

    /// When [`Self::rest`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        (self.jobs.is_some() && self.pending.is_empty()).then(|| self.idle_since + IDLE)
    }

    /// Ends the thread when it has had nothing to do for a while.
    pub fn rest(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.jobs = None;
        }
    }

    /// Waits until everything is done.
    pub fn finish(&mut self) {
        while !self.pending.is_empty() {
            let mut fds = [rustix::event::PollFd::new(&self.bell.rung, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, None);
            self.take();
        }
    }
}

fn start(bell: &Arc<Bell>) -> Option<Sender<Job>> {
    let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
    let bell = Arc::clone(bell);
    let thread = thread::Builder::new().name("disk".to_owned()).stack_size(STACK).spawn(move || {
        for job in queue {
            let done = work_on(job);
            let mut waiting = bell.done();
            waiting.push_back(done);
            // Once is enough: everything is taken at once.
            if waiting.len() == 1 {
                drop(waiting);
                ring(&bell);
            }
        }
    });
    match thread {
        Ok(_) => Some(jobs),
        Err(error) => {
            tracing::warn!(%error, "no thread for the disk's work; it is done inline");
            None
        }
    }
}

fn work_on(Job { peer, task, disk, work, buffer, since }: Job) -> Done {
    let mut moved = Moved::default();
    let kind = Kind::of(&work);
    let size = size(&work);
    let (outcome, spent) = disk.execute(work, buffer, &mut moved);
    Done { peer, task, lun: disk.unit.number, outcome, spent, moved, kind, since, size }
}

/// The bytes that work adds to what is to be sent.
pub fn size(work: &Work) -> usize {
    match work {
        Work::Read(range) => usize::try_from(range.length).unwrap_or(usize::MAX),
        _ => 0,
    }
}

fn ring(bell: &Bell) {
    let _ = rustix::io::write(&bell.rung, &1_u64.to_ne_bytes());
}

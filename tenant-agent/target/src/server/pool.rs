//! Disk work that would wait: threads do it, so that the loop goes on answering NOPs, logins and aborts, and so that what
//! is read from a disk is asked of it together.
//!
//! Threads are started when there is more to do than they can, and end when they were idle for a while: a target that
//! serves from the page cache has none.
//!
//! Invariant: work that conflicts with other work of its unit ([`Footprint`]) begins when that is over, here or in the
//! loop. All other work may overtake: the control mode page says so, and an initiator waits for an answer before it relies
//! on it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bmi_iscsi::{Outcome, TaskId, Work};
use rustix::event::{EventfdFlags, eventfd};

use super::footprint::Footprint;
use super::statistics::Kind;
use crate::disk::{Disk, Moved};

/// Threads at most: what a disk is asked together.
const THREADS: usize = 8;

/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

/// Its stack: buffers are on the heap.
const STACK: usize = 128 * 1024;

/// Work to be done.
struct Job {
    claim: Claim,
    disk: Arc<Disk>,
    work: Work,
    /// For what is read.
    buffer: Vec<u8>,
}

/// What is known of work while it is under way.
#[derive(Clone, Copy)]
struct Claim {
    lun: u16,
    peer: u64,
    task: TaskId,
    since: Instant,
    footprint: Footprint,
    light: bool,
}

impl Claim {
    const fn waits_for(&self, earlier: &Self) -> bool {
        self.lun == earlier.lun && self.footprint.conflicts(&earlier.footprint)
    }
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

/// What the threads and the loop share.
struct Crew {
    jobs: Mutex<Jobs>,
    /// There is a job.
    more: Condvar,
    done: Mutex<VecDeque<Done>>,
    /// Readable when something is done.
    bell: OwnedFd,
}

/// Jobs that no thread has taken.
#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    /// Work that seldom has to be waited for: one thread does it, one after another. To wake one for each would take
    /// longer than the work.
    light: VecDeque<Job>,
    light_runs: bool,
    threads: usize,
    idle: usize,
}

impl Jobs {
    /// How many threads could begin something.
    fn wanted(&self) -> usize {
        self.queue.len() + usize::from(!self.light_runs && !self.light.is_empty())
    }

    fn take(&mut self) -> Option<Job> {
        if !self.light_runs
            && let Some(job) = self.light.pop_front()
        {
            self.light_runs = true;
            return Some(job);
        }
        self.queue.pop_front()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool, as the loop sees it.
pub struct Pool {
    crew: Arc<Crew>,
    /// With the threads, or done and not taken back yet.
    running: Vec<Claim>,
    /// Held back by other work. In the order it came.
    waiting: VecDeque<Job>,
}

impl Pool {
    /// A pool without threads.
    ///
    /// # Errors
    /// When the kernel has no event descriptor for it.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let crew = Crew { jobs: Mutex::default(), more: Condvar::new(), done: Mutex::default(), bell };
        Ok(Self { crew: Arc::new(crew), running: Vec::new(), waiting: VecDeque::new() })
    }

    /// Readable when [`Self::take`] has something.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.crew.bell.as_fd()
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.running.iter().chain(self.waiting.iter().map(|job| &job.claim))
    }

    /// Whether work of this unit has to wait for what is here.
    pub fn is_in_the_way(&self, lun: u16, work: &Work) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let footprint = Footprint::of(work);
        self.claims().any(|claim| claim.lun == lun && claim.footprint.conflicts(&footprint))
    }

    /// Whether work is here of peers that are not among these any more.
    pub fn has_work_of_others_than(&self, living: &[u64]) -> bool {
        self.claims().any(|claim| !living.contains(&claim.peer))
    }

    /// When the oldest work of a unit came.
    pub fn waits_since(&self, lun: u16) -> Option<Instant> {
        self.claims().filter(|claim| claim.lun == lun).map(|claim| claim.since).min()
    }

    /// Takes work on.
    pub fn submit(&mut self, peer: u64, task: TaskId, disk: &Arc<Disk>, work: Work, buffer: Vec<u8>) {
        let (lun, footprint, light) = (disk.unit.number, Footprint::of(&work), disk.is_light(&work));
        let claim = Claim { lun, peer, task, since: Instant::now(), footprint, light };
        let job = Job { claim, disk: Arc::clone(disk), work, buffer };
        if self.claims().any(|other| claim.waits_for(other)) {
            self.waiting.push_back(job);
        } else {
            self.begin(job);
        }
    }

    fn begin(&mut self, job: Job) {
        self.running.push(job.claim);
        if let Some(job) = self.crew.take_on(job) {
            // No thread can be had: slow beats never.
            self.crew.done(work_on(job));
        }
    }

    /// Everything that was done since; what waited for it begins.
    pub fn take(&mut self) -> Vec<Done> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.crew.bell, &mut count);
        let done: Vec<Done> = lock(&self.crew.done).drain(..).collect();
        for one in &done {
            let same = |claim: &Claim| (claim.peer, claim.task) == (one.peer, one.task);
            if let Some(at) = self.running.iter().position(same) {
                self.running.swap_remove(at);
            }
        }
        for job in std::mem::take(&mut self.waiting) {
            // Also behind those before it that go on waiting.
            if self.claims().any(|other| job.claim.waits_for(other)) {
                self.waiting.push_back(job);
            } else {
                self.begin(job);
            }
        }
        done
    }

    /// Waits until everything is done.
    pub fn finish(&mut self) {
        while !(self.running.is_empty() && self.waiting.is_empty()) {
            let mut fds = [rustix::event::PollFd::new(&self.crew.bell, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, None);
            self.take();
        }
    }
}

impl Crew {
    /// Gives the job back when no thread can be had.
    fn take_on(self: &Arc<Self>, job: Job) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        let light = job.claim.light;
        if light {
            jobs.light.push_back(job);
        } else {
            jobs.queue.push_back(job);
        }
        if light && jobs.light_runs {
            return None;
        }
        if jobs.idle < jobs.wanted() && jobs.threads < THREADS {
            let crew = Arc::clone(self);
            let thread = thread::Builder::new().name("disk".to_owned()).stack_size(STACK);
            match thread.spawn(move || crew.serve()) {
                Ok(_) => jobs.threads += 1,
                Err(error) if jobs.threads == 0 => {
                    tracing::warn!(%error, "no thread for the disk's work; it is done inline");
                    return if light { jobs.light.pop_back() } else { jobs.queue.pop_back() };
                }
                Err(_) => {}
            }
        }
        drop(jobs);
        self.more.notify_one();
        None
    }

    /// What a thread does.
    fn serve(&self) {
        while let Some(job) = self.next() {
            let light = job.claim.light;
            self.done(work_on(job));
            if light {
                lock(&self.jobs).light_runs = false;
            }
        }
    }

    /// Nothing when there was none for a while: the thread is not counted any more then.
    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        if jobs.wanted() == 0 {
            jobs.idle += 1;
            let nothing = |jobs: &mut Jobs| jobs.wanted() == 0;
            let waited = self.more.wait_timeout_while(jobs, IDLE, nothing);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
            jobs.idle -= 1;
        }
        let job = jobs.take();
        if job.is_none() {
            jobs.threads -= 1;
        }
        job
    }

    fn done(&self, done: Done) {
        let mut all = lock(&self.done);
        all.push_back(done);
        // Once is enough: everything is taken at once.
        if all.len() == 1 {
            drop(all);
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

fn work_on(Job { claim, disk, work, buffer }: Job) -> Done {
    let mut moved = Moved::default();
    let (kind, size) = (Kind::of(&work), size(&work));
    let (outcome, spent) = disk.execute(work, buffer, &mut moved);
    let Claim { lun, peer, task, since, .. } = claim;
    Done { peer, task, lun, outcome, spent, moved, kind, since, size }
}

/// The bytes that work adds to what is to be sent.
pub fn size(work: &Work) -> usize {
    match work {
        Work::Read(range) => usize::try_from(range.length).unwrap_or(usize::MAX),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bmi_iscsi::Range;

    use super::super::gate::{Gate, Gated};
    use super::*;

    /// A pool and a closed gate.
    fn held() -> (Pool, Arc<Disk>, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let bytes = Arc::new(Mutex::new(vec![0; 1 << 20]));
        let disk = Disk::over(Box::new(Gated(Arc::clone(&gate), bytes)));
        gate.set(true);
        (Pool::new().unwrap(), Arc::new(disk), gate)
    }

    fn read(block: u64) -> Work {
        Work::Read(Range { offset: block * 512, length: 512 })
    }

    fn write(block: u64, value: u8) -> Work {
        Work::Write { offset: block * 512, data: vec![value; 512], durable: false }
    }

    /// Everything to its end: tasks in the order they were done, with what they brought.
    fn all(pool: &mut Pool) -> Vec<(u64, Outcome)> {
        let mut done = Vec::new();
        while !pool.running.is_empty() {
            done.extend(pool.take().into_iter().map(|done| (done.task.0, done.outcome)));
            thread::sleep(Duration::from_millis(1));
        }
        done
    }

    #[test]
    fn a_store_is_asked_for_many_things_together_and_not_for_too_many() {
        let (mut pool, disk, gate) = held();
        for task in 0..40 {
            pool.submit(1, TaskId(task), &disk, read(task), vec![0; 512]);
        }
        gate.holds(THREADS);
        let oldest = pool.waits_since(0).unwrap();
        gate.set(false);
        let mut tasks: Vec<u64> = all(&mut pool).into_iter().map(|(task, _)| task).collect();
        tasks.sort_unstable();
        assert_eq!(tasks, (0..40).collect::<Vec<_>>());
        assert_eq!(pool.waits_since(0), None);
        assert!(oldest.elapsed() > Duration::ZERO);
    }

    #[test]
    fn what_seldom_waits_has_one_thread_and_takes_none_from_what_does() {
        let (mut pool, disk, gate) = held();
        for task in 0..20 {
            let work = if task < 10 { write(task, 1) } else { read(100 + task) };
            pool.submit(1, TaskId(task), &disk, work, vec![0; 512]);
        }
        gate.holds(THREADS);
        let jobs = lock(&pool.crew.jobs);
        assert_eq!((jobs.light.len(), jobs.queue.len()), (9, 10 - (THREADS - 1)));
        drop(jobs);
        gate.set(false);
        assert_eq!(all(&mut pool).len(), 20);
    }

    #[test]
    fn what_conflicts_waits_for_what_came_before_and_is_not_overtaken() {
        let (mut pool, disk, gate) = held();
        let swap = Work::CompareAndWrite { offset: 0, data: [[7; 512], [8; 512]].concat(), durable: false };
        for (task, work) in [
            (0, write(0, 7)),
            (1, read(9)),
            (2, read(0)),
            // Must be alone: it waits for all of them, and what came after for it.
            (3, swap),
            (4, read(0)),
            (5, read(10)),
        ] {
            pool.submit(1, TaskId(task), &disk, work, vec![0; 512]);
        }
        gate.holds(2);
        assert!(pool.is_in_the_way(0, &read(20)), "one that must be alone waits");
        assert!(!pool.is_in_the_way(1, &read(0)), "another unit");
        gate.set(false);
        let done = all(&mut pool);
        let at = |task| done.iter().position(|(found, _)| *found == task).unwrap();
        let outcome = |task: u64| done[at(task)].1.clone();
        assert_eq!(outcome(2), Outcome::Data(vec![7; 512]));
        assert_eq!(outcome(3), Outcome::Done);
        assert_eq!(outcome(4), Outcome::Data(vec![8; 512]));
        assert!((0..3).all(|task| at(task) < at(3)) && at(3) < at(4).min(at(5)), "{done:?}");
        assert!(!pool.is_in_the_way(0, &read(20)));
    }
}

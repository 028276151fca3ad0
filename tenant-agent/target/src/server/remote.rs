//! A logical unit on an NBD server: its work is under way together, and nothing here waits for it.
//!
//! Invariant: work that conflicts with other work ([`Footprint`]) begins when that is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bmi_block::nbd::{Change, Nbd, Request};
use bmi_iscsi::{Fault, Outcome, TaskId, Work};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::footprint::Footprint;
use super::poller::{Interest, Poller};
use super::pool::{Done, size};
use super::statistics::Kind;
use crate::disk::{Moved, failure};
use crate::steps::{Next, Steps};

/// How long the end waits for what is under way, and for a last flush.
const LAST: Duration = Duration::from_secs(5);

/// Work, under way or before it.
struct Job {
    token: u64,
    peer: u64,
    task: TaskId,
    steps: Steps,
    /// What to ask first, until it is asked.
    first: Option<Request>,
    footprint: Footprint,
    /// It writes in several requests.
    parts: bool,
    /// What the store had lost when the first of them was over.
    losses: Option<u64>,
    since: Instant,
    kind: Kind,
    size: usize,
}

/// One unit.
pub struct Remote {
    pub lun: u16,
    nbd: Nbd,
    waiting: VecDeque<Job>,
    running: Vec<Job>,
    next_token: u64,
    interest: Option<Interest>,
}

impl Remote {
    pub const fn new(lun: u16, nbd: Nbd) -> Self {
        Self { lun, nbd, waiting: VecDeque::new(), running: Vec::new(), next_token: 0, interest: None }
    }

    /// Takes work on. Ask [`Self::process`] afterwards.
    pub fn submit(&mut self, peer: u64, task: TaskId, work: Work, buffer: Vec<u8>) {
        let footprint = Footprint::of(&work);
        let parts = matches!(work, Work::Discard { .. } | Work::Repeat { .. });
        let (kind, size) = (Kind::of(&work), size(&work));
        let (steps, first) = Steps::begin(work, buffer, self.nbd.size());
        self.next_token += 1;
        let token = self.next_token;
        self.waiting.push_back(Job {
            token,
            peer,
            task,
            steps,
            first: Some(first),
            footprint,
            parts,
            losses: None,
            since: Instant::now(),
            kind,
            size,
        });
        self.start();
    }

    fn start(&mut self) {
        for mut job in std::mem::take(&mut self.waiting) {
            // Also behind those before it that go on waiting.
            let mut earlier = self.running.iter().chain(&self.waiting);
            if earlier.any(|earlier| job.footprint.conflicts(&earlier.footprint)) {
                self.waiting.push_back(job);
                continue;
            }
            if let Some(request) = job.first.take() {
                self.nbd.submit(job.token, request);
            }
            self.running.push(job);
        }
    }

    /// Sends and receives; what is over goes to `done`.
    pub fn process(&mut self, now: Instant, done: &mut Vec<Done>) {
        self.nbd.process(now);
        while let Some(completed) = self.nbd.take_completed() {
            let Some(at) = self.running.iter().position(|job| job.token == completed.token) else { continue };
            let next = match (completed.result, self.running.get_mut(at)) {
                (Ok(reply), Some(job)) => job.steps.next(reply),
                (Err(error), _) => Next::End(failure(self.lun, &error), Vec::new()),
                (_, None) => continue,
            };
            match next {
                // Nothing of it is kept on this side.
                Next::Ask(request) | Next::AskMedium(request) => {
                    if let Some(job) = self.running.get_mut(at) {
                        job.losses.get_or_insert(completed.losses);
                    }
                    self.nbd.submit(completed.token, request);
                }
                Next::End(mut outcome, spent) => {
                    let job = self.running.swap_remove(at);
                    // What was written before may be gone, and whoever was told so could not know of this.
                    if job.parts && job.losses.is_some_and(|losses| losses != completed.losses) {
                        tracing::error!(
                            lun = self.lun,
                            "the store broke in the middle of a write; a part may be lost"
                        );
                        outcome = Outcome::Failed(Fault::Write);
                    }
                    done.push(self.over(job, outcome, spent));
                    self.start();
                }
            }
            self.nbd.process(now);
        }
        match self.nbd.take_change() {
            Some(Change::Lost(fault)) => {
                tracing::warn!(
                    lun = self.lun,
                    "the store is gone; what it was asked waits: {}",
                    bmi_types::chain(&fault)
                );
                self.interest = None;
            }
            Some(Change::Restored) => {
                tracing::info!(lun = self.lun, "the store is back");
                self.interest = None;
            }
            None => {}
        }
    }

    fn over(&self, job: Job, outcome: Outcome, spent: Vec<u8>) -> Done {
        let moved = if matches!(outcome, Outcome::Failed(_)) { Moved::default() } else { job.steps.moved };
        let Job { peer, task, kind, since, size, .. } = job;
        Done { peer, task, lun: self.lun, outcome, spent, moved, kind, since, size }
    }

    /// Tells the poller what is waited for, if that has changed.
    pub fn update_interest(&mut self, poller: &Poller, token: u64) {
        let wanted = Interest { input: true, output: self.nbd.wants_to_send() };
        let Some(fd) = self.nbd.fd().filter(|_| self.interest != Some(wanted)) else { return };
        match poller.ensure(fd, token, wanted) {
            Ok(()) => self.interest = Some(wanted),
            Err(error) => tracing::error!(%error, lun = self.lun, "cannot wait for the store"),
        }
    }

    /// When the oldest work came.
    pub fn waits_since(&self) -> Option<Instant> {
        self.waiting.iter().chain(&self.running).map(|job| job.since).min()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.nbd.deadline()
    }

    /// Whether work is here of peers that are not among these any more.
    pub fn has_work_of_others_than(&self, living: &[u64]) -> bool {
        self.waiting.iter().chain(&self.running).any(|job| !living.contains(&job.peer))
    }

    /// Waits for what is under way and flushes, in bounded time.
    pub fn finish(&mut self) {
        let until = Instant::now() + LAST;
        let mut done = Vec::new();
        self.submit(0, TaskId(0), Work::Flush, Vec::new());
        while !(self.running.is_empty() && self.waiting.is_empty()) {
            self.process(Instant::now(), &mut done);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!(lun = self.lun, "cannot flush at the end: the store does not answer");
                return;
            }
            let pause = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            if let Some(fd) = self.nbd.fd() {
                let mut flags = PollFlags::IN;
                flags.set(PollFlags::OUT, self.nbd.wants_to_send());
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&pause));
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

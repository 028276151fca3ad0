//! What all peers use: disks, secrets, counters, the event queue.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;
use bmi_iscsi::{Fault, Isid, Outcome, Range, TargetConfig, TargetState, Task, TaskId, Work};

use super::poller::Poller;
use super::pool::{Done, Pool};
use super::remote::Remote;
use super::statistics::Kind;
use crate::arguments::Sessions;
use crate::credentials::Credentials;
use crate::disk::{Disk, Moved, Store};
use crate::events::Events;

/// The least time between two traffic events.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);

/// A store that takes longer than this for something stands still: new work for it is not taken. An initiator aborts
/// after 15 s or more, and asks again after a fraction of a second if it is told to.
pub const STALL: Duration = Duration::from_secs(2);

/// The size of the buffer all peers receive into, in bytes.
const RECEIVE: usize = 128 * 1024;

/// What a peer wants from the server.
pub enum Request {
    /// Decide about its candidate.
    Admit(u64),
    /// Tell the others that a unit, or all, were reset.
    Reset { by: u64, lun: Option<u16>, task: TaskId },
    /// End the tasks of these initiators' sessions.
    Preempted { by: u64, lun: u16, whose: Vec<(String, Isid)>, task: TaskId },
}

/// What became of work.
pub enum Executed {
    /// It is done; the buffer is not needed any more.
    Now(TaskId, Outcome, Moved, Vec<u8>),
    /// It is on its way, and comes back by [`Shared::done`].
    Later,
}

pub struct Shared {
    pub config: Arc<TargetConfig>,
    pub state: TargetState,
    pub credentials: Credentials,
    pub requests: Vec<Request>,
    pub buffer: Vec<u8>,
    disks: Vec<Arc<Disk>>,
    pub remotes: Vec<Remote>,
    /// Work of remotes that is over.
    over: Vec<Done>,
    pub pool: Pool,
    /// There is one session at a time, so none whose COMPARE AND WRITE another's read could look into.
    one_session: bool,
    events: Events,
    moved: Moved,
    reported: Moved,
    reported_at: Option<Instant>,
    full: bool,
}

impl Shared {
    pub fn new(
        config: Arc<TargetConfig>,
        stores: Vec<Store>,
        credentials: Credentials,
        events: Events,
        pool: Pool,
        sessions: Sessions,
    ) -> Self {
        let (mut disks, mut remotes) = (Vec::new(), Vec::new());
        for store in stores {
            match store {
                Store::Local(disk) => disks.push(Arc::new(disk)),
                Store::Remote(unit, nbd) => remotes.push(Remote::new(unit.number, *nbd)),
            }
        }
        Self {
            state: TargetState::new(&config),
            config,
            credentials,
            requests: Vec::new(),
            buffer: vec![0; RECEIVE],
            disks,
            remotes,
            over: Vec::new(),
            pool,
            one_session: sessions == Sessions::One,
            events,
            moved: Moved::default(),
            reported: Moved::default(),
            reported_at: None,
            full: false,
        }
    }

    pub fn say(&self, event: &TargetEvent) {
        self.events.send(event);
    }

    /// The file of a logical unit from which a range can be sent.
    pub fn resident(&self, lun: u16, range: Range) -> Option<BorrowedFd<'_>> {
        self.disks.iter().find(|disk| disk.unit.number == lun)?.resident(range)
    }

    /// Does work on a logical unit, now if that needs no waiting. `buffer` is for what is read, unless that can be
    /// `from_store`.
    pub fn execute(
        &mut self,
        peer: u64,
        Task { id, lun, work }: Task,
        mut buffer: Vec<u8>,
        from_store: bool,
    ) -> Executed {
        if let Some(remote) = self.remotes.iter_mut().find(|remote| remote.lun == lun) {
            remote.submit(peer, id, work, buffer);
            return Executed::Later;
        }
        let Some(disk) = self.disks.iter().find(|disk| disk.unit.number == lun) else {
            return Executed::Now(id, Outcome::Failed(Fault::Read), Moved::default(), buffer);
        };
        if !self.pool.is_in_the_way(lun, &work) {
            if let Work::Read(range) = work
                && from_store
                && self.one_session
                && disk.is_sent_from(range)
            {
                let moved = Moved { read: range.length, written: 0 };
                self.moved += moved;
                return Executed::Now(id, Outcome::Stored(range), moved, buffer);
            }
            let mut moved = Moved::default();
            if let Some(outcome) = disk.execute_now(&work, &mut buffer, &mut moved) {
                self.moved += moved;
                self.note_space(lun, matches!(work, Work::Write { .. }), &outcome);
                let spent = if let Work::Write { data, .. } = work { data } else { buffer };
                return Executed::Now(id, outcome, moved, spent);
            }
        }
        self.pool.submit(peer, id, disk, work, buffer);
        Executed::Later
    }

    /// Work that has come back.
    pub fn done(&mut self) -> Vec<Done> {
        let mut done = self.pool.take();
        done.append(&mut self.over);
        for one in &done {
            self.moved += one.moved;
            self.note_space(one.lun, one.kind == Kind::Write, &one.outcome);
        }
        done
    }

    /// Units, and whether their store stands still: something has waited for it too long.
    pub fn stalled(&self, now: Instant) -> impl Iterator<Item = (u16, bool)> {
        let local = self.disks.iter().map(|disk| {
            let lun = disk.unit.number;
            (lun, self.pool.waits_since(lun))
        });
        let remote = self.remotes.iter().map(|remote| (remote.lun, remote.waits_since()));
        local.chain(remote).map(move |(lun, since)| {
            (lun, since.is_some_and(|since| now.saturating_duration_since(since) >= STALL))
        })
    }

    /// When the oldest work of a unit, or of all, came that is not done yet.
    pub fn waits_since(&self, lun: Option<u16>) -> Option<Instant> {
        let concerned = |number: &u16| lun.is_none_or(|lun| lun == *number);
        let local = self.disks.iter().map(|disk| disk.unit.number).filter(concerned);
        let remote = self.remotes.iter().filter(|remote| concerned(&remote.lun));
        local.filter_map(|lun| self.pool.waits_since(lun)).chain(remote.filter_map(Remote::waits_since)).min()
    }

    /// Sends and receives for the stores behind sockets. Whether something is over.
    pub fn process_remotes(&mut self, now: Instant) -> bool {
        self.remotes.iter_mut().for_each(|remote| remote.process(now, &mut self.over));
        !self.over.is_empty()
    }

    /// Tells the poller what the stores behind sockets are waited for.
    pub fn update_interests(&mut self, poller: &Poller, tokens: u64) {
        for (remote, token) in self.remotes.iter_mut().zip(tokens..) {
            remote.update_interest(poller, token);
        }
    }

    fn note_space(&mut self, lun: u16, wrote: bool, outcome: &Outcome) {
        if *outcome == Outcome::Failed(Fault::NoSpace) {
            if !std::mem::replace(&mut self.full, true) {
                tracing::error!(lun, "the store has no space left; writes fail until it has");
                self.say(&TargetEvent::SpaceExhausted);
            }
        } else if wrote && *outcome == Outcome::Done {
            self.full = false;
        }
    }

    fn changed(&self) -> bool {
        (self.moved.read, self.moved.written) != (self.reported.read, self.reported.written)
    }

    pub fn traffic_deadline(&self, now: Instant) -> Option<Instant> {
        self.changed().then(|| self.reported_at.map_or(now, |at| at + TRAFFIC_EVERY))
    }

    pub fn report_traffic(&mut self, now: Instant) {
        if self.traffic_deadline(now).is_some_and(|deadline| deadline <= now) {
            self.reported = self.moved;
            self.reported_at = Some(now);
            let Moved { read, written } = self.moved;
            self.say(&TargetEvent::Traffic { read_bytes: read, written_bytes: written });
        }
    }

    /// Flushes every disk and the event queue.
    pub fn end(mut self) {
        self.pool.finish();
        self.remotes.iter_mut().for_each(Remote::finish);
        for disk in &self.disks {
            if let Err(error) = disk.flush() {
                tracing::error!(lun = disk.unit.number, %error, "cannot flush at the end");
            }
        }
        self.reported_at = None;
        self.report_traffic(Instant::now());
        self.events.finish();
    }
}

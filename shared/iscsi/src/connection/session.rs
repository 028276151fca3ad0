//! The tasks of a session.
//!
//! A task is *collecting* until its data have arrived, *ready* until the caller takes it, *taken* until it is
//! completed. Abort removes it from the first two; a taken one stays, dead, until it is completed, since its writes
//! may still land.

use std::collections::VecDeque;

use super::tasks::Tasks;
use super::{Task, TaskId};
use crate::config::{READ_PIECE, SOLICITED_BYTES, WINDOW};
use crate::header::Header;
use crate::login::Parameters;
use crate::scsi::{Action, Member, Range, Work};
use crate::wire;

/// A command being executed.
#[derive(Debug)]
pub struct Open {
    pub id: TaskId,
    pub lun: u16,
    /// Data the initiator has room for, in bytes.
    pub read_length: u32,
    /// Data the initiator offers, in bytes.
    pub write_length: u32,
    /// Data the command is about, either way, in bytes. Against the two above it gives the residual.
    pub wanted: u32,
    /// The most the initiator has room for by its CDB, in bytes: of what is not known when the command is decoded.
    pub allocation: u32,
    /// D_SENSE of the unit when the command came.
    pub descriptor_sense: bool,
    /// How far the Data-In are.
    pub sending: Sending,
    /// Bytes promised by R2T, until their buffer is free again.
    pub reserved: u64,
    pub state: State,
}

/// How far the Data-In of a command are.
#[derive(Debug, Default)]
pub struct Sending {
    /// What of a READ is not read yet.
    pub rest: Option<Range>,
    /// Where the next byte belongs.
    pub offset: u32,
    /// The next DataSN.
    pub data_sn: u32,
    /// Bytes of the current sequence.
    pub in_burst: u32,
}

impl Sending {
    /// Takes the next piece of a READ; nothing when all was read.
    pub fn next_piece(&mut self) -> Option<Work> {
        let rest = self.rest.take()?;
        let length = rest.length.min(u64::from(READ_PIECE));
        if rest.length > length {
            self.rest = Some(Range { offset: rest.offset + length, length: rest.length - length });
        }
        Some(Work::Read(Range { offset: rest.offset, length }))
    }
}

/// Where a task is.
#[derive(Debug)]
pub enum State {
    /// Entered by commands with data; left when all are here.
    Collecting(Collecting),
    /// Entered when nothing is missing; left by `next_task`.
    Ready(Work),
    /// With the caller.
    Taken,
}

/// Data on their way from the initiator.
#[derive(Debug)]
pub struct Collecting {
    pub action: Action,
    /// `target` bytes, of which those before `offset` have arrived; more is thrown away. Empty while it is lent to the
    /// stream.
    pub data: Vec<u8>,
    /// How many bytes will be used.
    pub target: u32,
    /// Where the next byte belongs.
    pub offset: u32,
    /// Unsolicited Data-Out follow.
    pub unsolicited: bool,
    /// The next DataSN of the sequence.
    pub data_sn: u32,
    /// What was asked for and has not arrived whole, in order.
    pub bursts: VecDeque<Burst>,
    /// How far R2Ts have asked.
    pub asked: u32,
    pub r2t_sn: u32,
}

/// An R2T that is not fulfilled.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    pub ttt: u32,
    pub end: u32,
}

/// A task management answer that waits for dead tasks to be completed, and for word of other sessions'.
#[derive(Debug)]
pub struct Deferred {
    pub itt: u32,
    pub response: u8,
    pub close: bool,
    pub waits: Vec<TaskId>,
}

#[derive(Debug)]
pub struct Session {
    pub parameters: Parameters,
    pub discovery: bool,
    /// At most the window and a few immediate ones.
    pub tasks: Tasks,
    ready: VecDeque<u32>,
    /// Writes that wait for their R2T, oldest first.
    pub waiting: VecDeque<u32>,
    /// Aborted while taken, with the bytes they had reserved.
    pub dead: Vec<(TaskId, u64)>,
    pub deferred: Vec<Deferred>,
    /// Its place among the sessions of the target.
    pub member: Member,
    pub logout: Option<Header>,
    /// Text collected over several requests.
    pub text: Vec<u8>,
    /// Units whose store stands still.
    pub stalled: Vec<u16>,
    /// The last PDU brought much data.
    pub long_data: bool,
    next_id: u64,
    next_ttt: u32,
}

impl Session {
    pub fn new(member: Member, parameters: Parameters, discovery: bool) -> Self {
        Self {
            parameters,
            discovery,
            tasks: Tasks::default(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            dead: Vec::new(),
            deferred: Vec::new(),
            member,
            logout: None,
            text: Vec::new(),
            stalled: Vec::new(),
            long_data: false,
            next_id: 0,
            next_ttt: 0,
        }
    }

    pub fn fresh_id(&mut self) -> TaskId {
        self.next_id += 1;
        TaskId(self.next_id)
    }

    pub fn fresh_ttt(&mut self) -> u32 {
        self.next_ttt = self.next_ttt.wrapping_add(1) & 0x7fff_ffff;
        self.next_ttt
    }

    /// Commands that may still come. Dead tasks count: their memory is not free yet.
    pub fn window(&self) -> u32 {
        WINDOW.saturating_sub(wire::length(self.tasks.len() + self.dead.len()))
    }

    /// Whether commands or task management are unanswered.
    pub fn busy(&self) -> bool {
        !self.tasks.is_empty() || !self.dead.is_empty() || !self.deferred.is_empty()
    }

    pub fn make_ready(&mut self, itt: u32, work: Work) {
        if let Some(open) = self.tasks.get_mut(itt) {
            open.state = State::Ready(work);
            self.ready.push_back(itt);
        }
    }

    pub fn next_task(&mut self) -> Option<Task> {
        while let Some(itt) = self.ready.pop_front() {
            let Some(open) = self.tasks.get_mut(itt) else { continue };
            match std::mem::replace(&mut open.state, State::Taken) {
                State::Ready(work) => return Some(Task { id: open.id, lun: open.lun, work }),
                other => open.state = other,
            }
        }
        None
    }

    /// Takes a task out.
    pub fn remove(&mut self, itt: u32) -> Option<Open> {
        let open = self.tasks.remove(itt)?;
        self.waiting.retain(|waiting| *waiting != itt);
        Some(open)
    }

    /// Aborts the tasks `which` picks. Returns those the caller still holds.
    pub fn abort(&mut self, which: impl Fn(u32, &Open) -> bool) -> Vec<TaskId> {
        let picked: Vec<u32> =
            self.tasks.iter().filter(|(itt, open)| which(*itt, open)).map(|(itt, _)| itt).collect();
        let mut held = Vec::new();
        for itt in picked {
            if let Some(open) = self.remove(itt)
                && matches!(open.state, State::Taken)
            {
                held.push(open.id);
                self.dead.push((open.id, open.reserved));
            }
            self.ready.retain(|ready| *ready != itt);
        }
        held
    }

    /// Drops what can never be completed, since no more data will be asked for.
    pub fn drop_incomplete(&mut self) {
        self.abort(|_, open| matches!(open.state, State::Collecting(_)));
    }

    /// Whether data that were asked for have not arrived.
    pub fn awaits_solicited(&self) -> bool {
        self.tasks.iter().any(|(_, open)| open.reserved > 0 && matches!(open.state, State::Collecting(_)))
    }

    /// Whether `bytes` more may be promised. Data that are complete count until they are written: a store that stands
    /// still must not make the session grow.
    pub fn may_reserve(&self, bytes: u64) -> bool {
        let open = self.tasks.iter().map(|(_, open)| open.reserved);
        let dead = self.dead.iter().map(|(_, reserved)| *reserved);
        open.chain(dead).sum::<u64>() + bytes <= SOLICITED_BYTES
    }
}

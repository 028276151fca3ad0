//! Task management (RFC 7143 sections 11.5, 11.6), and resets that other sessions caused.

use super::session::{Deferred, Session};
use super::{CloseReason, Connection, Event, Phase, TaskId};
use crate::header::{Header, Opcode};
use crate::wire;

/// Responses (RFC 7143 section 11.6.1).
const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_LUN: u8 = 2;
const NO_REASSIGNMENT: u8 = 4;
const REJECTED: u8 = 255;

/// Answers that may wait for dead tasks. More are rejected.
const DEFERRED_MAX: usize = 16;

impl Connection {
    pub(super) fn task_management(&mut self, session: &mut Session, header: &Header) {
        let lun = header.lun();
        let known = lun.filter(|number| self.config.unit(*number).is_some());
        let mut close = false;
        if session.deferred.len() >= DEFERRED_MAX {
            return self.task_management_response(header.itt(), REJECTED);
        }
        let (response, waits) = match header.flags() & 0x7f {
            1 => self.abort_task(session, header),
            // ABORT TASK SET, and CLEAR TASK SET: with a task set per nexus (mode page 0Ah) they are one.
            2 | 4 => match known {
                Some(number) => (COMPLETE, session.abort(|_, open| open.lun == number)),
                None => (NO_LUN, Vec::new()),
            },
            5 => match known {
                Some(number) => (COMPLETE, self.reset_units(session, Some(number))),
                None => (NO_LUN, Vec::new()),
            },
            // TARGET WARM RESET and COLD RESET; the latter also ends the sessions.
            kind @ (6 | 7) => {
                close = kind == 7;
                (COMPLETE, self.reset_units(session, None))
            }
            8 => (NO_REASSIGNMENT, Vec::new()),
            _ => (REJECTED, Vec::new()),
        };
        self.open_window(session);
        session.deferred.push(Deferred { itt: header.itt(), response, close, waits });
        self.finish_deferred(session, TaskId(0));
        if self.closing.is_none() {
            self.grant(session);
            self.finish_logout(session);
        }
    }

    /// Resets a unit, or all of them. Returns what the answer waits for: tasks of this session, and word that those of
    /// the others are over (SAM-5 section 6.3.3).
    fn reset_units(&mut self, session: &mut Session, lun: Option<u16>) -> Vec<TaskId> {
        let units = self.config.units.iter().map(|unit| unit.number);
        units.filter(|number| lun.is_none_or(|lun| lun == *number)).for_each(|lun| session.member.reset(lun));
        let mut waits = session.abort(|_, open| lun.is_none_or(|lun| lun == open.lun));
        let task = session.fresh_id();
        self.events.push_back(Event::Reset { lun, task });
        waits.push(task);
        waits
    }

    fn abort_task(&mut self, session: &mut Session, header: &Header) -> (u8, Vec<TaskId>) {
        let (referenced, reference) = (header.word(20), header.word(32));
        if session.tasks.contains(referenced) {
            return (COMPLETE, session.abort(|itt, _| itt == referenced));
        }
        // A command that never arrived (RFC 7143 section 11.5.5): take its number, so that it is ignored if it comes.
        let missing = reference == self.exp_cmd_sn
            && !wire::before(self.max_cmd_sn, reference)
            && wire::before(reference, header.word(24));
        if missing {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
            return (COMPLETE, Vec::new());
        }
        (NO_TASK, Vec::new())
    }

    /// Sends the answers whose dead tasks are all completed.
    pub(super) fn finish_deferred(&mut self, session: &mut Session, completed: TaskId) {
        let (mut done, mut rest) = (Vec::new(), Vec::new());
        for mut deferred in std::mem::take(&mut session.deferred) {
            deferred.waits.retain(|id| *id != completed);
            if deferred.waits.is_empty() { done.push(deferred) } else { rest.push(deferred) }
        }
        session.deferred = rest;
        for deferred in done {
            self.task_management_response(deferred.itt, deferred.response);
            if deferred.close {
                self.close(CloseReason::Reset);
            }
        }
    }

    fn task_management_response(&mut self, itt: u32, response: u8) {
        let mut header = Header::new(Opcode::TaskManagementResponse);
        header.set(2, &[response]);
        header.set_word(16, itt);
        self.send_status(&mut header, &[]);
    }

    /// Another session reset this unit, or all of them, or preempted this one: its tasks end without a word. What it is
    /// told of is in the target's state.
    pub fn reset(&mut self, lun: Option<u16>) {
        let numbers: Vec<u16> = self.config.units.iter().map(|unit| unit.number).collect();
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Full(mut session) => {
                for number in numbers.into_iter().filter(|number| lun.is_none_or(|lun| lun == *number)) {
                    session.abort(|_, open| open.lun == number);
                }
                self.grant(&mut session);
                self.open_window(&session);
                self.finish_logout(&mut session);
                if self.closing.is_none() {
                    self.phase = Phase::Full(session);
                }
            }
            other => self.phase = other,
        }
    }
}

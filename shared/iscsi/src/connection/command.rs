//! SCSI commands (RFC 7143 section 11.3): decode, collect data, hand over, answer.

use std::collections::VecDeque;

use super::data_in::{BUSY, RESERVATION_CONFLICT, TASK_SET_FULL};
use super::outbox::Source;
use super::session::{Collecting, Open, Sending, Session, State};
use super::{CloseReason, Connection, Event, TaskId};
use crate::config::{IMMEDIATE_TASKS, WINDOW};
use crate::frame::{Data, Pdu};
use crate::header::NO_TAG;
use crate::scsi::{
    self, Action, Identity, ModeHeader, Outcome, Range, Refused, Request, Reservations, Sense, ServiceAction,
    Work,
};
use crate::wire;

impl Connection {
    pub(super) fn command(&mut self, session: &mut Session, pdu: Pdu<'_>) {
        let header = pdu.header;
        let itt = header.itt();
        if itt == NO_TAG {
            return self.reject(&header, 0x04);
        }
        if session.tasks.contains(itt) {
            // TASK IN PROGRESS (RFC 7143 section 11.17.1).
            return self.reject(&header, 0x07);
        }
        let limit = wire::index(WINDOW) + IMMEDIATE_TASKS;
        if header.immediate() && session.tasks.len() + session.dead.len() >= limit {
            // IMMEDIATE COMMAND REJECT, TOO MANY IMMEDIATE COMMANDS.
            return self.reject(&header, 0x06);
        }
        let (reads, writes) = (header.flags() & 0x40 != 0, header.flags() & 0x20 != 0);
        let expected = header.word(20);
        let received = header.data_length();
        let unsolicited = !header.is_final();
        let may_carry = writes && session.parameters.immediate_data;
        let may_follow = writes && !session.parameters.initial_r2t;
        if (received > 0 && !may_carry)
            || (unsolicited && !may_follow)
            || received > expected.min(session.parameters.unsolicited())
        {
            return self.close(CloseReason::Protocol("unsolicited data against the agreement"));
        }
        let mut open = Open {
            id: session.fresh_id(),
            lun: header.lun().unwrap_or(u16::MAX),
            read_length: if reads { expected } else { 0 },
            write_length: if writes { expected } else { 0 },
            wanted: 0,
            allocation: u32::MAX,
            descriptor_sense: false,
            sending: Sending::default(),
            reserved: 0,
            state: State::Taken,
        };
        let cdb = wire::array_at::<16>(&header.0, 32);
        // A unit that there is not has no state to look at.
        let (mode, refused) = session.member.look(open.lun, &cdb);
        open.descriptor_sense = mode.descriptor_sense;
        let decoded = match refused {
            Some(refused) => Err(refused),
            None => scsi::decode(&self.config, header.lun(), mode, &cdb).map_err(Refused::Sense),
        };
        let action = match decoded {
            Ok(action) => action,
            Err(Refused::Sense(sense)) => return self.answer_sense(itt, &open, sense),
            Err(Refused::Conflict) => return self.answer_status(itt, RESERVATION_CONFLICT),
        };
        match action {
            Action::Nothing => self.answer_good(itt, &open),
            Action::Reply(data) => self.answer_data(session, itt, &mut open, data),
            Action::RequestSense { allocation, descriptor } => {
                let sense = self.sense_of(session, header.lun());
                let mut data = if descriptor { sense.descriptor() } else { sense.fixed().to_vec() };
                data.truncate(allocation);
                self.answer_data(session, itt, &mut open, data);
            }
            Action::Reserve => match session.member.with(open.lun, Reservations::reserve) {
                Some(false) => self.answer_status(itt, RESERVATION_CONFLICT),
                _ => self.answer_good(itt, &open),
            },
            Action::Release => {
                session.member.with(open.lun, Reservations::release);
                self.answer_good(itt, &open);
            }
            Action::PersistentIn { service_action, allocation } => {
                let read = |reservations: &mut Reservations, _: &_| {
                    scsi::persistent_in(reservations, service_action)
                };
                match session.member.with(open.lun, read).unwrap_or(Err(Sense::LUN_NOT_SUPPORTED)) {
                    Ok(mut data) => {
                        data.truncate(wire::index(allocation));
                        self.answer_data(session, itt, &mut open, data);
                    }
                    Err(sense) => self.answer_sense(itt, &open, sense),
                }
            }
            // No blocks, and yet data: the number did not fit its byte.
            Action::CompareAndWrite { range: Range { length: 0, .. }, .. } if open.write_length > 0 => {
                self.answer_sense(itt, &open, Sense::invalid_field(13));
            }
            Action::LbaStatus { allocation, .. } => {
                open.allocation = allocation;
                self.begin(session, itt, open, action, Vec::new());
            }
            action if action.data_out() == 0 => {
                if let Action::Read(range) = &action {
                    open.wanted = u32::try_from(range.length).unwrap_or(u32::MAX);
                }
                self.begin(session, itt, open, action, Vec::new());
            }
            action => {
                open.wanted = action.data_out();
                let fits = open.wanted == open.write_length;
                if !fits && action.needs_all_its_data() {
                    return self.answer_sense(itt, &open, Sense::INVALID_FIELD_IN_INFORMATION_UNIT);
                }
                let target = open.wanted.min(open.write_length);
                let room = if unsolicited { session.parameters.unsolicited() } else { received };
                let data = self.immediate_data(pdu.data, wire::index(room.min(target)));
                open.state = State::Collecting(Collecting {
                    action,
                    data,
                    target,
                    offset: received,
                    unsolicited,
                    data_sn: 0,
                    bursts: VecDeque::new(),
                    asked: received,
                    r2t_sn: 0,
                });
                session.tasks.insert(itt, open);
                self.collect(session, itt);
            }
        }
    }

    /// What came with a command, in a buffer with room for what follows unasked.
    fn immediate_data(&mut self, data: Data<'_>, room: usize) -> Vec<u8> {
        match data {
            Data::Lent(loan) if loan.buffer.len() >= room => {
                let mut buffer = loan.buffer;
                buffer.truncate(room);
                buffer
            }
            data => {
                let mut buffer = self.buffers.take(room);
                let bytes = data.bytes();
                let used = bytes.len().min(room);
                wire::put(&mut buffer, 0, bytes.get(..used).unwrap_or(&[]));
                buffer
            }
        }
    }

    /// What REQUEST SENSE tells: an attention, or that there is none.
    fn sense_of(&self, session: &Session, lun: Option<u16>) -> Sense {
        match lun.filter(|number| self.config.unit(*number).is_some()) {
            Some(number) => session.member.take_attention(number).unwrap_or(Sense::NONE),
            None => Sense::LUN_NOT_SUPPORTED,
        }
    }

    /// MODE SELECT, with its parameter list. With the write cache off, nothing that was answered may be lost: the pages
    /// change, so that what begins from now on is durable, and what came before is flushed before the answer.
    fn mode_select(&mut self, session: &mut Session, itt: u32, open: Open, header: ModeHeader, list: &[u8]) {
        let Some(unit) = self.config.unit(open.lun) else {
            return self.answer_sense(itt, &open, Sense::LUN_NOT_SUPPORTED);
        };
        let before = session.member.mode(open.lun);
        let mode = match scsi::mode_select(unit, before, header, list) {
            Ok(mode) => mode,
            Err(sense) => return self.answer_sense(itt, &open, sense),
        };
        // Also when it was off: whoever switched it off may have gone before that was flushed.
        let flushes = unit.write_cache && !mode.write_cache;
        if flushes && session.stalled.contains(&open.lun) {
            return self.answer_stalled(session, itt, open.lun);
        }
        session.member.set_mode(open.lun, mode);
        if flushes {
            session.tasks.insert(itt, open);
            session.make_ready(itt, Work::FlushAll);
        } else {
            self.answer_good(itt, &open);
        }
    }

    /// The store stands still: TASK SET FULL where tasks are under way that will end first, else BUSY (SAM-5 sections
    /// 5.3.4, 5.3.6).
    fn answer_stalled(&mut self, session: &Session, itt: u32, lun: u16) {
        let under_way = session.tasks.iter().any(|(_, other)| other.lun == lun);
        self.answer_status(itt, if under_way { TASK_SET_FULL } else { BUSY });
    }

    /// PERSISTENT RESERVE OUT, with its parameter list.
    fn persistent_out(
        &mut self,
        session: &mut Session,
        itt: u32,
        mut open: Open,
        action: ServiceAction,
        list: &[u8],
    ) {
        let request = match Request::read(action, list) {
            Ok(request) => request,
            Err(sense) => return self.answer_sense(itt, &open, sense),
        };
        let act = |reservations: &mut Reservations, who: &Identity| reservations.persistent(who, request);
        match session.member.with(open.lun, act).unwrap_or(Err(Refused::Sense(Sense::LUN_NOT_SUPPORTED))) {
            Ok(effect) => {
                session.member.tell(open.lun, &effect.attentions);
                if effect.aborted.is_empty() {
                    return self.answer_good(itt, &open);
                }
                // It is over when what it aborted is: until then it is a task as any other.
                let whose = effect.aborted.into_iter().map(|who| (who.initiator, who.isid)).collect();
                self.events.push_back(Event::Preempted { lun: open.lun, whose, task: open.id });
                open.state = State::Taken;
                session.tasks.insert(itt, open);
            }
            Err(Refused::Conflict) => self.answer_status(itt, RESERVATION_CONFLICT),
            Err(Refused::Sense(sense)) => self.answer_sense(itt, &open, sense),
        }
    }

    /// Everything has arrived: make it work, or answer.
    pub(super) fn begin(
        &mut self,
        session: &mut Session,
        itt: u32,
        mut open: Open,
        action: Action,
        data: Vec<u8>,
    ) {
        if let Action::PersistentOut(service_action) = action {
            return self.persistent_out(session, itt, open, service_action, &data);
        }
        if let Action::ModeSelect { header, .. } = action {
            return self.mode_select(session, itt, open, header, &data);
        }
        let work = match self.config.unit(open.lun) {
            Some(unit) => action.into_work(unit, data),
            None => Err(Sense::LUN_NOT_SUPPORTED),
        };
        match work {
            Err(sense) => self.answer_sense(itt, &open, sense),
            Ok(None) => self.answer_good(itt, &open),
            Ok(Some(_)) if session.stalled.contains(&open.lun) => {
                self.answer_stalled(session, itt, open.lun);
            }
            // Nothing of it can be sent, so nothing is read.
            Ok(Some(Work::Read(_))) if open.read_length == 0 => self.answer_good(itt, &open),
            Ok(Some(Work::Read(range))) => {
                let length = range.length.min(u64::from(open.read_length));
                open.sending.rest = Some(Range { length, ..range });
                let Some(piece) = open.sending.next_piece() else { return self.answer_good(itt, &open) };
                session.tasks.insert(itt, open);
                session.make_ready(itt, piece);
            }
            Ok(Some(work)) => {
                session.tasks.insert(itt, open);
                session.make_ready(itt, work);
            }
        }
    }

    pub(super) fn task_completed(&mut self, session: &mut Session, id: TaskId, outcome: Outcome) {
        if let Some(at) = session.dead.iter().position(|(dead, _)| *dead == id) {
            session.dead.swap_remove(at);
        } else if let Some(itt) = session.tasks.tag(id)
            && session.tasks.get(itt).is_some_and(|open| matches!(open.state, State::Taken))
            && let Some(mut open) = session.remove(itt)
        {
            let read = matches!(outcome, Outcome::Data(_) | Outcome::Stored(_));
            let next = if read { open.sending.next_piece() } else { None };
            // A command with more to read keeps its place in the window.
            if next.is_none() {
                self.open_window(session);
            }
            match outcome {
                Outcome::Done => self.answer_good(itt, &open),
                Outcome::Data(data) => self.answer_read(session, itt, open, Source::Buffer(data), next),
                Outcome::Stored(range) => {
                    let stored = Source::Store { lun: open.lun, range };
                    self.answer_read(session, itt, open, stored, next);
                }
                Outcome::Differs { at } => self.answer_sense(itt, &open, Sense::MISCOMPARE.at(at)),
                Outcome::Extent { offset, length, allocated } => {
                    if let Some(unit) = self.config.unit(open.lun) {
                        let mut data = scsi::lba_status(unit, offset, length, allocated);
                        data.truncate(wire::index(open.allocation));
                        self.answer_data(session, itt, &mut open, data);
                    }
                }
                Outcome::Failed(fault) => self.answer_sense(itt, &open, fault.sense()),
            }
        }
        self.open_window(session);
        self.grant(session);
        self.finish_deferred(session, id);
        if self.closing.is_none() {
            self.finish_logout(session);
        }
    }
}

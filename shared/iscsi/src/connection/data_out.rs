//! Data-Out and R2T (RFC 7143 sections 11.7, 11.8).
//!
//! Data come in order (DataPDUInOrder and DataSequenceInOrder are Yes): offset and DataSN must be the expected ones, and
//! the bursts that were asked for are delivered in the order of their R2Ts.

use super::Connection;
use super::session::{Burst, Collecting, Session, State};
use crate::buffers::Buffers;
use crate::config::TRANSFER_MAX;
use crate::frame::{Data, Loan, Pdu};
use crate::header::{Header, NO_TAG, Opcode};
use crate::scsi::Sense;
use crate::wire;

impl Session {
    /// The buffer of the write that these Data-Out belong to, if they are the expected ones. Whether they are is looked
    /// at again when they are here.
    pub fn lend_for_data(&mut self, header: &Header) -> Option<Loan> {
        let open = self.tasks.get_mut(header.itt())?;
        let State::Collecting(collecting) = &mut open.state else { return None };
        let offset = header.word(40);
        let end = wire::index(offset).checked_add(wire::index(header.data_length()))?;
        let expected = offset == collecting.offset && end <= collecting.data.len();
        expected.then(|| Loan::new(std::mem::take(&mut collecting.data), wire::index(offset)))
    }

    /// A buffer for the data that come with a command, and for unsolicited data if they follow.
    pub fn lend_for_command(&mut self, header: &Header, buffers: &mut Buffers) -> Option<Loan> {
        let (length, unsolicited) = (header.data_length(), self.parameters.unsolicited());
        if length > unsolicited || header.word(20) > TRANSFER_MAX {
            return None;
        }
        let room = if header.is_final() { length } else { header.word(20).min(unsolicited).max(length) };
        Some(Loan::new(buffers.take(wire::index(room)), 0))
    }
}

impl Connection {
    pub(super) fn data_out(&mut self, session: &mut Session, pdu: Pdu<'_>) {
        let itt = pdu.header.itt();
        let unsolicited_limit = session.parameters.unsolicited();
        // Data of a task that was aborted or has failed are still under way: swallow them.
        let Some(open) = session.tasks.get_mut(itt) else { return };
        let expected = open.write_length;
        let State::Collecting(collecting) = &mut open.state else { return };
        match collecting.take(pdu, expected, unsolicited_limit) {
            Ok(()) => self.collect(session, itt),
            Err(()) => self.fail_collecting(session, itt, Sense::DATA_PHASE),
        }
    }

    /// Ends a task whose data went wrong. What is still under way for it will be swallowed.
    pub(super) fn fail_collecting(&mut self, session: &mut Session, itt: u32, sense: Sense) {
        let collecting =
            session.tasks.get(itt).is_some_and(|open| matches!(open.state, State::Collecting(_)));
        if collecting && let Some(open) = session.remove(itt) {
            self.open_window(session);
            self.answer_sense(itt, &open, sense);
        }
        self.grant(session);
    }

    /// Begins a task whose data are complete; otherwise asks for more, or queues it for its turn to ask.
    pub(super) fn collect(&mut self, session: &mut Session, itt: u32) {
        let Some(open) = session.tasks.get(itt) else { return };
        let State::Collecting(collecting) = &open.state else { return };
        if collecting.unsolicited {
            return;
        }
        if collecting.offset < collecting.target {
            if open.reserved == 0 {
                session.waiting.push_back(itt);
                return self.grant(session);
            }
            return self.request(session, itt);
        }
        if let Some(mut open) = session.remove(itt)
            && let State::Collecting(collecting) = std::mem::replace(&mut open.state, State::Taken)
        {
            self.begin(session, itt, open, collecting.action, collecting.data);
        }
        self.grant(session);
        self.open_window(session);
    }

    /// Promises buffers to waiting writes, oldest first, as far as they go.
    pub(super) fn grant(&mut self, session: &mut Session) {
        while let Some(itt) = session.waiting.front().copied() {
            let Some(State::Collecting(collecting)) = session.tasks.get(itt).map(|open| &open.state) else {
                session.waiting.pop_front();
                continue;
            };
            let bytes = u64::from(collecting.target);
            if !session.may_reserve(bytes) {
                return;
            }
            session.waiting.pop_front();
            let Some(open) = session.tasks.get_mut(itt) else { continue };
            open.reserved = bytes;
            if let State::Collecting(collecting) = &mut open.state {
                collecting.asked = collecting.offset;
                collecting.grow(&mut self.buffers);
            }
            self.request(session, itt);
        }
    }

    /// Asks for the next bursts, as many as may be outstanding.
    fn request(&mut self, session: &mut Session, itt: u32) {
        let (max_burst, outstanding) =
            (session.parameters.max_burst, wire::index(session.parameters.max_outstanding_r2t));
        loop {
            let ttt = session.fresh_ttt();
            let Some(open) = session.tasks.get_mut(itt) else { return };
            let lun = open.lun;
            let State::Collecting(collecting) = &mut open.state else { return };
            if collecting.bursts.len() >= outstanding || collecting.asked >= collecting.target {
                return;
            }
            let (offset, length) = (collecting.asked, (collecting.target - collecting.asked).min(max_burst));
            collecting.bursts.push_back(Burst { ttt, end: offset + length });
            collecting.asked = offset + length;
            let mut header = Header::new(Opcode::R2t);
            // The field as a single-level LUN: peripheral or flat addressing.
            let field = if lun < 256 { lun } else { 0x4000 | lun };
            header.set(8, &field.to_be_bytes());
            header.set_word(16, itt);
            header.set_word(20, ttt);
            header.set_word(36, collecting.r2t_sn);
            header.set_word(40, offset);
            header.set_word(44, length);
            collecting.r2t_sn = collecting.r2t_sn.wrapping_add(1);
            // StatSN is the next one and is not used up.
            self.stamp(&mut header);
            header.set_word(24, self.stat_sn);
            self.outbox.push(&header, &[]);
        }
    }
}

impl Collecting {
    /// Takes one Data-Out, or finds it wrong.
    fn take(&mut self, pdu: Pdu<'_>, expected: u32, unsolicited_limit: u32) -> Result<(), ()> {
        let header = pdu.header;
        let (data_sn, offset) = (header.word(36), header.word(40));
        let end = offset.checked_add(header.data_length()).ok_or(())?;
        let burst = self.bursts.front().copied();
        let limit = match burst {
            Some(burst) if header.ttt() == burst.ttt => burst.end,
            None if self.unsolicited && header.ttt() == NO_TAG => expected.min(unsolicited_limit),
            _ => return Err(()),
        };
        if data_sn != self.data_sn || offset != self.offset || end > limit {
            return Err(());
        }
        match pdu.data {
            Data::Lent(loan) => self.data = loan.buffer,
            // Beyond `target` there is no room: that is thrown away.
            Data::Here(bytes) => {
                let at = wire::index(offset).min(self.data.len());
                let used = bytes.len().min(self.data.len() - at);
                wire::put(&mut self.data, at, bytes.get(..used).unwrap_or(&[]));
            }
        }
        self.offset = end;
        self.data_sn = self.data_sn.wrapping_add(1);
        let whole = burst.is_some_and(|burst| burst.end == end);
        if header.is_final() {
            // A burst must be delivered whole.
            if burst.is_some() && !whole {
                return Err(());
            }
            self.bursts.pop_front();
            self.unsolicited = false;
            self.data_sn = 0;
        } else if whole {
            return Err(());
        }
        Ok(())
    }

    /// Makes room for everything that is wanted.
    fn grow(&mut self, buffers: &mut Buffers) {
        let wanted = wire::index(self.target);
        if self.data.len() < wanted {
            let mut larger = buffers.take(wanted);
            wire::put(&mut larger, 0, &self.data);
            buffers.give(std::mem::replace(&mut self.data, larger));
        }
    }
}

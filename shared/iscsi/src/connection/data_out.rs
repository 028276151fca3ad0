//! Data-Out and R2T (RFC 7143 sections 11.7, 11.8).
//!
//! Data come in order (DataPDUInOrder and DataSequenceInOrder are Yes): offset and DataSN must be the expected ones.

use super::Connection;
use super::session::{Burst, Collecting, Session, State};
use crate::frame::Pdu;
use crate::header::{Header, NO_TAG, Opcode};
use crate::scsi::Sense;
use crate::wire;

impl Connection {
    pub(super) fn data_out(&mut self, session: &mut Session, pdu: &Pdu<'_>) {
        let itt = pdu.header.itt();
        let unsolicited_limit = session.parameters.unsolicited();
        // Data of a task that was aborted or has failed are still under way: swallow them.
        let Some(open) = session.tasks.get_mut(&itt) else { return };
        let expected = open.write_length;
        let State::Collecting(collecting) = &mut open.state else { return };
        match collecting.take(pdu, expected, unsolicited_limit) {
            Ok(()) => self.collect(session, itt),
            Err(()) => {
                if let Some(open) = session.remove(itt) {
                    self.open_window(session);
                    self.answer_sense(itt, &open, Sense::DATA_PHASE);
                }
                self.grant(session);
            }
        }
    }

    /// Begins a task whose data are complete; otherwise queues it for an R2T.
    pub(super) fn collect(&mut self, session: &mut Session, itt: u32) {
        let Some(open) = session.tasks.get(&itt) else { return };
        let State::Collecting(collecting) = &open.state else { return };
        if collecting.unsolicited || collecting.burst.is_some() {
            return;
        }
        if collecting.offset < collecting.target {
            if collecting.reserved == 0 {
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
            let Some(State::Collecting(collecting)) = session.tasks.get(&itt).map(|open| &open.state) else {
                session.waiting.pop_front();
                continue;
            };
            let bytes = u64::from(collecting.target);
            if !session.may_reserve(bytes) {
                return;
            }
            session.waiting.pop_front();
            session.solicited += bytes;
            if let Some(State::Collecting(collecting)) =
                session.tasks.get_mut(&itt).map(|open| &mut open.state)
            {
                collecting.reserved = bytes;
            }
            self.request(session, itt);
        }
    }

    /// Asks for the next burst.
    fn request(&mut self, session: &mut Session, itt: u32) {
        let (ttt, max_burst) = (session.fresh_ttt(), session.parameters.max_burst);
        let Some(open) = session.tasks.get_mut(&itt) else { return };
        let lun = open.lun;
        let State::Collecting(collecting) = &mut open.state else { return };
        let length = (collecting.target - collecting.offset).min(max_burst);
        collecting.burst = Some(Burst { ttt, end: collecting.offset + length });
        collecting.data_sn = 0;
        let mut header = Header::new(Opcode::R2t);
        // The field as a single-level LUN: peripheral or flat addressing.
        let field = if lun < 256 { lun } else { 0x4000 | lun };
        header.set(8, &field.to_be_bytes());
        header.set_word(16, itt);
        header.set_word(20, ttt);
        header.set_word(36, collecting.r2t_sn);
        header.set_word(40, collecting.offset);
        header.set_word(44, length);
        collecting.r2t_sn = collecting.r2t_sn.wrapping_add(1);
        // StatSN is the next one and is not used up.
        self.stamp(&mut header);
        header.set_word(24, self.stat_sn);
        self.outbox.push(&header, &[]);
    }
}

impl Collecting {
    /// Takes one Data-Out, or finds it wrong.
    fn take(&mut self, pdu: &Pdu<'_>, expected: u32, unsolicited_limit: u32) -> Result<(), ()> {
        let header = &pdu.header;
        let (data_sn, offset) = (header.word(36), header.word(40));
        let end = offset.checked_add(header.data_length()).ok_or(())?;
        let limit = match self.burst {
            Some(burst) if header.ttt() == burst.ttt => burst.end,
            None if self.unsolicited && header.ttt() == NO_TAG => expected.min(unsolicited_limit),
            _ => return Err(()),
        };
        if data_sn != self.data_sn || offset != self.offset || end > limit {
            return Err(());
        }
        let used = wire::index(self.target.saturating_sub(offset));
        self.data.extend_from_slice(pdu.data.get(..used).unwrap_or(pdu.data));
        self.offset = end;
        self.data_sn = self.data_sn.wrapping_add(1);
        if header.is_final() {
            // A burst must be delivered whole.
            if self.burst.is_some_and(|burst| burst.end != end) {
                return Err(());
            }
            self.burst = None;
            self.unsolicited = false;
            self.data_sn = 0;
        } else if self.burst.is_some_and(|burst| burst.end == end) {
            return Err(());
        }
        Ok(())
    }
}

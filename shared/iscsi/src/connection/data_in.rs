//! Data-In and SCSI Response (RFC 7143 sections 11.4, 11.7), with residuals.

use super::Connection;
use super::outbox::Source;
use super::session::{Open, Session};
use crate::header::{Header, NO_TAG, Opcode};
use crate::scsi::{Sense, Work};
use crate::wire;

/// Whether the data of a command end with what is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// They do.
    Here,
    /// More will be read.
    Later,
}

/// Status codes (SAM-5 section 5.3.1).
const CHECK_CONDITION: u8 = 0x02;
pub(super) const BUSY: u8 = 0x08;
pub(super) const RESERVATION_CONFLICT: u8 = 0x18;
pub(super) const TASK_SET_FULL: u8 = 0x28;

/// Bits and count of a residual (RFC 7143 section 11.4.5): what the command was about, `wanted`, against what the
/// initiator said, `expected`.
fn residual(wanted: u32, expected: u32) -> (u8, u32) {
    if wanted > expected {
        (0x04, wanted - expected)
    } else if wanted < expected {
        (0x02, expected - wanted)
    } else {
        (0, 0)
    }
}

impl Connection {
    /// GOOD without data in.
    pub(super) fn answer_good(&mut self, itt: u32, open: &Open) {
        let (flags, count) = residual(open.wanted, open.write_length.max(open.read_length));
        let mut header = Header::new(Opcode::Response);
        header.set_flags(0x80 | flags);
        header.set_word(16, itt);
        header.set_word(44, count);
        self.send_status(&mut header, &[]);
    }

    /// A status without sense.
    pub(super) fn answer_status(&mut self, itt: u32, status: u8) {
        let mut header = Header::new(Opcode::Response);
        header.set(3, &[status]);
        header.set_word(16, itt);
        self.send_status(&mut header, &[]);
    }

    /// CHECK CONDITION. Only lengths that contradict each other give a residual: otherwise nothing was transferred
    /// that counts.
    pub(super) fn answer_sense(&mut self, itt: u32, open: &Open, sense: Sense) {
        let mut header = Header::new(Opcode::Response);
        header.set(3, &[CHECK_CONDITION]);
        header.set_word(16, itt);
        if sense == Sense::INVALID_FIELD_IN_INFORMATION_UNIT {
            let (flags, count) = residual(open.wanted, open.write_length);
            header.set_flags(0x80 | flags);
            header.set_word(44, count);
        }
        let sense = if open.descriptor_sense { sense.descriptor() } else { sense.fixed().to_vec() };
        let mut data = vec![0, u8::try_from(sense.len()).unwrap_or(0)];
        data.extend_from_slice(&sense);
        self.send_status(&mut header, &data);
    }

    /// GOOD with all of a command's data.
    pub(super) fn answer_data(&mut self, session: &Session, itt: u32, open: &mut Open, mut data: Vec<u8>) {
        open.wanted = wire::length(data.len());
        data.truncate(wire::index(open.read_length));
        if data.is_empty() {
            let (flags, count) = residual(open.wanted, open.read_length);
            let mut header = Header::new(Opcode::Response);
            header.set_flags(0x80 | flags);
            header.set_word(16, itt);
            header.set_word(44, count);
            return self.send_status(&mut header, &[]);
        }
        self.send_data(session, itt, open, Source::Buffer(data), End::Here);
    }

    /// What one piece of a read brought; the `next` one is to be read then.
    pub(super) fn answer_read(
        &mut self,
        session: &mut Session,
        itt: u32,
        mut open: Open,
        source: Source,
        next: Option<Work>,
    ) {
        let end = if next.is_none() { End::Here } else { End::Later };
        self.send_data(session, itt, &mut open, source, end);
        if let Some(piece) = next {
            session.tasks.insert(itt, open);
            session.make_ready(itt, piece);
        }
    }

    /// Data: segments no longer than the initiator takes, sequences no longer than a burst. When the data end here,
    /// GOOD is in the last segment.
    pub(super) fn send_data(
        &mut self,
        session: &Session,
        itt: u32,
        open: &mut Open,
        source: Source,
        end: End,
    ) {
        let (flags, count) = residual(open.wanted, open.read_length);
        let (send_segment, max_burst) = (session.parameters.send_segment, session.parameters.max_burst);
        let sending = &mut open.sending;
        let mut left = wire::length(source.len());
        let mut header = Header::new(Opcode::DataIn);
        header.set_word(16, itt);
        header.set_word(20, NO_TAG);
        self.stamp(&mut header);
        let stat_sn = &mut self.stat_sn;
        self.outbox.push_parts(source, &mut self.buffers, || {
            if left == 0 {
                return None;
            }
            let mut header = header;
            let length = left.min(send_segment).min(max_burst - sending.in_burst);
            left -= length;
            sending.in_burst += length;
            header.set_word(36, sending.data_sn);
            header.set_word(40, sending.offset);
            if left == 0 && end == End::Here {
                header.set_flags(0x80 | 0x01 | flags);
                header.set_word(24, *stat_sn);
                header.set_word(44, count);
                *stat_sn = stat_sn.wrapping_add(1);
            } else if sending.in_burst >= max_burst {
                sending.in_burst = 0;
            } else {
                header.set_flags(0);
            }
            sending.offset = sending.offset.wrapping_add(length);
            sending.data_sn = sending.data_sn.wrapping_add(1);
            Some((header, wire::index(length)))
        });
    }
}

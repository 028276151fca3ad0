//! Text requests (RFC 7143 sections 11.10, 11.11): SendTargets names this one target and this one portal, to those
//! who may use it. An answer is shorter than 512 bytes, so it always fits one segment.

use super::Connection;
use super::session::Session;
use crate::config::{PORTAL_GROUP, TEXT_MAX};
use crate::frame::Pdu;
use crate::header::{Header, NO_TAG, Opcode};
use crate::text;

/// The transfer tag that continues a text exchange.
const CONTINUATION: u32 = 1;

/// Unknown keys answered in one exchange; the rest go unanswered, so that the answer stays in one segment.
const UNKNOWN_MAX: usize = 2;

impl Connection {
    pub(super) fn text_request(&mut self, session: &mut Session, pdu: &Pdu<'_>) {
        let (header, data) = (&pdu.header, pdu.data.bytes());
        let whole = session.text.len() + data.len();
        if whole > TEXT_MAX || header.continues() && (data.is_empty() || header.is_final()) {
            session.text = Vec::new();
            return self.reject(header, 0x04);
        }
        if header.ttt() == NO_TAG {
            session.text.clear();
        }
        session.text.extend_from_slice(data);
        if header.continues() {
            return self.text_response(header, 0, CONTINUATION, &[]);
        }
        let collected = std::mem::take(&mut session.text);
        let Ok(pairs) = text::parse(&collected) else {
            return self.reject(header, 0x04);
        };
        let mut answer = Vec::new();
        let mut unknown = 0;
        for (key, value) in pairs {
            match key {
                "SendTargets" => self.send_targets(session, value, &mut answer),
                "MaxRecvDataSegmentLength" if session.parameters.declare(key, value).is_err() => {
                    return self.reject(header, 0x04);
                }
                "MaxRecvDataSegmentLength" | "InitiatorAlias" => {}
                _ if unknown < UNKNOWN_MAX => {
                    unknown += 1;
                    text::push(&mut answer, key, "NotUnderstood");
                }
                _ => {}
            }
        }
        self.text_response(header, 0x80, NO_TAG, &answer);
    }

    /// `All` only in discovery; nothing means the session's own target (RFC 7143 appendix C).
    fn send_targets(&self, session: &Session, value: &str, answer: &mut Vec<u8>) {
        let own = value.eq_ignore_ascii_case(&self.config.name);
        let wanted = match value {
            "All" => session.discovery,
            "" => !session.discovery,
            _ => own,
        };
        if wanted && answer.is_empty() {
            text::push(answer, "TargetName", &self.config.name);
            text::push(answer, "TargetAddress", &format!("{},{PORTAL_GROUP}", self.portal));
        }
    }

    fn text_response(&mut self, request: &Header, flags: u8, ttt: u32, data: &[u8]) {
        let mut header = Header::new(Opcode::TextResponse);
        header.set_flags(flags);
        header.set_word(16, request.itt());
        header.set_word(20, ttt);
        self.send_status(&mut header, data);
    }
}

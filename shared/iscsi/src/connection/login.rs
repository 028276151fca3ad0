//! Login requests and responses on the wire (RFC 7143 sections 11.12, 11.13), and what the caller decides.

use super::{Candidate, CloseReason, Connection, Event, Phase};
use crate::config::WINDOW;
use crate::connection::session::Session;
use crate::frame::Pdu;
use crate::header::{Header, Opcode};
use crate::login::{Login, Mutual, Refusal, Status, Step};
use crate::scsi::Identity;

impl Connection {
    pub(super) fn login_request(&mut self, mut login: Box<Login>, pdu: &Pdu<'_>) {
        // Anything but a login as the first PDU is no initiator: close without a word.
        if pdu.header.opcode() != Opcode::LoginRequest as u8 {
            return self.close(CloseReason::Protocol("first request is not a login"));
        }
        self.exp_cmd_sn = pdu.header.word(24);
        self.max_cmd_sn = self.exp_cmd_sn.wrapping_add(WINDOW).wrapping_sub(1);
        let step = login.request(&self.config, &pdu.header, pdu.data.bytes());
        self.login_step(login, step);
    }

    /// The secret of the user that [`Event::Secret`] named, or nothing if there is no such user; and who this target is,
    /// if it can prove that in mutual CHAP.
    pub fn secret(&mut self, secret: Option<&[u8]>, mutual: Option<Mutual<'_>>) {
        if let Phase::Login(mut login) = std::mem::replace(&mut self.phase, Phase::Ended) {
            let step = login.verify(secret, mutual);
            self.login_step(login, step);
        }
    }

    fn login_step(&mut self, login: Box<Login>, step: Result<Step, Refusal>) {
        match step {
            Ok(Step::Answer(flags, text)) => {
                self.login_response(&login, flags, 0, Status::SUCCESS, &text);
                self.phase = Phase::Login(login);
            }
            Ok(Step::Secret(user)) => {
                self.phase = Phase::Login(login);
                self.events.push_back(Event::Secret { user });
            }
            Ok(Step::Admit(flags, text)) => {
                self.events.push_back(Event::Admit(Candidate {
                    initiator: login.initiator.clone(),
                    isid: login.isid,
                    tsih: login.tsih,
                    user: login.user.clone(),
                    discovery: login.discovery,
                }));
                self.phase = Phase::Deciding(login, flags, text);
            }
            Err(Refusal { status, reason }) => self.login_refused(&login, status, reason),
        }
    }

    fn login_refused(&mut self, login: &Login, status: Status, reason: &'static str) {
        self.login_response(login, login.stage_flags(), 0, status, &[]);
        self.events.push_back(Event::Refused { status, reason });
        self.close(CloseReason::LoginFailed);
    }

    /// Decides on [`Event::Admit`]: a session handle other than 0, or a refusal.
    ///
    /// Before admitting the successor of a session, finish that session's writes.
    pub fn admit(&mut self, decision: Result<u16, (Status, &'static str)>) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Deciding(login, flags, text) => match decision {
                Ok(tsih) => {
                    self.login_response(&login, flags, tsih, Status::SUCCESS, &text);
                    self.deadline = None;
                    // From the first PDU after this response on (RFC 7143 section 13.1).
                    self.outbox.set_digests(login.parameters.header_digest, login.parameters.data_digest);
                    let who = Identity { initiator: login.initiator, isid: login.isid };
                    let session = Session::new(self.state.join(who), login.parameters, login.discovery);
                    self.phase = Phase::Full(Box::new(session));
                }
                Err((status, reason)) => self.login_refused(&login, status, reason),
            },
            other => self.phase = other,
        }
    }

    fn login_response(&mut self, login: &Login, flags: u8, tsih: u16, status: Status, text: &[u8]) {
        let mut header = Header::new(Opcode::LoginResponse);
        header.set_flags(flags);
        header.set(8, &login.isid.0);
        header.set(14, &(if tsih == 0 { login.tsih } else { tsih }).to_be_bytes());
        header.set_word(16, login.itt);
        header.set(36, &status.0.to_be_bytes());
        self.send_status(&mut header, text);
    }
}

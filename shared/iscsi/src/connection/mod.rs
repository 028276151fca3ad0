//! One connection, which is also one session: RFC 7143 with MaxConnections=1 and ErrorRecoveryLevel=0.
//!
//! Use: [`Connection::recv`] what arrived; then take [`Connection::poll_event`] and [`Connection::poll_task`] until
//! both are empty, answering with [`Connection::secret`], [`Connection::admit`] and [`Connection::complete`]; then
//! send [`Connection::outgoing`] and report it with [`Connection::sent`]. [`Connection::handle_timeout`] at
//! [`Connection::deadline`]. On the fast path nothing is allocated: data go straight where
//! [`Connection::receive_into`] says, and blocks are read into [`Connection::buffer`]s that come back when they are sent.
//!
//! Invariants: after [`Connection::closing`] nothing new is taken or begun; a task that was aborted is never answered;
//! MaxCmdSN never goes back.

mod command;
mod data_in;
mod data_out;
mod login;
mod outbox;
mod session;
mod task_management;
mod tasks;
mod text;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::buffers::Buffers;
use crate::config::{LOGIN_SEGMENT, LOGIN_TIMEOUT, RECEIVE_SEGMENT, TargetConfig};
use crate::frame::{Broken, Format, Framer, Loan, Pdu, Sink};
use crate::header::{Header, Isid, NO_TAG, Opcode};
use crate::login::{Challenge, Login, Status};
use crate::scsi::{Outcome, Sense, TargetState, Work};
use crate::wire;
use outbox::Outbox;
pub use outbox::Outgoing;
use session::Session;

/// A data segment from this many bytes on is long: another one is likely to follow it.
const LONG_DATA: u32 = 16 * 1024;

/// What the caller brings to each connection: randomness and places.
#[derive(Debug, Clone)]
pub struct Seed {
    /// CHAP identifier: random.
    pub chap_identifier: u8,
    /// CHAP challenge: random, never used twice.
    pub chap_challenge: [u8; 16],
    /// The address the initiator reached, as `host:port`, at most 64 bytes: what discovery answers.
    pub portal: String,
}

/// Names one task of one connection, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Work for a logical unit.
#[derive(Debug)]
pub struct Task {
    /// For [`Connection::complete`].
    pub id: TaskId,
    /// On which logical unit.
    pub lun: u16,
    /// What.
    pub work: Work,
}

/// Who wants a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its iSCSI name, in lower case.
    pub initiator: String,
    /// Its part of the session's name.
    pub isid: Isid,
    /// 0, or the handle of the session it wants to reinstate.
    pub tsih: u16,
    /// The CHAP user it proved to be.
    pub user: Option<String>,
    /// It only wants to know names.
    pub discovery: bool,
}

/// What the caller must know or decide.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Answer with [`Connection::secret`].
    Secret {
        /// The CHAP user, as the peer spelled it.
        user: String,
    },
    /// Answer with [`Connection::admit`], now or later.
    Admit(Candidate),
    /// The login was refused.
    Refused {
        /// What the peer was told.
        status: Status,
        /// Why. Never a secret.
        reason: &'static str,
    },
    /// Task management reset this unit, or all of them: tell the target's other sessions with
    /// [`Connection::reset`]. [`Connection::complete`] this task when no work of the unit that was begun before is under
    /// way any more; then the reset is answered.
    Reset {
        /// The unit.
        lun: Option<u16>,
        /// What waits.
        task: TaskId,
    },
    /// A reservation was preempted with abort: call [`Connection::reset`] for the sessions of these initiators, and
    /// [`Connection::complete`] this task as for [`Event::Reset`], also where such a session has ended.
    Preempted {
        /// The unit.
        lun: u16,
        /// Names and ISIDs.
        whose: Vec<(String, Isid)>,
        /// What waits.
        task: TaskId,
    },
    /// Something arrived in full feature phase after [`Connection::ping`].
    Alive,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The initiator logged out.
    Logout,
    /// The login was refused, or took too long.
    LoginFailed,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// The target was reset.
    Reset,
}

/// Where a connection is.
#[derive(Debug)]
enum Phase {
    /// From the start until the last login request.
    Login(Box<Login>),
    /// The caller decides; holds the flags and text of the response.
    Deciding(Box<Login>, u8, Vec<u8>),
    /// From success until the end.
    Full(Box<Session>),
    /// Left by nobody.
    Ended,
}

/// A connection of one initiator to one target.
#[derive(Debug)]
pub struct Connection {
    config: Arc<TargetConfig>,
    state: TargetState,
    portal: String,
    framer: Framer,
    phase: Phase,
    outbox: Outbox,
    buffers: Buffers,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
    closing: Option<CloseReason>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    pinged: bool,
}

impl Connection {
    /// A connection to the target with this state that was accepted at `now`.
    #[must_use]
    pub fn new(config: Arc<TargetConfig>, state: TargetState, seed: Seed, now: Instant) -> Self {
        let login = Login::new(Challenge::new(seed.chap_identifier, seed.chap_challenge));
        Self {
            config,
            state,
            portal: seed.portal,
            framer: Framer::default(),
            phase: Phase::Login(Box::new(login)),
            outbox: Outbox::default(),
            buffers: Buffers::default(),
            events: VecDeque::new(),
            deadline: now.checked_add(LOGIN_TIMEOUT),
            closing: None,
            stat_sn: 1,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            pinged: false,
        }
    }

    /// Takes bytes the peer sent, in any pieces.
    pub fn recv(&mut self, mut bytes: &[u8]) {
        let mut framer = std::mem::take(&mut self.framer);
        while self.closing.is_none() {
            match framer.next(&mut bytes, self.format(), self) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Broken::Oversized) => {
                    self.close(CloseReason::Protocol("data segment is longer than declared"));
                }
                Err(Broken::HeaderDigest) => self.close(CloseReason::Protocol("header digest is wrong")),
            }
        }
        self.framer = framer;
    }

    /// Where the next bytes of the peer belong, if they are data of a command. Put some there and tell
    /// [`Connection::received_into`]; all others go to [`Connection::recv`].
    pub fn receive_into(&mut self) -> Option<&mut [u8]> {
        if self.closing.is_some() {
            return None;
        }
        self.framer.direct()
    }

    /// The next `count` bytes the peer sent are where [`Connection::receive_into`] said.
    pub fn received_into(&mut self, count: usize) {
        self.framer.arrived(count);
        self.recv(&[]);
    }

    /// Whether much data is to be expected: then it is better to receive a header first, and its data with
    /// [`Connection::receive_into`].
    #[must_use]
    pub fn expects_data(&self) -> bool {
        matches!(&self.phase, Phase::Full(session) if session.long_data || session.awaits_solicited())
    }

    fn format(&self) -> Format {
        match &self.phase {
            Phase::Full(session) => Format {
                limit: RECEIVE_SEGMENT,
                header_digest: session.parameters.header_digest,
                data_digest: session.parameters.data_digest,
            },
            _ => Format { limit: LOGIN_SEGMENT, header_digest: false, data_digest: false },
        }
    }

    /// A buffer of this length to read blocks into, for [`Outcome::Data`]. Its content means nothing.
    pub fn buffer(&mut self, length: usize) -> Vec<u8> {
        self.buffers.take(length)
    }

    /// Gives back the data of work that is done.
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// The next thing the caller must know or decide.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether the connection is ending. Send what is [`Connection::outgoing`], then close.
    #[must_use]
    pub const fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    /// Whether it is in full feature phase.
    #[must_use]
    pub const fn established(&self) -> bool {
        matches!(self.phase, Phase::Full(_))
    }

    /// Bytes waiting to be sent.
    #[must_use]
    pub const fn outgoing_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// The pieces to send, in order.
    pub fn outgoing(&self) -> impl Iterator<Item = Outgoing<'_>> {
        self.outbox.pieces()
    }

    /// Whether a read may be answered with [`Outcome::Stored`]: not where data have a digest, which needs their bytes.
    #[must_use]
    pub const fn takes_stored(&self) -> bool {
        !self.outbox.digests_data()
    }

    /// The first `count` bytes of [`Connection::outgoing`] are on their way.
    pub fn sent(&mut self, count: usize) {
        self.outbox.advance(count, &mut self.buffers);
    }

    /// When [`Connection::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends a login that took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.events
                .push_back(Event::Refused { status: Status::INITIATOR_ERROR, reason: "login timeout" });
            self.close(CloseReason::LoginFailed);
        }
    }

    /// Asks the initiator for a sign of life (RFC 7143 section 11.19). [`Event::Alive`] tells of one.
    pub fn ping(&mut self) {
        if self.established() && self.closing.is_none() {
            let mut header = Header::new(Opcode::NopIn);
            header.set_word(16, NO_TAG);
            header.set_word(20, 1);
            // StatSN is the next one and is not used up.
            self.stamp(&mut header);
            header.set_word(24, self.stat_sn);
            self.outbox.push(&header, &[]);
            self.pinged = true;
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            self.deadline = None;
            self.phase = Phase::Ended;
        }
    }

    fn pdu(&mut self, pdu: Pdu<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Login(login) => self.login_request(login, &pdu),
            Phase::Deciding(..) | Phase::Ended => self.close(CloseReason::Protocol("request out of turn")),
            Phase::Full(mut session) => {
                if std::mem::take(&mut self.pinged) {
                    self.events.push_back(Event::Alive);
                }
                session.long_data = pdu.header.data_length() >= LONG_DATA;
                if pdu.damaged {
                    self.damaged(&mut session, pdu);
                } else {
                    self.full_feature(&mut session, pdu);
                }
                if self.closing.is_none() {
                    self.phase = Phase::Full(session);
                }
            }
        }
    }

    /// The data segment of a PDU is not what was sent (RFC 7143 section 7.8). A command that has lost data fails, and
    /// its initiator repeats it. Anything else is a gap in the stream, which recovery level 0 mends by a new session.
    fn damaged(&mut self, session: &mut Session, pdu: Pdu<'_>) {
        // DATA (PAYLOAD) DIGEST ERROR.
        self.reject(&pdu.header, 0x02);
        if pdu.header.opcode() == Opcode::DataOut as u8 {
            return self.fail_collecting(session, pdu.header.itt(), Sense::CRC_ERROR);
        }
        self.close(CloseReason::Protocol("data digest is wrong"));
    }

    fn full_feature(&mut self, session: &mut Session, pdu: Pdu<'_>) {
        let header = pdu.header;
        let Some(opcode) = Opcode::request(header.opcode()) else {
            // COMMAND NOT SUPPORTED (RFC 7143 section 11.17.1).
            return self.reject(&header, 0x05);
        };
        if opcode == Opcode::DataOut {
            return self.data_out(session, pdu);
        }
        if opcode == Opcode::LoginRequest {
            return self.close(CloseReason::Protocol("login in full feature phase"));
        }
        if session.discovery
            && !matches!(opcode, Opcode::TextRequest | Opcode::LogoutRequest | Opcode::NopOut)
        {
            return self.reject(&header, 0x04);
        }
        if !header.immediate() && !self.in_turn(header.word(24)) {
            return;
        }
        // The window moves on at once for what is answered at once; a command holds its place until it is answered.
        if opcode != Opcode::Command {
            self.open_window(session);
        }
        match opcode {
            Opcode::Command => {
                self.command(session, pdu);
                self.open_window(session);
            }
            Opcode::TaskManagement => self.task_management(session, &header),
            Opcode::NopOut => self.nop_out(session, &pdu),
            Opcode::TextRequest => self.text_request(session, &pdu),
            _ => self.logout(session, &header),
        }
    }

    /// The command window (RFC 7143 section 4.2.2.1): numbers outside it are ignored. Inside it, one connection
    /// delivers in order, so a gap means that the stream is broken.
    fn in_turn(&mut self, cmd_sn: u32) -> bool {
        if wire::before(cmd_sn, self.exp_cmd_sn) || wire::before(self.max_cmd_sn, cmd_sn) {
            return false;
        }
        if cmd_sn != self.exp_cmd_sn {
            self.close(CloseReason::Protocol("gap in command numbers"));
            return false;
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        true
    }

    fn open_window(&mut self, session: &Session) {
        let window = session.window();
        let max = self.exp_cmd_sn.wrapping_add(window).wrapping_sub(1);
        if wire::before(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
        }
    }

    /// Fills in ExpCmdSN and MaxCmdSN. Every PDU carries them: iPXE takes them from any.
    fn stamp(&self, header: &mut Header) {
        header.set_word(28, self.exp_cmd_sn);
        header.set_word(32, self.max_cmd_sn);
    }

    /// Sends a PDU that uses up a StatSN.
    fn send_status(&mut self, header: &mut Header, data: &[u8]) {
        self.stamp(header);
        header.set_word(24, self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        self.outbox.push(header, data);
    }

    fn reject(&mut self, refused: &Header, reason: u8) {
        let mut header = Header::new(Opcode::Reject);
        header.set(2, &[reason]);
        header.set_word(16, NO_TAG);
        self.send_status(&mut header, &refused.0);
    }

    fn nop_out(&mut self, session: &Session, pdu: &Pdu<'_>) {
        // Without a task tag it answers our ping or only carries numbers.
        if pdu.header.itt() == NO_TAG {
            return;
        }
        let mut header = Header::new(Opcode::NopIn);
        header.set(8, &wire::array_at::<8>(&pdu.header.0, 8));
        header.set_word(16, pdu.header.itt());
        header.set_word(20, NO_TAG);
        let (room, data) = (wire::index(session.parameters.send_segment), pdu.data.bytes());
        self.send_status(&mut header, data.get(..room).unwrap_or(data));
    }

    fn logout(&mut self, session: &mut Session, header: &Header) {
        if session.logout.is_some() {
            // One is being answered already. PROTOCOL ERROR (RFC 7143 section 11.17.1).
            return self.reject(header, 0x04);
        }
        session.logout = Some(*header);
        session.drop_incomplete();
        self.finish_logout(session);
    }

    /// Answers a logout once the commands before it are answered.
    fn finish_logout(&mut self, session: &mut Session) {
        if session.busy() {
            return;
        }
        let Some(request) = session.logout.take() else { return };
        let mut header = Header::new(Opcode::LogoutResponse);
        // 2: connection recovery is not supported.
        let recovery = request.flags() & 0x7f > 1;
        header.set(2, &[if recovery { 2 } else { 0 }]);
        header.set_word(16, request.itt());
        self.send_status(&mut header, &[]);
        if !recovery {
            self.close(CloseReason::Logout);
        }
    }

    /// Says whether the store of a unit stands still. While it does, new work for it is not taken: initiators are told to
    /// come again, and their window stays open for everything else.
    pub fn set_stalled(&mut self, lun: u16, stalled: bool) {
        if let Phase::Full(session) = &mut self.phase {
            session.stalled.retain(|other| *other != lun);
            if stalled {
                session.stalled.push(lun);
            }
        }
    }

    /// The next work for a logical unit. Take it only while little is [`Connection::outgoing`].
    pub fn poll_task(&mut self) -> Option<Task> {
        let Phase::Full(session) = &mut self.phase else { return None };
        let mut task = session.next_task()?;
        // Not before: any session may have switched the write cache off meanwhile.
        if let Some(durable) = task.work.durable_mut()
            && !*durable
        {
            *durable = self.config.unit(task.lun).is_some_and(|unit| unit.write_cache)
                && !session.member.mode(task.lun).write_cache;
        }
        Some(task)
    }

    /// Reports how work ended, or that what an [`Event`] named is over.
    pub fn complete(&mut self, id: TaskId, outcome: Outcome) {
        if let Phase::Full(mut session) = std::mem::replace(&mut self.phase, Phase::Ended) {
            self.task_completed(&mut session, id, outcome);
            if self.closing.is_none() {
                self.phase = Phase::Full(session);
            }
        }
    }
}

impl Sink for Connection {
    fn lend(&mut self, header: &Header) -> Option<Loan> {
        let Phase::Full(session) = &mut self.phase else { return None };
        match Opcode::request(header.opcode()) {
            Some(Opcode::DataOut) => session.lend_for_data(header),
            Some(Opcode::Command) => session.lend_for_command(header, &mut self.buffers),
            _ => None,
        }
    }

    fn take(&mut self, pdu: Pdu<'_>) {
        self.pdu(pdu);
    }
}

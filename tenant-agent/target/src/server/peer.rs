//! One connection: its socket and its protocol state.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;
use bmi_iscsi::{Candidate, CloseReason, Connection, Event, Isid, LoginStatus, Seed, Work};

use super::poller::{Interest, Poller};
use super::pool::{Done, size};
use super::send::send;
use super::shared::{Executed, Request, Shared};
use super::statistics::{Kind, Statistics};
use super::takeover::Held;

/// Disk work and reading stop while this many bytes wait to be sent.
const OUTGOING_MAX: usize = 2 * 1024 * 1024;

/// This much is sent at once, before more is read: the buffers it lies in are warm when they are used again.
const SEND_AT: usize = 256 * 1024;

/// What is received from one peer in a turn, so that none keeps the others waiting.
const RECEIVE_TURN: usize = 1024 * 1024;

/// Where much data is expected, so much is received to find their header.
const HEAD: usize = 4096;

/// How long a peer may take to fetch the last answer.
const GRACE: Duration = Duration::from_secs(2);

/// Why a peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Logout,
    Reinstated,
    Fenced,
    Disconnected,
    Protocol,
}

impl Ended {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Reinstated => "reinstated",
            Self::Fenced => "fenced",
            Self::Disconnected => "disconnected",
            Self::Protocol => "protocol error",
        }
    }
}

/// The session a peer has.
#[derive(Debug)]
pub struct Holding {
    pub initiator: String,
    pub isid: Isid,
    pub tsih: u16,
    pub discovery: bool,
    statistics: Statistics,
    has_read: bool,
    has_written: bool,
}

impl Holding {
    pub fn new(candidate: &Candidate, tsih: u16, now: Instant) -> Self {
        Self {
            initiator: candidate.initiator.clone(),
            isid: candidate.isid,
            tsih,
            discovery: candidate.discovery,
            statistics: Statistics::new(now),
            has_read: false,
            has_written: false,
        }
    }
}

/// A connection.
pub struct Peer {
    pub id: u64,
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub connection: Connection,
    /// Waits for the server's decision.
    pub candidate: Option<Candidate>,
    pub holding: Option<Holding>,
    /// Something has arrived since the last probe.
    pub heard: bool,
    broken: bool,
    close_by: Option<Instant>,
    interest: Interest,
    /// Bytes that are being read for it.
    away: usize,
    /// Work is left that there was no room for, and now there is.
    unfinished: bool,
}

impl Peer {
    pub fn new(
        id: u64,
        stream: TcpStream,
        address: SocketAddr,
        shared: &Shared,
        now: Instant,
    ) -> Result<Self, getrandom::Error> {
        let mut challenge = [0; 16];
        let mut identifier = [0; 1];
        getrandom::fill(&mut challenge)?;
        getrandom::fill(&mut identifier)?;
        let [chap_identifier] = identifier;
        let portal = stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let seed = Seed { chap_identifier, chap_challenge: challenge, portal };
        Ok(Self {
            id,
            stream,
            address,
            connection: Connection::new(Arc::clone(&shared.config), shared.state.clone(), seed, now),
            candidate: None,
            holding: None,
            heard: false,
            broken: false,
            close_by: None,
            interest: Interest::INPUT,
            away: 0,
            unfinished: false,
        })
    }

    /// The normal session it has.
    pub fn held(&self) -> Option<Held> {
        let holding = self.holding.as_ref().filter(|holding| !holding.discovery)?;
        Some(Held {
            peer: self.id,
            initiator: holding.initiator.clone(),
            isid: holding.isid,
            tsih: holding.tsih,
        })
    }

    fn wants_input(&self) -> bool {
        self.connection.closing().is_none() && self.connection.outgoing_bytes() < OUTGOING_MAX
    }

    /// Tells the poller what this peer waits for, if that has changed.
    pub fn update_interest(&mut self, poller: &Poller, token: u64) {
        let output = self.connection.outgoing_bytes() > 0 || self.unfinished;
        let interest = Interest { input: self.wants_input(), output };
        if interest != self.interest {
            match poller.change(&self.stream, token + self.id, interest) {
                Ok(()) => self.interest = interest,
                Err(error) => {
                    tracing::error!(%error, peer = %self.address, "cannot wait for a connection");
                    self.broken = true;
                }
            }
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let statistics = self.holding.as_ref().and_then(|holding| holding.statistics.deadline());
        [self.connection.deadline(), self.close_by, statistics].into_iter().flatten().min()
    }

    pub fn connection_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        if self.connection.closing().is_some() && self.close_by.is_none() {
            self.close_by = Some(now + GRACE);
        }
    }

    /// Whether it is gone, and why.
    pub fn ended(&self, now: Instant) -> Option<Ended> {
        let over = self.connection.outgoing_bytes() == 0 || self.close_by.is_some_and(|by| by <= now);
        match self.connection.closing() {
            Some(reason) if over || self.broken => Some(match reason {
                CloseReason::Logout => Ended::Logout,
                CloseReason::Protocol(_) => Ended::Protocol,
                CloseReason::LoginFailed | CloseReason::Reset => Ended::Disconnected,
            }),
            None if self.broken => Some(Ended::Disconnected),
            _ => None,
        }
    }

    /// Its login is refused.
    pub fn refuse(&mut self, status: LoginStatus, reason: &'static str) {
        self.candidate = None;
        self.connection.admit(Err((status, reason)));
    }

    /// Asks for a sign of life.
    pub fn probe(&mut self) {
        self.heard = false;
        self.connection.ping();
    }

    /// Takes what arrived, up to [`RECEIVE_TURN`].
    pub fn receive(&mut self, shared: &mut Shared) {
        let mut taken = 0;
        while taken < RECEIVE_TURN && !self.broken && self.wants_input() {
            let small = self.connection.expects_data();
            let (asked, received, placed) = match self.connection.receive_into() {
                Some(room) => (room.len(), self.stream.read(room), true),
                None => {
                    let length = if small { HEAD } else { shared.buffer.len() };
                    let buffer = shared.buffer.get_mut(..length).unwrap_or(&mut []);
                    (length, self.stream.read(buffer), false)
                }
            };
            let count = match received {
                Ok(0) => return self.broken = true,
                Ok(count) => count,
                Err(error) if retry(&error) => return,
                Err(error) => {
                    tracing::debug!(%error, peer = %self.address, "connection lost");
                    return self.broken = true;
                }
            };
            self.heard = true;
            taken += count;
            if placed {
                self.connection.received_into(count);
            } else {
                self.connection.recv(shared.buffer.get(..count).unwrap_or(&[]));
            }
            if let Some(CloseReason::Protocol(what)) = self.connection.closing() {
                tracing::warn!(peer = %self.address, "protocol error: {what}");
            }
            if count < asked {
                return;
            }
        }
    }

    /// Answers events, does disk work, sends. What it finds has waited since `since`.
    pub fn drive(&mut self, shared: &mut Shared, since: Instant) {
        if self.broken {
            return;
        }
        loop {
            let mut idle = true;
            while let Some(event) = self.connection.poll_event() {
                idle = false;
                self.event(event, shared);
            }
            while self.has_room()
                && let Some(task) = self.connection.poll_task()
            {
                idle = false;
                self.note_first(task.lun, &task.work, shared);
                let (size, kind) = (size(&task.work), Kind::of(&task.work));
                let buffer = if size > 0 { self.connection.buffer(size) } else { Vec::new() };
                match shared.execute(self.id, task, buffer, self.connection.takes_stored()) {
                    Executed::Now(id, outcome, moved, spent) => {
                        if let Some(holding) = &mut self.holding {
                            holding.statistics.count(kind, moved, &outcome);
                        }
                        self.connection.complete(id, outcome);
                        self.connection.give_back(spent);
                    }
                    Executed::Later => self.away += size,
                }
                if self.connection.outgoing_bytes() >= SEND_AT {
                    self.close_batch(since);
                    self.send(shared);
                }
            }
            if idle {
                break;
            }
        }
        let was_full = !self.has_room();
        self.close_batch(since);
        self.send(shared);
        // In another turn: the others want theirs too.
        self.unfinished = was_full && self.has_room();
    }

    fn has_room(&self) -> bool {
        self.connection.outgoing_bytes() + self.away < OUTGOING_MAX
    }

    fn close_batch(&mut self, since: Instant) {
        if let Some(holding) = self.holding.as_mut().filter(|holding| holding.statistics.is_open()) {
            holding.statistics.close(since.elapsed());
        }
    }

    /// Tells what the session has asked for, if it is time, or if it is the `last` time.
    pub fn report(&mut self, shared: &Shared, now: Instant, last: bool) {
        let Some(holding) = self.holding.as_mut().filter(|holding| !holding.discovery) else { return };
        let told = if last { holding.statistics.take_last() } else { holding.statistics.take(now) };
        if let Some(statistics) = told {
            shared.say(&TargetEvent::Statistics { peer: self.address, statistics: Box::new(statistics) });
        }
    }

    /// Takes work back that had to wait.
    pub fn complete(&mut self, done: Done) {
        if let Some(holding) = &mut self.holding {
            holding.statistics.count(done.kind, done.moved, &done.outcome);
            holding.statistics.close(done.since.elapsed());
        }
        self.away = self.away.saturating_sub(done.size);
        self.connection.complete(done.task, done.outcome);
        self.connection.give_back(done.spent);
    }

    fn event(&mut self, event: Event, shared: &mut Shared) {
        match event {
            Event::Secret { user } => {
                let secret = shared.credentials.secret(&user);
                let secret = secret.as_ref().map(|secret| secret.expose().as_bytes());
                self.connection.secret(secret, shared.credentials.mutual());
            }
            Event::Admit(candidate) => {
                self.candidate = Some(candidate);
                shared.requests.push(Request::Admit(self.id));
            }
            Event::Refused { status, reason } => {
                tracing::warn!(peer = %self.address, ?status, reason, "login refused");
                shared.say(&TargetEvent::LoginRefused { peer: self.address, reason: reason.to_owned() });
            }
            Event::Reset { lun, task } => shared.requests.push(Request::Reset { by: self.id, lun, task }),
            Event::Preempted { lun, whose, task } => {
                shared.requests.push(Request::Preempted { by: self.id, lun, whose, task });
            }
            Event::Alive => {}
        }
    }

    /// Says so when a session reads and writes the disk for the first time.
    fn note_first(&mut self, lun: u16, work: &Work, shared: &Shared) {
        let Some(holding) = self.holding.as_mut().filter(|_| lun == 0) else { return };
        match work {
            Work::Read(_) if !holding.has_read => {
                holding.has_read = true;
                shared.say(&TargetEvent::FirstRead);
            }
            work if work.writes() && !holding.has_written => {
                holding.has_written = true;
                shared.say(&TargetEvent::FirstWrite);
            }
            _ => {}
        }
    }

    fn send(&mut self, shared: &Shared) {
        if let Err(error) = send(&self.stream, &mut self.connection, shared) {
            tracing::debug!(%error, peer = %self.address, "connection lost");
            self.broken = true;
        }
    }
}

/// Whether it is not an error but a matter of time.
pub fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

//! The transmission phase as a state machine: requests and bytes in, bytes and completions out ("Transmission").
//!
//! Use: [`Client::submit`] requests; [`Client::attach`] when a handshake is over; send [`Client::outgoing`] and report
//! it with [`Client::sent`]; give what arrives to [`Client::receive`]; [`Client::detach`] when the connection is gone.
//! Completions come from [`Client::take_completed`].
//!
//! Deliberately absent: I/O, time, and a limit to the time a server may take (whoever asked has one).
//!
//! Invariants: a request is completed exactly once, and not by a reply that does not fit it; what a server says never
//! makes memory grow; a read is complete only when as many bytes arrived as were asked for; cookies are never used
//! twice, on whatever connection.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};

use super::durability::Durability;
use super::export::Export;
use super::fault::{Fault, Violation};
use super::job::{Job, Piece};
use super::parser::{Arrived, Event, Parser};
use super::request::{Completed, Request};
use super::wire::{self, Command, HOLE_OF_ZEROES, error_value, transmission};

/// Pieces that are offered for sending together: about what a socket's buffer takes, and far below the kernel's limit
/// of 1024 slices.
const SENT_TOGETHER: usize = 32;

/// The state of an export's requests.
#[derive(Debug)]
pub struct Client {
    /// What the connection agreed on, while there is one.
    export: Option<Export>,
    jobs: BTreeMap<u64, Job>,
    pieces: BTreeMap<u64, Piece>,
    /// Cookies and headers, in order.
    sending: VecDeque<(u64, [u8; wire::REQUEST])>,
    /// Bytes of the first of them that are on their way.
    skip: usize,
    parser: Parser,
    /// The read that data belong to, and the next byte of the device.
    filling: Option<(u64, u64)>,
    completed: VecDeque<Completed>,
    durability: Durability,
    /// Numbers of jobs and cookies.
    next: u64,
    /// Something was answered on this connection.
    answered: bool,
}

impl Client {
    /// Without a connection.
    pub fn new() -> Self {
        Self {
            export: None,
            jobs: BTreeMap::new(),
            pieces: BTreeMap::new(),
            sending: VecDeque::new(),
            skip: 0,
            parser: Parser::new(),
            filling: None,
            completed: VecDeque::new(),
            durability: Durability::default(),
            next: 0,
            answered: false,
        }
    }

    /// Requests that are not over.
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    /// Whether this connection has answered anything.
    pub const fn has_answered(&self) -> bool {
        self.answered
    }

    /// The next that is over, in the order they were.
    pub fn take_completed(&mut self) -> Option<Completed> {
        self.completed.pop_front()
    }

    /// Ends a request that is not worth sending.
    pub fn refuse(&mut self, token: u64, error: crate::BlockError) {
        self.completed.push_back(Completed { token, result: Err(error), losses: self.durability.losses() });
    }

    /// Takes a request that was checked.
    pub fn submit(&mut self, token: u64, mut request: Request) {
        if let Request::Read { buffer, .. } = &mut request {
            // What was in it belongs to somebody else; a server that lies about what it sent must not show it.
            buffer.fill(0);
        }
        let id = self.number();
        self.jobs.insert(id, Job::new(token, request, self.durability.begin()));
        self.advance(id);
    }

    /// A connection is there: everything that is not over is sent, in the order it was submitted.
    pub fn attach(&mut self, export: Export) {
        self.export = Some(export);
        self.answered = false;
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        for id in ids {
            self.advance(id);
        }
    }

    /// The connection is gone: everything that is not over begins anew.
    pub fn detach(&mut self) {
        self.export = None;
        self.pieces.clear();
        self.sending.clear();
        self.skip = 0;
        self.parser = Parser::new();
        self.filling = None;
        self.durability.broken();
        self.jobs.values_mut().for_each(Job::restart);
    }

    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sends what can be sent of a job, or ends it.
    fn advance(&mut self, id: u64) {
        let Some(export) = self.export.as_ref() else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        while let Some(piece) = job.next(id, export) {
            self.next += 1;
            let header = wire::request(piece.command, piece.flags, self.next, piece.offset, piece.length);
            self.sending.push_back((self.next, header));
            self.pieces.insert(self.next, piece);
        }
        if !job.is_under_way() {
            self.finish(id);
        }
    }

    fn finish(&mut self, id: u64) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let volatile = self.export.as_ref().is_some_and(|export| export.has(transmission::SEND_FLUSH));
        let (token, ticket, flushed) = (job.token, job.ticket, job.has_flushed());
        let (operation, offset) = (job.request.operation(), job.request.offset());
        let durable = matches!(job.request, Request::Flush | Request::Write { durable: true, .. });
        let changed = job.request.changes();
        let mut result = job.result();
        if result.is_ok() {
            let told = if durable && (flushed || !volatile) {
                self.durability.flushed(ticket)
            } else if durable {
                self.durability.confirmed(ticket)
            } else {
                if changed && volatile {
                    self.durability.written();
                }
                Ok(())
            };
            if let Err(lost) = told {
                let source = io::Error::other(lost);
                result = Err(crate::BlockError::Io { operation, offset, source });
            }
        }
        self.completed.push_back(Completed { token, result, losses: self.durability.losses() });
    }

    /// What is to be sent.
    pub fn outgoing(&self) -> Vec<IoSlice<'_>> {
        let mut skip = self.skip;
        let mut slices = Vec::new();
        for (cookie, header) in self.sending.iter().take(SENT_TOGETHER) {
            for bytes in [&header[..], self.payload(*cookie)] {
                match bytes.get(skip..) {
                    Some([]) => skip = 0,
                    Some(rest) => {
                        slices.push(IoSlice::new(rest));
                        skip = 0;
                    }
                    None => skip -= bytes.len(),
                }
            }
        }
        slices
    }

    /// Whether there is anything to send.
    pub fn has_outgoing(&self) -> bool {
        !self.sending.is_empty()
    }

    fn payload(&self, cookie: u64) -> &[u8] {
        let Some(piece) = self.pieces.get(&cookie) else { return &[] };
        self.jobs.get(&piece.job).map_or(&[], |job| job.payload(piece))
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, count: usize) {
        self.skip += count;
        while let Some((cookie, header)) = self.sending.front() {
            let cookie = *cookie;
            let length = header.len() + self.payload(cookie).len();
            if self.skip < length {
                return;
            }
            self.skip -= length;
            self.sending.pop_front();
            if let Some(piece) = self.pieces.get_mut(&cookie) {
                piece.sent = true;
            }
        }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// When the connection is of no use any more: [`Client::detach`] then.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some(arrived) = self.parser.next(&mut bytes)? {
            match arrived {
                Arrived::Event(event) => self.event(event)?,
                Arrived::Data(data) => self.data(data)?,
            }
        }
        Ok(())
    }

    /// The request that a reply is for. A server cannot answer what it has not got.
    fn piece(&mut self, cookie: u64) -> Result<&mut Piece, Violation> {
        let piece = self.pieces.get_mut(&cookie).filter(|piece| piece.sent);
        piece.ok_or(Violation("a reply that fits no request"))
    }

    fn chunk(&mut self, cookie: u64, command: Command) -> Result<&mut Piece, Violation> {
        let structured = self.export.as_ref().is_some_and(|export| export.structured);
        let piece = self.piece(cookie)?;
        if !structured || piece.command != command {
            return Err(Violation("a chunk that does not fit its request"));
        }
        Ok(piece)
    }

    fn event(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Simple { cookie, error } => self.simple(cookie, error)?,
            Event::DataChunk { cookie, offset, length } => {
                self.locate(cookie, offset, length)?;
                self.filling = Some((cookie, offset));
            }
            Event::Hole { cookie, offset, length } => {
                self.locate(cookie, offset, length)?;
                let job = self.piece(cookie)?.job;
                let place = self.jobs.get_mut(&job).and_then(|job| job.place(offset, length as usize));
                place.ok_or(Violation("a hole outside its request"))?.fill(0);
            }
            Event::Extent { cookie, context, length, flags } => {
                let expected = self.export.as_ref().and_then(|export| export.allocation);
                let piece = self.chunk(cookie, Command::BlockStatus)?;
                if expected != Some(context) || length == 0 || piece.extent.is_some() {
                    return Err(Violation("an extent that was not asked for").into());
                }
                piece.extent = Some((length.min(piece.length), flags & HOLE_OF_ZEROES != HOLE_OF_ZEROES));
            }
            Event::Error { cookie, error } => self.failed(cookie, error)?,
            Event::ErrorOffset { cookie, offset } => {
                let piece = self.piece(cookie)?;
                piece.locate(offset, 0).ok_or(Violation("an error outside its request"))?;
                if let Some((_, place)) = &mut piece.error {
                    *place = offset;
                }
            }
            Event::Done { cookie } => self.done(cookie)?,
        }
        Ok(())
    }

    fn simple(&mut self, cookie: u64, error: u32) -> Result<(), Fault> {
        let structured = self.export.as_ref().is_some_and(|export| export.structured);
        let piece = self.piece(cookie)?;
        let (command, length, offset) = (piece.command, piece.length, piece.offset);
        if error != 0 {
            self.failed(cookie, error)?;
            return Ok(self.done(cookie)?);
        }
        match command {
            Command::Read if !structured => {
                piece.received = length;
                self.filling = Some((cookie, offset));
                self.parser.expect_data(cookie, length);
                Ok(())
            }
            Command::Read | Command::BlockStatus => {
                Err(Violation("a simple reply where a chunk belongs").into())
            }
            Command::Write | Command::Flush | Command::WriteZeroes => Ok(self.done(cookie)?),
        }
    }

    /// So many bytes of a read are there, and no byte twice as far as their number shows.
    fn locate(&mut self, cookie: u64, offset: u64, length: u32) -> Result<(), Violation> {
        let piece = self.chunk(cookie, Command::Read)?;
        piece.locate(offset, length).filter(|_| length > 0).ok_or(Violation("data outside their request"))?;
        let received = piece.received.checked_add(length).filter(|received| *received <= piece.length);
        piece.received = received.ok_or(Violation("more data than were asked for"))?;
        Ok(())
    }

    fn failed(&mut self, cookie: u64, error: u32) -> Result<(), Fault> {
        if error == error_value::ESHUTDOWN {
            // Not an answer: whoever comes after it is asked again.
            return Err(Fault::ShuttingDown);
        }
        let piece = self.piece(cookie)?;
        piece.error.get_or_insert((error, piece.offset));
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), Violation> {
        let outside = Violation("data that belong nowhere");
        let (cookie, offset) = self.filling.ok_or(outside)?;
        let job = self.piece(cookie)?.job;
        let place = self.jobs.get_mut(&job).and_then(|job| job.place(offset, data.len()));
        place.ok_or(outside)?.copy_from_slice(data);
        self.filling = Some((cookie, offset + data.len() as u64));
        Ok(())
    }

    /// A request has all of its reply.
    fn done(&mut self, cookie: u64) -> Result<(), Violation> {
        let piece = self.piece(cookie)?;
        let whole = match piece.command {
            Command::Read => piece.received == piece.length,
            Command::BlockStatus => piece.extent.is_some(),
            Command::Write | Command::Flush | Command::WriteZeroes => true,
        };
        if !whole && piece.error.is_none() {
            return Err(Violation("a reply without what was asked for"));
        }
        self.answered = true;
        if let Some(piece) = self.pieces.remove(&cookie)
            && let Some(job) = self.jobs.get_mut(&piece.job)
        {
            job.answered(&piece);
            self.advance(piece.job);
        }
        Ok(())
    }
}

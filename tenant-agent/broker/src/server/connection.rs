//! One connection: its handshake, then one loop that waits for whatever comes next.
//!
//! Bounds: what was asked for and is not answered yet, in number and in bytes. A client that sends more waits, and so
//! does one that does not read its answers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Export;
use super::perform::perform;
use super::seat::Leave;
use crate::protocol::Violation;
use crate::protocol::handshake::{Handshake, Progress};
use crate::protocol::request::{Command, Header, check};
use crate::protocol::wire::{ErrorValue, simple_reply};
use crate::volume::{Volume, VolumeError};

/// How long a client may take to choose an export. One on the same host needs milliseconds.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Requests under way or with an answer that was not taken: four times what an initiator queues.
pub(super) const REQUESTS_MAX: usize = 128;
/// Bytes of those together. A single longest request is always let in.
const BYTES_MAX: usize = 64 << 20;
/// Bytes received at once.
const RECEIVE: usize = 64 << 10;
/// Pieces sent at once.
const SLICES: usize = 64;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In whatever way; nothing of it is under way.
    Over,
    /// The volume was taken away.
    Fenced,
}

/// Why one ends early.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("no export was chosen within {} s", HANDSHAKE_LIMIT.as_secs())]
    Slow,
}

/// A connection that was accepted.
pub struct Connection<'a, V> {
    stream: UnixStream,
    exports: &'a [Export<V>],
    inbox: BytesMut,
}

impl<'a, V: Volume> Connection<'a, V> {
    pub fn new(stream: UnixStream, exports: &'a [Export<V>]) -> Self {
        Self { stream, exports, inbox: BytesMut::new() }
    }

    /// Serves it to its end.
    pub async fn run(mut self) -> End {
        let mut handshake = Handshake::new(self.exports.iter().map(Export::offer).collect());
        let chosen = tokio::time::timeout(HANDSHAKE_LIMIT, self.negotiate(&mut handshake)).await;
        let chosen = match chosen.unwrap_or(Err(Fault::Slow)) {
            Ok(Some(index)) => index,
            Ok(None) => return End::Over,
            Err(fault) => return told(&fault),
        };
        let Some(export) = self.exports.get(chosen) else { return End::Over };
        let Some((_seat, leave)) = export.seat.take().await else { return End::Over };
        // Only now is the client told that it may go on: its predecessor's requests are over.
        if let Err(error) = self.stream.write_all(&handshake.take_outgoing()).await {
            return told(&error.into());
        }
        tracing::info!(export = export.name, "a client has connected");
        Transmission::new(export, self.inbox).run(self.stream, leave).await
    }

    async fn negotiate(&mut self, handshake: &mut Handshake) -> Result<Option<usize>, Fault> {
        loop {
            let progress = handshake.advance(&mut self.inbox)?;
            if let Progress::Chosen(index) = progress {
                return Ok(Some(index));
            }
            self.stream.write_all(&handshake.take_outgoing()).await?;
            if progress == Progress::Ended || self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Ok(None);
            }
        }
    }
}

fn told(fault: &Fault) -> End {
    tracing::info!(reason = bmi_types::chain(fault), "a client's connection ends");
    End::Over
}

/// A piece of an answer.
struct Piece {
    bytes: Bytes,
    /// Of the whole answer, given back with its last piece.
    cost: Option<usize>,
}

/// A request that was read up to its payload.
struct Waiting {
    header: Header,
    checked: Result<Command, ErrorValue>,
    cost: usize,
}

/// What a request came to.
struct Done {
    cookie: u64,
    cost: usize,
    result: Result<Bytes, VolumeError>,
}

/// The transmission phase.
struct Transmission<'a, V> {
    export: &'a Export<V>,
    inbox: BytesMut,
    waiting: Option<Waiting>,
    outbox: VecDeque<Piece>,
    requests: usize,
    bytes: usize,
    /// The client said goodbye: what is under way is answered, and nothing more is read.
    leaving: bool,
}

impl<'a, V: Volume> Transmission<'a, V> {
    const fn new(export: &'a Export<V>, inbox: BytesMut) -> Self {
        let outbox = VecDeque::new();
        Self { export, inbox, waiting: None, outbox, requests: 0, bytes: 0, leaving: false }
    }

    async fn run(mut self, stream: UnixStream, leave: Leave) -> End {
        let mut under_way = FuturesUnordered::new();
        let export = self.export;
        let begin = |command, data, cookie, cost| async move {
            Done { cookie, cost, result: perform(&export.volume, command, data).await }
        };
        let end = self.exchange(stream, leave, &mut under_way, begin).await;
        if end == End::Fenced {
            return End::Fenced;
        }
        // Nobody hears of it any more, but who comes next must not be overtaken by it.
        while let Some(done) = under_way.next().await {
            if matches!(done.result, Err(VolumeError::Fenced(_))) {
                return End::Fenced;
            }
        }
        tracing::info!(export = export.name, "a client has left");
        End::Over
    }

    async fn exchange<F: Future<Output = Done>>(
        &mut self,
        mut stream: UnixStream,
        mut leave: Leave,
        under_way: &mut FuturesUnordered<F>,
        begin: impl Fn(Command, Bytes, u64, usize) -> F,
    ) -> End {
        let (mut from, mut to) = stream.split();
        loop {
            loop {
                match self.next() {
                    Ok(Some((command, data, cookie, cost))) => {
                        under_way.push(begin(command, data, cookie, cost));
                    }
                    Ok(None) => break,
                    Err(violation) => return told(&violation.into()),
                }
            }
            if self.leaving && under_way.is_empty() && self.outbox.is_empty() {
                return End::Over;
            }
            if self.inbox.capacity() == self.inbox.len() {
                self.inbox.reserve(RECEIVE);
            }
            let slices: Vec<IoSlice<'_>> =
                self.outbox.iter().take(SLICES).map(|piece| IoSlice::new(&piece.bytes)).collect();
            let wants_bytes = !self.leaving && self.wants_bytes();
            tokio::select! {
                _ = &mut leave => return End::Over,
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    drop(slices);
                    if self.answer(done) == End::Fenced {
                        return End::Fenced;
                    }
                }
                sent = to.write_vectored(&slices), if !slices.is_empty() => {
                    drop(slices);
                    match sent {
                        Ok(count) => self.sent(count),
                        Err(error) => return told(&error.into()),
                    }
                }
                read = from.read_buf(&mut self.inbox), if wants_bytes => match read {
                    Ok(0) => return End::Over,
                    Ok(_) => {}
                    Err(error) => return told(&error.into()),
                },
            }
        }
    }

    fn has_room(&self, cost: usize) -> bool {
        self.requests < REQUESTS_MAX && (self.bytes == 0 || self.bytes + cost <= BYTES_MAX)
    }

    fn wants_bytes(&self) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| self.has_room(waiting.cost))
    }

    /// The next request that is whole and has room.
    fn next(&mut self) -> Result<Option<(Command, Bytes, u64, usize)>, Violation> {
        while !self.leaving {
            let waiting = match self.waiting.take() {
                Some(waiting) => waiting,
                None => match Header::take(&mut self.inbox)? {
                    Some(header) => self.weigh(header),
                    None => return Ok(None),
                },
            };
            let missing = waiting.header.payload().saturating_sub(self.inbox.len());
            let has_room = self.has_room(waiting.cost);
            if missing > 0 || !has_room {
                if has_room {
                    self.inbox.reserve(missing);
                }
                self.waiting = Some(waiting);
                return Ok(None);
            }
            let Waiting { header, checked, cost } = waiting;
            let data = self.inbox.split_to(header.payload()).freeze();
            match checked {
                Ok(Command::Disconnect) => self.leaving = true,
                Ok(command) => {
                    self.requests += 1;
                    self.bytes += cost;
                    return Ok(Some((command, data, header.cookie, cost)));
                }
                Err(error) => {
                    self.requests += 1;
                    self.reply(Some(error), header.cookie, Bytes::new(), 0);
                }
            }
        }
        Ok(None)
    }

    fn weigh(&self, header: Header) -> Waiting {
        let checked = check(&header, self.export.volume.size(), self.export.read_only);
        let cost = match checked {
            Ok(Command::Read { length, .. }) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => header.payload(),
        };
        Waiting { header, checked, cost }
    }

    fn answer(&mut self, done: Done) -> End {
        let Done { cookie, cost, result } = done;
        match result {
            Ok(data) => self.reply(None, cookie, data, cost),
            Err(error) => {
                let name = &self.export.name;
                tracing::warn!(export = name, error = bmi_types::chain(&error), "a request failed");
                let value = match error {
                    VolumeError::Fenced(_) => return End::Fenced,
                    VolumeError::NoSpace(_) => ErrorValue::NoSpace,
                    VolumeError::Failed(_) => ErrorValue::InputOutput,
                };
                self.reply(Some(value), cookie, Bytes::new(), cost);
            }
        }
        End::Over
    }

    fn reply(&mut self, error: Option<ErrorValue>, cookie: u64, data: Bytes, cost: usize) {
        let header = Bytes::copy_from_slice(&simple_reply(error, cookie));
        let last = data.is_empty();
        self.outbox.push_back(Piece { bytes: header, cost: last.then_some(cost) });
        if !last {
            self.outbox.push_back(Piece { bytes: data, cost: Some(cost) });
        }
    }

    fn sent(&mut self, mut count: usize) {
        while let Some(piece) = self.outbox.front_mut() {
            let part = count.min(piece.bytes.len());
            piece.bytes.advance(part);
            count -= part;
            if !piece.bytes.is_empty() {
                return;
            }
            if let Some(cost) = piece.cost {
                self.requests -= 1;
                self.bytes -= cost;
            }
            self.outbox.pop_front();
        }
    }
}

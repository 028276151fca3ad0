//! An export of an NBD server on this host, over a unix socket: [`Nbd`] (`doc/proto.md` of the NBD project).
//!
//! Use: [`Nbd::connect`] at the start; then [`Nbd::submit`] requests, and call [`Nbd::process`] after that, whenever
//! [`Nbd::fd`] is readable, is writable while [`Nbd::wants_to_send`], and at [`Nbd::deadline`]; take what is over with
//! [`Nbd::take_completed`].
//!
//! Many requests are under way together, and end in any order. When the server dies, what is under way waits, is sent
//! again to whoever listens next, and then completes: it was concurrent before and is so again. If completed writes
//! may be lost, the next flush fails, once.
//!
//! Deliberately absent: TCP and TLS, threads, more than one connection, a limit to how many requests there are (the
//! caller's) and to how long one takes (the initiator's).
//!
//! Invariants: nothing waits after [`Nbd::connect`]; whatever a server sends, the memory taken is that of the requests;
//! a request is over exactly once.

mod client;
mod durability;
mod export;
mod fault;
mod handshake;
mod job;
mod link;
mod parser;
pub mod protocol;
mod request;
mod socket;
#[cfg(test)]
mod tests;
mod uri;
mod wire;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::error::check;
use crate::{Access, BlockError};
use client::Client;
use link::Link;
use wire::transmission;

pub use fault::{Fault, Violation};
pub use link::Change;
pub use request::{Completed, Reply, Request};
pub use uri::{Uri, UriError};

/// An export of an NBD server. Its size is taken once, when it is connected.
#[derive(Debug)]
pub struct Nbd {
    link: Link,
    client: Client,
    read_only: bool,
}

impl Nbd {
    /// Connects, and waits until that is done: at most ten seconds.
    ///
    /// # Errors
    /// When nobody listens, there is no such export, the server takes too long, or it breaks the protocol.
    pub fn connect(uri: &Uri, access: Access) -> Result<Self, Fault> {
        let link = Link::connect(uri)?;
        let mut client = Client::new();
        client.attach(link.export().clone());
        let read_only = access == Access::ReadOnly || link.export().has(transmission::READ_ONLY);
        Ok(Self { link, client, read_only })
    }

    /// Its size, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.link.export().size
    }

    /// Whether it cannot be written: by the server's will, or ours.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether a completed write may be lost until a flush.
    #[must_use]
    pub const fn has_volatile_cache(&self) -> bool {
        self.link.export().has(transmission::SEND_FLUSH)
    }

    /// Offsets and lengths are multiples of it, in bytes: a power of two up to 64 KiB, often 1. A logical block size that
    /// is smaller does not fit.
    #[must_use]
    pub const fn minimum_block(&self) -> u32 {
        self.link.export().block.minimum
    }

    /// Whether [`Request::Extent`] can say anything but that everything is allocated. Of the first connection.
    #[must_use]
    pub const fn tells_extents(&self) -> bool {
        self.link.export().allocation.is_some()
    }

    /// Takes a request; `token` names it in [`Completed`]. A request that is wrong completes at once, with an error.
    pub fn submit(&mut self, token: u64, request: Request) {
        match self.admit(&request) {
            Ok(()) => self.client.submit(token, request),
            Err(error) => self.client.refuse(token, error),
        }
    }

    fn admit(&self, request: &Request) -> Result<(), BlockError> {
        let (operation, offset, length) = (request.operation(), request.offset(), request.length());
        check(operation, self.size(), offset, length)?;
        if self.read_only && request.changes() {
            return Err(BlockError::ReadOnly { operation });
        }
        let blocks = u64::from(self.minimum_block());
        if !offset.is_multiple_of(blocks) || !length.is_multiple_of(blocks) {
            let text = format!("it is not made of the server's blocks of {blocks} bytes");
            let source = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BlockError::Io { operation, offset, source });
        }
        Ok(())
    }

    /// What to poll: readable always, writable while [`Nbd::wants_to_send`]. Nothing while there is no connection.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.fd()
    }

    /// Whether something waits until the socket takes it.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        self.link.wants_to_send(&self.client)
    }

    /// When to call [`Nbd::process`] at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.link.deadline()
    }

    /// Sends, receives and reconnects, as far as that needs no waiting.
    pub fn process(&mut self, now: Instant) {
        self.link.process(&mut self.client, now);
    }

    /// The next request that is over.
    pub fn take_completed(&mut self) -> Option<Completed> {
        self.client.take_completed()
    }

    /// What became of the connection since this was asked last, for a log: the latest only.
    pub const fn take_change(&mut self) -> Option<Change> {
        self.link.take_change()
    }

    /// Requests that are not over. What is over and was not taken is not among them.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    /// Whether there is a connection, to an export that is what it was.
    #[must_use]
    pub const fn connected(&self) -> bool {
        self.link.is_up()
    }
}

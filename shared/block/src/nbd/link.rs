//! The connection to the server: made, lost and made again.
//!
//! Deliberately absent: saying goodbye (`NBD_CMD_DISC`): to a server it is the same as the end of the connection.
//!
//! Invariant: nothing here waits after [`Link::connect`].
//!
//! Assumed: a server that ends a connection and does not die executes nothing later of what that connection brought. A
//! request that is sent again could be overtaken by its former self; the protocol has no way to rule that out.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::Uri;
use super::client::Client;
use super::export::Export;
use super::fault::Fault;
use super::handshake::Handshake;
use super::socket::Socket;

/// How long a handshake may take. A server on the same host needs milliseconds.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The pause after the first attempt that failed; each is twice as long as the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: how late a server that came back is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes that are received at once: more than a unix socket holds by itself.
const RECEIVE: usize = 256 << 10;
/// How often the socket is read or written before the caller's loop has its turn again, however fast the server is.
const TURNS: usize = 16;

#[derive(Debug)]
enum State {
    /// The next attempt is later.
    Waiting { until: Instant },
    /// A handshake, and when it is too late.
    Greeting { socket: Socket, handshake: Box<Handshake>, until: Instant },
    /// In the transmission phase.
    Up { socket: Socket },
}

/// What became of the connection.
#[derive(Debug)]
pub enum Change {
    /// It is gone, or could not be made, for another reason than was told last.
    Lost(Fault),
    /// It is there again, and what is in flight was sent again.
    Restored,
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Link {
    uri: Uri,
    first: Export,
    state: State,
    pause: Duration,
    buffer: Vec<u8>,
    change: Option<Change>,
    /// What was told last, while it is so.
    told: Option<String>,
}

impl Link {
    /// Connects and waits until that is done, for at most [`HANDSHAKE_LIMIT`].
    pub fn connect(uri: &Uri) -> Result<Self, Fault> {
        let until = Instant::now() + HANDSHAKE_LIMIT;
        let mut buffer = vec![0; RECEIVE];
        let socket = loop {
            match Socket::connect(&uri.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(PAUSE_FIRST);
                }
                result => break result.map_err(|source| refused(uri, source))?,
            }
        };
        let mut handshake = Handshake::new(&uri.export);
        let first = loop {
            if let Some(export) = greet(&socket, &mut handshake, &mut buffer)? {
                break export;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Fault::Slow(HANDSHAKE_LIMIT));
            }
            wait(&socket, !handshake.outgoing().is_empty(), left)?;
        };
        let state = State::Up { socket };
        Ok(Self { uri: uri.clone(), first, state, pause: PAUSE_FIRST, buffer, change: None, told: None })
    }

    /// What the first handshake found.
    pub const fn export(&self) -> &Export {
        &self.first
    }

    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Waiting { .. } => None,
            State::Greeting { socket, .. } | State::Up { socket } => Some(socket.fd()),
        }
    }

    pub fn wants_to_send(&self, client: &Client) -> bool {
        match &self.state {
            State::Waiting { .. } => false,
            State::Greeting { handshake, .. } => !handshake.outgoing().is_empty(),
            State::Up { .. } => client.has_outgoing(),
        }
    }

    pub const fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } | State::Greeting { until, .. } => Some(*until),
            State::Up { .. } => None,
        }
    }

    pub const fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Does what can be done at `now`.
    pub fn process(&mut self, client: &mut Client, now: Instant) {
        if let State::Waiting { until } = self.state
            && now >= until
        {
            match Socket::connect(&self.uri.socket) {
                Ok(socket) => {
                    let handshake = Box::new(Handshake::new(&self.uri.export));
                    self.state = State::Greeting { socket, handshake, until: now + HANDSHAKE_LIMIT };
                }
                Err(source) => return self.lost(client, refused(&self.uri, source), now),
            }
        }
        let result = match &mut self.state {
            State::Waiting { .. } => Ok(()),
            State::Up { socket } => exchange(socket, client, &mut self.buffer),
            State::Greeting { socket, handshake, until } => {
                match greet(socket, handshake, &mut self.buffer).and_then(|export| {
                    export.map(|new| new.stands_for(&self.first).map(|()| new)).transpose()
                }) {
                    Ok(Some(export)) => return self.restored(client, export, now),
                    Ok(None) if now >= *until => Err(Fault::Slow(HANDSHAKE_LIMIT)),
                    Ok(None) => Ok(()),
                    Err(fault) => Err(fault),
                }
            }
        };
        if let Err(fault) = result {
            self.lost(client, fault, now);
        }
    }

    fn restored(&mut self, client: &mut Client, export: Export, now: Instant) {
        let State::Greeting { socket, .. } =
            std::mem::replace(&mut self.state, State::Waiting { until: now })
        else {
            return;
        };
        self.state = State::Up { socket };
        self.change = Some(Change::Restored);
        self.told = None;
        client.attach(export);
    }

    fn lost(&mut self, client: &mut Client, fault: Fault, now: Instant) {
        // A server that greets and then breaks at the first request is not greeted any faster for it.
        if self.is_up() && client.has_answered() {
            self.pause = PAUSE_FIRST;
        }
        client.detach();
        self.state = State::Waiting { until: now + self.pause };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let text = fault.to_string();
        if self.told.as_ref() != Some(&text) {
            self.told = Some(text);
            self.change = Some(Change::Lost(fault));
        }
    }
}

fn refused(uri: &Uri, source: io::Error) -> Fault {
    Fault::Connect { path: uri.socket.clone(), source }
}

/// Waits for the socket, at the start only.
fn wait(socket: &Socket, to_send: bool, most: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let flags = if to_send { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let most = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(socket.fd(), flags)], Some(&most)))?;
    Ok(())
}

/// Goes on with a handshake as far as that needs no waiting.
fn greet(socket: &Socket, handshake: &mut Handshake, buffer: &mut [u8]) -> Result<Option<Export>, Fault> {
    for _ in 0..TURNS {
        while !handshake.outgoing().is_empty() {
            let Some(count) = socket.send(&[IoSlice::new(handshake.outgoing())])? else { break };
            handshake.sent(count);
        }
        match socket.receive(buffer)? {
            None => return Ok(None),
            Some(0) => return Err(Fault::Closed),
            Some(count) => {
                if let Some(export) = handshake.receive(buffer.get(..count).unwrap_or_default())? {
                    return Ok(Some(export));
                }
            }
        }
    }
    Ok(None)
}

/// Sends and receives as far as that needs no waiting.
fn exchange(socket: &Socket, client: &mut Client, buffer: &mut [u8]) -> Result<(), Fault> {
    // What is there is taken first: it says why a server went away, and makes room for what is sent.
    for _ in 0..TURNS {
        match socket.receive(buffer)? {
            None => break,
            Some(0) => return Err(Fault::Closed),
            Some(count) => client.receive(buffer.get(..count).unwrap_or_default())?,
        }
    }
    for _ in 0..TURNS {
        if !client.has_outgoing() {
            break;
        }
        let Some(count) = socket.send(&client.outgoing())? else { break };
        client.sent(count);
    }
    Ok(())
}

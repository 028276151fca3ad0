//! Replies, taken apart as they arrive ("Simple reply message", "Structured reply chunk message").
//!
//! Knows what a reply looks like and not what was asked: it says what comes, and the client says whether that fits.
//!
//! Invariant: it keeps at most one header, however the bytes are cut and whatever their length fields say.

use super::fault::Violation;
use super::wire::{CHUNK_DONE, CHUNK_MAGIC, Fields, SIMPLE_REPLY_MAGIC, chunk};

/// The longest thing that is collected before it is looked at, in bytes: a chunk's header.
const HEAD: usize = 20;
/// The header of a simple reply.
const SIMPLE: usize = 16;

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A whole simple reply, or the beginning of one that has data: answer with [`Parser::expect_data`].
    Simple { cookie: u64, error: u32 },
    /// Data of a read begin at this byte of the device; `length` of them follow as [`Arrived::Data`].
    DataChunk { cookie: u64, offset: u64, length: u32 },
    /// So many bytes of a read are zeros.
    Hole { cookie: u64, offset: u64, length: u32 },
    /// The first extent of a range.
    Extent { cookie: u64, context: u32, length: u32, flags: u32 },
    /// Something of the request failed.
    Error { cookie: u64, error: u32 },
    /// And where.
    ErrorOffset { cookie: u64, offset: u64 },
    /// The last chunk of a structured reply is over, or the data of a simple one.
    Done { cookie: u64 },
}

/// What a call of [`Parser::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<'a> {
    /// Something whole.
    Event(Event),
    /// Bytes of the read that was begun last.
    Data(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    kind: u16,
    done: bool,
    cookie: u64,
    /// Bytes of it that were not looked at.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    Simple,
    Chunk,
    /// The numbers at the front of a chunk's payload.
    Numbers(Chunk),
    /// The text of an error, and then perhaps where it was.
    Text(Chunk),
    ErrorOffset(Chunk),
    /// What nobody looks at.
    Rest(Chunk),
    /// So many bytes of data, then the chunk's end.
    Data(u32, Chunk),
    End(Chunk),
}

/// Takes replies apart.
#[derive(Debug)]
pub struct Parser {
    head: [u8; HEAD],
    filled: usize,
    state: State,
}

impl Parser {
    /// At the beginning of a reply.
    pub const fn new() -> Self {
        Self { head: [0; HEAD], filled: 0, state: State::Magic }
    }

    /// The simple reply that was just found carries data; [`Event::Done`] follows them.
    pub const fn expect_data(&mut self, cookie: u64, length: u32) {
        self.state = State::Data(length, Chunk { kind: chunk::NONE, done: true, cookie, left: 0 });
    }

    /// Takes from the front of `bytes`. Nothing when more must arrive first.
    ///
    /// # Errors
    /// When the bytes are no reply.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Arrived<'a>>, Violation> {
        loop {
            match self.state {
                State::Data(0, chunk) => self.state = State::End(chunk),
                State::Data(left, chunk) => {
                    let data = take(bytes, left);
                    if data.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Data(left - amount(data), chunk);
                    return Ok(Some(Arrived::Data(data)));
                }
                // Of the text, all but the offset behind it.
                State::Text(mut chunk) => {
                    let behind = if chunk.kind == chunk::ERROR_OFFSET { 8 } else { 0 };
                    let text = take(bytes, chunk.left - behind);
                    chunk.left -= amount(text);
                    self.state = match chunk.left {
                        0 => State::End(chunk),
                        8 if behind > 0 => State::ErrorOffset(chunk),
                        _ if text.is_empty() => return Ok(None),
                        _ => State::Text(chunk),
                    };
                }
                State::Rest(Chunk { left: 0, .. }) | State::End(_) => {
                    let (State::Rest(chunk) | State::End(chunk)) = self.state else { return Ok(None) };
                    self.state = State::Magic;
                    if chunk.done {
                        return Ok(Some(Arrived::Event(Event::Done { cookie: chunk.cookie })));
                    }
                }
                State::Rest(mut chunk) => {
                    let rest = take(bytes, chunk.left);
                    if rest.is_empty() {
                        return Ok(None);
                    }
                    chunk.left -= amount(rest);
                    self.state = State::Rest(chunk);
                }
                State::Magic | State::Simple | State::Chunk | State::Numbers(_) | State::ErrorOffset(_) => {
                    if !self.collect(bytes) {
                        return Ok(None);
                    }
                    if let Some(event) = self.collected()? {
                        return Ok(Some(Arrived::Event(event)));
                    }
                }
            }
        }
    }

    /// Fills the head as far as the state needs; whether it is full.
    fn collect(&mut self, bytes: &mut &[u8]) -> bool {
        let wanted = match self.state {
            State::Magic => 4,
            State::Simple => SIMPLE,
            State::Chunk => HEAD,
            State::Numbers(chunk) => numbers(chunk.kind),
            _ => 8,
        };
        let now = take(bytes, u32::try_from(wanted.saturating_sub(self.filled)).unwrap_or(0));
        for (to, from) in self.head.iter_mut().skip(self.filled).zip(now) {
            *to = *from;
        }
        self.filled += now.len();
        self.filled >= wanted
    }

    /// The head is full: what it says, and what comes next.
    fn collected(&mut self) -> Result<Option<Event>, Violation> {
        let head = self.head;
        let mut fields = Fields(&head);
        if self.state == State::Magic {
            self.state = match fields.u32() {
                SIMPLE_REPLY_MAGIC => State::Simple,
                CHUNK_MAGIC => State::Chunk,
                _ => return Err(Violation("a reply without its magic number")),
            };
            return Ok(None);
        }
        self.filled = 0;
        match self.state {
            State::Simple => {
                let _magic = fields.u32();
                let error = fields.u32();
                self.state = State::Magic;
                Ok(Some(Event::Simple { cookie: fields.u64(), error }))
            }
            State::Chunk => {
                let _magic = fields.u32();
                let (flags, kind) = (fields.u16(), fields.u16());
                let (cookie, left) = (fields.u64(), fields.u32());
                let chunk = Chunk { kind, done: flags & CHUNK_DONE != 0, cookie, left };
                self.state = begun(chunk)?;
                Ok(None)
            }
            State::Numbers(mut chunk) => {
                chunk.left -= u32::try_from(numbers(chunk.kind)).unwrap_or(0);
                self.numbers(chunk, &mut fields).map(Some)
            }
            State::ErrorOffset(chunk) => {
                self.state = State::End(chunk);
                Ok(Some(Event::ErrorOffset { cookie: chunk.cookie, offset: fields.u64() }))
            }
            _ => Ok(None),
        }
    }

    fn numbers(&mut self, chunk: Chunk, fields: &mut Fields<'_>) -> Result<Event, Violation> {
        let cookie = chunk.cookie;
        match chunk.kind {
            chunk::OFFSET_DATA => {
                self.state = State::Data(chunk.left, chunk);
                Ok(Event::DataChunk { cookie, offset: fields.u64(), length: chunk.left })
            }
            chunk::OFFSET_HOLE => {
                self.state = State::End(chunk);
                Ok(Event::Hole { cookie, offset: fields.u64(), length: fields.u32() })
            }
            chunk::BLOCK_STATUS => {
                self.state = State::Rest(chunk);
                let (context, length, flags) = (fields.u32(), fields.u32(), fields.u32());
                Ok(Event::Extent { cookie, context, length, flags })
            }
            kind => {
                let (error, text) = (fields.u32(), u32::from(fields.u16()));
                let fits = match kind {
                    chunk::ERROR_OFFSET => chunk.left == text + 8,
                    // Types that are not known yet begin like this ("Structured reply types").
                    _ => chunk.left >= text,
                };
                if error == 0 || !fits {
                    return Err(Violation("an error that is none, or of a wrong length"));
                }
                self.state = State::Text(chunk);
                Ok(Event::Error { cookie, error })
            }
        }
    }
}

/// How many bytes of a chunk's payload are numbers.
const fn numbers(kind: u16) -> usize {
    match kind {
        chunk::OFFSET_DATA => 8,
        chunk::OFFSET_HOLE | chunk::BLOCK_STATUS => 12,
        _ => 6,
    }
}

/// What follows a chunk's header.
fn begun(chunk: Chunk) -> Result<State, Violation> {
    let fits = match chunk.kind {
        chunk::NONE if chunk.left == 0 && chunk.done => return Ok(State::End(chunk)),
        chunk::OFFSET_DATA => chunk.left > 8,
        chunk::OFFSET_HOLE => chunk.left == 12,
        chunk::BLOCK_STATUS => chunk.left >= 12 && (chunk.left - 4).is_multiple_of(8),
        kind if kind & chunk::ERROR != 0 => chunk.left >= 6,
        _ => false,
    };
    if fits {
        Ok(State::Numbers(chunk))
    } else {
        Err(Violation("a chunk of an unknown type or a wrong length"))
    }
}

/// Takes up to `most` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], most: u32) -> &'a [u8] {
    let (now, later) = bytes.split_at_checked(most as usize).unwrap_or((bytes, &[]));
    *bytes = later;
    now
}

/// The length of what [`take`] gave.
fn amount(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

//! Requests of the transmission phase: read from bytes, and checked against their export.

use bytes::{Buf, BytesMut};

use super::Violation;
use super::wire::{ErrorValue, Fields, REQUEST, REQUEST_MAGIC, command, command_flag};

/// The most that is read or written at once, in bytes: what clients use that are told nothing ("Block size
/// constraints"). Clients are told.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// "Request message", without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flags: u16,
    pub command: u16,
    /// The client's name for it; said back in the reply.
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

impl Header {
    /// Takes a header from the front of what arrived, when it is whole.
    ///
    /// # Errors
    /// When it is none, or more would follow it than is ever taken.
    pub fn take(inbox: &mut BytesMut) -> Result<Option<Self>, Violation> {
        if inbox.len() < REQUEST {
            return Ok(None);
        }
        let mut fields = Fields(inbox);
        if fields.u32() != REQUEST_MAGIC {
            return Err(Violation("a request without its magic number"));
        }
        let (flags, command) = (fields.u16(), fields.u16());
        let (cookie, offset, length) = (fields.u64(), fields.u64(), fields.u32());
        if command == command::WRITE && length > PAYLOAD_MAX {
            return Err(Violation("a write that is longer than was agreed on"));
        }
        inbox.advance(REQUEST);
        Ok(Some(Self { flags, command, cookie, offset, length }))
    }

    /// How many bytes follow it.
    #[must_use]
    pub fn payload(&self) -> usize {
        if self.command == command::WRITE { usize::try_from(self.length).unwrap_or(usize::MAX) } else { 0 }
    }
}

/// How durable an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// At the next flush.
    Later,
    /// When it is answered (FUA).
    Now,
}

/// What zeroes may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeroes {
    /// Holes.
    Holes,
    /// Blocks that keep their space (`NO_HOLE`).
    Blocks,
}

/// What is asked for; within the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Read {
        offset: u64,
        length: u32,
    },
    /// The data follow.
    Write {
        offset: u64,
        length: u32,
        durable: Durable,
    },
    Flush,
    Trim {
        offset: u64,
        length: u32,
        durable: Durable,
    },
    WriteZeroes {
        offset: u64,
        length: u32,
        zeroes: Zeroes,
        durable: Durable,
    },
    Disconnect,
}

/// Checks a request against an export of `size` bytes.
///
/// # Errors
/// What to answer instead. The payload follows all the same.
pub fn check(header: &Header, size: u64, read_only: bool) -> Result<Command, ErrorValue> {
    let Header { flags, command, offset, length, .. } = *header;
    let known = match command {
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE,
        _ => command_flag::FUA,
    };
    if flags & !known != 0 {
        return Err(ErrorValue::Invalid);
    }
    let durable = if flags & command_flag::FUA == 0 { Durable::Later } else { Durable::Now };
    let changes = match command {
        command::DISCONNECT => return Ok(Command::Disconnect),
        // Both fields are reserved.
        command::FLUSH if offset == 0 && length == 0 => return Ok(Command::Flush),
        command::READ => false,
        command::WRITE | command::TRIM | command::WRITE_ZEROES => true,
        _ => return Err(ErrorValue::Invalid),
    };
    if changes && read_only {
        return Err(ErrorValue::NotPermitted);
    }
    if length == 0 {
        return Err(ErrorValue::Invalid);
    }
    if offset.checked_add(length.into()).is_none_or(|end| end > size) {
        // What would have to be written there has no room; what is read or dropped there does not exist.
        let room = matches!(command, command::WRITE | command::WRITE_ZEROES);
        return Err(if room { ErrorValue::NoSpace } else { ErrorValue::Invalid });
    }
    match command {
        command::READ if length > PAYLOAD_MAX => Err(ErrorValue::Invalid),
        command::READ => Ok(Command::Read { offset, length }),
        command::WRITE => Ok(Command::Write { offset, length, durable }),
        command::TRIM => Ok(Command::Trim { offset, length, durable }),
        _ => {
            let no_hole = flags & command_flag::NO_HOLE != 0;
            let zeroes = if no_hole { Zeroes::Blocks } else { Zeroes::Holes };
            Ok(Command::WriteZeroes { offset, length, zeroes, durable })
        }
    }
}

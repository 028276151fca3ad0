//! One request of the caller, cut into what the server takes at once.
//!
//! Invariants: a job has few pieces under way, however long it is; after [`Job::restart`] it is done again from its
//! beginning, since what a server completed before it died may be lost.

use std::io;

use super::durability::Ticket;
use super::export::Export;
use super::request::{Reply, Request};
use super::wire::{Command, command_flag, error_value, transmission};
use crate::{BlockError, Operation};

/// Pieces of one job that are under way together: enough to keep a server busy, few enough to leave others their turn.
const PIECES: usize = 8;
/// The most that is zeroed or asked about in one command, in bytes: a multiple of every block size, and no server is
/// busy with it for long. It has no payload, so the server's limit does not apply ("Block size constraints").
const RANGE_MAX: u64 = 1 << 30;
/// Zeros that are sent where the server cannot make them, in bytes: a multiple of every block size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// One command, on its way or about to be.
#[derive(Debug)]
pub struct Piece {
    /// Of which job.
    pub job: u64,
    /// What.
    pub command: Command,
    /// "Command flags".
    pub flags: u16,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
    /// All of it was sent, so it may be answered.
    pub sent: bool,
    /// Bytes of a read that arrived.
    pub received: u32,
    /// The first error: its value, and where.
    pub error: Option<(u32, u64)>,
    /// What was said about allocation: bytes, and whether.
    pub extent: Option<(u32, bool)>,
}

impl Piece {
    /// Where bytes of the device are within this piece, when all of them are.
    pub fn locate(&self, offset: u64, length: u32) -> Option<u64> {
        let start = offset.checked_sub(self.offset)?;
        let end = start.checked_add(u64::from(length))?;
        (end <= u64::from(self.length)).then_some(start)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Range,
    /// What a durable write and a flush end with.
    Flush,
}

/// A request that is not over.
#[derive(Debug)]
pub struct Job {
    /// The caller's name for it.
    pub token: u64,
    /// What is asked.
    pub request: Request,
    /// What was known when it was submitted.
    pub ticket: Ticket,
    stage: Stage,
    /// Bytes that pieces were made of.
    cut: u64,
    under_way: usize,
    error: Option<BlockError>,
    extent: Option<(u32, bool)>,
}

impl Job {
    /// A request that was checked.
    pub const fn new(token: u64, request: Request, ticket: Ticket) -> Self {
        Self { token, request, ticket, stage: Stage::Range, cut: 0, under_way: 0, error: None, extent: None }
    }

    /// Nothing of it counts any more.
    pub fn restart(&mut self) {
        self.stage = Stage::Range;
        self.cut = 0;
        self.under_way = 0;
        self.error = None;
        self.extent = None;
    }

    /// Whether it waits for the server. If not, and there is no next piece, it is over.
    pub const fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// The next piece that can be sent now.
    pub fn next(&mut self, id: u64, export: &Export) -> Option<Piece> {
        if self.error.is_some() || self.under_way >= PIECES {
            return None;
        }
        let (command, flags, most) = match self.stage {
            Stage::Range if self.cut < self.request.length() => self.command(export)?,
            Stage::Range if self.under_way == 0 && self.flushes(export) => {
                self.stage = Stage::Flush;
                (Command::Flush, 0, 0)
            }
            Stage::Range | Stage::Flush => return None,
        };
        let length = self.request.length().saturating_sub(self.cut).min(most);
        let offset = if command == Command::Flush { 0 } else { self.request.offset() + self.cut };
        self.cut += length;
        self.under_way += 1;
        Some(Piece {
            job: id,
            command,
            flags,
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            sent: false,
            received: 0,
            error: None,
            extent: None,
        })
    }

    /// Command, flags and the most bytes of it; nothing when the server cannot be asked.
    fn command(&self, export: &Export) -> Option<(Command, u16, u64)> {
        let payload = u64::from(export.block.payload);
        match self.request {
            Request::Read { .. } => Some((Command::Read, 0, payload)),
            Request::Write { durable, .. } => {
                let fua = durable && export.has(transmission::SEND_FUA);
                Some((Command::Write, if fua { command_flag::FUA } else { 0 }, payload))
            }
            Request::Discard { .. } | Request::WriteZeroes { .. }
                if !export.has(transmission::SEND_WRITE_ZEROES) =>
            {
                Some((Command::Write, 0, payload.min(ZEROS.len() as u64)))
            }
            // NBD_CMD_TRIM would not do: what it trimmed may read as anything.
            Request::Discard { .. } | Request::WriteZeroes { may_unmap: true, .. } => {
                Some((Command::WriteZeroes, 0, RANGE_MAX))
            }
            Request::WriteZeroes { .. } => Some((Command::WriteZeroes, command_flag::NO_HOLE, RANGE_MAX)),
            Request::Extent { .. } => {
                // One answer is enough, and one command gives it.
                export.allocation.filter(|_| self.cut == 0)?;
                Some((Command::BlockStatus, command_flag::REQ_ONE, RANGE_MAX))
            }
            Request::Flush => None,
        }
    }

    fn flushes(&self, export: &Export) -> bool {
        export.has(transmission::SEND_FLUSH)
            && match self.request {
                Request::Flush => true,
                Request::Write { durable, .. } => durable && !export.has(transmission::SEND_FUA),
                _ => false,
            }
    }

    /// Whether its end shows that everything before it is on stable storage, and not just itself.
    pub fn has_flushed(&self) -> bool {
        self.stage == Stage::Flush
    }

    /// What a piece of it sends.
    pub fn payload(&self, piece: &Piece) -> &[u8] {
        let length = piece.length as usize;
        match (piece.command, &self.request) {
            (Command::Write, Request::Write { offset, data, .. }) => {
                part(piece.offset - offset, length).and_then(|range| data.get(range)).unwrap_or_default()
            }
            (Command::Write, _) => ZEROS.get(..length).unwrap_or(&ZEROS),
            _ => &[],
        }
    }

    /// Where `length` bytes of a read go that begin at `offset` of the device.
    pub fn place(&mut self, offset: u64, length: usize) -> Option<&mut [u8]> {
        let Request::Read { offset: first, buffer } = &mut self.request else { return None };
        buffer.get_mut(part(offset.checked_sub(*first)?, length)?)
    }

    /// A piece of it was answered.
    pub fn answered(&mut self, piece: &Piece) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some((value, offset)) = piece.error {
            let operation = match piece.command {
                Command::Flush => Operation::Flush,
                _ => self.request.operation(),
            };
            self.error.get_or_insert_with(|| error(operation, value, offset));
        }
        if piece.extent.is_some() {
            self.extent = piece.extent;
        }
    }

    /// What the caller gets.
    pub fn result(self) -> Result<Reply, BlockError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok(match self.request {
            Request::Read { buffer, .. } => Reply::Data(buffer),
            Request::Write { data, .. } => Reply::Done(Some(data)),
            Request::Flush | Request::Discard { .. } | Request::WriteZeroes { .. } => Reply::Done(None),
            // Where a server cannot say, everything may be in use.
            Request::Extent { length, .. } => match self.extent {
                Some((found, allocated)) => Reply::Extent { length: length.min(u64::from(found)), allocated },
                None => Reply::Extent { length, allocated: true },
            },
        })
    }
}

fn part(start: u64, length: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(start).ok()?;
    Some(start..start.checked_add(length)?)
}

/// "Error values" are numbers of Linux.
fn error(operation: Operation, value: u32, offset: u64) -> BlockError {
    match value {
        error_value::ENOSPC => BlockError::NoSpace { operation, offset },
        error_value::EPERM if operation != Operation::Read => BlockError::ReadOnly { operation },
        value => {
            let known = value == error_value::EPERM || error_value::OTHERS.contains(&value);
            let value = if known { value } else { error_value::EINVAL };
            let source = io::Error::from_raw_os_error(value.cast_signed());
            BlockError::Io { operation, offset, source }
        }
    }
}

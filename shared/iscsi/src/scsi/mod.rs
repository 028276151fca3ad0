//! SCSI for a logical unit with blocks (SPC-4, SBC-3): a command descriptor block becomes an [`Action`]; what it
//! needs from the disk becomes [`Work`]; the [`Outcome`] becomes status and sense. One file per concern.
//!
//! Deliberately absent: MODE SELECT, reservations, COMPARE AND WRITE, protection information, third-party copy. Each
//! is answered with INVALID COMMAND OPERATION CODE.
//!
//! Invariant: the range of every [`Work`] lies within the unit, computed without overflow.

mod capacity;
mod identity;
mod inquiry;
mod lba_status;
mod mode_sense;
mod read_write;
mod report_luns;
mod sense;
mod supported_opcodes;
mod unmap;
mod verify;
mod vpd;
mod write_same;

pub use sense::{Sense, SenseKey};

use crate::config::TargetConfig;
use crate::wire;

/// What kind of logical unit it is. It decides the product name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// The disk a node boots from.
    Disk,
    /// The small volume with the node's configuration.
    Config,
}

/// One logical unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its number, below 16384.
    pub number: u16,
    /// What it is.
    pub kind: UnitKind,
    /// Bytes a logical block, a power of two of at least 512.
    pub block_size: u32,
    /// Logical blocks, at least 1.
    pub blocks: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether completed writes may be lost at a power cut until they are flushed.
    pub write_cache: bool,
}

impl Unit {
    /// The bytes of a run of blocks, if it lies within the unit (SBC-3 section 4.4: else LOGICAL BLOCK ADDRESS OUT OF
    /// RANGE, also for a run of nothing that starts beyond the end).
    fn range(&self, block: u64, blocks: u64) -> Result<Range, Sense> {
        let end = block.checked_add(blocks).filter(|end| *end <= self.blocks).ok_or(Sense::OUT_OF_RANGE)?;
        let size = u64::from(self.block_size);
        let offset = block.checked_mul(size).ok_or(Sense::OUT_OF_RANGE)?;
        let end = end.checked_mul(size).ok_or(Sense::OUT_OF_RANGE)?;
        Ok(Range { offset, length: end - offset })
    }

    fn writable(&self) -> Result<(), Sense> {
        if self.read_only { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
    }
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What a command wants, once decoded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// GOOD, nothing else.
    Nothing,
    /// These bytes, cut to the allocation length.
    Reply(Vec<u8>),
    /// The unit's own sense, cut to an allocation length.
    RequestSense {
        /// In bytes.
        allocation: usize,
        /// Descriptor format is wanted.
        descriptor: bool,
    },
    /// Blocks.
    Read(Range),
    /// Write the initiator's data; on stable storage first if `durable`.
    Write {
        /// Where.
        range: Range,
        /// FUA.
        durable: bool,
    },
    /// Compare the initiator's data.
    Compare(Range),
    /// Read and throw away.
    Check(Range),
    /// Everything to stable storage.
    Flush,
    /// Repeat one block from the initiator.
    WriteSame {
        /// Where.
        range: Range,
        /// The block's size.
        block: u32,
        /// Zeros may be given back.
        unmap: bool,
    },
    /// Zeros, without data from the initiator.
    Zero {
        /// Where.
        range: Range,
        /// May be given back.
        unmap: bool,
    },
    /// Give back the blocks a parameter list of this length names.
    Unmap(u32),
}

/// Work for the disk. Offsets and lengths are within the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Answer with [`Outcome::Data`].
    Read(Range),
    /// Write; flush before answering if `durable`.
    Write {
        /// First byte.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// Flush.
        durable: bool,
    },
    /// Answer [`Outcome::Differs`] if the disk holds something else.
    Compare {
        /// First byte.
        offset: u64,
        /// What it should hold.
        data: Vec<u8>,
    },
    /// Read and throw away.
    Check(Range),
    /// Everything to stable storage.
    Flush,
    /// Write one block over and over. `range.length` is a multiple of its length.
    Repeat {
        /// Where.
        range: Range,
        /// One block.
        block: Vec<u8>,
    },
    /// Make it read as zeros. Space may be given back if `unmap`.
    Zero {
        /// Where.
        range: Range,
        /// Give space back.
        unmap: bool,
    },
    /// Give space back; all of it reads as zeros afterwards.
    Discard(Vec<Range>),
}

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// What was read.
    Data(Vec<u8>),
    /// The comparison failed.
    Differs,
    /// It failed.
    Failed(Fault),
}

/// Why work failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store has no space left. Nothing that was answered GOOD is lost.
    NoSpace,
    /// Reading failed.
    Read,
    /// Writing failed.
    Write,
    /// The store is read-only.
    ReadOnly,
}

impl Fault {
    /// The sense that tells the initiator.
    #[must_use]
    pub const fn sense(self) -> Sense {
        match self {
            Self::NoSpace => Sense::SPACE_ALLOCATION_FAILED,
            Self::Read => Sense::UNRECOVERED_READ,
            Self::Write => Sense::WRITE_ERROR,
            Self::ReadOnly => Sense::WRITE_PROTECTED,
        }
    }
}

impl Action {
    /// Bytes wanted from the initiator.
    #[must_use]
    pub fn data_out(&self) -> u32 {
        match self {
            Self::Write { range, .. } | Self::Compare(range) => {
                u32::try_from(range.length).unwrap_or(u32::MAX)
            }
            Self::WriteSame { block, .. } => *block,
            Self::Unmap(length) => *length,
            _ => 0,
        }
    }

    /// The work, with the data that arrived. `Ok(None)`: there is nothing to do.
    ///
    /// # Errors
    /// The sense to answer with.
    pub(crate) fn into_work(self, unit: &Unit, data: Vec<u8>) -> Result<Option<Work>, Sense> {
        Ok(Some(match self {
            Self::Nothing | Self::Reply(_) | Self::RequestSense { .. } => return Ok(None),
            Self::Read(range) => Work::Read(range),
            Self::Check(range) => Work::Check(range),
            Self::Flush => Work::Flush,
            Self::Write { .. } | Self::Compare(_) if data.is_empty() => return Ok(None),
            Self::Write { range, durable } => {
                whole_blocks(unit, &data)?;
                Work::Write { offset: range.offset, data, durable }
            }
            Self::Compare(range) => {
                whole_blocks(unit, &data)?;
                Work::Compare { offset: range.offset, data }
            }
            Self::WriteSame { range, block, unmap } => {
                if data.len() != wire::index(block) {
                    return Err(Sense::INVALID_FIELD_IN_INFORMATION_UNIT);
                }
                if data.iter().all(|byte| *byte == 0) {
                    Work::Zero { range, unmap }
                } else {
                    Work::Repeat { range, block: data }
                }
            }
            Self::Zero { range, unmap } => Work::Zero { range, unmap },
            Self::Unmap(_) => match unmap::ranges(unit, &data)? {
                ranges if ranges.is_empty() => return Ok(None),
                ranges => Work::Discard(ranges),
            },
        }))
    }
}

/// When the initiator promised less than the command wants, what it promised is taken if it is whole blocks.
fn whole_blocks(unit: &Unit, data: &[u8]) -> Result<(), Sense> {
    if data.len().is_multiple_of(wire::index(unit.block_size)) {
        Ok(())
    } else {
        Err(Sense::INVALID_FIELD_IN_INFORMATION_UNIT)
    }
}

/// Whether a pending unit attention is reported instead of executing the command (SAM-5 section 5.14).
pub fn reports_unit_attention(operation: u8) -> bool {
    !matches!(operation, 0x03 | 0x12 | 0xa0)
}

/// Decodes a command. Without a unit (no such LUN) only INQUIRY, REPORT LUNS and REQUEST SENSE are answered.
pub fn decode(config: &TargetConfig, number: Option<u16>, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let unit = number.and_then(|number| config.unit(number));
    let operation = wire::u8_at(cdb, 0);
    match operation {
        0x12 => return inquiry::decode(config, unit, cdb),
        0xa0 => return report_luns::decode(config, cdb),
        0x03 => return Ok(request_sense(cdb)),
        _ => {}
    }
    let Some(unit) = unit else { return Err(Sense::LUN_NOT_SUPPORTED) };
    match operation {
        // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL: the medium is always there and spinning.
        0x00 | 0x1b | 0x1e => Ok(Action::Nothing),
        0x1a | 0x5a => mode_sense::decode(unit, cdb),
        0x25 => capacity::decode_10(unit, cdb),
        0x9e if service_action(cdb) == 0x10 => Ok(capacity::decode_16(unit, cdb)),
        0x9e if service_action(cdb) == 0x12 => lba_status::decode(unit, cdb),
        0xa3 if service_action(cdb) == 0x0c => supported_opcodes::decode(cdb),
        0x08 | 0x28 | 0xa8 | 0x88 => read_write::decode_read(unit, cdb),
        0x0a | 0x2a | 0xaa | 0x8a => read_write::decode_write(unit, cdb),
        0x2f | 0xaf | 0x8f => verify::decode(unit, cdb),
        0x35 | 0x91 => read_write::decode_flush(unit, cdb),
        0x41 | 0x93 => write_same::decode(unit, cdb),
        0x42 => unmap::decode(unit, cdb),
        _ => Err(Sense::INVALID_OPERATION_CODE),
    }
}

fn service_action(cdb: &[u8; 16]) -> u8 {
    wire::u8_at(cdb, 1) & 0x1f
}

fn request_sense(cdb: &[u8; 16]) -> Action {
    Action::RequestSense {
        allocation: usize::from(wire::u8_at(cdb, 4)),
        descriptor: wire::u8_at(cdb, 1) & 1 != 0,
    }
}

/// A reply cut to what the initiator has room for.
fn reply(mut data: Vec<u8>, allocation: u32) -> Action {
    data.truncate(wire::index(allocation));
    Action::Reply(data)
}

//! SCSI for a logical unit with blocks (SPC-4, SBC-3): a command descriptor block becomes an [`Action`]; what it
//! needs from the disk becomes [`Work`]; the [`Outcome`] becomes status and sense. One file per concern.
//!
//! Deliberately absent: protection information, third-party copy (an EXTENDED COPY that names other units
//! is how CVE-2020-28374 read everybody's disks). Each is answered with INVALID COMMAND OPERATION CODE.
//!
//! Invariant: the range of every [`Work`] lies within the unit, computed without overflow.

mod atomic;
mod capacity;
mod identity;
mod inquiry;
mod lba_status;
mod mode;
mod mode_select;
mod mode_sense;
mod prefetch;
mod read_write;
mod report_luns;
mod reservation;
mod sense;
mod state;
mod supported_opcodes;
mod unmap;
mod verify;
mod vpd;
mod write_same;

pub(crate) use lba_status::answer as lba_status;
pub(crate) use mode::Mode;
pub use mode_select::Header as ModeHeader;
pub(crate) use mode_select::apply as mode_select;
pub use reservation::ServiceAction;
pub(crate) use reservation::{Identity, Refused, Request, Reservations, read as persistent_in};
pub use sense::{Sense, SenseKey};
pub(crate) use state::Member;
pub use state::TargetState;

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
    /// Write, then look at what is there.
    WriteVerify(Range),
    /// Compare the first half of the initiator's data, and write the second.
    CompareAndWrite {
        /// Where.
        range: Range,
        /// FUA.
        durable: bool,
    },
    /// Write the initiator's data OR what is there.
    Or {
        /// Where.
        range: Range,
        /// FUA.
        durable: bool,
    },
    /// RESERVE (6).
    Reserve,
    /// RELEASE (6).
    Release,
    /// PERSISTENT RESERVE IN.
    PersistentIn {
        /// Which.
        service_action: u8,
        /// In bytes.
        allocation: u32,
    },
    /// PERSISTENT RESERVE OUT.
    PersistentOut(ServiceAction),
    /// MODE SELECT, with a parameter list.
    ModeSelect {
        /// Which header the list has.
        header: ModeHeader,
        /// In bytes.
        length: u32,
    },
    /// GET LBA STATUS.
    LbaStatus {
        /// First byte.
        offset: u64,
        /// In bytes.
        allocation: u32,
    },
    /// Compare the initiator's data.
    Compare(Range),
    /// Read and throw away.
    Check(Range),
    /// Read ahead.
    Prefetch(Range),
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
    /// Write and flush, then read it back: [`Outcome::Differs`] if it is something else.
    WriteVerify {
        /// First byte.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// If the disk holds the first half of the data, write the second half; else [`Outcome::Differs`]. Nothing else may
    /// happen to the range in between.
    CompareAndWrite {
        /// First byte.
        offset: u64,
        /// What it should hold, then what it should hold afterwards.
        data: Vec<u8>,
        /// Flush.
        durable: bool,
    },
    /// Write the data OR what the disk holds. Nothing else may happen to the range in between.
    Or {
        /// First byte.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// Flush.
        durable: bool,
    },
    /// How the store keeps the bytes from here on: answer [`Outcome::Extent`].
    Extent {
        /// First byte.
        offset: u64,
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
    /// It will be read soon. Nothing need be done.
    Prefetch(Range),
    /// Everything that is done to stable storage.
    Flush,
    /// Everything that has come to stable storage: what is under way is waited for.
    FlushAll,
    /// Write one block over and over. `range.length` is a multiple of its length.
    Repeat {
        /// Where.
        range: Range,
        /// One block.
        block: Vec<u8>,
        /// Flush.
        durable: bool,
    },
    /// Make it read as zeros. Space may be given back if `unmap`.
    Zero {
        /// Where.
        range: Range,
        /// Give space back.
        unmap: bool,
        /// Flush.
        durable: bool,
    },
    /// Give space back; all of it reads as zeros afterwards.
    Discard {
        /// Where.
        ranges: Vec<Range>,
        /// Flush.
        durable: bool,
    },
}

impl Work {
    /// Whether it puts data on the disk.
    #[must_use]
    pub const fn writes(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::WriteVerify { .. }
                | Self::CompareAndWrite { .. }
                | Self::Or { .. }
                | Self::Repeat { .. }
                | Self::Zero { .. }
        )
    }

    /// For what changes the disk: whether it is on stable storage before it is answered, where that can be chosen.
    pub(crate) const fn durable_mut(&mut self) -> Option<&mut bool> {
        match self {
            Self::Write { durable, .. }
            | Self::CompareAndWrite { durable, .. }
            | Self::Or { durable, .. }
            | Self::Repeat { durable, .. }
            | Self::Zero { durable, .. }
            | Self::Discard { durable, .. } => Some(durable),
            Self::Read(_)
            | Self::WriteVerify { .. }
            | Self::Extent { .. }
            | Self::Compare { .. }
            | Self::Check(_)
            | Self::Prefetch(_)
            | Self::Flush
            | Self::FlushAll => None,
        }
    }
}

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// What was read.
    Data(Vec<u8>),
    /// What was to be read can be sent from the store itself, without waiting. Only where
    /// [`crate::Connection::takes_stored`].
    Stored(Range),
    /// The comparison failed at this byte of the data.
    Differs {
        /// From the start of what was compared.
        at: u32,
    },
    /// Bytes from an offset on are kept, or are a hole.
    Extent {
        /// The first byte, as asked.
        offset: u64,
        /// How many, at least 1.
        length: u64,
        /// They have space.
        allocated: bool,
    },
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
            Self::Write { range, .. }
            | Self::Or { range, .. }
            | Self::Compare(range)
            | Self::WriteVerify(range) => u32::try_from(range.length).unwrap_or(u32::MAX),
            Self::CompareAndWrite { range, .. } => u32::try_from(range.length * 2).unwrap_or(u32::MAX),
            Self::PersistentOut(_) => reservation::LIST,
            Self::ModeSelect { length, .. } => *length,
            Self::WriteSame { block, .. } => *block,
            Self::Unmap(length) => *length,
            _ => 0,
        }
    }

    /// Whether other lengths than its own make no sense of it: one block, or two halves (SBC-3 sections 5.36, 5.2).
    pub(crate) const fn needs_all_its_data(&self) -> bool {
        matches!(
            self,
            Self::WriteSame { .. }
                | Self::CompareAndWrite { .. }
                | Self::PersistentOut(_)
                | Self::ModeSelect { .. }
        )
    }

    /// The work, with the data that arrived. `Ok(None)`: there is nothing to do.
    ///
    /// # Errors
    /// The sense to answer with.
    pub(crate) fn into_work(self, unit: &Unit, data: Vec<u8>) -> Result<Option<Work>, Sense> {
        Ok(Some(match self {
            // What is answered without the disk.
            Self::Nothing
            | Self::Reply(_)
            | Self::RequestSense { .. }
            | Self::Reserve
            | Self::Release
            | Self::PersistentIn { .. }
            | Self::PersistentOut(_)
            | Self::ModeSelect { .. } => return Ok(None),
            Self::LbaStatus { offset, .. } => Work::Extent { offset },
            Self::Read(range) => Work::Read(range),
            Self::Check(range) => Work::Check(range),
            Self::Prefetch(range) => Work::Prefetch(range),
            Self::Flush => Work::Flush,
            Self::CompareAndWrite { range: Range { length: 0, .. }, .. } => return Ok(None),
            Self::Write { .. } | Self::Compare(_) | Self::WriteVerify(_) | Self::Or { .. }
                if data.is_empty() =>
            {
                return Ok(None);
            }
            Self::WriteVerify(range) => {
                whole_blocks(unit, &data)?;
                Work::WriteVerify { offset: range.offset, data }
            }
            Self::Or { range, durable } => {
                whole_blocks(unit, &data)?;
                Work::Or { offset: range.offset, data, durable }
            }
            Self::CompareAndWrite { range, durable } => {
                if data.len() as u64 != range.length * 2 {
                    return Err(Sense::INVALID_FIELD_IN_INFORMATION_UNIT);
                }
                Work::CompareAndWrite { offset: range.offset, data, durable }
            }
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
                    Work::Zero { range, unmap, durable: false }
                } else {
                    Work::Repeat { range, block: data, durable: false }
                }
            }
            Self::Zero { range, unmap } => Work::Zero { range, unmap, durable: false },
            Self::Unmap(_) => match unmap::ranges(unit, &data)? {
                ranges if ranges.is_empty() => return Ok(None),
                ranges => Work::Discard { ranges, durable: false },
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
pub fn decode(
    config: &TargetConfig,
    number: Option<u16>,
    mode: Mode,
    cdb: &[u8; 16],
) -> Result<Action, Sense> {
    let unit = number.and_then(|number| config.unit(number));
    let operation = wire::u8_at(cdb, 0);
    match operation {
        0x12 => return inquiry::decode(config, unit, cdb),
        0xa0 => return report_luns::decode(config, cdb),
        0x03 => return Ok(request_sense(cdb)),
        _ => {}
    }
    let Some(unit) = unit else { return Err(Sense::LUN_NOT_SUPPORTED) };
    if mode.write_protected && writes_medium(operation) {
        return Err(Sense::SOFTWARE_WRITE_PROTECTED);
    }
    match operation {
        // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL: the medium is always there and spinning.
        0x00 | 0x1b | 0x1e => Ok(Action::Nothing),
        0x1a | 0x5a => mode_sense::decode(unit, mode, cdb),
        0x15 | 0x55 => mode_select::decode(cdb),
        0x25 => capacity::decode_10(unit, cdb),
        0x9e if service_action(cdb) == 0x10 => Ok(capacity::decode_16(unit, cdb)),
        0x9e if service_action(cdb) == 0x12 => lba_status::decode(unit, cdb),
        0xa3 if service_action(cdb) == 0x0c => supported_opcodes::decode(cdb),
        0x08 | 0x28 | 0xa8 | 0x88 => read_write::decode_read(unit, cdb),
        0x0a | 0x2a | 0xaa | 0x8a => read_write::decode_write(unit, cdb),
        0x2f | 0xaf | 0x8f => verify::decode(unit, cdb),
        0x2e | 0xae | 0x8e => verify::decode_write(unit, cdb),
        0x34 | 0x90 => prefetch::decode(unit, cdb),
        0x89 => atomic::decode_compare_and_write(unit, cdb),
        0x8b => atomic::decode_or_write(unit, cdb),
        0x16 if wire::u8_at(cdb, 1) & 0x01 == 0 => Ok(Action::Reserve),
        0x17 if wire::u8_at(cdb, 1) & 0x01 == 0 => Ok(Action::Release),
        // Reservations of a part of a unit (SPC-2 section 7.21.3).
        0x16 | 0x17 => Err(Sense::invalid_field(1)),
        0x5e if service_action(cdb) <= 3 => Ok(Action::PersistentIn {
            service_action: service_action(cdb),
            allocation: u32::from(wire::u16_at(cdb, 7)),
        }),
        0x5e => Err(Sense::invalid_field(1)),
        0x5f => match wire::u32_at(cdb, 5) {
            reservation::LIST => ServiceAction::read(cdb).map(Action::PersistentOut),
            _ => Err(Sense::PARAMETER_LIST_LENGTH),
        },
        0x35 | 0x91 => read_write::decode_flush(unit, cdb),
        0x41 | 0x93 => write_same::decode(unit, cdb),
        0x42 => unmap::decode(unit, cdb),
        _ => Err(Sense::INVALID_OPERATION_CODE),
    }
}

/// WRITE, WRITE AND VERIFY, WRITE SAME, UNMAP, COMPARE AND WRITE, ORWRITE.
const fn writes_medium(operation: u8) -> bool {
    matches!(operation, 0x0a | 0x2a | 0x8a | 0xaa | 0x2e | 0x8e | 0xae | 0x41 | 0x93 | 0x42 | 0x89 | 0x8b)
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

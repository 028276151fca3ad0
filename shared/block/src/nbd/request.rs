//! What the caller asks, and what it gets.

use crate::{BlockError, Operation};

/// What an export is asked. Offsets and lengths are in bytes, and multiples of [`super::Nbd::minimum_block`].
#[derive(Debug)]
pub enum Request {
    /// Fills `buffer`, whose length is the length.
    Read {
        /// First byte.
        offset: u64,
        /// Given back in [`Reply::Data`].
        buffer: Vec<u8>,
    },
    /// Writes `data`.
    Write {
        /// First byte.
        offset: u64,
        /// Given back in [`Reply::Done`].
        data: Vec<u8>,
        /// Done only when it is on stable storage.
        durable: bool,
    },
    /// Done when every write that was completed before it is on stable storage.
    Flush,
    /// Gives space back where the server can. The range reads as zeros afterwards.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Whether space may be given back.
        may_unmap: bool,
    },
    /// Whether the first bytes of a range are allocated, and how many are alike.
    Extent {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl Request {
    /// First byte.
    pub(super) const fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. }
            | Self::Write { offset, .. }
            | Self::Discard { offset, .. }
            | Self::WriteZeroes { offset, .. }
            | Self::Extent { offset, .. } => *offset,
            Self::Flush => 0,
        }
    }

    /// Bytes.
    pub(super) const fn length(&self) -> u64 {
        match self {
            Self::Read { buffer: bytes, .. } | Self::Write { data: bytes, .. } => bytes.len() as u64,
            Self::Discard { length, .. } | Self::WriteZeroes { length, .. } | Self::Extent { length, .. } => {
                *length
            }
            Self::Flush => 0,
        }
    }

    /// As errors name it. Asking for an extent is a kind of reading.
    pub(super) const fn operation(&self) -> Operation {
        match self {
            Self::Read { .. } | Self::Extent { .. } => Operation::Read,
            Self::Write { .. } => Operation::Write,
            Self::Flush => Operation::Flush,
            Self::Discard { .. } => Operation::Discard,
            Self::WriteZeroes { .. } => Operation::WriteZeroes,
        }
    }

    pub(super) const fn changes(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Discard { .. } | Self::WriteZeroes { .. })
    }
}

/// What was asked is done.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// With the data of a write.
    Done(Option<Vec<u8>>),
    /// The buffer of a read, filled.
    Data(Vec<u8>),
    /// The first bytes of the range that was asked about.
    Extent {
        /// Bytes that are alike, from the beginning of the range; 0 only when none were asked about.
        length: u64,
        /// `false` is a hole that reads as zeros.
        allocated: bool,
    },
}

/// One request is over.
#[derive(Debug)]
pub struct Completed {
    /// Which: as it was submitted.
    pub token: u64,
    /// With what. The buffer of what failed is not given back.
    pub result: Result<Reply, BlockError>,
    /// How often the connection had broken by then with completed writes that were not flushed. Who makes one write of
    /// several requests compares: those that are over are not sent again.
    pub losses: u64,
}

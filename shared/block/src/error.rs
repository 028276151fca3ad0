//! What can go wrong.

use std::fmt;
use std::io;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    Extent,
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write zeroes",
            Self::Extent => "ask for the extent",
        })
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The range is not within the device.
    #[error("{operation} of {length} bytes at {offset} is outside the device")]
    OutOfRange {
        /// What was being done.
        operation: Operation,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The store has no space left.
    #[error("{operation} at {offset}: no space left")]
    NoSpace {
        /// What was being done.
        operation: Operation,
        /// First byte.
        offset: u64,
    },
    /// The device was opened read-only.
    #[error("{operation} on a read-only device")]
    ReadOnly {
        /// What was being done.
        operation: Operation,
    },
    /// The store failed.
    #[error("{operation} at {offset}")]
    Io {
        /// What was being done.
        operation: Operation,
        /// First byte.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BlockError {
    pub(crate) fn from_io(operation: Operation, offset: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { operation, offset },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { operation },
            _ => Self::Io { operation, offset, source },
        }
    }
}

/// Checks that a range lies within `size`.
pub fn check(operation: Operation, size: u64, offset: u64, length: u64) -> Result<(), BlockError> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(BlockError::OutOfRange { operation, offset, length }),
    }
}

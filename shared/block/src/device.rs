//! The trait.

use std::os::fd::BorrowedFd;

use crate::BlockError;

/// A run of bytes that are all kept, or all a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least 1.
    pub length: u64,
    /// They have space of their own. What has none reads as zeros.
    pub allocated: bool,
}

/// A device of fixed size, in bytes. Offsets need no alignment.
pub trait BlockDevice: Send + Sync {
    /// Its size, in bytes.
    fn size(&self) -> u64;

    /// Whether a completed write may be lost at a power cut until [`BlockDevice::flush`].
    fn has_volatile_cache(&self) -> bool;

    /// Whether a write goes to memory first, and seldom has to be waited for even if that cannot be known beforehand.
    fn writes_to_memory(&self) -> bool {
        false
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the range is outside the device or the store fails.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// When the range is outside the device, the store is full or read-only, or it fails.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError>;

    /// As [`BlockDevice::read`], if that can be done without waiting for the store. Nothing when it would wait, and
    /// when that cannot be known; what is in `buffer` then means nothing.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<(), BlockError>>;

    /// As [`BlockDevice::write`], if that can be done without waiting for the store. Nothing when it would wait; a part
    /// may have been written then, and the whole must be written again.
    fn write_now(&self, offset: u64, data: &[u8]) -> Option<Result<(), BlockError>>;

    /// The file that holds this range at the same offset, if its bytes can be taken from there now and later, and never
    /// have to be waited for.
    fn resident(&self, offset: u64, length: u64) -> Option<BorrowedFd<'_>> {
        let _ = (offset, length);
        None
    }

    /// Returns when everything written before is on stable storage.
    ///
    /// # Errors
    /// When that cannot be said.
    fn flush(&self) -> Result<(), BlockError>;

    /// Lets go of what is kept of the range in memory, so that it is read from the store next. What is not on stable
    /// storage stays: call [`BlockDevice::flush`] before.
    ///
    /// # Errors
    /// When the range is outside the device, or the system does not let go.
    fn uncache(&self, offset: u64, length: u64) -> Result<(), BlockError>;

    /// Begins to read the range into memory, where it is going to be read from, and waits for nothing. That this does
    /// not succeed shows when it is read.
    fn prefetch(&self, offset: u64, length: u64);

    /// Gives space back. The range reads as zeros afterwards.
    ///
    /// # Errors
    /// As for [`BlockDevice::write`].
    fn discard(&self, offset: u64, length: u64) -> Result<(), BlockError>;

    /// Makes the range read as zeros, and keeps the space if that costs nothing.
    ///
    /// # Errors
    /// As for [`BlockDevice::write`].
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), BlockError>;

    /// How the bytes from `offset` on are kept, as far as that is the same for all of them.
    ///
    /// # Errors
    /// When the offset is outside the device, or the store does not say.
    fn extent(&self, offset: u64) -> Result<Extent, BlockError>;
}

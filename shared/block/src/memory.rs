//! A device in memory. Pieces that were never written, or were discarded, take no memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::check;
use crate::{BlockDevice, BlockError, Extent, Operation};

/// Memory is taken in pieces of this many bytes.
const PIECE: u64 = 64 * 1024;

type Pieces = Vec<Option<Box<[u8]>>>;

/// A device in memory. It is lost with the process, so nothing is ever in doubt: its cache is not volatile.
#[derive(Debug)]
pub struct Memory {
    size: u64,
    pieces: Mutex<Pieces>,
}

impl Memory {
    /// A device of zeros. Costs 16 bytes for each 64 KiB until it is written.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let pieces = usize::try_from(size.div_ceil(PIECE)).unwrap_or(usize::MAX);
        Self { size, pieces: Mutex::new(vec![None; pieces]) }
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zero(&self, operation: Operation, offset: u64, length: u64) -> Result<(), BlockError> {
        check(operation, self.size, offset, length)?;
        let mut pieces = self.pieces();
        for part in parts(offset, length) {
            if let Some(slot) = pieces.get_mut(part.piece) {
                if part.length == PIECE_LENGTH {
                    *slot = None;
                } else if let Some(bytes) =
                    slot.as_mut().and_then(|piece| piece.get_mut(part.start..part.start + part.length))
                {
                    bytes.fill(0);
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "64 Ki")]
const PIECE_LENGTH: usize = PIECE as usize;

/// The part of a range that lies in one piece.
struct Part {
    piece: usize,
    start: usize,
    length: usize,
}

fn parts(mut offset: u64, mut length: u64) -> impl Iterator<Item = Part> {
    std::iter::from_fn(move || {
        if length == 0 {
            return None;
        }
        let start = offset % PIECE;
        let part = (PIECE - start).min(length);
        let piece = usize::try_from(offset / PIECE).ok()?;
        offset += part;
        length -= part;
        Some(Part { piece, start: usize::try_from(start).ok()?, length: usize::try_from(part).ok()? })
    })
}

impl BlockDevice for Memory {
    fn size(&self) -> u64 {
        self.size
    }

    fn has_volatile_cache(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, mut buffer: &mut [u8]) -> Result<(), BlockError> {
        check(Operation::Read, self.size, offset, buffer.len() as u64)?;
        let pieces = self.pieces();
        for part in parts(offset, buffer.len() as u64) {
            let Some((into, rest)) = buffer.split_at_mut_checked(part.length) else { break };
            let from = pieces.get(part.piece).and_then(Option::as_ref);
            match from.and_then(|piece| piece.get(part.start..part.start + part.length)) {
                Some(bytes) => into.copy_from_slice(bytes),
                None => into.fill(0),
            }
            buffer = rest;
        }
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> Result<(), BlockError> {
        check(Operation::Write, self.size, offset, data.len() as u64)?;
        let mut pieces = self.pieces();
        for part in parts(offset, data.len() as u64) {
            let Some((from, rest)) = data.split_at_checked(part.length) else { break };
            if let Some(slot) = pieces.get_mut(part.piece) {
                let piece = slot.get_or_insert_with(|| vec![0; PIECE_LENGTH].into_boxed_slice());
                if let Some(bytes) = piece.get_mut(part.start..part.start + part.length) {
                    bytes.copy_from_slice(from);
                }
            }
            data = rest;
        }
        Ok(())
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<(), BlockError>> {
        Some(self.read(offset, buffer))
    }

    fn write_now(&self, offset: u64, data: &[u8]) -> Option<Result<(), BlockError>> {
        Some(self.write(offset, data))
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn uncache(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        check(Operation::Read, self.size, offset, length)
    }

    fn prefetch(&self, _: u64, _: u64) {}

    fn discard(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.zero(Operation::Discard, offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.zero(Operation::WriteZeroes, offset, length)
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        check(Operation::Extent, self.size, offset, 1)?;
        let pieces = self.pieces();
        let first = usize::try_from(offset / PIECE).unwrap_or(usize::MAX);
        let allocated = pieces.get(first).is_some_and(Option::is_some);
        let same = pieces.iter().skip(first).take_while(|piece| piece.is_some() == allocated).count() as u64;
        let end = ((offset / PIECE + same) * PIECE).min(self.size);
        Ok(Extent { length: end - offset, allocated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_has_space_and_the_rest_is_a_hole() {
        let device = Memory::new(4 * PIECE + 10);
        device.write(PIECE + 5, &[1; 10]).unwrap();
        assert_eq!(device.extent(100).unwrap(), Extent { length: PIECE - 100, allocated: false });
        assert_eq!(device.extent(PIECE).unwrap(), Extent { length: PIECE, allocated: true });
        assert_eq!(device.extent(2 * PIECE).unwrap(), Extent { length: 2 * PIECE + 10, allocated: false });
        assert!(device.extent(4 * PIECE + 10).is_err());
    }
}

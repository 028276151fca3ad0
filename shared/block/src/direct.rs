//! Reads and writes past the page cache (`O_DIRECT`, open(2)).
//!
//! The kernel takes only whole, aligned blocks from aligned memory. So data go through a buffer of our own, and what
//! does not begin and end with a block is read, changed and written back.
//!
//! Deliberately absent: files whose size is not made of blocks (their last block cannot be written without making them
//! longer). Invariant: no byte that is outside a write's range changes, whatever else is written at the same time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Alignment of offsets, lengths and memory, in bytes: the page size, which is what the strictest devices and
/// filesystems want, and a multiple of what the others want.
pub const BLOCK: u64 = 4096;
/// Bytes that go through the buffer at once: a device needs no more to be busy.
const PIECE: u64 = 1 << 20;

/// Keeps writes of parts of a block apart from whatever else changes the file.
#[derive(Debug, Default)]
pub struct Direct {
    edges: RwLock<()>,
}

/// Held while the file is changed.
#[derive(Debug)]
#[expect(dead_code, reason = "they are held, not used")]
pub enum Guard<'a> {
    /// Beside other changes of whole blocks.
    Whole(RwLockReadGuard<'a, ()>),
    /// Alone.
    Part(RwLockWriteGuard<'a, ()>),
}

const fn is_whole(offset: u64, length: u64) -> bool {
    offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK)
}

impl Direct {
    /// To be held while a range is changed in whatever way.
    pub fn guard(&self, offset: u64, length: u64) -> Guard<'_> {
        if is_whole(offset, length) {
            Guard::Whole(self.edges.read().unwrap_or_else(PoisonError::into_inner))
        } else {
            Guard::Part(self.edges.write().unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// Fills `buffer` from `offset`.
    pub fn read(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut memory = Aligned::new(buffer.len());
        let mut rest = buffer;
        for piece in pieces(offset, rest.len()) {
            let bytes = memory.get(piece.blocks)?;
            file.read_exact_at(bytes, piece.first)?;
            let (now, later) = rest.split_at_mut_checked(piece.length).ok_or(io::ErrorKind::InvalidInput)?;
            now.copy_from_slice(
                bytes.get(piece.skip..piece.skip + piece.length).ok_or(io::ErrorKind::InvalidInput)?,
            );
            rest = later;
        }
        Ok(())
    }

    /// Writes `data` at `offset`.
    pub fn write(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let _guard = self.guard(offset, data.len() as u64);
        let mut memory = Aligned::new(data.len());
        let mut rest = data;
        for piece in pieces(offset, rest.len()) {
            let bytes = memory.get(piece.blocks)?;
            if piece.skip != 0 || piece.length != piece.blocks {
                file.read_exact_at(bytes, piece.first)?;
            }
            let (now, later) = rest.split_at_checked(piece.length).ok_or(io::ErrorKind::InvalidInput)?;
            bytes
                .get_mut(piece.skip..piece.skip + piece.length)
                .ok_or(io::ErrorKind::InvalidInput)?
                .copy_from_slice(now);
            file.write_all_at(bytes, piece.first)?;
            rest = later;
        }
        Ok(())
    }
}

/// The part of a range that goes through the buffer at once.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// The first byte of its first block.
    first: u64,
    /// Bytes of its blocks.
    blocks: usize,
    /// Bytes of its first block that are before it.
    skip: usize,
    /// Bytes of it.
    length: usize,
}

fn pieces(mut offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut left = length as u64;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let skip = offset % BLOCK;
        let length = left.min(PIECE - skip);
        let blocks = (skip + length).next_multiple_of(BLOCK);
        let first = offset - skip;
        offset += length;
        left -= length;
        // All of these are at most `PIECE`.
        let small = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
        Some(Piece { first, blocks: small(blocks), skip: small(skip), length: small(length) })
    })
}

/// Memory that begins at a multiple of [`BLOCK`], within memory that is longer.
#[derive(Debug)]
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// For ranges of this length, or pieces of them.
    fn new(length: usize) -> Self {
        let block = usize::try_from(BLOCK).unwrap_or(0);
        let most = usize::try_from(PIECE).unwrap_or(0);
        // Two edges, and the way to the first multiple.
        let memory = vec![0; length.saturating_add(2 * block).min(most) + block];
        let start = memory.as_ptr().align_offset(block);
        Self { memory, start }
    }

    fn get(&mut self, length: usize) -> io::Result<&mut [u8]> {
        let found = self.memory.get_mut(self.start..).and_then(|bytes| bytes.get_mut(..length));
        found.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_made_of_blocks_and_cover_the_range() {
        for (offset, length) in
            [(0, 1), (1, 4095), (1, 4096), (4095, 2), (4096, 8192), (5000, 3 << 20), (0, 0)]
        {
            let mut next = offset;
            for piece in pieces(offset, length) {
                assert!(is_whole(piece.first, piece.blocks as u64) && piece.blocks as u64 <= PIECE);
                assert_eq!(piece.first + piece.skip as u64, next);
                assert!(piece.skip + piece.length <= piece.blocks);
                assert_eq!(Aligned::new(length).get(piece.blocks).unwrap().as_ptr() as usize % 4096, 0);
                next += piece.length as u64;
            }
            assert_eq!(next, offset + length as u64);
        }
    }
}

//! A regular file or a block special file.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{
    Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom as Seek, fadvise, fallocate, flock, fstatfs,
    seek,
};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

use crate::direct::{BLOCK, Direct};
use crate::error::check;
use crate::{BlockDevice, BlockError, Extent, Operation};

/// What statfs(2) says of tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Zeros are written in pieces of this size where the filesystem cannot do it itself.
const ZEROS: usize = 256 * 1024;

/// The page cache keeps runs of pages together, up to this many bytes, and lets go of whole ones only.
const RUN: u64 = 2 * 1024 * 1024;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The only writer: another process that opens it the same way is refused.
    ReadWrite,
    /// Beside other readers.
    ReadOnly,
}

/// Where the bytes of a file are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// In the kernel's page cache.
    PageCache,
    /// On the device only (`O_DIRECT`): memory is left to others, and nothing is written late.
    Direct,
}

/// The filesystem, or the file, cannot be read and written past the page cache.
#[derive(Debug, thiserror::Error)]
enum NotDirect {
    #[error("the filesystem does not support direct access (O_DIRECT); use the page cache")]
    Refused(#[source] io::Error),
    #[error("direct access needs a size that is a multiple of {BLOCK} bytes, and this has {0}")]
    Size(u64),
}

/// A file as a block device. Its size is taken once, when it is opened.
#[derive(Debug)]
pub struct File {
    file: std::fs::File,
    size: u64,
    access: Access,
    /// It lies in memory (tmpfs), where nothing waits and `RWF_NOWAIT` is not known.
    in_memory: bool,
    direct: Option<Direct>,
}

impl File {
    /// Opens an existing file and locks it (`flock`): shared to read, exclusive to write.
    ///
    /// # Errors
    /// When it cannot be opened, or is in use by another target.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        Self::open_with(path, access, Caching::PageCache)
    }

    /// As [`File::open`], and says where its bytes are kept.
    ///
    /// # Errors
    /// As there, and when it cannot be accessed directly.
    pub fn open_with(path: &Path, access: Access, caching: Caching) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite);
        if caching == Caching::Direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput if caching == Caching::Direct => {
                io::Error::new(io::ErrorKind::Unsupported, NotDirect::Refused(error))
            }
            _ => error,
        })?;
        let lock = match access {
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        };
        flock(&file, lock)?;
        // Block special files have no length in their metadata.
        let size = file.seek(SeekFrom::End(0))?;
        if caching == Caching::Direct && !size.is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NotDirect::Size(size)));
        }
        let direct = (caching == Caching::Direct).then(Direct::default);
        let in_memory = caching == Caching::PageCache
            && fstatfs(&file).is_ok_and(|about| u64::try_from(about.f_type) == Ok(TMPFS_MAGIC));
        Ok(Self { file, size, access, in_memory, direct })
    }

    /// Tells the kernel about the page cache, if the file is kept there.
    fn advise(&self, offset: u64, length: u64, advice: Advice) -> rustix::io::Result<()> {
        // No length means all the rest to the kernel.
        match NonZeroU64::new(length) {
            Some(length) if self.direct.is_none() && !self.in_memory => {
                fadvise(&self.file, offset, Some(length), advice)
            }
            _ => Ok(()),
        }
    }

    fn writable(&self, operation: Operation, offset: u64, length: u64) -> Result<(), BlockError> {
        check(operation, self.size, offset, length)?;
        if self.access == Access::ReadOnly {
            return Err(BlockError::ReadOnly { operation });
        }
        Ok(())
    }

    fn allocate(
        &self,
        operation: Operation,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Result<(), BlockError> {
        self.writable(operation, offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let guard = self.direct.as_ref().map(|direct| direct.guard(offset, length));
        match fallocate(&self.file, flags, offset, length) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODEV | rustix::io::Errno::INVAL) => {
                drop(guard);
                self.zero(operation, offset, length)
            }
            Err(errno) => Err(BlockError::from_io(operation, offset, errno.into())),
        }
    }

    fn put(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.direct {
            None => self.file.write_all_at(data, offset),
            Some(direct) => direct.write(&self.file, offset, data),
        }
    }

    fn zero(&self, operation: Operation, mut offset: u64, mut length: u64) -> Result<(), BlockError> {
        let zeros = vec![0; usize::try_from(length).unwrap_or(ZEROS).min(ZEROS)];
        while length > 0 {
            let piece = zeros.get(..usize::try_from(length).unwrap_or(ZEROS).min(ZEROS)).unwrap_or(&zeros);
            self.put(offset, piece).map_err(|source| BlockError::from_io(operation, offset, source))?;
            offset += piece.len() as u64;
            length -= piece.len() as u64;
        }
        Ok(())
    }
}

impl BlockDevice for File {
    fn size(&self) -> u64 {
        self.size
    }

    fn has_volatile_cache(&self) -> bool {
        true
    }

    fn writes_to_memory(&self) -> bool {
        self.direct.is_none()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        check(Operation::Read, self.size, offset, buffer.len() as u64)?;
        let read = match self.direct {
            None => self.file.read_exact_at(buffer, offset),
            Some(_) => Direct::read(&self.file, offset, buffer),
        };
        read.map_err(|source| BlockError::from_io(Operation::Read, offset, source))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.writable(Operation::Write, offset, data.len() as u64)?;
        self.put(offset, data).map_err(|source| BlockError::from_io(Operation::Write, offset, source))
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<(), BlockError>> {
        let length = buffer.len();
        if self.in_memory || check(Operation::Read, self.size, offset, length as u64).is_err() {
            return Some(self.read(offset, buffer));
        }
        if self.direct.is_some() {
            // The device is always waited for.
            return None;
        }
        let read = preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        (read == Ok(length)).then_some(Ok(()))
    }

    fn write_now(&self, offset: u64, data: &[u8]) -> Option<Result<(), BlockError>> {
        if self.in_memory {
            return Some(self.write(offset, data));
        }
        if let Err(error) = self.writable(Operation::Write, offset, data.len() as u64) {
            return Some(Err(error));
        }
        if self.direct.is_some() {
            return None;
        }
        let written = pwritev2(&self.file, &[IoSlice::new(data)], offset, ReadWriteFlags::NOWAIT);
        (written == Ok(data.len())).then_some(Ok(()))
    }

    fn resident(&self, offset: u64, length: u64) -> Option<BorrowedFd<'_>> {
        // What the page cache holds for a disk can go at any moment, and to ask for each page costs as much as a copy.
        let here = self.in_memory && check(Operation::Read, self.size, offset, length).is_ok();
        here.then(|| self.file.as_fd())
    }

    fn flush(&self) -> Result<(), BlockError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        self.file.sync_data().map_err(|source| BlockError::from_io(Operation::Flush, 0, source))
    }

    fn uncache(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        check(Operation::Read, self.size, offset, length)?;
        let first = offset - offset % RUN;
        let whole = (offset + length).saturating_sub(first).next_multiple_of(RUN);
        self.advise(first, whole, Advice::DontNeed)
            .map_err(|errno| BlockError::from_io(Operation::Read, offset, errno.into()))
    }

    fn prefetch(&self, offset: u64, length: u64) {
        let _ = self.advise(offset, length, Advice::WillNeed);
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.allocate(Operation::Discard, hole, offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        // Without KEEP_SIZE, which would let whoever took this process over reserve blocks beyond the end: the sandbox
        // allows just this one.
        self.allocate(Operation::WriteZeroes, FallocateFlags::ZERO_RANGE, offset, length)
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        check(Operation::Extent, self.size, offset, 1)?;
        let fault = |errno: rustix::io::Errno| BlockError::from_io(Operation::Extent, offset, errno.into());
        // Both move the file's own position, which nothing else uses.
        let data = match seek(&self.file, Seek::Data(offset)) {
            Ok(data) => data.min(self.size),
            // No data up to the end.
            Err(rustix::io::Errno::NXIO) => self.size,
            // A device that has no holes to tell of.
            Err(rustix::io::Errno::INVAL) => {
                return Ok(Extent { length: self.size - offset, allocated: true });
            }
            Err(errno) => return Err(fault(errno)),
        };
        if data > offset {
            return Ok(Extent { length: data - offset, allocated: false });
        }
        let hole = seek(&self.file, Seek::Hole(offset)).map_err(fault)?.min(self.size);
        Ok(Extent { length: hole.saturating_sub(offset).max(1), allocated: true })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_and_zeros_are_zeros() {
        let path = file(1 << 20);
        let device = File::open(path.path(), Access::ReadWrite).unwrap();
        assert_eq!(device.size(), 1 << 20);
        device.write(0, &vec![7; 1 << 20]).unwrap();
        let before = path.as_file().metadata().unwrap().blocks();
        device.discard(4096 + 512, 512 * 1024).unwrap();
        device.write_zeroes(700_000, 1000).unwrap();
        device.flush().unwrap();
        let mut all = vec![1; 1 << 20];
        device.read(0, &mut all).unwrap();
        for (at, byte) in all.iter().enumerate() {
            let zero = (4608..4608 + 512 * 1024).contains(&at) || (700_000..701_000).contains(&at);
            assert_eq!(*byte, if zero { 0 } else { 7 }, "at {at}");
        }
        assert!(path.as_file().metadata().unwrap().blocks() < before);
    }

    #[test]
    fn holes_are_told_from_data() {
        let path = file(1 << 20);
        let device = File::open(path.path(), Access::ReadWrite).unwrap();
        device.write(256 * 1024, &vec![7; 64 * 1024]).unwrap();
        assert_eq!(device.extent(4096).unwrap(), Extent { length: 252 * 1024, allocated: false });
        assert_eq!(
            device.extent(256 * 1024 + 512).unwrap(),
            Extent { length: 64 * 1024 - 512, allocated: true }
        );
        assert_eq!(device.extent(320 * 1024).unwrap(), Extent { length: 704 * 1024, allocated: false });
        assert!(matches!(device.extent(1 << 20), Err(BlockError::OutOfRange { .. })));
    }

    #[test]
    fn what_is_in_the_page_cache_needs_no_waiting() {
        let path = file(1 << 20);
        let device = File::open(path.path(), Access::ReadWrite).unwrap();
        device.write(4096, &[7; 8192]).unwrap();
        let mut held = [0; 8192];
        assert!(matches!(device.read_now(4096, &mut held), Some(Ok(()))));
        assert_eq!(held, [7; 8192]);
        // Whether a write needs waiting is the file system's to say; what was written now is there.
        if device.write_now(4096, &[9; 8192]).is_some_and(|written| written.is_ok()) {
            device.read(4096, &mut held).unwrap();
            assert_eq!(held, [9; 8192]);
        }
        assert!(matches!(device.read_now(1 << 20, &mut held), Some(Err(BlockError::OutOfRange { .. }))));
        assert!(matches!(device.write_now(1 << 20, &held), Some(Err(BlockError::OutOfRange { .. }))));
    }

    /// Which pages of a range are in the page cache.
    fn cached(device: &File, offset: u64, length: u64) -> Vec<bool> {
        let pages = (offset..offset + length).step_by(4096);
        pages.map(|at| matches!(device.read_now(at, &mut [0; 4096]), Some(Ok(())))).collect()
    }

    #[test]
    fn what_is_let_go_is_read_from_the_store_and_what_is_read_ahead_is_not() {
        let path = file(16 << 20);
        let device = File::open(path.path(), Access::ReadWrite).unwrap();
        if device.in_memory {
            return;
        }
        device.write(0, &vec![7; 16 << 20]).unwrap();
        device.flush().unwrap();
        // A block in the middle of a long run of pages.
        let at = (5 << 20) + 512;
        device.uncache(at, 512).unwrap();
        assert_eq!(cached(&device, 5 << 20, 4096), [false]);
        assert_eq!(cached(&device, 0, 4096), [true], "the rest stays");
        let mut held = [0; 512];
        device.read(at, &mut held).unwrap();
        assert_eq!(held, [7; 512]);
        device.uncache(0, 16 << 20).unwrap();
        // To look may itself begin to read, so each place is looked at once.
        let read_ahead = (2_u64..16).map(|piece| piece << 20).any(|at| {
            device.prefetch(at, 64 * 1024);
            std::thread::sleep(std::time::Duration::from_millis(20));
            !cached(&device, at, 64 * 1024).contains(&false)
        });
        assert!(read_ahead);
        // What is written and not flushed is not lost.
        device.write(0, &[9; 4096]).unwrap();
        device.uncache(0, 4096).unwrap();
        let mut held = [0; 4096];
        device.read(0, &mut held).unwrap();
        assert_eq!(held, [9; 4096]);
        assert!(matches!(device.uncache(16 << 20, 1), Err(BlockError::OutOfRange { .. })));
    }

    #[test]
    fn nothing_outside_is_touched() {
        let path = file(4096);
        let device = File::open(path.path(), Access::ReadWrite).unwrap();
        assert!(matches!(device.write(4000, &[1; 97]), Err(BlockError::OutOfRange { .. })));
        assert!(matches!(device.read(u64::MAX, &mut [0; 2]), Err(BlockError::OutOfRange { .. })));
        assert!(matches!(device.discard(0, 4097), Err(BlockError::OutOfRange { .. })));
        assert_eq!(path.as_file().metadata().unwrap().len(), 4096);
    }

    #[test]
    fn a_second_writer_is_refused_and_a_reader_cannot_write() {
        let path = file(4096);
        let writer = File::open(path.path(), Access::ReadWrite).unwrap();
        assert!(File::open(path.path(), Access::ReadWrite).is_err());
        drop(writer);
        let reader = File::open(path.path(), Access::ReadOnly).unwrap();
        let _other = File::open(path.path(), Access::ReadOnly).unwrap();
        assert!(matches!(reader.write(0, &[1]), Err(BlockError::ReadOnly { .. })));
        assert!(matches!(reader.discard(0, 1), Err(BlockError::ReadOnly { .. })));
        reader.flush().unwrap();
    }

    #[test]
    fn a_full_store_says_so() {
        // /dev/full: every write fails with ENOSPC.
        let device = File {
            file: OpenOptions::new().read(true).write(true).open("/dev/full").unwrap(),
            size: 4096,
            access: Access::ReadWrite,
            in_memory: false,
            direct: None,
        };
        assert!(matches!(device.write(0, &[1]), Err(BlockError::NoSpace { .. })));
    }
}

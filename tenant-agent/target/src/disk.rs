//! Logical units and the work done on them.

use std::ops::AddAssign;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use bmi_block::nbd::{Fault as NbdFault, Nbd, Reply, Request};
use bmi_block::{Access, BlockDevice, BlockError, Extent, File, Flush, Mark, Memory, Operation, Stable};
use bmi_iscsi::{Fault, Outcome, Range, Unit, UnitKind, Work};

use crate::arguments::{Backing, Lun};
use crate::steps::{Next, Steps};

/// Reads of at least this many bytes are sent from a file that lies in memory: shorter ones are cheaper to copy.
const SENT_FROM_STORE: u64 = 16 * 1024;

/// Why a unit could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("LUN {number}: {}", path.display())]
    File {
        number: u16,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "LUN {number} has {size} bytes, which is not a positive multiple of its block size, {block_size}"
    )]
    Size { number: u16, size: u64, block_size: u32 },
    #[error("LUN {number}: the NBD server")]
    Nbd {
        number: u16,
        #[source]
        source: NbdFault,
    },
    #[error("LUN {number}: the NBD server has blocks of {minimum} bytes, which is more than {block_size}")]
    Blocks { number: u16, minimum: u32, block_size: u32 },
}

/// A logical unit and its device.
pub struct Disk {
    pub unit: Unit,
    device: Box<dyn BlockDevice>,
    stable: Stable,
}

/// A logical unit and what is behind it.
pub enum Store {
    /// Asked directly.
    Local(Disk),
    /// Asked over a socket.
    Remote(Unit, Box<Nbd>),
}

impl Store {
    pub const fn unit(&self) -> &Unit {
        match self {
            Self::Local(disk) => &disk.unit,
            Self::Remote(unit, _) => unit,
        }
    }
}

/// Opens a unit with blocks of this many bytes.
pub fn open(lun: &Lun, block_size: u32) -> Result<Store, OpenError> {
    let number = lun.number;
    let access = if lun.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let unit = |size: u64, read_only, write_cache| {
        if size == 0 || !size.is_multiple_of(u64::from(block_size)) {
            return Err(OpenError::Size { number, size, block_size });
        }
        Ok(Unit {
            number,
            kind: if number != 0 && read_only { UnitKind::Config } else { UnitKind::Disk },
            block_size,
            blocks: size / u64::from(block_size),
            read_only,
            write_cache,
        })
    };
    let device: Box<dyn BlockDevice> = match &lun.backing {
        Backing::File(path, caching) => {
            let opened = File::open_with(path, access, *caching);
            Box::new(opened.map_err(|source| OpenError::File { number, path: path.clone(), source })?)
        }
        Backing::Memory(size) => Box::new(Memory::new(size.bytes())),
        Backing::Nbd(uri) => {
            let nbd = Nbd::connect(uri, access).map_err(|source| OpenError::Nbd { number, source })?;
            if nbd.minimum_block() > block_size {
                return Err(OpenError::Blocks { number, minimum: nbd.minimum_block(), block_size });
            }
            let unit = unit(nbd.size(), nbd.read_only(), nbd.has_volatile_cache())?;
            return Ok(Store::Remote(unit, Box::new(nbd)));
        }
    };
    let unit = unit(device.size(), lun.read_only, device.has_volatile_cache())?;
    Ok(Store::Local(Disk { unit, device, stable: Stable::default() }))
}

/// What work moved, for the counters.
#[derive(Debug, Default, Clone, Copy)]
pub struct Moved {
    pub read: u64,
    pub written: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, more: Self) {
        self.read += more.read;
        self.written += more.written;
    }
}

impl Disk {
    /// LUN 0 over a device of a test.
    #[cfg(test)]
    pub fn over(device: Box<dyn BlockDevice>) -> Self {
        let unit = Unit {
            number: 0,
            kind: UnitKind::Disk,
            block_size: 512,
            blocks: device.size() / 512,
            read_only: false,
            write_cache: device.has_volatile_cache(),
        };
        Self { unit, device, stable: Stable::default() }
    }

    /// Opens a unit of a file or in memory, with blocks of this many bytes.
    #[cfg(test)]
    pub fn open_local(lun: &Lun, block_size: u32) -> Result<Self, OpenError> {
        match open(lun, block_size)? {
            Store::Local(disk) => Ok(disk),
            Store::Remote(..) => unreachable!("tests ask for local ones"),
        }
    }

    /// Everything to stable storage.
    pub fn flush(&self) -> Result<(), BlockError> {
        self.stable.flush(Flush::All, self.stable.mark(), || self.device.flush())
    }

    /// Whether work seldom has to be waited for, so that a thread of its own is not worth it.
    pub fn is_light(&self, work: &Work) -> bool {
        matches!(work, Work::Write { durable: false, .. }) && self.device.writes_to_memory()
    }

    /// Whether a read is better sent from the store itself than copied.
    pub fn is_sent_from(&self, range: Range) -> bool {
        range.length >= SENT_FROM_STORE && self.resident(range).is_some()
    }

    /// The file that holds a range, if it never has to be waited for.
    pub fn resident(&self, range: Range) -> Option<BorrowedFd<'_>> {
        self.device.resident(range.offset, range.length)
    }

    /// Does the work if that needs no waiting. What is read goes into `buffer`, which has its length, and is taken.
    pub fn execute_now(&self, work: &Work, buffer: &mut Vec<u8>, moved: &mut Moved) -> Option<Outcome> {
        let result = match work {
            Work::Read(range) => self.device.read_now(range.offset, buffer)?.map(|()| {
                moved.read += range.length;
                Outcome::Data(std::mem::take(buffer))
            }),
            Work::Write { offset, data, durable: false } => self.device.write_now(*offset, data)?.map(|()| {
                moved.written += data.len() as u64;
                Outcome::Done
            }),
            _ => return None,
        };
        Some(self.outcome(result))
    }

    /// Does the work, however long it takes. Gives back a buffer that is not needed any more.
    pub fn execute(&self, work: Work, buffer: Vec<u8>, moved: &mut Moved) -> (Outcome, Vec<u8>) {
        if let Work::Prefetch(range) = work {
            self.device.prefetch(range.offset, range.length);
            return (Outcome::Done, buffer);
        }
        // Before anything is written, so that no failure after that is missed.
        let since = self.stable.mark();
        let flush = if matches!(work, Work::Flush | Work::FlushAll) { Flush::All } else { Flush::Own };
        let (mut steps, mut request) = Steps::begin(work, buffer, self.device.size());
        loop {
            let reply = match self.answer(request, flush, since) {
                Ok(reply) => reply,
                Err(error) => return (failure(self.unit.number, &error), Vec::new()),
            };
            match steps.next(reply) {
                Next::Ask(next) => request = next,
                Next::AskMedium(next) => match self.uncache(&next) {
                    Ok(()) => request = next,
                    Err(error) => return (failure(self.unit.number, &error), Vec::new()),
                },
                Next::End(outcome, spent) => {
                    moved.read += steps.moved.read;
                    moved.written += steps.moved.written;
                    return (outcome, spent);
                }
            }
        }
    }

    fn outcome(&self, result: Result<Outcome, BlockError>) -> Outcome {
        match result {
            Ok(outcome) => outcome,
            Err(error) => failure(self.unit.number, &error),
        }
    }

    /// Lets go of what is to be read, so that the medium is.
    fn uncache(&self, request: &Request) -> Result<(), BlockError> {
        let Request::Read { offset, buffer } = request else { return Ok(()) };
        self.device.uncache(*offset, buffer.len() as u64)
    }

    /// What an asynchronous store would be asked, of this one.
    fn answer(&self, request: Request, flush: Flush, since: Mark) -> Result<Reply, BlockError> {
        let flush = || self.stable.flush(flush, since, || self.device.flush());
        match request {
            Request::Read { offset, mut buffer } => {
                self.device.read(offset, &mut buffer)?;
                return Ok(Reply::Data(buffer));
            }
            Request::Write { offset, data, durable } => {
                self.device.write(offset, &data)?;
                if durable {
                    flush()?;
                }
                return Ok(Reply::Done(Some(data)));
            }
            Request::Extent { offset, length: most } => {
                let Extent { length, allocated } = self.device.extent(offset)?;
                return Ok(Reply::Extent { length: length.min(most), allocated });
            }
            Request::Flush => flush()?,
            Request::Discard { offset, length }
            | Request::WriteZeroes { offset, length, may_unmap: true } => {
                self.device.discard(offset, length)?;
            }
            Request::WriteZeroes { offset, length, may_unmap: false } => {
                self.device.write_zeroes(offset, length)?;
            }
        }
        Ok(Reply::Done(None))
    }
}

/// What the initiator is told of a failure. The log is told why, unless the store is full: that is told once, elsewhere.
pub fn failure(lun: u16, error: &BlockError) -> Outcome {
    if !matches!(error, BlockError::NoSpace { .. }) {
        tracing::error!(lun, "{}", bmi_types::chain(error));
    }
    Outcome::Failed(match error {
        BlockError::NoSpace { .. } => Fault::NoSpace,
        BlockError::ReadOnly { .. } => Fault::ReadOnly,
        BlockError::OutOfRange { operation: Operation::Read | Operation::Extent, .. }
        | BlockError::Io { operation: Operation::Read | Operation::Extent, .. } => Fault::Read,
        BlockError::OutOfRange { .. } | BlockError::Io { .. } => Fault::Write,
    })
}

/// The first byte in which they differ.
pub fn difference(held: &[u8], expected: &[u8]) -> Option<u32> {
    if held == expected {
        return None;
    }
    let at = held.iter().zip(expected).position(|(held, expected)| held != expected);
    Some(at.and_then(|at| u32::try_from(at).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bmi_iscsi::Range;

    use super::*;
    use crate::steps::PIECE;

    /// A store that holds nothing and answers as it is told.
    struct Scripted<F>(F);

    impl<F: Fn(Operation) -> Result<(), BlockError> + Send + Sync> BlockDevice for Scripted<F> {
        fn size(&self) -> u64 {
            1024
        }

        fn has_volatile_cache(&self) -> bool {
            true
        }

        fn read(&self, _: u64, _: &mut [u8]) -> Result<(), BlockError> {
            (self.0)(Operation::Read)
        }

        fn write(&self, _: u64, _: &[u8]) -> Result<(), BlockError> {
            (self.0)(Operation::Write)
        }

        fn read_now(&self, _: u64, _: &mut [u8]) -> Option<Result<(), BlockError>> {
            None
        }

        fn write_now(&self, _: u64, _: &[u8]) -> Option<Result<(), BlockError>> {
            None
        }

        fn flush(&self) -> Result<(), BlockError> {
            (self.0)(Operation::Flush)
        }

        fn uncache(&self, _: u64, _: u64) -> Result<(), BlockError> {
            (self.0)(Operation::Read)
        }

        fn prefetch(&self, _: u64, _: u64) {}

        fn discard(&self, _: u64, _: u64) -> Result<(), BlockError> {
            (self.0)(Operation::Discard)
        }

        fn write_zeroes(&self, _: u64, _: u64) -> Result<(), BlockError> {
            (self.0)(Operation::WriteZeroes)
        }

        fn extent(&self, _: u64) -> Result<Extent, BlockError> {
            (self.0)(Operation::Extent).map(|()| Extent { length: 1, allocated: true })
        }
    }

    #[test]
    fn a_durable_write_that_hears_of_a_failed_flush_does_not_keep_it_from_the_next_flush() {
        // A flush fails once, as a file's does after a write-back that failed.
        let failed = AtomicBool::new(false);
        let disk = Disk::over(Box::new(Scripted(move |operation| {
            if operation != Operation::Flush || failed.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            let source = std::io::ErrorKind::Other.into();
            Err(BlockError::Io { operation, offset: 0, source })
        })));
        let done = |work: Work| disk.execute(work, Vec::new(), &mut Moved::default()).0 == Outcome::Done;
        let write = |durable| Work::Write { offset: 0, data: vec![7; 512], durable };
        let range = Range { offset: 512, length: 512 };
        assert!(done(write(false)));
        assert!(!done(Work::Zero { range, unmap: true, durable: true }), "the first to hear of it");
        assert!(done(write(true)), "it began later, and is there");
        assert!(!done(Work::Flush), "what was cached before may be gone");
        assert!(done(Work::Flush), "that was told");
    }

    fn work() -> Vec<Work> {
        let range = Range { offset: 0, length: 512 };
        vec![
            Work::Write { offset: 0, data: vec![1; 512], durable: false },
            Work::Repeat { range, block: vec![1; 512], durable: false },
            Work::Zero { range, unmap: true, durable: false },
            Work::Zero { range, unmap: false, durable: false },
            Work::Discard { ranges: vec![range], durable: false },
            Work::Flush,
            Work::FlushAll,
        ]
    }

    fn disk(fault: fn(Operation) -> BlockError) -> Disk {
        Disk::over(Box::new(Scripted(move |operation| Err(fault(operation)))))
    }

    #[test]
    fn a_full_store_is_data_protect_and_a_broken_one_a_medium_error() {
        let full = disk(|operation| BlockError::NoSpace { operation, offset: 0 });
        let broken = disk(|operation| BlockError::Io {
            operation,
            offset: 0,
            source: std::io::ErrorKind::Other.into(),
        });
        let mut moved = Moved::default();
        for work in work() {
            let outcome = full.execute(work.clone(), vec![0; 512], &mut moved).0;
            assert_eq!(outcome, Outcome::Failed(Fault::NoSpace), "{work:?}");
            assert_eq!(Fault::NoSpace.sense().code, 0x2707);
            assert_eq!(
                broken.execute(work.clone(), vec![0; 512], &mut moved).0,
                Outcome::Failed(Fault::Write),
                "{work:?}"
            );
        }
        let range = Range { offset: 0, length: 512 };
        for work in [Work::Read(range), Work::Check(range), Work::Compare { offset: 0, data: vec![0; 512] }] {
            assert_eq!(broken.execute(work, vec![0; 512], &mut moved).0, Outcome::Failed(Fault::Read));
        }
        assert_eq!((moved.read, moved.written), (0, 0), "what failed is not counted");
    }

    #[test]
    fn a_write_that_must_last_fails_when_the_flush_fails() {
        let disk = disk(|operation| BlockError::Io {
            operation,
            offset: 0,
            source: std::io::ErrorKind::Other.into(),
        });
        let mut moved = Moved::default();
        let work = Work::Write { offset: 0, data: vec![], durable: true };
        assert!(matches!(disk.execute(work, vec![0; 512], &mut moved).0, Outcome::Failed(_)));
    }

    #[test]
    fn repeating_and_comparing_go_over_the_edge_of_a_piece() {
        let disk = Disk::open_local(&"0=memory:3M".parse().unwrap(), 512).unwrap();
        let mut moved = Moved::default();
        let range = Range { offset: 512, length: 2 * PIECE + 1024 };
        let block: Vec<u8> = (0..=u8::MAX).cycle().take(512).collect();
        assert_eq!(
            disk.execute(Work::Repeat { range, block: block.clone(), durable: false }, vec![], &mut moved).0,
            Outcome::Done
        );
        let data = block.repeat(usize::try_from(range.length / 512).unwrap());
        let same = Work::Compare { offset: 512, data: data.clone() };
        assert_eq!(disk.execute(same, vec![], &mut moved).0, Outcome::Done);
        // All but the last block hold the same; a block begins with a zero.
        let at = u32::try_from(range.length - 512 + 1).unwrap();
        let shifted = Work::Compare { offset: 1024, data };
        assert_eq!(disk.execute(shifted, vec![], &mut moved).0, Outcome::Differs { at });
        assert_eq!(disk.execute(Work::Check(range), vec![], &mut moved).0, Outcome::Done);
    }

    /// A store whose medium keeps nothing: what was written can only be read from memory.
    struct Worn {
        memory: Memory,
        let_go: AtomicBool,
    }

    impl BlockDevice for Worn {
        fn size(&self) -> u64 {
            self.memory.size()
        }

        fn has_volatile_cache(&self) -> bool {
            true
        }

        fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
            self.memory.read(offset, buffer)?;
            if self.let_go.load(Ordering::Relaxed) {
                buffer.fill(0);
            }
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
            self.memory.write(offset, data)
        }

        fn read_now(&self, _: u64, _: &mut [u8]) -> Option<Result<(), BlockError>> {
            None
        }

        fn write_now(&self, _: u64, _: &[u8]) -> Option<Result<(), BlockError>> {
            None
        }

        fn flush(&self) -> Result<(), BlockError> {
            Ok(())
        }

        fn uncache(&self, _: u64, _: u64) -> Result<(), BlockError> {
            self.let_go.store(true, Ordering::Relaxed);
            Ok(())
        }

        fn prefetch(&self, _: u64, _: u64) {
            self.let_go.store(false, Ordering::Relaxed);
        }

        fn discard(&self, offset: u64, length: u64) -> Result<(), BlockError> {
            self.memory.discard(offset, length)
        }

        fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), BlockError> {
            self.memory.write_zeroes(offset, length)
        }

        fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
            self.memory.extent(offset)
        }
    }

    #[test]
    fn what_is_verified_is_read_from_the_medium_and_what_will_be_read_is_announced() {
        let worn = Worn { memory: Memory::new(4096), let_go: AtomicBool::new(false) };
        let disk = Disk::over(Box::new(worn));
        let mut moved = Moved::default();
        let mut execute = |work| disk.execute(work, Vec::new(), &mut moved).0;
        let data = || vec![7; 512];
        assert_eq!(execute(Work::Write { offset: 0, data: data(), durable: true }), Outcome::Done);
        assert_eq!(execute(Work::Compare { offset: 0, data: data() }), Outcome::Done);
        assert_eq!(execute(Work::WriteVerify { offset: 0, data: data() }), Outcome::Differs { at: 0 });
        assert_eq!(execute(Work::Prefetch(Range { offset: 0, length: 512 })), Outcome::Done);
        assert_eq!(execute(Work::Compare { offset: 0, data: data() }), Outcome::Done);
    }
}

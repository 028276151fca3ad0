//! A store for tests that stands still when it is told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bmi_block::{BlockDevice, BlockError, Extent};

/// A gate that holds everybody up while it is closed.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    /// How many stand before it.
    inside: AtomicUsize,
    opened: Condvar,
}

impl Gate {
    pub fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }

    /// Waits until so many stand before it.
    pub fn holds(&self, count: usize) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.inside.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < until, "{:?} instead of {count}", self.inside);
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nobody comes after.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(self.inside.load(Ordering::SeqCst), count);
    }

    fn pass(&self) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A store behind a gate. Of its first half it never knows beforehand whether it will have to wait; the other is at hand
/// to be read.
pub struct Gated(pub Arc<Gate>, pub Arc<Mutex<Vec<u8>>>);

impl Gated {
    /// The first block that is at hand.
    pub const AT_HAND: u16 = 1024;
}

impl BlockDevice for Gated {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn has_volatile_cache(&self) -> bool {
        true
    }

    fn writes_to_memory(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        self.0.pass();
        let at = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.1.lock().unwrap()[at..at + buffer.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.0.pass();
        let at = usize::try_from(offset).unwrap();
        self.1.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<Result<(), BlockError>> {
        let at = usize::try_from(offset).unwrap();
        (offset >= u64::from(Self::AT_HAND) * 512).then(|| {
            buffer.copy_from_slice(&self.1.lock().unwrap()[at..at + buffer.len()]);
            Ok(())
        })
    }

    fn write_now(&self, _: u64, _: &[u8]) -> Option<Result<(), BlockError>> {
        None
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.0.pass();
        Ok(())
    }

    fn uncache(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }

    fn prefetch(&self, _: u64, _: u64) {}

    fn discard(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }

    fn extent(&self, offset: u64) -> Result<Extent, BlockError> {
        Ok(Extent { length: self.size() - offset, allocated: true })
    }
}

//! A volume in memory, for tests of the server: it can be slow, fail, and be taken away.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Volume, VolumeError};

/// What the next requests meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    Failing,
    Full,
    Fenced,
}

pub struct Memory {
    pub blocks: RefCell<Vec<u8>>,
    pub cached: bool,
    pub weather: Cell<Weather>,
    /// Requests wait here when it has no permits.
    pub gate: Semaphore,
    /// What was called, in that order.
    pub calls: RefCell<Vec<&'static str>>,
}

impl Memory {
    pub fn new(size: usize) -> Self {
        Self {
            blocks: RefCell::new(vec![0; size]),
            cached: false,
            weather: Cell::new(Weather::Fair),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            calls: RefCell::default(),
        }
    }

    async fn enter(&self, call: &'static str) -> Result<(), VolumeError> {
        self.calls.borrow_mut().push(call);
        let _passed = self.gate.acquire().await.unwrap();
        match self.weather.get() {
            Weather::Fair => Ok(()),
            Weather::Failing => Err(VolumeError::Failed("bad weather".into())),
            Weather::Full => Err(VolumeError::NoSpace("full".into())),
            Weather::Fenced => Err(VolumeError::Fenced("fenced".into())),
        }
    }

    fn fill(&self, offset: u64, length: u64, byte: u8) {
        let (offset, length) = (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
        self.blocks.borrow_mut()[offset..offset + length].fill(byte);
    }
}

impl Volume for Memory {
    fn size(&self) -> u64 {
        self.blocks.borrow().len() as u64
    }

    fn is_cached(&self) -> bool {
        self.cached
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, VolumeError> {
        self.enter("read").await?;
        let offset = usize::try_from(offset).unwrap();
        Ok(Bytes::copy_from_slice(&self.blocks.borrow()[offset..offset + length as usize]))
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), VolumeError> {
        self.enter("write").await?;
        let offset = usize::try_from(offset).unwrap();
        self.blocks.borrow_mut()[offset..offset + data.len()].copy_from_slice(&data);
        Ok(())
    }

    async fn flush(&self) -> Result<(), VolumeError> {
        self.enter("flush").await
    }

    /// Something else than zeroes: who relies on them finds out.
    async fn discard(&self, offset: u64, length: u64) -> Result<(), VolumeError> {
        self.enter("discard").await?;
        self.fill(offset, length, 0xdd);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), VolumeError> {
        self.enter("write_zeroes").await?;
        self.fill(offset, length, 0);
        Ok(())
    }

    async fn close(self) -> Result<(), VolumeError> {
        Ok(())
    }
}

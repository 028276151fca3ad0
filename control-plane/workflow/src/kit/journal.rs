//! A journal in memory that can crash whoever writes to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{OperationId, Timestamp};

use crate::{Claim, Journal, JournalError, Record, Summary};

/// When the writer dies, counted in records it has tried to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Never.
    No,
    /// The record of that number is not written: what it speaks of happened, and is forgotten.
    Before(usize),
    /// The record of that number is written, and its writer does not live to hear it.
    After(usize),
}

/// A journal with one operation.
pub struct MemoryJournal {
    inner: Mutex<Memory>,
}

struct Memory {
    claim: Claim,
    records: Vec<Record>,
    due: Option<Timestamp>,
    held_until: Timestamp,
    crash: Crash,
    crashes: usize,
}

impl MemoryJournal {
    /// A journal whose operation is due at once. It crashes its writer at most once.
    #[must_use]
    pub fn new(kind: &str, crash: Crash) -> Self {
        let claim = Claim { operation: OperationId::generate(), kind: kind.to_owned(), epoch: 0 };
        let zero = Timestamp::from_micros(0);
        let due = Some(zero);
        Self {
            inner: Mutex::new(Memory {
                claim,
                records: Vec::new(),
                due,
                held_until: zero,
                crash,
                crashes: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the operation is due, if ever.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let memory = self.lock();
        memory.due.map(|due| due.max(memory.held_until))
    }

    /// The records so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// How often it has crashed its writer.
    #[must_use]
    pub fn crashes(&self) -> usize {
        self.lock().crashes
    }

    /// Crashes the writer of the next record, which is not written.
    pub fn crash_next(&self) {
        let mut memory = self.lock();
        memory.crash = Crash::Before(memory.records.len() + 1);
    }
}

impl Memory {
    fn check(&self, claim: &Claim) -> Result<(), JournalError> {
        if claim.epoch == self.claim.epoch {
            return Ok(());
        }
        Err(JournalError::Fenced { operation: claim.operation, epoch: claim.epoch })
    }

    fn crash(&mut self) -> Result<(), JournalError> {
        self.crash = Crash::No;
        self.crashes += 1;
        Err(JournalError::Store { action: "go on: crashed on purpose", source: "crash".into() })
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn claim(
        &self,
        _owner: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, JournalError> {
        let mut memory = self.lock();
        if memory.due.is_none_or(|due| due > now) || memory.held_until > now {
            return Ok(None);
        }
        memory.claim.epoch += 1;
        memory.held_until = now.plus(lease);
        Ok(Some(memory.claim.clone()))
    }

    async fn records(&self, _operation: OperationId) -> Result<Vec<Record>, JournalError> {
        Ok(self.entries())
    }

    async fn append(
        &self,
        claim: &Claim,
        record: &Record,
        _summary: Summary<'_>,
        lease: Duration,
    ) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        let number = memory.records.len() + 1;
        if memory.crash == Crash::Before(number) {
            return memory.crash();
        }
        memory.records.push(record.clone());
        memory.held_until = record.at.plus(lease);
        if memory.crash == Crash::After(number) {
            return memory.crash();
        }
        Ok(())
    }

    async fn renew(&self, claim: &Claim, now: Timestamp, lease: Duration) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        memory.held_until = now.plus(lease);
        Ok(())
    }

    async fn release(&self, claim: &Claim, due: Option<Timestamp>) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        memory.due = due;
        memory.held_until = Timestamp::from_micros(0);
        Ok(())
    }
}

//! Where journals are kept: the trait the database implements.

use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{OperationId, Timestamp};

use crate::{Record, State};

/// The right to work on one operation until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which operation.
    pub operation: OperationId,
    /// Its workflow's kind.
    pub kind: String,
    /// The fencing number: every claim of the same operation has a higher one.
    pub epoch: i64,
}

/// What the journal's owner wants to know with each record, to show it without folding.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// The state after the record.
    pub state: &'a State,
}

/// Why a journal did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else has claimed the operation since.
    #[error("operation {operation} is held by a later claim than epoch {epoch}")]
    Fenced {
        /// Which.
        operation: OperationId,
        /// The old epoch.
        epoch: i64,
    },
    /// The database failed.
    #[error("cannot {action}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A durable store of journals.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Claims an operation that is due and that nobody holds, if there is one.
    async fn claim(
        &self,
        owner: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, JournalError>;

    /// Reads an operation's records, oldest first.
    async fn records(&self, operation: OperationId) -> Result<Vec<Record>, JournalError>;

    /// Writes one record and the summary in one transaction, and prolongs the lease.
    async fn append(
        &self,
        claim: &Claim,
        record: &Record,
        summary: Summary<'_>,
        lease: Duration,
    ) -> Result<(), JournalError>;

    /// Prolongs the lease.
    async fn renew(&self, claim: &Claim, now: Timestamp, lease: Duration) -> Result<(), JournalError>;

    /// Gives the operation back; nobody claims it before `due`, and never when there is none.
    async fn release(&self, claim: &Claim, due: Option<Timestamp>) -> Result<(), JournalError>;
}

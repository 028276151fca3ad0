//! The workflow engine's journal, in the database.

use std::time::Duration;

use async_trait::async_trait;
use bmi_api::OperationState;
use bmi_auth::audit;
use bmi_types::{OperationId, Timestamp};
use bmi_workflow::{Claim, Entry, Journal, JournalError, Outcome, Phase, Record, Summary};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::Key;
use crate::operation::read_record;
use crate::schema::{journal, operations};
use crate::{Db, DbError, SystemTx};

/// A [`Journal`] in the tables `operations` and `journal`.
#[derive(Clone)]
pub struct DbJournal {
    db: Db,
}

impl DbJournal {
    /// The journal of a database.
    #[must_use]
    pub const fn new(db: Db) -> Self {
        Self { db }
    }
}

/// Ends every lease: for the only server of a database, at its start. Whoever held one is fenced by the next claim.
pub fn leases_end(tx: &mut SystemTx<'_>) -> Result<(), DbError> {
    let held = operations::table.filter(operations::lease_until.gt(0));
    diesel::update(held)
        .set((operations::lease_owner.eq(None::<String>), operations::lease_until.eq(0)))
        .execute(tx.sql())?;
    Ok(())
}

/// What can go wrong inside one of the journal's transactions.
enum Fault {
    Fenced,
    Db(DbError),
}

impl From<DbError> for Fault {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<diesel::result::Error> for Fault {
    fn from(error: diesel::result::Error) -> Self {
        Self::Db(error.into())
    }
}

fn store(action: &'static str) -> impl Fn(DbError) -> JournalError {
    move |error| JournalError::Store { action, source: Box::new(error) }
}

fn refused(claim: &Claim, action: &'static str) -> impl Fn(Fault) -> JournalError {
    let (operation, epoch) = (claim.operation, claim.epoch);
    move |fault| match fault {
        Fault::Fenced => JournalError::Fenced { operation, epoch },
        Fault::Db(error) => JournalError::Store { action, source: Box::new(error) },
    }
}

fn state_of(summary: Summary<'_>) -> OperationState {
    match summary.state.phase() {
        Phase::Finished(Outcome::Succeeded) => OperationState::Succeeded,
        Phase::Finished(Outcome::Failed) => OperationState::Failed,
        _ if summary.state.is_stuck() => OperationState::Stuck,
        Phase::Unwinding => OperationState::Unwinding,
        Phase::Forward => OperationState::Running,
    }
}

/// Writes to the audit log how an operation ended: what it did to the world is done, or undone.
fn audit_end(tx: &mut SystemTx<'_>, operation: Key, outcome: Outcome, at: Timestamp) -> Result<(), DbError> {
    type Columns = (String, Key, String, Key, String, Option<String>, String);
    let (kind, project, subject_kind, subject, name, error, requested_by): Columns = operations::table
        .filter(operations::id.eq(operation))
        .select((
            operations::kind,
            operations::project_id,
            operations::subject_kind,
            operations::subject_id,
            operations::subject_name,
            operations::error,
            operations::requested_by,
        ))
        .first(tx.sql())?;
    let detail = match error {
        Some(error) => format!("operation {}: {}", operation.0, error.chars().take(400).collect::<String>()),
        None => format!("operation {}", operation.0),
    };
    let record = audit::Record {
        id: Uuid::now_v7(),
        at,
        actor: requested_by,
        project: Some(project.into()),
        action: format!("operation:{kind}"),
        object: Some(audit::Object { kind: subject_kind, id: subject.0.to_string(), name }),
        outcome: match outcome {
            Outcome::Succeeded => audit::Outcome::Done,
            Outcome::Failed => audit::Outcome::Failed,
        },
        request: String::new(),
        detail,
    };
    crate::audit::insert(tx, &record)
}

fn claim_in(
    tx: &mut SystemTx<'_>,
    owner: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Claim>, DbError> {
    let due: Option<(Key, String, i64)> = operations::table
        .filter(operations::due_at.le(now.micros()))
        .filter(operations::lease_until.le(now.micros()))
        .order(operations::due_at.asc())
        .select((operations::id, operations::kind, operations::epoch))
        .first(tx.sql())
        .optional()?;
    let Some((id, kind, epoch)) = due else { return Ok(None) };
    let claimed =
        diesel::update(operations::table.filter(operations::id.eq(id)).filter(operations::epoch.eq(epoch)))
            .set((
                operations::epoch.eq(epoch + 1),
                operations::lease_owner.eq(Some(owner)),
                operations::lease_until.eq(until.micros()),
            ))
            .execute(tx.sql())?;
    Ok((claimed == 1).then(|| Claim { operation: id.into(), kind, epoch: epoch + 1 }))
}

#[async_trait]
impl Journal for DbJournal {
    async fn claim(
        &self,
        owner: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, JournalError> {
        let owner = owner.to_owned();
        // Looking is cheap and takes no write lock; only when something is due does the claim write.
        let due = self
            .db
            .system_read(move |tx| -> Result<bool, DbError> {
                let due: Option<Key> = operations::table
                    .filter(operations::due_at.le(now.micros()))
                    .filter(operations::lease_until.le(now.micros()))
                    .select(operations::id)
                    .first(tx.sql())
                    .optional()?;
                Ok(due.is_some())
            })
            .await
            .map_err(store("look for due operations"))?;
        if !due {
            return Ok(None);
        }
        self.db
            .system_write(move |tx| claim_in(tx, &owner, now, now.plus(lease)))
            .await
            .map_err(store("claim an operation"))
    }

    async fn records(&self, operation: OperationId) -> Result<Vec<Record>, JournalError> {
        self.db
            .system_read(move |tx| -> Result<Vec<Record>, DbError> {
                let rows: Vec<(i64, String)> = journal::table
                    .filter(journal::operation_id.eq(Key::from(operation)))
                    .order(journal::position.asc())
                    .select((journal::at, journal::entry))
                    .load(tx.sql())?;
                rows.into_iter().map(|(at, entry)| read_record(at, &entry)).collect()
            })
            .await
            .map_err(store("read a journal"))
    }

    async fn append(
        &self,
        claim: &Claim,
        record: &Record,
        summary: Summary<'_>,
        lease: Duration,
    ) -> Result<(), JournalError> {
        let (operation, epoch, at) = (Key::from(claim.operation), claim.epoch, record.at);
        let state = state_of(summary);
        let error = summary.state.error().map(str::to_owned);
        let code = summary.state.code().map(str::to_owned);
        let entry = serde_json::to_string(&record.entry)
            .map_err(|error| JournalError::Store { action: "write a journal entry", source: error.into() })?;
        let ended = match &record.entry {
            Entry::Finished { outcome } => Some(*outcome),
            _ => None,
        };
        self.db
            .system_write(move |tx| -> Result<(), Fault> {
                let mine = operations::table
                    .filter(operations::id.eq(operation))
                    .filter(operations::epoch.eq(epoch));
                let written = diesel::update(mine)
                    .set((
                        operations::state.eq(state.as_str()),
                        operations::error.eq(error),
                        operations::code.eq(code),
                        operations::lease_until.eq(at.plus(lease).micros()),
                        operations::updated_at.eq(at.micros()),
                    ))
                    .execute(tx.sql())?;
                if written == 0 {
                    return Err(Fault::Fenced);
                }
                let position: i64 = journal::table
                    .filter(journal::operation_id.eq(operation))
                    .count()
                    .get_result(tx.sql())?;
                diesel::insert_into(journal::table)
                    .values((
                        journal::operation_id.eq(operation),
                        journal::position.eq(position),
                        journal::at.eq(at.micros()),
                        journal::entry.eq(entry),
                    ))
                    .execute(tx.sql())?;
                if let Some(outcome) = ended {
                    audit_end(tx, operation, outcome, at)?;
                }
                Ok(())
            })
            .await
            .map_err(refused(claim, "write a journal entry"))
    }

    async fn renew(&self, claim: &Claim, now: Timestamp, lease: Duration) -> Result<(), JournalError> {
        let (operation, epoch) = (Key::from(claim.operation), claim.epoch);
        self.db
            .system_write(move |tx| -> Result<(), Fault> {
                let mine = operations::table
                    .filter(operations::id.eq(operation))
                    .filter(operations::epoch.eq(epoch));
                let renewed = diesel::update(mine)
                    .set(operations::lease_until.eq(now.plus(lease).micros()))
                    .execute(tx.sql())?;
                if renewed == 1 { Ok(()) } else { Err(Fault::Fenced) }
            })
            .await
            .map_err(refused(claim, "renew a lease"))
    }

    async fn release(&self, claim: &Claim, due: Option<Timestamp>) -> Result<(), JournalError> {
        let (operation, epoch) = (Key::from(claim.operation), claim.epoch);
        self.db
            .system_write(move |tx| -> Result<(), Fault> {
                let mine = operations::table
                    .filter(operations::id.eq(operation))
                    .filter(operations::epoch.eq(epoch));
                let released = diesel::update(mine)
                    .set((
                        operations::due_at.eq(due.map(Timestamp::micros)),
                        operations::lease_owner.eq(None::<String>),
                        operations::lease_until.eq(0),
                    ))
                    .execute(tx.sql())?;
                if released == 1 { Ok(()) } else { Err(Fault::Fenced) }
            })
            .await
            .map_err(refused(claim, "give an operation back"))
    }
}

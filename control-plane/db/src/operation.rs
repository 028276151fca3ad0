//! Operations.

use std::collections::BTreeMap;

use bmi_api::{Code, OperationKind, OperationState};
use bmi_types::{Name, OperationId, ProjectId, Timestamp};
use bmi_workflow::Record;
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{After, Key, readable, signed, unsigned, word};
use crate::schema::{journal, operations};
use crate::scope::InProject;
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = operations)]
struct Row {
    id: Key,
    kind: String,
    state: String,
    project_id: Key,
    subject_kind: String,
    subject_id: Key,
    subject_name: String,
    error: Option<String>,
    progress_done: Option<i64>,
    progress_total: Option<i64>,
    requested_by: String,
    lease_owner: Option<String>,
    lease_until: i64,
    epoch: i64,
    due_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
    code: Option<String>,
}

/// What an operation works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// `instance` or `image`.
    pub kind: &'static str,
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Name,
}

/// An operation as it is stored, with its journal.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// Where it is.
    pub state: OperationState,
    /// The project it belongs to.
    pub project: ProjectId,
    /// Kind of what it works on.
    pub subject_kind: String,
    /// Id of what it works on.
    pub subject_id: Uuid,
    /// Name of what it works on.
    pub subject_name: Name,
    /// Why it failed, or what blocks it.
    pub error: Option<String>,
    /// The code of that failure. One that a newer release wrote may not be known here.
    pub code: Option<Code>,
    /// Bytes done and to do.
    pub progress: Option<(u64, u64)>,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Its journal.
    pub records: Vec<Record>,
}

impl Row {
    fn read(self, records: Vec<Record>) -> Result<Stored, DbError> {
        Ok(Stored {
            id: self.id.into(),
            kind: word!("operations", "kind", OperationKind, self.kind)?,
            state: word!("operations", "state", OperationState, self.state)?,
            project: self.project_id.into(),
            subject_kind: self.subject_kind,
            subject_id: self.subject_id.0,
            subject_name: readable(
                "operations",
                "subject_name",
                &self.subject_name,
                self.subject_name.parse(),
            )?,
            error: self.error,
            code: self.code.and_then(|word| Code::from_word(&word)),
            progress: self.progress_done.zip(self.progress_total).map(|(a, b)| (unsigned(a), unsigned(b))),
            requested_by: self.requested_by,
            created_at: Timestamp::from_micros(self.created_at),
            updated_at: Timestamp::from_micros(self.updated_at),
            records,
        })
    }
}

/// Reads one journal line.
pub(crate) fn read_record(at: i64, entry: &str) -> Result<Record, DbError> {
    let entry = readable("journal", "entry", entry, serde_json::from_str(entry))?;
    Ok(Record { at: Timestamp::from_micros(at), entry })
}

/// Adds each row's journal, with one query for all.
fn with_journals(tx: &mut Tx<'_>, rows: Vec<Row>) -> Result<Vec<Stored>, DbError> {
    let ids: Vec<Key> = rows.iter().map(|row| row.id).collect();
    let found: Vec<(Key, i64, String)> = journal::table
        .filter(journal::operation_id.eq_any(ids))
        .order((journal::operation_id.asc(), journal::position.asc()))
        .select((journal::operation_id, journal::at, journal::entry))
        .load(tx.sql())?;
    let mut by_operation: BTreeMap<Uuid, Vec<Record>> = BTreeMap::new();
    for (operation, at, entry) in found {
        by_operation.entry(operation.0).or_default().push(read_record(at, &entry)?);
    }
    rows.into_iter()
        .map(|row| {
            let records = by_operation.remove(&row.id.0).unwrap_or_default();
            row.read(records)
        })
        .collect()
}

/// Writes a new operation, due at once.
pub fn insert(
    tx: &mut Tx<'_>,
    kind: OperationKind,
    project: ProjectId,
    subject: &Subject,
    requested_by: &str,
    now: Timestamp,
) -> Result<Stored, DbError> {
    let row = Row {
        id: OperationId::generate().into(),
        kind: kind.to_string(),
        state: OperationState::Pending.to_string(),
        project_id: project.into(),
        subject_kind: subject.kind.to_owned(),
        subject_id: Key(subject.id),
        subject_name: subject.name.to_string(),
        error: None,
        progress_done: None,
        progress_total: None,
        requested_by: requested_by.to_owned(),
        lease_owner: None,
        lease_until: 0,
        epoch: 0,
        due_at: Some(now.micros()),
        created_at: now.micros(),
        updated_at: now.micros(),
        code: None,
    };
    diesel::insert_into(operations::table).values(&row).execute(tx.sql())?;
    row.read(Vec::new())
}

/// Finds one operation in the transaction's scope.
pub fn find(tx: &mut Tx<'_>, id: OperationId) -> Result<Option<Stored>, DbError> {
    let mut query = operations::table.filter(operations::id.eq(Key::from(id))).into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(operations::project_id.eq_any(only));
    }
    let rows: Vec<Row> = query.load(tx.sql())?;
    Ok(with_journals(tx, rows)?.pop())
}

/// One page of operations, of one project when given.
pub fn list(tx: &mut Tx<'_>, project: Option<InProject>, after: After) -> Result<Vec<Stored>, DbError> {
    let mut query = operations::table
        .filter(operations::id.gt(Key(after.id)))
        .order(operations::id.asc())
        .limit(after.limit)
        .into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(operations::project_id.eq_any(only));
    }
    if let Some(project) = project {
        query = query.filter(operations::project_id.eq(project.key()));
    }
    let rows: Vec<Row> = query.load(tx.sql())?;
    with_journals(tx, rows)
}

/// At most 100 operations on one subject, oldest first.
pub fn of_subject(tx: &mut Tx<'_>, subject: Uuid) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = operations::table
        .filter(operations::subject_id.eq(Key(subject)))
        .order(operations::id.asc())
        .limit(100)
        .load(tx.sql())?;
    with_journals(tx, rows)
}

/// An operation on a subject that is not finished, if there is one.
pub fn unfinished_of(tx: &mut Tx<'_>, subject: Uuid) -> Result<Option<OperationId>, DbError> {
    let finished = [OperationState::Succeeded.as_str(), OperationState::Failed.as_str()];
    let id: Option<Key> = operations::table
        .filter(operations::subject_id.eq(Key(subject)))
        .filter(operations::state.ne_all(finished))
        .select(operations::id)
        .first(tx.sql())
        .optional()?;
    Ok(id.map(Into::into))
}

/// Writes how far a long copy is.
pub fn progress(tx: &mut Tx<'_>, id: OperationId, done: u64, total: u64) -> Result<(), DbError> {
    diesel::update(operations::table.filter(operations::id.eq(Key::from(id))))
        .set((
            operations::progress_done.eq(Some(signed(done))),
            operations::progress_total.eq(Some(signed(total))),
        ))
        .execute(tx.sql())?;
    Ok(())
}

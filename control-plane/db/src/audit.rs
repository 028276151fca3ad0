//! The audit log: what was refused, and what was done.
//!
//! A row is written in the transaction of what it tells of, as canonical text. Its place in the chain and its hash
//! come later, from the one replica that holds the lease. What they are made of is in [`bmi_auth::audit`].

use bmi_auth::audit::{Head, HeadKind, Record};
use bmi_types::{ProjectId, Timestamp};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{After, Key, readable};
use crate::schema::{audit, audit_heads};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = audit)]
struct Row {
    id: Key,
    at: i64,
    actor: String,
    project_id: Option<Key>,
    action: String,
    outcome: String,
    text: String,
    position: Option<i64>,
    hash: Option<String>,
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Whose project, if any.
    pub project: Option<ProjectId>,
    /// The canonical text.
    pub text: String,
    /// Its place in the chain, once it has one.
    pub position: Option<i64>,
    /// The hash of the chain down to it.
    pub hash: Option<String>,
    /// Whether the columns that a row is searched by are what its text says.
    pub consistent: bool,
}

impl Row {
    fn read(self) -> Stored {
        let says = Record::read(&self.text);
        let consistent = says.is_some_and(|record| {
            record.id == self.id.0
                && record.at.micros() == self.at
                && record.actor == self.actor
                && record.project.map(Key::from) == self.project_id
                && record.action == self.action
                && record.outcome.as_str() == self.outcome
        });
        Stored {
            consistent,
            id: self.id.0,
            at: Timestamp::from_micros(self.at),
            project: self.project_id.map(Into::into),
            text: self.text,
            position: self.position,
            hash: self.hash,
        }
    }
}

/// Writes a record.
pub fn insert(tx: &mut Tx<'_>, record: &Record) -> Result<(), DbError> {
    let row = Row {
        id: Key(record.id),
        at: record.at.micros(),
        actor: record.actor.clone(),
        project_id: record.project.map(Key::from),
        action: record.action.clone(),
        outcome: record.outcome.as_str().to_owned(),
        text: record.canonical(),
        position: None,
        hash: None,
    };
    diesel::insert_into(audit::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of one project.
    pub project: Option<InProject>,
    /// Only by one subject.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only this outcome.
    pub outcome: Option<String>,
}

/// One page of the log, oldest first, in the transaction's scope.
pub fn list(tx: &mut Tx<'_>, filter: Filter, after: After) -> Result<Vec<Stored>, DbError> {
    let mut query = audit::table
        .filter(audit::id.gt(Key(after.id)))
        .order(audit::id.asc())
        .limit(after.limit)
        .into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(audit::project_id.eq_any(only));
    }
    if let Some(project) = filter.project {
        query = query.filter(audit::project_id.eq(project.key()));
    }
    if let Some(actor) = filter.actor {
        query = query.filter(audit::actor.eq(actor));
    }
    if let Some(action) = filter.action {
        query = query.filter(audit::action.eq(action));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(audit::outcome.eq(outcome));
    }
    let rows: Vec<Row> = query.load(tx.sql())?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Rows of the chain behind a position, in order.
pub fn chain(tx: &mut SystemTx<'_>, after: i64, limit: i64) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = audit::table
        .filter(audit::position.gt(after))
        .order(audit::position.asc())
        .limit(limit)
        .load(tx.sql())?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Rows that have no place yet, oldest first.
pub fn not_chained(tx: &mut SystemTx<'_>, limit: i64) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> =
        audit::table.filter(audit::position.is_null()).order(audit::id.asc()).limit(limit).load(tx.sql())?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// The place and the hash of the last row of the chain; nothing when there is none.
pub fn last(tx: &mut SystemTx<'_>) -> Result<Option<(i64, String)>, DbError> {
    let row: Option<(Option<i64>, Option<String>)> = audit::table
        .filter(audit::position.is_not_null())
        .order(audit::position.desc())
        .select((audit::position, audit::hash))
        .first(tx.sql())
        .optional()?;
    Ok(row.and_then(|(position, hash)| position.zip(hash)))
}

/// Gives a row its place.
pub fn place(tx: &mut SystemTx<'_>, id: Uuid, position: i64, hash: &str) -> Result<(), DbError> {
    diesel::update(audit::table.filter(audit::id.eq(Key(id))))
        .set((audit::position.eq(Some(position)), audit::hash.eq(Some(hash))))
        .execute(tx.sql())?;
    Ok(())
}

fn kind_word(kind: HeadKind) -> &'static str {
    kind.as_str()
}

/// Writes a signed head. There is one of kind `head`: the newest.
pub fn head_write(tx: &mut SystemTx<'_>, head: &Head) -> Result<(), DbError> {
    if head.kind == HeadKind::Head {
        diesel::delete(audit_heads::table.filter(audit_heads::kind.eq(kind_word(HeadKind::Head))))
            .execute(tx.sql())?;
    }
    diesel::insert_into(audit_heads::table)
        .values((
            audit_heads::position.eq(head.position),
            audit_heads::kind.eq(kind_word(head.kind)),
            audit_heads::hash.eq(&head.hash),
            audit_heads::signed_at.eq(head.signed_at.micros()),
            audit_heads::public_key.eq(&head.public_key),
            audit_heads::signature.eq(&head.signature),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// The newest signed head of a kind.
pub fn head(tx: &mut SystemTx<'_>, kind: HeadKind) -> Result<Option<Head>, DbError> {
    type Columns = (i64, String, String, i64, String, String);
    let row: Option<Columns> = audit_heads::table
        .filter(audit_heads::kind.eq(kind_word(kind)))
        .order(audit_heads::position.desc())
        .first(tx.sql())
        .optional()?;
    row.map(|(position, kind, hash, signed_at, public_key, signature)| {
        Ok(Head {
            kind: readable("audit_heads", "kind", &kind, HeadKind::from_word(&kind).ok_or(()))?,
            position,
            hash,
            signed_at: Timestamp::from_micros(signed_at),
            public_key,
            signature,
        })
    })
    .transpose()
}

/// The place and hash of the last row of the chain that is older than an instant.
pub fn last_before(tx: &mut SystemTx<'_>, before: Timestamp) -> Result<Option<(i64, String)>, DbError> {
    let row: Option<(Option<i64>, Option<String>)> = audit::table
        .filter(audit::position.is_not_null())
        .filter(audit::at.lt(before.micros()))
        .order(audit::position.desc())
        .select((audit::position, audit::hash))
        .first(tx.sql())
        .optional()?;
    Ok(row.and_then(|(position, hash)| position.zip(hash)))
}

/// Removes the rows of the chain down to a position, and older checkpoints: for retention.
pub fn remove_to(tx: &mut SystemTx<'_>, position: i64) -> Result<usize, DbError> {
    let removed = diesel::delete(audit::table.filter(audit::position.le(position))).execute(tx.sql())?;
    let old = audit_heads::table
        .filter(audit_heads::kind.eq(kind_word(HeadKind::Checkpoint)))
        .filter(audit_heads::position.lt(position));
    diesel::delete(old).execute(tx.sql())?;
    Ok(removed)
}

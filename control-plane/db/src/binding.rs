//! Bindings: which subject has which role where.

use bmi_auth::{Binding, Domain, Subject};
use bmi_types::Timestamp;
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{After, Key};
use crate::role::policy_changed;
use crate::schema::bindings;
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = bindings)]
struct Row {
    id: Key,
    subject: String,
    role: String,
    project_id: Option<Key>,
    created_at: i64,
    created_by: String,
}

/// A binding that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: Uuid,
    /// What it binds.
    pub binding: Binding,
    /// When.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

impl Row {
    fn read(self) -> Stored {
        Stored {
            id: self.id.0,
            binding: Binding {
                subject: Subject::known(self.subject),
                role: self.role,
                domain: self.project_id.map_or(Domain::Everywhere, |id| Domain::Project(id.into())),
            },
            created_at: Timestamp::from_micros(self.created_at),
            created_by: self.created_by,
        }
    }
}

/// Where bindings are looked for: in a project that was found, or everywhere.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// At the provider.
    Everywhere,
    /// In a project.
    Project(InProject),
}

impl Place {
    fn key(self) -> Option<Key> {
        match self {
            Self::Everywhere => None,
            Self::Project(project) => Some(project.key()),
        }
    }
}

/// Every binding, for the policy.
pub(crate) fn all(tx: &mut SystemTx<'_>) -> Result<Vec<Binding>, DbError> {
    let rows: Vec<Row> = bindings::table.load(tx.sql())?;
    Ok(rows.into_iter().map(|row| row.read().binding).collect())
}

/// One page of the bindings of a place.
pub fn list(tx: &mut Tx<'_>, place: Place, after: After) -> Result<Vec<Stored>, DbError> {
    let query =
        bindings::table.filter(bindings::id.gt(Key(after.id))).order(bindings::id.asc()).limit(after.limit);
    let rows: Vec<Row> = match place.key() {
        Some(project) => query.filter(bindings::project_id.eq(project)).load(tx.sql())?,
        None => query.filter(bindings::project_id.is_null()).load(tx.sql())?,
    };
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Finds one binding of a place.
pub fn find(tx: &mut Tx<'_>, place: Place, id: Uuid) -> Result<Option<Stored>, DbError> {
    let query = bindings::table.filter(bindings::id.eq(Key(id)));
    let row: Option<Row> = match place.key() {
        Some(project) => query.filter(bindings::project_id.eq(project)).first(tx.sql()).optional()?,
        None => query.filter(bindings::project_id.is_null()).first(tx.sql()).optional()?,
    };
    Ok(row.map(Row::read))
}

/// Finds the binding of a subject and a role in a place.
pub fn of(tx: &mut Tx<'_>, place: Place, subject: &Subject, role: &str) -> Result<Option<Stored>, DbError> {
    let query =
        bindings::table.filter(bindings::subject.eq(subject.as_str())).filter(bindings::role.eq(role));
    let row: Option<Row> = match place.key() {
        Some(project) => query.filter(bindings::project_id.eq(project)).first(tx.sql()).optional()?,
        None => query.filter(bindings::project_id.is_null()).first(tx.sql()).optional()?,
    };
    Ok(row.map(Row::read))
}

/// How many bindings a place has.
pub fn count(tx: &mut Tx<'_>, place: Place) -> Result<i64, DbError> {
    Ok(match place.key() {
        Some(project) => {
            bindings::table.filter(bindings::project_id.eq(project)).count().get_result(tx.sql())?
        }
        None => bindings::table.filter(bindings::project_id.is_null()).count().get_result(tx.sql())?,
    })
}

/// How many bindings a role has, wherever.
pub fn count_of_role(tx: &mut Tx<'_>, role: &str) -> Result<i64, DbError> {
    Ok(bindings::table.filter(bindings::role.eq(role)).count().get_result(tx.sql())?)
}

/// Writes a new binding.
pub fn insert(
    tx: &mut Tx<'_>,
    place: Place,
    subject: &Subject,
    role: &str,
    created_by: &str,
    now: Timestamp,
) -> Result<Stored, DbError> {
    let row = Row {
        id: Key(Uuid::now_v7()),
        subject: subject.to_string(),
        role: role.to_owned(),
        project_id: place.key(),
        created_at: now.micros(),
        created_by: created_by.to_owned(),
    };
    diesel::insert_into(bindings::table).values(&row).execute(tx.sql())?;
    policy_changed(tx)?;
    Ok(row.read())
}

/// Removes a binding that was found.
pub fn delete(tx: &mut Tx<'_>, binding: &Stored) -> Result<(), DbError> {
    diesel::delete(bindings::table.filter(bindings::id.eq(Key(binding.id)))).execute(tx.sql())?;
    policy_changed(tx)
}

/// Removes every binding of a subject, when the subject ends.
pub fn delete_of(tx: &mut Tx<'_>, subject: &Subject) -> Result<(), DbError> {
    diesel::delete(bindings::table.filter(bindings::subject.eq(subject.as_str()))).execute(tx.sql())?;
    policy_changed(tx)
}

//! The authorities that issue certificates of agents. All that are here are trusted; the newest issues to agents, and the
//! oldest to the listener that agents dial: they trust that one whatever they know of the others.

use bmi_types::{AuthorityId, Timestamp};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::authorities;
use crate::{DbError, Tx};

/// An authority, its key sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: AuthorityId,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its key.
    pub key_sealed: String,
    /// The hash of its public key.
    pub spki_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = authorities)]
struct Row {
    id: Key,
    certificate: String,
    key_sealed: String,
    spki_sha256: String,
    created_at: i64,
    expires_at: i64,
}

/// All of them, the oldest first. There are one or two, and more only when nobody retires any.
pub fn list(tx: &mut Tx<'_>) -> Result<Vec<Record>, DbError> {
    let rows: Vec<Row> = authorities::table.order(authorities::id.asc()).load(tx.sql())?;
    let record = |row: Row| Record {
        id: row.id.into(),
        certificate: row.certificate,
        key_sealed: row.key_sealed,
        spki_sha256: row.spki_sha256,
        created_at: Timestamp::from_micros(row.created_at),
        expires_at: Timestamp::from_micros(row.expires_at),
    };
    Ok(rows.into_iter().map(record).collect())
}

/// Writes a new one.
pub fn insert(tx: &mut Tx<'_>, record: &Record) -> Result<(), DbError> {
    let row = Row {
        id: record.id.into(),
        certificate: record.certificate.clone(),
        key_sealed: record.key_sealed.clone(),
        spki_sha256: record.spki_sha256.clone(),
        created_at: record.created_at.micros(),
        expires_at: record.expires_at.micros(),
    };
    diesel::insert_into(authorities::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// Removes one, and its key with it.
pub fn delete(tx: &mut Tx<'_>, id: AuthorityId) -> Result<(), DbError> {
    diesel::delete(authorities::table.filter(authorities::id.eq(Key::from(id)))).execute(tx.sql())?;
    Ok(())
}

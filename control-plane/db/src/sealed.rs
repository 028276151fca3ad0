//! Every sealed value of the database, for those who seal it again or look whether a key opens it.

use bmi_types::{AuthorityId, VolumeId};
use diesel::prelude::*;
use uuid::Uuid;

use crate::idempotency::Scope;
use crate::key::Key;
use crate::schema::{authorities, ceph_keys, idempotency, instances, sign_ins};
use crate::{DbError, SystemTx};

/// A sealed answer as it is read: id, answer, and caller, method, path and key of its request.
type AnswerRow = (Key, String, (String, String, String, String));

/// How a sealed text begins, and no other.
const SEALED: &str = "v1:%";

/// A column that holds sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `instances.boot_key_sealed`.
    BootKey,
    /// `instances.user_data_sealed`.
    UserData,
    /// `sign_ins.secrets_sealed`.
    SignIn,
    /// `idempotency.answer`, of those that hold a secret.
    Answer,
    /// `ceph_keys.key_sealed`, by the volume.
    CephKey,
    /// `authorities.key_sealed`.
    AuthorityKey,
}

impl Column {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::BootKey, Self::UserData, Self::SignIn, Self::Answer, Self::CephKey, Self::AuthorityKey];
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// In which column.
    pub column: Column,
    /// The id of its row.
    pub id: Uuid,
    /// Of an answer: which request it answers. It is sealed for that, so that a row that is edited to name another
    /// caller does not open.
    pub request: Option<Scope>,
    /// As it is sealed.
    pub sealed: String,
}

/// What the key of a volume's cephx user is sealed for.
#[must_use]
pub fn ceph_key_purpose(volume: VolumeId) -> String {
    format!("ceph.key:{volume}")
}

/// What the key of an authority is sealed for.
#[must_use]
pub fn authority_key_purpose(authority: AuthorityId) -> String {
    format!("authority.key:{authority}")
}

/// At most so many sealed values of a column.
pub fn list(tx: &mut SystemTx<'_>, column: Column, limit: i64) -> Result<Vec<Value>, DbError> {
    let rows: Vec<(Key, String)> = match column {
        Column::BootKey => instances::table
            .select((instances::id, instances::boot_key_sealed))
            .limit(limit)
            .load(tx.sql())?,
        Column::UserData => instances::table
            .select((instances::id, instances::user_data_sealed))
            .limit(limit)
            .load(tx.sql())?,
        Column::SignIn => {
            sign_ins::table.select((sign_ins::id, sign_ins::secrets_sealed)).limit(limit).load(tx.sql())?
        }
        Column::Answer => return answers(tx, limit),
        Column::CephKey => ceph_keys::table
            .select((ceph_keys::volume_id, ceph_keys::key_sealed))
            .limit(limit)
            .load(tx.sql())?,
        Column::AuthorityKey => authorities::table
            .select((authorities::id, authorities::key_sealed))
            .limit(limit)
            .load(tx.sql())?,
    };
    let value = |(id, sealed): (Key, String)| Value { column, id: id.0, request: None, sealed };
    Ok(rows.into_iter().map(value).collect())
}

fn answers(tx: &mut SystemTx<'_>, limit: i64) -> Result<Vec<Value>, DbError> {
    let rows: Vec<AnswerRow> = idempotency::table
        .filter(idempotency::answer.like(SEALED))
        .select((
            idempotency::id,
            idempotency::answer.assume_not_null(),
            (idempotency::caller, idempotency::method, idempotency::path, idempotency::key),
        ))
        .limit(limit)
        .load(tx.sql())?;
    let value = |(id, sealed, (caller, method, path, key)): AnswerRow| Value {
        column: Column::Answer,
        id: id.0,
        request: Some(Scope { caller, method, path, key }),
        sealed,
    };
    Ok(rows.into_iter().map(value).collect())
}

/// Writes a value as it is sealed now.
pub fn update(tx: &mut SystemTx<'_>, value: &Value) -> Result<(), DbError> {
    let (id, sealed) = (Key(value.id), value.sealed.as_str());
    match value.column {
        Column::BootKey => diesel::update(instances::table.filter(instances::id.eq(id)))
            .set(instances::boot_key_sealed.eq(sealed))
            .execute(tx.sql())?,
        Column::UserData => diesel::update(instances::table.filter(instances::id.eq(id)))
            .set(instances::user_data_sealed.eq(sealed))
            .execute(tx.sql())?,
        Column::SignIn => diesel::update(sign_ins::table.filter(sign_ins::id.eq(id)))
            .set(sign_ins::secrets_sealed.eq(sealed))
            .execute(tx.sql())?,
        Column::Answer => diesel::update(idempotency::table.filter(idempotency::id.eq(id)))
            .set(idempotency::answer.eq(Some(sealed)))
            .execute(tx.sql())?,
        Column::CephKey => diesel::update(ceph_keys::table.filter(ceph_keys::volume_id.eq(id)))
            .set(ceph_keys::key_sealed.eq(sealed))
            .execute(tx.sql())?,
        Column::AuthorityKey => diesel::update(authorities::table.filter(authorities::id.eq(id)))
            .set(authorities::key_sealed.eq(sealed))
            .execute(tx.sql())?,
    };
    Ok(())
}

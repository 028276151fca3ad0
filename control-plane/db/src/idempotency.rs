//! Answers kept for requests that carry an `Idempotency-Key`.

use std::time::Duration;

use bmi_types::Timestamp;
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::Key;
use crate::schema::idempotency;
use crate::{DbError, Tx};

/// What makes two requests the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Who calls.
    pub caller: String,
    /// `POST`.
    pub method: String,
    /// The path.
    pub path: String,
    /// The key the caller chose.
    pub key: String,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it is ours to do now, under this id.
    First(Uuid),
    /// It was done, with this body and answer.
    Done {
        /// SHA-256 of the body.
        body_sha256: String,
        /// The answer, as its writer wrote it.
        answer: String,
        /// What was decided for it, as its writer wrote it.
        decisions: String,
    },
    /// Nothing, and the caller has [`KEPT_MAX`] others already: it may not be done.
    TooMany,
    /// It is being done, with this body.
    Running {
        /// SHA-256 of the body.
        body_sha256: String,
    },
}

/// How long a request may run before its server counts as dead and a repeat does it again: longer than any takes, since
/// what takes time is an operation and not a request.
pub const RUNNING_MAX: Duration = Duration::from_secs(300);

/// How many requests of one caller are kept.
pub const KEPT_MAX: i64 = 10_000;

/// Claims a request, or says what is known of it. Entries older than `forget` are removed first, and so is this one
/// when it has been running for [`RUNNING_MAX`]: its server was killed.
pub fn begin(
    tx: &mut Tx<'_>,
    scope: &Scope,
    body_sha256: &str,
    now: Timestamp,
    forget: Timestamp,
) -> Result<Seen, DbError> {
    diesel::delete(idempotency::table.filter(idempotency::created_at.lt(forget.micros())))
        .execute(tx.sql())?;
    let known: Option<(Key, String, Option<String>, String, i64)> = idempotency::table
        .filter(idempotency::caller.eq(&scope.caller))
        .filter(idempotency::method.eq(&scope.method))
        .filter(idempotency::path.eq(&scope.path))
        .filter(idempotency::key.eq(&scope.key))
        .select((
            idempotency::id,
            idempotency::body_sha256,
            idempotency::answer,
            idempotency::decisions,
            idempotency::running_until,
        ))
        .first(tx.sql())
        .optional()?;
    match known {
        Some((_, body_sha256, Some(answer), decisions, _)) => {
            return Ok(Seen::Done { body_sha256, answer, decisions });
        }
        Some((_, body_sha256, None, _, until)) if until > now.micros() => {
            return Ok(Seen::Running { body_sha256 });
        }
        Some((lost, ..)) => {
            diesel::delete(idempotency::table.filter(idempotency::id.eq(lost))).execute(tx.sql())?;
        }
        None => {}
    }
    let kept: i64 =
        idempotency::table.filter(idempotency::caller.eq(&scope.caller)).count().get_result(tx.sql())?;
    if kept >= KEPT_MAX {
        return Ok(Seen::TooMany);
    }
    let id = Uuid::now_v7();
    diesel::insert_into(idempotency::table)
        .values((
            idempotency::id.eq(Key(id)),
            idempotency::caller.eq(&scope.caller),
            idempotency::method.eq(&scope.method),
            idempotency::path.eq(&scope.path),
            idempotency::key.eq(&scope.key),
            idempotency::body_sha256.eq(body_sha256),
            idempotency::created_at.eq(now.micros()),
            idempotency::running_until.eq(now.plus(RUNNING_MAX).micros()),
        ))
        .execute(tx.sql())?;
    Ok(Seen::First(id))
}

/// Keeps an answer, with what was decided for it.
pub fn finish(tx: &mut Tx<'_>, id: Uuid, answer: &str, decisions: &str) -> Result<(), DbError> {
    diesel::update(idempotency::table.filter(idempotency::id.eq(Key(id))))
        .set((idempotency::answer.eq(Some(answer)), idempotency::decisions.eq(decisions)))
        .execute(tx.sql())?;
    Ok(())
}

/// Forgets a request whose answer is not kept.
pub fn forget(tx: &mut Tx<'_>, id: Uuid) -> Result<(), DbError> {
    diesel::delete(idempotency::table.filter(idempotency::id.eq(Key(id)))).execute(tx.sql())?;
    Ok(())
}

/// Forgets requests that were running when the only server stopped.
pub fn forget_running(tx: &mut Tx<'_>) -> Result<(), DbError> {
    diesel::delete(idempotency::table.filter(idempotency::answer.is_null())).execute(tx.sql())?;
    Ok(())
}

//! Sign-ins that have begun and not ended. Each is used once, and known by the hash of what must come back.

use bmi_types::Timestamp;
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::Key;
use crate::schema::sign_ins;
use crate::{DbError, SystemTx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = sign_ins)]
struct Row {
    id: Key,
    kind: String,
    provider: String,
    handle_sha256: String,
    browser_sha256: Option<String>,
    secrets_sealed: String,
    return_to: Option<String>,
    poll_after: i64,
    created_at: i64,
    expires_at: i64,
}

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// Its id.
    pub id: Uuid,
    /// At which provider.
    pub provider: String,
    /// What is needed to end it, sealed.
    pub secrets_sealed: String,
    /// The hash of the browser's cookie; nothing for a terminal.
    pub browser_sha256: Option<String>,
    /// Where the browser goes afterwards.
    pub return_to: Option<String>,
    /// Before that the provider is not asked (terminals).
    pub poll_after: Timestamp,
    /// When it began.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
}

impl Row {
    fn read(self) -> SignIn {
        SignIn {
            id: self.id.0,
            provider: self.provider,
            secrets_sealed: self.secrets_sealed,
            browser_sha256: self.browser_sha256,
            return_to: self.return_to,
            poll_after: Timestamp::from_micros(self.poll_after),
            created_at: Timestamp::from_micros(self.created_at),
            expires_at: Timestamp::from_micros(self.expires_at),
        }
    }
}

/// Writes a sign-in that has begun, and removes those whose time is over.
pub fn insert(tx: &mut SystemTx<'_>, sign_in: &SignIn, handle_sha256: &str) -> Result<(), DbError> {
    let over = sign_ins::expires_at.le(sign_in.created_at.micros());
    diesel::delete(sign_ins::table.filter(over)).execute(tx.sql())?;
    let kind = if sign_in.browser_sha256.is_some() { "browser" } else { "device" };
    let row = Row {
        id: Key(sign_in.id),
        kind: kind.to_owned(),
        provider: sign_in.provider.clone(),
        handle_sha256: handle_sha256.to_owned(),
        browser_sha256: sign_in.browser_sha256.clone(),
        secrets_sealed: sign_in.secrets_sealed.clone(),
        return_to: sign_in.return_to.clone(),
        poll_after: sign_in.poll_after.micros(),
        created_at: sign_in.created_at.micros(),
        expires_at: sign_in.expires_at.micros(),
    };
    diesel::insert_into(sign_ins::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// Takes a browser's sign-in away: only with what came back, from the browser where it began, in time, and once.
pub fn take(
    tx: &mut SystemTx<'_>,
    handle_sha256: &str,
    browser_sha256: &str,
    now: Timestamp,
) -> Result<Option<SignIn>, DbError> {
    let row: Option<Row> = sign_ins::table
        .filter(sign_ins::handle_sha256.eq(handle_sha256))
        .filter(sign_ins::browser_sha256.eq(browser_sha256))
        .filter(sign_ins::expires_at.gt(now.micros()))
        .first(tx.sql())
        .optional()?;
    let Some(row) = row else { return Ok(None) };
    delete(tx, row.id.0)?;
    Ok(Some(row.read()))
}

/// Finds a terminal's sign-in that is not over.
pub fn find_device(
    tx: &mut SystemTx<'_>,
    handle_sha256: &str,
    now: Timestamp,
) -> Result<Option<SignIn>, DbError> {
    let row: Option<Row> = sign_ins::table
        .filter(sign_ins::handle_sha256.eq(handle_sha256))
        .filter(sign_ins::kind.eq("device"))
        .filter(sign_ins::expires_at.gt(now.micros()))
        .first(tx.sql())
        .optional()?;
    Ok(row.map(Row::read))
}

/// Writes when the provider may be asked again.
pub fn poll_after(tx: &mut SystemTx<'_>, id: Uuid, at: Timestamp) -> Result<(), DbError> {
    diesel::update(sign_ins::table.filter(sign_ins::id.eq(Key(id))))
        .set(sign_ins::poll_after.eq(at.micros()))
        .execute(tx.sql())?;
    Ok(())
}

/// Ends a sign-in; answers false when it had ended.
pub fn delete(tx: &mut SystemTx<'_>, id: Uuid) -> Result<bool, DbError> {
    Ok(diesel::delete(sign_ins::table.filter(sign_ins::id.eq(Key(id)))).execute(tx.sql())? == 1)
}

//! Sessions of people who signed in, and access tokens that were signed out. (`session` is about iSCSI.)
//!
//! Nobody is the caller yet when these are looked up, so all of it runs for no caller.

use bmi_auth::Subject;
use bmi_types::Timestamp;
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{Key, readable, word};
use crate::schema::{logins, revoked_tokens};
use crate::{DbError, SystemTx};

/// What holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A browser, in a cookie.
    Browser,
    /// A program on somebody's machine, in a file.
    Device,
}

impl Holder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Device => "device",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Browser, Self::Device].into_iter().find(|holder| holder.as_str() == word)
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = logins)]
struct Row {
    id: Key,
    kind: String,
    sha256: String,
    provider: String,
    subject: String,
    display: String,
    grants: String,
    created_at: i64,
    last_seen_at: i64,
    expires_at: i64,
}

/// What a provider said of somebody when they signed in.
#[derive(serde::Serialize, serde::Deserialize)]
struct Grants {
    groups: Vec<String>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its id.
    pub id: Uuid,
    /// What holds it.
    pub holder: Holder,
    /// At which provider it began.
    pub provider: String,
    /// Whose it is.
    pub subject: Subject,
    /// Their name for people.
    pub display: String,
    /// Their groups, as of the sign-in.
    pub groups: Vec<Subject>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen_at: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
}

impl Row {
    fn read(self) -> Result<Login, DbError> {
        let grants: Grants = readable("logins", "grants", &self.grants, serde_json::from_str(&self.grants))?;
        Ok(Login {
            id: self.id.0,
            holder: word!("logins", "kind", Holder, self.kind)?,
            provider: self.provider,
            subject: Subject::known(self.subject),
            display: self.display,
            groups: grants.groups.into_iter().map(Subject::known).collect(),
            created_at: Timestamp::from_micros(self.created_at),
            last_seen_at: Timestamp::from_micros(self.last_seen_at),
            expires_at: Timestamp::from_micros(self.expires_at),
        })
    }
}

/// Writes a new session under the hash of its token.
pub fn insert(tx: &mut SystemTx<'_>, login: &Login, sha256: &str) -> Result<(), DbError> {
    let groups: Vec<&str> = login.groups.iter().map(Subject::as_str).collect();
    let row = Row {
        id: Key(login.id),
        kind: login.holder.as_str().to_owned(),
        sha256: sha256.to_owned(),
        provider: login.provider.clone(),
        subject: login.subject.to_string(),
        display: login.display.clone(),
        grants: serde_json::json!({"groups": groups}).to_string(),
        created_at: login.created_at.micros(),
        last_seen_at: login.last_seen_at.micros(),
        expires_at: login.expires_at.micros(),
    };
    diesel::insert_into(logins::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// Finds a session by the hash of its token and by what holds it.
pub fn find(tx: &mut SystemTx<'_>, holder: Holder, sha256: &str) -> Result<Option<Login>, DbError> {
    let row: Option<Row> = logins::table
        .filter(logins::sha256.eq(sha256))
        .filter(logins::kind.eq(holder.as_str()))
        .first(tx.sql())
        .optional()?;
    row.map(Row::read).transpose()
}

/// Writes that a session was used.
pub fn seen(tx: &mut SystemTx<'_>, id: Uuid, now: Timestamp) -> Result<(), DbError> {
    diesel::update(logins::table.filter(logins::id.eq(Key(id))))
        .set(logins::last_seen_at.eq(now.micros()))
        .execute(tx.sql())?;
    Ok(())
}

/// Ends the session of a token, if there is one.
pub fn delete(tx: &mut SystemTx<'_>, sha256: &str) -> Result<(), DbError> {
    diesel::delete(logins::table.filter(logins::sha256.eq(sha256))).execute(tx.sql())?;
    Ok(())
}

/// Writes that an access token, known by its hash, is not taken any more until it expires.
pub fn revoke(tx: &mut SystemTx<'_>, sha256: &str, expires_at: Timestamp) -> Result<(), DbError> {
    if !is_revoked(tx, sha256)? {
        let new = (revoked_tokens::sha256.eq(sha256), revoked_tokens::expires_at.eq(expires_at.micros()));
        diesel::insert_into(revoked_tokens::table).values(new).execute(tx.sql())?;
    }
    Ok(())
}

/// Whether an access token was signed out.
pub fn is_revoked(tx: &mut SystemTx<'_>, sha256: &str) -> Result<bool, DbError> {
    let found = revoked_tokens::table.filter(revoked_tokens::sha256.eq(sha256)).count();
    Ok(found.get_result::<i64>(tx.sql())? > 0)
}

/// Removes what has expired: sessions, also those that were not used since `idle`, and tokens.
pub fn forget(tx: &mut SystemTx<'_>, now: Timestamp, idle: Timestamp) -> Result<(), DbError> {
    let over = logins::expires_at.le(now.micros()).or(logins::last_seen_at.le(idle.micros()));
    diesel::delete(logins::table.filter(over)).execute(tx.sql())?;
    diesel::delete(revoked_tokens::table.filter(revoked_tokens::expires_at.le(now.micros())))
        .execute(tx.sql())?;
    Ok(())
}

//! Service accounts and their tokens.

use bmi_api::{ServiceAccount, ServiceToken};
use bmi_auth::{Limits, Subject};
use bmi_types::{ServiceAccountId, ServiceTokenId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable};
use crate::schema::{service_accounts, service_tokens};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = service_accounts)]
struct Row {
    id: Key,
    project_id: Key,
    name: String,
    description: String,
    scopes: String,
    created_at: i64,
    created_by: String,
    version: i64,
}

#[derive(Queryable)]
struct TokenRow {
    id: Key,
    account_id: Key,
    _sha256: String,
    created_at: i64,
    expires_at: i64,
    last_used_at: Option<i64>,
}

fn scopes(text: &str) -> Result<Vec<String>, DbError> {
    readable("service_accounts", "scopes", text, serde_json::from_str(text))
}

impl Row {
    fn read(self, tokens: Vec<ServiceToken>) -> Result<ServiceAccount, DbError> {
        Ok(ServiceAccount {
            id: self.id.into(),
            name: readable("service_accounts", "name", &self.name, self.name.parse())?,
            project: self.project_id.into(),
            description: self.description,
            scopes: scopes(&self.scopes)?,
            tokens,
            created_by: self.created_by,
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }
}

impl TokenRow {
    fn read(self) -> ServiceToken {
        ServiceToken {
            id: self.id.into(),
            created_at: Timestamp::from_micros(self.created_at),
            expires_at: Timestamp::from_micros(self.expires_at),
            last_used_at: self.last_used_at.map(Timestamp::from_micros),
        }
    }
}

/// Writes a new account, without its tokens.
pub fn insert(tx: &mut Tx<'_>, project: InProject, account: &ServiceAccount) -> Result<(), DbError> {
    let row = Row {
        id: account.id.into(),
        project_id: project.key(),
        name: account.name.to_string(),
        description: account.description.clone(),
        scopes: serde_json::json!(account.scopes).to_string(),
        created_at: account.created_at.micros(),
        created_by: account.created_by.clone(),
        version: account.version,
    };
    diesel::insert_into(service_accounts::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// The tokens of accounts that have not expired, with whose they are, oldest first.
fn tokens_of(tx: &mut Tx<'_>, accounts: &[Key], now: Timestamp) -> Result<Vec<(Key, ServiceToken)>, DbError> {
    let rows: Vec<TokenRow> = service_tokens::table
        .filter(service_tokens::account_id.eq_any(accounts.to_vec()))
        .filter(service_tokens::expires_at.gt(now.micros()))
        .order(service_tokens::id.asc())
        .load(tx.sql())?;
    Ok(rows.into_iter().map(|row| (row.account_id, row.read())).collect())
}

/// Finds an account of a project, with its tokens.
pub fn find(
    tx: &mut Tx<'_>,
    project: InProject,
    reference: &Reference,
    now: Timestamp,
) -> Result<Option<ServiceAccount>, DbError> {
    let mut query =
        service_accounts::table.filter(service_accounts::project_id.eq(project.key())).into_boxed();
    query = match reference {
        Reference::Id(id) => query.filter(service_accounts::id.eq(Key(*id))),
        Reference::Name(name) => query.filter(service_accounts::name.eq(name.as_str())),
    };
    let row: Option<Row> = query.first(tx.sql()).optional()?;
    let Some(row) = row else { return Ok(None) };
    let tokens = tokens_of(tx, &[row.id], now)?.into_iter().map(|(_, token)| token).collect();
    row.read(tokens).map(Some)
}

/// One page of the accounts of a project.
pub fn list(
    tx: &mut Tx<'_>,
    project: InProject,
    after: After,
    now: Timestamp,
) -> Result<Vec<ServiceAccount>, DbError> {
    let rows: Vec<Row> = service_accounts::table
        .filter(service_accounts::project_id.eq(project.key()))
        .filter(service_accounts::id.gt(Key(after.id)))
        .order(service_accounts::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    let ids: Vec<Key> = rows.iter().map(|row| row.id).collect();
    let tokens = tokens_of(tx, &ids, now)?;
    rows.into_iter()
        .map(|row| {
            let mine = tokens.iter().filter(|(account, _)| *account == row.id);
            let mine = mine.map(|(_, token)| token.clone()).collect();
            row.read(mine)
        })
        .collect()
}

/// How many accounts a project has.
pub fn count(tx: &mut Tx<'_>, project: InProject) -> Result<i64, DbError> {
    let mine = service_accounts::table.filter(service_accounts::project_id.eq(project.key()));
    Ok(mine.count().get_result(tx.sql())?)
}

/// Writes a changed account under its next version; answers false when it had been changed in between.
pub fn update(tx: &mut Tx<'_>, project: InProject, account: &ServiceAccount) -> Result<bool, DbError> {
    let changed = diesel::update(
        service_accounts::table
            .filter(service_accounts::project_id.eq(project.key()))
            .filter(service_accounts::id.eq(Key::from(account.id)))
            .filter(service_accounts::version.eq(account.version)),
    )
    .set((
        service_accounts::description.eq(&account.description),
        service_accounts::scopes.eq(serde_json::json!(account.scopes).to_string()),
        service_accounts::version.eq(account.version + 1),
    ))
    .execute(tx.sql())?;
    Ok(changed == 1)
}

/// Removes an account that was found, and its tokens.
pub fn delete(tx: &mut Tx<'_>, project: InProject, account: ServiceAccountId) -> Result<(), DbError> {
    let mine = service_accounts::table
        .filter(service_accounts::project_id.eq(project.key()))
        .filter(service_accounts::id.eq(Key::from(account)));
    diesel::delete(mine).execute(tx.sql())?;
    Ok(())
}

/// Writes a new token of an account that was found, under its hash; tokens that have expired are removed.
pub fn token_insert(
    tx: &mut Tx<'_>,
    account: ServiceAccountId,
    sha256: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<ServiceToken, DbError> {
    let of_account = service_tokens::table.filter(service_tokens::account_id.eq(Key::from(account)));
    diesel::delete(of_account.filter(service_tokens::expires_at.le(now.micros()))).execute(tx.sql())?;
    let id = ServiceTokenId::generate();
    diesel::insert_into(service_tokens::table)
        .values((
            service_tokens::id.eq(Key::from(id)),
            service_tokens::account_id.eq(Key::from(account)),
            service_tokens::sha256.eq(sha256),
            service_tokens::created_at.eq(now.micros()),
            service_tokens::expires_at.eq(expires_at.micros()),
        ))
        .execute(tx.sql())?;
    Ok(ServiceToken { id, created_at: now, expires_at, last_used_at: None })
}

/// Lets the tokens of an account end at a time, where they would not end before.
pub fn tokens_end(tx: &mut Tx<'_>, account: ServiceAccountId, at: Timestamp) -> Result<(), DbError> {
    let later = service_tokens::table
        .filter(service_tokens::account_id.eq(Key::from(account)))
        .filter(service_tokens::expires_at.gt(at.micros()));
    diesel::update(later).set(service_tokens::expires_at.eq(at.micros())).execute(tx.sql())?;
    Ok(())
}

/// Removes a token of an account that was found; answers false when there is none of that id.
pub fn token_delete(
    tx: &mut Tx<'_>,
    account: ServiceAccountId,
    token: ServiceTokenId,
) -> Result<bool, DbError> {
    let mine = service_tokens::table
        .filter(service_tokens::account_id.eq(Key::from(account)))
        .filter(service_tokens::id.eq(Key::from(token)));
    Ok(diesel::delete(mine).execute(tx.sql())? == 1)
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The token.
    pub token: ServiceTokenId,
    /// The account.
    pub account: ServiceAccountId,
    /// Its name.
    pub name: String,
    /// What it is limited to.
    pub limits: Limits,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// When the token was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl Holder {
    /// The account as a subject of the policy.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::service_account(self.account.uuid())
    }
}

/// Finds whose a token is by its hash, also when it has expired.
pub fn of_token(tx: &mut SystemTx<'_>, sha256: &str) -> Result<Option<Holder>, DbError> {
    let found: Option<(TokenRow, Row)> = service_tokens::table
        .inner_join(service_accounts::table.on(service_accounts::id.eq(service_tokens::account_id)))
        .filter(service_tokens::sha256.eq(sha256))
        .first(tx.sql())
        .optional()?;
    found
        .map(|(token, account)| {
            Ok(Holder {
                token: token.id.into(),
                account: account.id.into(),
                name: account.name,
                limits: Limits { project: account.project_id.into(), scopes: scopes(&account.scopes)? },
                expires_at: Timestamp::from_micros(token.expires_at),
                last_used_at: token.last_used_at.map(Timestamp::from_micros),
            })
        })
        .transpose()
}

/// Writes that a token was used.
pub fn token_used(tx: &mut SystemTx<'_>, token: ServiceTokenId, now: Timestamp) -> Result<(), DbError> {
    diesel::update(service_tokens::table.filter(service_tokens::id.eq(Key::from(token))))
        .set(service_tokens::last_used_at.eq(Some(now.micros())))
        .execute(tx.sql())?;
    Ok(())
}

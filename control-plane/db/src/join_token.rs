//! Tokens with which agents join a network, known by their hash.

use bmi_api::JoinToken;
use bmi_types::{AgentId, JoinTokenId, NetworkId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key};
use crate::schema::join_tokens;
use crate::{DbError, SystemTx, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = join_tokens)]
struct Row {
    id: Key,
    network_id: Key,
    sha256: String,
    created_by: String,
    created_at: i64,
    expires_at: i64,
    agent_id: Option<Key>,
    used_key_sha256: Option<String>,
    used_at: Option<i64>,
    certificate: Option<String>,
    answer_until: Option<i64>,
}

/// Whose a token was, once it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// By which agent.
    pub agent: AgentId,
    /// With which key.
    pub key_sha256: String,
    /// What was issued; nothing while the key waits for approval.
    pub certificate: Option<String>,
    /// Until when the same is answered again.
    pub answer_until: Timestamp,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub id: JoinTokenId,
    /// The network that it lets in to.
    pub network: NetworkId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Its use.
    pub used: Option<Use>,
}

impl Row {
    fn read(self) -> JoinToken {
        JoinToken {
            id: self.id.into(),
            network: self.network_id.into(),
            created_by: self.created_by,
            created_at: Timestamp::from_micros(self.created_at),
            expires_at: Timestamp::from_micros(self.expires_at),
            used_at: self.used_at.map(Timestamp::from_micros),
            agent: self.agent_id.map(Into::into),
        }
    }
}

/// Writes a new token under its hash. Those of its network that have ended are removed, once nobody asks for their answer
/// any more.
pub fn insert(tx: &mut Tx<'_>, token: &JoinToken, sha256: &str, now: Timestamp) -> Result<(), DbError> {
    let ended = join_tokens::table
        .filter(join_tokens::network_id.eq(Key::from(token.network)))
        .filter(join_tokens::expires_at.le(now.micros()))
        .filter(join_tokens::answer_until.is_null().or(join_tokens::answer_until.le(now.micros())));
    diesel::delete(ended).execute(tx.sql())?;
    let row = Row {
        id: token.id.into(),
        network_id: token.network.into(),
        sha256: sha256.to_owned(),
        created_by: token.created_by.clone(),
        created_at: token.created_at.micros(),
        expires_at: token.expires_at.micros(),
        agent_id: None,
        used_key_sha256: None,
        used_at: None,
        certificate: None,
        answer_until: None,
    };
    diesel::insert_into(join_tokens::table).values(&row).execute(tx.sql())?;
    Ok(())
}

/// How many tokens of a network can still be used.
pub fn count(tx: &mut Tx<'_>, network: NetworkId, now: Timestamp) -> Result<i64, DbError> {
    let open = join_tokens::table
        .filter(join_tokens::network_id.eq(Key::from(network)))
        .filter(join_tokens::used_at.is_null())
        .filter(join_tokens::expires_at.gt(now.micros()));
    Ok(open.count().get_result(tx.sql())?)
}

/// One page of tokens.
pub fn list(tx: &mut Tx<'_>, after: After) -> Result<Vec<JoinToken>, DbError> {
    let rows: Vec<Row> = join_tokens::table
        .filter(join_tokens::id.gt(Key(after.id)))
        .order(join_tokens::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Finds one by its id.
pub fn find(tx: &mut Tx<'_>, id: JoinTokenId) -> Result<Option<JoinToken>, DbError> {
    let row: Option<Row> =
        join_tokens::table.filter(join_tokens::id.eq(Key::from(id))).first(tx.sql()).optional()?;
    Ok(row.map(Row::read))
}

/// Removes one.
pub fn delete(tx: &mut Tx<'_>, id: JoinTokenId) -> Result<(), DbError> {
    diesel::delete(join_tokens::table.filter(join_tokens::id.eq(Key::from(id)))).execute(tx.sql())?;
    Ok(())
}

/// Finds one by its hash, whatever became of it.
pub fn of_hash(tx: &mut SystemTx<'_>, sha256: &str) -> Result<Option<Record>, DbError> {
    let row: Option<Row> =
        join_tokens::table.filter(join_tokens::sha256.eq(sha256)).first(tx.sql()).optional()?;
    let record = |row: Row| Record {
        id: row.id.into(),
        network: row.network_id.into(),
        expires_at: Timestamp::from_micros(row.expires_at),
        used: row.agent_id.zip(row.used_key_sha256).zip(row.answer_until).map(|((agent, key), until)| Use {
            agent: agent.into(),
            key_sha256: key,
            certificate: row.certificate,
            answer_until: Timestamp::from_micros(until),
        }),
    };
    Ok(row.map(record))
}

/// Writes that a token was used, and by whom.
pub fn used(tx: &mut SystemTx<'_>, id: JoinTokenId, by: &Use, now: Timestamp) -> Result<(), DbError> {
    diesel::update(join_tokens::table.filter(join_tokens::id.eq(Key::from(id))))
        .set((
            join_tokens::agent_id.eq(Some(Key::from(by.agent))),
            join_tokens::used_key_sha256.eq(Some(&by.key_sha256)),
            join_tokens::used_at.eq(Some(now.micros())),
            join_tokens::certificate.eq(by.certificate.as_ref()),
            join_tokens::answer_until.eq(Some(by.answer_until.micros())),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// Prolongs the time in which whoever used a token with this key is answered.
pub fn answers_until(
    tx: &mut Tx<'_>,
    agent: AgentId,
    key_sha256: &str,
    until: Timestamp,
) -> Result<(), DbError> {
    let mine = join_tokens::table
        .filter(join_tokens::agent_id.eq(Key::from(agent)))
        .filter(join_tokens::used_key_sha256.eq(key_sha256));
    diesel::update(mine).set(join_tokens::answer_until.eq(Some(until.micros()))).execute(tx.sql())?;
    Ok(())
}

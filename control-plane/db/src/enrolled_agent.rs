//! Agents that joined a network: which key each has, and whether it may speak.
//!
//! What the agent of a network reports is in `agent`, whoever it is.

use bmi_api::{Agent, AgentState};
use bmi_types::{AgentId, AuthorityId, NetworkId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, word};
use crate::schema::enrolled_agents as agents;
use crate::{DbError, SystemTx, Tx};

#[derive(Debug, Clone, Queryable, Insertable, AsChangeset)]
#[diesel(table_name = agents)]
#[diesel(treat_none_as_null = true)]
struct Row {
    id: Key,
    network_id: Key,
    state: String,
    key_sha256: String,
    previous_key_sha256: Option<String>,
    previous_until: Option<i64>,
    pending_key_sha256: Option<String>,
    authority_id: Key,
    certificate_until: i64,
    agent_version: String,
    clock_ahead_ms: Option<i64>,
    enrolled_at: i64,
    last_seen: i64,
    version: i64,
}

/// Whether an agent may speak for its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Active,
    /// It waits until it is to take over from the active one.
    Standby,
    /// It may say nothing, and never will again.
    Revoked,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Revoked => "revoked",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Standby, Self::Revoked].into_iter().find(|it| it.word() == word)
    }
}

/// An agent as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub id: AgentId,
    /// Its network.
    pub network: NetworkId,
    /// Whether it may speak.
    pub standing: Standing,
    /// The hash of its key.
    pub key_sha256: String,
    /// The key that it renewed with last: it counts until the new one is used, in case that its answer was lost.
    pub previous_key_sha256: Option<String>,
    /// When that ends, once the new one was used.
    pub previous_until: Option<Timestamp>,
    /// A key that somebody with a token wants to have in the place of its own.
    pub pending_key_sha256: Option<String>,
    /// Who issued its newest certificate.
    pub authority: AuthorityId,
    /// When that certificate ends.
    pub certificate_until: Timestamp,
    /// The version that it last said it is.
    pub agent_version: String,
    /// How far its clock was ahead of the control plane's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// When it joined.
    pub enrolled_at: Timestamp,
    /// When it last said something.
    pub last_seen: Timestamp,
    /// Grows with each change that somebody makes.
    pub version: i64,
}

impl Record {
    /// Whether a key is its own: the newest, or the one before while it may not know the newest.
    #[must_use]
    pub fn has_key(&self, sha256: &str) -> bool {
        self.key_sha256 == sha256
            || self.previous_until.is_none() && self.previous_key_sha256.as_deref() == Some(sha256)
    }

    fn row(&self) -> Row {
        Row {
            id: self.id.into(),
            network_id: self.network.into(),
            state: self.standing.word().to_owned(),
            key_sha256: self.key_sha256.clone(),
            previous_key_sha256: self.previous_key_sha256.clone(),
            previous_until: self.previous_until.map(Timestamp::micros),
            pending_key_sha256: self.pending_key_sha256.clone(),
            authority_id: self.authority.into(),
            certificate_until: self.certificate_until.micros(),
            agent_version: self.agent_version.clone(),
            clock_ahead_ms: self.clock_ahead_ms,
            enrolled_at: self.enrolled_at.micros(),
            last_seen: self.last_seen.micros(),
            version: self.version,
        }
    }

    /// As the API shows it.
    #[must_use]
    pub fn shown(self) -> Agent {
        let state = match (self.standing, &self.pending_key_sha256) {
            (Standing::Revoked, _) => AgentState::Revoked,
            (_, Some(_)) => AgentState::Pending,
            (Standing::Active, None) => AgentState::Active,
            (Standing::Standby, None) => AgentState::Standby,
        };
        Agent {
            id: self.id,
            network: self.network,
            state,
            serving: self.standing == Standing::Active,
            key_sha256: self.key_sha256,
            pending_key_sha256: self.pending_key_sha256,
            authority: self.authority,
            certificate_until: self.certificate_until,
            agent_version: self.agent_version,
            clock_ahead_ms: self.clock_ahead_ms,
            enrolled_at: self.enrolled_at,
            last_seen: self.last_seen,
            version: self.version,
        }
    }
}

impl Row {
    fn read(self) -> Result<Record, DbError> {
        Ok(Record {
            id: self.id.into(),
            network: self.network_id.into(),
            standing: word!("enrolled_agents", "state", Standing, self.state)?,
            key_sha256: self.key_sha256,
            previous_key_sha256: self.previous_key_sha256,
            previous_until: self.previous_until.map(Timestamp::from_micros),
            pending_key_sha256: self.pending_key_sha256,
            authority: self.authority_id.into(),
            certificate_until: Timestamp::from_micros(self.certificate_until),
            agent_version: self.agent_version,
            clock_ahead_ms: self.clock_ahead_ms,
            enrolled_at: Timestamp::from_micros(self.enrolled_at),
            last_seen: Timestamp::from_micros(self.last_seen),
            version: self.version,
        })
    }
}

/// Writes a new one.
pub fn insert(tx: &mut SystemTx<'_>, record: &Record) -> Result<(), DbError> {
    diesel::insert_into(agents::table).values(&record.row()).execute(tx.sql())?;
    Ok(())
}

/// Writes one that was found in the same transaction.
pub fn update(tx: &mut Tx<'_>, record: &Record) -> Result<(), DbError> {
    let mine = agents::table.filter(agents::id.eq(Key::from(record.id)));
    diesel::update(mine).set(&record.row()).execute(tx.sql())?;
    Ok(())
}

/// Finds one.
pub fn find(tx: &mut Tx<'_>, id: AgentId) -> Result<Option<Record>, DbError> {
    let row: Option<Row> = agents::table.filter(agents::id.eq(Key::from(id))).first(tx.sql()).optional()?;
    row.map(Row::read).transpose()
}

/// One page of agents, of one network or of all.
pub fn list(tx: &mut Tx<'_>, network: Option<NetworkId>, after: After) -> Result<Vec<Record>, DbError> {
    let mut query = agents::table.filter(agents::id.gt(Key(after.id))).into_boxed();
    if let Some(network) = network {
        query = query.filter(agents::network_id.eq(Key::from(network)));
    }
    let rows: Vec<Row> = query.order(agents::id.asc()).limit(after.limit).load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// Those of a network that have some standing.
pub fn of_network(tx: &mut Tx<'_>, network: NetworkId, standing: Standing) -> Result<Vec<Record>, DbError> {
    let rows: Vec<Row> = agents::table
        .filter(agents::network_id.eq(Key::from(network)))
        .filter(agents::state.eq(standing.word()))
        .order(agents::id.asc())
        .load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// How many agents, of those that may still speak, have their certificate from an authority, or may have: one that has not
/// spoken with its new key yet may not have heard of it, and has the certificate from before, whoever that is from.
pub fn count_of_authority(tx: &mut Tx<'_>, authority: AuthorityId, now: Timestamp) -> Result<i64, DbError> {
    let mine = agents::table
        .filter(
            agents::authority_id
                .eq(Key::from(authority))
                .or(agents::previous_key_sha256.is_not_null().and(agents::previous_until.is_null())),
        )
        .filter(agents::state.ne(Standing::Revoked.word()))
        .filter(agents::certificate_until.gt(now.micros()));
    Ok(mine.count().get_result(tx.sql())?)
}

/// Writes what an agent said of itself.
pub fn seen(
    tx: &mut SystemTx<'_>,
    id: AgentId,
    agent_version: &str,
    clock_ahead_ms: Option<i64>,
    now: Timestamp,
) -> Result<(), DbError> {
    diesel::update(agents::table.filter(agents::id.eq(Key::from(id))))
        .set((
            agents::agent_version.eq(agent_version),
            agents::clock_ahead_ms.eq(clock_ahead_ms),
            agents::last_seen.eq(now.micros()),
        ))
        .execute(tx.sql())?;
    Ok(())
}

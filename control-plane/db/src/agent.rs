//! What agents last reported.

use bmi_types::{NetworkId, Timestamp};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::agents;
use crate::{DbError, SystemTx};

/// One agent's report, as far as it concerns the agent itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// The generation it has carried out.
    pub generation_observed: i64,
    /// State of the boot services.
    pub netboot_state: &'static str,
    /// Why they failed.
    pub netboot_reason: Option<String>,
    /// What its firewalls dropped, as it is written.
    pub dropped: String,
}

#[derive(Insertable, AsChangeset)]
#[diesel(table_name = agents)]
#[diesel(treat_none_as_null = true)]
struct Row {
    network_id: Key,
    agent_version: String,
    generation_observed: i64,
    netboot_state: String,
    netboot_reason: Option<String>,
    last_seen: i64,
    dropped: String,
}

/// Writes a report over the one before.
pub fn report(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    report: &Report,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = Row {
        network_id: network.into(),
        agent_version: report.version.clone(),
        generation_observed: report.generation_observed,
        netboot_state: report.netboot_state.to_owned(),
        netboot_reason: report.netboot_reason.clone(),
        last_seen: now.micros(),
        dropped: report.dropped.clone(),
    };
    let mine = agents::table.filter(agents::network_id.eq(row.network_id));
    if diesel::update(mine).set(&row).execute(tx.sql())? == 0 {
        diesel::insert_into(agents::table).values(&row).execute(tx.sql())?;
    }
    Ok(())
}

/// The generation the network's agent has carried out; nothing when no agent has ever reported.
pub fn generation_observed(tx: &mut SystemTx<'_>, network: NetworkId) -> Result<Option<i64>, DbError> {
    Ok(agents::table
        .filter(agents::network_id.eq(Key::from(network)))
        .select(agents::generation_observed)
        .first(tx.sql())
        .optional()?)
}

//! Networks and their generation.

use bmi_api::{AgentStatus, Network, NewNetwork};
use bmi_types::{DhcpMode, Ipv4Net, NetworkId, NetworkPlan, ProjectId, Segment, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable};
use crate::schema::{agents, network_projects, networks};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = networks)]
struct Row {
    id: Key,
    name: String,
    plan: String,
    first_address: i64,
    last_address: i64,
    dhcp: String,
    segment: String,
    generation: i64,
    created_at: i64,
    version: i64,
    relays: String,
    access: String,
}

#[derive(Queryable)]
struct AgentRow {
    _network_id: Key,
    _agent_version: String,
    generation_observed: i64,
    netboot_state: String,
    netboot_reason: Option<String>,
    last_seen: i64,
    _dropped: String,
}

fn dhcp_from_word(word: &str) -> Result<DhcpMode, ()> {
    [DhcpMode::Authoritative, DhcpMode::Proxy, DhcpMode::Off]
        .into_iter()
        .find(|mode| mode.to_string() == word)
        .ok_or(())
}

impl Row {
    fn read(self, agent: Option<AgentRow>, projects: Option<Vec<ProjectId>>) -> Result<Network, DbError> {
        let generation = self.generation;
        Ok(Network {
            id: self.id.into(),
            name: readable("networks", "name", &self.name, self.name.parse())?,
            plan: readable("networks", "plan", &self.plan, serde_json::from_str(&self.plan))?,
            dhcp: readable("networks", "dhcp", &self.dhcp, dhcp_from_word(&self.dhcp))?,
            relays: readable("networks", "relays", &self.relays, serde_json::from_str(&self.relays))?,
            warning: None,
            projects,
            segment: readable("networks", "segment", &self.segment, serde_json::from_str(&self.segment))?,
            agent: agent.map(|agent| AgentStatus {
                generation_observed: agent.generation_observed,
                generation,
                netboot: agent.netboot_state,
                reason: agent.netboot_reason,
                last_seen: Timestamp::from_micros(agent.last_seen),
            }),
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }
}

/// Writes a new network.
pub fn insert(
    tx: &mut Tx<'_>,
    id: NetworkId,
    new: &NewNetwork,
    plan: &NetworkPlan,
    users: Option<&[InProject]>,
    now: Timestamp,
) -> Result<Network, DbError> {
    let json =
        |value: serde_json::Result<String>| value.map_err(|error| DbError::Unavailable(error.to_string()));
    let row = Row {
        id: id.into(),
        name: new.name.to_string(),
        plan: json(serde_json::to_string(plan))?,
        first_address: u32::from(plan.cidr.network()).into(),
        last_address: u32::from(plan.cidr.broadcast()).into(),
        dhcp: new.dhcp.to_string(),
        segment: json(serde_json::to_string(&new.segment))?,
        generation: 1,
        created_at: now.micros(),
        version: 1,
        relays: json(serde_json::to_string(&new.relays))?,
        access: access_word(users).to_owned(),
    };
    diesel::insert_into(networks::table).values(&row).execute(tx.sql())?;
    users_write(tx, id, users)?;
    let projects = projects(tx, &row)?;
    row.read(None, projects)
}

fn joined(tx: &mut Tx<'_>, rows: Vec<(Row, Option<AgentRow>)>) -> Result<Vec<Network>, DbError> {
    rows.into_iter()
        .map(|(row, agent)| {
            let projects = projects(tx, &row)?;
            row.read(agent, projects)
        })
        .collect()
}

const fn access_word(users: Option<&[InProject]>) -> &'static str {
    match users {
        None => "all",
        Some(_) => "named",
    }
}

/// The projects that may use a network, as far as the transaction may see them; nothing when all may.
fn projects(tx: &mut Tx<'_>, row: &Row) -> Result<Option<Vec<ProjectId>>, DbError> {
    if row.access == "all" {
        return Ok(None);
    }
    let mut query = network_projects::table
        .filter(network_projects::network_id.eq(row.id))
        .order(network_projects::project_id.asc())
        .select(network_projects::project_id)
        .into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(network_projects::project_id.eq_any(only));
    }
    let ids: Vec<Key> = query.load(tx.sql())?;
    Ok(Some(ids.into_iter().map(Into::into).collect()))
}

fn users_write(tx: &mut Tx<'_>, id: NetworkId, users: Option<&[InProject]>) -> Result<(), DbError> {
    let mine = network_projects::table.filter(network_projects::network_id.eq(Key::from(id)));
    diesel::delete(mine).execute(tx.sql())?;
    for project in users.unwrap_or_default() {
        let row =
            (network_projects::network_id.eq(Key::from(id)), network_projects::project_id.eq(project.key()));
        diesel::insert_into(network_projects::table).values(row).execute(tx.sql())?;
    }
    Ok(())
}

/// Writes which projects may use a network, under its next version; answers false when it had been changed in
/// between.
pub fn users_update(
    tx: &mut Tx<'_>,
    network: &Network,
    users: Option<&[InProject]>,
) -> Result<bool, DbError> {
    let mine = networks::table
        .filter(networks::id.eq(Key::from(network.id)))
        .filter(networks::version.eq(network.version));
    let changed = diesel::update(mine)
        .set((networks::access.eq(access_word(users)), networks::version.eq(network.version + 1)))
        .execute(tx.sql())?;
    if changed == 1 {
        users_write(tx, network.id, users)?;
    }
    Ok(changed == 1)
}

/// Finds one network in the transaction's scope: one that a project in it may use.
pub fn find(tx: &mut Tx<'_>, reference: &Reference) -> Result<Option<Network>, DbError> {
    let mut query =
        networks::table.left_join(agents::table.on(agents::network_id.eq(networks::id))).into_boxed();
    if let Some(only) = tx.only() {
        let named = network_projects::table
            .filter(network_projects::project_id.eq_any(only))
            .select(network_projects::network_id);
        query = query.filter(networks::access.eq("all").or(networks::id.eq_any(named)));
    }
    query = match reference {
        Reference::Id(id) => query.filter(networks::id.eq(Key(*id))),
        Reference::Name(name) => query.filter(networks::name.eq(name.as_str())),
    };
    let rows: Vec<(Row, Option<AgentRow>)> = query.load(tx.sql())?;
    Ok(joined(tx, rows)?.pop())
}

/// Finds a network that one project may use.
pub fn usable(
    tx: &mut Tx<'_>,
    project: InProject,
    reference: &Reference,
) -> Result<Option<Network>, DbError> {
    let named = network_projects::table
        .filter(network_projects::project_id.eq(project.key()))
        .select(network_projects::network_id);
    let query = networks::table
        .left_join(agents::table.on(agents::network_id.eq(networks::id)))
        .filter(networks::access.eq("all").or(networks::id.eq_any(named)));
    let rows: Vec<(Row, Option<AgentRow>)> = match reference {
        Reference::Id(id) => query.filter(networks::id.eq(Key(*id))).load(tx.sql())?,
        Reference::Name(name) => query.filter(networks::name.eq(name.as_str())).load(tx.sql())?,
    };
    Ok(joined(tx, rows)?.pop())
}

/// A network that shares addresses with a CIDR, if there is one.
pub fn overlapping(tx: &mut Tx<'_>, cidr: Ipv4Net) -> Result<Option<Network>, DbError> {
    let row: Option<Row> = networks::table
        .filter(networks::first_address.le(i64::from(u32::from(cidr.broadcast()))))
        .filter(networks::last_address.ge(i64::from(u32::from(cidr.network()))))
        .first(tx.sql())
        .optional()?;
    row.map(|row| row.read(None, None)).transpose()
}

/// The name of the network that has a segment, if one has.
pub fn of_segment(tx: &mut Tx<'_>, segment: Segment) -> Result<Option<String>, DbError> {
    let text = serde_json::to_string(&segment).map_err(|error| DbError::Unavailable(error.to_string()))?;
    let name = networks::table.filter(networks::segment.eq(text)).select(networks::name);
    Ok(name.first(tx.sql()).optional()?)
}

/// One page of networks.
pub fn list(tx: &mut Tx<'_>, after: After) -> Result<Vec<Network>, DbError> {
    let mut query =
        networks::table.left_join(agents::table.on(agents::network_id.eq(networks::id))).into_boxed();
    if let Some(only) = tx.only() {
        let named = network_projects::table
            .filter(network_projects::project_id.eq_any(only))
            .select(network_projects::network_id);
        query = query.filter(networks::access.eq("all").or(networks::id.eq_any(named)));
    }
    let rows = query
        .filter(networks::id.gt(Key(after.id)))
        .order(networks::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    joined(tx, rows)
}

/// Raises the generation of a network's desired state and answers it.
pub fn bump_generation(tx: &mut SystemTx<'_>, id: NetworkId) -> Result<i64, DbError> {
    let network = networks::table.filter(networks::id.eq(Key::from(id)));
    diesel::update(network).set(networks::generation.eq(networks::generation + 1)).execute(tx.sql())?;
    generation(tx, id)
}

/// The generation of a network's desired state.
pub fn generation(tx: &mut SystemTx<'_>, id: NetworkId) -> Result<i64, DbError> {
    Ok(networks::table.filter(networks::id.eq(Key::from(id))).select(networks::generation).first(tx.sql())?)
}

/// Makes the next desired state of a network newer than a generation. Gives whether that changed anything.
pub fn generation_raise(tx: &mut SystemTx<'_>, id: NetworkId, above: i64) -> Result<bool, DbError> {
    let behind =
        networks::table.filter(networks::id.eq(Key::from(id))).filter(networks::generation.le(above));
    let next = above.saturating_add(1);
    Ok(diesel::update(behind).set(networks::generation.eq(next)).execute(tx.sql())? == 1)
}

/// Removes a network and its agent's record.
pub fn delete(tx: &mut Tx<'_>, id: NetworkId) -> Result<(), DbError> {
    diesel::delete(networks::table.filter(networks::id.eq(Key::from(id)))).execute(tx.sql())?;
    Ok(())
}

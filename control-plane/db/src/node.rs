//! Nodes and their NICs.

use std::collections::BTreeMap;

use bmi_api::{NewNode, Nic, Node, NodeState, Power};
use bmi_types::{Architecture, MacAddr, NodeId, ProjectId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable, word};
use crate::schema::{nics, nodes};
use crate::scope::InProject;
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = nodes)]
struct Row {
    id: Key,
    name: String,
    architecture: String,
    power: String,
    state: String,
    project_id: Option<Key>,
    created_at: i64,
    version: i64,
}

#[derive(Insertable)]
#[diesel(table_name = nics)]
struct NicRow {
    mac: String,
    node_id: Key,
    position: i64,
}

const fn architecture_word(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Aarch64 => "aarch64",
    }
}

fn architecture_from_word(word: &str) -> Result<Architecture, ()> {
    match word {
        "x86_64" => Ok(Architecture::X86_64),
        "aarch64" => Ok(Architecture::Aarch64),
        _ => Err(()),
    }
}

impl Row {
    fn read(self, nics: Vec<Nic>) -> Result<Node, DbError> {
        Ok(Node {
            id: self.id.into(),
            name: readable("nodes", "name", &self.name, self.name.parse())?,
            nics,
            architecture: readable(
                "nodes",
                "architecture",
                &self.architecture,
                architecture_from_word(&self.architecture),
            )?,
            power: word!("nodes", "power", Power, self.power)?,
            state: word!("nodes", "state", NodeState, self.state)?,
            project: self.project_id.map(Into::into),
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }
}

/// Adds each row's NICs, with one query for all.
fn with_nics(tx: &mut Tx<'_>, rows: Vec<Row>) -> Result<Vec<Node>, DbError> {
    let ids: Vec<Key> = rows.iter().map(|row| row.id).collect();
    let found: Vec<(Key, String)> = nics::table
        .filter(nics::node_id.eq_any(ids))
        .order((nics::node_id.asc(), nics::position.asc()))
        .select((nics::node_id, nics::mac))
        .load(tx.sql())?;
    let mut by_node: BTreeMap<NodeId, Vec<Nic>> = BTreeMap::new();
    for (node, mac) in found {
        let parsed = readable("nics", "mac", &mac, mac.parse::<MacAddr>())?;
        by_node.entry(node.into()).or_default().push(Nic { mac: parsed });
    }
    rows.into_iter()
        .map(|row| {
            let nics = by_node.remove(&row.id.into()).unwrap_or_default();
            row.read(nics)
        })
        .collect()
}

fn insert_nics(tx: &mut Tx<'_>, node: NodeId, list: &[Nic]) -> Result<(), DbError> {
    for (position, nic) in (0_i64..).zip(list) {
        let row = NicRow { mac: nic.mac.to_string(), node_id: node.into(), position };
        diesel::insert_into(nics::table).values(&row).execute(tx.sql())?;
    }
    Ok(())
}

/// Writes a new free node.
pub fn insert(tx: &mut Tx<'_>, id: NodeId, new: &NewNode, now: Timestamp) -> Result<Node, DbError> {
    let row = Row {
        id: id.into(),
        name: new.name.to_string(),
        architecture: architecture_word(new.architecture).to_owned(),
        power: new.power.to_string(),
        state: NodeState::Free.to_string(),
        project_id: None,
        created_at: now.micros(),
        version: 1,
    };
    diesel::insert_into(nodes::table).values(&row).execute(tx.sql())?;
    insert_nics(tx, id, &new.nics)?;
    row.read(new.nics.clone())
}

/// Finds one node in the transaction's scope: one that is assigned to nobody is seen by those who see everything.
pub fn find(tx: &mut Tx<'_>, reference: &Reference) -> Result<Option<Node>, DbError> {
    let mut query = nodes::table.into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(nodes::project_id.eq_any(only));
    }
    query = match reference {
        Reference::Id(id) => query.filter(nodes::id.eq(Key(*id))),
        Reference::Name(name) => query.filter(nodes::name.eq(name.as_str())),
    };
    let rows: Vec<Row> = query.load(tx.sql())?;
    Ok(with_nics(tx, rows)?.pop())
}

/// How many nodes are assigned to a project.
pub fn count(tx: &mut Tx<'_>, project: ProjectId) -> Result<i64, DbError> {
    Ok(nodes::table.filter(nodes::project_id.eq(Key::from(project))).count().get_result(tx.sql())?)
}

/// The name of the node that has a NIC, if one has.
pub fn name_of_mac(tx: &mut Tx<'_>, mac: MacAddr) -> Result<Option<(NodeId, String)>, DbError> {
    let found: Option<(Key, String)> = nodes::table
        .inner_join(nics::table.on(nics::node_id.eq(nodes::id)))
        .filter(nics::mac.eq(mac.to_string()))
        .select((nodes::id, nodes::name))
        .first(tx.sql())
        .optional()?;
    Ok(found.map(|(id, name)| (id.into(), name)))
}

/// One page of nodes, of one project when given.
pub fn list(tx: &mut Tx<'_>, project: Option<InProject>, after: After) -> Result<Vec<Node>, DbError> {
    let mut query = nodes::table
        .filter(nodes::id.gt(Key(after.id)))
        .order(nodes::id.asc())
        .limit(after.limit)
        .into_boxed();
    if let Some(only) = tx.only() {
        query = match only.as_slice() {
            // Of one project the index has the page in its order, which no plan has to find out.
            [one] => query.filter(nodes::project_id.eq(*one)),
            _ => query.filter(nodes::project_id.eq_any(only)),
        };
    }
    if let Some(project) = project {
        query = query.filter(nodes::project_id.eq(project.key()));
    }
    let rows: Vec<Row> = query.load(tx.sql())?;
    with_nics(tx, rows)
}

/// Writes a changed node under its next version; answers false when it had been changed in between.
pub fn update(tx: &mut Tx<'_>, node: &Node) -> Result<bool, DbError> {
    let changed = diesel::update(
        nodes::table.filter(nodes::id.eq(Key::from(node.id))).filter(nodes::version.eq(node.version)),
    )
    .set((
        nodes::name.eq(node.name.as_str()),
        nodes::state.eq(node.state.as_str()),
        nodes::project_id.eq(node.project.map(Key::from)),
        nodes::version.eq(node.version + 1),
    ))
    .execute(tx.sql())?;
    if changed == 1 {
        diesel::delete(nics::table.filter(nics::node_id.eq(Key::from(node.id)))).execute(tx.sql())?;
        insert_nics(tx, node.id, &node.nics)?;
    }
    Ok(changed == 1)
}

/// Claims an assigned node for an instance of its project: one conditional update, so of many only one wins.
pub fn claim(tx: &mut Tx<'_>, node: NodeId, project: ProjectId) -> Result<bool, DbError> {
    let assigned = nodes::table
        .filter(nodes::id.eq(Key::from(node)))
        .filter(nodes::project_id.eq(Key::from(project)))
        .filter(nodes::state.eq(NodeState::Assigned.as_str()));
    let claimed = diesel::update(assigned)
        .set((nodes::state.eq(NodeState::InUse.as_str()), nodes::version.eq(nodes::version + 1)))
        .execute(tx.sql())?;
    Ok(claimed == 1)
}

/// Gives a claimed node back to its project. One that is not claimed stays as it is.
pub fn unclaim(tx: &mut Tx<'_>, node: NodeId) -> Result<(), DbError> {
    let in_use =
        nodes::table.filter(nodes::id.eq(Key::from(node))).filter(nodes::state.eq(NodeState::InUse.as_str()));
    diesel::update(in_use)
        .set((nodes::state.eq(NodeState::Assigned.as_str()), nodes::version.eq(nodes::version + 1)))
        .execute(tx.sql())?;
    Ok(())
}

/// Removes a node and its NICs.
pub fn delete(tx: &mut Tx<'_>, id: NodeId) -> Result<(), DbError> {
    diesel::delete(nodes::table.filter(nodes::id.eq(Key::from(id)))).execute(tx.sql())?;
    Ok(())
}

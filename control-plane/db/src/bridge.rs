//! The `bridge` isolator's table: ports of agents' hosts that lead to nodes.

use async_trait::async_trait;
use bmi_drivers::isolation::{BridgeRecordError, BridgeRecords, PortRecord, PortReport, PortState};
use bmi_types::{NetworkId, NodeId};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::bridge_ports;
use crate::scope::SystemTx;
use crate::{Db, DbError, network};

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 500;

/// The isolator's records in this database.
#[derive(Debug, Clone)]
pub struct BridgeTables(pub Db);

#[derive(Queryable, Insertable)]
#[diesel(table_name = bridge_ports)]
struct Row {
    node_id: Key,
    interface: String,
    network_id: Key,
    wanted: i64,
    generation: i64,
    state: Option<String>,
    reason: Option<String>,
    reported_generation: Option<i64>,
}

impl Row {
    fn read(self) -> PortRecord {
        let state = |word: &str| match word {
            "attached" => PortState::Attached,
            "quarantined" => PortState::Quarantined,
            _ => PortState::Failed(self.reason.clone().unwrap_or_default()),
        };
        let reported = self.reported_generation.zip(self.state.as_deref().map(state));
        PortRecord {
            reported,
            network: self.network_id.into(),
            wanted: self.wanted != 0,
            generation: self.generation,
            interface: self.interface,
        }
    }
}

fn told(error: DbError) -> BridgeRecordError {
    BridgeRecordError(Box::new(error))
}

fn of_node(tx: &mut SystemTx<'_>, node: NodeId) -> Result<Vec<Row>, DbError> {
    let mine = bridge_ports::table.filter(bridge_ports::node_id.eq(Key::from(node)));
    Ok(mine.order(bridge_ports::interface.asc()).load(tx.sql())?)
}

/// Writes what is wanted, where it is not so already.
fn want(
    tx: &mut SystemTx<'_>,
    node: NodeId,
    wanted_on: NetworkId,
    interfaces: &[String],
) -> Result<(), DbError> {
    let rows = of_node(tx, node)?;
    let here = Key::from(wanted_on);
    let mut changes: Vec<(String, bool)> = Vec::new();
    for interface in interfaces {
        let row = rows.iter().find(|row| row.interface == *interface);
        if row.is_none_or(|row| row.wanted == 0 || row.network_id != here) {
            changes.push((interface.clone(), true));
        }
    }
    let leaving = rows.iter().filter(|row| row.wanted != 0 && !interfaces.contains(&row.interface));
    changes.extend(leaving.map(|row| (row.interface.clone(), false)));
    if changes.is_empty() {
        return Ok(());
    }
    let generation = network::bump_generation(tx, wanted_on)?;
    for (interface, wanted) in changes {
        let before = bridge_ports::table
            .filter(bridge_ports::node_id.eq(Key::from(node)))
            .filter(bridge_ports::interface.eq(&interface));
        diesel::delete(before).execute(tx.sql())?;
        let row = Row {
            node_id: node.into(),
            interface,
            network_id: here,
            wanted: i64::from(wanted),
            generation,
            state: None,
            reason: None,
            reported_generation: None,
        };
        diesel::insert_into(bridge_ports::table).values(&row).execute(tx.sql())?;
    }
    Ok(())
}

#[async_trait]
impl BridgeRecords for BridgeTables {
    async fn ports(&self, node: NodeId) -> Result<Vec<PortRecord>, BridgeRecordError> {
        let rows = self.0.system_read(move |tx| of_node(tx, node)).await.map_err(told)?;
        Ok(rows.into_iter().map(Row::read).collect())
    }

    async fn want(
        &self,
        node: NodeId,
        network: NetworkId,
        interfaces: &[String],
    ) -> Result<(), BridgeRecordError> {
        let interfaces = interfaces.to_vec();
        self.0.system_write(move |tx| want(tx, node, network, &interfaces)).await.map_err(told)
    }

    async fn wanted(&self, network: NetworkId) -> Result<Vec<String>, BridgeRecordError> {
        let read = self.0.system_read(move |tx| {
            let wanted = bridge_ports::table
                .filter(bridge_ports::network_id.eq(Key::from(network)))
                .filter(bridge_ports::wanted.ne(0))
                .order(bridge_ports::interface.asc())
                .select(bridge_ports::interface);
            Ok::<_, DbError>(wanted.load(tx.sql())?)
        });
        read.await.map_err(told)
    }

    async fn report(
        &self,
        network: NetworkId,
        generation: i64,
        ports: &[PortReport],
    ) -> Result<(), BridgeRecordError> {
        let ports = ports.to_vec();
        let written = self.0.system_write(move |tx| {
            for port in ports {
                let (state, reason) = match port.state {
                    PortState::Attached => ("attached", None),
                    PortState::Quarantined => ("quarantined", None),
                    PortState::Failed(reason) => ("failed", Some(reason.chars().take(REASON_MAX).collect())),
                };
                let row = bridge_ports::table
                    .filter(bridge_ports::network_id.eq(Key::from(network)))
                    .filter(bridge_ports::interface.eq(&port.interface));
                let reason: Option<String> = reason;
                diesel::update(row)
                    .set((
                        bridge_ports::state.eq(state),
                        bridge_ports::reason.eq(reason),
                        bridge_ports::reported_generation.eq(generation),
                    ))
                    .execute(tx.sql())?;
            }
            Ok::<_, DbError>(())
        });
        written.await.map_err(told)
    }
}

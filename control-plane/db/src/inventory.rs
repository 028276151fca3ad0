//! What isolators look up of nodes and networks.

use async_trait::async_trait;
use bmi_drivers::isolation::{Inventory, InventoryError, IsolatedNode};
use bmi_types::{Name, NetworkId, NodeId};

use crate::key::Reference;
use crate::{Db, DbError};

/// Nodes and networks in this database.
#[derive(Debug, Clone)]
pub struct DbInventory(pub Db);

fn told(error: DbError) -> InventoryError {
    InventoryError::Database(Box::new(error))
}

#[async_trait]
impl Inventory for DbInventory {
    async fn node(&self, id: NodeId) -> Result<IsolatedNode, InventoryError> {
        let found = self.0.system_read(move |tx| crate::node::find(tx, &Reference::Id(id.uuid()))).await;
        let node = found.map_err(told)?.ok_or(InventoryError::Absent("node"))?;
        Ok(IsolatedNode { name: node.name, macs: node.nics.iter().map(|nic| nic.mac).collect() })
    }

    async fn network(&self, id: NetworkId) -> Result<Name, InventoryError> {
        let found = self.0.system_read(move |tx| crate::network::find(tx, &Reference::Id(id.uuid()))).await;
        Ok(found.map_err(told)?.ok_or(InventoryError::Absent("network"))?.name)
    }
}

//! What isolators need to know of nodes and networks, which the core keeps.

use async_trait::async_trait;
use bmi_types::{MacAddr, Name, NetworkId, NodeId};

/// A node, as an isolator finds it on its side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolatedNode {
    /// Its name.
    pub name: Name,
    /// Its NICs.
    pub macs: Vec<MacAddr>,
}

/// Why something is not known.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It is gone.
    #[error("there is no such {0} any more")]
    Absent(&'static str),
    /// The database.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Looks nodes and networks up. The database implements it.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// A node.
    async fn node(&self, id: NodeId) -> Result<IsolatedNode, InventoryError>;
    /// A network's name.
    async fn network(&self, id: NetworkId) -> Result<Name, InventoryError>;
}

//! Network isolation drivers: which nodes are on which wires.
//!
//! Deliberately absent: what keeps nodes on one network apart from each other (the agent's bridge rules do), and power.
//!
//! Invariants: `Detached` is said only of what was proven; a driver that cannot tell fails instead. Nothing attaches a
//! node that is on another network.

mod bridge;
mod hil;
mod inventory;
mod none;

use async_trait::async_trait;
use bmi_types::{NetworkId, NodeId};

pub use bridge::{Bridge, BridgeRecordError, BridgeRecords, PortRecord, Published};
pub use hil::{Hil, HilError, HilSettings, hil_url_check};
pub use inventory::{Inventory, InventoryError, IsolatedNode};
pub use none::Unisolated;

/// Where a node is, as seen from one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// On the network, and on no other.
    Attached,
    /// In quarantine: where it reaches nobody, and nothing that was asked for before can still change that.
    Detached,
    /// Anything else: on another network, on the network in part, or on the way.
    Elsewhere,
    /// On the network for good: nothing isolates it. Counts as whatever was asked for.
    Permanent,
}

/// What an agent says of one port that leads to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    /// The interface.
    pub interface: String,
    /// Where it is.
    pub state: PortState,
}

/// Where a node's port on an agent's host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// In the network's bridge, and up.
    Attached,
    /// In no bridge and down, or not there at all.
    Quarantined,
    /// Something else, and why.
    Failed(String),
}

/// Why a node could not be attached or detached.
#[derive(Debug, thiserror::Error)]
#[error("cannot isolate {subject}")]
pub struct IsolationError {
    /// What: `node …` or `network …`.
    pub subject: String,
    /// Why.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl IsolationError {
    /// Of a node.
    pub fn of(node: NodeId, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { subject: format!("node {node}"), cause: cause.into() }
    }

    /// Of a network.
    pub fn of_network(
        network: NetworkId,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { subject: format!("network {network}"), cause: cause.into() }
    }
}

/// Attaches nodes to networks. Verbs are idempotent, and what they did is read back before they say so.
#[async_trait]
pub trait NetworkIsolation: Send + Sync {
    /// Looks where the node is. Looking never puts a node on a network.
    async fn observe(&self, node: NodeId, network: NetworkId) -> Result<Attachment, IsolationError>;

    /// Attaches the node to the network. Fails when it is on another.
    async fn attach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError>;

    /// Detaches the node; it lands where it reaches nobody.
    async fn detach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError>;

    /// The ports that the network's agent is to have in its bridge. None where agents attach nothing.
    async fn ports(&self, network: NetworkId) -> Result<Vec<String>, IsolationError>;

    /// Takes what the network's agent said of its ports, after it carried out a generation.
    async fn reported(
        &self,
        network: NetworkId,
        generation: i64,
        ports: &[PortReport],
    ) -> Result<(), IsolationError>;
}

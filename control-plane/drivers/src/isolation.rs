//! Network isolation drivers: which nodes are on which wires.

use async_trait::async_trait;
use bmi_types::{NetworkId, NodeId};

/// Why a node could not be attached or detached.
#[derive(Debug, thiserror::Error)]
#[error("cannot isolate node {node}: {reason}")]
pub struct IsolationError {
    /// Which node.
    pub node: NodeId,
    /// Why.
    pub reason: String,
}

/// Attaches nodes to networks. Verbs are idempotent.
#[async_trait]
pub trait NetworkIsolation: Send + Sync {
    /// Whether the node is attached to the network and to no other.
    async fn is_attached(&self, node: NodeId, network: NetworkId) -> Result<bool, IsolationError>;
    /// Attaches the node to the network.
    async fn attach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError>;
    /// Detaches the node; it lands where it reaches nobody.
    async fn detach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError>;
}

/// The `none` driver: every node is on the one network for good.
#[derive(Debug, Default)]
pub struct Unisolated;

#[async_trait]
impl NetworkIsolation for Unisolated {
    async fn is_attached(&self, _node: NodeId, _network: NetworkId) -> Result<bool, IsolationError> {
        Ok(true)
    }

    async fn attach(&self, _node: NodeId, _network: NetworkId) -> Result<(), IsolationError> {
        Ok(())
    }

    async fn detach(&self, _node: NodeId, _network: NetworkId) -> Result<(), IsolationError> {
        Ok(())
    }
}

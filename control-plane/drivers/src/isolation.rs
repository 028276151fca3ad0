//! Network isolation drivers: which nodes are on which wires.

use async_trait::async_trait;
use bmi_types::{NetworkId, NodeId};

/// Where a node is, as seen from one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// On the network, and on no other.
    Attached,
    /// Where it reaches nobody.
    Detached,
    /// On the network for good: nothing isolates it. Counts as whatever was asked for.
    Permanent,
}

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
    /// Looks where the node is.
    async fn observe(&self, node: NodeId, network: NetworkId) -> Result<Attachment, IsolationError>;
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
    async fn observe(&self, _node: NodeId, _network: NetworkId) -> Result<Attachment, IsolationError> {
        Ok(Attachment::Permanent)
    }

    async fn attach(&self, _node: NodeId, _network: NetworkId) -> Result<(), IsolationError> {
        Ok(())
    }

    async fn detach(&self, _node: NodeId, _network: NetworkId) -> Result<(), IsolationError> {
        Ok(())
    }
}

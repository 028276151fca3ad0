//! Power drivers: switching nodes on and off.

use async_trait::async_trait;
use bmi_types::NodeId;

/// What a power driver did when asked to switch a node on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoweredOn {
    /// The node was told to boot from the network and is on.
    Done,
    /// A person has to do it.
    ByHand,
}

/// Why a node could not be switched.
#[derive(Debug, thiserror::Error)]
#[error("cannot switch node {node}: {reason}")]
pub struct PowerError {
    /// Which node.
    pub node: NodeId,
    /// Why.
    pub reason: String,
}

/// Switches nodes on and off. Verbs are idempotent.
#[async_trait]
pub trait PowerDriver: Send + Sync {
    /// Sets the next boot device to the network and switches the node on.
    async fn ensure_on_from_network(&self, node: NodeId) -> Result<PoweredOn, PowerError>;
    /// Switches the node off.
    async fn ensure_off(&self, node: NodeId) -> Result<(), PowerError>;
}

/// The `manual` driver: a person is the driver.
#[derive(Debug, Default)]
pub struct Manual;

#[async_trait]
impl PowerDriver for Manual {
    async fn ensure_on_from_network(&self, _node: NodeId) -> Result<PoweredOn, PowerError> {
        Ok(PoweredOn::ByHand)
    }

    async fn ensure_off(&self, _node: NodeId) -> Result<(), PowerError> {
        Ok(())
    }
}

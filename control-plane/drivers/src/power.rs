//! Power drivers: switching nodes on and off.

use async_trait::async_trait;
use bmi_types::NodeId;

/// What a power driver sees of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// It is on.
    On,
    /// It is off.
    Off,
    /// Nobody can tell: a person is the driver. Counts as whatever was asked for.
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
    /// Looks whether the node is on.
    async fn observe(&self, node: NodeId) -> Result<PowerState, PowerError>;
    /// Sets the next boot device to the network and switches the node on.
    async fn ensure_on_from_network(&self, node: NodeId) -> Result<(), PowerError>;
    /// Switches the node off.
    async fn ensure_off(&self, node: NodeId) -> Result<(), PowerError>;
}

/// The `manual` driver: a person is the driver.
#[derive(Debug, Default)]
pub struct Manual;

#[async_trait]
impl PowerDriver for Manual {
    async fn observe(&self, _node: NodeId) -> Result<PowerState, PowerError> {
        Ok(PowerState::ByHand)
    }

    async fn ensure_on_from_network(&self, _node: NodeId) -> Result<(), PowerError> {
        Ok(())
    }

    async fn ensure_off(&self, _node: NodeId) -> Result<(), PowerError> {
        Ok(())
    }
}

//! The `none` driver: every node is on the one network for good.

use async_trait::async_trait;
use bmi_types::{NetworkId, NodeId};

use super::{Attachment, IsolationError, NetworkIsolation, PortReport};

/// Isolates nothing.
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

    async fn ports(&self, _network: NetworkId) -> Result<Vec<String>, IsolationError> {
        Ok(Vec::new())
    }

    async fn reported(
        &self,
        _network: NetworkId,
        _generation: i64,
        _ports: &[PortReport],
    ) -> Result<(), IsolationError> {
        Ok(())
    }
}

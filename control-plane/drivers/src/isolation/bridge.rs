//! The `bridge` driver: the ports that lead to nodes are network cards of agents' hosts, and the agent of a network puts
//! them into its bridge or into quarantine.
//!
//! This side only says what is wanted, as a part of the network's desired state, and believes what the agent says after
//! it carried that out. An agent quarantines each port that it knows and that is not wanted, so a node is nowhere before
//! anybody asked.
//!
//! Invariants: what is wanted is in the records before an agent can hear of it; a port counts as attached or detached
//! only by a report about the generation that said so, or a later one; a node has ports on one network at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{Name, NetworkId, NodeId};
use tokio::time::Instant;

use super::{Attachment, Inventory, InventoryError, IsolationError, NetworkIsolation, PortReport, PortState};

/// How often the records are looked at for a report: another replica may have taken it.
const LOOK: Duration = Duration::from_millis(100);

/// One port of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRecord {
    /// The interface on the agent's host.
    pub interface: String,
    /// The network whose agent has it.
    pub network: NetworkId,
    /// Whether it is to be in that network's bridge.
    pub wanted: bool,
    /// The generation of the network's desired state that first said so.
    pub generation: i64,
    /// What the agent said last, and after which generation.
    pub reported: Option<(i64, PortState)>,
}

impl PortRecord {
    /// Whether the agent has done what is wanted.
    fn is_settled(&self) -> bool {
        let wanted = if self.wanted { PortState::Attached } else { PortState::Quarantined };
        self.reported.as_ref().is_some_and(|(at, state)| *at >= self.generation && *state == wanted)
    }
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the database failed")]
pub struct BridgeRecordError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Called when there is a new desired state.
pub type Published = Arc<dyn Fn() + Send + Sync>;

/// The driver's own tables.
#[async_trait]
pub trait BridgeRecords: Send + Sync {
    /// The ports of a node.
    async fn ports(&self, node: NodeId) -> Result<Vec<PortRecord>, BridgeRecordError>;

    /// Wants these ports of a node on a network, and no others. What changes is under the network's next generation,
    /// in one transaction.
    async fn want(
        &self,
        node: NodeId,
        network: NetworkId,
        interfaces: &[String],
    ) -> Result<(), BridgeRecordError>;

    /// The ports that are wanted on a network.
    async fn wanted(&self, network: NetworkId) -> Result<Vec<String>, BridgeRecordError>;

    /// Writes what the network's agent said after a generation.
    async fn report(
        &self,
        network: NetworkId,
        generation: i64,
        ports: &[PortReport],
    ) -> Result<(), BridgeRecordError>;
}

/// Why ports are not as they should be.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("the configuration names no port of node `{0}` (isolation.ports)")]
    NoPort(Name),
    #[error("it is on network {0}, or was and nobody has said that it is not any more")]
    OtherNetwork(NetworkId),
    #[error("port {interface} is not as wanted yet: {said}")]
    Late { interface: String, said: String },
    #[error("looking up what is to be isolated")]
    Inventory(#[from] InventoryError),
    #[error("keeping what is wanted")]
    Records(#[from] BridgeRecordError),
}

/// The driver.
pub struct Bridge {
    records: Arc<dyn BridgeRecords>,
    inventory: Arc<dyn Inventory>,
    ports: BTreeMap<Name, Vec<String>>,
    wait: Duration,
    published: Published,
}

impl Bridge {
    /// Takes the ports of each node, how long one attempt waits for an agent, and what is called when there is
    /// something new for one.
    #[must_use]
    pub const fn new(
        records: Arc<dyn BridgeRecords>,
        inventory: Arc<dyn Inventory>,
        ports: BTreeMap<Name, Vec<String>>,
        wait: Duration,
        published: Published,
    ) -> Self {
        Self { records, inventory, ports, wait, published }
    }

    async fn observed(&self, node: NodeId, network: NetworkId) -> Result<Attachment, BridgeError> {
        let ports = self.records.ports(node).await?;
        let settled = ports.iter().all(PortRecord::is_settled);
        let wanted = || ports.iter().filter(|port| port.wanted);
        Ok(if !settled {
            Attachment::Elsewhere
        } else if wanted().next().is_none() {
            Attachment::Detached
        } else if wanted().all(|port| port.network == network) {
            Attachment::Attached
        } else {
            Attachment::Elsewhere
        })
    }

    async fn attached(&self, node: NodeId, network: NetworkId) -> Result<(), BridgeError> {
        let name = self.inventory.node(node).await?.name;
        let interfaces = self.ports.get(&name).ok_or(BridgeError::NoPort(name))?;
        self.other_network(node, network).await?;
        self.want(node, network, interfaces).await
    }

    async fn detached(&self, node: NodeId, network: NetworkId) -> Result<(), BridgeError> {
        self.other_network(node, network).await?;
        self.want(node, network, &[]).await
    }

    /// Fails when a port may still be on another network.
    async fn other_network(&self, node: NodeId, network: NetworkId) -> Result<(), BridgeError> {
        let gone = |port: &PortRecord| !port.wanted && port.is_settled();
        let ports = self.records.ports(node).await?;
        match ports.iter().find(|port| port.network != network && !gone(port)) {
            Some(port) => Err(BridgeError::OtherNetwork(port.network)),
            None => Ok(()),
        }
    }

    async fn want(&self, node: NodeId, network: NetworkId, interfaces: &[String]) -> Result<(), BridgeError> {
        let deadline = Instant::now() + self.wait;
        self.records.want(node, network, interfaces).await?;
        (self.published)();
        loop {
            let ports = self.records.ports(node).await?;
            let Some(late) = ports.into_iter().find(|port| !port.is_settled()) else { return Ok(()) };
            if Instant::now() >= deadline {
                let said = match &late.reported {
                    Some((at, PortState::Failed(reason))) if *at >= late.generation => reason.clone(),
                    Some((at, _)) if *at >= late.generation => "the agent has it otherwise".to_owned(),
                    _ => "the network's agent has not reported on it; is it in its `node_ports`?".to_owned(),
                };
                return Err(BridgeError::Late { interface: late.interface, said });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[async_trait]
impl NetworkIsolation for Bridge {
    async fn observe(&self, node: NodeId, network: NetworkId) -> Result<Attachment, IsolationError> {
        self.observed(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn attach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError> {
        self.attached(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn detach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError> {
        self.detached(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn ports(&self, network: NetworkId) -> Result<Vec<String>, IsolationError> {
        self.records.wanted(network).await.map_err(|error| IsolationError::of_network(network, error))
    }

    async fn reported(
        &self,
        network: NetworkId,
        generation: i64,
        ports: &[PortReport],
    ) -> Result<(), IsolationError> {
        let written = self.records.report(network, generation, ports).await;
        written.map_err(|error| IsolationError::of_network(network, error))
    }
}

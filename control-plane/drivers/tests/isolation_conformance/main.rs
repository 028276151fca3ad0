//! What every isolator must do, run against each: `none`, `hil` before a simulated HIL, `bridge` before simulated agents.
//! And what only one of them has.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod agents;
mod hil;
mod suite;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bmi_drivers::isolation::{Inventory, InventoryError, IsolatedNode, Unisolated};
use bmi_types::{Name, NetworkId, NodeId};
use suite::Cast;

/// What the core would know.
#[derive(Default)]
struct Known {
    nodes: BTreeMap<NodeId, IsolatedNode>,
    networks: BTreeMap<NetworkId, Name>,
}

#[async_trait]
impl Inventory for Known {
    async fn node(&self, id: NodeId) -> Result<IsolatedNode, InventoryError> {
        self.nodes.get(&id).cloned().ok_or(InventoryError::Absent("node"))
    }

    async fn network(&self, id: NetworkId) -> Result<Name, InventoryError> {
        self.networks.get(&id).cloned().ok_or(InventoryError::Absent("network"))
    }
}

#[tokio::test]
async fn none_conforms() {
    suite::run(&Unisolated, &Cast::new(), &|_| Vec::new()).await;
}

#[tokio::test]
async fn hil_conforms() {
    let world = hil::World::new();
    let names = world.clone();
    suite::run(&*world.driver(), &world.cast, &|node| names.networks_of(node)).await;
    assert!(world.hil.requests().iter().any(|asked| asked.ends_with("connect_network")), "nobody asked HIL");
}

#[tokio::test]
async fn bridge_conforms() {
    let world = agents::World::new();
    let seen = world.clone();
    suite::run(&*world.driver, &world.cast, &|node| seen.networks_of(node)).await;
    world.stop();
}

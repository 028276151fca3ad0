//! The `bridge` driver before records in memory and agents that work at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bmi_drivers::isolation::{
    Attachment, Bridge, BridgeRecordError, BridgeRecords, IsolatedNode, NetworkIsolation, PortRecord,
    PortReport, PortState,
};
use bmi_types::{Name, NetworkId, NodeId};

use crate::Known;
use crate::suite::Cast;

#[derive(Default)]
struct Memory {
    rows: BTreeMap<(NodeId, String), PortRecord>,
    generations: BTreeMap<NetworkId, i64>,
}

/// The driver's table.
#[derive(Default)]
struct Records(Mutex<Memory>);

#[async_trait]
impl BridgeRecords for Records {
    async fn ports(&self, node: NodeId) -> Result<Vec<PortRecord>, BridgeRecordError> {
        let memory = self.0.lock().unwrap();
        Ok(memory.rows.iter().filter(|((of, _), _)| *of == node).map(|(_, row)| row.clone()).collect())
    }

    async fn want(
        &self,
        node: NodeId,
        network: NetworkId,
        interfaces: &[String],
    ) -> Result<(), BridgeRecordError> {
        let mut memory = self.0.lock().unwrap();
        let memory = &mut *memory;
        let generation = *memory.generations.entry(network).or_default() + 1;
        let mut changed = false;
        for ((_, interface), row) in memory.rows.iter_mut().filter(|((of, _), _)| *of == node) {
            if row.wanted && !interfaces.contains(interface) {
                (row.wanted, row.generation, row.reported, changed) = (false, generation, None, true);
            }
        }
        for interface in interfaces {
            let row = memory.rows.get(&(node, interface.clone()));
            if row.is_none_or(|row| !row.wanted || row.network != network) {
                let interface = interface.clone();
                let row = PortRecord { interface, network, wanted: true, generation, reported: None };
                memory.rows.insert((node, row.interface.clone()), row);
                changed = true;
            }
        }
        if changed {
            memory.generations.insert(network, generation);
        }
        Ok(())
    }

    async fn wanted(&self, network: NetworkId) -> Result<Vec<String>, BridgeRecordError> {
        let memory = self.0.lock().unwrap();
        let wanted = memory.rows.values().filter(|row| row.network == network && row.wanted);
        Ok(wanted.map(|row| row.interface.clone()).collect())
    }

    async fn report(
        &self,
        network: NetworkId,
        generation: i64,
        ports: &[PortReport],
    ) -> Result<(), BridgeRecordError> {
        let mut memory = self.0.lock().unwrap();
        for row in memory.rows.values_mut().filter(|row| row.network == network) {
            if let Some(said) = ports.iter().find(|port| port.interface == row.interface) {
                row.reported = Some((generation, said.state.clone()));
            }
        }
        Ok(())
    }
}

/// Two networks with an agent each, on hosts whose ports they share.
#[derive(Clone)]
pub struct World {
    pub driver: Arc<Bridge>,
    pub cast: Cast,
    records: Arc<Records>,
    /// In which network's bridge a port is.
    bridges: Arc<Mutex<BTreeMap<String, NetworkId>>>,
    away: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

const PORTS: [(&str, &[&str]); 2] = [("node-1", &["port1", "port2"]), ("node-2", &["port3"])];

impl World {
    pub fn new() -> Self {
        let (cast, records) = (Cast::new(), Arc::new(Records::default()));
        let node = |name: &str| IsolatedNode { name: name.parse().unwrap(), macs: Vec::new() };
        let known = Known {
            nodes: BTreeMap::from([(cast.first, node("node-1")), (cast.second, node("node-2"))]),
            networks: BTreeMap::new(),
        };
        let name = |name: &str| name.parse::<Name>().unwrap();
        let ports = PORTS.map(|(node, ports)| (name(node), ports.iter().map(|&it| it.to_owned()).collect()));
        let wait = Duration::from_secs(2);
        let driver =
            Bridge::new(records.clone(), Arc::new(known), BTreeMap::from(ports), wait, Arc::new(|| {}));
        let world = Self {
            driver: Arc::new(driver),
            cast,
            records,
            bridges: Arc::default(),
            away: Arc::default(),
            stopped: Arc::default(),
        };
        for network in [cast.red, cast.blue] {
            tokio::spawn(world.clone().agent(network));
        }
        world
    }

    pub fn networks_of(&self, node: NodeId) -> Vec<NetworkId> {
        let ports = if node == self.cast.first { PORTS[0].1 } else { PORTS[1].1 };
        let bridges = self.bridges.lock().unwrap();
        ports.iter().filter_map(|port| bridges.get(*port).copied()).collect()
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// As a real one: it has the whole desired state, quarantines what is not wanted, and reports.
    async fn agent(self, network: NetworkId) {
        while !self.stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(7)).await;
            if self.away.load(Ordering::Relaxed) {
                continue;
            }
            let generation =
                self.records.0.lock().unwrap().generations.get(&network).copied().unwrap_or_default();
            let wanted = self.driver.ports(network).await.unwrap();
            tokio::time::sleep(Duration::from_millis(7)).await;
            let mut reports = Vec::new();
            for interface in PORTS.iter().flat_map(|(_, ports)| ports.iter().map(|&port| port.to_owned())) {
                let mut bridges = self.bridges.lock().unwrap();
                let state = match (wanted.contains(&interface), bridges.get(&interface).copied()) {
                    (true, Some(other)) if other != network => {
                        PortState::Failed("it is in another bridge".to_owned())
                    }
                    (true, _) => {
                        bridges.insert(interface.clone(), network);
                        PortState::Attached
                    }
                    (false, Some(own)) if own == network => {
                        bridges.remove(&interface);
                        PortState::Quarantined
                    }
                    (false, None) => PortState::Quarantined,
                    (false, Some(_)) => PortState::Failed("it is in another bridge".to_owned()),
                };
                reports.push(PortReport { interface, state });
            }
            self.driver.reported(network, generation, &reports).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_counts_that_the_agent_has_not_said() {
    let world = World::new();
    let Cast { first, red, blue, .. } = world.cast;
    world.away.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = bmi_types::chain(&world.driver.attach(first, red).await.unwrap_err());
    assert!(late.contains("port1") && late.contains("has not reported"), "{late}");
    assert_eq!(world.driver.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    // It may be told at any time: so the node is not in quarantine, and the next network does not get it.
    let refused = bmi_types::chain(&world.driver.attach(first, blue).await.unwrap_err());
    assert!(refused.contains(&red.to_string()), "{refused}");
    world.driver.detach(first, red).await.unwrap_err();
    assert_eq!(world.driver.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    world.driver.attach(first, blue).await.unwrap_err();
    world.away.store(false, Ordering::Relaxed);
    world.driver.detach(first, red).await.unwrap();
    assert_eq!(world.driver.observe(first, red).await.unwrap(), Attachment::Detached);
    world.driver.attach(first, blue).await.unwrap();
    world.stop();
}

#[tokio::test]
async fn a_node_without_a_port_in_the_configuration_is_refused() {
    let world = World::new();
    world.driver.attach(NodeId::generate(), world.cast.red).await.unwrap_err();
    world.stop();
}

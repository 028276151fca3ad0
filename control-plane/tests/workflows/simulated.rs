//! What a workflow acts on, simulated behind the production traits: wires and power that can be looked at, and that
//! note what must never happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bmi_drivers::isolation::{Attachment, IsolationError, NetworkIsolation, PortReport};
use bmi_drivers::power::{PowerDriver, PowerError, PowerState};
use bmi_types::{InstanceId, NetworkId, NodeId};

/// Wires, power, and the targets that the agent keeps.
#[derive(Debug, Default)]
pub struct Hardware {
    state: Mutex<State>,
}

/// What is there now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct State {
    pub attached: BTreeMap<NodeId, NetworkId>,
    pub on: BTreeSet<NodeId>,
    pub targets: BTreeSet<InstanceId>,
    /// What was done that must never be done.
    pub violations: Vec<String>,
    /// Whether the power driver refuses everything.
    pub power_fails: bool,
}

impl Hardware {
    pub fn look(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

/// Wires behind [`NetworkIsolation`].
pub struct Wires(pub Arc<Hardware>);

#[async_trait]
impl NetworkIsolation for Wires {
    async fn observe(&self, node: NodeId, network: NetworkId) -> Result<Attachment, IsolationError> {
        let attached = self.0.look().attached.get(&node) == Some(&network);
        Ok(if attached { Attachment::Attached } else { Attachment::Detached })
    }

    async fn attach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError> {
        self.0.change(|state| {
            if state.on.contains(&node) {
                state.violations.push(format!("node {node} was attached while it was on"));
            }
            state.attached.insert(node, network);
        });
        Ok(())
    }

    async fn detach(&self, node: NodeId, _network: NetworkId) -> Result<(), IsolationError> {
        self.0.change(|state| {
            if state.on.contains(&node) {
                state.violations.push(format!("node {node} was detached while it was on"));
            }
            state.attached.remove(&node);
        });
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

/// Power behind [`PowerDriver`].
pub struct Switches(pub Arc<Hardware>);

impl Switches {
    fn check(&self, node: NodeId) -> Result<(), PowerError> {
        match self.0.look().power_fails {
            true => Err(PowerError { node, reason: "the BMC does not answer".to_owned() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl PowerDriver for Switches {
    async fn observe(&self, node: NodeId) -> Result<PowerState, PowerError> {
        self.check(node)?;
        Ok(if self.0.look().on.contains(&node) { PowerState::On } else { PowerState::Off })
    }

    async fn ensure_on_from_network(&self, node: NodeId) -> Result<(), PowerError> {
        self.check(node)?;
        self.0.change(|state| {
            if !state.attached.contains_key(&node) {
                state.violations.push(format!("node {node} was switched on without a network"));
            }
            state.on.insert(node);
        });
        Ok(())
    }

    async fn ensure_off(&self, node: NodeId) -> Result<(), PowerError> {
        self.check(node)?;
        self.0.change(|state| {
            state.on.remove(&node);
        });
        Ok(())
    }
}

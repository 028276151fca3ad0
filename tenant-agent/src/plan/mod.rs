//! The plan: what is wanted and what was observed → ordered actions. Pure: no I/O, no clock.
//!
//! Order: boot entries of what is no longer ready go first, then processes stop, then the bridge and its rules, then
//! processes start. A target whose blocks are with a broker starts in a later plan, once its broker was observed to
//! listen; a boot entry appears in a later one still, once its target was.
//!
//! Invariants, each tested: repeating observe, plan, execute ends with an empty plan; a process is never started
//! before the bridge's rules know its port; what is not wanted is stopped, a target before its broker; nothing wanted is
//! ever stopped unless it differs, is broken or never came to listen: so a target outlives its broker's restart.

pub mod names;
pub mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bmi_agent_api::config::{BootGate, NetbootConfig};
use bmi_types::InstanceId;

use names::ProcessId;
use spec::{NetworkSpec, ProcessSpec, Wanted};

/// How healthy a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is gone, or its interface is, or it should have listened by now. It can only be stopped.
    Broken,
    /// It lives and has not said `listening` yet.
    Starting,
    /// It lives, is wired and said `listening`.
    Listening,
}

/// One process of which anything exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedProcess {
    /// As what it was started; nothing when only leftovers were found.
    pub spec: Option<ProcessSpec>,
    /// How it is.
    pub health: Health,
    /// The number its boot volume has, of a target.
    pub lun: u16,
}

/// What exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The bridge and rules in force.
    pub network: Option<NetworkSpec>,
    /// Every process of which anything exists.
    pub processes: BTreeMap<ProcessId, ObservedProcess>,
    /// The boot services' configuration in force.
    pub netboot: Option<NetbootConfig>,
    /// Processes that failed and must not be started again yet.
    pub held: BTreeSet<ProcessId>,
    /// Processes that are still being started or stopped, for longer than was waited: how they are is not known.
    pub pending: BTreeSet<ProcessId>,
}

impl Observed {
    /// The instances whose targets are as wanted and listen.
    #[must_use]
    pub fn ready(&self, wanted: &Wanted) -> BTreeSet<InstanceId> {
        wanted.gates.keys().copied().filter(|id| self.listens(wanted, ProcessId::Target(*id))).collect()
    }

    /// Whether a process is as wanted and listens.
    fn listens(&self, wanted: &Wanted, id: ProcessId) -> bool {
        self.processes.get(&id).is_some_and(|process| {
            process.health == Health::Listening && process.spec.as_ref() == wanted.processes.get(&id)
        })
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Replace the boot services' configuration.
    NetbootConfigure(NetbootConfig),
    /// End a process and remove all that is left of it.
    ProcessStop(ProcessId),
    /// Make the bridge, and put the rules for exactly these ports in force.
    NetworkEnsure(NetworkSpec),
    /// Start the boot services with a first configuration.
    NetbootStart(ProcessSpec, NetbootConfig),
    /// Start a target with its gate.
    TargetStart(ProcessSpec, BootGate),
    /// Start a broker.
    BrokerStart(ProcessSpec),
}

impl Action {
    /// The process it is about.
    #[must_use]
    pub const fn process(&self) -> Option<ProcessId> {
        match self {
            Self::NetbootConfigure(_) => Some(ProcessId::Netboot),
            Self::ProcessStop(id) => Some(*id),
            Self::NetworkEnsure(_) => None,
            Self::NetbootStart(spec, _) | Self::TargetStart(spec, _) | Self::BrokerStart(spec) => {
                Some(spec.id())
            }
        }
    }
}

/// What to do, in this order.
#[must_use]
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut config = wanted.netboot_config(&observed.ready(wanted));
    for instance in &mut config.instances {
        instance.lun = observed.processes.get(&ProcessId::Target(instance.id)).map_or(0, |it| it.lun);
    }
    let fits = |id: &ProcessId, process: &ObservedProcess| {
        process.health != Health::Broken
            && process.spec.is_some()
            && process.spec.as_ref() == wanted.processes.get(id)
    };
    let staying: BTreeSet<ProcessId> =
        observed.processes.iter().filter(|(id, process)| fits(id, process)).map(|(id, _)| *id).collect();

    if staying.contains(&ProcessId::Netboot) && observed.netboot.as_ref() != Some(&config) {
        actions.push(Action::NetbootConfigure(config.clone()));
    }
    // A target may yet come to use its broker, or still do.
    let is_used = |id: &ProcessId| match id {
        ProcessId::Broker(instance) => observed.pending.contains(&ProcessId::Target(*instance)),
        ProcessId::Target(_) | ProcessId::Netboot => false,
    };
    let leaving = observed.processes.keys().filter(|id| !staying.contains(id) && !is_used(id));
    actions.extend(leaving.copied().map(Action::ProcessStop));
    if observed.network.as_ref() != Some(&wanted.network) {
        actions.push(Action::NetworkEnsure(wanted.network.clone()));
    }
    for (id, spec) in &wanted.processes {
        if staying.contains(id) || observed.held.contains(id) || observed.pending.contains(id) {
            continue;
        }
        match id {
            ProcessId::Netboot => actions.push(Action::NetbootStart(spec.clone(), config.clone())),
            ProcessId::Broker(_) => actions.push(Action::BrokerStart(spec.clone())),
            ProcessId::Target(instance) => {
                let broker = ProcessId::Broker(*instance);
                let alone = !wanted.processes.contains_key(&broker);
                if let Some(gate) = wanted.gates.get(instance)
                    && (alone || observed.listens(wanted, broker))
                {
                    actions.push(Action::TargetStart(spec.clone(), gate.clone()));
                }
            }
        }
    }
    actions
}

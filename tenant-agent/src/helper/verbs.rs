//! The verbs between the two halves: a few, typed, each idempotent.

use std::collections::BTreeMap;

use bmi_agent_api::config::{BootGate, NetbootConfig};
use bmi_agent_api::status::PortStatus;
use bmi_types::MacAddr;
use serde::{Deserialize, Serialize};

use crate::plan::names::ProcessId;
use crate::plan::spec::{NetworkSpec, ProcessSpec};

/// What the helper can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// Say what exists.
    Observe,
    /// Make the bridge and put its rules in force.
    NetworkEnsure {
        /// For these ports, and only these.
        network: NetworkSpec,
    },
    /// Remove the bridge, when it is ours, and its rules: for a host that no longer serves the network.
    NetworkRemove,
    /// Start the boot services.
    NetbootStart {
        /// As what.
        spec: ProcessSpec,
        /// With which first configuration.
        config: NetbootConfig,
    },
    /// Start a target.
    TargetStart {
        /// As what.
        spec: ProcessSpec,
        /// With which gate.
        gate: BootGate,
    },
    /// Start a broker.
    BrokerStart {
        /// As what.
        spec: ProcessSpec,
    },
    /// End a process and remove all that is left of it.
    ProcessStop {
        /// Which.
        id: ProcessId,
    },
    /// Replace the boot services' configuration.
    NetbootConfigure {
        /// By this.
        config: NetbootConfig,
    },
    /// Replace a target's gate.
    GateWrite {
        /// By this.
        gate: BootGate,
    },
}

impl Verb {
    /// The process that it starts or ends.
    #[must_use]
    pub const fn process(&self) -> Option<ProcessId> {
        match self {
            Self::NetbootStart { spec, .. } | Self::TargetStart { spec, .. } | Self::BrokerStart { spec } => {
                Some(spec.id())
            }
            Self::ProcessStop { id } => Some(*id),
            Self::Observe
            | Self::NetworkEnsure { .. }
            | Self::NetworkRemove
            | Self::NetbootConfigure { .. }
            | Self::GateWrite { .. } => None,
        }
    }
}

/// A verb with a number, by which the answer is found.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the asker, never used twice.
    pub number: u64,
    /// What to do.
    pub verb: Verb,
}

/// One process as the helper finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundProcess {
    /// As what it was started; nothing when the record is missing.
    pub spec: Option<ProcessSpec>,
    /// Which run of it lives: process id and start time. Nothing when it is gone.
    pub run: Option<String>,
    /// Whether its interface is in the bridge.
    pub wired: bool,
    /// The numbers that its logical units were to have, each with the one that it reports. What is not named has the one
    /// it was to have. No map: in a tagged message its keys would be text.
    #[serde(default)]
    pub luns: Vec<(u16, u16)>,
}

/// What exists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The rules in force, when the bridge is there too.
    pub network: Option<NetworkSpec>,
    /// The processes.
    pub processes: BTreeMap<ProcessId, FoundProcess>,
    /// The boot services' configuration in force.
    pub netboot: Option<NetbootConfig>,
    /// Where the ports that lead to nodes are.
    #[serde(default)]
    pub ports: Vec<PortStatus>,
    /// Processes that are being started or stopped, or wait for that: nothing else is said of them. No set, as below.
    #[serde(default)]
    pub pending: Vec<ProcessId>,
    /// Why not everything that exists could be seen; what is here is true all the same.
    #[serde(default)]
    pub unseen: Option<String>,
    /// Packets that were dropped by the rules of processes, and by the bridge's. No map, as above.
    #[serde(default)]
    pub dropped: Vec<(Option<ProcessId>, u64)>,
}

/// The answer to a verb.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", content = "with", rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// What exists.
    Found(Box<Found>),
    /// Not done, and why, for people. What was half made is left for `process_stop`.
    Fault(String),
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Said {
    /// The answer to a request.
    Answer {
        /// Its number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// A process printed a line. It was not looked at, only bounded in length and number.
    Line {
        /// Which process.
        id: ProcessId,
        /// Which run of it.
        run: String,
        /// What.
        line: String,
    },
    /// A node's MAC was seen at a second port of the bridge.
    MacConflict {
        /// Which.
        mac: MacAddr,
        /// At which port it is.
        place: String,
        /// At which it was seen, and dropped.
        second: String,
    },
    /// Somebody had removed a table of rules of this host; it is in force again.
    RulesRestored {
        /// Its name.
        table: String,
    },
    /// A process ended by itself.
    Exited {
        /// Which process.
        id: ProcessId,
        /// Which run of it.
        run: String,
        /// How, for people.
        how: String,
    },
}

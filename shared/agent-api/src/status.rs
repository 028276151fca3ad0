//! What exists: the body of `POST /agent/v1/networks/{name}/status`.

use bmi_types::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};

/// The agent's whole view of its network, after it worked on a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the agent.
    pub version: String,
    /// The last generation whose plan was executed. Faults of single objects do not hold it back.
    pub generation_observed: u64,
    /// The boot services.
    pub netboot: ServiceStatus,
    /// Every instance of which anything exists, also those that are no longer desired and not yet gone.
    pub instances: Vec<InstanceStatus>,
    /// Every port of the host that leads to a node, as the agent's configuration names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortStatus>,
    /// What firewalls dropped, as far as it was looked at; each is looked at by turns, one a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
}

/// Packets that rules dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Whose rules: `bridge`, `netboot`, the id of the instance whose target it is, or `broker-` and that of the instance whose broker.
    pub by: String,
    /// How many, since the agent's root half started or the rules came into force.
    pub packets: u64,
}

/// One interface of the agent's host that leads to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its name.
    pub interface: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: PortPlace,
}

/// Where a port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub enum PortPlace {
    /// In the network's bridge, and up.
    Attached,
    /// In no bridge and down, or not there at all.
    Quarantined,
    /// Neither, and why.
    Failed {
        /// For people. No secret.
        reason: String,
    },
}

/// A report on its way: with the time at which the agent sends it, by its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSent {
    /// The report.
    #[serde(flatten)]
    pub report: StatusReport,
    /// When it is sent. A release before this had none.
    #[serde(default)]
    pub sent_at: Option<Timestamp>,
}

/// One instance on the agent's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Its target.
    pub target: ServiceStatus,
    /// The number its boot volume has there, as the target's driver reports it. A release before this says nothing: 0.
    #[serde(default)]
    pub boot_lun: u16,
}

/// The state of one process the agent keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServiceStatus {
    /// Not there, and not wanted.
    Absent,
    /// Being made: some of it exists.
    Starting,
    /// It said `listening`, its firewall is in place and it is reachable from the network.
    Listening,
    /// The last attempt failed; the agent tries again.
    Failed {
        /// What was being done and why it failed, for people. No secret.
        reason: String,
    },
}

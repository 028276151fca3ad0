//! What should exist on one network: the control plane's answer to `GET /agent/v1/networks/{name}/desired`.
//!
//! The query carries `generation`, the last generation the agent has, and `wait`, in seconds (at most 60). The
//! answer is 200 with a [`DesiredState`] of a higher generation, or 304 when `wait` has passed without one.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use bmi_types::{
    Architecture, BootKey, BootNumber, CephKey, DhcpMode, InstanceId, Iqn, MacAddr, Name, NetworkId,
    NetworkPlan, Segment,
};
use serde::{Deserialize, Serialize};

/// The whole desired state of one network. It holds secrets: keep it in files of mode 0600.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Grows with every change. An agent ignores a lower one than it has.
    pub generation: u64,
    /// What the control plane knows this generation by. The agent keeps it and sends it back: a database that was
    /// restored from a backup gives a number a second time, to something else.
    #[serde(default)]
    pub mark: String,
    /// The network itself.
    pub network: DesiredNetwork,
    /// Every instance that should have a target, and only those. What is not listed is removed.
    pub instances: Vec<DesiredInstance>,
    /// Interfaces of the agent's host, each of which leads to a node that is to be on this network. Those that the agent
    /// knows and that are not named here are kept in quarantine: in no bridge, and down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

/// A provisioning network as its agent must build it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    /// The network.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// Its addresses.
    #[serde(flatten)]
    pub plan: NetworkPlan,
    /// Part in DHCP.
    pub dhcp: DhcpMode,
    /// Addresses of DHCP relays, with `authoritative` only.
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
    /// What keeps it apart.
    pub segment: Segment,
}

/// One instance: a node, its address, its target and what boots it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredInstance {
    /// The instance. Names of veths, directories and users are derived from it.
    pub id: InstanceId,
    /// The host name given to the node.
    pub hostname: Name,
    /// The node's NICs on this network.
    pub macs: Vec<MacAddr>,
    /// The node's address. Nothing when another server gives it: then any of the node range is.
    pub node_address: Option<Ipv4Addr>,
    /// The node's architecture.
    pub architecture: Architecture,
    /// The iSCSI name the node's firmware is told to use.
    pub initiator: Iqn,
    /// The target.
    pub target: DesiredTarget,
    /// From which boot secrets are derived.
    pub boot_key: BootKey,
    /// The highest boot number that is known to have logged in, on whichever host: none that is lower may any more.
    #[serde(default)]
    pub boot_floor: BootNumber,
    /// How a broker reaches the instance's volumes, when they are in Ceph.
    #[serde(default)]
    pub ceph: Option<CephAccess>,
}

/// A cephx user that reaches the volumes of one instance and the golden image they were cloned from, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CephAccess {
    /// Where the monitors are, as Ceph's `mon_host` has it.
    pub mon_host: String,
    /// The pool.
    pub pool: String,
    /// The user, without `client.`.
    pub user: String,
    /// Its key. A user whose key was replaced is another one: whoever held the old key is fenced.
    pub key: CephKey,
}

/// One instance's iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredTarget {
    /// Its name.
    pub iqn: Iqn,
    /// Its address; the port is always 3260.
    pub address: Ipv4Addr,
    /// Its logical units. LUN 0 is the boot volume, LUN 1 the config volume.
    pub luns: Vec<DesiredLun>,
}

/// One logical unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredLun {
    /// Its number.
    pub lun: u16,
    /// Where the blocks are.
    pub backing: Backing,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Where the blocks of a volume are, as an agent can reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Backing {
    /// A raw file of the local store on the agent's own host.
    File {
        /// Absolute path, below the volume directory the agent is configured with.
        path: PathBuf,
    },
    /// An image in Ceph, which a broker on the agent's host serves with the instance's [`CephAccess`].
    Rbd {
        /// The namespace in the pool.
        namespace: String,
        /// The image's name.
        image: String,
    },
}

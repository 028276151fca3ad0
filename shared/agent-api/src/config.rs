//! Configuration of the processes an agent starts.
//!
//! The agent writes each file beside its final name and renames it over; a process gets the *directory*, read-only,
//! and looks at the file again when its modification time or inode changes.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use bmi_types::{BootKey, BootNumber, CephKey, DhcpMode, InstanceId, Iqn, MacAddr, Name, NetworkPlan};
use serde::{Deserialize, Serialize};

/// File name of a [`NetbootConfig`] in the boot services' directory.
pub const NETBOOT_FILE: &str = "netboot.json";

/// File name of a [`BootGate`] in a target's directory.
pub const BOOT_GATE_FILE: &str = "boot.json";

/// What `bmi-netboot --config FILE` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetbootConfig {
    /// The generation of the desired state it was made from.
    pub generation: u64,
    /// The network's addresses; `netboot_address` is the process's own.
    pub plan: NetworkPlan,
    /// Part in DHCP.
    pub dhcp: DhcpMode,
    /// Addresses of DHCP relays that are answered.
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
    /// Directory with `undionly.kpxe`, `snponly.efi` and perhaps `snponly-arm64.efi`.
    pub loaders: PathBuf,
    /// Every instance that can boot now: its target listens.
    pub instances: Vec<NetbootInstance>,
    /// Nodes with an instance that is not ready yet: they get their address, and a script that waits.
    pub waiting: Vec<NetbootReservation>,
}

/// The address of a node's NICs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetbootReservation {
    /// The node's NICs.
    pub macs: Vec<MacAddr>,
    /// The node's address. Nothing when another server gives it: then any of the node range is.
    pub address: Option<Ipv4Addr>,
    /// DHCP host name (option 12).
    pub hostname: Name,
}

/// One instance, as the boot services need to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetbootInstance {
    /// Which.
    pub id: InstanceId,
    /// Its node's NICs, address and host name.
    pub node: NetbootReservation,
    /// The iSCSI name the node is told to use.
    pub initiator: Iqn,
    /// The target's name.
    pub target: Iqn,
    /// The target's address; the port is 3260.
    pub target_address: Ipv4Addr,
    /// From which boot secrets are derived.
    pub boot_key: BootKey,
    /// The highest boot number that has logged in so far. Numbers given out are above it, whatever the clock says.
    #[serde(default)]
    pub floor: BootNumber,
    /// The number the boot volume has at the target. Left out where it is 0, so that boot services of a release before
    /// this read it too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lun: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(lun: &u16) -> bool {
    *lun == 0
}

/// What `bmi-target --boot-gate FILE` reads: which boots may log in. It takes the place of `--chap-user`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootGate {
    /// The instance.
    pub instance: InstanceId,
    /// From which boot secrets are derived.
    pub boot_key: BootKey,
    /// The highest boot number that has logged in so far. Lower ones are refused. The target raises its own copy;
    /// the agent writes it here so that a restarted target still knows.
    pub floor: BootNumber,
}

/// File name of a [`BrokerConfig`] in a broker's directory.
pub const BROKER_FILE: &str = "broker.json";

/// What `bmi-broker --config FILE` reads, once, at its start: the file may be removed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// The unix socket on which it serves NBD. It is made anew.
    pub socket: PathBuf,
    /// Where the monitors are, as Ceph's `mon_host` has it.
    pub mon_host: String,
    /// The pool.
    pub pool: String,
    /// The user, without `client.`.
    pub user: String,
    /// Its key.
    pub key: CephKey,
    /// What is served: a boot volume, and perhaps its config volume.
    pub exports: Vec<BrokerExport>,
}

/// One NBD export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerExport {
    /// The export's name: the number of the LUN.
    pub name: String,
    /// The image's namespace.
    pub namespace: String,
    /// The image's name.
    pub image: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

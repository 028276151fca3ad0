//! What a network and its processes should be: plain values that can be compared, sent and recorded.
//!
//! Two equal specifications need no action; any difference restarts the process, so nothing is changed in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bmi_agent_api::config::{BootGate, NetbootConfig, NetbootInstance, NetbootReservation};
use bmi_agent_api::desired::{Backing, DesiredInstance, DesiredNetwork, DesiredState};
use bmi_types::{BootNumber, DhcpMode, InstanceId, Ipv4Range, Iqn, MacAddr, NetworkPlan};
use serde::{Deserialize, Serialize};

use super::names::ProcessId;

/// The slot of the boot services; targets have the ones above.
pub const NETBOOT_SLOT: u32 = 0;

/// The most processes of one agent. Each has a user id of its own, `uid_base + 1 + slot`.
pub const SLOTS: u32 = 16_384;

/// One logical unit as a target serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LunSpec {
    /// Its number.
    pub lun: u16,
    /// The raw file, below the volume directory.
    pub path: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Whose.
    pub instance: InstanceId,
    /// Which user id.
    pub slot: u32,
    /// Its addresses, with the network around it.
    pub plan: NetworkPlan,
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its iSCSI name.
    pub iqn: Iqn,
    /// Who may log in.
    pub initiator: Iqn,
    /// The node's NICs.
    pub macs: Vec<MacAddr>,
    /// The node's address. Nothing when another server gives it: then any of the node range is.
    pub node_address: Option<Ipv4Addr>,
    /// Relays through which the node may come, with a MAC that is not its own.
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
    /// Its logical units.
    pub luns: Vec<LunSpec>,
}

/// The boot services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetbootSpec {
    /// The network's addresses.
    pub plan: NetworkPlan,
    /// Part in DHCP.
    pub dhcp: DhcpMode,
    /// Relays that are answered.
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
}

/// A process, its interface and its firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProcessSpec {
    /// The boot services.
    Netboot(NetbootSpec),
    /// A target.
    Target(TargetSpec),
}

impl ProcessSpec {
    /// Which process.
    #[must_use]
    pub const fn id(&self) -> ProcessId {
        match self {
            Self::Netboot(_) => ProcessId::Netboot,
            Self::Target(target) => ProcessId::Target(target.instance),
        }
    }

    /// Its slot.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        match self {
            Self::Netboot(_) => NETBOOT_SLOT,
            Self::Target(target) => target.slot,
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        match self {
            Self::Netboot(netboot) => netboot.plan.netboot_address,
            Self::Target(target) => target.address,
        }
    }

    /// Its logical units; the boot services have none.
    #[must_use]
    pub fn luns(&self) -> &[LunSpec] {
        match self {
            Self::Netboot(_) => &[],
            Self::Target(target) => &target.luns,
        }
    }

    /// The network around it.
    #[must_use]
    pub const fn plan(&self) -> &NetworkPlan {
        match self {
            Self::Netboot(netboot) => &netboot.plan,
            Self::Target(target) => &target.plan,
        }
    }
}

/// One target as the bridge's rules need to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPort {
    /// Whose.
    pub instance: InstanceId,
    /// The target's address.
    pub address: Ipv4Addr,
    /// The node's NICs.
    pub macs: Vec<MacAddr>,
    /// The node's address. Nothing when another server gives it: then any of the node range is.
    pub node_address: Option<Ipv4Addr>,
}

/// The bridge and who may talk to whom over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The network's addresses.
    pub plan: NetworkPlan,
    /// Part in DHCP: another server's packets may pass where it is not ours alone.
    pub dhcp: DhcpMode,
    /// Relays through which nodes may come.
    #[serde(default)]
    pub relays: Vec<Ipv4Addr>,
    /// Every target.
    pub targets: Vec<TargetPort>,
}

impl NetworkSpec {
    /// Where machines are that are no instance's node, or do not show their MAC.
    #[must_use]
    pub fn stranger_ranges(&self) -> Vec<Ipv4Range> {
        let mut ranges = vec![self.plan.discovery_range];
        if self.dhcp != DhcpMode::Authoritative || !self.relays.is_empty() {
            ranges.push(self.plan.node_range);
        }
        ranges.extend(self.relays.iter().filter_map(|relay| Ipv4Range::new(*relay, *relay)));
        ranges
    }
}

/// What the agent keeps between two starts besides the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The slot of each instance.
    pub slots: BTreeMap<InstanceId, u32>,
    /// The highest boot that logged in, of each instance.
    pub floors: BTreeMap<InstanceId, BootNumber>,
    /// Which run of each process has said `listening`.
    pub listening: BTreeMap<ProcessId, String>,
}

impl Kept {
    /// Gives each instance a slot, and forgets instances for which nothing is left: neither desired nor in `present`.
    /// An instance for which no slot is free gets none, and is reported as failed.
    pub fn settle(&mut self, desired: &DesiredState, present: &BTreeSet<ProcessId>) {
        let wanted: BTreeSet<InstanceId> = desired.instances.iter().map(|instance| instance.id).collect();
        let keep = |id: &InstanceId| wanted.contains(id) || present.contains(&ProcessId::Target(*id));
        self.slots.retain(|id, _| keep(id));
        self.floors.retain(|id, _| keep(id));
        self.listening.retain(|id, _| present.contains(id));
        let mut taken: BTreeSet<u32> = self.slots.values().copied().collect();
        for id in wanted {
            if self.slots.contains_key(&id) {
                continue;
            }
            if let Some(slot) = (NETBOOT_SLOT + 1..SLOTS).find(|slot| !taken.contains(slot)) {
                taken.insert(slot);
                self.slots.insert(id, slot);
            }
        }
    }
}

/// What should exist, derived from the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bridge.
    pub network: NetworkSpec,
    /// The processes.
    pub processes: BTreeMap<ProcessId, ProcessSpec>,
    /// The gate of each target.
    pub gates: BTreeMap<InstanceId, BootGate>,
    /// Every instance as the boot services are told about it.
    pub boots: Vec<NetbootInstance>,
    /// The boot services' configuration without any instance.
    pub netboot: NetbootConfig,
}

impl Wanted {
    /// Derives everything.
    #[must_use]
    pub fn from_desired(desired: &DesiredState, kept: &Kept, loaders: PathBuf) -> Self {
        let plan = desired.network.plan;
        let targets: Vec<TargetSpec> = desired
            .instances
            .iter()
            .filter_map(|instance| target(instance, &desired.network, kept))
            .collect();
        let DesiredNetwork { dhcp, relays, .. } = &desired.network;
        let network = NetworkSpec {
            plan,
            dhcp: *dhcp,
            relays: relays.clone(),
            targets: targets
                .iter()
                .map(|target| TargetPort {
                    instance: target.instance,
                    address: target.address,
                    macs: target.macs.clone(),
                    node_address: target.node_address,
                })
                .collect(),
        };
        let netboot = NetbootSpec { plan, dhcp: *dhcp, relays: relays.clone() };
        let mut processes: BTreeMap<_, _> = targets
            .into_iter()
            .map(|target| (ProcessId::Target(target.instance), ProcessSpec::Target(target)))
            .collect();
        processes.insert(ProcessId::Netboot, ProcessSpec::Netboot(netboot));
        let gate = |instance: &DesiredInstance| BootGate {
            instance: instance.id,
            boot_key: instance.boot_key.clone(),
            floor: kept.floors.get(&instance.id).copied().unwrap_or_default(),
        };
        Self {
            network,
            processes,
            gates: desired.instances.iter().map(|instance| (instance.id, gate(instance))).collect(),
            boots: desired.instances.iter().map(|instance| boot(instance, kept)).collect(),
            netboot: NetbootConfig {
                generation: desired.generation,
                plan,
                dhcp: *dhcp,
                relays: relays.clone(),
                loaders,
                instances: Vec::new(),
                waiting: Vec::new(),
            },
        }
    }

    /// The boot services' configuration when these instances can boot and the others have to wait.
    #[must_use]
    pub fn netboot_config(&self, ready: &BTreeSet<InstanceId>) -> NetbootConfig {
        let (instances, waiting): (Vec<_>, Vec<_>) =
            self.boots.iter().cloned().partition(|boot| ready.contains(&boot.id));
        NetbootConfig {
            instances,
            waiting: waiting.into_iter().map(|boot| boot.node).collect(),
            ..self.netboot.clone()
        }
    }
}

fn target(instance: &DesiredInstance, network: &DesiredNetwork, kept: &Kept) -> Option<TargetSpec> {
    let luns = instance.target.luns.iter().map(|lun| match &lun.backing {
        Backing::File { path } => {
            Some(LunSpec { lun: lun.lun, path: path.clone(), read_only: lun.read_only })
        }
        Backing::Rbd { .. } => None,
    });
    Some(TargetSpec {
        instance: instance.id,
        slot: *kept.slots.get(&instance.id)?,
        plan: network.plan,
        address: instance.target.address,
        iqn: instance.target.iqn.clone(),
        initiator: instance.initiator.clone(),
        macs: instance.macs.clone(),
        node_address: instance.node_address,
        relays: network.relays.clone(),
        luns: luns.collect::<Option<_>>()?,
    })
}

fn boot(instance: &DesiredInstance, kept: &Kept) -> NetbootInstance {
    NetbootInstance {
        id: instance.id,
        node: NetbootReservation {
            macs: instance.macs.clone(),
            address: instance.node_address,
            hostname: instance.hostname.clone(),
        },
        initiator: instance.initiator.clone(),
        target: instance.target.iqn.clone(),
        target_address: instance.target.address,
        boot_key: instance.boot_key.clone(),
        floor: kept.floors.get(&instance.id).copied().unwrap_or_default(),
    }
}

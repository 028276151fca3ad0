//! What a network and its processes should be: plain values that can be compared, sent and recorded.
//!
//! Two equal specifications need no action; any difference restarts the process, so nothing is changed in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bmi_agent_api::config::{BootGate, BrokerExport, NetbootConfig, NetbootInstance, NetbootReservation};
use bmi_agent_api::desired::{
    Backing, CephAccess, DesiredInstance, DesiredLun, DesiredNetwork, DesiredState,
};
use bmi_types::{BootNumber, DhcpMode, InstanceId, Ipv4Range, Iqn, MacAddr, NetworkPlan, Segment};
use serde::{Deserialize, Serialize};

use super::names::{InterfaceName, ProcessId};

/// The slot of the boot services; targets and brokers have the ones above.
pub const NETBOOT_SLOT: u32 = 0;

/// The most processes of one agent. Each has a user id of its own, `uid_base + 1 + slot`.
pub const SLOTS: u32 = 16_384;

/// One logical unit that is a file of this host.
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

/// One logical unit that is with the instance's broker. Its export there is called by the number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteLun {
    /// Its number.
    pub lun: u16,
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
    /// Its logical units that are files.
    pub luns: Vec<LunSpec>,
    /// Its logical units that are with its broker.
    #[serde(default)]
    pub remote: Vec<RemoteLun>,
}

/// A broker. Another key makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSpec {
    /// Whose.
    pub instance: InstanceId,
    /// Which user id.
    pub slot: u32,
    /// Which user id its target has: the only one that may connect.
    pub target_slot: u32,
    /// How it reaches Ceph.
    pub access: CephAccess,
    /// What it serves.
    pub exports: Vec<BrokerExport>,
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
    /// A broker.
    Broker(BrokerSpec),
}

impl ProcessSpec {
    /// Which process.
    #[must_use]
    pub const fn id(&self) -> ProcessId {
        match self {
            Self::Netboot(_) => ProcessId::Netboot,
            Self::Target(target) => ProcessId::Target(target.instance),
            Self::Broker(broker) => ProcessId::Broker(broker.instance),
        }
    }

    /// Its slot.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        match self {
            Self::Netboot(_) => NETBOOT_SLOT,
            Self::Target(target) => target.slot,
            Self::Broker(broker) => broker.slot,
        }
    }

    /// Its address, and the network around it. A broker has no place on the network.
    #[must_use]
    pub const fn place(&self) -> Option<(Ipv4Addr, &NetworkPlan)> {
        match self {
            Self::Netboot(netboot) => Some((netboot.plan.netboot_address, &netboot.plan)),
            Self::Target(target) => Some((target.address, &target.plan)),
            Self::Broker(_) => None,
        }
    }

    /// Its logical units that are files; only a target has any.
    #[must_use]
    pub fn luns(&self) -> &[LunSpec] {
        match self {
            Self::Netboot(_) | Self::Broker(_) => &[],
            Self::Target(target) => &target.luns,
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
    /// What keeps it apart from other networks on the same wires.
    #[serde(default)]
    pub segment: Segment,
    /// Interfaces of this host that lead to nodes of this network.
    #[serde(default)]
    pub ports: BTreeSet<InterfaceName>,
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
    /// The slot of each instance's target.
    pub slots: BTreeMap<InstanceId, u32>,
    /// The slot of each instance's broker.
    #[serde(default)]
    pub broker_slots: BTreeMap<InstanceId, u32>,
    /// The highest boot that logged in, of each instance.
    pub floors: BTreeMap<InstanceId, BootNumber>,
    /// Which run of each process has said `listening`.
    pub listening: BTreeMap<ProcessId, String>,
}

impl Kept {
    /// Gives each instance a slot, and another where it needs a broker, and forgets instances for which nothing is left:
    /// neither desired nor in `present`. An instance for which none is free gets none, and is reported as failed.
    pub fn settle(&mut self, desired: &DesiredState, present: &BTreeSet<ProcessId>) {
        let wanted: BTreeSet<InstanceId> = desired.instances.iter().map(|instance| instance.id).collect();
        let brokers =
            desired.instances.iter().filter(|instance| is_remote(instance)).map(|instance| instance.id);
        let processes = |id: &InstanceId| [ProcessId::Target(*id), ProcessId::Broker(*id)];
        let keep =
            |id: &InstanceId| wanted.contains(id) || processes(id).iter().any(|it| present.contains(it));
        self.slots.retain(|id, _| keep(id));
        self.broker_slots.retain(|id, _| keep(id));
        self.floors.retain(|id, _| keep(id));
        self.listening.retain(|id, _| present.contains(id));
        let mut taken: BTreeSet<u32> =
            self.slots.values().chain(self.broker_slots.values()).copied().collect();
        for instance in &desired.instances {
            // What has logged in on another host, before this one had the network, counts here too.
            if instance.boot_floor > self.floors.get(&instance.id).copied().unwrap_or_default() {
                self.floors.insert(instance.id, instance.boot_floor);
            }
        }
        fill(&mut self.slots, &mut taken, wanted.iter().copied());
        fill(&mut self.broker_slots, &mut taken, brokers);
    }
}

/// Gives a slot to each that has none, as long as there are some.
fn fill(
    slots: &mut BTreeMap<InstanceId, u32>,
    taken: &mut BTreeSet<u32>,
    wanted: impl Iterator<Item = InstanceId>,
) {
    for id in wanted {
        if slots.contains_key(&id) {
            continue;
        }
        if let Some(slot) = (NETBOOT_SLOT + 1..SLOTS).find(|slot| !taken.contains(slot)) {
            taken.insert(slot);
            slots.insert(id, slot);
        }
    }
}

/// Whether a part of its volumes is in Ceph.
fn is_remote(instance: &DesiredInstance) -> bool {
    instance.target.luns.iter().any(|lun| matches!(lun.backing, Backing::Rbd { .. }))
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
            segment: desired.network.segment,
            // What is no interface anywhere is none here.
            ports: desired.ports.iter().filter_map(|port| port.parse().ok()).collect(),
        };
        let netboot = NetbootSpec { plan, dhcp: *dhcp, relays: relays.clone() };
        let mut processes: BTreeMap<_, _> = targets
            .into_iter()
            .map(|target| (ProcessId::Target(target.instance), ProcessSpec::Target(target)))
            .collect();
        let brokers = desired.instances.iter().filter_map(|instance| broker(instance, kept));
        processes
            .extend(brokers.map(|broker| (ProcessId::Broker(broker.instance), ProcessSpec::Broker(broker))));
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
    let (mut luns, mut remote) = (Vec::new(), Vec::new());
    for lun in &instance.target.luns {
        match &lun.backing {
            Backing::File { path } => {
                luns.push(LunSpec { lun: lun.lun, path: path.clone(), read_only: lun.read_only });
            }
            Backing::Rbd { .. } => remote.push(RemoteLun { lun: lun.lun, read_only: lun.read_only }),
        }
    }
    if !remote.is_empty() {
        broker(instance, kept)?;
    }
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
        luns,
        remote,
    })
}

/// The broker of an instance with a part of its volumes in Ceph, when it is said how to get there.
fn broker(instance: &DesiredInstance, kept: &Kept) -> Option<BrokerSpec> {
    let export = |lun: &DesiredLun| match &lun.backing {
        Backing::File { .. } => None,
        Backing::Rbd { namespace, image } => Some(BrokerExport {
            name: lun.lun.to_string(),
            namespace: namespace.clone(),
            image: image.clone(),
            read_only: lun.read_only,
        }),
    };
    let exports: Vec<_> = instance.target.luns.iter().filter_map(export).collect();
    if exports.is_empty() {
        return None;
    }
    Some(BrokerSpec {
        instance: instance.id,
        slot: *kept.broker_slots.get(&instance.id)?,
        target_slot: *kept.slots.get(&instance.id)?,
        access: instance.ceph.clone()?,
        exports,
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
        // As the target's driver reports it, once it listens.
        lun: 0,
    }
}

//! Everything of a network that is not a process: what is refused, the segment's device, the ports that lead to nodes.
//!
//! Order: nothing is made of what overlaps the host's own networks or cannot be made here; then devices, which are in no
//! bridge yet; then rules that know them; then they join. So no port is in the bridge before its rules are in force.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use bmi_agent_api::status::PortStatus;
use bmi_types::{MacAddr, Segment, chain};
use tokio::task::spawn_blocking;

use super::firewall::{self, FirewallError, Place, Ruleset};
use super::links::{Link, LinkError, Links};
use super::overlap::Overlap;
use super::ports::Ports;
use super::segment::{Device, SegmentError, device};
use crate::config::Config;
use crate::plan::names::{self, InterfaceName};
use crate::plan::spec::NetworkSpec;

/// Why a network's wires are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It cannot be meant.
    #[error("{cidr} overlaps {overlap}: nothing of the network is made on this host")]
    Overlaps {
        /// The network.
        cidr: bmi_types::Ipv4Net,
        /// What of the host's.
        overlap: Overlap,
    },
    /// A card that the host needs for itself.
    #[error(
        "{card} is {used}: as a port of the bridge it would be cut off; nothing of the network is made on this host"
    )]
    InUse {
        /// Which.
        card: InterfaceName,
        /// What for.
        used: String,
    },
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Links.
    #[error("wiring")]
    Link(#[from] LinkError),
    /// Rules.
    #[error("fencing in the segment")]
    Firewall(#[from] FirewallError),
    /// A thread.
    #[error("fencing in the segment")]
    Thread(#[source] io::Error),
}

/// What is remembered of wires.
#[derive(Debug, Default)]
pub struct Wires {
    /// Whether a VXLAN has a fence; nothing while that is not known.
    fenced: Cell<Option<bool>>,
}

/// What leads from the bridge to the rest of the network.
#[must_use]
pub fn uplink(config: &Config, segment: Segment) -> Option<InterfaceName> {
    match segment {
        Segment::None => config.uplink.clone(),
        Segment::Vlan(_) | Segment::Vxlan(_) => Some(names::segment(&config.bridge)),
    }
}

fn ports<'a>(config: &'a Config, network: &'a NetworkSpec, bridge: Option<u32>) -> Ports<'a> {
    Ports { known: &config.node_ports, wanted: &network.ports, bridge }
}

impl Wires {
    /// Refuses what cannot be; nothing is changed. Gives the segment's device, where one is to be made.
    pub async fn check(
        &self,
        links: &Links,
        config: &Config,
        network: &NetworkSpec,
    ) -> Result<Option<Device>, WireError> {
        let cidr = network.plan.cidr;
        if let Some(overlap) = links.overlap(cidr).await? {
            return Err(WireError::Overlaps { cidr, overlap });
        }
        let all = links.all().await?;
        let ours = all.get(config.bridge.as_str()).map(|bridge| bridge.index);
        // A node's port is left where it is when another bridge has it.
        for card in &config.node_ports {
            if let Some(used) = links.loose_use(&all, card).await? {
                return Err(WireError::InUse { card: card.clone(), used });
            }
        }
        if let Some(card) = config.uplink.as_ref().filter(|_| network.segment == Segment::None)
            && let Some(used) = links.use_of(&all, card, ours).await?
        {
            return Err(WireError::InUse { card: card.clone(), used });
        }
        Ok(device(config, network.segment)?)
    }

    /// Whether a fence of a VXLAN is in force.
    pub fn is_fenced(&self) -> bool {
        self.fenced.get() == Some(true)
    }

    /// Puts the fence of a VXLAN in force, where there is one, without looking at anything else.
    pub async fn fence(&self, config: &Config, device: Option<&Device>) -> Result<(), WireError> {
        let fence = device
            .and_then(Device::vxlan)
            .map(|(vni, section)| firewall::vxlan_table(&config.bridge, vni, section.port, &section.peers));
        if fence.is_some() || self.fenced.get() != Some(false) {
            self.fenced.set(Some(fence.is_some()));
            install(fence.unwrap_or_else(|| firewall::vxlan_remove(&config.bridge))).await?;
        }
        Ok(())
    }

    /// Makes the segment's device and its fence, and takes ports that are not wanted out of the bridge. Gives what is to
    /// join.
    pub async fn ready(
        &self,
        links: &Links,
        config: &Config,
        network: &NetworkSpec,
        device: Option<&Device>,
        bridge: u32,
    ) -> Result<BTreeSet<InterfaceName>, WireError> {
        self.fence(config, device).await?;
        match device {
            Some(device) => links.segment_ensure(device).await?,
            None => match links.segment_remove(&names::segment(&config.bridge)).await {
                // Whoever has that name has nothing to do with us.
                Ok(()) | Err(LinkError::Foreign(_)) => {}
                Err(error) => return Err(error.into()),
            },
        }
        let all = links.all().await?;
        let ports = ports(config, network, Some(bridge));
        for port in ports.leaving(&all) {
            links.quarantine(port).await?;
            tracing::info!(port = %port, "a node's port is in quarantine");
        }
        let up = uplink(config, network.segment).filter(|uplink| all.contains_key(uplink.as_str()));
        Ok(ports.joining(&all).cloned().chain(up).collect())
    }

    /// Whether something is not where it should be, and can be put there.
    pub fn amiss(
        &self,
        config: &Config,
        network: &NetworkSpec,
        links: &BTreeMap<String, Link>,
        bridge: Option<u32>,
    ) -> bool {
        let ports = ports(config, network, bridge);
        let moved = ports.joining(links).next().is_some() || ports.leaving(links).next().is_some();
        let uplink = config.uplink.as_ref().filter(|_| network.segment == Segment::None);
        let loose =
            uplink.and_then(|uplink| links.get(uplink.as_str())).is_some_and(|it| it.controller.is_none());
        // One that cannot be made is told of when it is tried.
        let segment = device(config, network.segment).ok().flatten();
        let lost = segment.is_some_and(|device| {
            device.is_among(links).is_none_or(|link| link.controller != bridge || !link.is_up)
        });
        moved || loose || lost
    }

    /// Where the ports are that lead to nodes.
    pub fn places(
        &self,
        config: &Config,
        network: Option<&NetworkSpec>,
        links: &BTreeMap<String, Link>,
        bridge: Option<u32>,
    ) -> Vec<PortStatus> {
        let none = BTreeSet::new();
        let wanted = network.map_or(&none, |network| &network.ports);
        Ports { known: &config.node_ports, wanted, bridge }.places(links)
    }

    /// Has the VXLAN send what is for a node to where the rules saw it first, and nowhere else.
    pub async fn peers_follow(
        &self,
        links: &Links,
        config: &Config,
        network: &NetworkSpec,
        places: &BTreeSet<(MacAddr, Place)>,
    ) {
        let name = names::segment(&config.bridge);
        let known = match links.peers(&name).await {
            Ok(known) if matches!(network.segment, Segment::Vxlan(_)) => known,
            _ => return,
        };
        let here = places.iter().filter(|(_, place)| place.port == name.as_str());
        let wanted: BTreeMap<MacAddr, Ipv4Addr> =
            here.filter_map(|(mac, place)| Some((*mac, place.peer?))).collect();
        let gone = known.keys().filter(|mac| !wanted.contains_key(mac)).map(|mac| (*mac, None));
        let new = wanted.iter().filter(|(mac, peer)| known.get(mac) != Some(peer));
        for (mac, peer) in gone.chain(new.map(|(mac, peer)| (*mac, Some(*peer)))) {
            if let Err(error) = links.peer_set(&name, mac, peer).await {
                tracing::warn!(%mac, error = chain(&error), "a node's peer was not entered");
            }
        }
    }

    /// Takes every port that leads to a node out of the bridge, and removes the segment's device and its fence: as many of them
    /// as can be.
    ///
    /// # Errors
    /// The first fault.
    pub async fn remove(&self, links: &Links, config: &Config) -> Result<(), WireError> {
        let all = links.all().await?;
        let mut done: Result<(), WireError> = Ok(());
        for port in &config.node_ports {
            // One that the host needs never was a port.
            let left = match links.loose_use(&all, port).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => links.quarantine(port).await,
                Err(error) => Err(error),
            };
            done = done.and(left.map_err(WireError::from));
        }
        match links.segment_remove(&names::segment(&config.bridge)).await {
            Ok(()) | Err(LinkError::Foreign(_)) => {}
            Err(error) => done = done.and(Err(error.into())),
        }
        // The fence stays for as long as there may be a device behind it.
        done?;
        install(firewall::vxlan_remove(&config.bridge)).await
    }
}

async fn install(rules: Ruleset) -> Result<(), WireError> {
    let installed = spawn_blocking(move || rules.install()).await;
    Ok(installed.map_err(|error| WireError::Thread(io::Error::other(error)))??)
}

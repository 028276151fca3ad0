//! The device of the network's segment: a VXLAN or a VLAN, made by the agent and found again by its alias.
//!
//! A VXLAN does not learn from what arrives where a MAC is: any peer could take another's. What is for everybody, or for
//! nobody that is known, goes to every peer, and what is for a node to the peer at which the bridge's rules saw it first
//! (`firewall::places`).
//!
//! Invariant: a device has the alias of everything it was made with; one that differs is made anew.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bmi_types::{MacAddr, Segment};
use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan};

use super::links::{Link, LinkError, Links, SEGMENT_ALIAS};
use crate::config::{Config, VlanSection, VxlanSection};
use crate::plan::names::{self, InterfaceName};

/// Where frames go whose goal is not known.
const EVERYBODY: [u8; 6] = [0; 6];

/// What a segment's device is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Vxlan(u32, VxlanSection),
    Vlan(u16, VlanSection),
}

/// A segment's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: InterfaceName,
    alias: String,
    kind: Kind,
}

/// Why a segment cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Nothing in the configuration says how.
    #[error("the network's segment is a {0}, and the agent's configuration has no [{0}] section")]
    NotConfigured(&'static str),
    /// The configuration says another one.
    #[error(
        "the network's segment is {asked}, and `segment` in the agent's configuration allows {allowed} alone"
    )]
    NotAllowed {
        /// Which is asked for.
        asked: Segment,
        /// Which may be.
        allowed: Segment,
    },
    /// The kernel lacks it.
    #[error("this kernel has no 802.1Q VLANs (module 8021q): the segment cannot be made on this host")]
    NoVlan(#[source] LinkError),
    /// Links.
    #[error("making the segment")]
    Link(#[from] LinkError),
}

/// The device of a segment; nothing where there is none to make.
///
/// # Errors
/// When the configuration does not say how, or allows another one.
pub fn device(config: &Config, segment: Segment) -> Result<Option<Device>, SegmentError> {
    if let Some(allowed) = config.segment.filter(|allowed| *allowed != segment) {
        return Err(SegmentError::NotAllowed { asked: segment, allowed });
    }
    let kind = match segment {
        Segment::None => return Ok(None),
        Segment::Vxlan(vni) => {
            Kind::Vxlan(vni, config.vxlan.clone().ok_or(SegmentError::NotConfigured("vxlan"))?)
        }
        Segment::Vlan(id) => Kind::Vlan(id, config.vlan.clone().ok_or(SegmentError::NotConfigured("vlan"))?),
    };
    // An alias is at most 255 bytes: what it was made with is there as a number.
    let alias = format!("{SEGMENT_ALIAS}{}:{:016x}", config.network, names::digest(&format!("{kind:?}")));
    Ok(Some(Device { name: names::segment(&config.bridge), alias, kind }))
}

impl Device {
    /// The VXLAN's number and how it is made.
    #[must_use]
    pub const fn vxlan(&self) -> Option<(u32, &VxlanSection)> {
        match &self.kind {
            Kind::Vxlan(vni, section) => Some((*vni, section)),
            Kind::Vlan(..) => None,
        }
    }

    /// Whether this very device is among the links.
    #[must_use]
    pub fn is_among<'a>(&self, links: &'a BTreeMap<String, Link>) -> Option<&'a Link> {
        links.get(self.name.as_str()).filter(|link| link.alias.as_deref() == Some(self.alias.as_str()))
    }
}

impl Links {
    /// Makes the device when it is not there, down and in no bridge. Another segment's of this bridge is removed.
    ///
    /// # Errors
    /// When the kernel refuses, or the name is somebody else's.
    pub async fn segment_ensure(&self, device: &Device) -> Result<(), SegmentError> {
        let all = self.all().await?;
        if device.is_among(&all).is_none() {
            self.segment_remove(&device.name).await?;
            self.segment_make(device, &all).await?;
        }
        if let Kind::Vxlan(_, section) = &device.kind {
            let index = self.find(device.name.as_str()).await?.index;
            for peer in &section.peers {
                self.flood_to(&device.name, index, *peer).await?;
            }
        }
        Ok(())
    }

    async fn segment_make(&self, device: &Device, all: &BTreeMap<String, Link>) -> Result<(), SegmentError> {
        let name = device.name.as_str();
        let below = |below: &InterfaceName| {
            all.get(below.as_str()).map(|link| link.index).ok_or_else(|| LinkError::Absent(below.to_string()))
        };
        let made = match &device.kind {
            Kind::Vxlan(vni, section) => {
                let mut wanted =
                    LinkVxlan::new(name, *vni).local(section.local).port(section.port).learning(false);
                if let Some(device) = &section.device {
                    wanted = wanted.dev(below(device)?);
                }
                if let Some(group) = section.group {
                    wanted = wanted.group(group);
                }
                self.add(name, wanted).await
            }
            Kind::Vlan(id, section) => {
                let made = self.add(name, LinkVlan::new(name, below(&section.device)?, *id)).await;
                match made {
                    Err(error) if error.is_unsupported() => return Err(SegmentError::NoVlan(error)),
                    other => other,
                }
            }
        };
        made?;
        let index = self.find(name).await?.index;
        let owned = LinkUnspec::new_with_index(index).alias(device.alias.as_str()).build();
        let request =
            |source| LinkError::Request { doing: "naming the owner of", link: name.to_owned(), source };
        Ok(self.handle().link().set(owned).execute().await.map_err(request)?)
    }

    async fn add<T>(&self, name: &str, wanted: LinkMessageBuilder<T>) -> Result<(), LinkError> {
        let request =
            |source| LinkError::Request { doing: "making the segment", link: name.to_owned(), source };
        self.handle().link().add(wanted.build()).execute().await.map_err(request)
    }

    /// Removes a segment's device, whichever it is.
    ///
    /// # Errors
    /// When the kernel refuses, or it is somebody else's.
    pub async fn segment_remove(&self, name: &InterfaceName) -> Result<(), LinkError> {
        let Some(link) = self.all().await?.remove(name.as_str()) else { return Ok(()) };
        match link.alias.filter(|alias| alias.starts_with(SEGMENT_ALIAS)) {
            Some(alias) => self.remove(name, &alias).await,
            None => Err(LinkError::Foreign(name.to_string())),
        }
    }

    /// Has a VXLAN send what is for everybody to a peer as well.
    async fn flood_to(&self, name: &InterfaceName, index: u32, peer: Ipv4Addr) -> Result<(), LinkError> {
        let request =
            |source| LinkError::Request { doing: "entering a peer of", link: name.to_string(), source };
        let mut entry = self.handle().neighbours().add_bridge(index, &EVERYBODY);
        entry = entry.destination(IpAddr::V4(peer)).flags(NeighbourFlags::Own);
        // There is no request of the library's that adds to an entry.
        let mut message =
            NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry.message_mut().clone()));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        let mut answers = self.handle().clone().request(message).map_err(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(request(rtnetlink::Error::NetlinkError(error)));
            }
        }
        Ok(())
    }

    /// To which peer a VXLAN sends what is for a MAC.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn peers(&self, name: &InterfaceName) -> Result<BTreeMap<MacAddr, Ipv4Addr>, LinkError> {
        let request =
            |source| LinkError::Request { doing: "listing peers of", link: name.to_string(), source };
        let index = self.find(name.as_str()).await?.index;
        let all = self.handle().neighbours().get().set_address_family(AddressFamily::Bridge).execute();
        let entries: Vec<NeighbourMessage> = all.try_collect().await.map_err(request)?;
        let of = |entry: NeighbourMessage| {
            let (mut mac, mut peer) = (None, None);
            for attribute in entry.attributes {
                match attribute {
                    NeighbourAttribute::LinkLayerAddress(bytes) => {
                        mac = <[u8; 6]>::try_from(bytes)
                            .ok()
                            .and_then(|bytes| MacAddr::from_octets(bytes).ok());
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => peer = Some(address),
                    _ => {}
                }
            }
            mac.zip(peer)
        };
        Ok(entries.into_iter().filter(|entry| entry.header.ifindex == index).filter_map(of).collect())
    }

    /// Has a VXLAN send what is for a MAC to one peer and to no other, or to everybody again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn peer_set(
        &self,
        name: &InterfaceName,
        mac: MacAddr,
        peer: Option<Ipv4Addr>,
    ) -> Result<(), LinkError> {
        let request = |source| LinkError::Request {
            doing: "entering a node's place at",
            link: name.to_string(),
            source,
        };
        let index = self.find(name.as_str()).await?.index;
        let mut entry = self.handle().neighbours().add_bridge(index, &mac.octets());
        entry = entry.state(NeighbourState::Permanent).flags(NeighbourFlags::Own);
        match peer {
            Some(peer) => entry.destination(IpAddr::V4(peer)).replace().execute().await.map_err(request),
            None => {
                let message = entry.message_mut().clone();
                match self.handle().neighbours().del(message).execute().await {
                    Ok(()) => Ok(()),
                    Err(error) if LinkError::is_absent(&error) => Ok(()),
                    Err(error) => Err(request(error)),
                }
            }
        }
    }
}

//! Bridges, veth pairs, addresses and neighbours, by netlink.
//!
//! Ownership is in the alias, `bmi:<process>` or `bmi:<network>`: nothing without it is ever removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use bmi_types::MacAddr;
use futures::TryStreamExt;
use netlink_packet_route::link::{BridgeBooleanOptionFlags, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::plan::names::InterfaceName;

/// How the alias of a segment's device begins. It is no `bmi:`, since that is a port that leads to one of ours.
pub const SEGMENT_ALIAS: &str = "bmi-segment:";

/// The process's interface inside its namespace.
pub const INSIDE: &str = "eth0";

/// The largest packet on Ethernet, in bytes.
const USUAL_MTU: u32 = 1500;

/// What could not be done to a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink.
    #[error("opening netlink")]
    Open(#[source] std::io::Error),
    /// A request was refused.
    #[error("{doing} {link}")]
    Request {
        /// What was being done.
        doing: &'static str,
        /// To which link.
        link: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// It should be there.
    #[error("there is no link {0}")]
    Absent(String),
    /// It is somebody else's.
    #[error("link {0} exists and is not ours")]
    Foreign(String),
}

/// One link as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Whose it is.
    pub alias: Option<String>,
    /// The bridge it is in.
    pub controller: Option<u32>,
    /// Whether it is up.
    pub is_up: bool,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
}

impl LinkError {
    fn code(error: &rtnetlink::Error) -> Option<i32> {
        match error {
            rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
            _ => None,
        }
    }

    /// Whether the kernel does not have what was asked for.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        let unsupported = [nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT, nix::libc::EPROTONOSUPPORT];
        matches!(self, Self::Request { source, .. } if Self::code(source).is_some_and(|it| unsupported.contains(&it)))
    }

    /// Whether what was to be removed is not there.
    #[must_use]
    pub fn is_absent(error: &rtnetlink::Error) -> bool {
        Self::code(error) == Some(nix::libc::ENOENT)
    }
}

/// The links of the namespace the calling thread is in.
#[derive(Debug, Clone)]
pub struct Links(Handle);

impl Links {
    /// Opens netlink. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Every link by name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn all(&self) -> Result<BTreeMap<String, Link>, LinkError> {
        let request = |source| LinkError::Request { doing: "listing", link: "all links".to_owned(), source };
        let links: Vec<LinkMessage> = self.0.link().get().execute().try_collect().await.map_err(request)?;
        Ok(links.into_iter().filter_map(read).collect())
    }

    /// For what is in other files of the driver.
    pub(super) const fn handle(&self) -> &Handle {
        &self.0
    }

    pub(super) async fn find(&self, name: &str) -> Result<Link, LinkError> {
        self.all().await?.remove(name).ok_or_else(|| LinkError::Absent(name.to_owned()))
    }

    /// Makes the bridge when it is absent, without an address, and sets it up. Gives its number.
    ///
    /// It does not learn from frames to the link-local groups (LLDP and the like): for some of these it asks no rule
    /// before it learns, and any port could take a MAC from another.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn bridge_ensure(&self, bridge: &InterfaceName, alias: &str) -> Result<u32, LinkError> {
        let name = bridge.as_str();
        let request =
            |source| LinkError::Request { doing: "making the bridge", link: name.to_owned(), source };
        let learning = BridgeBooleanOptionFlags::NoLinkLocalLearn;
        let wanted = LinkBridge::new(name).set_boolean_opt(learning, true).build();
        if let Some(link) = self.all().await?.get(name) {
            self.0.link().change(wanted).execute().await.map_err(request)?;
            return Ok(link.index);
        }
        self.0.link().add(wanted).execute().await.map_err(request)?;
        let index = self.find(name).await?.index;
        let ready = LinkUnspec::new_with_index(index).alias(alias).up().build();
        self.0.link().set(ready).execute().await.map_err(request)?;
        Ok(index)
    }

    /// Puts a link into a bridge and sets it up, when it exists.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn port_ensure(&self, name: &InterfaceName, bridge: u32) -> Result<(), LinkError> {
        let Some(link) = self.all().await?.remove(name.as_str()) else { return Ok(()) };
        let message = LinkUnspec::new_with_index(link.index).controller(bridge).up().build();
        self.0.link().set(message).execute().await.map_err(|source| LinkError::Request {
            doing: "putting into the bridge",
            link: name.to_string(),
            source,
        })
    }

    /// Enters at which port of its bridge a MAC is, for good: no frame from elsewhere moves it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn mac_fix(&self, port: &InterfaceName, mac: [u8; 6]) -> Result<(), LinkError> {
        let index = self.find(port.as_str()).await?.index;
        let entry = self.0.neighbours().add_bridge(index, &mac).state(NeighbourState::Noarp);
        // A static entry lasts, but moves; one that is sticky stays.
        let entry = entry.flags(NeighbourFlags::Controller | NeighbourFlags::Sticky).replace();
        entry.execute().await.map_err(|source| LinkError::Request {
            doing: "fixing the address at",
            link: port.to_string(),
            source,
        })
    }

    /// Makes a veth pair and moves its far end into a namespace. A pair of the same owner is replaced.
    ///
    /// # Errors
    /// When the kernel refuses, or the name is somebody else's.
    pub async fn veth_make(
        &self,
        port: &InterfaceName,
        peer: &InterfaceName,
        alias: &str,
        mac: [u8; 6],
        namespace: &File,
    ) -> Result<(), LinkError> {
        self.remove(port, alias).await?;
        let request = |doing| move |source| LinkError::Request { doing, link: port.to_string(), source };
        let pair = LinkVeth::new(port.as_str(), peer.as_str()).build();
        self.0.link().add(pair).execute().await.map_err(request("making the veth pair"))?;
        let owned = LinkUnspec::new_with_index(self.find(port.as_str()).await?.index).alias(alias).build();
        self.0.link().set(owned).execute().await.map_err(request("naming the owner of"))?;
        let all = self.all().await?;
        let of = |name: &InterfaceName| {
            all.get(name.as_str()).map(|link| link.index).ok_or_else(|| LinkError::Absent(name.to_string()))
        };
        let (near, far) = (of(port)?, of(peer)?);
        let mut moved = LinkUnspec::new_with_index(far)
            .name(INSIDE)
            .address(mac.to_vec())
            .setns_by_fd(namespace.as_raw_fd());
        if let Some(mtu) = segment_mtu(&all) {
            let smaller = LinkUnspec::new_with_index(near).mtu(mtu).build();
            self.0.link().set(smaller).execute().await.map_err(request("making smaller packets at"))?;
            moved = moved.mtu(mtu);
        }
        let moved = moved.build();
        self.0.link().set(moved).execute().await.map_err(request("moving the far end of"))
    }

    /// Removes a link of this owner, when it exists.
    ///
    /// # Errors
    /// When the kernel refuses, or it is somebody else's.
    pub async fn remove(&self, name: &InterfaceName, alias: &str) -> Result<(), LinkError> {
        let Some(link) = self.all().await?.remove(name.as_str()) else { return Ok(()) };
        if link.alias.as_deref() != Some(alias) {
            return Err(LinkError::Foreign(name.to_string()));
        }
        match self.0.link().del(link.index).execute().await {
            Ok(()) => Ok(()),
            // The kernel removes it with the namespace of its far end, perhaps just now.
            Err(_) if !self.all().await?.contains_key(name.as_str()) => Ok(()),
            Err(source) => Err(LinkError::Request { doing: "removing", link: name.to_string(), source }),
        }
    }

    /// Inside a process's namespace: its address, its neighbour for good, and then up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn inside_ready(
        &self,
        address: Ipv4Addr,
        prefix: u8,
        neighbour: Option<(Ipv4Addr, MacAddr)>,
    ) -> Result<(), LinkError> {
        let request = |doing| move |source| LinkError::Request { doing, link: INSIDE.to_owned(), source };
        let index = self.find(INSIDE).await?.index;
        self.0
            .address()
            .add(index, IpAddr::V4(address), prefix)
            .execute()
            .await
            .map_err(request("giving an address to"))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.0.link().set(up).execute().await.map_err(request("setting up"))?;
        if let Some((node, mac)) = neighbour {
            self.0
                .neighbours()
                .add(index, IpAddr::V4(node))
                .link_layer_address(&mac.octets())
                .state(NeighbourState::Permanent)
                .replace()
                .execute()
                .await
                .map_err(request("entering the node as a neighbour of"))?;
        }
        Ok(())
    }
}

/// The largest packet that the segment takes, where that is less than usual: a VXLAN's frames have a frame around them,
/// and a bridge does not tell anybody that a packet was too large.
fn segment_mtu(links: &BTreeMap<String, Link>) -> Option<u32> {
    let segment =
        links.values().find(|link| link.alias.as_deref().is_some_and(|it| it.starts_with(SEGMENT_ALIAS)));
    segment.map(|link| link.mtu).filter(|mtu| (576..USUAL_MTU).contains(mtu))
}

fn read(message: LinkMessage) -> Option<(String, Link)> {
    let mut name = None;
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, alias: None, controller: None, is_up, mtu: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::IfAlias(text) => link.alias = Some(text),
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    Some((name?, link))
}

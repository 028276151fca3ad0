//! What a network card is used for by the host itself. As a port of a bridge it would hear nothing more of that: a host whose own
//! address is on the nodes' card would be cut off.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::links::{Link, LinkError, Links};
use crate::plan::names::InterfaceName;

impl Links {
    /// What the host uses a card for: an address that somebody gave it, or a bridge or bond that is not `ours`. Nothing of a card
    /// that is not among `all` links.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn use_of(
        &self,
        all: &BTreeMap<String, Link>,
        card: &InterfaceName,
        ours: Option<u32>,
    ) -> Result<Option<String>, LinkError> {
        let Some(link) = all.get(card.as_str()) else { return Ok(None) };
        match link.controller {
            Some(controller) if Some(controller) == ours => return Ok(None),
            Some(controller) => {
                let name = all.iter().find(|(_, link)| link.index == controller).map(|(name, _)| name);
                return Ok(Some(format!("part of {}", name.map_or("another link", String::as_str))));
            }
            None => {}
        }
        self.own_address(card, link.index).await
    }

    /// The address by which a card that is in no bridge is the host's own. Nothing of a card that is not among `all` links.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn loose_use(
        &self,
        all: &BTreeMap<String, Link>,
        card: &InterfaceName,
    ) -> Result<Option<String>, LinkError> {
        match all.get(card.as_str()) {
            Some(link) if link.controller.is_none() => self.own_address(card, link.index).await,
            _ => Ok(None),
        }
    }

    /// An address that somebody gave to a card.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    async fn own_address(&self, card: &InterfaceName, index: u32) -> Result<Option<String>, LinkError> {
        let addresses = self.handle().address().get().set_link_index_filter(index).execute();
        let listing =
            |source| LinkError::Request { doing: "listing addresses", link: card.to_string(), source };
        let addresses: Vec<_> = addresses.try_collect().await.map_err(listing)?;
        Ok(addresses
            .iter()
            .find_map(given)
            .map(|address| format!("the host's own, with the address {address}")))
    }
}

/// The address in a message, when somebody gave it to the link: link-local ones and what a router announced come by themselves.
fn given(message: &AddressMessage) -> Option<IpAddr> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })?;
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let is_permanent = flags.is_some_and(|flags| flags.contains(AddressFlags::Permanent));
    // A server of DHCPv6 gives single addresses (RFC 8415), a router whole prefixes.
    let is_leased = message.header.prefix_len == 128;
    let by_itself =
        address.is_ipv6() && (message.header.scope != AddressScope::Universe || !is_permanent && !is_leased);
    (!by_itself).then_some(address)
}

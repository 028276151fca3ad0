//! Whether a network's addresses are the host's own already: then nothing of it is made.
//!
//! A provisioning network beside one of the host's with the same addresses would not harm the host (the bridge has no
//! address), but a mistake of this kind has been made somewhere, and one of the two networks is meant to be reached.

use std::net::Ipv4Addr;

use bmi_types::Ipv4Net;
use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::RouteMessageBuilder;

use super::links::{LinkError, Links};

/// What of the host's a network overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap(String);

impl std::fmt::Display for Overlap {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(&self.0)
    }
}

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

impl Links {
    /// An address or a route of this host that lies in a network, or around it. A default route is neither.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn overlap(&self, cidr: Ipv4Net) -> Result<Option<Overlap>, LinkError> {
        let listing = |what: &'static str| {
            move |source| LinkError::Request { doing: "listing", link: what.to_owned(), source }
        };
        let addresses = self.handle().address().get().execute().try_collect::<Vec<_>>().await;
        for message in addresses.map_err(listing("addresses"))? {
            let of = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(std::net::IpAddr::V4(address))
                | AddressAttribute::Address(std::net::IpAddr::V4(address)) => Some(*address),
                _ => None,
            };
            if let Some(address) = message.attributes.iter().filter_map(of).find(|it| cidr.contains(it)) {
                return Ok(Some(Overlap(format!("the host's own address {address}"))));
            }
        }
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.handle().route().get(all).execute().try_collect::<Vec<_>>().await;
        for message in routes.map_err(listing("routes"))? {
            let length = message.header.destination_prefix_length;
            let of = |attribute: &RouteAttribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            };
            let destination = message.attributes.iter().find_map(of);
            let route = destination.and_then(|address| Ipv4Net::new(address, length).ok());
            if let Some(route) = route.filter(|route| length > 0 && overlaps(cidr, *route)) {
                return Ok(Some(Overlap(format!("the host's route to {route}"))));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_in_another_overlaps() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        for (one, other, expected) in [
            ("10.1.0.0/24", "10.1.0.0/24", true),
            ("10.1.0.0/24", "10.1.0.128/25", true),
            ("10.1.0.0/24", "10.0.0.0/8", true),
            ("10.1.0.0/24", "10.1.1.0/24", false),
        ] {
            assert_eq!(overlaps(net(one), net(other)), expected, "{one} {other}");
            assert_eq!(overlaps(net(other), net(one)), expected, "{other} {one}");
        }
    }
}
